//! What is different for clients of Pitaya (docs/protocol/pitaya.md, "Client dialect"). The bytes
//! themselves are in [`pitaya`].
//!
//! A session of Pitaya's goes the same way as one of Pomelo's up to where they differ: its state
//! says which it is, so that no message of Pomelo's is asked. What both sides call is cold here, as
//! the compiler lays out code by it: it decides what is next to the path of Pomelo's messages.

use std::sync::Arc;

use super::Shard;
use super::close::CloseCode;
use super::connection::{CloseReason, State};
use super::fairness::Pause;
use super::global_handle::Target;
use super::listener::ListenerConfig;
use super::send::begin_package;
use super::wide_ids;
use crate::dispatch::Request;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::{Failure, Reply};
use crate::route::push::Push;
use crate::session::{SessionId, Slot};
use crate::wire::package::{BODY_BYTES_MAX, Package, PackageType};
use crate::wire::pitaya::{self, Compression, Serializer};
use crate::wire::{handshake, message};

/// Whose protocol the clients of a listener speak.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Pomelo's, which the other parts of this documentation are about.
    #[default]
    Pomelo,
    /// Pitaya's, see [`wire::pitaya`](crate::wire::pitaya): its handshake, errors that are marked
    /// as such, compressed bodies, and heartbeats that the server sends.
    Pitaya,
}

/// How many heartbeats were due since a client was heard.
#[derive(Debug, Default)]
pub(super) struct Beats {
    heard_ms: u64,
    silent: u64,
}

/// A session's state, as in [`Shard::answer`].
const WORKING: State = State::Working(Dialect::Pitaya);

impl Shard {
    fn listener_of(&self, slot: Slot) -> Option<&ListenerConfig> {
        Some(&self.config.listeners[usize::from(self.connections.at(slot)?.listener.0)])
    }

    /// Whether a client speaks Pitaya's dialect, in any state.
    pub(super) fn is_pitaya(&self, slot: Slot) -> bool {
        self.listener_of(slot).is_some_and(|listener| listener.dialect == Dialect::Pitaya)
    }

    /// Answers a handshake, also a second one: it is told the newest codes then.
    #[cold]
    pub(super) fn handle_pitaya_handshake(&mut self, slot: Slot, body: &[u8]) {
        let Some(listener) = self.listener_of(slot) else { return };
        let (serializer, mut compression) = (listener.serializer, listener.compression);
        let request = pitaya::handshake::parse(body);
        let user = request.map(|request| self.ask_about_handshake(&request));
        let is_first = self.connections.at(slot).is_some_and(|it| it.state == State::Inited);
        let mut answer = self.pool.take();
        let edition = Arc::clone(self.editions.newest());
        let deflater = self.work.deflater();
        if let Some(Ok(user)) = user {
            self.counters.handshakes.one();
            let user = user.as_ref();
            if !is_first && user.is_some() {
                // Each is compressed anew where the game has its say in it: once is enough.
                compression = Compression::Off;
            }
            edition.answer_pitaya(serializer, compression, user, deflater, &mut answer);
            self.send_package(slot, PackageType::Handshake, &answer);
            self.note_address(slot);
            if let Some(connection) = self.connections.at_mut(slot)
                && connection.state.is_reading()
            {
                connection.edition = edition.id();
                if is_first {
                    connection.state = State::WaitAck;
                }
            }
        } else {
            match user {
                Some(Err(handshake::CODE_OLD_CLIENT)) => self.counters.refused_version.one(),
                _ => self.counters.refused_handshake.one(),
            }
            edition.refuse_pitaya(serializer, compression, deflater, &mut answer);
            self.send_package(slot, PackageType::Handshake, &answer);
            self.close(slot, CloseReason::Refused, CloseCode::Normal);
        }
        self.pool.give(answer);
    }

    /// A package that is not expected before the handshake is done: what a client has to say
    /// before it knows its codes closes it, and another handshake is answered.
    #[cold]
    pub(super) fn unexpected_package(&mut self, slot: Slot, package: Package<'_>) {
        if self.is_pitaya(slot) {
            if package.kind == PackageType::Handshake {
                return self.handle_pitaya_handshake(slot, package.body);
            }
            if package.kind == PackageType::Data {
                self.counters.ignored_packages.one();
                return self.protocol_error(slot, CloseCode::Normal);
            }
        }
        self.counters.ignored_packages.one();
    }

    /// A package of a working session. Each is a sign of life, and none is echoed.
    #[cold]
    pub(super) fn handle_pitaya_package(&mut self, session: SessionId, package: Package<'_>) {
        let now_ms = self.clock.patient_ms;
        let Some(connection) = self.connections.at_mut(session.slot()) else { return };
        connection.heard_ms = now_ms;
        match package.kind {
            PackageType::Data => self.handle_pitaya_data(session, package.body),
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
            return self.protocol_error(slot, CloseCode::Normal);
        }
        self.handle_pitaya_handshake(slot, body);
        self.budgets.left = 0;
        self.pause_for_outbox(slot);
    }

