//! Input from clients: connections that are accepted, bytes, frames, packages, handshakes.
//!
//! The fifth part of a [`Shard`](super::Shard), above its [`Dispatcher`].

mod address_rate;
mod admission;
mod frames;
mod handshake;
mod held;
mod layers;
mod packages;
mod receive;
#[cfg(feature = "tls")]
mod tls_input;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use address_rate::AddressRate;

use super::config::ShardConfig;
use super::connections::Connections;
use super::dispatcher::Dispatcher;
use super::outbound::Outbound;
use super::rate::Rate;
use crate::dispatch::denied_hosts::DeniedHosts;
use crate::dispatch::{ClientRules, Maintenance};
use crate::forward::Hub;
use crate::metrics::Counters;
use crate::session::ShardIndex;

/// The reading side of one shard.
pub(super) struct Inbound {
    pub(super) dispatcher: Dispatcher,
    config: Arc<ShardConfig>,
    counters: Arc<Counters>,
    /// Those of the engine.
    shards: u16,
    /// The hosts that may not connect.
    pub(super) denied_hosts: Arc<DeniedHosts>,
    /// The clients that are served.
    pub(super) client_rules: Arc<ClientRules>,
    /// There while nobody new comes in.
    pub(super) maintenance: Option<Arc<Maintenance>>,
    /// There where it is bounded.
    accept_rate: Option<AddressRate>,
}

impl Inbound {
    pub(super) fn new(config: &Arc<ShardConfig>, index: ShardIndex, hub: &Arc<Hub>) -> Self {
        let limits = &config.limits;
        Self {
            dispatcher: Dispatcher::new(config, index, hub),
            denied_hosts: config.denied_hosts(),
            client_rules: config.client_rules(),
            maintenance: config.maintenance(),
            accept_rate: Rate::new(limits.accepts_per_ip_per_second, limits.accepts_per_ip_burst)
                .map(AddressRate::new),
            counters: Arc::clone(&config.counters[index.index()]),
            shards: hub.shards(),
            config: Arc::clone(config),
        }
    }

    #[inline]
    pub(super) fn outbound(&mut self) -> &mut Outbound {
        &mut self.dispatcher.forwarder.outbound
    }

    #[inline]
    pub(super) fn connections(&mut self) -> &mut Connections {
        &mut self.dispatcher.forwarder.outbound.connections
    }
}

/// Writes an IPv4 address that a listener for both families has written as `::ffff:a.b.c.d` as
/// what it is, as the host filter does.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        // An IPv6 address may have a scope.
        IpAddr::V6(_) => address,
    }
}
