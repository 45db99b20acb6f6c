//! A load client for any server that speaks Pomelo's protocol.
//!
//! One thread drives all connections on a ring of its own, so that it costs less for each message
//! than the server that it loads. In a *closed loop* each connection keeps a number of requests in
//! flight; in an *open loop* requests are due at a fixed rate whatever the server does, and latency
//! counts from when a request was due, so that a server that stalls can't hide the requests that it
//! kept from being sent.

mod client;
mod cpu;
mod driver;

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use cpu::{CpuTime, ProcessCpu};
pub use driver::run;

/// What to do to a server.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_structs)] // Built with `..LoadOptions::new(address)`.
pub struct LoadOptions {
    /// The server.
    pub address: SocketAddr,
    /// How to connect.
    pub transport: Transport,
    /// What each connection does.
    pub mode: Mode,
    /// The route that is asked or notified.
    pub route: String,
    /// Connections, opened before anything is counted.
    pub connections: u32,
    /// Requests or notifies in flight on each connection; in an open loop, at most.
    pub pipeline: u32,
    /// Bytes of each message's JSON body, at least 16.
    pub body_bytes: usize,
    /// How long to count.
    pub measure: Duration,
    /// How long to load before that.
    pub warmup: Duration,
    /// Messages a second over all connections, which makes it an open loop.
    pub rate: Option<f64>,
    /// Logs each connection in by the demo's `entry`, under this text and a number.
    pub login: Option<String>,
    /// What answers to requests must be.
    pub check: Check,
    /// How often to send heartbeats.
    pub heartbeat: Duration,
}

impl LoadOptions {
    /// One connection that sends one request at a time to the demo's `echo`, for 5 s.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            transport: Transport::Tcp,
            mode: Mode::Request,
            route: "connector.entryHandler.echo".into(),
            connections: 1,
            pipeline: 1,
            body_bytes: 64,
            measure: Duration::from_secs(5),
            warmup: Duration::from_secs(1),
            rate: None,
            login: None,
            check: Check::Echo,
            heartbeat: Duration::from_secs(2),
        }
    }
}

/// How the load client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Packages as they are.
    Tcp,
    /// Each package in a frame.
    WebSocket,
}

/// What each connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Sends requests and waits for their answers.
    Request,
    /// Sends notifies, and a request behind each batch of them, so that they can be counted.
    Notify,
    /// Sends heartbeats only.
    Idle,
}

/// What an answer is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// The request's body.
    Echo,
    /// Nothing; any answer will do.
    Any,
}

/// What came of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadReport {
    /// Connections that were up when counting began.
    pub connections: u32,
    /// How long it took to get there.
    pub connecting: Duration,
    /// How long was counted.
    pub elapsed: Duration,
    /// Messages answered, or notified and known to have arrived.
    pub messages: u64,
    /// Nanoseconds from when a request was sent (or due) to its answer.
    pub latency: Histogram<u64>,
    /// Answers that were not what they should be.
    pub wrong: u64,
    /// Connections that the server closed or refused.
    pub closed: u64,
    /// Pushes received.
    pub pushes: u64,
    /// CPU time of the load client's own thread, while counting.
    pub client_cpu: Duration,
}

/// What is told while it runs.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LoadProgress {
    /// Where the run is.
    pub phase: Phase,
    /// How far that phase is, from 0 to 1.
    pub share: f64,
    /// Messages of this phase so far.
    pub messages: u64,
    /// Connections that work.
    pub connections: u32,
}

/// The parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Connections are opened.
    Connect,
    /// Load, not counted.
    Warmup,
    /// Load, counted.
    Measure,
}

/// Latencies up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}
