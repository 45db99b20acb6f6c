//! Outboxes through TLS.

use super::Outbound;
use crate::session::{Segment, SessionId, Slot};
use crate::shard::connections::{CloseReason, Layer};

impl Outbound {
    /// The next records to send. None is in flight.
    #[inline(never)]
    pub(super) fn take_sealed<const IS_RECORDED: bool>(&mut self, slot: Slot) -> Option<Segment> {
        let session = self.connections.id_of(slot);
        let (connection, pool) = self.connections.at_with_pool(slot)?;
        let stream = self.tls.get_mut(session)?;
        let Some(plain) = connection.outbox.take(pool) else {
            let records = stream.take_output();
            connection.outbox.put_in_flight(records.len());
            return (!records.is_empty()).then_some(Segment::Owned(records));
        };
        #[cfg(feature = "admin")]
        let (connection, pool, stream) = if IS_RECORDED {
            self.record_output(slot, plain.as_slice());
            let (connection, pool) = self.connections.at_with_pool(slot)?;
            (connection, pool, self.tls.get_mut(session)?)
        } else {
            (connection, pool, stream)
        };
        let mut records = pool.take();
        let is_sealed = stream.write(plain.as_slice(), &mut records);
        connection.outbox.finish(plain, pool);
        if !is_sealed {
            pool.give(records);
            self.connections.cut(slot, CloseReason::Protocol);
            return None;
        }
        connection.outbox.put_in_flight(records.len());
        Some(Segment::Owned(records))
    }

    /// Ends the TLS of a connection to which all else is sent; true if its end is sent, too.
    pub(super) fn finish_tls(&mut self, slot: Slot) -> bool {
        let session = self.connections.id_of(slot);
        let Some(stream) = self.tls.get_mut(session) else { return true };
        stream.close();
        let has_output = stream.has_output();
        if has_output {
            self.mark_dirty(slot);
        }
        !has_output
    }

    /// True if a connection's TLS has something to send, besides its outbox.
    pub(super) fn has_tls_output(&self, session: SessionId, layer: Layer) -> bool {
        layer.has_tls() && self.tls.has_output(session)
    }
}
