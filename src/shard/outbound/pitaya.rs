//! Answers and pushes in Pitaya's dialect (docs/protocol/pitaya.md).

use serde_json::Value;

use super::Outbound;
use super::compressor::Compressed;
use super::package::begin_package;
use super::wide_ids;
use crate::dispatch::Failure;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::route::push::Push;
use crate::session::Slot;
use crate::shard::connections::State;
use crate::shard::listener_config::Dialect;
use crate::wire::message;
use crate::wire::package::{BODY_BYTES_MAX, PackageType};
use crate::wire::pitaya::{self, Compression, Serializer};

/// A session's state, as in [`Outbound::answer`].
const WORKING: State = State::Working(Dialect::Pitaya);

impl Outbound {
    /// Answers a request of a client that is still there, as [`Self::answer`] does.
    #[cold]
    pub(super) fn answer_pitaya(&mut self, call: &ClientCall, reply: &Reply<'_>) {
        let slot = call.session.slot();
        let Some(connection) = self.connections.get(call.session) else { return };
        if connection.state != WORKING {
            return;
        }
        let listener = self.config.listener(connection.listener);
        let (serializer, compression) = (listener.serializer, listener.compression);
        let pool = self.connections.pool();
        let (mut error, mut head, mut short) = (pool.take(), pool.take(), pool.take());
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
        head.push(message::RESPONSE_FLAG);
        wide_ids::encode(id, &mut head);
        match self.compressor.compress(body, compression, &mut short) {
            Compressed::Shorter => (flag, body) = (flag | pitaya::COMPRESSED_BIT, &short),
            Compressed::Skipped => self.counters.compression_skips.one(),
            Compressed::Plain => {}
        }
        let len = head.len() + body.len();
        let fits = len <= BODY_BYTES_MAX;
        if fits && let Some((connection, pool)) = self.connections.at_with_pool(slot) {
            let out = begin_package(connection, pool, PackageType::Data, len);
            head[0] |= flag;
            out.extend_from_slice(&head);
            out.extend_from_slice(body);
            connection.traffic.note_sent(1);
            self.counters.answers.one();
            if call.id >= wide_ids::NAMES_FIRST {
                self.wide_ids.take(call.session, call.id);
            }
        } else {
            crate::log::seldom!(warn, bytes = len, "an answer is too long for a package");
        }
        for buffer in [error, head, short] {
            self.connections.pool().give(buffer);
        }
        match fits {
            true => {
                self.mark_dirty(slot);
                self.pause_for_outbox(slot);
                self.connections.budgets_mut().answered(call.session, len);
            }
            false => self.answer_pitaya(call, &Reply::error()),
        }
    }

    /// Queues a push that is laid out already, as [`Self::send_shared`] does.
    #[inline(never)]
    pub(super) fn send_shared_pitaya(&mut self, slot: Slot, push: &Push) {
        let Some(connection) = self.connections.at(slot) else { return };
        let listener = self.config.listener(connection.listener);
        let edition = self.editions.get(connection.session.edition);
        match push.pitaya(edition, listener.compression, self.compressor.deflater()) {
            Ok(package) => self.queue_shared(slot, &package, push.lossy()),
            Err(error) => {
                crate::log::seldom!(warn, %error, "a push is lost on a session of Pitaya's");
            }
        }
    }

    /// Writes the answer to a good handshake of a client of Pitaya's, with what the embedder tells
    /// it.
    pub(in crate::shard) fn accept_pitaya(
        &mut self,
        slot: Slot,
        user: Option<&Value>,
        is_first: bool,
        answer: &mut Vec<u8>,
    ) {
        let Some(connection) = self.connections.at(slot) else { return };
        let listener = self.config.listener(connection.listener);
        // Each is compressed anew where the game has its say in it: once is enough.
        let compression = match is_first || user.is_none() {
            true => listener.compression,
            false => Compression::Off,
        };
        let deflater = self.compressor.deflater();
        let edition = self.editions.newest();
        edition.answer_pitaya(listener.serializer, compression, user, deflater, answer);
    }

    /// Writes the answer to a handshake of a client of Pitaya's that is refused, with a text if
    /// there is one.
    pub(in crate::shard) fn refuse_pitaya(
        &mut self,
        slot: Slot,
        code: u16,
        text: Option<&str>,
        answer: &mut Vec<u8>,
    ) {
        let Some(connection) = self.connections.at(slot) else { return };
        let listener = self.config.listener(connection.listener);
        let deflater = self.compressor.deflater();
        let edition = self.editions.newest();
        let (serializer, compression) = (listener.serializer, listener.compression);
        edition.refuse_pitaya((code, text), serializer, compression, deflater, answer);
    }
}

/// The error that a client gets for a failed request: that of its handler or the backend, or the
/// one that has kept the request from them.
fn error_of(reply: &Reply<'_>) -> pitaya::Error {
    if let Some(body) = reply.spoken() {
        return pitaya::Error::from_body(body);
    }
    let (code, msg) = match reply.failure_kind() {
        Some(Failure::BadRoute) => ("PIT-400", "invalid route"),
        Some(Failure::NoHandler) => ("PIT-404", "route not found"),
        Some(Failure::TimedOut) => ("PIT-408", "request timeout"),
        Some(Failure::NoServer | Failure::NoServerType) => {
            ("PIT-500", "no servers available of this type")
        }
        Some(Failure::RateLimited | Failure::Busy | Failure::Panicked) | None => {
            ("PIT-500", "internal error")
        }
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
