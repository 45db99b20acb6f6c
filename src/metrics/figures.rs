//! Figures of the threads besides their counters. Each has one writer, and may be read at any time
//! by any thread, for which nobody is asked.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Counter, LatencyCounters, MeasuredRoutes, RouteLatencies};

/// The figures of an engine's threads, and what all of them have to know of its end.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Each shard's, once it has begun.
    shards: Box<[OnceLock<Arc<ShardFigures>>]>,
    /// Those of each thread of a network forwarder's, once it has begun.
    clusters: Box<[OnceLock<Arc<ClusterFigures>>]>,
    /// True while balancers are to send nobody more.
    is_draining: AtomicBool,
    /// Clients that connect are turned away.
    refuses_logins: AtomicBool,
}

/// The figures of one shard.
#[derive(Debug)]
pub(crate) struct ShardFigures {
    /// The thread's id in the kernel; 0 until it is known.
    thread: AtomicI32,
    /// Turns, by the time that each has taken.
    pub(crate) turns: LatencyCounters,
    /// Requests that its own handlers have answered.
    pub(crate) local: LatencyCounters,
    /// All requests that are answered, by their routes, where those are measured.
    pub(crate) routes: Option<RouteLatencies>,
    /// Messages that it has forwarded, by server type.
    pub(crate) forwards: Box<[ForwardFigures]>,
    /// Open connections, by listener.
    pub(crate) connections: Box<[Counter]>,
    /// Uids whose home it is.
    pub(crate) uids: Counter,
    /// Bytes handed to the kernel that clients have not taken yet.
    pub(crate) outbox_bytes: Counter,
    /// Bytes of sessions that are read in later turns.
    pub(crate) held_bytes: Counter,
    /// Bytes that count against `shard_bytes_max`.
    pub(crate) kept_bytes: Counter,
    /// Messages in the lane to each worker and network forwarder that it has not taken or, of
    /// batches, not sent back.
    pub(crate) lanes: Box<[Counter]>,
}

/// The figures of one worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerFigures {
    /// The thread's id in the kernel; 0 until it is known.
    thread: AtomicI32,
    /// Turns, by the time that each has taken.
    pub(crate) turns: LatencyCounters,
}

/// Messages that one shard has forwarded to one server type.
#[derive(Debug, Default)]
pub(crate) struct ForwardFigures {
    /// Messages that are answered, by the time until then, whatever the answer.
    pub(crate) answered: LatencyCounters,
    /// Messages that somebody waits for, since the start.
    pub(crate) awaited: Counter,
    /// Those that nobody waits for any more.
    pub(crate) done: Counter,
    /// Messages by their [`ForwardEnd`].
    ends: [Counter; ForwardEnd::COUNT],
}

/// The end of a message that is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardEnd {
    /// Its handler has answered.
    Answered,
    /// Its handler has failed.
    Failed,
    /// Nobody has answered in time.
    TimedOut,
    /// There was no server, or its connection was lost.
    Lost,
    /// There was no room for it.
    Rejected,
}

/// The figures of one thread of a network forwarder.
#[derive(Debug)]
pub(crate) struct ClusterFigures {
    /// The party of the hub that it is.
    pub(crate) party: u16,
    /// `pomelo` or `pitaya`.
    pub(crate) kind: &'static str,
    /// Those who know the cluster's servers, or carry what is sent to them: 1 while there is a
    /// connection on which this server has joined.
    pub(crate) coordinators: Box<[(&'static str, Counter)]>,
    /// True once all of them were there at once. It stays so, as what is known serves on without
    /// them.
    has_joined: AtomicBool,
    pub(crate) server_types: Box<[BackendFigures]>,
}

/// The servers of one type of a cluster.
#[derive(Debug)]
pub(crate) struct BackendFigures {
    pub(crate) name: Box<str>,
    /// Those that can be called.
    pub(crate) up: Counter,
    /// Those that the cluster knows and that can't be called.
    pub(crate) down: Counter,
}

impl Figures {
    /// No figures yet, of so many shards and threads of network forwarders.
    pub(crate) fn new(shards: u16, networks: u16) -> Self {
        Self {
            shards: (0..shards).map(|_| OnceLock::new()).collect(),
            clusters: (0..networks).map(|_| OnceLock::new()).collect(),
            is_draining: AtomicBool::new(false),
            refuses_logins: AtomicBool::new(false),
        }
    }

    /// Shows a shard's figures from here on.
    pub(crate) fn add_shard(&self, shard: usize, figures: &Arc<ShardFigures>) {
        if let Some(place) = self.shards.get(shard) {
            place.set(Arc::clone(figures)).ok();
        }
    }

    /// Those of all shards that have begun, in order.
    pub(crate) fn shards(&self) -> impl Iterator<Item = &Arc<ShardFigures>> {
        self.shards.iter().filter_map(OnceLock::get)
    }

    /// True once every shard and every network forwarder has begun.
    pub(crate) fn have_all_begun(&self) -> bool {
        self.shards.iter().all(|shard| shard.get().is_some())
            && self.clusters.iter().all(|cluster| cluster.get().is_some())
    }

    /// Shows the figures of a thread of a network forwarder's from here on.
    #[cfg_attr(not(any(feature = "pitaya", feature = "pomelo")), allow(dead_code))]
    pub(crate) fn add_cluster(&self, figures: ClusterFigures) -> Arc<ClusterFigures> {
        let figures = Arc::new(figures);
        for place in &self.clusters {
            if place.set(Arc::clone(&figures)).is_ok() {
                break;
            }
        }
        figures
    }

    /// Those of all threads of network forwarders that have begun.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Arc<ClusterFigures>> {
        self.clusters.iter().filter_map(OnceLock::get)
    }

    pub(crate) fn set_draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    pub(crate) fn set_refuses_logins(&self, refuses: bool) {
        self.refuses_logins.store(refuses, Ordering::Relaxed);
    }

    /// True if handshakes are to be turned away, because of a drain.
    pub(crate) fn refuses_logins(&self) -> bool {
        self.refuses_logins.load(Ordering::Relaxed)
    }

    /// True if clients may be sent here: the engine does not drain, and is in its clusters.
    pub(crate) fn is_ready(&self) -> bool {
        self.have_all_begun()
            && !self.is_draining()
            && self.clusters().all(|cluster| cluster.has_joined())
    }
}

impl ShardFigures {
    pub(crate) fn new(
        server_types: usize,
        listeners: usize,
        workers: usize,
        routes: Option<&Arc<MeasuredRoutes>>,
    ) -> Arc<Self> {
        let counters = |len: usize| (0..len).map(|_| Counter::default()).collect();
        Arc::new(Self {
            thread: AtomicI32::new(0),
            turns: LatencyCounters::default(),
            local: LatencyCounters::default(),
            routes: routes.map(RouteLatencies::new),
            forwards: (0..server_types).map(|_| ForwardFigures::default()).collect(),
            connections: counters(listeners),
            uids: Counter::default(),
            outbox_bytes: Counter::default(),
            held_bytes: Counter::default(),
            kept_bytes: Counter::default(),
            lanes: counters(workers),
        })
    }

