//! Clients that do not read: when they are not read either, what is dropped for them, and when they
//! are disconnected.

use rustc_hash::FxHashMap;

use super::Shard;
use super::connection::{CloseReason, Connection};
use super::fairness::Pause;
use crate::limits::Limits;
use crate::session::{SessionId, Slot};

/// How far the look at all outboxes has come. It goes on a little in each turn, so that no turn
/// has to look at all of them, and no send has to set a deadline.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: usize,
    /// Until when slots have been looked at in time.
    swept_ms: u64,
}

/// How often each outbox is looked at in the time that something may wait in it.
const SWEEPS_PER_AGE: u64 = 8;

impl Sweep {
    /// How many slots are to be looked at now.
    fn due(&mut self, slots: usize, age_ms: u64, now_ms: u64) -> usize {
        let passed_ms = now_ms.saturating_sub(self.swept_ms).min(age_ms);
        let due = slots as u64 * passed_ms * SWEEPS_PER_AGE / age_ms.max(1);
        if due > 0 || slots == 0 {
            self.swept_ms = now_ms;
        }
        (due as usize).min(slots)
    }

    /// The next of them.
    fn next(&mut self, slots: usize) -> Slot {
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
    /// What each of them had waiting, less what has been sent since.
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

    /// The session has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        if !self.left.is_empty() {
            self.left.remove(&session);
        }
    }

    /// Whether nothing is known of a session.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.left.contains_key(&session)
    }
}

impl Shard {
    /// An answer was queued, and may have found that much waits for its client: no more of what it
    /// asks is read until some of it has gone.
    #[cold]
    pub(super) fn pause_for_outbox(&mut self, slot: Slot) {
        let session = self.id_of(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        let bytes = connection.outbox.bytes();
        if bytes > self.config.limits.outbox_bytes_max {
            self.make_room(slot);
        }
        let Some(connection) = self.connections.at(slot) else { return };
        let bytes = bytes.min(connection.outbox.bytes());
        if bytes <= self.outbox_pauses.pause_bytes
            || !connection.state.is_reading()
            || self.outbox_pauses.left.contains_key(&session)
        {
            return;
        }
        if !self.budgets.has_room(0) {
            return self.counters.hold_overflows.one();
        }
        self.outbox_pauses.left.insert(session, bytes);
        self.counters.outbox_pauses.one();
        self.pause_reading(session, Pause::Outbox);
    }

    /// A heartbeat or a ping was answered: so much of that pauses a session, too.
    #[inline]
    pub(super) fn answered(&mut self, slot: Slot) {
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.outbox.bytes() > self.outbox_pauses.pause_bytes {
            self.pause_for_outbox(slot);
        }
    }

    /// Something has gone to a client: whether it is read again. Pushes may keep its outbox full
    /// however well it reads, so it also is when all has gone that waited when its pause began,
    /// and when nothing waits that it is owed: nobody would find it dead then.
    #[cold]
    pub(super) fn resume_for_outbox(&mut self, session: SessionId, sent: usize) {
        let Some(left) = self.outbox_pauses.left.get_mut(&session) else { return };
        *left = left.saturating_sub(sent);
        let has_gone = *left == 0;
        let connection = self.connections.get(session.slot(), session.generation());
        let Some(Connection { outbox, .. }) = connection else { return };
        if has_gone
            || outbox.bytes() < self.outbox_pauses.resume_bytes
            || outbox.owed_ms(self.clock.patient_ms).is_none()
        {
            self.outbox_pauses.left.remove(&session);
            self.budgets.resume(session, Pause::Outbox);
        }
    }

    /// More waits for a client than may: drops what may be dropped, or else disconnects it.
    #[cold]
    pub(super) fn make_room(&mut self, slot: Slot) {
        let bytes_max = self.config.limits.outbox_bytes_max;
        let Some(connection) = self.connections.at_mut(slot) else { return };
        let dropped = connection.outbox.make_room(bytes_max, &mut self.pool);
        self.counters.pushes_dropped.add(dropped);
        if connection.outbox.bytes() > bytes_max {
            self.cut(slot, CloseReason::SlowConsumer);
        }
    }

    /// Looks for outboxes in which something has waited for too long.
    pub(super) fn expire_outboxes(&mut self) {
        let slots = self.connections.slots_len();
        let (age_ms, now_ms) = (self.config.outbox_age_ms(), self.clock.patient_ms);
        for _ in 0..self.sweep.due(slots, age_ms, now_ms) {
            let slot = self.sweep.next(slots);
            let Some(connection) = self.connections.at_mut(slot) else { continue };
            // The handshake has its own deadline, and so has what follows on the end.
            if !connection.state.is_working() {
                continue;
            }
            let dropped = connection.outbox.drop_older(age_ms, now_ms, &mut self.pool);
            self.counters.pushes_dropped.add(dropped);
            if connection.outbox.owed_ms(now_ms).is_some_and(|waited_ms| waited_ms > age_ms) {
                self.cut(slot, CloseReason::OutboxAge);
            }
        }
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
