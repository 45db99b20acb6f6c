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
use super::door::Door;
use super::global_handle::Target;
use super::send::begin_package;
use crate::dispatch::Request;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::{Failure, Reply};
use crate::route::push::Push;
use crate::session::{SessionId, Slot};
use crate::wire::package::{BODY_BYTES_MAX, Package, PackageType};
use crate::wire::pitaya::{self, Serializer};
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

/// A session's state, as in [`Shard::answer`].
const WORKING: State = State::Working(Dialect::Pitaya);

impl Shard {
    fn door_of(&self, slot: Slot) -> Option<&Door> {
        Some(&self.config.doors[usize::from(self.connections.at(slot)?.door.0)])
    }

    /// Whether a client speaks Pitaya's dialect, in any state.
    pub(super) fn is_pitaya(&self, slot: Slot) -> bool {
        self.door_of(slot).is_some_and(|door| door.dialect == Dialect::Pitaya)
    }

    /// Answers a handshake.
    pub(super) fn handle_pitaya_handshake(&mut self, slot: Slot, body: &[u8]) {
        let Some(door) = self.door_of(slot) else { return };
        let (serializer, compression) = (door.serializer, door.compression);
        let request = pitaya::handshake::parse(body);
        let user = request.map(|request| self.ask_about_handshake(&request));
        let mut answer = self.pool.take();
        if let Some(Ok(user)) = user {
            self.counters.handshakes.one();
            let edition = Arc::clone(self.editions.newest());
            let deflater = self.work.deflater();
            let user = user.as_ref();
            edition.answer_pitaya(serializer, compression, user, deflater, &mut answer);
            self.send_package(slot, PackageType::Handshake, &answer);
            self.note_address(slot);
            if let Some(connection) = self.connections.at_mut(slot)
                && connection.state == State::Inited
            {
                connection.state = State::WaitAck;
                connection.edition = edition.id();
            }
        } else {
            match user {
                Some(Err(handshake::CODE_OLD_CLIENT)) => self.counters.refused_version.one(),
                _ => self.counters.refused_handshake.one(),
            }
            handshake::failure(pitaya::handshake::CODE_BAD_REQUEST, &mut answer);
            self.send_package(slot, PackageType::Handshake, &answer);
            self.close(slot, CloseReason::Refused, CloseCode::Normal);
        }
        self.pool.give(answer);
    }

    /// A package that is not expected before the handshake is done: what a client has to say
    /// before it knows its codes closes it.
    #[cold]
    pub(super) fn unexpected_package(&mut self, slot: Slot, kind: PackageType) {
        self.counters.ignored_packages.one();
        if kind == PackageType::Data && self.is_pitaya(slot) {
            self.protocol_error(slot, CloseCode::Normal);
        }
    }

    /// A package of a working session. Each is a sign of life, and none is echoed.
    #[cold]
    pub(super) fn handle_pitaya_package(&mut self, session: SessionId, package: Package<'_>) {
        let now_ms = self.clock.patient_ms;
        let Some(connection) = self.connections.at_mut(session.slot()) else { return };
        connection.heard_ms = now_ms;
        match package.kind {
            PackageType::Data if pitaya::is_compressed(package.body) => {
                self.handle_compressed_data(session, package.body);
            }
            PackageType::Data => self.handle_plain(session, package.body),
            PackageType::Heartbeat => self.counters.heartbeats.one(),
            _ => self.counters.ignored_packages.one(),
        }
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
    /// long. As by Pitaya one is looked at when the other is due.
    pub(super) fn beat(&mut self, slot: Slot) {
        let now_ms = self.clock.patient_ms;
        let Some(connection) = self.connections.at(slot) else { return };
        if now_ms >= connection.heard_ms + self.config.pitaya_silence_ms() {
            self.close(slot, CloseReason::HeartbeatTimeout, CloseCode::Normal);
            return;
        }
        self.wheel.set(slot, now_ms + self.config.pitaya_heartbeat_ms());
        self.send_package(slot, PackageType::Heartbeat, b"");
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
        let door = &self.config.doors[usize::from(connection.door.0)];
        let (serializer, compression) = (door.serializer, door.compression);
        let mut error = self.pool.take();
        let (mut flag, mut body) = if reply.failed {
            error_of(reply).encode(serializer, &mut error);
            (pitaya::ERROR_BIT, &error[..])
        } else {
            (0, body_of(reply, serializer))
        };
        let mut short = self.pool.take();
        if self.deflate(body, compression, &mut short) {
            flag |= pitaya::COMPRESSED_BIT;
            body = &short;
        }
        let len = message::response_head_len(call.id) + body.len();
        let fits = len <= BODY_BYTES_MAX;
        if fits && let Some(connection) = self.connections.at_mut(slot) {
            let out = begin_package(connection, &mut self.pool, PackageType::Data, len);
            let flag_at = out.len();
            message::encode_response_head(call.id, out);
            out[flag_at] |= flag;
            out.extend_from_slice(body);
            self.counters.answers.one();
        } else {
            crate::log::seldom!(warn, bytes = len, "an answer is too long for a package");
        }
        self.pool.give(error);
        self.pool.give(short);
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
        let door = &self.config.doors[usize::from(connection.door.0)];
        let edition = self.editions.get(connection.edition);
        match push.pitaya(edition, door.compression, self.work.deflater()) {
            Ok(package) => self.queue_shared(slot, &package, push.lossy()),
            Err(error) => {
                crate::log::seldom!(warn, %error, "a push is lost on a session of Pitaya's");
            }
        }
    }

    /// The body that goes to a worker. An empty one is `{}` to everybody here; in protobuf it is a
    /// message of its own, and those two bytes are none.
    pub(super) fn forwarded_body<'a>(&self, slot: Slot, request: &Request<'a>) -> &'a [u8] {
        let body = request.body();
        let is_protobuf = |door: &Door| {
            door.dialect == Dialect::Pitaya && door.serializer == Serializer::Protobuf
        };
        if body == b"{}" && self.door_of(slot).is_some_and(is_protobuf) { b"" } else { body }
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
                    let route = self.link.routes.find(text.as_bytes());
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
/// it is one already.
fn body_of<'a>(reply: &'a Reply<'_>, serializer: Serializer) -> &'a [u8] {
    match (reply.body().unwrap_or_default(), serializer) {
        (b"", Serializer::Json) => b"{}",
        (body, _) => body,
    }
}
