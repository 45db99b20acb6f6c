//! One server under one load.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use shaddock::load::{self, LoadOptions, LoadReport, Mode, Phase, ProcessCpu};

use crate::common::child::Child;
use crate::servers::{self, ECHO, Figures, Server, Setting, TO_ALL};
use crate::system::{self, KernelMemory};

/// Memory per idle connection.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    pub(crate) server: Server,
    pub(crate) connections: u32,
    /// Of the server's process.
    pub(crate) bytes: f64,
    /// The kernel's, for both ends.
    pub(crate) kernel_bytes: f64,
    /// Of those, the bytes of each cache that has grown or shrunk, if the kernel tells.
    pub(crate) kernel_caches: BTreeMap<String, f64>,
}

/// The rate and cost of setting connections up.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SetUp {
    pub(crate) server: Server,
    pub(crate) connections: u32,
    pub(crate) per_second: f64,
    /// Server CPU per connection.
    pub(crate) cpu_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// All clients disconnect, and connect again at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Storm {
    pub(crate) server: Server,
    pub(crate) connections: u32,
    /// From the disconnection until all handshakes were done.
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Connections that failed or were closed since the disconnection.
    pub(crate) lost: u64,
    pub(crate) heartbeat_closes: u64,
}

/// One push to all sessions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Push {
    pub(crate) server: Server,
    pub(crate) connections: u32,
    pub(crate) body_bytes: usize,
    pub(crate) pushes: u64,
    /// Server CPU per push and session.
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
}

/// Messages at a fixed rate over a number of connections.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Count {
    pub(crate) server: Server,
    pub(crate) connections: u32,
    pub(crate) rate: f64,
    /// Server CPU per message.
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) resident_mib: f64,
}

/// The durations of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
}

/// The figures of a load, and of its server meanwhile.
struct Loaded {
    report: LoadReport,
    cpu: load::CpuTime,
    messages: u64,
    pushes: u64,
    /// Resident memory at the end, of the server and the kernel.
    resident_bytes: f64,
    kernel: KernelMemory,
    /// The server's CPU time when all connections were up.
    connected: ProcessCpu,
}

/// The heartbeat interval of a run without heartbeats.
const NEVER: Duration = Duration::from_secs(3600);
/// The most messages that may be late on one connection of an open loop.
const LATE_MAX: u32 = 64;
/// Pushes to everyone per second: half of a core's capacity for 10,000 sessions, so that each is
/// complete before the next.
const PUSHES_PER_SECOND: f64 = 10.0;
/// Rings of the load client for many connections, and, for comparison, for few.
pub(crate) const CLIENT_RINGS: u32 = 6;

fn options(child: &Child, server: Server, connections: u32, shape: Shape) -> LoadOptions {
    LoadOptions {
        addresses: child.addresses.clone(),
        transport: server.transport(),
        route: ECHO.into(),
        connections,
        heartbeat: NEVER,
        warmup: shape.warmup,
        measure: shape.measure,
        ..LoadOptions::new(child.addresses[0])
    }
}

