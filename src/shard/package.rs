//! The connection's states (docs/protocol/wire.md, "Connection state machine").

use std::sync::Arc;

use serde_json::Value;

use super::Shard;
use super::close::CloseCode;
use super::config::{HandshakeRefusal, KeptAliveBy};
use super::connection::{CloseReason, State};
use super::dialect::Dialect;
use crate::dispatch::chain;
use crate::route::edition::EditionId;
use crate::session::{SessionId, Slot};
use crate::wire::handshake::{self, HandshakeRequest};
use crate::wire::package::{Package, PackageType};

impl Shard {
    /// | package | Inited | WaitAck | Working |
    /// |---|---|---|---|
    /// | HANDSHAKE | answer | ignore | ignore |
    /// | HANDSHAKE_ACK | ignore | to Working, HEARTBEAT | ignore |
    /// | HEARTBEAT | ignore | ignore | HEARTBEAT |
    /// | DATA | ignore | ignore | handle |
    /// | KICK | close | close | close |
    ///
    /// The answer to a handshake is queued at once, so that what is pipelined behind the handshake
    /// counts; the original loses it. What is different for Pitaya's clients is in
    /// [`dialect`](super::dialect).
    pub(super) fn handle_package(&mut self, session: SessionId, package: Package<'_>) {
        let slot = session.slot();
        let now_ms = self.clock.patient_ms;
        let kept_alive_by = self.config.heartbeat.map(|heartbeat| heartbeat.kept_alive_by);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if kept_alive_by == Some(KeptAliveBy::AnyPackage) && connection.state.is_working() {
            connection.heard_ms = now_ms;
        }
        match (package.kind, connection.state) {
            (PackageType::Data, State::Working(Dialect::Pomelo)) => {
                self.handle_data(session, package.body)
            }
            (PackageType::Heartbeat, State::Working(Dialect::Pomelo)) => {
                // Without the option heartbeats are neither sent nor answered.
                if kept_alive_by.is_some() {
                    connection.heard_ms = now_ms;
                    self.counters.heartbeats.one();
                    self.send_package(slot, PackageType::Heartbeat, b"");
                    self.answered(slot);
                }
            }
            (PackageType::Handshake, State::Inited) => self.handle_handshake(slot, package.body),
            (PackageType::HandshakeAck, State::WaitAck) => self.handle_ack(slot),
            (PackageType::Kick, _) => {
                self.counters.bad_package_type.one();
                self.protocol_error(slot, CloseCode::Normal);
            }
            (_, State::Working(Dialect::Pitaya)) => self.handle_pitaya_package(session, package),
            _ => self.unexpected_package(slot, package),
        }
    }

    fn handle_handshake(&mut self, slot: Slot, body: &[u8]) {
        if self.is_pitaya(slot) {
            return self.handle_pitaya_handshake(slot, body);
        }
        let mut answer = self.pool.take();
        match self.check_handshake(body, &mut answer) {
            Ok((request, edition)) => {
                self.counters.handshakes.one();
                #[cfg(feature = "crypto")]
                self.keep_key(slot, &request);
                #[cfg(not(feature = "crypto"))]
                drop(request);
                self.send_package(slot, PackageType::Handshake, &answer);
                self.note_address(slot);
                if let Some(connection) = self.connections.at_mut(slot)
                    && connection.state == State::Inited
                {
                    connection.state = State::WaitAck;
                    connection.edition = edition;
                }
            }
            Err(code) => {
                match code {
                    handshake::CODE_OLD_CLIENT => self.counters.refused_version.one(),
                    _ => self.counters.refused_handshake.one(),
                }
                answer.clear();
                handshake::failure(code, &mut answer);
                self.send_package(slot, PackageType::Handshake, &answer);
                self.close(slot, CloseReason::Refused, CloseCode::Normal);
            }
        }
        self.pool.give(answer);
    }

    /// Writes the answer to a good handshake, or gives the code of its refusal.
    fn check_handshake(
        &self,
        body: &[u8],
        answer: &mut Vec<u8>,
    ) -> Result<(HandshakeRequest, EditionId), u16> {
        let request = HandshakeRequest::parse(body).map_err(|error| error.code())?;
        let user = self.ask_about_handshake(&request)?;
        let edition = self.editions.newest();
        edition.answers().success(&request, user.as_ref(), answer);
        Ok((request, edition.id()))
    }

    /// Asks the embedder whether a client may come in; gives what it wants to tell it, or the code
    /// of its refusal.
    pub(super) fn ask_about_handshake(
        &self,
        request: &HandshakeRequest,
    ) -> Result<Option<Value>, u16> {
        let config = Arc::clone(&self.config);
        if let Some(check) = &config.check_client {
            let (sys_type, version) = (request.sys_type.as_deref(), request.version.as_deref());
            match chain::guarded(|| check(sys_type, version)) {
                Some(true) => {}
                Some(false) => return Err(handshake::CODE_OLD_CLIENT),
                None => return Err(handshake::CODE_FAIL),
            }
        }
        match &config.user_handshake {
            None => Ok(None),
            Some(callback) => chain::guarded(|| callback(request))
                .unwrap_or(Err(HandshakeRefusal))
                .map_err(|HandshakeRefusal| handshake::CODE_FAIL),
        }
    }

    fn handle_ack(&mut self, slot: Slot) {
        let now_ms = self.clock.patient_ms;
        let Some(connection) = self.connections.at_mut(slot) else { return };
        let dialect = self.config.listeners[usize::from(connection.listener.0)].dialect;
        connection.state = State::Working(dialect);
        connection.heard_ms = now_ms;
        if dialect == Dialect::Pitaya {
            self.wheel.set(slot, now_ms + self.config.pitaya_heartbeat_ms());
            return;
        }
        self.wheel.set(slot, now_ms + self.config.silence_ms());
        if self.config.heartbeat.is_some() {
            self.send_package(slot, PackageType::Heartbeat, b"");
        }
    }
}
