//! The state that the threads of one engine share besides the core's hub: clock, wake-ups, and the
//! signs by which they end.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::drain::{Drain, SharedDrain};
use super::eventfd::Eventfd;
use crate::dispatch::tasks::WakeThread as _;
use crate::error::StartError;
use crate::forward::{Hub, HubLimits, Party};
use crate::io::{Completion, Io, Token};
use crate::limits::Limits;
use crate::log::redact_credentials;
use crate::metrics::WorkerFigures;
use crate::shard::DrainPlan;

/// The state that an engine's threads share.
pub(super) struct Threads {
    pub(super) hub: Arc<Hub>,
    start: Instant,
    /// The ring of each party; negative while it has none.
    rings: Vec<AtomicI32>,
    /// The eventfd of each party.
    eventfds: Vec<Eventfd>,
    drain: SharedDrain,
    /// Each worker's figures.
    worker_figures: Box<[WorkerFigures]>,
    shards: u16,
    /// The shards of which all sessions have ended, and all mail about that is in its lanes.
    closed: AtomicU16,
    /// Those of them that nothing is owed on.
    settled: AtomicU16,
    /// The workers stop once the shards have.
    has_to_stop_workers: AtomicBool,
    /// The failure that has ended the engine, if that was no shutdown.
    failure: OnceLock<String>,
}

/// The number of an engine's threads, by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThreadCounts {
    pub(super) shards: u16,
    pub(super) workers: u16,
    /// The threads of network forwarders.
    pub(super) networks: u16,
}

impl ThreadCounts {
    /// The parties of the hub.
    pub(super) fn parties(self) -> u16 {
        self.shards + self.workers + self.networks
    }

    /// The parties of the network forwarders' threads, in order.
    pub(super) fn networks(self) -> impl Iterator<Item = Party> {
        (self.shards + self.workers..self.parties()).map(Party)
    }
}