/// Puts load on a server. A wrong answer is an error, and so is a lost connection unless losses are
/// counted.
fn load(child: &Child, options: &LoadOptions) -> std::io::Result<Loaded> {
    let (mut connected, mut begin, mut end) = (None, None, None);
    let report = load::run(options, |progress| {
        let sample = || (child.cpu(), progress.messages, progress.pushes);
        match progress.phase {
            Phase::Warmup if connected.is_none() => connected = Some(child.cpu()),
            Phase::Measure if begin.is_none() => begin = Some(sample()),
            Phase::Done => {
                let memory = (system::resident_bytes(child.pid()), KernelMemory::now());
                end = Some((sample(), memory));
            }
            _ => {}
        }
    })?;
    let (Some(connected), Some(begin), Some((end, memory))) = (connected, begin, end) else {
        return Err(std::io::Error::other("the run was too short to be measured"));
    };
    if report.wrong > 0 || (options.mode != Mode::Storm && report.disconnects.total() > 0) {
        let text = format!("{} answers were wrong; lost: {}", report.wrong, report.disconnects);
        return Err(std::io::Error::other(text));
    }
    Ok(Loaded {
        report,
        cpu: end.0?.since(begin.0?),
        messages: end.1 - begin.1,
        pushes: end.2 - begin.2,
        resident_bytes: memory.0?,
        kernel: memory.1,
        connected: connected?,
    })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The growth of a process for each of its idle connections.
pub(crate) fn memory(server: Server, connections: u32, shape: Shape) -> std::io::Result<Memory> {
    let ports = system::ports_needed(connections);
    let child = servers::start(server, Setting { rings: 1, ports, heartbeat_s: 0 })?;
    // Everything that connections share is used once: buffers, pools, code.
    let warm = LoadOptions { pipeline: 64, ..options(&child, server, 64, shape) };
    load(&child, &warm)?;
    system::settle();
    let (resident, kernel) = (system::resident_bytes(child.pid())?, KernelMemory::now());
    let idle = LoadOptions { mode: Mode::Idle, ..options(&child, server, connections, shape) };
    let loaded = load(&child, &idle)?;
    let each = |bytes: f64| bytes / f64::from(connections);
    let grown = loaded.kernel.since(&kernel);
    Ok(Memory {
        server,
        connections,
        bytes: each(loaded.resident_bytes - resident),
        kernel_bytes: each(grown.bytes),
        kernel_caches: grown.caches.into_iter().map(|(name, it)| (name, each(it))).collect(),
    })
}

/// The rate at which connections are set up, 128 at a time.
pub(crate) fn set_up(server: Server, connections: u32, shape: Shape) -> std::io::Result<SetUp> {
    let ports = system::ports_needed(connections);
    let child = servers::start(server, Setting { rings: 1, ports, heartbeat_s: 0 })?;
    let begin = child.cpu()?;
    let idle = LoadOptions { mode: Mode::Idle, ..options(&child, server, connections, shape) };
    let Loaded { report, connected, .. } = load(&child, &idle)?;
    let quantile = |share| report.handshake.value_at_quantile(share) as f64 / 1e6;
    Ok(SetUp {
        server,
        connections,
        per_second: f64::from(connections) / report.connecting.as_secs_f64(),
        cpu_us: micros(connected.since(begin).total) / f64::from(connections),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    })
}

/// All clients disconnect and connect again at once, and stay for longer than the heartbeat
/// timeout.
pub(crate) fn storm(server: Server, connections: u32, heartbeat_s: u64) -> std::io::Result<Storm> {
    let ports = system::ports_needed(connections * 2);
    let mut child = servers::start(server, Setting { rings: 1, ports, heartbeat_s })?;
    let heartbeat = Duration::from_secs(heartbeat_s);
    let shape = Shape { warmup: heartbeat, measure: heartbeat * 3 };
    let storm = LoadOptions {
        mode: Mode::Storm,
        opening: connections,
        heartbeat,
        ..options(&child, server, connections, shape)
    };
    let Loaded { report, .. } = load(&child, &storm)?;
    let Figures { heartbeat_closes, .. } = servers::figures(&mut child)?;
    let quantile = |share| report.handshake.value_at_quantile(share) as f64 / 1e6;
    Ok(Storm {
        server,
        connections,
        seconds: report.reconnecting.unwrap_or_default().as_secs_f64(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        lost: report.disconnects.total(),
        heartbeat_closes,
    })
}

/// The cost of a push to everyone for each session.
pub(crate) fn push(
    server: Server,
    connections: u32,
    body_bytes: usize,
    shape: Shape,
) -> std::io::Result<Push> {
    let ports = system::ports_needed(connections);
    let child = servers::start(server, Setting { rings: 1, ports, heartbeat_s: 0 })?;
    let to_all = LoadOptions {
        route: TO_ALL.into(),
        body_bytes,
        rate: Some(PUSHES_PER_SECOND),
        ..options(&child, server, connections, shape)
    };
    let loaded = load(&child, &to_all)?;
    let expected = loaded.messages * u64::from(connections);
    // Those of the last moments may still be on their way, and on a busy machine more of them.
    if loaded.pushes * 4 < expected * 3 {
        let text = format!("{} pushes came, about {expected} were asked for", loaded.pushes);
        return Err(std::io::Error::other(text));
    }
    let each = |time| micros(time) / loaded.pushes as f64;
    Ok(Push {
        server,
        connections,
        body_bytes,
        pushes: loaded.pushes,
        cpu_us: each(loaded.cpu.total),
        user_us: each(loaded.cpu.user),
    })
}

/// The cost of a message at a rate that does not depend on the number of connections.
pub(crate) fn count(
    server: Server,
    connections: u32,
    rate: f64,
    setting: Setting,
    shape: Shape,
) -> std::io::Result<Count> {
    let child = servers::start(server, setting)?;
    count_on(&child, server, connections, rate, shape)
}

/// The same of a server that runs.
pub(crate) fn count_on(
    child: &Child,
    server: Server,
    connections: u32,
    rate: f64,
    shape: Shape,
) -> std::io::Result<Count> {
    let open_loop = LoadOptions {
        rings: CLIENT_RINGS,
        pipeline: LATE_MAX,
        rate: Some(rate),
        ..options(child, server, connections, shape)
    };
    let loaded = load(child, &open_loop)?;
    let reached = loaded.report.messages as f64 / loaded.report.elapsed.as_secs_f64();
    if reached < rate * 0.95 {
        let text = format!("{rate} messages a second were asked for, {reached:.0} came");
        return Err(std::io::Error::other(text));
    }
    let each = |time| micros(time) / loaded.messages as f64;
    let quantile = |share| loaded.report.latency.value_at_quantile(share) as f64 / 1e3;
    Ok(Count {
        server,
        connections,
        rate: reached,
        cpu_us: each(loaded.cpu.total),
        user_us: each(loaded.cpu.user),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        resident_mib: loaded.resident_bytes / f64::from(1 << 20),
    })
}
