//! The figures of an engine as JSON, for people's tools and pages.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::samples::Samples;
use crate::engine::{Handle, Metrics, ServerTypeMetrics, ShardMetrics};
use crate::limits::Limits;
use crate::metrics::{CounterSnapshot, Latency};

/// The answer to `/status`.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    server_id: &'a str,
    server_type: &'a str,
    started_unix: u64,
    uptime_s: u64,
    ready: bool,
    /// A text for each reason why not.
    unready: Vec<String>,
    draining: bool,
    #[serde(flatten)]
    figures: Figures,
}

/// Figures that change from second to second; an event of `/events`.
#[derive(Serialize)]
pub(super) struct Figures {
    connections: usize,
    uids: usize,
    /// Rates of the last second.
    messages_in_per_s: f64,
    messages_out_per_s: f64,
    bytes_in_per_s: f64,
    bytes_out_per_s: f64,
    latency: Times,
    shards: Vec<Shard>,
    server_types: Vec<Backends>,
    clusters: Vec<Cluster>,
    /// The limits that were met since the start, and how often.
    limits_met: BTreeMap<&'static str, u64>,
    closed: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
}

/// Times of requests of the last second, in microseconds; nothing where there was none.
#[derive(Serialize)]
struct Times {
    requests: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

#[derive(Serialize)]
struct Shard {
    shard: usize,
    connections: u64,
    /// The part of the last second in which its turns ran.
    busy: f64,
    /// The part of the last second in which its thread ran, system calls included.
    cpu: Option<f64>,
    turns_per_s: f64,
    turn_p99_us: u64,
    outbox_bytes: u64,
    held_bytes: u64,
    kept_bytes: u64,
}

/// One server type, as `/backends` tells it too.
#[derive(Serialize)]
pub(super) struct Backends {
    server_type: String,
    target: &'static str,
    up: u64,
    down: u64,
    in_flight: u64,
    answered: u64,
    failed: u64,
    timed_out: u64,
    lost: u64,
    rejected: u64,
    /// Of all its requests since the start.
    p50_us: u64,
    p99_us: u64,
    /// Messages in the lane to each worker, or to the cluster.
    lanes: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Cluster {
    kind: &'static str,
    joined: bool,
    coordinators: BTreeMap<&'static str, bool>,
}

impl<'a> Status<'a> {
    pub(super) fn new(handle: &'a Handle, samples: &Samples) -> Self {
        let since_1970 = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
        };
        let started = since_1970(handle.started());
        let unready = handle.unready();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            server_id: handle.server_id(),
            server_type: handle.server_type(),
            started_unix: started,
            uptime_s: since_1970(SystemTime::now()).saturating_sub(started),
            ready: unready.is_empty(),
            unready,
            draining: handle.is_draining(),
            figures: Figures::new(samples),
        }
    }
}

impl Figures {
    pub(super) fn new(samples: &Samples) -> Self {
        let (last, before) = (&samples.last.metrics, &samples.before.metrics);
        let seconds = samples.seconds();
        let rate = |of: fn(&CounterSnapshot) -> u64| {
            of(&last.counters).saturating_sub(of(&before.counters)) as f64 / seconds
        };
        Self {
            connections: last.connections,
            uids: last.uids,
            messages_in_per_s: rate(|it| it.requests + it.notifies),
            messages_out_per_s: rate(|it| it.answers + it.pushes),
            bytes_in_per_s: rate(|it| it.bytes_in),
            bytes_out_per_s: rate(|it| it.bytes_out),
            latency: Times::of(&samples.latency()),
            shards: shards(last, before, seconds),
            server_types: last.server_types.iter().map(Backends::of).collect(),
            clusters: clusters(last),
            limits_met: limits_met(&last.counters),
            closed: by_prefix(&last.counters, "closed_"),
            refused: by_prefix(&last.counters, "refused_"),
        }
    }
}

impl Times {
    fn of(latency: &Latency) -> Self {
        let requests = latency.requests();
        let quantile = |share| (requests > 0).then(|| micros(latency.quantile(share)));
        Self { requests, p50_us: quantile(0.5), p99_us: quantile(0.99) }
    }
}

impl Backends {
    pub(super) fn of(kind: &ServerTypeMetrics) -> Self {
        Self {
            server_type: kind.name.clone(),
            target: kind.target,
            up: kind.up,
            down: kind.down,
            in_flight: kind.in_flight,
            answered: kind.answered,
            failed: kind.failed,
            timed_out: kind.timed_out,
            lost: kind.lost,
            rejected: kind.rejected,
            p50_us: micros(kind.latency.quantile(0.5)),
            p99_us: micros(kind.latency.quantile(0.99)),
            lanes: kind.lanes.iter().cloned().collect(),
        }
    }
}

fn shards(last: &Metrics, before: &Metrics, seconds: f64) -> Vec<Shard> {
    let pairs = last.shards.iter().zip(&before.shards).enumerate();
    let one = |(shard, (last, before)): (usize, (&ShardMetrics, &ShardMetrics))| {
        let turns = last.turns.since(&before.turns);
        let cpu = last.cpu.zip(before.cpu);
        Shard {
            shard,
            connections: last.connections.iter().sum(),
            busy: turns.sum().as_secs_f64() / seconds,
            cpu: cpu.map(|(last, before)| last.saturating_sub(before).as_secs_f64() / seconds),
            turns_per_s: turns.requests() as f64 / seconds,
            turn_p99_us: micros(turns.quantile(0.99)),
            outbox_bytes: last.outbox_bytes,
            held_bytes: last.held_bytes,
            kept_bytes: last.kept_bytes,
        }
    };
    pairs.map(one).collect()
}

fn clusters(metrics: &Metrics) -> Vec<Cluster> {
    let clusters = metrics.clusters.iter().map(|cluster| Cluster {
        kind: cluster.kind,
        joined: cluster.has_joined,
        coordinators: cluster.coordinators.iter().copied().collect(),
    });
    clusters.collect()
}

/// The limits that were met, and how often.
pub(super) fn limits_met(counters: &CounterSnapshot) -> BTreeMap<&'static str, u64> {
    let met = all_limits(counters);
    met.filter(|(_, count)| *count > 0).collect()
}

/// All limits that have a counter, and how often each was met; one that several share counts for
/// each.
pub(super) fn all_limits(counters: &CounterSnapshot) -> impl Iterator<Item = (&'static str, u64)> {
    let by_name: BTreeMap<&str, u64> = counters.iter().collect();
    let limits = Limits::table().iter().filter(|limit| !limit.counters.is_empty());
    limits.map(move |limit| {
        (limit.key, limit.counters.iter().filter_map(|name| by_name.get(name)).sum())
    })
}

/// The counters that begin so, by the rest of their names, in which `by` says nothing.
pub(super) fn by_prefix(counters: &CounterSnapshot, prefix: &str) -> BTreeMap<&'static str, u64> {
    let named = counters.iter().filter_map(|(name, count)| {
        let reason = name.strip_prefix(prefix)?;
        Some((reason.strip_prefix("by_").unwrap_or(reason), count))
    });
    named.collect()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
