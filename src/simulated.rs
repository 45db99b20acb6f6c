//! A whole engine without threads and sockets: every shard and worker is stepped by the caller, in
//! the caller's time.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::dispatch::{Handlers, Register};
use crate::forward::mail::Mail;
use crate::forward::scatter::by_home;
use crate::forward::worker::{Worker, WorkerConfig};
use crate::forward::{Carrier, Hub, HubLimits, LaneFull, Party, ServerId, ServerType, WorkerIndex};
use crate::limits::Limits;
use crate::metrics::{CounterSnapshot, Counters};
use crate::route::edition::{Edition, EditionId};
use crate::route::push::Push;
use crate::route::table::RouteTable;
use crate::session::{Directory, OnSecondBind, SessionId, ShardIndex, Uid};
use crate::shard::{
    Command, Heartbeat, KeptAliveBy, ReceiveEnd, SendEnd, Shard, ShardConfig, SocketIndex, Transmit,
};

pub use crate::forward::worker::WorkerProbe;
pub use crate::shard::{SessionProbe, ShardProbe, Stage};

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
            routes: Vec::new(),
            connector: Arc::new(connector),
            chat: Arc::new(|_| {}),
        }
    }
}

/// A shard or worker: shards come first.
pub type PartyIndex = u16;

/// The engine. Its methods are those of the core; see the head of `src/shard/mod.rs` for the order
/// in which a shard's are called.
pub struct Simulated {
    config: Arc<ShardConfig>,
    hub: Arc<Hub>,
    shards: Vec<Shard>,
    workers: Vec<Worker>,
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulated").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// Bytes on their way to a client. They come back by [`Simulated::sent`].
#[derive(Debug)]
pub struct Sending {
    transmit: Transmit,
}

impl Sending {
    /// The socket they go to.
    #[must_use]
    pub fn socket(&self) -> u32 {
        self.transmit.socket.0
    }

    /// The session they belong to.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.transmit.session
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.transmit.segment.as_slice()
    }
}

/// A request to a shell about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // The core knows no other; a simulated shell must do each.
pub enum Wish {
    /// Close the writing side.
    FinishWriting(u32),
    /// Receive no more for now; what was under way may yet come.
    PauseReading(u32),
    /// Receive again.
    ResumeReading(u32),
    /// Cancel, close, and say so by [`Simulated::socket_closed`].
    Close(u32),
}

