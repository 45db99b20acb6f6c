//! The shell round the core: rings, threads, sockets.
//!
//! The only place that names glommio and io-uring, and the only one with `unsafe` code.

mod accepts;
mod allocator;
mod buffers;
mod builder;
mod churn;
mod descriptors;
#[cfg(feature = "pomelo")]
mod dial;
mod eventfd;
mod handle;
mod listen;
pub mod load;
// Nothing sits there then.
#[cfg_attr(not(any(feature = "pitaya", feature = "pomelo")), allow(dead_code))]
mod network;
#[cfg(feature = "pitaya")]
mod pitaya;
#[cfg(feature = "pomelo")]
mod pomelo;
mod preflight;
mod ring;
mod shard_thread;
mod sockets;
mod start;
#[cfg(test)]
mod tests;
mod worker_thread;

pub use allocator::{return_free_memory, return_large_memory};
pub use builder::{Builder, Shards};
pub use descriptors::raise_descriptor_limit;
pub use handle::{Drain, Engine, Handle, Metrics, ShutdownReport};
pub use listen::Listener;
