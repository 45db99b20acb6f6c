//! The simulation's settings of an engine, and its view of one: see [`Simulated`].

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::dispatch::{Handlers, Register};
use crate::forward::mail::Mail;
use crate::forward::scatter::by_home;
use crate::forward::{Carrier, Hub, HubLimits, LaneFull, Party, ServerId, ServerType, WorkerIndex};
use crate::limits::Limits;
use crate::metrics::{CounterSnapshot, Counters, Figures};
use crate::route::edition::{Edition, EditionId};
use crate::route::push::Push;
use crate::route::schemas::Schemas;
use crate::route::table::RouteTable;
use crate::session::{Directory, OnSecondBind, SessionId, Uid};
use crate::shard::{Heartbeat, KeptAliveBy, ReceiveEnd, ShardConfig, SocketIndex};
use crate::span::SpanQueues;

pub use crate::forward::worker::WorkerProbe;
pub use crate::shard::{SessionProbe, ShardProbe, Stage};
pub use crate::simulated::{PartyIndex, Sending, Simulated, Wish};

/// The settings of an engine.
pub struct Setup {
    /// Shards, at least 1.
    pub shards: u16,
    /// Workers, all of the server type `chat`.
    pub workers: u16,
    /// The bounds.
    pub limits: Limits,
    /// The longest silence of a client, if it has to send heartbeats.
    pub heartbeat: Option<Duration>,
    /// True if any package counts as a heartbeat.
    pub any_package: bool,
    /// The fate of a second session of a uid, where one is allowed.
    pub single_session: Option<OnSecondBind>,
    /// The policy for messages to workers whose lanes are full.
    pub lane_full: LaneFull,
    /// One forwarded message in so many is traced, if any is; nobody takes the spans.
    pub sample_every: Option<u64>,
    /// Routes that are known by id.
    pub routes: Vec<String>,
    /// Handlers and filters of each shard; the server type is `connector`.
    pub connector: Register,
    /// Handlers and filters of each worker.
    pub chat: Register,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup")
            .field("shards", &self.shards)
            .field("workers", &self.workers)
            .field("limits", &self.limits)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

impl Setup {
    /// One shard without workers, heartbeat or limits of its own.
    pub fn new(connector: impl Fn(&mut Handlers) + Send + Sync + 'static) -> Self {
        Self {
            shards: 1,
            workers: 0,
            limits: Limits::default(),
            heartbeat: None,
            any_package: false,
            single_session: None,
            lane_full: LaneFull::Reject,
            sample_every: None,
            routes: Vec::new(),
            connector: Arc::new(connector),
            chat: Arc::new(|_| {}),
        }
    }
}

/// The simulation's part of it.
impl Simulated {
    /// An engine at time 0.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let Setup { shards, workers, limits, .. } = setup;
        let hub_limits = HubLimits { lane_len: limits.lane_len, inbox_len: limits.inbox_len };
        let hub = Hub::new(shards, workers, hub_limits);
        let server_types = match workers {
            0 => Vec::new(),
            _ => vec![ServerType {
                name: "chat".into(),
                carrier: Carrier::Workers {
                    servers: (1..=workers).map(|n| ServerId::from(&*format!("chat-{n}"))).collect(),
                    first_worker: WorkerIndex(0),
                    route: None,
                },
                lane_full: setup.lane_full,
            }],
        };
        let heartbeat = setup.heartbeat.map(|timeout| Heartbeat {
            timeout,
            kept_alive_by: match setup.any_package {
                true => KeptAliveBy::AnyPackage,
                false => KeptAliveBy::Heartbeats,
            },
        });
        let interval = setup.heartbeat.map(|timeout| timeout / 2);
        let routes = RouteTable::new(setup.routes, None, None);
        let schemas = Arc::new(Schemas::new(EditionId::FIRST, None, &routes));
        let edition = Edition::new(EditionId::FIRST, interval, None, schemas, &routes);
        let config = Arc::new(ShardConfig {
            limits,
            heartbeat,
            heartbeat_interval: interval,
            edition: RwLock::new(Arc::new(edition)),
            on_second_bind: setup.single_session,
            shutdown_kick: None,
            server_types,
            counters: (0..hub.parties()).map(|_| Arc::<Counters>::default()).collect(),
            figures: Figures::new(shards, 0),
            spans: setup.sample_every.map(|every| Arc::new(SpanQueues::new(shards, every))),
            ..ShardConfig::bare(routes, None, setup.connector)
        });
        let registers = [setup.chat];
        Self::of_config(config, hub, &registers[..usize::from(workers > 0)])
    }

