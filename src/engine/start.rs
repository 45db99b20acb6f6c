//! From a plan that has been checked to a running engine: its threads are started and waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use socket2::Socket;

use super::accepts::Listeners;
use super::balance::Balancer;
use super::cores::pin;
use super::listen::Listening;
use super::network::{NetworkForwarder, NetworkPlace};
use super::preflight::sockets_max;
use super::ring_memory::ring_failed;
use super::running::Engine;
use super::shard_thread::ShardThread;
use super::threads::{Join, ThreadCounts, Threads, enter};
use super::worker_thread::WorkerThread;
use crate::dispatch::Register;
use crate::error::StartError;
use crate::forward::worker::WorkerConfig;
use crate::forward::{Party, Route};
use crate::io::{Chosen, Io, Poller, Ring, give_way};
use crate::session::ShardIndex;
use crate::shard::ShardConfig;

/// All that an engine is started from.
pub(super) struct Plan {
    pub(super) config: Arc<ShardConfig>,
    pub(super) counts: ThreadCounts,
    pub(super) driver: Chosen,
    /// True if epoll takes the place of rings for which there is no memory.
    pub(super) gives_way: bool,
    /// The cores that shards are pinned to; none where the system does not tell.
    pub(super) cores: Vec<usize>,
    pub(super) listening: Listening,
    /// New connections are spread by the shards' load.
    pub(super) balances: bool,
    /// The registrations of the workers of each forwarded type, in the order of the types.
    pub(super) registers: Vec<Register>,
    pub(super) networks: Vec<Box<dyn NetworkForwarder>>,
    pub(super) routers: Vec<(String, Route)>,
}

/// Shards and workers that run.
struct Started {
    engine: Engine,
    /// The first shard's listening sockets, by which connections are spread.
    weighed: Vec<Weak<Socket>>,
    /// The sockets that each shard may hold.
    sockets_max: u32,
}

impl Plan {
    /// Starts the engine.
    ///
    /// # Errors
    /// The system refuses something, or handlers are registered wrongly. The threads that were
    /// started have ended then.
    pub(super) fn start(mut self) -> Result<Engine, StartError> {
        let started = match self.start_threads() {
            // What the check has seen may be another process's by now.
            Err(error @ StartError::RingMemory { .. }) if self.may_give_way() => {
                self.driver = give_way(&error);
                self.config.mistakes.take();
                self.start_threads()
            }
            started => started,
        };
        let started = started.inspect_err(|_| self.listening.stop())?;
        let Started { mut engine, weighed, sockets_max } = started;
        let Self { config, counts, listening, balances, networks, routers, .. } = self;
        // The shards alone hold them from here on: where a shard fails, it keeps no port.
        drop(listening);
        start_networks(networks, &routers, counts, &mut engine)?;
        if balances && counts.shards > 1 {
            let connections_max = sockets_max.min(config.limits.connections_per_shard_max);
            balance(config, weighed, connections_max, &mut engine);
        }
        Ok(engine)
    }

    fn may_give_way(&self) -> bool {
        self.gives_way && self.driver == Chosen::Ring
    }

