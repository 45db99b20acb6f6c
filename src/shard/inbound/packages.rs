//! Packages, as the state of their connection has them (docs/protocol/wire.md, "Connection state
//! machine").

use super::Inbound;
use crate::session::{SessionId, Slot};
use crate::shard::connections::State;
use crate::shard::listener_config::Dialect;
use crate::shard::outbound::CloseCode;
use crate::wire::package::{Package, PackageType};

impl Inbound {
    /// | package | Inited | WaitAck | Working |
    /// |---|---|---|---|
    /// | HANDSHAKE | answer | ignore | ignore |
    /// | HANDSHAKE_ACK | ignore | to Working, HEARTBEAT | ignore |
    /// | HEARTBEAT | ignore | ignore | HEARTBEAT |
    /// | DATA | ignore | ignore | handle |
    /// | KICK | close | close | close |
    ///
    /// The answer to a handshake is queued at once, so that what is pipelined behind the handshake
    /// counts; the original loses it.
    pub(super) fn handle_package(&mut self, session: SessionId, package: Package<'_>) {
        let slot = session.slot();
        let now_ms = self.connections().patient_ms();
        let expects_heartbeats = self.config.heartbeat.is_some();
        self.connections().hear_package(slot);
        let Some(connection) = self.connections().at_mut(slot) else { return };
        match (package.kind, connection.state) {
            (PackageType::Data, State::Working(Dialect::Pomelo)) => {
                self.dispatcher.read_data(session, package.body)
            }
            (PackageType::Heartbeat, State::Working(Dialect::Pomelo)) => {
                // Without the option heartbeats are neither sent nor answered.
                if expects_heartbeats {
                    connection.heard_ms = now_ms;
                    self.counters.heartbeats.one();
                    self.outbound().send_package(slot, PackageType::Heartbeat, b"");
                    self.outbound().answered(slot);
                }
            }
            (PackageType::Handshake, State::Inited) => self.handle_handshake(slot, package.body),
            (PackageType::HandshakeAck, State::WaitAck) => self.handle_ack(slot),
            (PackageType::Kick, _) => {
                self.counters.bad_package_type.one();
                self.outbound().protocol_error(slot, CloseCode::Normal);
            }
            (_, State::Working(Dialect::Pitaya)) => self.handle_pitaya_package(session, package),
            _ => self.unexpected_package(slot, package),
        }
    }

    /// A package that is not expected before the handshake is done: what a client has to say
    /// before it knows its codes closes it, and another handshake is answered.
    #[cold]
    pub(super) fn unexpected_package(&mut self, slot: Slot, package: Package<'_>) {
        if self.connections().is_pitaya(slot) {
            if package.kind == PackageType::Handshake {
                return self.handle_handshake(slot, package.body);
            }
            if package.kind == PackageType::Data {
                self.counters.ignored_packages.one();
                return self.outbound().protocol_error(slot, CloseCode::Normal);
            }
        }
        self.counters.ignored_packages.one();
    }

    /// A package of a working session. Each is a sign of life, and none is echoed.
    #[cold]
    pub(super) fn handle_pitaya_package(&mut self, session: SessionId, package: Package<'_>) {
        let now_ms = self.connections().patient_ms();
        let Some(connection) = self.connections().at_mut(session.slot()) else { return };
        connection.heard_ms = now_ms;
        match package.kind {
            PackageType::Data => self.dispatcher.read_pitaya_data(session, package.body),
            PackageType::Heartbeat => self.counters.heartbeats.one(),
            PackageType::Handshake => self.handle_another_handshake(session.slot(), package.body),
            _ => self.counters.ignored_packages.one(),
        }
    }

    /// A handshake of a session that works already. It goes on working, and what it has sent behind
    /// it waits for the next turn, as an answer may be a thousand times as long.
    fn handle_another_handshake(&mut self, slot: Slot, body: &[u8]) {
        if body.len() > self.config.limits.handshake_package_bytes_max {
            self.counters.package_too_long.one();
            return self.outbound().protocol_error(slot, CloseCode::Normal);
        }
        self.handle_handshake(slot, body);
        self.connections().budgets_mut().left = 0;
        self.outbound().pause_for_outbox(slot);
    }
}
