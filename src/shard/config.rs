//! The configuration that all shards of an engine share.

use std::any::Any;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::listener_config::{ListenerConfig, ListenerIndex};
use crate::dispatch::context::Host;
use crate::dispatch::denied_hosts::DeniedHosts;
use crate::dispatch::handshake::HandshakeCheck;
use crate::dispatch::{ClientRules, FailureBodies, Maintenance, Register, chain};
use crate::forward::worker::WorkerConfig;
use crate::forward::{
    Carrier, Hub, NetworkThreads, Party, ServerType, ServerTypeIndex, WorkerIndex,
};
use crate::limits::Limits;
use crate::metrics::{Counters, Figures, MeasuredRoutes};
#[cfg(feature = "admin")]
use crate::record::Recorder;
use crate::route::edition::{Edition, EditionId};
use crate::route::registration::Mistakes;
use crate::route::schemas::Schemas;
use crate::route::table::RouteTable;
use crate::route::{Dictionary, default_route};
use crate::session::{OnSecondBind, SessionView, ShardIndex};
use crate::span::SpanQueues;
use crate::wire::pitaya;
use crate::wire::protobuf::ProtoTable;

/// A check of a client's type and version.
pub(crate) type CheckClient = Arc<dyn Fn(Option<&str>, Option<&str>) -> bool + Send + Sync>;

/// The configuration and the few numbers that shards share.
pub(crate) struct ShardConfig {
    pub(crate) server_type: Arc<str>,
    pub(crate) server_id: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) heartbeat: Option<Heartbeat>,
    /// The fate of a second session of a uid, where one is allowed.
    pub(crate) on_second_bind: Option<OnSecondBind>,
    /// The reason with which sessions are kicked when the engine stops; none to close them only.
    pub(crate) shutdown_kick: Option<Arc<str>>,
    /// The setting that holds the client's address, if there is to be one.
    pub(crate) address_setting: Option<String>,
    /// The path at which balancers ask on the ports of clients, if there is one.
    pub(crate) health_path: Option<String>,
    pub(crate) heartbeat_interval: Option<Duration>,
    /// The newest. Shards hear of another one by mail; only the host's threads look here.
    pub(crate) edition: RwLock<Arc<Edition>>,
    /// The bodies of answers that the engine gives by itself.
    pub(crate) failures: Arc<FailureBodies>,
    /// True if requests have to be signed.
    #[cfg(feature = "crypto")]
    pub(crate) use_crypto: bool,
    pub(crate) check_client: Option<CheckClient>,
    pub(crate) handshake: Option<HandshakeCheck>,
    /// The newest of what may change while the engine runs. Shards hear of another one by mail;
    /// only the host's threads look here.
    pub(crate) changing: Mutex<Changing>,
    /// The listeners, by [`ListenerIndex`]. INVARIANT: at least one.
    pub(crate) listeners: Vec<ListenerConfig>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) server_types: Vec<ServerType>,
    /// The network forwarders that are told of sessions besides those that they know.
    pub(crate) subscribers: Subscribers,
    pub(crate) registers: Vec<Register>,
    /// The mistakes in registrations, found while shards and workers are set up.
    pub(crate) mistakes: Arc<Mistakes>,
    /// The engine's handle, which holds this in turn; set before its threads start.
    pub(crate) host: OnceLock<Weak<dyn Any + Send + Sync>>,
    /// Milliseconds from 1970 to the engine's start.
    pub(crate) started_unix_ms: u64,

    /// Open connections of all shards. Touched when one opens or closes, never for a message.
    pub(crate) connections: AtomicUsize,
    /// Sessions that have got a [number](crate::session::session_number).
    pub(crate) sessions_numbered: AtomicU64,
    /// One for each party: the shards, the workers, the network forwarders.
    pub(crate) counters: Vec<Arc<Counters>>,
    /// Figures of the threads besides their counters.
    pub(crate) figures: Figures,
    /// The routes whose latency is measured; none where it is not asked for.
    pub(crate) measured_routes: Option<Arc<MeasuredRoutes>>,
    /// Spans of messages that are sampled; none where nothing is traced.
    pub(crate) spans: Option<Arc<SpanQueues>>,
    /// Recordings of single sessions.
    #[cfg(feature = "admin")]
    pub(crate) recorder: Recorder,
}

/// The network forwarders that are told of sessions besides those that they know. A shard tells the
/// thread of each that serves it.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    /// Of the end of every session that was used for anything.
    pub(crate) to_ends: Vec<NetworkThreads>,
    /// Of every login and logout.
    pub(crate) to_logins: Vec<NetworkThreads>,
}

