//! The TLS of connections whose listener has it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::session::SessionId;
use crate::shard::listener_config::{ListenerConfig, ListenerIndex};
use crate::tls::{ServerConfig, Tls, TlsStream};

/// The TLS of a shard. It stands beside the connections, so that those without are no larger.
pub(in crate::shard) struct TlsStreams {
    /// The configurations in force, by listener.
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
    pub(in crate::shard) fn set_config(&mut self, listener: u8, config: Arc<ServerConfig>) {
        if let Some(place) = self.configs.get_mut(usize::from(listener)) {
            *place = Some(config);
        }
    }

    pub(super) fn remove(&mut self, session: SessionId) {
        self.streams.remove(&session);
    }

    /// The TLS of a connection.
    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut TlsStream> {
        self.streams.get_mut(&session).map(|stream| &mut **stream)
    }

    /// The TLS of a connection, begun if this is its first byte; `None` if it can't be.
    pub(in crate::shard) fn open(
        &mut self,
        session: SessionId,
        listener: ListenerIndex,
    ) -> Option<&mut TlsStream> {
        if !self.streams.contains_key(&session) {
            let config = self.configs.get(usize::from(listener.0))?.as_ref()?;
            self.streams.insert(session, Box::new(TlsStream::new(config).ok()?));
        }
        self.get_mut(session)
    }

    /// True if TLS itself has something to send.
    pub(super) fn has_output(&self, session: SessionId) -> bool {
        self.streams.get(&session).is_some_and(|stream| stream.has_output())
    }
}
