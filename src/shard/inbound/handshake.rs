//! Handshakes (docs/protocol/wire.md, "Handshake").

use std::rc::Rc;
use std::sync::Arc;

use super::Inbound;
use crate::dispatch::entry::Unserved;
use crate::dispatch::handler_thread::HandlerThread as _;
use crate::dispatch::handshake::{Handshake, HandshakeCheck};
use crate::dispatch::verdict::{Refusal, Welcome};
use crate::session::Slot;
use crate::shard::connections::{CloseReason, Pause, State};
use crate::shard::listener_config::Dialect;
use crate::shard::outbound::CloseCode;
use crate::wire::handshake::{self, HandshakeRequest};
use crate::wire::package::PackageType;
use crate::wire::pitaya;
#[cfg(feature = "crypto")]
use crate::wire::signature::PublicKey;

impl Inbound {
    /// Answers a handshake, or asks the embedder's future about it first. A client of Pitaya's may
    /// send a second one: it is told the newest codes then.
    #[cold]
    pub(super) fn handle_handshake(&mut self, slot: Slot, body: &[u8]) {
        let request = match self.connections().is_pitaya(slot) {
            true => pitaya::handshake::parse(body),
            false => HandshakeRequest::parse(body).ok(),
        };
        let Some(request) = request else { return self.refuse(slot, &Refusal::new()) };
        let is_first = self.connections().at(slot).is_some_and(|it| it.state == State::Inited);
        // What a working session has come in by still holds.
        if is_first && self.is_unserved(slot, &request) {
            return;
        }
        if is_first && self.config.figures.refuses_logins() {
            // Closed as by the drain itself: its client connects again, to another connector.
            self.counters.refused_draining.one();
            crate::log::seldom!(info, "a login was refused, as the engine drains");
            return self.outbound().close(slot, CloseReason::Refused, CloseCode::GoingAway);
        }
        let config = Arc::clone(&self.config);
        if let Some(check) = &config.check_client {
            let (sys_type, version) = (request.sys_type.as_deref(), request.version.as_deref());
            match self.dispatcher.call_back("check_client", || check(sys_type, version)) {
                Some(true) => {}
                Some(false) => return self.refuse_old(slot, &Refusal::new()),
                None => return self.refuse(slot, &Refusal::new()),
            }
        }
        let Some(check) = &config.handshake else {
            return self.welcome(slot, &request, Welcome::new());
        };
        let Some(handshake) = self.describe(slot, request) else { return };
        match check {
            HandshakeCheck::Now(check) => {
                let admitted = self.dispatcher.call_back("user_handshake", || check(&handshake));
                match admitted.unwrap_or_else(|| Err(Refusal::new())) {
                    Ok(welcome) => self.welcome(slot, &handshake.request, welcome),
                    Err(refusal) => self.refuse(slot, &refusal),
                }
            }
            // What the first has come to still holds.
            HandshakeCheck::Later(_) if !is_first => {
                self.welcome(slot, &handshake.request, Welcome::new());
            }
            HandshakeCheck::Later(_) => self.ask_about(slot, check, handshake, body.len()),
        }
    }

    /// Refuses a client in maintenance, or by its version or type; true if it did.
    fn is_unserved(&mut self, slot: Slot, request: &HandshakeRequest) -> bool {
        let peer = self.connections().at(slot).map(|connection| connection.peer.ip());
        if let (Some(maintenance), Some(peer)) = (self.maintenance.clone(), peer)
            && let Some(refusal) = maintenance.refuses(peer)
        {
            self.counters.refused_maintenance.one();
            crate::log::seldom!(info, %peer, "a handshake was refused for maintenance");
            self.answer_refused(slot, refusal.code, refusal.text.as_deref());
            return true;
        }
        let rules = Arc::clone(&self.client_rules);
        match rules.check(request) {
            Ok(()) => return false,
            Err(Unserved::Version(refusal)) => self.refuse_old(slot, refusal),
            Err(Unserved::Type(refusal)) => {
                self.counters.refused_type.one();
                let peer = peer.map(tracing::field::display);
                crate::log::seldom!(info, peer, "a handshake was refused for its client's type");
                self.answer_refused(slot, refusal.code, refusal.text.as_deref());
            }
        }
        true
    }

    /// Makes of a request what the embedder's code sees.
    fn describe(&mut self, slot: Slot, request: HandshakeRequest) -> Option<Handshake> {
        let session = self.connections().id_of(slot);
        let connection = self.connections().at(slot)?;
        let (peer, listener) = (connection.peer, usize::from(connection.listener.0));
        let (headers, context) = (self.dispatcher.take_headers(session), self.dispatcher.context());
        Some(Handshake { request: Rc::new(request), headers, session, peer, listener, context })
    }

