//! The shell round the core: threads, sockets, and clusters' connections. The only place that names
//! glommio.

mod accepts;
mod admission;
mod allocator;
mod attached;
mod attachment;
mod balance;
mod builder;
mod churn;
mod cores;
#[cfg(feature = "pomelo")]
mod dial;
mod drain;
mod eventfd;
mod handle;
mod host;
#[cfg(feature = "testing")]
mod in_test;
mod listen;
mod network;
#[cfg(feature = "pitaya")]
mod pitaya;
#[cfg(feature = "pomelo")]
mod pomelo;
mod preflight;
#[cfg(feature = "admin")]
mod record;
mod reload;
mod reports;
mod ring_memory;
mod running;
mod shard_thread;
mod sockets;
mod start;
#[cfg(test)]
mod tests;
mod tcp_options;
mod threads;
mod typed;
mod watch;
mod worker_thread;

pub use allocator::{return_free_memory, return_large_memory};
#[cfg(any(feature = "admin", feature = "traces"))]
pub(crate) use attached::Attached;
#[cfg(any(feature = "admin", feature = "traces"))]
pub(crate) use attachment::Attachment;
pub use builder::{Builder, Shards};
pub use drain::Drain;
pub use handle::Handle;
#[cfg(feature = "testing")]
pub(crate) use in_test::TestPlan;
pub use listen::Listener;
pub use running::{Engine, ShutdownReport};
pub use tcp_options::TcpOptions;
pub use watch::{
    ClusterMetrics, Metrics, RouteMetrics, ServerTypeMetrics, ShardMetrics, SpanMetrics,
    WorkerMetrics,
};