impl Simulated {
    /// An engine at time 0.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let Setup { shards, workers, limits, .. } = setup;
        let hub_limits = HubLimits { lane_len: limits.lane_len, inbox_len: limits.inbox_len };
        let hub = Hub::new(shards, workers, hub_limits);
        let names: Vec<ServerId> =
            (1..=workers).map(|n| ServerId::from(&*format!("chat-{n}"))).collect();
        let server_types = match workers {
            0 => Vec::new(),
            _ => vec![ServerType {
                name: "chat".into(),
                carrier: Carrier::Workers {
                    servers: names.clone().into(),
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
        let edition = Edition::new(EditionId::FIRST, interval, None, None, &routes);
        let config = Arc::new(ShardConfig {
            limits: limits.clone(),
            heartbeat,
            heartbeat_interval: interval,
            edition: RwLock::new(Arc::new(edition)),
            on_second_bind: setup.single_session,
            shutdown_kick: None,
            server_types,
            counters: (0..hub.parties()).map(|_| Arc::<Counters>::default()).collect(),
            ..ShardConfig::bare(routes, None, setup.connector)
        });
        let worker = |(index, server): (WorkerIndex, &ServerId)| {
            let me = hub.worker(index);
            let config = WorkerConfig {
                server_type: "chat".into(),
                server_id: server.shared(),
                frontend_id: Arc::clone(&config.server_id),
                routes: Arc::clone(&config.routes),
                edition: config.edition(),
                register: Arc::clone(&setup.chat),
                mistakes: Arc::clone(&config.mistakes),
                limits: limits.clone(),
                counters: Arc::clone(&config.counters[me.index()]),
                failures: Arc::clone(&config.failures),
            };
            Worker::new(&config, &hub, me)
        };
        let workers = hub.workers().zip(&names).map(worker).collect();
        let shards = (0..shards)
            .map(|index| Shard::new(Arc::clone(&config), ShardIndex(index), &hub))
            .collect();
        Self { config, hub, shards, workers }
    }

    fn at(&mut self, shard: u16) -> &mut Shard {
        &mut self.shards[usize::from(shard)]
    }

    fn of(&mut self, session: SessionId) -> &mut Shard {
        &mut self.shards[session.shard().index()]
    }

    /// See `Shard::begin_turn`.
    pub fn begin_turn(&mut self, shard: u16, now_us: u64) {
        self.at(shard).begin_turn(now_us);
    }

    /// See `Shard::handle_accept`.
    pub fn accept(&mut self, shard: u16, socket: u32, peer: SocketAddr) -> Option<SessionId> {
        self.at(shard).handle_accept(SocketIndex(socket), peer)
    }

    /// See `Shard::handle_receive`.
    pub fn receive(&mut self, session: SessionId, input: &mut [u8]) {
        self.of(session).handle_receive(session, input);
    }

    /// The client has closed its writing side.
    pub fn receive_eof(&mut self, session: SessionId) {
        self.of(session).handle_receive_end(session, ReceiveEnd::Eof);
    }

    /// The connection has failed.
    pub fn receive_error(&mut self, session: SessionId) {
        self.of(session).handle_receive_end(session, ReceiveEnd::Error);
    }

    /// A segment has been sent, or failed.
    pub fn sent(&mut self, sending: Sending, is_sent: bool) {
        let Transmit { session, segment, .. } = sending.transmit;
        let end = if is_sent { SendEnd::Sent } else { SendEnd::Error };
        self.of(session).handle_sent(session, segment, end);
    }

    /// See `Shard::handle_socket_closed`.
    pub fn socket_closed(&mut self, session: SessionId) {
        self.of(session).handle_socket_closed(session);
    }

    /// See `Shard::run`.
    pub fn run(&mut self, shard: u16) -> bool {
        self.at(shard).run()
    }

    /// See `Shard::poll_transmit`.
    pub fn poll_transmit(&mut self, shard: u16) -> Option<Sending> {
        self.at(shard).poll_transmit().map(|transmit| Sending { transmit })
    }

    /// See `Shard::poll_command`.
    pub fn poll_command(&mut self, shard: u16) -> Option<Wish> {
        Some(match self.at(shard).poll_command()? {
            Command::FinishWriting(socket) => Wish::FinishWriting(socket.0),
            Command::PauseReading(socket) => Wish::PauseReading(socket.0),
            Command::ResumeReading(socket) => Wish::ResumeReading(socket.0),
            Command::Close(socket) => Wish::Close(socket.0),
        })
    }

    /// See `Shard::end_turn`.
    pub fn end_turn(&mut self, shard: u16, now_us: u64) {
        self.at(shard).end_turn(now_us);
    }

    /// Takes a step of a shutdown: a drain, its notice, its cut.
    pub fn drain(&mut self, shard: u16, step: u8) {
        match step {
            0 => self.at(shard).drain(),
            1 => self.at(shard).drain_now(),
            _ => self.at(shard).cut_all(),
        }
    }

    /// See `Worker::run`.
    pub fn run_worker(&mut self, worker: u16, now_us: u64) -> bool {
        self.workers[usize::from(worker)].run(now_us)
    }

    /// A party that the given one has to wake.
    pub fn poll_bell(&mut self, party: PartyIndex) -> Option<PartyIndex> {
        let rung = match self.worker_of(party) {
            Some(worker) => self.workers[worker].poll_bell(),
            None => self.at(party).poll_bell(),
        };
        rung.map(|party| party.0)
    }

    fn worker_of(&self, party: PartyIndex) -> Option<usize> {
        usize::from(party).checked_sub(self.shards.len())
    }

    /// True if a party has something to do.
    #[must_use]
    pub fn has_work(&self, party: PartyIndex) -> bool {
        match self.worker_of(party) {
            Some(worker) => self.workers[worker].has_work(),
            None => self.shards[usize::from(party)].has_work(),
        }
    }

    /// When a party has to run again at the latest, besides the shell's own bound.
    #[must_use]
    pub fn next_deadline_us(&self, party: PartyIndex) -> Option<u64> {
        match self.worker_of(party) {
            Some(worker) => self.workers[worker].next_deadline_us(),
            None => self.shards[usize::from(party)].next_deadline_us(),
        }
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

    /// Connections of all shards, as they are counted against `connections_max`.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.config.connections.load(Ordering::Relaxed)
    }

    /// A shard's counters.
    #[must_use]
    pub fn counters(&self, shard: u16) -> CounterSnapshot {
        self.config.counters[usize::from(shard)].snapshot()
    }
}
