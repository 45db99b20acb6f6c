//! The figures of a running engine, and its readiness. To read them asks no shard for anything.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
#[cfg(feature = "admin")]
use std::sync::mpsc::SyncSender;
use std::time::Duration;
#[cfg(any(feature = "admin", feature = "traces"))]
use std::time::SystemTime;

use super::handle::Handle;
use crate::error::HandleError;
#[cfg(feature = "admin")]
use crate::forward::mail::{Look, Mail};
use crate::forward::{Carrier, ServerType, ServerTypeIndex};
use crate::metrics::{CounterSnapshot, ForwardEnd, Latency, ShardFigures};
#[cfg(feature = "admin")]
use crate::session::{SessionPage, ShardIndex};
use crate::span::SpanLoss;
#[cfg(feature = "traces")]
use crate::span::SpanQueues;

/// An engine's figures at one moment. All of them count from the start, so that any number of
/// readers see the same.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Metrics {
    /// Open connections.
    pub connections: usize,
    /// Uids that are bound.
    pub uids: usize,
    /// The counters of all threads.
    pub counters: CounterSnapshot,
    /// The time that requests took. Of a time of one's own: [`Latency::since`].
    pub latency: Latency,
    /// Each shard.
    pub shards: Vec<ShardMetrics>,
    /// Each server type that is forwarded.
    pub server_types: Vec<ServerTypeMetrics>,
    /// Each route whose requests were answered, where [`Builder::route_latency`] measures them,
    /// and last all others together as `other`.
    ///
    /// [`Builder::route_latency`]: crate::Builder::route_latency
    pub routes: Vec<RouteMetrics>,
    /// Each cluster that the engine is a member of.
    pub clusters: Vec<ClusterMetrics>,
    /// Spans of messages that were traced; none where nothing is.
    pub spans: Option<SpanMetrics>,
}

/// The figures of one shard.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ShardMetrics {
    /// Open connections, by listener, in the order of the engine's description.
    pub connections: Vec<u64>,
    /// The time that its turns took, without the system calls between them. Their number is that of
    /// the turns, their sum the time that the shard was busy.
    pub turns: Latency,
    /// The time that its thread ran, as the kernel counts it; none where it does not tell.
    pub cpu: Option<Duration>,
    /// The time that requests took which its own handlers have answered.
    pub latency: Latency,
    /// Bytes handed to the kernel that clients have not taken yet.
    pub outbox_bytes: u64,
    /// Bytes that clients have sent and that are read in later turns
    /// ([`held_bytes_max`](crate::Limits::held_bytes_max)).
    pub held_bytes: u64,
    /// Bytes kept for sessions ([`shard_bytes_max`](crate::Limits::shard_bytes_max)).
    pub kept_bytes: u64,
}

/// The figures of one server type that is forwarded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerTypeMetrics {
    /// Its name.
    pub name: String,
    /// The carrier of its messages: `worker`, `pomelo` or `pitaya`.
    pub target: &'static str,
    /// The time that requests took, whatever became of them.
    pub latency: Latency,
    /// Messages that somebody waits for now.
    pub in_flight: u64,
    /// Messages that were answered.
    pub answered: u64,
    /// Messages whose handlers have failed.
    pub failed: u64,
    /// Messages that nobody has answered in time.
    pub timed_out: u64,
    /// Messages that found no server, or whose server's connection was lost.
    pub lost: u64,
    /// Messages that found no room.
    pub rejected: u64,
    /// Servers that can be called.
    pub up: u64,
    /// Servers that are known and can't be called.
    pub down: u64,
    /// Workers by their names, or the cluster by its kind, and the messages in the lanes to them.
    pub lanes: Vec<(String, u64)>,
    /// Each worker; none of a cluster's type.
    pub workers: Vec<WorkerMetrics>,
}

/// The figures of one route.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouteMetrics {
    /// Its text, or `other` for all that are not measured by themselves.
    pub route: String,
    /// The time that its requests took, whoever has answered them.
    pub latency: Latency,
}