    /// Starts shards and workers. The listening sockets stay open for whoever comes next.
    fn start_threads(&self) -> Result<Started, StartError> {
        let Self { config, counts, driver, cores, listening, registers, .. } = self;
        let (counts, driver) = (*counts, *driver);
        let threads = Threads::new(counts, &config.limits)?;
        // From here on a failure stops what runs already: the engine is dropped.
        let mut engine = Engine::new(
            Arc::clone(config),
            Arc::clone(&threads),
            driver,
            listening.addresses.clone(),
        );
        let (opened, results) = channel();
        let sockets_max = sockets_max(driver, counts);
        let runtimes = Arc::<Runtimes>::default();
        let mut weighed = Vec::new();
        let by_shard = clones(&listening.by_shard)?;
        let is_started = Arc::clone(&runtimes.is_started);
        for (index, listeners) in Listeners::shared(by_shard, is_started).enumerate() {
            if index == 0 {
                weighed.extend(listeners.own().iter().map(Arc::downgrade));
            }
            let shard = ShardThread {
                config: Arc::clone(config),
                index: ShardIndex(index as u16),
                listeners,
                sockets_max,
                counts,
                threads: Arc::clone(&threads),
            };
            let core = cores.get(index % cores.len().max(1)).copied();
            engine.add_shard(match driver {
                Chosen::Ring => start_ring_shard(shard, core, &runtimes, opened.clone())?,
                Chosen::Poll => start_poll_shard(shard, core, opened.clone())?,
            });
        }
        let start_worker = match driver {
            Chosen::Ring => start_worker::<Ring>,
            Chosen::Poll => start_worker::<Poller>,
        };
        for (me, worker) in config.workers(&threads.hub, registers) {
            engine.add_worker(start_worker(worker, &threads, me, counts, opened.clone())?);
        }
        drop(opened);
        let count = usize::from(counts.shards) + usize::from(counts.workers);
        if let Err(unopened) = wait_for_all(&results, count) {
            // Its threads have ended when it is gone, and said why.
            drop(engine);
            return Err(match unopened {
                Unopened::Failed(error) => error,
                Unopened::Silent => runtimes.error(counts).unwrap_or_else(died),
            });
        }
        let mistakes = config.mistakes.take();
        if !mistakes.is_empty() {
            return Err(StartError::Handlers(mistakes));
        }
        runtimes.is_started.store(true, Ordering::Release);
        Ok(Started { engine, weighed, sockets_max })
    }
}

/// The same sockets once more.
fn clones(by_shard: &[Vec<Socket>]) -> Result<Vec<Vec<Socket>>, StartError> {
    let failed = |error| StartError::System { what: "another descriptor of a listener", error };
    let of_shard = |sockets: &Vec<Socket>| sockets.iter().map(Socket::try_clone).collect();
    by_shard.iter().map(of_shard).collect::<std::io::Result<_>>().map_err(failed)
}

/// Has new connections spread over the shards by their load. Without it they are spread all the
/// same, by the kernel's hash.
fn balance(
    config: Arc<ShardConfig>,
    sockets: Vec<Weak<Socket>>,
    connections_max: u32,
    engine: &mut Engine,
) {
    match Balancer::start(config, sockets, connections_max) {
        Ok(balancer) => engine.attach(Box::new(balancer)),
        Err(error) => tracing::info!(%error, "new connections are not spread by load"),
    }
}

/// The outcome of a thread's setting up.
type Opened = Result<(), StartError>;

/// The failures of the runtimes of an engine's shards.
#[derive(Default)]
struct Runtimes {
    /// True once the engine has started.
    is_started: Arc<AtomicBool>,
    /// Says why one of them could not be made.
    error: Mutex<Option<std::io::Error>>,
}

