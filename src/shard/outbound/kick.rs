//! Sessions that are closed by this side: kicked, or bare because the engine stops.

use std::sync::Arc;

use super::Outbound;
use super::close::CloseCode;
use crate::session::Slot;
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

    /// Closes bare, unless a reason is set: a stop is no kick, which clients take for final, and
    /// the original ends its connections so.
    pub(super) fn close_for_shutdown(&mut self, slot: Slot) {
        let config = Arc::clone(&self.config);
        self.kick(slot, config.shutdown_kick.as_deref(), CloseReason::Shutdown);
    }
}