    fn handle_pitaya_data(&mut self, session: SessionId, body: &[u8]) {
        match wide_ids::wide_id(body) {
            Some((id, id_end)) => self.handle_wide(session, body, id, id_end),
            None => self.handle_narrow(session, body),
        }
    }

    fn handle_narrow(&mut self, session: SessionId, body: &[u8]) {
        match pitaya::is_compressed(body) {
            true => self.handle_compressed_data(session, body),
            false => self.handle_plain(session, body),
        }
    }

    /// A request whose id has more bits than any other one's goes on as the same with another id.
    #[cold]
    fn handle_wide(&mut self, session: SessionId, body: &[u8], id: u64, id_end: usize) {
        let name = match u32::try_from(id) {
            Ok(id) if id < wide_ids::NAMES_FIRST => Some(id),
            _ => self.wide_ids.name(session, id),
        };
        let Some(name) = name else { return self.counters.session_in_flight_rejects.one() };
        let mut narrow = self.pool.take();
        wide_ids::rename(body, id_end, name, &mut narrow);
        self.handle_narrow(session, &narrow);
        self.pool.give(narrow);
    }

    #[inline(never)]
    fn handle_plain(&mut self, session: SessionId, body: &[u8]) {
        self.handle_data(session, body);
    }

    /// A message whose body is compressed: whether it may be sent is looked at before anything is
    /// done for it.
    #[inline(never)]
    fn handle_compressed_data(&mut self, session: SessionId, body: &[u8]) {
        let Some((client, _)) = self.admit(session, body) else { return };
        match self.may_work() {
            true => self.handle_compressed(&client, body),
            false => self.wait_for_work(&client, body),
        }
    }

    /// The time has come to send a heartbeat, or to close a client that has been silent for too
    /// long. As by Pitaya one is looked at when the other is due: the client is closed by the first
    /// heartbeat that is due after its time is over, so by the third one since it was heard.
    pub(super) fn beat(&mut self, slot: Slot) {
        let now_ms = self.clock.patient_ms;
        let (silence_ms, beat_ms) =
            (self.config.pitaya_silence_ms(), self.config.pitaya_heartbeat_ms());
        let Some(connection) = self.connections.at(slot) else { return };
        let heard_ms = connection.heard_ms;
        let session = self.id_of(slot);
        let beats = self.beats.entry(session).or_default();
        if beats.heard_ms != heard_ms {
            *beats = Beats { heard_ms, silent: 0 };
        }
        beats.silent += 1;
        // Heartbeats are counted, as each comes a little late.
        if beats.silent > silence_ms / beat_ms.max(1) && now_ms >= heard_ms + silence_ms {
            self.close(slot, CloseReason::HeartbeatTimeout, CloseCode::Normal);
            return;
        }
        self.wheel.set(slot, now_ms + beat_ms);
        self.send_package(slot, PackageType::Heartbeat, b"");
    }

    /// As many requests of a session wait for answers as may: if it is one of Pitaya's it is read
    /// no further, where one of Pomelo's has the next one answered 500.
    #[cold]
    pub(super) fn pause_in_flight(&mut self, session: SessionId) {
        if self.find(session).is_some_and(|(_, connection)| connection.state == WORKING) {
            self.counters.in_flight_pauses.one();
            self.pause_reading(session, Pause::InFlight);
        }
    }

    /// A request is done, so there is room for another one.
    #[cold]
    pub(super) fn resume_in_flight(&mut self, session: SessionId) {
        if !self.budgets.is_held(session) {
            return;
        }
        self.budgets.resume(session, Pause::InFlight);
        // It is silent because it was not read. If nothing is ever answered it is not kept.
        let now_ms = self.clock.patient_ms;
        if let Some((_, connection)) = self.find(session) {
            connection.heard_ms = now_ms;
        }
    }

