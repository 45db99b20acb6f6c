//! Handshakes that wait for the embedder's futures, and what is kept for them until then.

use std::collections::VecDeque;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::dispatch::handshake::Admission;
use crate::dispatch::verdict::Admitted;
use crate::session::SessionId;
use crate::wire::handshake::HandshakeRequest;
use crate::wire::http::Headers;

/// The clients of a shard that are about to come in.
#[derive(Default)]
pub(super) struct Admissions {
    /// The headers of those whose handshake has yet to come, where code wants to see them.
    pub(super) headers: FxHashMap<SessionId, Headers>,
    pub(super) waiting: FxHashMap<SessionId, Waiting>,
    /// Bytes that those count for.
    pub(super) bytes: usize,
    /// Verdicts that nobody has taken yet.
    pub(super) done: VecDeque<(SessionId, Admitted)>,
}

/// A handshake that waits.
pub(super) struct Waiting {
    /// Drops its future.
    pub(super) _admission: Admission,
    pub(super) request: Rc<HandshakeRequest>,
    pub(super) bytes: usize,
}

/// Bytes that a handshake counts for at least: its future takes memory too.
pub(super) const BYTES_MIN: usize = 1024;

impl Admissions {
    pub(super) fn forget(&mut self, session: SessionId) {
        self.headers.remove(&session);
        if let Some(waiting) = self.waiting.remove(&session) {
            self.bytes -= waiting.bytes;
        }
    }

    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.headers.contains_key(&session) && !self.waiting.contains_key(&session)
    }

    pub(super) fn finish(&mut self, session: SessionId, admitted: Admitted) {
        self.done.push_back((session, admitted));
    }
}
