//! The arguments of `shaddock load`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use shaddock::Driver;
use shaddock::load::{self, Check};

/// The way to load a server.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadOptions {
    /// The server to load; several addresses, which connections take in turn, have more ports
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3010", value_delimiter = ',')]
    pub(crate) addr: Vec<SocketAddr>,

    /// Transport to connect by
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) transport: Transport,

    /// I/O of the load client: ring, poll, or auto, which polls where there is no io_uring
    #[arg(long, default_value_t = Driver::Auto)]
    pub(crate) driver: Driver,

    /// The route to ask
    #[arg(long, default_value = "connector.entryHandler.echo", value_parser = route)]
    pub(crate) route: String,

    /// Connections
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub(crate) connections: u32,

    /// Connections that are being opened at a time [default: 128, in a storm all]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    opening: Option<u32>,

    /// Rings, each with a thread [default: as few as hold all connections]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=RINGS_MAX))]
    rings: Option<u32>,

    /// Seconds between the heartbeats of a connection
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    heartbeat: f64,

    /// Messages in flight on each connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=PIPELINE_MAX))]
    pub(crate) pipeline: u32,

    /// Bytes of each message's body
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=BODY_BYTES_MAX))]
    pub(crate) body_bytes: u32,

    /// Seconds to measure
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Seconds to load before that
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) warmup: f64,

    /// Work of each connection
    #[arg(long, value_enum, default_value_t = Mode::Request)]
    pub(crate) mode: Mode,

    /// Messages a second over all connections: an open loop, with latency counted from when each
    /// message was due
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub(crate) rate: Option<f64>,

    /// Log each connection in by the demo's entry route, as TEXT-0, TEXT-1 and so on
    #[arg(long, value_name = "TEXT", value_parser = plain_text)]
    pub(crate) login: Option<String>,

    /// Take any answer; without it each has to be the request's own body
    #[arg(long)]
    pub(crate) any_answer: bool,

    /// Tell the CPU time that this process took for each message
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,

    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw the latencies into an SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// Far more than a machine has ports for.
const CONNECTIONS_MAX: i64 = 1 << 24;
const RINGS_MAX: i64 = 1024;
/// Connections that are being opened at a time.
const OPENING: u32 = 128;
const PIPELINE_MAX: i64 = 65_536;
const BODY_BYTES_MAX: i64 = 1 << 23;

/// The way to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    Tcp,
    Ws,
}

/// The work of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Send requests, and wait for their answers
    Request,
    /// Send notifies, with a request behind each `--pipeline` of them to count them by
    Notify,
    /// Send heartbeats only
    Idle,
    /// Send heartbeats only; after the warm-up all drop at once and come again
    Storm,
}

impl LoadOptions {
    /// The server's addresses as text.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<String> = self.addr.iter().map(ToString::to_string).collect();
        addresses.join(", ")
    }

    /// The same, as the library takes it.
    pub(crate) fn to_library(&self) -> load::LoadOptions {
        load::LoadOptions {
            transport: match self.transport {
                Transport::Tcp => load::Transport::Tcp,
                Transport::Ws => load::Transport::WebSocket,
            },
            mode: match self.mode {
                Mode::Request => load::Mode::Request,
                Mode::Notify => load::Mode::Notify,
                Mode::Idle => load::Mode::Idle,
                Mode::Storm => load::Mode::Storm,
            },
            driver: self.driver,
            addresses: self.addr.clone(),
            route: self.route.clone(),
            connections: self.connections,
            opening: self.opening.unwrap_or(match self.mode {
                Mode::Storm => self.connections,
                _ => OPENING,
            }),
            rings: self.rings.unwrap_or(0),
            heartbeat: Duration::from_secs_f64(self.heartbeat),
            pipeline: self.pipeline,
            body_bytes: self.body_bytes as usize,
            measure: Duration::from_secs_f64(self.seconds),
            warmup: Duration::from_secs_f64(self.warmup),
            rate: self.rate,
            login: self.login.clone(),
            check: if self.any_answer { Check::Any } else { Check::Echo },
        }
    }
}

/// More than nothing, and not for ever.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e9 => Ok(number),
        _ => Err("must be a number above 0".into()),
    }
}

fn route(text: &str) -> Result<String, String> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err("must have 1 to 255 bytes".into()),
    }
}

/// Text that stands in a JSON text as it is.
fn plain_text(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !text.is_empty() && text.len() <= 64 && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("must be up to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`".into()),
    }
}
