//! A forwarder to servers outside the process: what it gets from the engine, and gives to it.
//!
//! One such forwarder is one thread, whatever its protocol, and one party of the hub; the half of
//! it that faces the engine is [`crate::forward::remote`].

use std::net::SocketAddr;
use std::sync::Arc;

use super::threads::{Join, Threads};
use crate::error::{EngineOption, StartError};
use crate::forward::{Party, Route, WorkerIndex};
use crate::limits::Limits;
#[cfg(any(feature = "pitaya", feature = "pomelo"))]
use crate::metrics::Counters;
use crate::shard::{ShardConfig, worker_bit};

/// A network forwarder, as the embedder describes it.
pub(super) trait NetworkForwarder: Send {
    /// The option that names its server types, for errors.
    fn option(&self) -> EngineOption;

    /// The server types that it carries.
    fn server_types(&self) -> Vec<&str>;

    /// True if it is told of the end of every session that was used for anything, not only of
    /// those that it has been told of.
    fn hears_all_ends(&self) -> bool {
        false
    }

    /// True if it is told of the end of every session that has ever had a uid, and of every
    /// login and logout.
    fn hears_logins(&self) -> bool {
        false
    }

    /// Checks that it can be started, as far as that shows before.
    fn check(&self, limits: &Limits) -> Result<(), StartError>;

    /// Starts its thread as a party of the engine. What it has to bind or check, it does before it
    /// returns. It ends once [`Threads::has_to_stop_workers`] says so.
    ///
    /// `clients` is the address where clients connect, `routes` the embedder's routers of its
    /// server types ([`super::Builder::route`]).
    fn start(
        self: Box<Self>,
        me: Party,
        config: Arc<ShardConfig>,
        threads: Arc<Threads>,
        clients: SocketAddr,
        routes: Vec<(String, Route)>,
    ) -> Result<Join, StartError>;
}

/// The bits of the forwarders that are told of sessions besides those that they know.
pub(super) struct Subscribers {
    pub(super) of_all: u64,
    pub(super) of_logins: u64,
}

impl Subscribers {
    pub(super) fn by(networks: &[Box<dyn NetworkForwarder>], workers: u16) -> Self {
        let bits = |wants: fn(&dyn NetworkForwarder) -> bool| {
            let those = (workers..).zip(networks).filter(|(_, network)| wants(&***network));
            those.fold(0, |bits, (worker, _)| bits | worker_bit(WorkerIndex(worker)))
        };
        Self {
            of_all: bits(|network| network.hears_all_ends()),
            of_logins: bits(|network| network.hears_logins()),
        }
    }
}

/// The engine, as a forwarder's thread sees it.
#[cfg(any(feature = "pitaya", feature = "pomelo"))]
pub(super) struct ForwarderContext {
    pub(super) me: Party,
    pub(super) config: Arc<ShardConfig>,
    pub(super) threads: Arc<Threads>,
    pub(super) routes: Vec<(String, Route)>,
    /// Its own counters, which no other thread writes to.
    pub(super) counters: Arc<Counters>,
}

#[cfg(any(feature = "pitaya", feature = "pomelo"))]
impl ForwarderContext {
    pub(super) fn new(
        me: Party,
        config: Arc<ShardConfig>,
        threads: Arc<Threads>,
        routes: Vec<(String, Route)>,
    ) -> Self {
        let counters = Arc::clone(&config.counters[me.index()]);
        Self { me, config, threads, routes, counters }
    }
}