    /// See `Shard::handle_accept`.
    pub fn accept(&mut self, shard: u16, socket: u32, peer: SocketAddr) -> Option<SessionId> {
        self.at(shard).handle_accept(SocketIndex(socket), peer)
    }

    /// The connection has failed.
    pub fn receive_error(&mut self, session: SessionId) {
        self.of(session).handle_receive_end(session, ReceiveEnd::Error);
    }

    /// The party is about to sleep; it has to look for work once more.
    pub fn arm(&self, party: PartyIndex) {
        self.hub.bell(Party(party)).arm();
    }

    /// The party is awake.
    pub fn disarm(&self, party: PartyIndex) {
        self.hub.bell(Party(party)).disarm();
    }

    /// True if the party's bell is armed; nobody has rung it yet then.
    #[must_use]
    pub fn is_armed(&self, party: PartyIndex) -> bool {
        self.hub.bell(Party(party)).is_armed()
    }

    /// A push from a thread of the host's; whether there was room for it.
    pub fn host_push(&self, uid: &str, route: &str, body: &[u8]) -> bool {
        let (routes, edition) = (&self.config.routes, self.config.edition());
        let Ok(push) = Push::encode(routes, &edition, route, body) else { return false };
        by_home(vec![Uid::from(uid)], self.hub.shards()).into_iter().all(|(home, uids)| {
            let mail = Mail::HomePush { uids, push: Arc::clone(&push), reply_to: None };
            self.hub.send_from_host(home, mail).is_ok()
        })
    }

    /// A kick by uid from a thread of the host's; whether there was room for it.
    pub fn host_kick(&self, uid: &str, reason: Option<&str>) -> bool {
        let home = Directory::home(uid, self.hub.shards());
        let reason = reason.map(Arc::from);
        let mail = Mail::HomeKick { uid: Uid::from(uid), reason, reply_to: None };
        self.hub.send_from_host(home, mail).is_ok()
    }

    /// A kick by session, which may have gone; whether there was room for it.
    pub fn host_kick_session(&self, session: SessionId, reason: Option<&str>) -> bool {
        let mail = Mail::Kick { session, reason: reason.map(Arc::from) };
        self.hub.send_from_host(session.shard(), mail).is_ok()
    }

    /// Looks at a shard.
    #[must_use]
    pub fn probe(&self, shard: u16) -> ShardProbe {
        self.shards[usize::from(shard)].probe()
    }

    /// Looks at a shard's sessions.
    pub fn sessions(&self, shard: u16) -> impl Iterator<Item = SessionProbe> {
        self.shards[usize::from(shard)].session_probes()
    }

    /// Looks at a worker.
    #[must_use]
    pub fn probe_worker(&self, worker: u16) -> WorkerProbe {
        self.workers[usize::from(worker)].probe()
    }

    /// Mails on their way from one party to another: in the lane, and waiting for room in it.
    #[must_use]
    pub fn mail_len(&self, from: PartyIndex, to: PartyIndex) -> (usize, usize) {
        let incoming = match self.worker_of(to) {
            Some(worker) => self.workers[worker].incoming_len(Party(from)),
            None => self.shards[usize::from(to)].incoming_len(Party(from)),
        };
        let outgoing = match self.worker_of(from) {
            Some(worker) => self.workers[worker].outgoing_len(Party(to)),
            None => self.shards[usize::from(from)].outgoing_len(Party(to)),
        };
        (incoming, outgoing)
    }

    /// The sessions that a uid has by its home's directory.
    #[must_use]
    pub fn sessions_of(&self, uid: &str) -> Vec<SessionId> {
        let home = Directory::home(uid, self.hub.shards());
        self.shards[home.index()].directory_entry(uid)
    }

    /// A shard's counters.
    #[must_use]
    pub fn counters(&self, shard: u16) -> CounterSnapshot {
        self.config.counters[usize::from(shard)].snapshot()
    }
}