    /// Tells the thread that it runs on.
    pub(crate) fn set_thread(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The thread that it runs on, once that is known.
    pub(crate) fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread > 0)
    }
}

impl WorkerFigures {
    /// Tells the thread that it runs on.
    pub(crate) fn set_thread(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The thread that it runs on, once that is known.
    pub(crate) fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread > 0)
    }
}

impl ForwardEnd {
    const COUNT: usize = 5;

    /// The end by the answer of a handler.
    #[inline]
    pub(crate) fn of_handler(has_failed: bool) -> Self {
        if has_failed { Self::Failed } else { Self::Answered }
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl ForwardFigures {
    /// Counts messages that came to an end.
    #[inline]
    pub(crate) fn end(&self, end: ForwardEnd, messages: u64) {
        self.ends[end.index()].add(messages);
    }

    pub(crate) fn ended(&self, end: ForwardEnd) -> u64 {
        self.ends[end.index()].value()
    }

    /// Messages that somebody waits for now.
    pub(crate) fn in_flight(&self) -> u64 {
        // In this order: what is done was awaited before.
        let done = self.done.value();
        self.awaited.value().saturating_sub(done)
    }
}

#[cfg_attr(not(any(feature = "pitaya", feature = "pomelo")), allow(dead_code))]
impl ClusterFigures {
    pub(crate) fn new<'a>(
        party: u16,
        kind: &'static str,
        coordinators: &[&'static str],
        server_types: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let backends = |name: &str| BackendFigures {
            name: name.into(),
            up: Counter::default(),
            down: Counter::default(),
        };
        Self {
            party,
            kind,
            coordinators: coordinators.iter().map(|kind| (*kind, Counter::default())).collect(),
            has_joined: AtomicBool::new(coordinators.is_empty()),
            server_types: server_types.into_iter().map(backends).collect(),
        }
    }

    /// Tells if there is a connection to a coordinator.
    pub(crate) fn set_coordinator(&self, kind: &str, is_up: bool) {
        if let Some((_, up)) = self.coordinators.iter().find(|(name, _)| *name == kind) {
            up.set(u64::from(is_up));
        }
        if is_up && self.absent().next().is_none() {
            self.has_joined.store(true, Ordering::Release);
        }
    }

    /// True once it was in its cluster.
    pub(crate) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Acquire)
    }

    /// The coordinators to which there is no connection.
    pub(crate) fn absent(&self) -> impl Iterator<Item = &'static str> {
        let absent = self.coordinators.iter().filter(|(_, up)| up.value() == 0);
        absent.map(|(kind, _)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_ready_once_its_shards_run_and_it_has_joined() {
        let figures = Figures::new(1, 1);
        assert!(!figures.is_ready(), "no shard");
        figures.add_shard(0, &ShardFigures::new(0, 1, 1, None));
        assert!(!figures.is_ready(), "no cluster");
        let cluster = ClusterFigures::new(1, "pitaya", &["nats", "etcd"], ["chat"]);
        let cluster = figures.add_cluster(cluster);
        cluster.set_coordinator("nats", true);
        assert!(!figures.is_ready(), "etcd is missing");
        cluster.set_coordinator("etcd", true);
        assert!(figures.is_ready());
        cluster.set_coordinator("etcd", false);
        assert!(figures.is_ready(), "what is known serves on");
        figures.set_draining(true);
        assert!(!figures.is_ready());
    }

    #[test]
    fn what_is_done_is_in_flight_no_more() {
        let forwards = ForwardFigures::default();
        forwards.awaited.add(3);
        forwards.done.add(2);
        forwards.end(ForwardEnd::Answered, 1);
        forwards.end(ForwardEnd::Lost, 1);
        assert_eq!(forwards.in_flight(), 1);
        assert_eq!((forwards.ended(ForwardEnd::Lost), forwards.ended(ForwardEnd::Failed)), (1, 0));
    }
}
