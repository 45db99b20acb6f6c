//! Long answers and pushes: what a turn takes of them, and who gets them.

use rustc_hash::FxHashSet;

use crate::limits::turn::{ANSWER_BYTES_PER_TURN, ANSWER_BYTES_PER_TURN_MAX};
use crate::session::SessionId;

/// For so long a session that has got a long answer is known for it, and for as long again at
/// most.
const KNOWN_MS: u64 = 10_000;

/// The bytes that a turn may take of long answers, and the sessions that have got some.
#[derive(Debug, Default)]
pub(super) struct LongAnswers {
    /// Bytes that this turn has taken.
    taken: usize,
    /// Sessions that have got one since `since_ms`, and in the period before.
    sessions: [FxHashSet<SessionId>; 2],
    /// The time at which the period began, on the shard's patient clock.
    since_ms: u64,
}

impl LongAnswers {
    #[inline]
    pub(super) fn begin_turn(&mut self, now_ms: u64) {
        self.taken = 0;
        if now_ms.saturating_sub(self.since_ms) >= KNOWN_MS {
            let [now, before] = &mut self.sessions;
            *before = std::mem::take(now);
            self.since_ms = now_ms;
        }
    }

    /// Counts what nobody has asked for.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// Counts what a session has got.
    pub(super) fn charge_to(&mut self, session: SessionId, bytes: usize) {
        self.charge(bytes);
        self.sessions[0].insert(session);
    }

    #[inline]
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// True if whoever may get another one has to wait.
    #[inline]
    pub(super) fn are_enough(&self) -> bool {
        self.taken >= ANSWER_BYTES_PER_TURN
    }

    /// True if everybody has to wait.
    pub(super) fn are_too_many(&self) -> bool {
        self.taken >= ANSWER_BYTES_PER_TURN_MAX
    }

    /// True if a session has got one lately.
    pub(super) fn has_got(&self, session: SessionId) -> bool {
        self.sessions.iter().any(|sessions| sessions.contains(&session))
    }
}
