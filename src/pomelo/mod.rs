//! Pomelo's cluster protocol, without I/O: calls to Node backends, their calls to us, and the
//! master's list of servers (docs/protocol/rpc.md).

mod calls;
mod cluster;
mod link;
mod mailbox;
mod master;
pub(crate) mod mqtt;
mod remotes;
mod router;
pub(crate) mod rpc;
mod servers;
mod station;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use cluster::{ClosedArg, PomeloCluster, PomeloLimits};
pub(crate) use cluster::{StopHook, host_and_port};
pub(crate) use link::{LinkId, Output};
pub use router::{CustomRouter, Router};
pub(crate) use station::{Command, Station, StationConfig};
