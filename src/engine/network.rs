//! What a forwarder to servers outside the process gets from the engine, and gives to it.
//!
//! One such forwarder is one thread, whatever its protocol, and one party of the hub; the half of
//! it that faces the engine is [`crate::forward::remote`].

use std::net::SocketAddr;
use std::sync::Arc;

use super::shard_thread::Threads;
use super::start::Join;
use crate::error::StartError;
use crate::forward::{Party, Route};
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::shard::ShardConfig;

/// A network forwarder, as the embedder describes it.
pub(super) struct NetworkForwarder {
    /// The builder's method that added it, for errors.
    pub(super) option: &'static str,
    /// The server types that it carries.
    pub(super) server_types: Vec<String>,
    pub(super) interest: Interest,
    /// Whether it can be started, as far as that shows before.
    pub(super) check: Check,
    /// Starts its thread. What it has to bind or check, it does before it returns.
    pub(super) start: Start,
}

type Check = Box<dyn Fn(&Limits) -> Result<(), StartError> + Send>;
type Start = Box<dyn FnOnce(ForwarderContext) -> Result<Join, StartError> + Send>;

/// The ends of which sessions a forwarder is told.
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

/// A forwarder's place in the engine.
pub(super) struct ForwarderContext {
    /// Hub and clock; [`Threads::stop_workers`] is the sign to end.
    pub(super) threads: Arc<Threads>,
    pub(super) me: Party,
    pub(super) config: Arc<ShardConfig>,
    /// Where clients connect.
    #[cfg_attr(not(feature = "pomelo"), allow(dead_code))] // Pitaya's servers are not told.
    pub(super) clients: SocketAddr,
    /// The embedder's routers of the types it carries ([`super::Builder::route`]).
    pub(super) routes: Vec<(String, Route)>,
    /// Its own, which nobody else writes to.
    pub(super) counters: Arc<Counters>,
}