impl Subscribers {
    /// Those that a shard tells of every end, by their [bits](WorkerIndex::bit).
    pub(super) fn to_ends_at(&self, shard: ShardIndex) -> u64 {
        bits(&self.to_ends, shard)
    }

    /// Those that a shard tells of every login and logout.
    pub(super) fn to_logins_at(&self, shard: ShardIndex) -> u64 {
        bits(&self.to_logins, shard)
    }
}

fn bits(networks: &[NetworkThreads], shard: ShardIndex) -> u64 {
    networks.iter().fold(0, |bits, threads| bits | threads.of(shard).bit())
}

/// Rules that may change while the engine runs.
#[derive(Debug, Default)]
pub(crate) struct Changing {
    pub(crate) denied_hosts: Arc<DeniedHosts>,
    pub(crate) client_rules: Arc<ClientRules>,
    pub(crate) maintenance: Option<Arc<Maintenance>>,
}

/// The proof of life that clients owe (docs/protocol/wire.md, "Heartbeat").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    /// A client that is silent for longer is closed.
    pub(crate) timeout: Duration,
    /// The packages that end the silence.
    pub(crate) kept_alive_by: KeptAliveBy,
}

/// The packages that keep a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptAliveBy {
    /// Heartbeats alone, as in the original.
    Heartbeats,
    AnyPackage,
}

impl ShardConfig {
    /// Locks what may change, so that nobody else changes it. No code that holds it can panic
    /// half-way.
    pub(crate) fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine's handle, for its threads.
    pub(super) fn host(&self) -> Option<Host> {
        self.host.get()?.upgrade()
    }

    pub(super) fn denied_hosts(&self) -> Arc<DeniedHosts> {
        Arc::clone(&self.changing().denied_hosts)
    }

    pub(super) fn client_rules(&self) -> Arc<ClientRules> {
        Arc::clone(&self.changing().client_rules)
    }

    pub(super) fn maintenance(&self) -> Option<Arc<Maintenance>> {
        self.changing().maintenance.clone()
    }

    /// The newest edition. No code that holds the lock can panic half-way.
    pub(crate) fn edition(&self) -> Arc<Edition> {
        Arc::clone(&self.edition.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes an edition of another dictionary, which is the newest from now on.
    pub(crate) fn with_dictionary(&self, dictionary: Option<Dictionary>) -> Arc<Edition> {
        self.new_edition(|newest, _| (dictionary, Arc::clone(newest.schemas())))
    }

    /// Makes an edition of other schemas, which is the newest from now on.
    pub(crate) fn with_protos(&self, protos: Option<ProtoTable>) -> Arc<Edition> {
        self.new_edition(|newest, id| {
            let schemas = Schemas::new(id, protos, &self.routes);
            (newest.dictionary().cloned(), Arc::new(schemas))
        })
    }

    fn new_edition(
        &self,
        make: impl FnOnce(&Edition, EditionId) -> (Option<Dictionary>, Arc<Schemas>),
    ) -> Arc<Edition> {
        let mut newest = self.edition.write().unwrap_or_else(PoisonError::into_inner);
        let id = newest.id().next();
        let (dictionary, schemas) = make(&newest, id);
        let interval = self.heartbeat_interval;
        let edition = Edition::new(id, interval, dictionary, schemas, &self.routes);
        *newest = Arc::new(edition);
        Arc::clone(&newest)
    }

    /// The workers of all types that have some, with their settings. `registers` are the
    /// registrations of the workers of each forwarded type, in the order of the types.
    pub(crate) fn workers<'a>(
        &'a self,
        hub: &'a Hub,
        registers: &'a [Register],
    ) -> impl Iterator<Item = (Party, WorkerConfig)> + 'a {
        let post = hub.post(&self.server_types);
        // Those that workers carry come first.
        let types = self.server_types.iter().zip(registers);
        types.flat_map(move |(kind, register)| {
            let post = Arc::clone(&post);
            let (servers, first_worker) = match &kind.carrier {
                Carrier::Workers { servers, first_worker, .. } => (&servers[..], *first_worker),
                Carrier::Remote(threads) => (&[][..], threads.first),
            };
            servers.iter().zip(first_worker.0..).map(move |(server, worker)| {
                let me = hub.worker(WorkerIndex(worker));
                let config = WorkerConfig {
                    server_type: Arc::clone(&kind.name),
                    server_id: server.shared(),
                    frontend_id: Arc::clone(&self.server_id),
                    routes: Arc::clone(&self.routes),
                    edition: self.edition(),
                    register: Arc::clone(register),
                    mistakes: Arc::clone(&self.mistakes),
                    post: Arc::clone(&post),
                    host: self.host(),
                    limits: self.limits.clone(),
                    counters: Arc::clone(&self.counters[me.index()]),
                    failures: Arc::clone(&self.failures),
                };
                (me, config)
            })
        })
    }