/// The figures of one worker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// Its server id.
    pub name: String,
    /// The time that its turns took, handlers included. Their number is that of the turns, their
    /// sum the time that the worker was busy.
    pub turns: Latency,
    /// The time that its thread ran, as the kernel counts it; none where it does not tell.
    pub cpu: Option<Duration>,
}

/// The state of one cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterMetrics {
    /// `pomelo` or `pitaya`.
    pub kind: &'static str,
    /// Its coordinators (`master`, `nats`, `etcd`), and if there is a connection to each on which
    /// this server has joined.
    pub coordinators: Vec<(&'static str, bool)>,
    /// True once there was one to all of them.
    pub has_joined: bool,
}

/// The fate of the spans of messages that were traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpanMetrics {
    /// Spans that the collector has taken.
    pub sent: u64,
    /// Spans that were lost, by the reason: `open` where too many were waited for, `queue` where
    /// too many waited to be sent, `collector` where that could not be reached, did not answer in
    /// time or refused them.
    pub lost: [(&'static str, u64); 3],
}

impl Handle {
    /// The engine's figures. They are read where its threads leave them: no shard is asked, and a
    /// shard that hangs does not hold them up. What is a sum of many things, such as the bytes kept
    /// for sessions, is a tenth of a second old at the most.
    ///
    /// ```
    /// # fn print(handle: &shaddock::Handle) -> Result<(), shaddock::HandleError> {
    /// let metrics = handle.metrics()?;
    /// println!("{} connections, {} players", metrics.connections, metrics.uids);
    /// println!("99 % of requests took at most {:?}", metrics.latency.quantile(0.99));
    /// for (name, count) in metrics.counters.iter() {
    ///     println!("{name} {count}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HandleError::Stopped`] if the engine has stopped.
    pub fn metrics(&self) -> Result<Metrics, HandleError> {
        if self.is_stopped() {
            return Err(HandleError::Stopped);
        }
        Ok(self.last_metrics())
    }

    /// The same of an engine that may have stopped.
    pub(crate) fn last_metrics(&self) -> Metrics {
        let figures = || self.config.figures.shards();
        let mut metrics = Metrics {
            connections: self.config.connections.load(Ordering::Relaxed),
            uids: figures().map(|shard| shard.uids.value() as usize).sum(),
            counters: self.counters(),
            latency: Latency::default(),
            shards: figures().map(shard_metrics).collect(),
            server_types: self.server_type_metrics(),
            routes: self.route_metrics(),
            clusters: self.cluster_metrics(),
            spans: self.config.spans.as_ref().map(|spans| SpanMetrics {
                sent: spans.sent(),
                lost: SpanLoss::ALL.map(|why| (why.name(), spans.lost(why))),
            }),
        };
        let local = metrics.shards.iter().map(|shard| &shard.latency);
        let forwarded = metrics.server_types.iter().map(|kind| &kind.latency);
        local.chain(forwarded).for_each(|latency| metrics.latency.add(latency));
        metrics
    }

    fn route_metrics(&self) -> Vec<RouteMetrics> {
        let Some(measured) = &self.config.measured_routes else { return Vec::new() };
        let named = |name: &str| RouteMetrics { route: name.into(), latency: Latency::default() };
        let mut routes: Vec<_> = measured.names().map(named).collect();
        for latencies in self.config.figures.shards().filter_map(|shard| shard.routes.as_ref()) {
            routes.iter_mut().zip(latencies.snapshots()).for_each(|(it, of_shard)| {
                it.latency.add(&of_shard);
            });
        }
        routes.retain(|route| route.latency.requests() > 0);
        routes
    }

    fn server_type_metrics(&self) -> Vec<ServerTypeMetrics> {
        let types = self.config.server_types.iter().enumerate();
        types.map(|(index, kind)| self.metrics_of(ServerTypeIndex(index as u16), kind)).collect()
    }

    fn metrics_of(&self, index: ServerTypeIndex, kind: &ServerType) -> ServerTypeMetrics {
        let (target, up, down, names, first, count) = match &kind.carrier {
            Carrier::Workers { servers, first_worker, .. } => {
                let names: Vec<_> = servers.iter().map(|id| id.as_str().to_owned()).collect();
                let count = names.len();
                ("worker", count as u64, 0, names, *first_worker, count)
            }
            Carrier::Remote(threads) => {
                let party = self.threads.hub.worker(threads.first);
                let mut clusters = self.config.figures.clusters();
                let cluster = clusters.find(|cluster| cluster.party == party.0);
                let backends = cluster.and_then(|cluster| {
                    cluster.server_types.iter().find(|shown| *shown.name == *kind.name)
                });
                let (up, down) = backends.map_or((0, 0), |it| (it.up.value(), it.down.value()));
                // Until its thread has begun it has no server.
                let target = cluster.map_or("cluster", |cluster| cluster.kind);
                let names = vec![target.to_owned()];
                (target, up, down, names, threads.first, usize::from(threads.count))
            }
        };
        let workers = match &kind.carrier {
            Carrier::Workers { .. } => self.worker_metrics(&names, first.index()),
            Carrier::Remote(_) => Vec::new(),
        };
        let mut metrics = ServerTypeMetrics {
            name: kind.name.to_string(),
            target,
            latency: Latency::default(),
            in_flight: 0,
            answered: 0,
            failed: 0,
            timed_out: 0,
            lost: 0,
            rejected: 0,
            up,
            down,
            lanes: names.into_iter().map(|name| (name, 0)).collect(),
            workers,
        };
        for shard in self.config.figures.shards() {
            let forwards = &shard.forwards[index.index()];
            metrics.latency.add(&forwards.answered.snapshot());
            metrics.in_flight += forwards.in_flight();
            metrics.answered += forwards.ended(ForwardEnd::Answered);
            metrics.failed += forwards.ended(ForwardEnd::Failed);
            metrics.timed_out += forwards.ended(ForwardEnd::TimedOut);
            metrics.lost += forwards.ended(ForwardEnd::Lost);
            metrics.rejected += forwards.ended(ForwardEnd::Rejected);
            // Those to the threads of a network forwarder have one name.
            let last = metrics.lanes.len().saturating_sub(1);
            for (place, lane) in shard.lanes.iter().skip(first.index()).take(count).enumerate() {
                metrics.lanes[place.min(last)].1 += lane.value();
            }
        }
        metrics
    }

    /// The figures of workers that follow each other, by their names.
    fn worker_metrics(&self, names: &[String], first: usize) -> Vec<WorkerMetrics> {
        let workers = names.iter().zip(first..).filter_map(|(name, place)| {
            let figures = self.threads.worker_figures(place)?;
            Some(WorkerMetrics {
                name: name.clone(),
                turns: figures.turns.snapshot(),
                cpu: figures.thread().and_then(thread_cpu),
            })
        });
        workers.collect()
    }

    fn cluster_metrics(&self) -> Vec<ClusterMetrics> {
        let mut all: Vec<ClusterMetrics> = Vec::new();
        for cluster in self.config.figures.clusters() {
            let coordinators =
                cluster.coordinators.iter().map(|(kind, up)| (*kind, up.value() > 0));
            match all.iter_mut().find(|other| other.kind == cluster.kind) {
                None => all.push(ClusterMetrics {
                    kind: cluster.kind,
                    coordinators: coordinators.collect(),
                    has_joined: cluster.has_joined(),
                }),
                // What one thread of several lacks is lacking.
                Some(other) => {
                    other.has_joined &= cluster.has_joined();
                    for (kind, is_up) in coordinators {
                        let mut found = other.coordinators.iter_mut();
                        match found.find(|(other, _)| *other == kind) {
                            Some((_, other)) => *other &= is_up,
                            // The thread that began first does not talk to it.
                            None => other.coordinators.push((kind, is_up)),
                        }
                    }
                }
            }
        }
        all
    }

    /// Tells balancers to send nobody more, or to do so again: the health path and the admin
    /// server's `/readyz` say 503 from here on, or as before. Clients that connect are served all
    /// the same. During a drain, or a shutdown, it stays so; see [`Self::undrain`].
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// t.handle().set_draining(true);
    /// assert!(t.handle().is_draining());
    /// ```
    pub fn set_draining(&self, is_draining: bool) {
        self.config.figures.set_draining(is_draining || self.has_drain());
    }

    fn has_drain(&self) -> bool {
        self.is_stopped() || self.threads.drain_asked().is_some()
    }

    /// True if balancers are to send nobody more.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.config.figures.is_draining()
    }

    /// The reasons why no client is to be sent here, one to a line; none where the engine is ready.
    ///
    /// It is ready once its threads run and it has joined its clusters, until it drains. A
    /// coordinator that is lost later does not change that, as what is known serves on.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// t.handle().set_draining(true);
    /// assert!(t.handle().unready().contains(&"draining".to_owned()));
    /// ```
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let figures = &self.config.figures;
        let mut reasons = Vec::new();
        if let Some(failure) = self.failure() {
            reasons.push(format!("the engine has failed: {failure}"));
        }
        if figures.is_draining() {
            reasons.push("draining".to_owned());
        }
        if !figures.have_all_begun() {
            reasons.push("not all threads have begun".to_owned());
        }
        for cluster in figures.clusters().filter(|cluster| !cluster.has_joined()) {
            let kind = cluster.kind;
            let absent = cluster.absent().map(|absent| format!("{kind}: {absent} not joined yet"));
            reasons.extend(absent);
        }
        reasons
    }
}

