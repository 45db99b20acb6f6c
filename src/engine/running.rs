//! A running engine, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::attached::Attached;
use super::drain::Drain;
use super::handle::Handle;
use super::threads::{Join, Threads, is_of_engine};
use crate::dispatch::context::Host;
use crate::io::Chosen;
use crate::metrics::CounterSnapshot;
use crate::shard::ShardConfig;

/// A running engine. Dropped without [`Engine::shutdown`], it closes every connection at once.
///
/// An engine that has ended leaves nothing behind but one eventfd for each shard that was on a
/// ring, which glommio 0.9 never closes.
pub struct Engine {
    handle: Handle,
    /// The same for the code on its threads.
    host: Host,
    addresses: Vec<SocketAddr>,
    shards: Vec<Join>,
    workers: Vec<Join>,
    attached: Vec<Box<dyn Attached>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// The outcome of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The time that it took.
    pub took: Duration,
    /// Futures that were owed and that the drain has had no time for, such as saves; see
    /// [`Context::spawn_owed`](crate::Context::spawn_owed).
    pub futures_lost: u64,
    /// The counters at the end.
    pub counters: CounterSnapshot,
}

/// The time between two looks whether a drain still serves sessions.
const SERVING_LOOK_EVERY: Duration = Duration::from_millis(5);

impl Engine {
    pub(super) fn new(
        config: Arc<ShardConfig>,
        threads: Arc<Threads>,
        driver: Chosen,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        assert!(!addresses.is_empty(), "an engine listens somewhere");
        #[cfg(feature = "admin")]
        config.recorder.set_addresses(&addresses);
        let handle = Handle::new(config, threads, driver);
        let host = handle.host();
        let (shards, workers, attached) = (Vec::new(), Vec::new(), Vec::new());
        Self { handle, host, addresses, shards, workers, attached }
    }

    /// Configuration and state that its threads share, and the address where clients connect.
    pub(super) fn parts(&self) -> (Arc<ShardConfig>, Arc<Threads>, SocketAddr) {
        (Arc::clone(&self.handle.config), Arc::clone(&self.handle.threads), self.local_addr())
    }

    pub(super) fn add_shard(&mut self, shard: Join) {
        self.shards.push(shard);
    }

    pub(super) fn add_worker(&mut self, worker: Join) {
        self.workers.push(worker);
    }

    /// Keeps something that runs beside the engine, until it has stopped.
    pub(super) fn attach(&mut self, attached: Box<dyn Attached>) {
        self.attached.push(attached);
    }

    /// The address where the admin server listens, with the port that was found if it was 0; none
    /// where it listens on none.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.attached.iter().find_map(|attached| attached.address())
    }

    /// The address where clients connect, with the port that was found if it was 0; the first if
    /// there are several.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses where clients connect, in the order they were given.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), shaddock::StartError> {
    /// let engine = shaddock::Engine::builder().listen("[::]:0").listen("127.0.0.1:0").start()?;
    /// println!("{}, of {:?}", engine.local_addr(), engine.local_addrs());
    /// if let Some(admin) = engine.admin_addr() {
    ///     println!("http://{admin}/metrics");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops the engine, and waits until its threads have ended.
    ///
    /// [`Handle`]s work until the last session was to be closed. A drain that [`Handle::drain`] has
    /// begun, and that closes sessions already, goes on as it was, unless this is [`Drain::now`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Drain, Engine};
    ///
    /// # fn stop(engine: Engine) {
    /// let report = engine.shutdown(Drain::within(Duration::from_secs(10)));
    /// if report.futures_lost > 0 {
    ///     eprintln!("{} saves were lost", report.futures_lost);
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// It is called on a shard or worker, which would wait for itself. [`Handle::drain`] is for
    /// code there. An engine that is dropped there ends at once, too, but is not waited for.
    #[track_caller]
    pub fn shutdown(mut self, drain: Drain) -> ShutdownReport {
        assert!(
            !is_of_engine(),
            "`Engine::shutdown` waits for the engine's threads, so none of them can call it: call \
             `Handle::drain` there"
        );
        self.stop(drain)
    }

    fn stop(&mut self, drain: Drain) -> ShutdownReport {
        let start = Instant::now();
        self.handle.tell_of_drain(drain);
        let threads = &self.handle.threads;
        threads.drain_for_good(drain);
        while threads.has_to_serve() {
            thread::sleep(SERVING_LOOK_EVERY);
        }
        self.handle.set_stopped();
        self.shards.drain(..).for_each(|join| join());
        threads.stop_workers();
        self.workers.drain(..).for_each(|join| join());
        self.attached.clear();
        let counters = self.handle.counters();
        ShutdownReport { took: start.elapsed(), futures_lost: counters.futures_lost, counters }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.shards.is_empty() && self.workers.is_empty() {
            return;
        }
        if !is_of_engine() {
            self.stop(Drain::now());
            return;
        }
        // A shard can't wait for itself. Where there is no thread that could, nobody waits.
        let (handle, host) = (self.handle.clone(), Arc::clone(&self.host));
        let threads = (std::mem::take(&mut self.shards), std::mem::take(&mut self.workers));
        let attached = std::mem::take(&mut self.attached);
        let stop = move || {
            let ((shards, workers), addresses) = (threads, Vec::new());
            drop(Self { handle, host, addresses, shards, workers, attached });
        };
        thread::Builder::new().name("shaddock-stop".into()).spawn(stop).ok();
    }
}