    /// Lets the client wait for the embedder's future. One that waits for nothing is done at once.
    fn ask_about(
        &mut self,
        slot: Slot,
        check: &HandshakeCheck,
        handshake: Handshake,
        body_bytes: usize,
    ) {
        let session = handshake.session;
        if !self.dispatcher.begin_admission(check, handshake, body_bytes) {
            return self.refuse(slot, &Refusal::new());
        }
        self.connections().await_verdict(session);
        self.dispatcher.run_tasks();
        self.finish_handshakes();
    }

    /// Answers the handshakes whose futures have come to a verdict.
    pub(in crate::shard) fn finish_handshakes(&mut self) {
        while let Some((session, request, admitted)) = self.dispatcher.take_admitted() {
            let slot = session.slot();
            let connection = self.connections().get(session);
            if connection.is_some_and(|connection| connection.state == State::Inited) {
                match admitted {
                    Ok(welcome) => self.welcome(slot, &request, welcome),
                    Err(refusal) => self.refuse(slot, &refusal),
                }
            }
            self.connections().budgets_mut().resume(session, Pause::Handshake);
            self.dispatcher.settle();
        }
    }

    /// Answers a good handshake.
    fn welcome(&mut self, slot: Slot, request: &HandshakeRequest, welcome: Welcome) {
        let is_pitaya = self.connections().is_pitaya(slot);
        let Some(connection) = self.connections().at_mut(slot) else { return };
        let is_first = connection.state == State::Inited;
        if is_first && !welcome.settings.is_empty() {
            connection.data().make_mut().settings.extend(welcome.settings);
        }
        self.counters.handshakes.one();
        let mut answer = self.connections().pool().take();
        let user = welcome.user.as_ref();
        if is_pitaya {
            self.outbound().accept_pitaya(slot, user, is_first, &mut answer);
        } else {
            self.outbound().newest_edition().answers().success(request, user, &mut answer);
            #[cfg(feature = "crypto")]
            self.keep_key(slot, request);
        }
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
        self.connections().pool().give(answer);
    }

    fn refuse(&mut self, slot: Slot, refusal: &Refusal) {
        self.counters.refused_handshake.one();
        let peer =
            self.connections().at(slot).map(|connection| tracing::field::display(connection.peer));
        let code = refusal.code;
        crate::log::seldom!(info, peer, code, "a handshake was refused");
        self.answer_refused(slot, refusal.code, refusal.text.as_deref());
    }

    /// Refuses a client by its version; Pitaya has no code of its own for that.
    fn refuse_old(&mut self, slot: Slot, refusal: &Refusal) {
        self.counters.refused_version.one();
        let peer =
            self.connections().at(slot).map(|connection| tracing::field::display(connection.peer));
        crate::log::seldom!(info, peer, "a handshake was refused for its client's version");
        let is_pitaya = self.connections().is_pitaya(slot);
        let by_default = (!is_pitaya).then_some(handshake::CODE_OLD_CLIENT);
        self.answer_refused(slot, refusal.code.or(by_default), refusal.text.as_deref());
    }

    /// Answers a refused handshake, by default with the code of the client's dialect, and closes.
    fn answer_refused(&mut self, slot: Slot, code: Option<u16>, text: Option<&str>) {
        let mut answer = self.connections().pool().take();
        if self.connections().is_pitaya(slot) {
            let code = code.unwrap_or(pitaya::handshake::CODE_BAD_REQUEST);
            self.outbound().refuse_pitaya(slot, code, text, &mut answer);
        } else {
            let code = code.unwrap_or(handshake::CODE_FAIL);
            match text {
                None => handshake::failure(code, &mut answer),
                Some(text) => handshake::failure_with_text(code, text, &mut answer),
            }
        }
        self.outbound().send_package(slot, PackageType::Handshake, &answer);
        self.outbound().close(slot, CloseReason::Refused, CloseCode::Normal);
        self.connections().pool().give(answer);
    }

    pub(super) fn handle_ack(&mut self, slot: Slot) {
        let now_ms = self.connections().patient_ms();
        let Some(listener) = self.connections().listener_of(slot) else { return };
        let dialect = listener.dialect;
        let Some(connection) = self.connections().at_mut(slot) else { return };
        connection.state = State::Working(dialect);
        connection.heard_ms = now_ms;
        let deadline_ms = match dialect {
            Dialect::Pomelo => now_ms + self.config.silence_ms(),
            Dialect::Pitaya => now_ms + self.config.pitaya_heartbeat_ms(),
        };
        self.connections().set_deadline(slot, deadline_ms);
        if dialect == Dialect::Pomelo && self.config.heartbeat.is_some() {
            self.outbound().send_package(slot, PackageType::Heartbeat, b"");
        }
        let session = self.connections().id_of(slot);
        self.dispatcher.open_session(session);
        // What it asks for comes before what the client has sent behind.
        self.dispatcher.settle();
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
