//! The configuration of a listener, as the core has it.

use std::net::IpAddr;

use crate::dispatch::HostRule;
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::wire::http::Upgrade;
use crate::wire::pitaya::{Compression, Serializer};

/// The protocol of a listener's clients.
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

/// One listener, as the core knows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerConfig {
    /// True if each connection starts with a PROXY header; then only trusted peers may connect.
    pub(crate) expects_proxy: bool,
    /// Peers whose word on the client's address is taken.
    pub(crate) trusted_proxies: Vec<HostRule>,
    /// The header in which they tell it when they pass on a WebSocket.
    pub(crate) real_ip_header: Option<Box<str>>,
    /// The pages that may open a WebSocket, as browsers name them; all if there are none.
    pub(crate) origins: Vec<Box<str>>,
    pub(crate) dialect: Dialect,
    /// The serializer of bodies in Pitaya's dialect.
    pub(crate) serializer: Serializer,
    /// The compression of these bodies.
    pub(crate) compression: Compression,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// A listener's place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenerIndex(pub(crate) u8);

impl ListenerConfig {
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|rule| rule.matches(address))
    }

    /// True if a WebSocket may be opened from where its request says. Who says nothing is no
    /// browser, and could say anything.
    pub(super) fn admits_origin(&self, upgrade: &Upgrade<'_>) -> bool {
        let is_listed = |origin: &[u8]| {
            self.origins.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
        };
        self.origins.is_empty() || upgrade.values("Origin").all(is_listed)
    }
}
