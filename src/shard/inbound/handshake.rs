//! Handshakes (docs/protocol/wire.md, "Handshake").

use std::sync::Arc;

use serde_json::Value;

use super::Inbound;
use crate::dispatch::chain;
use crate::route::edition::EditionId;
use crate::session::Slot;
use crate::shard::config::HandshakeRefusal;
use crate::shard::connections::{CloseReason, State};
use crate::shard::listener_config::Dialect;
use crate::shard::outbound::CloseCode;
use crate::wire::handshake::{self, HandshakeRequest};
use crate::wire::package::PackageType;
use crate::wire::pitaya;
#[cfg(feature = "crypto")]
use crate::wire::signature::PublicKey;

impl Inbound {
    /// Answers a handshake, also a second one: it is told the newest codes then.
    #[cold]
    pub(super) fn handle_pitaya_handshake(&mut self, slot: Slot, body: &[u8]) {
        let request = pitaya::handshake::parse(body);
        let user = request.map(|request| self.ask_about_handshake(&request));
        let is_first = self.connections().at(slot).is_some_and(|it| it.state == State::Inited);
        let mut answer = self.connections().pool().take();
        if let Some(Ok(user)) = user {
            self.counters.handshakes.one();
            self.outbound().accept_pitaya(slot, user.as_ref(), is_first, &mut answer);
            self.outbound().send_package(slot, PackageType::Handshake, &answer);
            self.note_address(slot);
            let edition = self.outbound().newest_edition().id();
            if let Some(connection) = self.connections().at_mut(slot)
                && connection.state.is_reading()
            {
                connection.session.edition = edition;
                if is_first {
                    connection.state = State::WaitAck;
                }
            }
        } else {
            match user {
                Some(Err(handshake::CODE_OLD_CLIENT)) => self.counters.refused_version.one(),
                _ => self.counters.refused_handshake.one(),
            }
            self.outbound().refuse_pitaya(slot, &mut answer);
            self.outbound().send_package(slot, PackageType::Handshake, &answer);
            self.outbound().close(slot, CloseReason::Refused, CloseCode::Normal);
        }
        self.connections().pool().give(answer);
    }

    pub(super) fn handle_handshake(&mut self, slot: Slot, body: &[u8]) {
        if self.connections().is_pitaya(slot) {
            return self.handle_pitaya_handshake(slot, body);
        }
        let mut answer = self.connections().pool().take();
        match self.check_handshake(body, &mut answer) {
            Ok((request, edition)) => {
                self.counters.handshakes.one();
                #[cfg(feature = "crypto")]
                self.keep_key(slot, &request);
                #[cfg(not(feature = "crypto"))]
                drop(request);
                self.outbound().send_package(slot, PackageType::Handshake, &answer);
                self.note_address(slot);
                if let Some(connection) = self.connections().at_mut(slot)
                    && connection.state == State::Inited
                {
                    connection.state = State::WaitAck;
                    connection.session.edition = edition;
                }
            }
            Err(code) => {
                match code {
                    handshake::CODE_OLD_CLIENT => self.counters.refused_version.one(),
                    _ => self.counters.refused_handshake.one(),
                }
                answer.clear();
                handshake::failure(code, &mut answer);
                self.outbound().send_package(slot, PackageType::Handshake, &answer);
                self.outbound().close(slot, CloseReason::Refused, CloseCode::Normal);
            }
        }
        self.connections().pool().give(answer);
    }

    /// Writes the answer to a good handshake, or gives the code of its refusal.
    fn check_handshake(
        &mut self,
        body: &[u8],
        answer: &mut Vec<u8>,
    ) -> Result<(HandshakeRequest, EditionId), u16> {
        let request = HandshakeRequest::parse(body).map_err(|error| error.code())?;
        let user = self.ask_about_handshake(&request)?;
        let edition = self.outbound().newest_edition();
        edition.answers().success(&request, user.as_ref(), answer);
        Ok((request, edition.id()))
    }

    /// Asks the embedder whether to admit a client; gives what it tells the client, or the code of
    /// its refusal.
    fn ask_about_handshake(&self, request: &HandshakeRequest) -> Result<Option<Value>, u16> {
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

    pub(super) fn handle_ack(&mut self, slot: Slot) {
        let now_ms = self.connections().patient_ms();
        let Some(listener) = self.connections().listener_of(slot) else { return };
        let dialect = listener.dialect;
        let Some(connection) = self.connections().at_mut(slot) else { return };
        connection.state = State::Working(dialect);
        connection.heard_ms = now_ms;
        if dialect == Dialect::Pitaya {
            let deadline_ms = now_ms + self.config.pitaya_heartbeat_ms();
            return self.connections().set_deadline(slot, deadline_ms);
        }
        let deadline_ms = now_ms + self.config.silence_ms();
        self.connections().set_deadline(slot, deadline_ms);
        if self.config.heartbeat.is_some() {
            self.outbound().send_package(slot, PackageType::Heartbeat, b"");
        }
    }

    /// Keeps the key that a client tells in its handshake, if it is one. Without one the client
    /// works as in the original, but each of its requests fails.
    #[cfg(feature = "crypto")]
    fn keep_key(&mut self, slot: Slot, request: &HandshakeRequest) {
        if self.config.use_crypto
            && let Some(key) = request.sys("rsa").and_then(PublicKey::from_handshake)
        {
            let session = self.connections().id_of(slot);
            self.dispatcher.keep_key(session, key);
        }
    }

    /// Writes the client's address into its session's settings, if backends are to see it there.
    fn note_address(&mut self, slot: Slot) {
        let config = Arc::clone(&self.config);
        let Some(name) = &config.address_setting else { return };
        if let Some(connection) = self.connections().at_mut(slot) {
            let address = connection.peer.ip().to_string();
            connection.data().make_mut().settings.insert(name.clone(), address.into());
        }
    }
}
