//! From a shard to a worker and back, and between shards: lanes, doorbells, mail.

pub(crate) mod asker;
mod chunk;
pub(crate) mod deadline_list;
mod doorbell;
mod hub;
mod lane_bytes;
#[cfg(all(test, shaddock_loom))]
mod loom_tests;
pub(crate) mod mail;
pub(crate) mod message_batch;
mod party;
pub(crate) mod pending_forwards;
#[cfg(any(feature = "pitaya", feature = "pomelo"))]
#[cfg_attr(not(all(feature = "pitaya", feature = "pomelo")), allow(dead_code))]
// Each has its own part.
pub(crate) mod remote;
pub(crate) mod reports;
pub(crate) mod scatter;
mod session_futures;
pub(crate) mod worker;
mod workers;

pub(crate) use chunk::Chunk;
pub(crate) use doorbell::Doorbell;
pub(crate) use hub::{BACKLOG_RETRY_US, Endpoint, Hub, HubLimits};
pub(crate) use party::Party;
pub(crate) use workers::{
    Carrier, NetworkThreads, Route, ServerType, ServerTypeIndex, WorkerIndex,
};
pub use workers::{LaneFull, ServerId, Workers};
