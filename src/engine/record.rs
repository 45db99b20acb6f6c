//! Recordings of sessions, for the admin server.

use std::sync::Arc;

use super::handle::Handle;
use crate::error::HandleError;
use crate::forward::mail::Mail;
use crate::record::{Recorder, Recording};
use crate::session::{SessionId, ShardIndex};

impl Handle {
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.config.recorder
    }

    /// Microseconds since 1970 by the clock of the shards, which does not jump.
    pub(crate) fn recorder_now_us(&self) -> u64 {
        let started_us = self.config.started_unix_ms.saturating_mul(1000);
        started_us.saturating_add(self.config.recorder.elapsed_us())
    }

    /// Has a session's shard record it.
    pub(crate) fn record(
        &self,
        session: SessionId,
        recording: Arc<Recording>,
    ) -> Result<(), HandleError> {
        self.tell(session.shard(), Mail::Record { session, recording })
    }

    /// Has a shard record the next session that is wanted, unless another shard has one first.
    pub(crate) fn record_next(
        &self,
        shard: ShardIndex,
        recording: Arc<Recording>,
    ) -> Result<(), HandleError> {
        self.tell(shard, Mail::RecordNext(recording))
    }

    /// Has a session's shard record it no longer.
    pub(crate) fn stop_recording(&self, session: SessionId) -> Result<(), HandleError> {
        self.tell(session.shard(), Mail::StopRecording(session))
    }
}
