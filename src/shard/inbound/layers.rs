//! Bytes of sockets, and what stands below the client's own: a PROXY header, TLS.

use super::Inbound;
use crate::session::{SessionId, Slot};
use crate::shard::connections::{CloseReason, Layer, Partial};
use crate::wire::package::Status;
use crate::wire::proxy;

impl Inbound {
    /// Reads bytes from a socket. They are unmasked in place, so the buffer is changed.
    pub(in crate::shard) fn handle_receive(&mut self, session: SessionId, input: &mut [u8]) {
        self.counters.bytes_in.add(input.len() as u64);
        let Some((_, connection)) = self.connections().find(session) else { return };
        connection.traffic.received_bytes += input.len() as u64;
        match connection.layer {
            Layer::Plain => self.handle_bytes(session, input),
            _ => self.handle_layered(session, input),
        }
    }

    /// Reads bytes of a connection on which something stands below the client's own.
    #[inline(never)]
    fn handle_layered(&mut self, session: SessionId, input: &mut [u8]) {
        let Some((slot, connection)) = self.connections().find(session) else { return };
        match connection.layer {
            Layer::Plain => self.handle_bytes(session, input),
            Layer::Proxy => self.handle_proxy_bytes(session, slot, input),
            #[cfg(feature = "admin")]
            Layer::Recorded => {
                self.outbound().record_input(session, input);
                self.handle_bytes(session, input);
            }
            #[cfg(feature = "tls")]
            Layer::Tls => self.handle_tls_bytes::<false>(session, slot, input),
            #[cfg(all(feature = "admin", feature = "tls"))]
            Layer::RecordedTls => self.handle_tls_bytes::<true>(session, slot, input),
        }
    }

    fn handle_proxy_bytes(&mut self, session: SessionId, slot: Slot, input: &mut [u8]) {
        let connections = &mut self.dispatcher.forwarder.outbound.connections;
        let Some((connection, pool)) = connections.at_with_pool(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let mut kept = connection.partial.take();
        if let Some(kept) = &mut kept {
            kept.buffer.extend_from_slice(input);
        }
        match proxy::decode(kept.as_ref().map_or(&*input, |kept| &kept.buffer)) {
            Ok(Status::Partial { needed }) => {
                connection.partial = Some(kept.unwrap_or_else(|| {
                    let mut buffer = pool.take();
                    buffer.extend_from_slice(input);
                    Box::new(Partial { buffer, needed })
                }));
            }
            Ok(Status::Complete { value, consumed }) => {
                connection.layer = Layer::behind_proxy(self.config.listener(connection.listener));
                // What follows the header is handled from the buffer that the header is in.
                let bytes = kept.as_mut().map_or(input, |kept| &mut kept.buffer);
                let source = value.source;
                if source.is_some_and(|source| self.set_peer(slot, source).is_err()) {
                    self.connections().cut(slot, CloseReason::Refused);
                } else if consumed < bytes.len() {
                    self.handle_layered(session, &mut bytes[consumed..]);
                }
                if let Some(kept) = kept {
                    self.connections().pool().give(kept.buffer);
                }
            }
            Err(error) => {
                tracing::debug!(session = ?session, %error, "a proxy is not understood");
                self.counters.bad_proxy.one();
                connections.cut(slot, CloseReason::Refused);
            }
        }
    }
}
