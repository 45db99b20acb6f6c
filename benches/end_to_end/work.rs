//! The work that servers are given, and what a load client has done of it.

use std::time::Duration;

use serde::Serialize;
use shaddock::load::hdrhistogram::Histogram;

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

/// Messages a second, and the connections over which they come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) connections: u32,
}

impl Rate {
    /// Rates at which a core is idle for most of the time.
    pub(crate) const ALL: [Self; 4] = [
        Self { per_second: 5_000, connections: 50 },
        Self { per_second: 30_000, connections: 50 },
        Self { per_second: 30_000, connections: 1_000 },
        Self { per_second: 60_000, connections: 50 },
    ];

    pub(crate) fn name(self) -> String {
        format!("{}x{}", self.per_second, self.connections)
    }
}

/// The work that a server is given.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// As many requests in flight at all times: a closed loop.
    Echo(Point),
    /// Requests at a rate: an open loop. The point has the most that may be late.
    EchoAt(Point, f64),
    /// TLS connections, so many at a time, each closed when it works.
    Connect { at_a_time: u32 },
}

/// The most messages that may be late on one connection of the open loop.
pub(crate) const LATE_MAX: u32 = 64;

impl From<Rate> for Work {
    fn from(rate: Rate) -> Self {
        let point = Point { connections: rate.connections, pipeline: LATE_MAX };
        Self::EchoAt(point, rate.per_second.into())
    }
}

/// The messages that a load client has had answered.
pub(crate) struct Outcome {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

/// The duration of each run, and the size of its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) warmup: Duration,
    pub(crate) measure: Duration,
    pub(crate) body_bytes: usize,
}
