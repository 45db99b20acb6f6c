//! Counters of each shard, the latency of requests, and figures of the threads.

mod counters;
mod figures;
mod latency;
mod route_latency;

pub use counters::CounterSnapshot;
pub(crate) use counters::{Counter, Counters};
#[cfg(any(feature = "pitaya", feature = "pomelo"))]
pub(crate) use figures::ClusterFigures;
pub(crate) use figures::{Figures, ForwardEnd, ShardFigures, WorkerFigures};
pub use latency::Latency;
pub(crate) use latency::LatencyCounters;
pub(crate) use route_latency::{MeasuredRoutes, RouteAnswers, RouteLatencies};