thread_local! {
    static IS_OF_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as a shard or worker.
pub(super) fn enter() {
    IS_OF_ENGINE.set(true);
}

/// True on the thread of a shard or worker, of this engine or another: whoever blocks it keeps
/// clients waiting, and a shard that waits for itself waits for good.
pub(super) fn is_of_engine() -> bool {
    IS_OF_ENGINE.get()
}

/// A started thread; it has ended when this returns.
pub(super) type Join = Box<dyn FnOnce() + Send>;

/// For how long sessions may still be served, to be told of the end, after an engine's failure.
const FAILURE_NOTICE: Duration = Duration::from_secs(1);

impl Threads {
    pub(super) fn new(counts: ThreadCounts, limits: &Limits) -> Result<Arc<Self>, StartError> {
        let hub_limits = HubLimits { lane_len: limits.lane_len, inbox_len: limits.inbox_len };
        let hub = Hub::new(counts.shards, counts.workers + counts.networks, hub_limits);
        let parties = hub.parties();
        let eventfds: Result<Vec<_>, _> = (0..parties).map(|_| Eventfd::new()).collect();
        let eventfds =
            eventfds.map_err(|error| StartError::System { what: "an eventfd", error })?;
        for (party, eventfd) in (0..parties).map(Party).zip(&eventfds) {
            hub.bell(party).connect(Box::new(eventfd.clone()));
        }
        Ok(Arc::new(Self {
            hub,
            start: Instant::now(),
            rings: (0..parties).map(|_| AtomicI32::new(-1)).collect(),
            eventfds,
            drain: SharedDrain::new(),
            worker_figures: (0..counts.workers).map(|_| WorkerFigures::default()).collect(),
            shards: counts.shards,
            closed: AtomicU16::new(0),
            settled: AtomicU16::new(0),
            has_to_stop_workers: AtomicBool::new(false),
            failure: OnceLock::new(),
        }))
    }

    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The eventfd by which threads without a ring wake a party.
    pub(super) fn eventfd(&self, party: Party) -> &Eventfd {
        &self.eventfds[party.index()]
    }

    /// Lets other rings wake a party by its own, if it has one.
    pub(super) fn add_ring(&self, party: Party, io: &impl Io) {
        self.rings[party.index()].store(io.ring_fd().unwrap_or(-1), Ordering::Release);
    }

    /// Takes a party's ring out of use before it is closed.
    pub(super) fn remove_ring(&self, party: Party) {
        self.rings[party.index()].store(-1, Ordering::Release);
    }

    /// The figures of a worker by its place among all, unless it is none of this engine's.
    pub(super) fn worker_figures(&self, place: usize) -> Option<&WorkerFigures> {
        self.worker_figures.get(place)
    }

    /// The figures of the worker that a party is.
    pub(super) fn figures_of(&self, worker: Party) -> Option<&WorkerFigures> {
        self.worker_figures(worker.index().checked_sub(self.shards.into())?)
    }

    fn ring_of(&self, party: Party) -> Option<RawFd> {
        let fd = self.rings[party.index()].load(Ordering::Acquire);
        (fd >= 0).then_some(fd)
    }

    /// Wakes a party from a shard or worker.
    pub(super) fn wake(&self, party: Party, io: &mut impl Io) {
        match self.ring_of(party) {
            Some(fd) => io.wake_ring(fd, party),
            None => self.eventfd(party).wake(),
        }
    }

    /// A bell of this party has rung, or another could not be woken by its ring.
    pub(super) fn handle_wake(&self, me: Party, completion: Completion, io: &mut impl Io) {
        match completion.token {
            Token::Bell => {
                let eventfd = self.eventfd(me);
                eventfd.clear();
                if !completion.has_more() {
                    io.watch(eventfd.raw());
                }
            }
            Token::WakeFailed(party) => self.eventfd(party).wake(),
            _ => {}
        }
    }

    fn wake_all(&self) {
        self.eventfds.iter().for_each(Eventfd::wake);
    }

    /// Has the shards drain, unless that is called off.
    pub(super) fn drain(&self, drain: Drain) {
        self.drain.begin(drain.plan(self.now_us()));
        self.wake_all();
    }

    /// Has the shards drain and end.
    pub(super) fn drain_for_good(&self, drain: Drain) {
        self.drain.begin_for_good(drain.plan(self.now_us()));
        self.wake_all();
    }

    /// Calls a drain off; false if it is too late.
    pub(super) fn undrain(&self) -> bool {
        self.drain.call_off()
    }

    /// True if a drain leaves sessions to be served, as their turn to be closed is yet to come.
    pub(super) fn has_to_serve(&self) -> bool {
        let plan = self.drain_asked();
        let is_early = plan.is_some_and(|plan| self.now_us() < plan.closed_us);
        is_early && !self.are_closed() && self.failure().is_none()
    }

    /// True if the time of a drain is over.
    pub(super) fn is_drain_over(&self) -> bool {
        self.drain_asked().is_some_and(|plan| self.now_us() >= plan.end_us)
    }

    /// The times of a drain that closes sessions at that time.
    pub(super) fn drain_plan(&self, now_us: u64) -> Option<DrainPlan> {
        self.drain.plan(now_us)
    }

    /// The times of a drain, also of one whose delay is not over.
    pub(super) fn drain_asked(&self) -> Option<DrainPlan> {
        self.drain.asked()
    }

    /// A shard's sessions have ended in a drain.
    pub(super) fn add_closed(&self) {
        self.closed.fetch_add(1, Ordering::AcqRel);
        if self.are_closed() {
            self.wake_all();
        }
    }

    /// True if the sessions of all shards have ended: workers run their hooks then.
    pub(super) fn are_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) >= self.hub.shards()
    }

    /// Nothing is owed any more on a shard in a drain.
    pub(super) fn add_settled(&self) {
        self.settled.fetch_add(1, Ordering::AcqRel);
        if self.are_settled() {
            self.wake_all();
        }
    }

    /// True if nothing is owed on any shard. Until then each serves the others, whose futures may
    /// ask it for something.
    pub(super) fn are_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) >= self.hub.shards()
    }

    /// Has workers and network forwarders end. The shards have ended.
    pub(super) fn stop_workers(&self) {
        self.has_to_stop_workers.store(true, Ordering::Release);
        self.wake_all();
    }

    /// True if workers and network forwarders are to end.
    pub(super) fn has_to_stop_workers(&self) -> bool {
        self.has_to_stop_workers.load(Ordering::Acquire)
    }

    /// Ends the whole engine, as a thread can't go on: its sessions, and the uids whose home it is,
    /// are lost to the others, which would serve some and hang others.
    pub(super) fn fail(&self, failure: String) {
        // What a library says of a connection may have its address in it.
        let failure = redact_credentials(&failure).into_owned();
        tracing::error!("{failure}; the engine stops");
        self.failure.get_or_init(|| failure);
        self.drain.shorten(Drain::within(FAILURE_NOTICE).plan(self.now_us()));
        self.wake_all();
    }

    /// The failure that has ended the engine, if one has.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}
