//! Pomelo's cluster protocol, without I/O: calls to Node backends, their calls to us, and the
//! master's list of servers (docs/protocol/rpc.md).

mod cluster;
mod forwards;
mod mailbox;
mod mailboxes;
mod master;
mod member;
mod member_config;
pub(crate) mod mqtt;
mod peer;
mod peers;
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
pub(crate) use member::{Command, MASTER, Member};
pub(crate) use member_config::MemberConfig;
pub(crate) use peer::{Output, PeerId};
pub use router::{CustomRouter, Router};