/// For what is attached.
#[cfg(any(feature = "admin", feature = "traces"))]
impl Handle {
    pub(crate) fn server_id(&self) -> &str {
        &self.config.server_id
    }

    pub(crate) fn server_type(&self) -> &str {
        &self.config.server_type
    }
}

/// For whoever sends spans on.
#[cfg(feature = "traces")]
impl Handle {
    pub(crate) fn spans(&self) -> Option<Arc<SpanQueues>> {
        self.config.spans.clone()
    }

    /// The time at which the clock of the shards was 0, by what both clocks say now: the system's
    /// may have been set since.
    pub(crate) fn clock_zero(&self) -> SystemTime {
        let elapsed = Duration::from_micros(self.threads.now_us());
        SystemTime::now().checked_sub(elapsed).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// For the admin server.
#[cfg(feature = "admin")]
impl Handle {
    pub(crate) fn shard_count(&self) -> u16 {
        self.shards()
    }

    /// Asks a shard for some of its sessions.
    pub(crate) fn look(
        &self,
        shard: ShardIndex,
        at: Look,
        to: SyncSender<SessionPage>,
    ) -> Result<(), HandleError> {
        self.tell(shard, Mail::Look { at, to })
    }

    /// The time at which the engine started.
    pub(crate) fn started(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.config.started_unix_ms)
    }

    /// The time until the first session is closed, until the last one is, and until the end, of a
    /// drain.
    pub(crate) fn drain_times(&self) -> Option<[Duration; 3]> {
        let plan = self.threads.drain_asked()?;
        let now_us = self.threads.now_us();
        let times_us = [plan.begin_us, plan.closed_us, plan.end_us];
        Some(times_us.map(|time_us| Duration::from_micros(time_us.saturating_sub(now_us))))
    }
}

fn shard_metrics(shard: &Arc<ShardFigures>) -> ShardMetrics {
    ShardMetrics {
        connections: shard.connections.iter().map(crate::metrics::Counter::value).collect(),
        turns: shard.turns.snapshot(),
        cpu: shard.thread().and_then(thread_cpu),
        latency: shard.local.snapshot(),
        outbox_bytes: shard.outbox_bytes.value(),
        held_bytes: shard.held_bytes.value(),
        kept_bytes: shard.kept_bytes.value(),
    }
}

/// The time that a thread of this process ran.
pub(super) fn thread_cpu(thread: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
