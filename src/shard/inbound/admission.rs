//! Rules for who may connect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Inbound, canonical};
use crate::session::{SessionId, Slot};
use crate::shard::connections::{CloseReason, Connection, Layer};
use crate::shard::listener_config::ListenerIndex;
use crate::shard::outbound::CloseCode;
use crate::shard::shell::SocketIndex;
use crate::wire::forwarded::client_address;
use crate::wire::http::{self, Upgrade};

impl Inbound {
    /// Takes in an accepted connection. `None` turns it away: the shell closes the socket.
    pub(in crate::shard) fn handle_accept(
        &mut self,
        listener: ListenerIndex,
        socket: SocketIndex,
        peer: SocketAddr,
    ) -> Option<SessionId> {
        if self.outbound().is_draining() {
            return None;
        }
        let peer = canonical(peer);
        let layer = self.admit(listener, peer)?;
        let connections = self.connections();
        let now_ms = connections.patient_ms();
        let connection = Connection { layer, listener, ..Connection::new(socket, peer, now_ms) };
        let session = connections.accept(connection)?;
        self.dispatcher.begin_session(session);
        #[cfg(feature = "admin")]
        self.outbound().record_peer(session);
        Some(session)
    }

    /// Admits a peer, or turns it away; the layer that it starts with.
    ///
    /// Where a PROXY header is expected, the peer is a balancer, and the host filter and the rate
    /// of connections wait for the client's address. Others are turned away, as the specification
    /// asks: a header that is there or not can't be guessed at, and one from anybody could claim
    /// any address.
    fn admit(&mut self, index: ListenerIndex, peer: SocketAddr) -> Option<Layer> {
        let listener = self.config.listener(index);
        let layer = Layer::first(listener);
        if listener.expects_proxy {
            if !listener.trusts(peer.ip()) {
                self.counters.refused_proxy.one();
                let peer = peer.ip();
                crate::log::seldom!(
                    warn,
                    %peer,
                    "no trusted proxy, where a PROXY header is expected"
                );
                return None;
            }
        } else if self.is_denied(peer.ip()) || !self.may_connect(index, peer.ip()) {
            return None;
        }
        Some(layer)
    }

    /// Counts a connection of an address that the host filter turns away, if it does.
    fn is_denied(&mut self, address: IpAddr) -> bool {
        let now_us = self.connections().now_us();
        let is_denied = self.denied_hosts.denies(address, now_us, &self.counters);
        if is_denied {
            self.counters.refused_host.one();
            crate::log::seldom!(info, %address, "the host filter turns an address away");
        }
        is_denied
    }

    /// Counts a connection of an address; `false` where it connects too often.
    fn may_connect(&mut self, listener: ListenerIndex, address: IpAddr) -> bool {
        let now_us = self.connections().now_us();
        let Some(accept_rate) = &mut self.accept_rate else { return true };
        let listener = self.config.listener(listener);
        // A proxy that is yet to tell its client's address in a header has many connections.
        if listener.real_ip_header.is_some() && listener.trusts(address) {
            return true;
        }
        let may_connect = accept_rate.take(address, now_us);
        if !may_connect {
            self.counters.refused_accept_rate.one();
            crate::log::seldom!(warn, %address, "an address connects more often than it may");
        }
        may_connect
    }

    /// Takes a proxy's word for the client's address. An error is the answer to an upgrade of a
    /// client that may not connect.
    pub(super) fn set_peer(&mut self, slot: Slot, peer: SocketAddr) -> Result<(), &'static [u8]> {
        let peer = canonical(peer);
        let Some(connection) = self.connections().at_mut(slot) else { return Ok(()) };
        connection.peer = peer;
        let listener = connection.listener;
        if self.is_denied(peer.ip()) {
            return Err(http::FORBIDDEN);
        }
        if !self.may_connect(listener, peer.ip()) {
            return Err(http::TOO_MANY_REQUESTS);
        }
        #[cfg(feature = "admin")]
        {
            let session = self.connections().id_of(slot);
            self.outbound().record_peer(session);
        }
        Ok(())
    }

    /// Looks in the head of a WebSocket's request for the page that it is from and for the client's
    /// address; false if the client may not connect. Then the connection closes.
    pub(super) fn admit_upgrade(&mut self, slot: Slot, upgrade: &Upgrade<'_>) -> bool {
        let Some(connection) = self.connections().at(slot) else { return false };
        let (index, peer) = (connection.listener, connection.peer);
        let config = Arc::clone(&self.config);
        let listener = config.listener(index);
        if !listener.admits_origin(upgrade) {
            self.counters.refused_origin.one();
            crate::log::seldom!(info, %peer, "a page of another origin may not open a WebSocket");
            return self.refuse_upgrade(slot, http::FORBIDDEN);
        }
        let Some(header) = &listener.real_ip_header else { return true };
        if !listener.trusts(peer.ip()) {
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

    /// Answers the request that opens a WebSocket, and closes; `false`, as it is refused.
    fn refuse_upgrade(&mut self, slot: Slot, answer: &[u8]) -> bool {
        if let Some((connection, pool)) = self.connections().at_with_pool(slot) {
            connection.outbox.open(pool).extend_from_slice(answer);
        }
        self.outbound().close(slot, CloseReason::Refused, CloseCode::None);
        false
    }
}
