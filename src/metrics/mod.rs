//! Counters of each shard, and the latency of requests.

mod counters;
mod latency;

pub use counters::{CounterSnapshot, Counters};
pub use latency::Latency;