    #[inline]
    pub(super) fn listener(&self, index: ListenerIndex) -> &ListenerConfig {
        &self.listeners[usize::from(index.0)]
    }

    /// Picks the worker that a session's messages for a server type go to.
    pub(super) fn pick_worker(
        &self,
        server_type: ServerTypeIndex,
        view: &SessionView<'_>,
        counters: &Counters,
    ) -> Option<WorkerIndex> {
        let carrier = &self.server_types[server_type.index()].carrier;
        let (servers, first_worker, route) = match carrier {
            Carrier::Workers { servers, first_worker, route } => (servers, first_worker, route),
            Carrier::Remote(threads) => return Some(threads.of(view.id.shard())),
        };
        let index = match route {
            None => default_route(view.uid().map_or("", |uid| uid.text()), servers.len()),
            Some(route) => chain::guarded("route", counters, || route(view, servers)).flatten(),
        };
        let index = u16::try_from(index.filter(|index| *index < servers.len())?).ok()?;
        Some(WorkerIndex(first_worker.0 + index))
    }

    pub(super) fn handshake_timeout_ms(&self) -> u64 {
        millis(self.limits.handshake_timeout)
    }

    /// The interval of heartbeats to clients of Pitaya.
    pub(super) fn pitaya_heartbeat_ms(&self) -> u64 {
        millis(self.heartbeat_interval.unwrap_or(pitaya::handshake::HEARTBEAT))
    }

    /// The longest silence of a working client of Pitaya.
    pub(super) fn pitaya_silence_ms(&self) -> u64 {
        let by_default = 2 * pitaya::handshake::HEARTBEAT;
        millis(self.heartbeat.map_or(by_default, |heartbeat| heartbeat.timeout))
    }

    pub(super) fn outbox_age_ms(&self) -> u64 {
        millis(self.limits.outbox_age_max)
    }

    pub(super) fn linger_ms(&self) -> u64 {
        millis(self.limits.close_linger)
    }

    pub(super) fn forward_timeout_us(&self) -> u64 {
        millis(self.limits.forward_timeout).saturating_mul(1000)
    }

    /// The longest silence of a working client.
    pub(super) fn silence_ms(&self) -> u64 {
        millis(self.heartbeat.map_or(self.limits.idle_timeout, |heartbeat| heartbeat.timeout))
    }
}

/// For code that runs a shard by itself.
#[cfg(any(test, feature = "internals"))]
impl ShardConfig {
    /// One shard of a `connector` without heartbeat, filters or workers, with the default limits.
    pub(crate) fn bare(
        routes: RouteTable,
        dictionary: Option<&Dictionary>,
        register: Register,
    ) -> Self {
        Self {
            server_type: "connector".into(),
            server_id: "connector-1".into(),
            limits: Limits::default(),
            heartbeat: None,
            on_second_bind: None,
            shutdown_kick: None,
            address_setting: None,
            health_path: None,
            heartbeat_interval: None,
            edition: RwLock::new(Arc::new(Edition::bare(dictionary, &routes))),
            failures: Arc::default(),
            #[cfg(feature = "crypto")]
            use_crypto: false,
            check_client: None,
            handshake: None,
            changing: Mutex::default(),
            listeners: vec![ListenerConfig::default()],
            routes: Arc::new(routes),
            server_types: Vec::new(),
            subscribers: Subscribers::default(),
            registers: vec![register],
            mistakes: Arc::default(),
            host: OnceLock::new(),
            started_unix_ms: 0,
            connections: AtomicUsize::new(0),
            sessions_numbered: AtomicU64::new(0),
            counters: vec![Arc::default()],
            figures: Figures::new(1, 0),
            measured_routes: None,
            spans: None,
            #[cfg(feature = "admin")]
            recorder: Recorder::default(),
        }
    }
}

/// The routes whose latency is measured: of those known, those of three parts for the own server
/// type or for one that is forwarded. The others are those of pushes.
pub(crate) fn measured_routes(
    routes: &RouteTable,
    own: &str,
    server_types: &[ServerType],
) -> MeasuredRoutes {
    let is_of_requests = |route: &str| {
        let mut parts = route.split('.');
        let server_type = parts.next().unwrap_or_default();
        let is_known = server_type == own || server_types.iter().any(|it| *it.name == *server_type);
        is_known && parts.count() == 2
    };
    MeasuredRoutes::new(routes.iter().map(|entry| &entry.text), is_of_requests)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
