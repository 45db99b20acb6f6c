//! Sessions that are not read because they do not read their answers, and the look at all outboxes
//! for what has waited too long.

use rustc_hash::FxHashMap;

use crate::limits::Limits;
use crate::session::{SessionId, Slot};

/// Progress of the look at all outboxes. It goes on a little in each turn, so that no turn
/// has to look at all of them, and no send has to set a deadline.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: usize,
    /// Until when slots have been looked at in time.
    swept_ms: u64,
}

/// Looks at each outbox in the time that something may wait in it.
const SWEEPS_PER_AGE: u64 = 8;

impl Sweep {
    /// The number of slots to look at now.
    pub(super) fn due(&mut self, slots: usize, age_ms: u64, now_ms: u64) -> usize {
        let passed_ms = now_ms.saturating_sub(self.swept_ms).min(age_ms);
        let due = slots as u64 * passed_ms * SWEEPS_PER_AGE / age_ms.max(1);
        if due > 0 || slots == 0 {
            self.swept_ms = now_ms;
        }
        (due as usize).min(slots)
    }

    /// The next of them.
    pub(super) fn next(&mut self, slots: usize) -> Slot {
        let next = if self.next < slots { self.next } else { 0 };
        self.next = next + 1;
        Slot(next as u32)
    }
}

/// The sessions that are not read on because they do not read their answers.
#[derive(Debug)]
pub(super) struct OutboxPauses {
    pause_bytes: usize,
    resume_bytes: usize,
    /// The bytes that each of them had waiting, less those sent since.
    left: FxHashMap<SessionId, usize>,
}

/// The part of `outbox_bytes_max` above which an answer pauses its session. What it has asked for
/// so far finds the other half.
const PAUSE_PART: usize = 2;
/// The part below which the session is read again.
const RESUME_PART: usize = 4;

impl OutboxPauses {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            pause_bytes: limits.outbox_bytes_max / PAUSE_PART,
            resume_bytes: limits.outbox_bytes_max / RESUME_PART,
            left: FxHashMap::default(),
        }
    }

    #[inline]
    pub(super) fn pause_bytes(&self) -> usize {
        self.pause_bytes
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// True if a session is paused.
    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.left.contains_key(&session)
    }

    /// Pauses a session for which so many bytes wait.
    pub(super) fn add(&mut self, session: SessionId, bytes: usize) {
        self.left.insert(session, bytes);
    }

    /// Counts what was sent to a session; `None` if it is not paused, else true if all has gone
    /// that waited when its pause began.
    pub(super) fn sent(&mut self, session: SessionId, bytes: usize) -> Option<bool> {
        let left = self.left.get_mut(&session)?;
        *left = left.saturating_sub(bytes);
        Some(*left == 0)
    }

    /// The bytes in an outbox below which its session is read again.
    pub(super) fn resume_bytes(&self) -> usize {
        self.resume_bytes
    }

    /// The session has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        if !self.left.is_empty() {
            self.left.remove(&session);
        }
    }

    /// True if nothing is known of a session.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.left.contains_key(&session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_looked_at_every_eighth_of_the_age() {
        const SLOTS: usize = 3;
        const AGE_MS: u64 = 8_000;
        let mut sweep = Sweep::default();
        let mut seen = [0; SLOTS];
        for now_ms in (0..=AGE_MS).step_by(20) {
            for _ in 0..sweep.due(SLOTS, AGE_MS, now_ms) {
                seen[sweep.next(SLOTS).index()] += 1;
            }
        }
        assert!(seen.iter().all(|times| (7..=8).contains(times)), "{seen:?}");
        assert_eq!(sweep.due(SLOTS, AGE_MS, 10 * AGE_MS), SLOTS, "once, after a long pause");
        assert_eq!(sweep.due(0, AGE_MS, 20 * AGE_MS), 0);
    }
}
