//! The threads of an engine: made, pinned, and waited for.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use rustix::thread::CpuSet;

use super::eventfd::Eventfd;
use super::handle::Engine;
use super::network::{ForwarderContext, Interest, NetworkForwarder};
use super::preflight::{self, RingThreads};
use super::shard_thread::{ShardThread, Threads};
use super::worker_thread::WorkerThread;
use crate::error::StartError;
use crate::forward::worker::WorkerConfig;
use crate::forward::{Hub, HubLimits, Party, Route};
use crate::limits::Limits;
use crate::shard::worker_bit;

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

/// The cores that this process may run on; none where the system does not tell.
pub(super) fn cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(error) => {
            tracing::warn!(%error, "the cores are not told: shards run unpinned");
            Vec::new()
        }
    }
}

/// How many cores there are, as far as anybody says.
pub(super) fn core_count(cores: &[usize]) -> usize {
    match cores.len() {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        count => count,
    }
}

/// Keeps this thread on a core. Without that it serves as well, if not as evenly.
pub(super) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        crate::log::seldom!(warn, %error, core, "a shard runs unpinned");
    }
}

pub(super) fn threads(
    shards: u16,
    workers: u16,
    limits: &Limits,
) -> Result<Arc<Threads>, StartError> {
    let hub_limits = HubLimits { lane_len: limits.lane_len, inbox_len: limits.inbox_len };
    let hub = Hub::new(shards, workers, hub_limits);
    let parties = hub.parties();
    let eventfds: Result<Vec<_>, _> = (0..parties).map(|_| Eventfd::new()).collect();
    let eventfds = eventfds.map_err(|error| StartError::System { what: "an eventfd", error })?;
    for (party, eventfd) in (0..parties).map(Party).zip(&eventfds) {
        hub.bell(party).connect(Box::new(eventfd.clone()));
    }
    Ok(Arc::new(Threads {
        hub,
        start: Instant::now(),
        rings: (0..parties).map(|_| AtomicI32::new(-1)).collect(),
        eventfds,
        drain_deadline_us: AtomicU64::new(0),
        stop_workers: AtomicBool::new(false),
        failure: OnceLock::new(),
    }))
}

/// What a thread says when it is set up, or is not.
pub(super) type Opened = Result<(), StartError>;

/// A started thread; it has ended when this returns.
pub(super) type Join = Box<dyn FnOnce() + Send>;

/// What the runtimes of an engine's shards say of themselves.
#[derive(Default)]
pub(super) struct Runtimes {
    pub(super) is_started: AtomicBool,
    /// Why one of them could not be made.
    error: Mutex<Option<std::io::Error>>,
}

impl Runtimes {
    pub(super) fn fail(&self, error: GlommioError<()>) {
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

    pub(super) fn error(&self, threads: RingThreads) -> Option<StartError> {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.map(|error| preflight::ring_failed(RUNTIME, error, threads))
    }
}

pub(super) const RUNTIME: &str = "a shard's runtime";
/// Memory that the runtime sets aside for files; its least.
pub(super) const RUNTIME_IO_BYTES: usize = 64 * 1024;
pub(super) const RUNTIME_RING_DEPTH: usize = 32;

pub(super) fn start_shard(
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
            if let Some(core) = core {
                pin(core);
            }
            match shard.open() {
                Err(error) => drop(opened.send(Err(error))),
                Ok(driver) => {
                    opened.send(Ok(())).ok();
                    drop(opened);
                    if let Err(error) = driver.run().await {
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

pub(super) fn start_worker(
    config: WorkerConfig,
    threads: &Arc<Threads>,
    me: Party,
    ring_threads: RingThreads,
    opened: Sender<Opened>,
) -> Result<Join, StartError> {
    let (threads, told) = (Arc::clone(threads), Arc::clone(threads));
    let spawned = std::thread::Builder::new().name(config.server_id.to_string()).spawn(move || {
        match WorkerThread::open(&config, threads, me) {
            Err(error) => {
                let error = preflight::ring_failed("the ring of a worker", error, ring_threads);
                opened.send(Err(error)).ok();
            }
            Ok(worker) => {
                opened.send(Ok(())).ok();
                drop(opened);
                if let Err(error) = worker.run() {
                    let name = &config.server_id;
                    told.fail(format!("the ring of worker {name} has failed: {error}"));
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

/// Starts the network forwarders, whose places among the parties follow each other.
pub(super) fn start_networks(
    networks: Vec<NetworkForwarder>,
    routers: &[(String, Route)],
    first: Party,
    engine: &mut Engine,
) -> Result<(), StartError> {
    let (config, threads, clients) = engine.parts();
    for (place, network) in networks.into_iter().enumerate() {
        let is_mine = |(name, _): &&(String, Route)| network.server_types.contains(name);
        let me = Party(first.0 + place as u16);
        let context = ForwarderContext {
            me,
            threads: Arc::clone(&threads),
            counters: Arc::clone(&config.counters[me.index()]),
            config: Arc::clone(&config),
            clients,
            routes: routers.iter().filter(is_mine).cloned().collect(),
        };
        engine.add_worker((network.start)(context)?);
    }
    Ok(())
}

/// Waits until all threads are set up. Of one that is not, it gives what it has said, if anything.
pub(super) fn wait_for_all(
    results: &Receiver<Opened>,
    count: usize,
) -> Result<(), Option<StartError>> {
    for _ in 0..count {
        results.recv().map_err(|_| None)?.map_err(Some)?;
    }
    Ok(())
}

pub(super) fn died() -> StartError {
    StartError::System {
        what: "a thread: it ended while it was set up",
        error: std::io::Error::other("see the log"),
    }
}
