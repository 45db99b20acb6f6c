//! The part of a cluster's description that its member needs while it runs.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::{ClosedArg, Occasion, PomeloCluster, PomeloLimits};
use super::mailbox::micros;
use super::rpc::RemoteName;
use crate::metrics::Counters;
use crate::route::table::RouteTable;

/// The settings of a member.
pub(crate) struct MemberConfig {
    pub(crate) frontend_id: Arc<str>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: PomeloLimits,
    pub(crate) call_timeout_us: u64,
    pub(crate) keepalive: Duration,
    pub(crate) hooks: Vec<(Occasion, RemoteName, Vec<ClosedArg>)>,
}

impl MemberConfig {
    /// The part of a description that the member needs; it has been checked.
    pub(crate) fn new(
        cluster: &PomeloCluster,
        frontend_id: &Arc<str>,
        routes: &Arc<RouteTable>,
        counters: &Arc<Counters>,
    ) -> Self {
        let hooks = cluster.hooks.iter().filter_map(|(occasion, name, args)| {
            Some((*occasion, RemoteName::parse(name)?, args.clone()))
        });
        Self {
            frontend_id: Arc::clone(frontend_id),
            routes: Arc::clone(routes),
            counters: Arc::clone(counters),
            limits: cluster.limits.clone(),
            call_timeout_us: micros(cluster.call_timeout),
            keepalive: cluster.keepalive,
            hooks: hooks.collect(),
        }
    }
}
