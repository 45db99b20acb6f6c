//! A load client for any server that speaks Pomelo's protocol.
//!
//! One thread drives all connections on a ring of its own, or by epoll, and costs no more for each
//! message than this crate's server where both are busy; more connections than a ring may hold are
//! spread over several, each with its thread. In a *closed loop* each connection keeps a number of
//! requests in flight; in an *open loop* requests are due at a fixed rate whatever the server does,
//! and latency counts from when a request was due, so that a server that stalls can't hide the
//! requests that it kept from being sent.

mod client;
mod cpu;
mod disconnects;
mod driver;
mod flight;
mod pace;
mod part;
mod run;
mod run_barrier;
mod script;
mod sockets;

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The library whose histograms a report has.
#[doc(no_inline)]
pub use hdrhistogram;

pub use cpu::{CpuTime, ProcessCpu};
pub use disconnects::{DisconnectCounts, DisconnectReason};
pub use run::run;

use crate::io::Driver;

/// A run: what is done to a server, and for how long.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_structs)] // Built with `..LoadOptions::new(address)`.
pub struct LoadOptions {
    /// The addresses of the server, at least one; connections take them in turn. A pair of
    /// addresses has some 28,000 ports, so more connections need more addresses.
    pub addresses: Vec<SocketAddr>,
    /// The way to connect.
    pub transport: Transport,
    /// The way in which the load client does its I/O.
    pub driver: Driver,
    /// The work of each connection.
    pub mode: Mode,
    /// The route that is asked or notified.
    pub route: String,
    /// Connections, opened before anything is counted.
    pub connections: u32,
    /// Connections that are being opened at a time.
    pub opening: u32,
    /// Rings, each with a thread; 0 stands for as few as hold all connections, since a ring's table
    /// of sockets can't be larger than the process's descriptor limit.
    pub rings: u32,
    /// Requests or notifies in flight on each connection, up to a million. In an open loop there
    /// may be fewer.
    pub pipeline: u32,
    /// Bytes of each message's JSON body, at least 16.
    pub body_bytes: usize,
    /// The time for which is counted.
    pub measure: Duration,
    /// The time for which is loaded before that.
    pub warmup: Duration,
    /// Messages a second over all connections, which makes it an open loop.
    pub rate: Option<f64>,
    /// Logs each connection in by the demo's `entry`, under this text and a number.
    pub login: Option<String>,
    /// The check of answers to requests.
    pub check: Check,
    /// The interval of each connection's heartbeats. The connections' are spread over that time.
    pub heartbeat: Duration,
}

impl LoadOptions {
    /// One connection that sends one request at a time to the demo's `echo`, for 5 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::load::{LoadOptions, Transport};
    ///
    /// let options = LoadOptions {
    ///     transport: Transport::WebSocket,
    ///     connections: 1_000,
    ///     rate: Some(20_000.0),
    ///     measure: Duration::from_secs(30),
    ///     ..LoadOptions::new(([127, 0, 0, 1], 3010).into())
    /// };
    /// ```
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            addresses: vec![address],
            transport: Transport::Tcp,
            driver: Driver::Auto,
            mode: Mode::Request,
            route: "connector.entryHandler.echo".into(),
            connections: 1,
            opening: 128,
            rings: 0,
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

/// The way in which the load client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Packages as they are.
    Tcp,
    /// Each package in a frame.
    WebSocket,
}

/// The work of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Sends requests and waits for their answers.
    Request,
    /// Sends notifies, and a request behind each batch of them, so that they can be counted.
    Notify,
    /// Sends heartbeats only.
    Idle,
    /// Sends heartbeats only; before the counting begins, all connections are closed and opened
    /// again, as many as [`LoadOptions::opening`] at a time. One that fails then is counted and
    /// tried again.
    Storm,
}

impl Mode {
    /// True if it sends nothing but heartbeats.
    fn is_quiet(self) -> bool {
        matches!(self, Self::Idle | Self::Storm)
    }
}

/// The check of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// It is the request's body.
    Echo,
    /// None; any answer will do.
    Any,
}

/// The result of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadReport {
    /// Connections that were up when counting began.
    pub connections: u32,
    /// The time that it took to get there.
    pub connecting: Duration,
    /// Of a storm: the time from the drop until all connections worked again.
    pub reconnecting: Option<Duration>,
    /// Nanoseconds from when a connection was begun until its handshake was done; of a storm, from
    /// the drop.
    pub handshake: Histogram<u64>,
    /// The time for which was counted.
    pub elapsed: Duration,
    /// Messages answered, or notified and known to have arrived.
    pub messages: u64,
    /// Nanoseconds from when a request was sent (or due) to its answer.
    pub latency: Histogram<u64>,
    /// Answers that were not what they should be.
    pub wrong: u64,
    /// Connections that the server closed or refused, each once, by reason.
    pub disconnects: DisconnectCounts,
    /// Pushes received.
    pub pushes: u64,
    /// CPU time of the load client's own threads, while counting.
    pub client_cpu: Duration,
}

/// The progress of a run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LoadProgress {
    /// The part of the run that is under way.
    pub phase: Phase,
    /// The share of that part that is done, from 0 to 1.
    pub share: f64,
    /// Messages of this phase so far.
    pub messages: u64,
    /// Connections that work.
    pub connections: u32,
    /// Pushes of this phase so far.
    pub pushes: u64,
}

/// The parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Connections are opened.
    Connect,
    /// Load, not counted.
    Warmup,
    /// All connections have been closed and are opened again.
    Storm,
    /// Load, counted.
    Measure,
    /// Counting is over; told once, while the connections are still there.
    Done,
}

/// Latencies up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}
