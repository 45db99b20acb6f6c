//! Packages and answers into outboxes.

use bytes::Bytes;

use super::connection::{CloseReason, Connection, Listed, State, Transport};
use super::dialect::Dialect;
use super::{Shard, close::CloseCode};
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::route::push::{Lossy, Push};
use crate::route::table::encode_body;
use crate::session::{BufferPool, Framing, LossyPush, PushLoss, Slot};
use crate::wire::package::{HEADER_BYTES, Header, PackageType};
use crate::wire::{answer, websocket};

impl Shard {
    /// Queues a package.
    pub(super) fn send_package(&mut self, slot: Slot, kind: PackageType, body: &[u8]) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        let out = begin_package(connection, &mut self.pool, kind, body.len());
        out.extend_from_slice(body);
        self.queued(slot);
    }

    /// Queues a push that is laid out already.
    pub(super) fn send_shared(&mut self, slot: Slot, push: &Push) {
        let Some(connection) = self.connections.at(slot) else { return };
        if connection.state == State::Working(Dialect::Pitaya) {
            return self.send_shared_pitaya(slot, push);
        }
        let edition = self.editions.get(connection.edition);
        let own;
        let package = match edition.filter(|edition| !push.suits(edition)) {
            None => push.package(),
            Some(edition) => match push.encode_for(edition) {
                Ok(package) => {
                    own = package;
                    &own
                }
                // Its code is shorter than its text, and the package was as long as can be.
                Err(error) => {
                    crate::log::seldom!(
                        warn, %error, "a push is lost on a session of another dictionary"
                    );
                    return;
                }
            },
        };
        self.queue_shared(slot, package, push.lossy());
    }

    /// Queues a package that others get, too, in a WebSocket frame of its own where there is one.
    #[inline]
    pub(super) fn queue_shared(&mut self, slot: Slot, package: &Bytes, lossy: Option<Lossy>) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        self.counters.pushes.one();
        if let Some(lossy) = lossy {
            let framing = match connection.transport {
                Transport::Tcp => Framing::None,
                Transport::WebSocket => Framing::WebSocket,
            };
            let push = LossyPush { package, lossy, framing };
            let len_max = self.config.limits.outbox_pushes_max;
            match connection.outbox.push_lossy(push, len_max, &mut self.pool) {
                None => {}
                Some(PushLoss::Replaced) => self.counters.pushes_replaced.one(),
                Some(PushLoss::Dropped) => self.counters.pushes_dropped.one(),
            }
            return self.queued_push(slot);
        }
        if connection.transport == Transport::WebSocket {
            let out = connection.outbox.open(&mut self.pool);
            websocket::encode_binary_header(package.len(), out);
        }
        connection.outbox.push_shared(package, &mut self.pool);
        self.queued_push(slot);
    }

    /// Answers a request of a client that is still there. A notify gets nothing.
    pub(super) fn answer(&mut self, call: &ClientCall, reply: &Reply<'_>) {
        if call.id == 0 {
            return;
        }
        let slot = call.session.slot();
        let thread = &self.thread;
        let Some(connection) = self.connections.get_mut(slot, call.session.generation()) else {
            return;
        };
        if !matches!(connection.state, State::Working(Dialect::Pomelo)) {
            return self.answer_pitaya(call, reply);
        }
        let text = reply.text();
        let entry = call.route.map(|route| thread.routes.entry(route));
        let scratch;
        let body: &[u8] = match entry.and_then(|entry| Some((entry, entry.server.as_ref()?))) {
            None => &text,
            Some((entry, schema)) => {
                let mut encoded = self.pool.take();
                encode_body(schema, &entry.text, &text, &mut encoded);
                scratch = encoded;
                &scratch
            }
        };
        if !answer::fits(body) {
            // No client could read it: a package's length has 24 bits.
            crate::log::seldom!(warn, bytes = body.len(), "an answer is too long for a package");
            return self.answer(call, &Reply::error());
        }
        let is_websocket = connection.transport == Transport::WebSocket;
        answer::encode(is_websocket, call.id, body, connection.outbox.open(&mut self.pool));
        self.counters.answers.one();
        // As `queued` does, without another look-up.
        if !connection.listed.is_dirty() {
            connection.listed = connection.listed.with_dirty();
            self.dirty.push_back(call.session);
        }
        if connection.outbox.bytes() > self.outbox_pauses.pause_bytes() {
            self.pause_for_outbox(slot);
        }
    }

    /// Something was appended: it goes out at the end of the turn, unless too much waits.
    pub(super) fn queued(&mut self, slot: Slot) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.outbox.bytes() > self.config.limits.outbox_bytes_max {
            self.make_room(slot);
        }
        self.mark_dirty(slot);
    }

    /// The same of a push, that its client did not ask for.
    fn queued_push(&mut self, slot: Slot) {
        let session = self.id_of(slot);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.listed == Listed::Not {
            connection.listed = Listed::Pushed;
            self.pushed.push_back(session);
        }
        if connection.outbox.bytes() > self.config.limits.outbox_bytes_max {
            self.make_room(slot);
        }
    }

    #[inline]
    pub(super) fn mark_dirty(&mut self, slot: Slot) {
        let session = self.id_of(slot);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if !connection.listed.is_dirty() {
            connection.listed = connection.listed.with_dirty();
            self.dirty.push_back(session);
        }
    }

    /// Closes a connection for what it has sent.
    pub(super) fn protocol_error(&mut self, slot: Slot, code: CloseCode) {
        self.close(slot, CloseReason::Protocol, code);
    }
}

/// Writes the head of a package, in a WebSocket frame of its own where there is one.
#[inline]
pub(super) fn begin_package<'a>(
    connection: &'a mut Connection,
    pool: &mut BufferPool,
    kind: PackageType,
    body_len: usize,
) -> &'a mut Vec<u8> {
    let is_websocket = connection.transport == Transport::WebSocket;
    let out = connection.outbox.open(pool);
    if is_websocket {
        websocket::encode_binary_header(HEADER_BYTES + body_len, out);
    }
    out.extend_from_slice(&Header::encode(kind, body_len));
    out
}
