//! The metrics of an engine for Prometheus. Their names are a promise: dashboards and alerts of
//! others stand on them.

use std::fmt::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
    prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::http::Response;
use super::process::Process;
use super::refused::REASONS;
use super::samples::Samples;
use super::status::{all_limits, by_prefix};
use crate::engine::{Handle, Metrics, ShardMetrics, WorkerMetrics};
use crate::metrics::{CounterSnapshot, Latency};

/// Counts of the admin server itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OwnCounters {
    pub(super) requests: u64,
    /// Refused by the reason that stands beside it.
    pub(super) refused: [(&'static str, u64); REASONS.len()],
    /// Lines that the process's log has lost.
    pub(super) log_lines_lost: Option<u64>,
}

/// Counters of input that is no good, by what is wrong with it.
const BAD_INPUT: [&str; 14] = [
    "attacks",
    "bad_compression",
    "bad_message",
    "bad_message_type",
    "bad_package_type",
    "bad_protobuf",
    "bad_proxy",
    "bad_signature",
    "bad_tls",
    "bad_websocket",
    "bad_websocket_message",
    "ignored_packages",
    "package_too_long",
    "unknown_route",
];
/// Counters that stand in families of their own.
const OWN_FAMILY: [&str; 14] = [
    "connections_accepted",
    "connections_closed",
    "handshakes",
    "bytes_in",
    "bytes_out",
    "requests",
    "notifies",
    "answers",
    "pushes",
    "pushes_dropped",
    "pushes_replaced",
    "tls_handshakes",
    "tls_resumptions",
    "forwards",
];

/// All metrics, in the format that is asked for: that of OpenMetrics, or Prometheus' older one.
pub(super) fn response(
    (handle, samples): (&Handle, &Samples),
    own: OwnCounters,
    accept: &str,
    now: Instant,
) -> Response {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        metrics: handle.last_metrics(),
        started: handle.started(),
        is_draining: handle.is_draining(),
        silent: samples.silent(now).collect(),
        own,
    }));
    let mut body = String::new();
    let is_open = accept.contains("application/openmetrics-text");
    let (encoded, content_type) = if is_open {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        (text::encode(&mut body, &registry), kind)
    } else {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        (prometheus_text::encode(&mut body, &registry), kind)
    };
    match encoded {
        Ok(()) => Response::of(200, content_type, body.into_bytes()),
        // Text in memory takes all.
        Err(Error) => Response::error(503, "the metrics can't be written"),
    }
}

/// The figures of one moment.
#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    started: SystemTime,
    is_draining: bool,
    /// The time since each shard was last seen to end a turn.
    silent: Vec<Duration>,
    own: OwnCounters,
}

/// Some bytes of a shard.
type Bytes = fn(&ShardMetrics) -> u64;

