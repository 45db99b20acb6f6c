//! For code that plays a frontend's shard and NATS itself.

use std::sync::Arc;

use super::cluster::PitayaCluster;
use super::member::Member;
use super::member_config::MemberConfig;
use super::share::Share;
use crate::forward::remote::{Remote, RemoteConfig};
use crate::forward::{Endpoint, Hub, HubLimits, Party, WorkerIndex};
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::route::edition::Edition;
use crate::route::table::RouteTable;

impl Member {
    /// A frontend that is connected and knows no server, its one shard's end of their lane, and
    /// what they count.
    pub(crate) fn bare(cluster: &PitayaCluster) -> (Self, Endpoint, Arc<Counters>) {
        Self::bare_with(cluster, |_| {})
    }

    /// The same with a configuration that is changed first.
    pub(crate) fn bare_with(
        cluster: &PitayaCluster,
        change: impl FnOnce(&mut MemberConfig),
    ) -> (Self, Endpoint, Arc<Counters>) {
        let hub = Hub::new(1, 1, HubLimits { lane_len: 256, inbox_len: 256 });
        let shard = Endpoint::new(Arc::clone(&hub), Party(0), 256);
        let routes = Arc::new(RouteTable::default());
        let edition = Arc::new(Edition::bare(None, &routes));
        let counters = Arc::new(Counters::default());
        let (kind, id) = ("connector".into(), "c-1".into());
        let random = ([1, 2], 1_000);
        let whole = Share { index: 0, count: 1, shards: 1 };
        let mut config = MemberConfig::new(cluster, &kind, &id, &routes, &counters, random, whole);
        change(&mut config);
        let remote = RemoteConfig { limits: &Limits::default(), routes, edition };
        let remote = Remote::new(&hub, hub.worker(WorkerIndex(0)), remote);
        let mut member = Self::new(config, cluster, &[], remote);
        member.handle_connected();
        (member, shard, counters)
    }
}
