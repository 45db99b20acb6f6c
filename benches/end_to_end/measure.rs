//! One server under one load.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use shaddock::load::{self, LoadOptions, Phase, Transport};

use crate::common::cpu::CpuMeter;
use crate::process::Process;
use crate::servers::Server;

/// Connections, and requests in flight on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    pub(crate) connections: u32,
    pub(crate) pipeline: u32,
}

impl Point {
    pub(crate) const ALL: [Self; 5] = [
        Self { connections: 1, pipeline: 1 },
        Self { connections: 50, pipeline: 1 },
        Self { connections: 1000, pipeline: 1 },
        Self { connections: 100, pipeline: 16 },
        Self { connections: 1000, pipeline: 16 },
    ];

    pub(crate) fn name(self) -> String {
        format!("{}x{}", self.connections, self.pipeline)
    }
}

/// The figures of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) messages_per_second: f64,
    /// Server CPU per message, in microseconds: the time that its threads were on a core.
    pub(crate) cpu_us: f64,
    /// Its parts, in the proportion of the clock's ticks.
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// The scheduler's account per message.
    pub(crate) charged_us: f64,
    /// The load client's CPU per message, measured like the server's.
    pub(crate) client_cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// `None` if the server can't count them.
    pub(crate) allocations: Option<f64>,
}

/// The duration of each run, and the size of its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
    pub(crate) body_bytes: usize,
}

/// Puts load on a fresh server; with a rate, as an open loop.
pub(crate) fn measure(
    server: Server,
    point: Point,
    shape: Shape,
    rate: Option<f64>,
) -> std::io::Result<Sample> {
    let mut process = Process::start(server)?;
    let options = options(server, point, shape, rate, process.address);
    let (server_id, client_id) = (process.pid(), std::process::id());
    let mut begin = None;
    let mut end = None;
    let report = load::run(&options, |progress| {
        // The first report of the measuring phase comes in its first moments.
        match progress.phase {
            Phase::Measure if begin.is_none() => {
                let allocations = process.allocations();
                let meters = [server_id, client_id].map(CpuMeter::start);
                begin = Some((meters, allocations, progress.messages));
            }
            Phase::Done => {
                end = begin.take().map(|(meters, allocations, messages)| {
                    let cpus = meters.map(|meter| meter.and_then(CpuMeter::stop));
                    (cpus, allocations, process.allocations(), messages)
                });
            }
            _ => {}
        }
    })?;
    let ([cpu, client], allocations, allocations_end, messages) = end.ok_or_else(too_short)?;
    let (cpu, client) = (cpu?, client?);
    let (allocations, allocations_end) = (allocations?, allocations_end?);
    if report.wrong > 0 || report.disconnects.total() > 0 {
        let text = format!("{} answers were wrong; lost: {}", report.wrong, report.disconnects);
        return Err(std::io::Error::other(text));
    }
    let messages = (report.messages - messages) as f64;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / messages;
    let charged = cpu.charged.total.max(Duration::from_nanos(1));
    let user = cpu.on_core.mul_f64(cpu.charged.user.div_duration_f64(charged));
    let quantile = |share| report.latency.value_at_quantile(share) as f64 / 1e3;
    Ok(Sample {
        messages_per_second: report.messages as f64 / report.elapsed.as_secs_f64(),
        cpu_us: each(cpu.on_core),
        user_us: each(user),
        system_us: each(cpu.on_core.saturating_sub(user)),
        charged_us: each(cpu.charged.total),
        client_cpu_us: each(client.on_core),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        allocations: allocations_end
            .zip(allocations)
            .map(|(end, begin)| (end - begin) as f64 / messages),
    })
}

fn too_short() -> std::io::Error {
    std::io::Error::other("the run was too short to be measured")
}

fn options(
    server: Server,
    point: Point,
    shape: Shape,
    rate: Option<f64>,
    address: SocketAddr,
) -> LoadOptions {
    LoadOptions {
        transport: match server {
            Server::ShaddockWebSocket => Transport::WebSocket,
            _ => Transport::Tcp,
        },
        route: server.route().into(),
        connections: point.connections,
        pipeline: point.pipeline,
        body_bytes: shape.body_bytes,
        warmup: shape.warmup,
        measure: shape.measure,
        rate,
        ..LoadOptions::new(address)
    }
}

/// System calls per message, by `perf stat` if it is available and permitted.
pub(crate) fn system_calls(server: Server, point: Point, shape: Shape) -> Option<f64> {
    let process = Process::start(server).ok()?;
    let options = options(server, point, shape, None, process.address);
    let mut perf: Option<Child> = None;
    let mut before = 0;
    let report = load::run(&options, |progress| {
        if progress.phase == Phase::Measure && perf.is_none() {
            before = progress.messages;
            perf = Command::new("perf")
                .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"])
                .arg(process.pid().to_string())
                .args(["--", "sleep", "0.5"])
                .stderr(Stdio::piped())
                .spawn()
                .ok();
        }
    });
    let output = perf?.wait_with_output().ok()?;
    let report = report.ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let calls: f64 =
        text.lines().find(|l| l.contains("sys_enter"))?.split(',').next()?.parse().ok()?;
    let rate = report.messages as f64 / report.elapsed.as_secs_f64();
    Some(calls / (rate * 0.5))
}