    /// Answers a request of a client that is still there, as [`Self::answer`] does.
    #[cold]
    pub(super) fn answer_pitaya(&mut self, call: &ClientCall, reply: &Reply<'_>) {
        let slot = call.session.slot();
        let Some(connection) = self.connections.get(slot, call.session.generation()) else {
            return;
        };
        if connection.state != WORKING {
            return;
        }
        let listener = &self.config.listeners[usize::from(connection.listener.0)];
        let (serializer, compression) = (listener.serializer, listener.compression);
        let mut error = self.pool.take();
        let (mut flag, mut body) = if reply.failed {
            error_of(reply).encode(serializer, &mut error);
            (pitaya::ERROR_BIT, &error[..])
        } else {
            (0, body_of(reply, serializer))
        };
        // One that its client has given another one's place to.
        let id = match call.id >= wide_ids::NAMES_FIRST {
            true => self.wide_ids.get(call.session, call.id).unwrap_or_else(|| call.id.into()),
            false => call.id.into(),
        };
        let mut head = self.pool.take();
        head.push(message::RESPONSE_FLAG);
        wide_ids::encode(id, &mut head);
        let mut short = self.pool.take();
        if self.deflate(body, compression, &mut short) {
            flag |= pitaya::COMPRESSED_BIT;
            body = &short;
        }
        let len = head.len() + body.len();
        let fits = len <= BODY_BYTES_MAX;
        if fits && let Some(connection) = self.connections.at_mut(slot) {
            let out = begin_package(connection, &mut self.pool, PackageType::Data, len);
            head[0] |= flag;
            out.extend_from_slice(&head);
            out.extend_from_slice(body);
            self.counters.answers.one();
            if call.id >= wide_ids::NAMES_FIRST {
                self.wide_ids.take(call.session, call.id);
            }
        } else {
            crate::log::seldom!(warn, bytes = len, "an answer is too long for a package");
        }
        self.pool.give(error);
        self.pool.give(short);
        self.pool.give(head);
        match fits {
            true => {
                self.mark_dirty(slot);
                self.pause_for_outbox(slot);
            }
            false => self.answer_pitaya(call, &Reply::error()),
        }
    }

    /// Queues a push that is laid out already, as [`Self::send_shared`] does.
    #[inline(never)]
    pub(super) fn send_shared_pitaya(&mut self, slot: Slot, push: &Push) {
        let Some(connection) = self.connections.at(slot) else { return };
        let listener = &self.config.listeners[usize::from(connection.listener.0)];
        let edition = self.editions.get(connection.edition);
        match push.pitaya(edition, listener.compression, self.work.deflater()) {
            Ok(package) => self.queue_shared(slot, &package, push.lossy()),
            Err(error) => {
                crate::log::seldom!(warn, %error, "a push is lost on a session of Pitaya's");
            }
        }
    }

    /// The body that goes to a worker. An empty one is `{}` to everybody here; of a client of
    /// Pitaya's it stays empty, as by Pitaya: in protobuf it is a message of its own.
    pub(super) fn forwarded_body<'a>(&self, slot: Slot, request: &Request<'a>) -> &'a [u8] {
        if request.is_empty() && self.is_pitaya(slot) { b"" } else { request.body() }
    }

    /// A route that is none of Pomelo's. Of Pitaya's clients one of two parts names a handler of
    /// the server that they are connected to (docs/protocol/pitaya.md, "Forwarding a client
    /// message").
    #[cold]
    pub(super) fn handle_unknown_route(&mut self, client: &ClientCall, request: &Request<'_>) {
        let is_short = request.route().split('.').count() == 2;
        if is_short && self.is_pitaya(client.session.slot()) {
            let text = format!("{}.{}", self.config.server_type, request.route());
            let target = self.config.target(&self.registry, &text);
            match target {
                Target::Unknown => {}
                Target::Attack => return self.handle_attack(client.session.slot()),
                _ => {
                    let route = self.thread.routes.find(text.as_bytes());
                    let client = ClientCall { route, ..*client };
                    let request = Request::new(&text, request.id(), request.body());
                    return self.handle_routed(&client, target, &request);
                }
            }
        }
        self.counters.unknown_route.one();
        self.answer(client, &Reply::failure(Failure::BadRoute));
    }
}

/// What a client is told of a failed request: what its handler or the backend has said, or what
/// has kept the request from them.
fn error_of(reply: &Reply<'_>) -> pitaya::Error {
    if let Some(body) = reply.spoken() {
        return pitaya::Error::from_body(body);
    }
    let (code, msg) = match reply.failure_kind() {
        Some(Failure::BadRoute) => ("PIT-400", "invalid route"),
        Some(Failure::NoHandler) => ("PIT-404", "route not found"),
        Some(Failure::TimedOut) => ("PIT-408", "request timeout"),
        Some(Failure::NoServer) => ("PIT-500", "no servers available of this type"),
        None => ("PIT-500", "internal error"),
    };
    pitaya::Error::new(code, msg)
}

/// The body of an answer that is no error. Nothing at all is an empty object in JSON; in protobuf
/// it is one already. A body without a byte stays one, as by Pitaya.
fn body_of<'a>(reply: &'a Reply<'_>, serializer: Serializer) -> &'a [u8] {
    match (reply.body(), serializer) {
        (Some(body), _) => body,
        (None, Serializer::Json) => b"{}",
        (None, Serializer::Protobuf) => b"",
    }
}
