//! The report of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use shaddock::load::{CpuTime, LoadReport};

use super::options::LoadOptions;

/// The report, as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    addr: String,
    transport: String,
    route: String,
    connections: u32,
    pipeline: u32,
    body_bytes: u32,
    /// For an open loop.
    rate: Option<f64>,
    connecting_ms: f64,
    /// For a storm: from the drop until all were back.
    reconnecting_ms: Option<f64>,
    /// From the beginning of each connection, or from the drop.
    handshake_us: Latency,
    seconds: f64,
    messages: u64,
    messages_per_second: f64,
    wrong_answers: u64,
    connections_lost: u64,
    lost_by_reason: BTreeMap<String, u64>,
    pushes: u64,
    latency_us: Latency,
    client_cpu_us_per_message: f64,
    server_cpu: Option<CpuPerMessage>,
}

/// Microseconds by quantile.
#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
    mean: f64,
}

/// Microseconds of the server's CPU for each message.
#[derive(Debug, Clone, Copy, Serialize)]
struct CpuPerMessage {
    total_us: f64,
    user_us: f64,
    system_us: f64,
}

impl Report {
    pub(crate) fn new(
        options: &LoadOptions,
        report: &LoadReport,
        server_cpu: Option<(CpuTime, u64)>,
    ) -> Self {
        let seconds = report.elapsed.as_secs_f64();
        let each = |total: f64| total / (report.messages.max(1) as f64);
        Self {
            addr: options.addresses(),
            transport: format!("{:?}", options.transport).to_lowercase(),
            route: options.route.clone(),
            connections: report.connections,
            pipeline: options.pipeline,
            body_bytes: options.body_bytes,
            rate: options.rate,
            connecting_ms: report.connecting.as_secs_f64() * 1e3,
            reconnecting_ms: report.reconnecting.map(|time| time.as_secs_f64() * 1e3),
            handshake_us: Latency::of(&report.handshake),
            seconds,
            messages: report.messages,
            messages_per_second: report.messages as f64 / seconds,
            wrong_answers: report.wrong,
            connections_lost: report.disconnects.total(),
            lost_by_reason: report
                .disconnects
                .iter()
                .map(|(why, n)| (why.to_string(), n))
                .collect(),
            pushes: report.pushes,
            latency_us: Latency::of(&report.latency),
            client_cpu_us_per_message: each(report.client_cpu.as_secs_f64() * 1e6),
            server_cpu: server_cpu.map(|(time, messages)| CpuPerMessage::new(time, messages)),
        }
    }

    /// Wrong answers and lost connections.
    pub(crate) fn faults(&self) -> u64 {
        self.wrong_answers + self.connections_lost
    }
}

impl Latency {
    fn of(latency: &Histogram<u64>) -> Self {
        let quantile = |share| latency.value_at_quantile(share) as f64 / 1e3;
        Self {
            min: latency.min() as f64 / 1e3,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: latency.max() as f64 / 1e3,
            mean: latency.mean() / 1e3,
        }
    }
}

impl CpuPerMessage {
    fn new(time: CpuTime, messages: u64) -> Self {
        let each = |part: Duration| part.as_secs_f64() * 1e6 / messages.max(1) as f64;
        Self {
            total_us: each(time.total),
            user_us: each(time.user),
            system_us: each(time.system()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} connections x {} in flight over {} to {}, {} bytes to {}",
            self.connections, self.pipeline, self.transport, self.addr, self.body_bytes, self.route
        )?;
        writeln!(f, "connected in      {:>12.1} ms", self.connecting_ms)?;
        if let Some(reconnecting_ms) = self.reconnecting_ms {
            let Latency { p50, p99, max, .. } = self.handshake_us;
            let [p50, p99, max] = [p50, p99, max].map(|us| us / 1e3);
            writeln!(f, "all back after    {reconnecting_ms:>12.1} ms")?;
            writeln!(f, "  handshakes: p50 {p50:.1} ms  p99 {p99:.1} ms  max {max:.1} ms")?;
        }
        writeln!(f, "messages          {:>12} in {:.2} s", self.messages, self.seconds)?;
        writeln!(f, "messages/s        {:>12.0}", self.messages_per_second)?;
        let Latency { min, p50, p90, p99, p99_9, max, mean } = self.latency_us;
        let from = if self.rate.is_some() { "due" } else { "sent" };
        writeln!(f, "latency in µs from when a message was {from}:")?;
        writeln!(f, "  min {min:.1}  mean {mean:.1}  p50 {p50:.1}  p90 {p90:.1}")?;
        writeln!(f, "  p99 {p99:.1}  p99.9 {p99_9:.1}  max {max:.1}")?;
        writeln!(f, "client CPU        {:>12.3} µs a message", self.client_cpu_us_per_message)?;
        if let Some(cpu) = self.server_cpu {
            writeln!(
                f,
                "server CPU        {:>12.3} µs a message ({:.3} user, {:.3} system)",
                cpu.total_us, cpu.user_us, cpu.system_us
            )?;
        }
        if self.pushes > 0 {
            writeln!(f, "pushes            {:>12}", self.pushes)?;
        }
        writeln!(f, "wrong answers     {:>12}", self.wrong_answers)?;
        writeln!(f, "connections lost  {:>12}", self.connections_lost)?;
        self.lost_by_reason.iter().try_for_each(|(why, count)| writeln!(f, "  {count} {why}"))
    }
}
