//! A forwarder to servers outside the process: what it gets from the engine, and gives to it.
//!
//! Each of its threads, of which there is mostly one, is one party of the hub; the half that faces
//! the engine is [`crate::forward::remote`].

use std::net::SocketAddr;
use std::sync::Arc;

use super::threads::{Join, Threads};
use crate::error::{EngineOption, StartError};
use crate::forward::{NetworkThreads, Party, Route, WorkerIndex};
use crate::limits::Limits;
#[cfg(any(feature = "pitaya", feature = "pomelo"))]
use crate::metrics::Counters;
use crate::session::OnSecondBind;
use crate::shard::{ShardConfig, Subscribers};

/// A network forwarder, as the embedder describes it.
pub(super) trait NetworkForwarder: Send {
    /// The option that names its server types, for errors.
    fn option(&self) -> EngineOption;

    /// The server types that it carries.
    fn server_types(&self) -> Vec<&str>;

    /// True if it is told of the end of every session that was used for anything, not only of
    /// those that it has been told of.
    fn subscribes_to_ends(&self) -> bool {
        false
    }

    /// True if it is told of the end of every session that has ever had a uid, and of every
    /// login and logout.
    fn subscribes_to_logins(&self) -> bool {
        false
    }

    /// The fate of a second session of a uid, unless the embedder decides about that.
    fn on_second_bind(&self) -> Option<OnSecondBind> {
        None
    }

    /// The threads that it runs on in an engine with so many shards, at least 1. Each is a party of
    /// the hub, and serves some of the shards ([`NetworkThreads::of`]).
    fn threads(&self, _shards: u16) -> u16 {
        1
    }

    /// Checks that it can be started, as far as that shows before.
    fn check(&self, limits: &Limits) -> Result<(), StartError>;

    /// Starts its threads as parties of the engine. What it has to bind or check, it does before it
    /// returns. They end once [`Threads::has_to_stop_workers`] says so.
    ///
    /// # Errors
    /// The system refuses something; the threads that `joins` has by then have started all the
    /// same.
    fn start(self: Box<Self>, place: NetworkPlace, joins: &mut Vec<Join>)
    -> Result<(), StartError>;
}

/// The place of a forwarder in an engine that starts.
#[cfg_attr(not(feature = "pomelo"), allow(dead_code))] // Which alone tells where clients connect.
pub(super) struct NetworkPlace {
    /// A party for each of its threads.
    pub(super) parties: Vec<Party>,
    pub(super) config: Arc<ShardConfig>,
    pub(super) threads: Arc<Threads>,
    /// The address where clients connect.
    pub(super) clients: SocketAddr,
    /// The embedder's routers of its server types ([`super::Builder::route`]).
    pub(super) routes: Vec<(String, Route)>,
}

/// The threads of each forwarder, of an engine with so many workers.
pub(super) fn threads_of(
    networks: &[Box<dyn NetworkForwarder>],
    workers: u16,
    shards: u16,
) -> Vec<NetworkThreads> {
    let threads = networks.iter().scan(workers, |next, network| {
        let (first, count) = (WorkerIndex(*next), network.threads(shards));
        // Too many are refused by their count.
        *next = next.saturating_add(count);
        Some(NetworkThreads { first, count })
    });
    threads.collect()
}

/// The forwarders that are told of sessions besides those that they know.
pub(super) fn subscribers(
    networks: &[Box<dyn NetworkForwarder>],
    threads: &[NetworkThreads],
) -> Subscribers {
    let those = |wants: fn(&dyn NetworkForwarder) -> bool| {
        let those = networks.iter().zip(threads).filter(|(network, _)| wants(&***network));
        those.map(|(_, threads)| *threads).collect()
    };
    Subscribers {
        to_ends: those(|network| network.subscribes_to_ends()),
        to_logins: those(|network| network.subscribes_to_logins()),
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
impl NetworkPlace {
    /// The context of each thread, in order.
    pub(super) fn contexts(&self) -> impl Iterator<Item = ForwarderContext> {
        self.parties.iter().map(|me| ForwarderContext {
            me: *me,
            config: Arc::clone(&self.config),
            threads: Arc::clone(&self.threads),
            routes: self.routes.clone(),
            counters: Arc::clone(&self.config.counters[me.index()]),
        })
    }
}
