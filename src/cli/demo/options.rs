//! The options of the demo app.

use std::thread;
use std::time::Duration;

use clap::Args;
use shaddock::Driver;

use super::pomelo::PomeloOptions;

/// The options of the demo app.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoOptions {
    /// Address for clients, by TCP or WebSocket: an IP address or name with its port, or a port by
    /// itself for all addresses; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3010")]
    pub(crate) listen: String,

    /// Turn the route dictionary and protobuf on
    #[arg(long)]
    pub(crate) full: bool,

    /// Threads that serve clients [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=SHARDS_MAX))]
    shards: Option<u16>,

    /// I/O of the threads: ring, poll, or auto, which polls where there is no io_uring
    #[arg(long, default_value_t = Driver::Auto)]
    pub(crate) driver: Driver,

    /// Seconds between heartbeats; 0 turns them off
    #[arg(long, value_name = "S", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=HEARTBEAT_S_MAX))]
    heartbeat: u64,

    /// Threads that handle the chat
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=WORKERS_MAX))]
    pub(crate) workers: u16,

    /// Address of the admin server, with a page for browsers: figures, sessions, a chat to play
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3011")]
    pub(crate) admin: String,

    /// Serve no page, and nothing else to look at
    #[arg(long, conflicts_with = "admin")]
    pub(crate) no_admin: bool,

    /// The cluster to join, if any
    #[command(flatten)]
    pub(crate) pomelo: PomeloOptions,
}

/// More shards than any machine has cores.
const SHARDS_MAX: i64 = 1_024;
/// Chat workers; each is a thread.
const WORKERS_MAX: i64 = 64;
/// An hour. No client waits longer.
const HEARTBEAT_S_MAX: u64 = 3_600;

impl DemoOptions {
    /// The time between heartbeats, if there are any.
    pub(crate) fn heartbeat(&self) -> Option<Duration> {
        (self.heartbeat > 0).then(|| Duration::from_secs(self.heartbeat))
    }

    /// The number of shards. Not left to the engine, since a container's share of the cores
    /// may be less than the cores it sees.
    pub(crate) fn shards(&self) -> u16 {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        self.shards.unwrap_or_else(|| u16::try_from(cores()).unwrap_or(u16::MAX))
    }
}
