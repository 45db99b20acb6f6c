//! What came of a load.

use std::fmt;

use anyhow::Context as _;
use serde::Serialize;
use shaddock::load::LoadReport;

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
    seconds: f64,
    messages: u64,
    messages_per_second: f64,
    wrong_answers: u64,
    connections_lost: u64,
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
pub(crate) struct CpuPerMessage {
    total_us: f64,
    user_us: f64,
    system_us: f64,
}

impl Report {
    pub(crate) fn new(
        options: &LoadOptions,
        report: &LoadReport,
        server_cpu: Option<CpuPerMessage>,
    ) -> Self {
        let latency = &report.latency;
        let quantile = |share| latency.value_at_quantile(share) as f64 / 1e3;
        let seconds = report.elapsed.as_secs_f64();
        let each = |total: f64| total / (report.messages.max(1) as f64);
        Self {
            addr: options.addr.to_string(),
            transport: format!("{:?}", options.transport).to_lowercase(),
            route: options.route.clone(),
            connections: report.connections,
            pipeline: options.pipeline,
            body_bytes: options.body_bytes,
            rate: options.rate,
            connecting_ms: report.connecting.as_secs_f64() * 1e3,
            seconds,
            messages: report.messages,
            messages_per_second: report.messages as f64 / seconds,
            wrong_answers: report.wrong,
            connections_lost: report.closed,
            pushes: report.pushes,
            latency_us: Latency {
                min: latency.min() as f64 / 1e3,
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p99_9: quantile(0.999),
                max: latency.max() as f64 / 1e3,
                mean: latency.mean() / 1e3,
            },
            client_cpu_us_per_message: each(report.client_cpu.as_secs_f64() * 1e6),
            server_cpu,
        }
    }

    /// Wrong answers and lost connections.
    pub(crate) fn faults(&self) -> u64 {
        self.wrong_answers + self.connections_lost
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
        writeln!(f, "connections lost  {:>12}", self.connections_lost)
    }
}

/// CPU time of all threads of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    total_ns: f64,
    /// In ticks of the clock: only their ratio is used.
    user_ticks: f64,
    system_ticks: f64,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut cpu = Self { total_ns: 0.0, user_ticks: 0.0, system_ticks: 0.0 };
        let tasks = format!("/proc/{pid}/task");
        for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let path = task?.path();
            let schedstat = std::fs::read_to_string(path.join("schedstat"))?;
            cpu.total_ns += number(schedstat.split(' ').next());
            let stat = std::fs::read_to_string(path.join("stat"))?;
            // The name in brackets may hold spaces; the 14th and 15th field of all stand behind it.
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            cpu.user_ticks += number(fields.nth(11));
            cpu.system_ticks += number(fields.next());
        }
        Ok(cpu)
    }

    pub(crate) fn since(self, begin: Self, messages: u64) -> CpuPerMessage {
        let total_us = (self.total_ns - begin.total_ns) / 1e3 / messages.max(1) as f64;
        let user = self.user_ticks - begin.user_ticks;
        let ticks = (user + self.system_ticks - begin.system_ticks).max(1.0);
        let user_us = total_us * user / ticks;
        CpuPerMessage { total_us, user_us, system_us: total_us - user_us }
    }
}

fn number(text: Option<&str>) -> f64 {
    text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_a_process_is_read() {
        let begin = Cpu::of(std::process::id()).unwrap();
        assert!(begin.total_ns > 0.0);
        let end = Cpu { total_ns: begin.total_ns + 2e6, ..begin };
        assert!((end.since(begin, 1000).total_us - 2.0).abs() < 0.01);
        assert!(Cpu::of(u32::MAX).is_err());
    }
}
