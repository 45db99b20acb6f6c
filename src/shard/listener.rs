//! How the connections of a listener come in: what stands below the client's own bytes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Shard;
use super::close::CloseCode;
use super::connection::{CloseReason, Layer, Partial};
use super::dialect::Dialect;
use crate::dispatch::HostRule;
use crate::session::{SessionId, Slot};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::wire::forwarded::client_address;
use crate::wire::http::{self, Upgrade};
use crate::wire::package::Status;
use crate::wire::pitaya::{Compression, Serializer};
use crate::wire::proxy;

/// One listener, as the core knows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerConfig {
    /// Whether each connection starts with a PROXY header; then only trusted peers may connect.
    pub(crate) expects_proxy: bool,
    /// Peers whose word on the client's address is taken.
    pub(crate) trusted_proxies: Vec<HostRule>,
    /// The header in which they tell it when they pass on a WebSocket.
    pub(crate) real_ip_header: Option<Box<str>>,
    /// The pages that may open a WebSocket, as browsers name them; all if there are none.
    pub(crate) origins: Vec<Box<str>>,
    pub(crate) dialect: Dialect,
    /// How bodies are written in Pitaya's dialect.
    pub(crate) serializer: Serializer,
    /// Whether they are compressed.
    pub(crate) compression: Compression,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// A listener's place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenerIndex(pub(crate) u8);

impl ListenerConfig {
    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|rule| rule.matches(address))
    }

    /// Whether a WebSocket may be opened from where its request says. Who says nothing is no
    /// browser, and could say anything.
    fn admits_origin(&self, upgrade: &Upgrade<'_>) -> bool {
        let is_listed = |origin: &[u8]| {
            self.origins.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
        };
        self.origins.is_empty() || upgrade.values("Origin").all(is_listed)
    }

    /// What a new connection starts with.
    fn first_layer(&self) -> Layer {
        if self.expects_proxy { Layer::Proxy } else { self.layer_behind_proxy() }
    }

    fn layer_behind_proxy(&self) -> Layer {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return Layer::Tls;
        }
        Layer::Plain
    }
}

impl Shard {
    /// Whether a peer may connect; what it starts with if so.
    ///
    /// Where a PROXY header is expected, the peer is a balancer, and the host filter and the rate
    /// of connections wait for the client's address. Others are turned away, as the specification
    /// asks: a header that is there or not can't be guessed at, and one from anybody could claim
    /// any address.
    pub(super) fn let_in(&mut self, index: ListenerIndex, peer: SocketAddr) -> Option<Layer> {
        let listener = &self.config.listeners[usize::from(index.0)];
        let layer = listener.first_layer();
        if listener.expects_proxy {
            if !listener.trusts(peer.ip()) {
                self.counters.refused_proxy.one();
                return None;
            }
        } else if self.host_filter.denies(peer.ip()) {
            self.counters.refused_host.one();
            return None;
        } else if !self.may_connect(index, peer.ip()) {
            return None;
        }
        Some(layer)
    }

    /// Counts a connection of an address; `false` where it connects too often.
    fn may_connect(&mut self, listener: ListenerIndex, address: IpAddr) -> bool {
        let Some(accept_rate) = &mut self.accept_rate else { return true };
        let listener = &self.config.listeners[usize::from(listener.0)];
        // A proxy that is yet to tell its client's address in a header has many connections.
        if listener.real_ip_header.is_some() && listener.trusts(address) {
            return true;
        }
        let may_connect = accept_rate.take(address, self.clock.now_us);
        if !may_connect {
            self.counters.refused_accept_rate.one();
        }
        may_connect
    }

    /// Bytes of a connection on which something stands below the client's own.
    #[inline(never)]
    pub(super) fn handle_layered(&mut self, session: SessionId, input: &mut [u8]) {
        let Some((slot, connection)) = self.find(session) else { return };
        match connection.layer {
            Layer::Plain => self.handle_bytes(session, input),
            Layer::Proxy => self.handle_proxy_bytes(session, slot, input),
            #[cfg(feature = "tls")]
            Layer::Tls => self.handle_tls_bytes(session, slot, input),
        }
    }

