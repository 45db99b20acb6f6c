//! Clients that do not read: when they are not read either, what is dropped for them, and when they
//! are disconnected.

use super::Outbound;
use crate::session::{SessionId, Slot};
use crate::shard::connections::{CloseReason, Pause};

impl Outbound {
    /// Pauses a session for which an answer was queued, if much waits for it now: no more of what
    /// it asks is read until some of it has gone.
    #[cold]
    pub(in crate::shard) fn pause_for_outbox(&mut self, slot: Slot) {
        let session = self.connections.id_of(slot);
        let Some(connection) = self.connections.at(slot) else { return };
        let bytes = connection.outbox.bytes();
        if bytes > self.config.limits.outbox_bytes_max {
            self.make_room(slot);
        }
        let Some(connection) = self.connections.at(slot) else { return };
        let bytes = bytes.min(connection.outbox.bytes());
        if bytes <= self.pauses.pause_bytes()
            || !connection.state.is_reading()
            || self.pauses.contains(session)
        {
            return;
        }
        if !self.connections.budgets().has_room(0) {
            return self.counters.hold_overflows.one();
        }
        self.pauses.add(session, bytes);
        self.counters.outbox_pauses.one();
        self.connections.pause_reading(session, Pause::Outbox);
    }

    /// Pauses a session if much waits for it now that a heartbeat or a ping was answered.
    #[inline]
    pub(in crate::shard) fn answered(&mut self, slot: Slot) {
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.outbox.bytes() > self.pauses.pause_bytes() {
            self.pause_for_outbox(slot);
        }
    }

    /// Reads a session again if enough has gone to its client. Pushes may keep its outbox full
    /// however well it reads, so it also is when all has gone that waited when its pause began,
    /// and when nothing waits that it is owed: nobody would find it dead then.
    #[cold]
    pub(super) fn resume_for_outbox(&mut self, session: SessionId, sent: usize) {
        let Some(has_gone) = self.pauses.sent(session, sent) else { return };
        let now_ms = self.connections.patient_ms();
        let Some(connection) = self.connections.get(session) else { return };
        let outbox = &connection.outbox;
        if has_gone
            || outbox.bytes() < self.pauses.resume_bytes()
            || outbox.wait_ms(now_ms).is_none()
        {
            self.pauses.forget(session);
            self.connections.budgets_mut().resume(session, Pause::Outbox);
        }
    }

    /// Drops what may be dropped of an outbox in which more waits than may, or else disconnects
    /// its client.
    #[cold]
    pub(super) fn make_room(&mut self, slot: Slot) {
        let bytes_max = self.config.limits.outbox_bytes_max;
        let Some((connection, pool)) = self.connections.at_with_pool(slot) else { return };
        self.counters.pushes_dropped.add(connection.outbox.make_room(bytes_max, pool));
        if connection.outbox.bytes() > bytes_max {
            self.connections.cut(slot, CloseReason::SlowConsumer);
        }
    }

    /// Looks for outboxes in which something has waited for too long.
    pub(in crate::shard) fn expire_outboxes(&mut self) {
        let slots = self.connections.slots_len();
        let (age_ms, now_ms) = (self.config.outbox_age_ms(), self.connections.patient_ms());
        for _ in 0..self.sweep.due(slots, age_ms, now_ms) {
            let slot = self.sweep.next(slots);
            let Some((connection, pool)) = self.connections.at_with_pool(slot) else { continue };
            // The handshake has its own deadline, and so has what follows on the end.
            if !connection.state.is_working() {
                continue;
            }
            self.counters.pushes_dropped.add(connection.outbox.drop_older(age_ms, now_ms, pool));
            if connection.outbox.wait_ms(now_ms).is_some_and(|waited_ms| waited_ms > age_ms) {
                self.connections.cut(slot, CloseReason::OutboxAge);
            }
        }
    }
}
