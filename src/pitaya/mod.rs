//! Pitaya's cluster protocol, without I/O: calls to backends over NATS, their calls to us, and the
//! servers that etcd names (docs/protocol/pitaya.md).

#[cfg(any(test, feature = "internals"))]
mod bare;
mod cluster;
mod commands;
pub(crate) mod etcd;
mod failure;
mod forwards;
mod member;
mod member_config;
pub(crate) mod messages;
pub(crate) mod nats;
mod remotes;
mod servers;
mod session_data;
mod share;
pub(crate) mod subjects;
#[cfg(test)]
mod tests;
mod tls;
mod turn;
mod window;

pub(crate) use cluster::etcd_uri;
pub use cluster::{PitayaCluster, PitayaLimits};
pub(crate) use commands::Command;
pub(crate) use member::{ETCD, Member, NATS};
pub(crate) use member_config::MemberConfig;
pub(crate) use remotes::KICK_REASON;
pub(crate) use servers::{Change, KEYS, ServerName};
pub(crate) use share::Share;
pub use tls::ClusterTls;
