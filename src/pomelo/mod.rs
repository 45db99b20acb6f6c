//! Pomelo's cluster protocol, without I/O: calls to Node backends, their calls to us, and the
//! master's list of servers (docs/protocol/rpc.md).

mod calls;
mod cluster;
mod link;
mod mailbox;
mod master;
mod member;
pub(crate) mod mqtt;
mod remotes;
mod router;
pub(crate) mod rpc;
mod servers;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use cluster::{ClosedArg, PomeloCluster, PomeloLimits};
pub(crate) use cluster::{StopHook, host_and_port};
pub(crate) use link::{LinkId, Output};
pub(crate) use member::{Command, Member, MemberConfig};
pub use router::{CustomRouter, Router};
