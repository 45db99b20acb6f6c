//! Sessions that are closed by this side: kicked, or because the engine stops.

use std::sync::Arc;

use super::Outbound;
use super::close::CloseCode;
use crate::session::{SessionId, Slot};
use crate::shard::connections::{CloseReason, State};
use crate::shard::listener_config::Dialect;
use crate::wire::package::PackageType;

impl Outbound {
    /// Closes a session with a KICK package if there is a reason, behind all that was queued
    /// before.
    ///
    /// Clients of Pitaya are told no reasons, but of every kick; not of the engine's shutdown,
    /// behind which they connect again, as Pomelo's do unless a reason is set for it.
    pub(in crate::shard) fn kick(&mut self, slot: Slot, reason: Option<&str>, why: CloseReason) {
        let Some(connection) = self.connections.at(slot) else { return };
        match (connection.state, reason) {
            (State::Working(Dialect::Pomelo), Some(reason)) => {
                let body = serde_json::json!({ "reason": reason }).to_string();
                self.send_package(slot, PackageType::Kick, body.as_bytes());
            }
            (State::Working(Dialect::Pitaya), _) if why != CloseReason::Shutdown => {
                self.send_package(slot, PackageType::Kick, b"");
            }
            _ => {}
        }
        let code = match why {
            CloseReason::Shutdown => CloseCode::GoingAway,
            _ => CloseCode::Normal,
        };
        self.close(slot, why, code);
    }

    /// Begins to stop: sessions that wait for nothing are closed now, the others once they have
    /// got their answers.
    pub(in crate::shard) fn drain(&mut self) {
        self.is_draining = true;
        for slot in self.connections.slots() {
            match self.connections.at(slot).map(|connection| connection.state) {
                Some(State::Lingering) => self.hurry(slot),
                _ => self.close_if_drained(slot),
            }
        }
    }

    /// Stops waiting for answers.
    pub(in crate::shard) fn drain_now(&mut self) {
        for slot in self.connections.slots() {
            self.close_for_shutdown(slot);
        }
    }

    /// Closes bare, unless a reason is set: a stop is no kick, which clients take for final, and
    /// the original ends its connections so.
    fn close_for_shutdown(&mut self, slot: Slot) {
        let config = Arc::clone(&self.config);
        self.kick(slot, config.shutdown_kick.as_deref(), CloseReason::Shutdown);
    }

    /// Cuts what is still there.
    pub(in crate::shard) fn cut_all(&mut self) {
        for slot in self.connections.slots() {
            self.connections.cut(slot, CloseReason::Shutdown);
        }
    }

    /// Closes a session that waits for nothing more, if the engine stops.
    pub(in crate::shard) fn close_if_done(&mut self, session: SessionId) {
        if self.is_draining
            && let Some((slot, _)) = self.connections.find(session)
        {
            self.close_if_drained(slot);
        }
    }

    fn close_if_drained(&mut self, slot: Slot) {
        let connection = self.connections.at(slot);
        if connection.is_some_and(|connection| connection.session.in_flight == 0) {
            self.close_for_shutdown(slot);
        }
    }
}
