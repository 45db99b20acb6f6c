//! What each shard counts, and how long requests take.

mod counters;
mod latency;

pub use counters::{Counters, Snapshot};
pub use latency::Latency;
