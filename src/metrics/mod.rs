//! What each shard counts, and how long requests take.

mod counters;
mod latency;

pub use counters::{CounterSnapshot, Counters};
pub use latency::Latency;
