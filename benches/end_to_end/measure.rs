//! One server under one load.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use shaddock::load::{self, LoadOptions, Phase, Transport};

use crate::common::cpu::CpuMeter;
use crate::process::{Counts, Process};
use crate::servers::Server;
use crate::tls::{self, Target};
use crate::work::{Outcome, Point, Shape, Work};

/// The load before any other on a server whose code is compiled while it runs. At a low rate that
/// would take longer than a run.
const HEATING: Point = Point { connections: 50, pipeline: 16 };
const HEATING_SHAPE: Shape =
    Shape { warmup: Duration::ZERO, measure: Duration::from_millis(500), body_bytes: 64 };

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
    /// Per message; `None` if the server can't count them, like the next.
    pub(crate) allocations: Option<f64>,
    pub(crate) turns: Option<f64>,
}

/// Puts load on a fresh server.
pub(crate) fn measure(server: Server, work: Work, shape: Shape) -> std::io::Result<Sample> {
    let mut process = Process::start(server)?;
    let (server_id, client_id) = (process.pid(), std::process::id());
    let address = process.address;
    if server.is_compiled_late() {
        load(server, Work::Echo(HEATING), HEATING_SHAPE, address, &mut |_, _| {})?;
    }
    let mut begin = None;
    let mut end = None;
    let outcome = load(server, work, shape, address, &mut |phase, messages| {
        // The first report of the measuring phase comes in its first moments.
        match phase {
            Phase::Measure if begin.is_none() => {
                let counts = process.counts();
                let meters = [server_id, client_id].map(CpuMeter::start);
                begin = Some((meters, counts, messages));
            }
            Phase::Done => {
                end = begin.take().map(|(meters, counts, messages)| {
                    let cpus = meters.map(|meter| meter.and_then(CpuMeter::stop));
                    (cpus, counts, process.counts(), messages)
                });
            }
            _ => {}
        }
    })?;
    let ([cpu, client], counts, counts_end, messages) = end.ok_or_else(too_short)?;
    let (cpu, client, counts, counts_end) = (cpu?, client?, counts?, counts_end?);
    if outcome.messages <= messages {
        return Err(too_short());
    }
    let messages = (outcome.messages - messages) as f64;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / messages;
    let charged = cpu.charged.total.max(Duration::from_nanos(1));
    let user = cpu.on_core.mul_f64(cpu.charged.user.div_duration_f64(charged));
    let quantile = |share| outcome.latency.value_at_quantile(share) as f64 / 1e3;
    let count = |value: fn(&Counts) -> Option<u64>| {
        let grown = value(&counts_end)?.saturating_sub(value(&counts)?);
        Some(grown as f64 / messages)
    };
    Ok(Sample {
        messages_per_second: outcome.messages as f64 / outcome.elapsed.as_secs_f64(),
        cpu_us: each(cpu.on_core),
        user_us: each(user),
        system_us: each(cpu.on_core.saturating_sub(user)),
        charged_us: each(cpu.charged.total),
        client_cpu_us: each(client.on_core),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        allocations: count(|counts| counts.allocations),
        turns: count(|counts| counts.turns),
    })
}

fn too_short() -> std::io::Error {
    std::io::Error::other("the run was too short to be measured")
}

/// Runs the load client; `tell` gets the phase, and the messages in it so far.
fn load(
    server: Server,
    work: Work,
    shape: Shape,
    address: SocketAddr,
    tell: &mut dyn FnMut(Phase, u64),
) -> std::io::Result<Outcome> {
    let target = || Target::new(address, server.transport() == Transport::WebSocket);
    let (point, rate) = match work {
        Work::Connect { at_a_time } => return tls::connect(target()?, at_a_time, shape, tell),
        Work::Echo(point) if server.is_tls() => {
            return tls::echo(target()?, server.route(), point, shape, tell);
        }
        Work::Echo(point) => (point, None),
        Work::EchoAt(..) if server.is_tls() => {
            return Err(std::io::Error::other("there is no open loop over TLS"));
        }
        Work::EchoAt(point, rate) => (point, Some(rate)),
    };
    let options = LoadOptions {
        transport: server.transport(),
        route: server.route().into(),
        connections: point.connections,
        pipeline: point.pipeline,
        body_bytes: shape.body_bytes,
        warmup: shape.warmup,
        measure: shape.measure,
        rate,
        ..LoadOptions::new(address)
    };
    let report = load::run(&options, |progress| tell(progress.phase, progress.messages))?;
    if report.wrong > 0 || report.disconnects.total() > 0 {
        let text = format!("{} answers were wrong; lost: {}", report.wrong, report.disconnects);
        return Err(std::io::Error::other(text));
    }
    let (messages, elapsed, latency) = (report.messages, report.elapsed, report.latency);
    Ok(Outcome { messages, elapsed, latency })
}

/// System calls per message, by `perf stat`.
///
/// # Errors
/// The load fails, or perf is not available or not permitted; the text says why.
pub(crate) fn system_calls(server: Server, work: Work, shape: Shape) -> std::io::Result<f64> {
    let process = Process::start(server)?;
    let mut perf: Option<std::io::Result<Child>> = None;
    let outcome = load(server, work, shape, process.address, &mut |phase, _| {
        if phase == Phase::Measure && perf.is_none() {
            let mut command = Command::new("perf");
            command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"]);
            command.arg(process.pid().to_string()).args(["--", "sleep", "0.5"]);
            perf = Some(command.stderr(Stdio::piped()).spawn());
        }
    })?;
    let output = perf.ok_or_else(too_short)??.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("sys_enter")).unwrap_or_else(|| text.trim());
    let calls: Option<f64> = line.split(',').next().and_then(|number| number.parse().ok());
    let calls = calls.ok_or_else(|| std::io::Error::other(line.to_owned()))?;
    let rate = outcome.messages as f64 / outcome.elapsed.as_secs_f64();
    Ok(calls / (rate * 0.5))
}