impl Runtimes {
    fn fail(&self, error: GlommioError<()>) {
        if self.is_started.load(Ordering::Acquire) {
            tracing::error!(%error, "a shard's runtime has failed");
            return;
        }
        let error = match error {
            GlommioError::IoError(error) => error,
            error => std::io::Error::other(error.to_string()),
        };
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn error(&self, counts: ThreadCounts) -> Option<StartError> {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.map(|error| ring_failed(RUNTIME, error, counts))
    }
}

const RUNTIME: &str = "a shard's runtime";
/// Memory that the runtime sets aside for files; its least.
const RUNTIME_IO_BYTES: usize = 64 * 1024;
const RUNTIME_RING_DEPTH: usize = 32;

/// Starts a shard on a ring, within a runtime.
fn start_ring_shard(
    shard: ShardThread,
    core: Option<usize>,
    runtimes: &Arc<Runtimes>,
    opened: Sender<Opened>,
) -> Result<Join, StartError> {
    let number = shard.index.index();
    let name = format!("shaddock-{number}");
    let threads = Arc::clone(&shard.threads);
    let runtimes = Arc::clone(runtimes);
    // The runtime's own way to pin a thread panics where the system refuses that.
    let spawned = LocalExecutorBuilder::new(Placement::Unbound)
        .name(&name)
        .io_memory(RUNTIME_IO_BYTES)
        .ring_depth(RUNTIME_RING_DEPTH)
        .spawn(move || async move {
            enter();
            if let Some(core) = core {
                pin(core);
            }
            match shard.open::<Ring>() {
                Err(error) => drop(opened.send(Err(error))),
                Ok(shard_loop) => {
                    opened.send(Ok(())).ok();
                    drop(opened);
                    if let Err(error) = shard_loop.run().await {
                        threads.fail(format!("the ring of shard {number} has failed: {error}"));
                    }
                }
            }
        });
    match spawned {
        Ok(handle) => Ok(Box::new(move || {
            if let Err(error) = handle.join() {
                runtimes.fail(error);
            }
        })),
        Err(error) => Err(StartError::System {
            what: RUNTIME,
            error: std::io::Error::other(error.to_string()),
        }),
    }
}

/// Starts a shard that polls, with nothing round it.
fn start_poll_shard(
    shard: ShardThread,
    core: Option<usize>,
    opened: Sender<Opened>,
) -> Result<Join, StartError> {
    let number = shard.index.index();
    let threads = Arc::clone(&shard.threads);
    let named = std::thread::Builder::new().name(format!("shaddock-{number}"));
    let spawned = named.spawn(move || {
        enter();
        if let Some(core) = core {
            pin(core);
        }
        match shard.open::<Poller>() {
            Err(error) => drop(opened.send(Err(error))),
            Ok(shard_loop) => {
                opened.send(Ok(())).ok();
                drop(opened);
                if let Err(error) = shard_loop.run() {
                    threads.fail(format!("the epoll of shard {number} has failed: {error}"));
                }
            }
        }
    });
    let handle = spawned.map_err(|error| StartError::System { what: "a shard's thread", error })?;
    Ok(Box::new(move || {
        if handle.join().is_err() {
            tracing::error!("a shard has panicked");
        }
    }))
}

fn start_worker<I: Io>(
    config: WorkerConfig,
    threads: &Arc<Threads>,
    me: Party,
    counts: ThreadCounts,
    opened: Sender<Opened>,
) -> Result<Join, StartError> {
    let (threads, told) = (Arc::clone(threads), Arc::clone(threads));
    let spawned = std::thread::Builder::new().name(config.server_id.to_string()).spawn(move || {
        enter();
        match WorkerThread::<I>::open(&config, threads, me) {
            Err(error) => {
                let error = ring_failed(I::NAME, error, counts);
                opened.send(Err(error)).ok();
            }
            Ok(worker) => {
                opened.send(Ok(())).ok();
                drop(opened);
                if let Err(error) = worker.run() {
                    let name = &config.server_id;
                    told.fail(format!("{} of worker {name} has failed: {error}", I::NAME));
                }
            }
        }
    });
    let handle =
        spawned.map_err(|error| StartError::System { what: "a worker's thread", error })?;
    Ok(Box::new(move || {
        if handle.join().is_err() {
            tracing::error!("a worker has panicked");
        }
    }))
}

/// Starts the network forwarders.
fn start_networks(
    networks: Vec<Box<dyn NetworkForwarder>>,
    routers: &[(String, Route)],
    counts: ThreadCounts,
    engine: &mut Engine,
) -> Result<(), StartError> {
    let (config, threads, clients) = engine.parts();
    let mut parties = counts.networks();
    for network in networks {
        let count = usize::from(network.threads(counts.shards));
        let parties = parties.by_ref().take(count).collect();
        let server_types = network.server_types();
        let is_mine = |(name, _): &&(String, Route)| server_types.contains(&name.as_str());
        let routes = routers.iter().filter(is_mine).cloned().collect();
        let (config, threads) = (Arc::clone(&config), Arc::clone(&threads));
        let mut joins = Vec::new();
        let place = NetworkPlace { parties, config, threads, clients, routes };
        let started = network.start(place, &mut joins);
        joins.into_iter().for_each(|join| engine.add_worker(join));
        started?;
    }
    Ok(())
}

/// A thread that was not set up.
enum Unopened {
    Failed(StartError),
    /// It has ended and said nothing.
    Silent,
}

/// Waits until all threads are set up.
fn wait_for_all(results: &Receiver<Opened>, count: usize) -> Result<(), Unopened> {
    for _ in 0..count {
        results.recv().map_err(|_| Unopened::Silent)?.map_err(Unopened::Failed)?;
    }
    Ok(())
}

fn died() -> StartError {
    StartError::System {
        what: "a thread: it ended while it was set up",
        error: std::io::Error::other("see the log"),
    }
}