/// Families, one behind the other.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn family(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        write(&mut self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn gauge(&mut self, what: (&str, &str), value: f64) -> Result<(), Error> {
        self.family(what, MetricType::Gauge, |metric| metric.encode_gauge(&value))
    }

    fn counter(&mut self, what: (&str, &str), value: u64) -> Result<(), Error> {
        self.family(what, MetricType::Counter, |metric| {
            metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// A family with a member for each set of labels. One without a member is left out.
    fn members<L: EncodeLabelSet, V>(
        &mut self,
        what: (&str, &str),
        kind: MetricType,
        members: impl IntoIterator<Item = (L, V)>,
        write: impl Fn(MetricEncoder<'_>, V) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut members = members.into_iter().peekable();
        if members.peek().is_none() {
            return Ok(());
        }
        self.family(what, kind, |metric| {
            members.try_for_each(|(labels, value)| write(metric.encode_family(&labels)?, value))
        })
    }

    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        what: (&str, &str),
        members: impl IntoIterator<Item = (L, V)>,
    ) -> Result<(), Error> {
        self.members(what, MetricType::Counter, members, |mut metric, value| {
            metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        what: (&str, &str),
        members: impl IntoIterator<Item = (L, f64)>,
    ) -> Result<(), Error> {
        self.members(what, MetricType::Gauge, members, |mut metric, value| {
            metric.encode_gauge(&value)
        })
    }

    fn histograms<L: EncodeLabelSet>(
        &mut self,
        what: (&str, &str),
        members: impl IntoIterator<Item = (L, Latency)>,
    ) -> Result<(), Error> {
        self.members(what, MetricType::Histogram, members, |mut metric, latency| {
            let bound = |time: Option<Duration>| time.map_or(f64::INFINITY, |it| it.as_secs_f64());
            let buckets: Vec<_> =
                latency.buckets().map(|(time, count)| (bound(time), count)).collect();
            let sum = latency.sum().as_secs_f64();
            metric.encode_histogram::<NoLabelSet>(sum, latency.requests(), &buckets, None)
        })
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        self.encode_engine(&mut families)?;
        self.encode_clients(&mut families)?;
        self.encode_forwards(&mut families)?;
        self.encode_shards(&mut families)?;
        self.encode_workers(&mut families)?;
        self.encode_spans(&mut families)?;
        encode_rest(&self.metrics.counters, &mut families)?;
        self.encode_own(&mut families)?;
        encode_process(&mut families)
    }
}

impl Scrape {
    fn encode_engine(&self, families: &mut Families<'_>) -> Result<(), Error> {
        families.gauges(
            ("shaddock_build_info", "The program, as labels"),
            [([("version", env!("CARGO_PKG_VERSION").to_owned()), ("kernel", kernel())], 1.0)],
        )?;
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        families.gauge(
            ("shaddock_start_time_seconds", "The engine's start, in seconds since 1970"),
            started.as_secs_f64(),
        )?;
        families.gauge(
            ("shaddock_draining", "1 while balancers are to send nobody more"),
            f64::from(u8::from(self.is_draining)),
        )
    }

    fn encode_clients(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let counters = &self.metrics.counters;
        let connections = self.metrics.shards.iter().enumerate().flat_map(|(shard, figures)| {
            let listeners = figures.connections.iter().enumerate();
            listeners.map(move |(listener, open)| {
                let labels = [("shard", shard.to_string()), ("listener", listener.to_string())];
                (labels, *open as f64)
            })
        });
        families.gauges(("shaddock_connections", "Open connections"), connections)?;
        families.counter(
            ("shaddock_connections_accepted", "Connections accepted"),
            counters.connections_accepted,
        )?;
        let closed = by_prefix(counters, "closed_").into_iter();
        let closed = closed.map(|(reason, count)| ([("reason", reason)], count));
        families
            .counters(("shaddock_connections_closed", "Sessions that ended, by why"), closed)?;
        let refused = by_prefix(counters, "refused_").into_iter();
        let refused = refused.map(|(reason, count)| ([("reason", reason)], count));
        families.counters(("shaddock_connections_refused", "Clients turned away"), refused)?;
        families
            .gauge(("shaddock_sessions_bound", "Uids that are bound"), self.metrics.uids as f64)?;
        families.counter(("shaddock_handshakes", "Handshakes done"), counters.handshakes)?;
        let full = counters.tls_handshakes.saturating_sub(counters.tls_resumptions);
        families.counters(
            ("shaddock_tls_handshakes", "TLS handshakes done"),
            [([("resumed", "false")], full), ([("resumed", "true")], counters.tls_resumptions)],
        )?;
        encode_messages(counters, families)
    }

    fn encode_forwards(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let metrics = &self.metrics;
        let mut by_target = vec![("local", Latency::default())];
        metrics.shards.iter().for_each(|shard| by_target[0].1.add(&shard.latency));
        for kind in &metrics.server_types {
            match by_target.iter_mut().find(|(target, _)| *target == kind.target) {
                Some((_, latency)) => latency.add(&kind.latency),
                None => by_target.push((kind.target, kind.latency)),
            }
        }
        let by_target = by_target.into_iter().map(|(target, it)| ([("target", target)], it));
        families.histograms(
            ("shaddock_request_duration_seconds", "Time of requests, by who has answered"),
            by_target,
        )?;
        let kinds = || metrics.server_types.iter();
        let name = |name: &String| ("server_type", name.clone());
        families.histograms(
            ("shaddock_forward_duration_seconds", "Time of requests that were forwarded"),
            kinds().map(|kind| ([name(&kind.name)], kind.latency)),
        )?;
        families.histograms(
            ("shaddock_route_duration_seconds", "Time of requests, by their routes"),
            metrics.routes.iter().map(|it| ([("route", it.route.clone())], it.latency)),
        )?;
        let outcomes = kinds().flat_map(|kind| {
            let ends = [
                ("ok", kind.answered),
                ("error", kind.failed),
                ("timeout", kind.timed_out),
                ("lost", kind.lost),
                ("rejected", kind.rejected),
            ];
            ends.map(|(end, count)| ([name(&kind.name), ("outcome", end.to_owned())], count))
        });
        families.counters(
            ("shaddock_forwards", "Messages forwarded that were waited for, by their outcome"),
            outcomes,
        )?;
        families.counter(
            ("shaddock_forwards_sent", "Messages forwarded, notifies too"),
            metrics.counters.forwards,
        )?;
        families.gauges(
            ("shaddock_forwards_in_flight", "Messages forwarded that are waited for"),
            kinds().map(|kind| ([name(&kind.name)], kind.in_flight as f64)),
        )?;
        families.gauges(
            ("shaddock_backends", "Servers of a type"),
            kinds().flat_map(|kind| {
                let states = [("up", kind.up), ("down", kind.down)];
                states.map(|(state, count)| {
                    ([name(&kind.name), ("state", state.to_owned())], count as f64)
                })
            }),
        )?;
        let coordinators = metrics.clusters.iter().flat_map(|cluster| &cluster.coordinators);
        families.gauges(
            ("shaddock_coordinator_up", "1 while there is a connection to a coordinator"),
            coordinators.map(|(kind, is_up)| ([("kind", *kind)], f64::from(u8::from(*is_up)))),
        )?;
        // A cluster's lane is shared by its types.
        let lanes: std::collections::BTreeMap<_, _> =
            kinds().flat_map(|kind| &kind.lanes).map(|(server, depth)| (server, depth)).collect();
        families.gauges(
            ("shaddock_lane_depth", "Messages in the lanes to a worker or a cluster"),
            lanes.into_iter().map(|(server, depth)| ([("server", server.clone())], *depth as f64)),
        )
    }

    fn encode_shards(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let shards = || self.metrics.shards.iter().enumerate();
        let label = |shard: usize| [("shard", shard.to_string())];
        families.counters(
            ("shaddock_shard_busy_seconds", "Time of turns, without system calls between them"),
            shards().map(|(shard, it)| (label(shard), it.turns.sum().as_secs_f64())),
        )?;
        families.counters(
            ("shaddock_shard_cpu_seconds", "Time that the shard's thread ran"),
            shards().filter_map(|(shard, it)| Some((label(shard), it.cpu?.as_secs_f64()))),
        )?;
        families.counters(
            ("shaddock_shard_turns", "Turns of a shard"),
            shards().map(|(shard, it)| (label(shard), it.turns.requests())),
        )?;
        families.histograms(
            ("shaddock_shard_turn_duration_seconds", "Time of the turns of a shard"),
            shards().map(|(shard, it)| (label(shard), it.turns)),
        )?;
        families.gauges(
            ("shaddock_shard_silent_seconds", "Time since a shard was last seen to end a turn"),
            self.silent.iter().enumerate().map(|(shard, it)| (label(shard), it.as_secs_f64())),
        )?;
        let bytes: [(_, Bytes); 3] = [
            (
                ("shaddock_outbox_bytes", "Bytes with the kernel that clients have not taken"),
                |it| it.outbox_bytes,
            ),
            (("shaddock_held_bytes", "Bytes of clients that are read in later turns"), |it| {
                it.held_bytes
            }),
            (("shaddock_kept_bytes", "Bytes kept for sessions"), |it| it.kept_bytes),
        ];
        bytes.into_iter().try_for_each(|(what, of)| {
            families.gauges(what, shards().map(|(shard, it)| (label(shard), of(it) as f64)))
        })
    }

    fn encode_workers(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let workers = || self.metrics.server_types.iter().flat_map(|kind| &kind.workers);
        let label = |worker: &WorkerMetrics| [("server", worker.name.clone())];
        families.counters(
            (
                "shaddock_worker_busy_seconds",
                "Time of the turns of a worker, its handlers' included",
            ),
            workers().map(|it| (label(it), it.turns.sum().as_secs_f64())),
        )?;
        families.counters(
            ("shaddock_worker_cpu_seconds", "Time that the worker's thread ran"),
            workers().filter_map(|it| Some((label(it), it.cpu?.as_secs_f64()))),
        )?;
        families.histograms(
            ("shaddock_worker_turn_duration_seconds", "Time of the turns of a worker"),
            workers().map(|it| (label(it), it.turns)),
        )
    }

    fn encode_spans(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let Some(spans) = self.metrics.spans else { return Ok(()) };
        families
            .counter(("shaddock_spans_sent", "Spans that the collector has taken"), spans.sent)?;
        families.counters(
            ("shaddock_spans_lost", "Spans that it has not got, by why"),
            spans.lost.map(|(reason, count)| ([("reason", reason)], count)),
        )
    }

    fn encode_own(&self, families: &mut Families<'_>) -> Result<(), Error> {
        families.counter(
            ("shaddock_admin_requests", "Requests to the admin server"),
            self.own.requests,
        )?;
        if let Some(lost) = self.own.log_lines_lost {
            families.counter(("shaddock_log_lines_lost", "Lines that the log has lost"), lost)?;
        }
        let refused = self.own.refused.iter().filter(|(reason, _)| !reason.is_empty());
        families.counters(
            ("shaddock_admin_refused", "Requests and connections that it has refused"),
            refused.map(|(reason, count)| ([("reason", *reason)], *count)),
        )
    }
}

fn encode_messages(counters: &CounterSnapshot, families: &mut Families<'_>) -> Result<(), Error> {
    let by = |label: &'static str, pairs: [(&'static str, u64); 2]| {
        pairs.map(|(value, count)| ([(label, value)], count))
    };
    families.counters(
        ("shaddock_messages_received", "Messages of clients"),
        by("type", [("request", counters.requests), ("notify", counters.notifies)]),
    )?;
    families.counters(
        ("shaddock_messages_sent", "Messages to clients, a push for each receiver"),
        by("type", [("response", counters.answers), ("push", counters.pushes)]),
    )?;
    let lost = [("dropped", counters.pushes_dropped), ("replaced", counters.pushes_replaced)];
    families.counters(
        ("shaddock_pushes_lost", "Pushes that slow clients have not got"),
        by("reason", lost),
    )?;
    families.counter(("shaddock_received_bytes", "Bytes received"), counters.bytes_in)?;
    families.counter(("shaddock_sent_bytes", "Bytes sent"), counters.bytes_out)
}

/// All other counters: limits, bad input, and what has no family of its own.
fn encode_rest(counters: &CounterSnapshot, families: &mut Families<'_>) -> Result<(), Error> {
    let limits = all_limits(counters).map(|(limit, count)| ([("limit", limit)], count));
    families.counters(
        ("shaddock_limit_hits", "What happened at the limits of docs/limits.md"),
        limits,
    )?;
    let bad = counters.iter().filter(|(name, _)| BAD_INPUT.contains(name));
    let bad = bad.map(|(name, count)| ([("kind", name.trim_start_matches("bad_"))], count));
    families.counters(("shaddock_bad_input", "Input of clients that is no good"), bad)?;
    let is_other = |name: &str| {
        let is_in_family = name.starts_with("closed_") || name.starts_with("refused_");
        !is_in_family && !BAD_INPUT.contains(&name) && !OWN_FAMILY.contains(&name)
    };
    let others = counters.iter().filter(|(name, _)| is_other(name));
    families.counters(
        ("shaddock_events", "Every other counter, by its name"),
        others.map(|(name, count)| ([("event", name)], count)),
    )
}

fn encode_process(families: &mut Families<'_>) -> Result<(), Error> {
    let process = Process::look();
    families.family(
        ("process_cpu_seconds", "Time that all threads of the process ran"),
        MetricType::Counter,
        |metric| metric.encode_counter::<NoLabelSet, _, f64>(&process.cpu_seconds, None),
    )?;
    let gauges = [
        (
            ("process_resident_memory_bytes", "Memory of the process"),
            process.resident_bytes.map(|bytes| bytes as f64),
        ),
        (("process_open_fds", "Open descriptors"), process.open_fds.map(|count| count as f64)),
        (("process_max_fds", "Descriptors at most"), process.max_fds.map(|count| count as f64)),
        (
            ("process_start_time_seconds", "The process's start, in seconds since 1970"),
            process.start_time,
        ),
    ];
    gauges.into_iter().try_for_each(|(what, value)| match value {
        Some(value) => families.gauge(what, value),
        None => Ok(()),
    })
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every other counter has its label in `shaddock_events` by itself.
    #[test]
    fn the_names_of_counters_are_those_that_there_are() {
        let counters: Vec<_> = CounterSnapshot::default().iter().map(|(name, _)| name).collect();
        for name in BAD_INPUT.iter().chain(&OWN_FAMILY) {
            assert!(counters.contains(name), "{name}");
        }
    }
}
