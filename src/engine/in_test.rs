//! A description as the kit in `src/testing/` runs it: without threads, sockets and clusters.

use std::sync::Arc;

use super::builder::checks::Parts;
use super::builder::{Builder, Shards};
use super::handle::Handle;
use super::listen::Listener;
use super::threads::Threads;
use crate::dispatch::Register;
use crate::dispatch::context::Host;
use crate::error::StartError;
use crate::forward::{Hub, Workers};
use crate::io::Chosen;
use crate::shard::{Dialect, ListenerIndex, ShardConfig};

/// All that the kit runs an engine from.
pub(crate) struct TestPlan {
    pub(crate) config: Arc<ShardConfig>,
    pub(crate) hub: Arc<Hub>,
    /// The registrations of the workers of each forwarded type, in the order of the types.
    pub(crate) registers: Vec<Register>,
    pub(crate) handle: Handle,
    /// The same for the code on shards and workers, which take it when they are made.
    pub(crate) host: Host,
    /// The listener of the kit's clients.
    pub(crate) listener: ListenerIndex,
}

/// The shards of an engine that has one for each core: the same on any machine, and enough of them
/// for mail from one to another.
const SHARDS_PER_CORE: u16 = 2;

impl Builder {
    /// Checks the description as [`Self::start`] does, and makes of it what a test can run:
    /// `backends` stand for the servers of clusters, by their types.
    ///
    /// # Errors
    /// The first thing that is wrong with the description; a server type of a cluster's for which
    /// nobody stands.
    pub(crate) fn plan_test(
        mut self,
        backends: Vec<(String, Register)>,
    ) -> Result<TestPlan, StartError> {
        if self.listeners.is_empty() {
            self.listeners.push(CLIENTS.into());
        }
        let shards = match self.shards {
            Shards::PerCore => SHARDS_PER_CORE,
            Shards::Count(count) => count,
        };
        self.checked(shards)?;
        self.replace_networks(backends)?;
        let listener = self.plain_listener();
        let checked = self.checked(shards)?;
        let counts = checked.counts;
        let Parts { mut config, registers, .. } = self.into_parts(checked);
        config.started_unix_ms = 0;
        config.spans = None;
        #[cfg(feature = "crypto")]
        {
            config.use_crypto = false;
        }
        let config = Arc::new(config);
        let threads = Threads::new(counts, &config.limits)?;
        let hub = Arc::clone(&threads.hub);
        let handle = Handle::new(Arc::clone(&config), threads, Chosen::Poll);
        let host = handle.host();
        Ok(TestPlan { config, hub, registers, handle, host, listener })
    }

    /// Puts one worker in the place of each server type of a cluster's.
    fn replace_networks(&mut self, backends: Vec<(String, Register)>) -> Result<(), StartError> {
        // What a cluster wants of sessions holds without it, too.
        self.follow_clusters();
        for network in self.networks.drain(..) {
            let mut names = network.server_types().into_iter();
            let is_missing = |name: &&str| backends.iter().all(|(other, _)| other != name);
            if let Some(name) = names.find(is_missing) {
                let expected = format!(
                    "stood in for by `testing::Setup::backend(\"{name}\", …)`, as a test reaches no \
                     cluster"
                );
                return Err(StartError::Option { option: network.option(), expected });
            }
        }
        let workers = |(name, register)| (name, Workers { count: 1, register });
        self.forwards.extend(backends.into_iter().map(workers));
        Ok(())
    }

    /// The first listener of Pomelo's dialect, which loses what the kit's clients do not do; one
    /// more where there is none.
    fn plain_listener(&mut self) -> ListenerIndex {
        let is_pomelo = |listener: &Listener| listener.config.dialect == Dialect::Pomelo;
        let index = self.listeners.iter().position(is_pomelo).unwrap_or_else(|| {
            self.listeners.push(CLIENTS.into());
            self.listeners.len() - 1
        });
        let config = &mut self.listeners[index].config;
        config.expects_proxy = false;
        #[cfg(feature = "tls")]
        {
            config.tls = None;
        }
        // Those given have been checked, and are few enough for one more.
        ListenerIndex(index as u8)
    }
}

/// An address that nobody listens on.
const CLIENTS: &str = "127.0.0.1:0";
