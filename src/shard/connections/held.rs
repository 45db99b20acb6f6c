//! Input that is held for a later turn, and sessions that are not read.

use super::Connections;
use super::budgets::HeldNow;
use super::held_input::Pause;
use crate::session::{SessionId, Slot};
use crate::shard::config::KeptAliveBy;
use crate::shard::shell::Command;

impl Connections {
    /// Keeps what a session has sent for a later turn, and stops reading from it. `false` where
    /// too much is held; what follows on something held is taken all the same, as the kernel has
    /// been told to stop, and no more is coming than its buffers hold.
    #[inline(never)]
    pub(in crate::shard) fn hold_bytes(&mut self, session: SessionId, bytes: &[u8]) -> bool {
        let Some(connection) = self.table.get(session.slot(), session.generation()) else {
            return true;
        };
        if bytes.is_empty() || !connection.state.is_reading() {
            return true;
        }
        let is_unauthenticated = !connection.state.is_working();
        let now_ms = self.clock.patient_ms();
        let held = self.budgets.hold(session, bytes, is_unauthenticated, now_ms);
        let Some(HeldNow { is_first, pauses }) = held else {
            self.counters.hold_overflows.one();
            return false;
        };
        if is_first && is_unauthenticated {
            self.counters.handshake_waits.one();
        }
        if pauses {
            if !is_unauthenticated {
                self.counters.reading_pauses.one();
            }
            self.commands.push_back(Command::PauseReading(connection.socket));
        }
        true
    }

    /// Reads nothing more of a session until the pause ends.
    #[cold]
    pub(in crate::shard) fn pause_reading(&mut self, session: SessionId, why: Pause) {
        let connection = self.table.get(session.slot(), session.generation());
        let Some(connection) = connection else { return };
        if connection.state.is_reading() && self.budgets.pause(session, why) {
            self.commands.push_back(Command::PauseReading(connection.socket));
        }
    }

    /// Holds what a client sends until there is a verdict on its handshake.
    #[cold]
    pub(in crate::shard) fn await_verdict(&mut self, session: SessionId) {
        if self.get(session).is_some_and(|connection| connection.state.is_reading()) {
            self.budgets.await_verdict(session);
        }
    }

    /// Keeps what stands behind a package in its WebSocket message, if the package has paused its
    /// session or used up its share of the turn; true if it has.
    pub(in crate::shard) fn hold_packages(&mut self, session: SessionId, packages: &[u8]) -> bool {
        if self.budgets.is_charged() && self.budgets.has_room(packages.len()) {
            self.pause_reading(session, Pause::Turn);
            self.budgets.resume(session, Pause::Turn);
        }
        self.budgets.keep_packages(session, packages)
    }

    /// Marks a working client as heard by a package, where any package keeps it.
    #[inline]
    pub(in crate::shard) fn hear_package(&mut self, slot: Slot) {
        let heartbeat = self.config.heartbeat;
        if heartbeat.is_some_and(|it| it.kept_alive_by == KeptAliveBy::AnyPackage)
            && let Some(connection) = self.table.at_mut(slot)
            && connection.state.is_working()
        {
            connection.heard_ms = self.clock.patient_ms();
        }
    }

    /// Marks a client as heard whose sending waits for this shard: it is not silent. One that
    /// waits for its own requests is heard when one of them is answered: futures have no deadline.
    pub(in crate::shard) fn hear_held(&mut self, session: SessionId) {
        let now_ms = self.clock.patient_ms();
        if self.budgets.is_held(session)
            && !self.budgets.waits_for_answers(session)
            && let Some((_, connection)) = self.find(session)
            && connection.state.is_working()
        {
            connection.heard_ms = now_ms;
        }
    }
}