    fn handle_proxy_bytes(&mut self, session: SessionId, slot: Slot, input: &mut [u8]) {
        let Some(connection) = self.connections.at_mut(slot) else { return };
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
                    let mut buffer = self.pool.take();
                    buffer.extend_from_slice(input);
                    Box::new(Partial { buffer, needed })
                }));
            }
            Ok(Status::Complete { value, consumed }) => {
                let listener = &self.config.listeners[usize::from(connection.listener.0)];
                connection.layer = listener.layer_behind_proxy();
                // What follows the header is handled from the buffer that the header is in.
                let bytes = kept.as_mut().map_or(input, |kept| &mut kept.buffer);
                let source = value.source;
                if source.is_some_and(|source| self.set_peer(slot, source).is_err()) {
                    self.cut(slot, CloseReason::Refused);
                } else if consumed < bytes.len() {
                    self.handle_layered(session, &mut bytes[consumed..]);
                }
                if let Some(kept) = kept {
                    self.pool.give(kept.buffer);
                }
            }
            Err(error) => {
                tracing::debug!(session = ?session, %error, "a proxy is not understood");
                self.counters.bad_proxy.one();
                self.cut(slot, CloseReason::Refused);
            }
        }
    }

    /// Takes a proxy's word for the client's address; the answer to an upgrade if it is not let in.
    fn set_peer(&mut self, slot: Slot, peer: SocketAddr) -> Result<(), &'static [u8]> {
        let peer = canonical(peer);
        let Some(connection) = self.connections.at_mut(slot) else { return Ok(()) };
        connection.peer = peer;
        let listener = connection.listener;
        if self.host_filter.denies(peer.ip()) {
            self.counters.refused_host.one();
            return Err(http::FORBIDDEN);
        }
        if self.may_connect(listener, peer.ip()) { Ok(()) } else { Err(http::TOO_MANY_REQUESTS) }
    }

    /// Writes the client's address into its session's settings, if backends are to see it there.
    pub(super) fn note_address(&mut self, slot: Slot) {
        let Some(name) = &self.config.address_setting else { return };
        if let Some(connection) = self.connections.at_mut(slot) {
            let address = connection.peer.ip().to_string();
            connection.data().make_mut().settings.insert(name.clone(), address.into());
        }
    }

    /// Looks in the head of a WebSocket's request for the page that it is from and for the client's
    /// address; whether it is let in. If not, the connection closes.
    pub(super) fn admit_upgrade(&mut self, slot: Slot, upgrade: &Upgrade<'_>) -> bool {
        let Some(connection) = self.connections.at(slot) else { return false };
        let config = Arc::clone(&self.config);
        let listener = &config.listeners[usize::from(connection.listener.0)];
        if !listener.admits_origin(upgrade) {
            self.counters.refused_origin.one();
            return self.refuse_upgrade(slot, http::FORBIDDEN);
        }
        let Some(header) = &listener.real_ip_header else { return true };
        if !listener.trusts(connection.peer.ip()) {
            return true;
        }
        let values = upgrade.values(header);
        let Some(client) = client_address(values, |address| listener.trusts(address)) else {
            return true;
        };
        match self.set_peer(slot, client) {
            Ok(()) => true,
            Err(answer) => self.refuse_upgrade(slot, answer),
        }
    }

    /// Answers the request that opens a WebSocket, and closes; `false`, as it is not let in.
    fn refuse_upgrade(&mut self, slot: Slot, answer: &[u8]) -> bool {
        if let Some(connection) = self.connections.at_mut(slot) {
            connection.outbox.open(&mut self.pool).extend_from_slice(answer);
        }
        self.close(slot, CloseReason::Refused, CloseCode::None);
        false
    }
}

#[cfg(not(feature = "tls"))]
impl Shard {
    /// Whether a connection's TLS has something to send, besides its outbox.
    #[inline]
    #[allow(clippy::unused_self)] // As where there is TLS.
    pub(super) fn has_tls_output(&self, _: Slot, _: Layer) -> bool {
        false
    }
}

/// For code that runs a shard by itself.
#[cfg(any(test, feature = "internals"))]
impl Shard {
    /// A connection has been accepted by the first listener.
    pub(crate) fn handle_accept(
        &mut self,
        socket: super::SocketIndex,
        peer: SocketAddr,
    ) -> Option<SessionId> {
        self.handle_accept_at(ListenerIndex(0), socket, peer)
    }
}

/// An IPv4 address that a listener for both families has written as `::ffff:a.b.c.d` is taken for
/// what it is, as the host filter does.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        // An IPv6 address may have a scope.
        IpAddr::V6(_) => address,
    }
}
