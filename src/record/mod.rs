//! Recordings of single sessions: what a client has sent and got, for whoever looks for a fault.
//!
//! An operator arms one by a session's id, by a uid or by an address. The shard that has the
//! session cuts its bytes into packages ([`Tap`]), takes out what is secret ([`redact`]) and keeps
//! the rest in a ring of its own ([`Recording`]), which the admin server reads. Sessions that are
//! not recorded do not come here.

mod options;
mod recording;
mod redact;
mod secrets;
mod tap;
mod texts;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

pub(crate) use options::{
    RECORDING_BYTES_MAX, RECORDING_BYTES_MIN, RECORDING_SECONDS_MAX, RECORDINGS_MAX, RecordOptions,
    Target,
};
pub(crate) use recording::{Direction, News, Record, RecordKind, Recording, Snapshot, State};
pub(crate) use redact::{Redactor, SecretRequests};
pub(crate) use secrets::Secrets;
pub(crate) use tap::{Cut, Tap};

use crate::session::SessionInfo;

/// The recordings of an engine. Shards know those that are theirs, and those that wait for a
/// session, by mail; they never come here.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The time of its making, which is the engine's start.
    started: Instant,
    list: Mutex<List>,
    /// The addresses of the listeners.
    addresses: OnceLock<Vec<SocketAddr>>,
}

#[derive(Debug, Default)]
struct List {
    recordings: Vec<Arc<Recording>>,
    last_id: u32,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { started: Instant::now(), list: Mutex::default(), addresses: OnceLock::new() }
    }
}

impl Recorder {
    /// Microseconds since the engine's start.
    pub(crate) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Keeps the addresses of the listeners, which recordings name.
    pub(crate) fn set_addresses(&self, addresses: &[SocketAddr]) {
        self.addresses.get_or_init(|| addresses.to_vec());
    }

    /// The address of a listener.
    pub(crate) fn address(&self, listener: u8) -> Option<SocketAddr> {
        self.addresses.get()?.get(usize::from(listener)).copied()
    }

    /// Adds a recording, of a session or of the next that is wanted. It takes the place of the
    /// oldest that is over; `None` where none is.
    pub(crate) fn arm(
        &self,
        target: Target,
        options: RecordOptions,
        session: Option<SessionInfo>,
        now_us: u64,
    ) -> Option<Arc<Recording>> {
        let mut list = self.lock();
        if list.recordings.len() >= RECORDINGS_MAX {
            let over = list.recordings.iter().position(|it| it.is_over(now_us))?;
            list.recordings.remove(over);
        }
        list.last_id = list.last_id.wrapping_add(1).max(1);
        let recording = Recording::new(list.last_id, target, options, session, now_us);
        let recording = Arc::new(recording);
        list.recordings.push(Arc::clone(&recording));
        Some(recording)
    }

    /// All recordings, the oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Recording>> {
        self.lock().recordings.clone()
    }

    pub(crate) fn find(&self, id: u32) -> Option<Arc<Recording>> {
        self.lock().recordings.iter().find(|it| it.id == id).cloned()
    }

    /// Ends a recording, and forgets it if it is not to be kept.
    pub(crate) fn stop(&self, id: u32, is_kept: bool) -> Option<Arc<Recording>> {
        let mut list = self.lock();
        let at = list.recordings.iter().position(|it| it.id == id)?;
        let recording = Arc::clone(&list.recordings[at]);
        recording.end("stopped");
        if !is_kept {
            list.recordings.remove(at);
        }
        Some(recording)
    }

    /// No code that holds the lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RecordOptions {
        RecordOptions {
            bytes_max: RECORDING_BYTES_MIN,
            has_bodies: false,
            seconds: 10,
            secrets: Arc::new(Secrets::default()),
        }
    }

    #[test]
    fn one_that_is_over_makes_room_and_none_else() {
        let recorder = Recorder::default();
        let arm = |now_us| recorder.arm(Target::Uid("amy".into()), options(), None, now_us);
        let first = arm(0).unwrap();
        for _ in 1..RECORDINGS_MAX {
            arm(0).unwrap();
        }
        assert!(arm(0).is_none());
        recorder.stop(first.id, true).unwrap();
        let next = arm(0).unwrap();
        assert!(recorder.find(first.id).is_none() && recorder.find(next.id).is_some());
        assert!(arm(9_999_999).is_none());
        assert!(arm(10_000_000).is_some(), "their time is over");
        assert_eq!(recorder.list().len(), RECORDINGS_MAX);
        for recording in recorder.list() {
            recorder.stop(recording.id, false);
        }
        assert!(recorder.list().is_empty());
    }
}
