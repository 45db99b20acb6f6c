//! A forwarder to servers outside the process: what it gets from the engine, and gives to it.
//!
//! One such forwarder is one thread, whatever its protocol, and one party of the hub; the half of
//! it that faces the engine is [`crate::forward::remote`].

use std::net::SocketAddr;
use std::sync::Arc;

use super::threads::{Join, Threads};
use crate::error::{EngineOption, StartError};
use crate::forward::{Party, Route};
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::shard::{ShardConfig, worker_bit};

/// A network forwarder, as the embedder describes it.
pub(super) struct NetworkForwarder {
    /// The option that names its server types, for errors.
    pub(super) option: EngineOption,
    /// The server types that it carries.
    pub(super) server_types: Vec<String>,
    pub(super) interest: Interest,
    /// Checks that it can be started, as far as that shows before.
    pub(super) check: Check,
    /// Starts its thread. What it has to bind or check, it does before it returns.
    pub(super) start: Start,
}

type Check = Box<dyn Fn(&Limits) -> Result<(), StartError> + Send>;
type Start = Box<dyn FnOnce(ForwarderContext) -> Result<Join, StartError> + Send>;

/// The sessions of whose ends a forwarder is told.
#[cfg_attr(not(all(feature = "pitaya", feature = "pomelo")), allow(dead_code))] // Each has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Of those that it has been told of.
    Known,
    /// Of those, and of all others that have been used for anything.
    All,
    /// Of those, and of all that have ever had a uid; also of every login and logout.
    Logins,
}

/// The bits of the forwarders that are told of sessions besides those that they know.
pub(super) struct Subscribers {
    pub(super) of_all: u64,
    pub(super) of_logins: u64,
}

impl Subscribers {
    pub(super) fn by(networks: &[NetworkForwarder], workers: u16) -> Self {
        let of = |interest| {
            let those =
                (workers..).zip(networks).filter(|(_, network)| network.interest == interest);
            those.fold(0, |bits, (worker, _)| bits | worker_bit(worker))
        };
        Self { of_all: of(Interest::All), of_logins: of(Interest::Logins) }
    }
}

/// A forwarder's part of the engine.
pub(super) struct ForwarderContext {
    /// Hub and clock; [`Threads::has_to_stop_workers`] is the sign to end.
    pub(super) threads: Arc<Threads>,
    pub(super) me: Party,
    pub(super) config: Arc<ShardConfig>,
    /// The address where clients connect.
    #[cfg_attr(not(feature = "pomelo"), allow(dead_code))] // Pitaya's servers are not told.
    pub(super) clients: SocketAddr,
    /// The embedder's routers of the types it carries ([`super::Builder::route`]).
    pub(super) routes: Vec<(String, Route)>,
    /// Its own counters, which no other thread writes to.
    pub(super) counters: Arc<Counters>,
}
