//! TLS below a connection's bytes.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::close::CloseCode;
use super::connection::{CloseReason, Layer};
use super::{ListenerConfig, ReceiveEnd, Shard};
use crate::session::{Segment, SessionId, Slot};
use crate::tls::{ServerConfig, Tls, TlsRead, TlsStream};

/// The TLS of a shard. It stands beside the connections, so that those without are no larger.
pub(super) struct TlsStreams {
    /// What is in force, by listener.
    configs: Vec<Option<Arc<ServerConfig>>>,
    /// Made at a connection's first byte, and kept until its socket is closed.
    streams: FxHashMap<SessionId, Box<TlsStream>>,
}

impl TlsStreams {
    pub(super) fn new(listeners: &[ListenerConfig]) -> Self {
        let config = |listener: &ListenerConfig| listener.tls.as_ref().map(Tls::config).cloned();
        Self { configs: listeners.iter().map(config).collect(), streams: FxHashMap::default() }
    }

    /// Changes the certificate of new connections.
    pub(super) fn set_config(&mut self, listener: u8, config: Arc<ServerConfig>) {
        if let Some(place) = self.configs.get_mut(usize::from(listener)) {
            *place = Some(config);
        }
    }

    pub(super) fn remove(&mut self, session: SessionId) {
        self.streams.remove(&session);
    }

    /// Whether TLS itself has something to send.
    pub(super) fn has_output(&self, session: SessionId) -> bool {
        self.streams.get(&session).is_some_and(|stream| stream.has_output())
    }
}

impl Shard {
    /// Bytes of a connection with TLS.
    pub(super) fn handle_tls_bytes(&mut self, session: SessionId, slot: Slot, input: &mut [u8]) {
        let Some(connection) = self.connections.at(slot) else { return };
        if !connection.state.is_reading() {
            return;
        }
        let listener = usize::from(connection.listener.0);
        if !self.tls.streams.contains_key(&session) {
            let config = self.tls.configs.get(listener).and_then(Option::as_ref);
            let Some(Ok(stream)) = config.map(TlsStream::new) else {
                crate::log::seldom!(error, "a listener's TLS can't be used");
                return self.cut(slot, CloseReason::Refused);
            };
            self.tls.streams.insert(session, Box::new(stream));
        }
        let Some(stream) = self.tls.streams.get_mut(&session) else { return };
        let mut plain = self.pool.take();
        let outcome = stream.read(input, &mut plain);
        if stream.has_output() {
            self.mark_dirty(slot);
        }
        if !plain.is_empty() {
            self.handle_bytes(session, &mut plain);
        }
        self.pool.give(plain);
        match outcome {
            Ok(TlsRead::Open) => {}
            Ok(TlsRead::Established { is_resumed }) => {
                self.counters.tls_handshakes.one();
                self.counters.tls_resumptions.add(u64::from(is_resumed));
            }
            Ok(TlsRead::PeerClosed) => self.handle_receive_end(session, ReceiveEnd::Eof),
            Err(error) => {
                tracing::debug!(session = ?session, %error, "TLS has failed");
                self.counters.bad_tls.one();
                // Nothing but the alert can be sealed any more.
                if let Some(connection) = self.connections.at_mut(slot) {
                    connection.outbox.clear(&mut self.pool);
                }
                self.close(slot, CloseReason::Refused, CloseCode::None);
            }
        }
    }

    /// The next records to send. None is in flight.
    #[inline(never)]
    pub(super) fn take_sealed(&mut self, slot: Slot) -> Option<Segment> {
        let session = self.id_of(slot);
        let connection = self.connections.at_mut(slot)?;
        let stream = self.tls.streams.get_mut(&session)?;
        let Some(plain) = connection.outbox.take(&mut self.pool) else {
            let records = stream.take_output();
            connection.outbox.put_in_flight(records.len());
            return (!records.is_empty()).then_some(Segment::Owned(records));
        };
        let mut records = self.pool.take();
        let is_sealed = stream.write(plain.as_slice(), &mut records);
        connection.outbox.finish(plain, &mut self.pool);
        if !is_sealed {
            self.pool.give(records);
            self.cut(slot, CloseReason::Protocol);
            return None;
        }
        connection.outbox.put_in_flight(records.len());
        Some(Segment::Owned(records))
    }

    /// All is sent but the end of TLS: whether that is, too.
    pub(super) fn finish_tls(&mut self, slot: Slot) -> bool {
        let session = self.id_of(slot);
        let Some(stream) = self.tls.streams.get_mut(&session) else { return true };
        stream.close();
        let has_output = stream.has_output();
        if has_output {
            self.mark_dirty(slot);
        }
        !has_output
    }

    /// Whether a connection's TLS has something to send, besides its outbox.
    pub(super) fn has_tls_output(&self, slot: Slot, layer: Layer) -> bool {
        layer == Layer::Tls && self.tls.has_output(self.id_of(slot))
    }
}
