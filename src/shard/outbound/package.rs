//! Packages into outboxes.

use bytes::Bytes;

use super::Outbound;
use crate::route::push::Lossy;
use crate::session::{BufferPool, Framing, LossyPush, PushLoss, Slot};
use crate::shard::connections::{Connection, Transport};
use crate::wire::package::{HEADER_BYTES, Header, PackageType};
use crate::wire::websocket;

impl Outbound {
    /// Queues a package.
    pub(in crate::shard) fn send_package(&mut self, slot: Slot, kind: PackageType, body: &[u8]) {
        let Some((connection, pool)) = self.connections.at_with_pool(slot) else { return };
        begin_package(connection, pool, kind, body.len()).extend_from_slice(body);
        self.queued(slot);
    }

    /// Queues a package that others get, too, in a WebSocket frame of its own where there is one.
    #[inline]
    pub(super) fn queue_shared(&mut self, slot: Slot, package: &Bytes, lossy: Option<Lossy>) {
        let Some((connection, pool)) = self.connections.at_with_pool(slot) else { return };
        self.counters.pushes.one();
        connection.traffic.note_sent(1);
        if let Some(lossy) = lossy {
            let framing = match connection.transport {
                Transport::Tcp => Framing::None,
                Transport::WebSocket => Framing::WebSocket,
            };
            let push = LossyPush { package, lossy, framing };
            let len_max = self.config.limits.outbox_pushes_max;
            match connection.outbox.push_lossy(push, len_max, pool) {
                None => {}
                Some(PushLoss::Replaced) => self.counters.pushes_replaced.one(),
                Some(PushLoss::Dropped) => self.counters.pushes_dropped.one(),
            }
            return self.queued_push(slot);
        }
        if connection.transport == Transport::WebSocket {
            websocket::encode_binary_header(package.len(), connection.outbox.open(pool));
        }
        connection.outbox.push_shared(package, pool);
        self.queued_push(slot);
    }

    /// Lists an outbox to which something was appended: it goes out at the end of the turn, unless
    /// too much waits.
    pub(in crate::shard) fn queued(&mut self, slot: Slot) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
        if connection.outbox.bytes() > self.config.limits.outbox_bytes_max {
            self.make_room(slot);
        }
        self.mark_dirty(slot);
    }

    /// The same of a push, that its client did not ask for.
    fn queued_push(&mut self, slot: Slot) {
        let session = self.connections.id_of(slot);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        self.queue.mark_pushed(session, connection);
        if connection.outbox.bytes() > self.config.limits.outbox_bytes_max {
            self.make_room(slot);
        }
    }

    /// Lists an outbox that may have something to send.
    #[inline]
    pub(in crate::shard) fn mark_dirty(&mut self, slot: Slot) {
        let session = self.connections.id_of(slot);
        let Some(connection) = self.connections.at_mut(slot) else { return };
        self.queue.mark_dirty(session, connection);
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
