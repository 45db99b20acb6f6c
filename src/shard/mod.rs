//! The core: sessions, dispatch and forwarding of one shard as one deterministic state machine.
//!
//! It does no I/O and reads no clock. Its shell, in this order and over again:
//!
//! 1. [`Shard::begin_turn`] with the time;
//! 2. [`Shard::handle_accept_at`], [`Shard::handle_receive`], [`Shard::handle_receive_end`],
//!    [`Shard::handle_sent`] and [`Shard::handle_socket_closed`] for what the sockets did;
//! 3. [`Shard::run`], which reads mail, runs futures and lets deadlines pass;
//! 4. [`Shard::poll_transmit`], for a while at least, [`Shard::poll_command`] and
//!    [`Shard::poll_bell`], each until it gives nothing more;
//! 5. [`Shard::end_turn`] with the time again; then it waits for the next completion, for no longer
//!    than [`Shard::next_deadline_us`] allows.

mod address_rate;
mod bind;
mod close;
mod config;
mod connection;
#[cfg(feature = "crypto")]
mod crypto;
mod dialect;
mod editions;
mod fairness;
mod fast_path;
mod forward_batch;
mod global_handle;
mod lane_full;
mod listener;
mod mail;
mod memory;
mod package;
#[cfg(feature = "internals")]
mod probe;
mod push;
mod rate;
mod receive;
mod send;
mod slow;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;
mod wide_ids;
mod work;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashMap;

use address_rate::AddressRate;
pub use config::HandshakeRefusal;
pub(crate) use config::{CheckClient, Heartbeat, KeptAliveBy, ShardConfig, UserHandshake};
#[cfg(feature = "internals")]
pub(crate) use connection::Connection;
#[cfg(not(feature = "internals"))]
use connection::Connection;
use connection::{CloseReason, Listed, State};
pub(crate) use connection::{SocketIndex, worker_bit};
use dialect::Beats;
pub use dialect::Dialect;
use editions::Editions;
use fairness::ReadBudgets;
use fast_path::FastPath;
use forward_batch::ForwardBatches;
use global_handle::{RecentRoutes, Target};
use lane_full::LaneWaits;
pub(crate) use listener::{ListenerConfig, ListenerIndex};
use memory::{Memory, UNCOUNTED_BYTES};
#[cfg(feature = "internals")]
pub use probe::{SessionProbe, ShardProbe, Stage};
use rate::{MessageRate, Rate};
use wide_ids::WideIds;
use work::Work;

use crate::dispatch::context::{Op, ThreadState};
use crate::dispatch::tasks::Tasks;
use crate::dispatch::{Handlers, HostFilter, Logins, Registry};
use crate::forward::asks::PendingAsks;
use crate::forward::pending_forwards::PendingForwards;
use crate::forward::{Chunk, Endpoint, Hub, Party};
use crate::metrics::{Counters, Latency};
use crate::session::{BufferPool, Directory, Segment, SessionId, ShardIndex, Slot, Table};
use crate::wheel::Wheel;
#[cfg(feature = "crypto")]
use crate::wire::signature::PublicKey;

/// One shard's state.
pub(crate) struct Shard {
    config: Arc<ShardConfig>,
    index: ShardIndex,
    clock: Clock,
    connections: Table<Connection>,
    pool: BufferPool,
    wheel: Wheel,
    /// Empty between turns.
    due: Vec<Slot>,
    directory: Directory,
    logins: Logins,
    host_filter: HostFilter,
    editions: Editions,
    /// The keys of clients, where requests are signed.
    #[cfg(feature = "crypto")]
    keys: FxHashMap<SessionId, PublicKey>,
    #[cfg(feature = "tls")]
    tls: tls::TlsStreams,

    thread: Rc<ThreadState>,
    registry: Rc<Registry>,
    /// What is to be done with each known route.
    targets: Vec<Target>,
    /// What is done with messages of each known route that need nothing else.
    fast_paths: Vec<Option<FastPath>>,
    batches: ForwardBatches,
    recent_routes: RecentRoutes,
    tasks: Tasks,
    is_running_tasks: bool,
    ops: Vec<Op>,
    asks: PendingAsks,
    calls: PendingForwards,
    endpoint: Endpoint,
    /// How much mail each worker had sent when the turn's reading began.
    waiting: Vec<usize>,
    /// The bodies for each worker are carved from memory of its own, so that one that is slow
    /// keeps nothing of what is for others.
    chunks: Vec<Chunk>,
    scratch: Vec<u8>,
    wide_ids: WideIds,
    /// Of clients of Pitaya's that a heartbeat was due for.
    beats: FxHashMap<SessionId, Beats>,

    memory: Memory,
    budgets: ReadBudgets,
    work: Work,
    lane_waits: LaneWaits,
    outbox_pauses: slow::OutboxPauses,
    sweep: slow::Sweep,
    /// There where it is bounded.
    message_rate: Option<MessageRate>,
    /// There where it is bounded.
    accept_rate: Option<AddressRate>,
    /// Connections whose outboxes may have something to send, in the order they got it.
    dirty: VecDeque<SessionId>,
    /// Those that have got nothing but pushes.
    pushed: VecDeque<SessionId>,
    /// From which list the next one is taken.
    takes_pushed: bool,
    /// Those of them that are left for the next turn.
    deferred: Vec<SessionId>,
    /// Whether the next turn follows at once.
    has_more: bool,
    commands: VecDeque<Command>,
    is_draining: bool,
    /// Messages that went to workers in this turn.
    forwarded: usize,
    counters: Arc<Counters>,
    latency: Latency,
    /// Requests answered in the turn they came in.
    answers_this_turn: u64,
}

/// A buffer for the shell to send; it comes back by [`Shard::handle_sent`].
#[derive(Debug)]
pub(crate) struct Transmit {
    pub(crate) session: SessionId,
    pub(crate) socket: SocketIndex,
    pub(crate) segment: Segment,
}

/// What else the shell has to do with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Close the writing side; the client reads all that was sent, then an end.
    FinishWriting(SocketIndex),
    /// Receive no more for now. What was under way may yet come.
    PauseReading(SocketIndex),
    /// Receive again.
    ResumeReading(SocketIndex),
    /// Cancel what is under way, close, and say so by [`Shard::handle_socket_closed`].
    Close(SocketIndex),
}

/// How a client's stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveEnd {
    /// It closed its writing side.
    Eof,
    Error,
}

/// Whether a segment was sent whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendEnd {
    Sent,
    Error,
}

/// The shard's times, all since the engine started.
#[derive(Debug, Default)]
struct Clock {
    now_us: u64,
    /// Time as the deadlines of clients count it: a turn that took longer than
    /// [`PATIENCE_US`], because the process was stopped or a handler blocked, counts as that
    /// long. So nobody is closed for what could not be read.
    patient_us: u64,
    /// The same; asked for by every package.
    patient_ms: u64,
}

/// Far above a turn's ordinary length, far below any timeout of a client.
const PATIENCE_US: u64 = 200_000;
/// Futures polled in one turn.
const TASKS_PER_TURN: usize = 256;
/// Mails read from the host, and from one worker, in one turn. Those from shards are bounded by
/// their lanes.
const MAILS_PER_PARTY: usize = 1024;

impl Clock {
    fn advance(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.now_us);
        self.now_us = self.now_us.max(now_us);
        self.patient_us += passed.min(PATIENCE_US);
        self.patient_ms = self.patient_us / 1000;
    }
}

impl Shard {
    /// A shard, with the handlers that the embedder registers on its thread.
    pub(crate) fn new(config: Arc<ShardConfig>, index: ShardIndex, hub: &Arc<Hub>) -> Self {
        let limits = &config.limits;
        let edition = config.edition();
        let id = || Arc::clone(&config.server_id);
        let thread = ThreadState::new(id(), id(), Arc::clone(&config.routes), Arc::clone(&edition));
        let registry = Handlers::collect(&thread, &config.registers);
        let targets: Vec<Target> =
            config.routes.iter().map(|entry| config.target(&registry, &entry.text)).collect();
        let fast_paths = fast_path::fast_paths(&config, &targets);
        let (party, workers) = (Party::from(index), usize::from(hub.parties() - hub.shards()));
        let mut shard = Self {
            index,
            clock: Clock::default(),
            connections: Table::with_room(limits.connections_per_shard_max as usize),
            pool: BufferPool::default(),
            wheel: Wheel::with_room(limits.connections_per_shard_max as usize),
            due: Vec::new(),
            directory: Directory::default(),
            logins: Logins::default(),
            host_filter: config.host_filter.clone(),
            editions: Editions::new(edition),
            #[cfg(feature = "crypto")]
            keys: FxHashMap::default(),
            #[cfg(feature = "tls")]
            tls: tls::TlsStreams::new(&config.listeners),
            thread,
            registry,
            targets,
            fast_paths,
            batches: ForwardBatches::new(workers),
            recent_routes: RecentRoutes::default(),
            tasks: Tasks::new(limits.tasks_max, Arc::clone(hub.bell(party)) as _),
            is_running_tasks: false,
            ops: Vec::new(),
            asks: PendingAsks::new(limits.backlog_len_max),
            calls: PendingForwards::default(),
            endpoint: Endpoint::new(Arc::clone(hub), party, limits.backlog_len_max),
            waiting: Vec::new(),
            chunks: (0..workers).map(|_| Chunk::default()).collect(),
            memory: Memory::new(limits.shard_bytes_max),
            scratch: Vec::new(),
            wide_ids: WideIds::default(),
            beats: FxHashMap::default(),
            budgets: ReadBudgets::new(limits),
            work: Work::new(limits),
            lane_waits: LaneWaits::default(),
            outbox_pauses: slow::OutboxPauses::new(limits),
            sweep: slow::Sweep::default(),
            message_rate: Rate::new(limits.messages_per_second, limits.messages_burst)
                .map(MessageRate::new),
            accept_rate: Rate::new(limits.accepts_per_ip_per_second, limits.accepts_per_ip_burst)
                .map(AddressRate::new),
            dirty: VecDeque::new(),
            pushed: VecDeque::new(),
            takes_pushed: false,
            deferred: Vec::new(),
            has_more: false,
            commands: VecDeque::new(),
            is_draining: false,
            forwarded: 0,
            counters: Arc::clone(&config.counters[index.index()]),
            latency: Latency::default(),
            answers_this_turn: 0,
            config,
        };
        shard.apply_ops();
        shard
    }

    /// Begins a turn at the given time.
    pub(crate) fn begin_turn(&mut self, now_us: u64) {
        self.clock.advance(now_us);
        self.budgets.begin_turn();
        self.dirty.extend(self.deferred.drain(..));
        self.pool.begin_turn(self.clock.patient_ms);
        self.forwarded = 0;
        self.thread.now_us.set(self.clock.now_us);
    }

    /// Ends the turn: what it has answered is now with the sockets.
    pub(crate) fn end_turn(&mut self, now_us: u64) {
        let lag_us = now_us.saturating_sub(self.clock.now_us);
        self.thread.lag_us.set(lag_us);
        let answers = std::mem::take(&mut self.answers_this_turn);
        if answers > 0 {
            self.latency.record(lag_us, answers);
        }
    }

    /// A connection has been accepted. `None` turns it away: the shell closes the socket.
    pub(crate) fn handle_accept_at(
        &mut self,
        listener: ListenerIndex,
        socket: SocketIndex,
        peer: SocketAddr,
    ) -> Option<SessionId> {
        if self.is_draining {
            return None;
        }
        let peer = listener::canonical(peer);
        let layer = self.let_in(listener, peer)?;
        // Only connections that are let in are counted, unlike in the original, which locks
        // itself out (docs/protocol/differences.md, "Exhaustion", B6).
        let open = self.config.connections.fetch_add(1, Ordering::Relaxed);
        let now_ms = self.clock.patient_ms;
        let connection = Connection { layer, listener, ..Connection::new(socket, peer, now_ms) };
        let entry = (open < self.config.limits.connections_max)
            .then(|| self.connections.insert(connection))
            .flatten();
        let Some((slot, generation)) = entry else {
            self.config.connections.fetch_sub(1, Ordering::Relaxed);
            self.counters.refused_max_connections.one();
            return None;
        };
        self.counters.connections_accepted.one();
        self.wheel.set(slot, now_ms + self.config.handshake_timeout_ms());
        if let Some(message_rate) = &mut self.message_rate {
            message_rate.begin(slot);
        }
        Some(SessionId::new(self.index, slot, generation))
    }

    /// The shell has closed the socket; nothing of the connection is under way any more.
    pub(crate) fn handle_socket_closed(&mut self, session: SessionId) {
        if self.connections.get(session.slot(), session.generation()).is_none() {
            return;
        }
        // Also when the shell closes on its own account.
        self.end_session(session.slot(), CloseReason::Peer);
        self.wheel.clear(session.slot());
        #[cfg(feature = "tls")]
        self.tls.remove(session);
        if let Some(connection) = self.connections.remove(session.slot()) {
            debug_assert!(!connection.outbox.is_in_flight());
            self.memory.remove(connection.io_bytes as usize);
            self.config.connections.fetch_sub(1, Ordering::Relaxed);
            self.counters.connections_closed.one();
            debug_assert!(self.has_forgotten(session), "{session:?} has left something behind");
        }
    }

    /// Whether nothing that is kept by session, or by slot, knows of one that is gone. The lists of
    /// those whose turn comes may name it yet, by its id, which finds nobody.
    fn has_forgotten(&self, session: SessionId) -> bool {
        #[cfg(feature = "crypto")]
        if self.keys.contains_key(&session) {
            return false;
        }
        self.budgets.has_forgotten(session)
            && self.outbox_pauses.has_forgotten(session)
            && self.lane_waits.has_forgotten(session)
            && self.wide_ids.has_forgotten(session)
            && !self.beats.contains_key(&session)
            && !self.wheel.is_set(session.slot())
    }

    /// Reads mail, runs futures, lets deadlines pass. Whether there is more to do at once.
    pub(crate) fn run(&mut self) -> bool {
        self.thread.handle_time(self.clock.now_us);
        self.endpoint.flush();
        self.receive_mail();
        self.send_waiting();
        self.do_work();
        self.read_held();
        self.run_tasks();
        self.expire_calls();
        self.expire_connections();
        self.expire_outboxes();
        // What close hooks have asked for.
        self.apply_ops();
        self.work.end_turn();
        self.has_more = self.has_work() || self.budgets.has_ready() || self.work.has_more();
        self.pool.give_back() || self.has_more
    }

    /// Runs what is ready. A handler that waits for nothing but this shard has answered when it
    /// is back, so that what its client has pipelined behind it finds its work done.
    pub(super) fn run_tasks(&mut self) {
        // What a task leads to may come here again.
        if std::mem::replace(&mut self.is_running_tasks, true) {
            return;
        }
        for _ in 0..TASKS_PER_TURN {
            if !self.tasks.run_one() {
                break;
            }
            self.apply_ops();
        }
        self.is_running_tasks = false;
    }

    /// Reads mail in an order that keeps causes before their effects: what a worker says after it
    /// has heard that its push was delivered is read after the push, which another shard sent.
    fn receive_mail(&mut self) {
        for _ in 0..MAILS_PER_PARTY {
            let Some(mail) = self.endpoint.receive_from_host() else { break };
            self.handle_mail(mail);
        }
        let hub = Arc::clone(self.endpoint.hub());
        // What is in a worker's lane now has its causes in the shards' lanes already.
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        for from in (hub.shards()..hub.parties()).map(Party) {
            waiting.push(self.endpoint.waiting(from));
        }
        for from in (0..hub.shards()).map(Party) {
            // All that is there now, however much comes in meanwhile.
            for _ in 0..self.endpoint.waiting(from) {
                let Some(mail) = self.endpoint.receive(from) else { break };
                self.handle_mail(mail);
            }
        }
        for (from, waiting) in (hub.shards()..).map(Party).zip(&waiting) {
            let mut messages = 0;
            for _ in 0..*waiting {
                if messages >= MAILS_PER_PARTY {
                    break;
                }
                let Some(mail) = self.endpoint.receive(from) else { break };
                messages += mail.messages();
                self.handle_mail(mail);
            }
        }
        self.waiting = waiting;
    }

    fn expire_connections(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.clock.patient_ms, &mut due);
        for slot in due.drain(..) {
            self.handle_deadline(slot);
        }
        self.due = due;
    }

    /// The next buffer to send.
    ///
    /// A session that waits for more answers is left for the next turn, once, if that follows at
    /// once: a worker answers requests in the order they came, so the rest of what the client
    /// has pipelined is on its way, and goes into the same send.
    ///
    /// Sessions that have got nothing but pushes come in turns with the others: an answer overtakes
    /// a push to thousands that was queued before it, and nobody waits for ever.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let (session, listed) = self.next_to_send()?;
            let (slot, generation) = (session.slot(), session.generation());
            let Some(connection) = self.connections.get_mut(slot, generation) else { continue };
            if self.has_more && connection.in_flight > 0 && connection.listed == Listed::Dirty {
                connection.listed = Listed::Deferred;
                self.deferred.push(session);
                continue;
            }
            connection.listed = match connection.listed {
                Listed::Both => listed,
                _ => Listed::Not,
            };
            if connection.io_bytes > 0 || connection.outbox.bytes() > UNCOUNTED_BYTES {
                self.recount(slot);
            }
            let Some(connection) = self.connections.at_mut(slot) else { continue };
            if connection.outbox.is_in_flight() || connection.state == State::Dead {
                continue;
            }
            let socket = connection.socket;
            let segment = match connection.layer {
                #[cfg(feature = "tls")]
                connection::Layer::Tls => self.take_sealed(slot),
                _ => connection.outbox.take(&mut self.pool),
            };
            if let Some(segment) = segment {
                return Some(Transmit { session, socket, segment });
            }
        }
    }

    /// The next session to look at, and where one is still listed that was in both lists.
    #[inline]
    fn next_to_send(&mut self) -> Option<(SessionId, Listed)> {
        self.takes_pushed = !self.takes_pushed;
        if (self.takes_pushed || self.dirty.is_empty())
            && let Some(session) = self.pushed.pop_front()
        {
            return Some((session, Listed::Dirty));
        }
        Some((self.dirty.pop_front()?, Listed::Pushed))
    }

    /// Whether [`Self::poll_transmit`] may have more: the shell may leave that for the next turn.
    pub(crate) fn has_transmits(&self) -> bool {
        !self.dirty.is_empty() || !self.pushed.is_empty()
    }

    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// A party that sleeps and has got mail: the shell wakes it.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.endpoint.poll_bell()
    }

    /// Whether something came in that [`Self::run`] has not seen. To be asked again once the
    /// doorbell is armed.
    pub(crate) fn has_work(&self) -> bool {
        self.endpoint.has_work() || self.tasks.has_ready() || self.has_sendable()
    }

    /// When the shell has to run again at the latest, even if nothing happens; `None` where the
    /// bound of its own sleep is soon enough.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        // Nobody tells of room in a lane that was not quite full.
        let waits = self.endpoint.has_backlog() || !self.lane_waits.is_empty();
        let backlog = waits.then_some(self.clock.now_us + BACKLOG_RETRY_US);
        [self.thread.next_timer_us(), self.calls.next_deadline_us(), backlog]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether more clients come in than a turn has steps of handshakes for.
    pub(crate) fn is_crowded(&self) -> bool {
        self.budgets.is_crowded()
    }

    /// Messages of all sessions so far, and pushes to them.
    pub(crate) fn messages_handled(&self) -> u64 {
        let counters = &self.counters;
        let messages = [&counters.requests, &counters.notifies, &counters.pushes];
        messages.iter().map(|counter| counter.value()).sum()
    }

    /// Connections that were turned away so far, at once or for what a proxy has told of them.
    pub(crate) fn connections_refused(&self) -> u64 {
        let counters = &self.counters;
        let refused = [
            &counters.refused_host,
            &counters.refused_accept_rate,
            &counters.refused_max_connections,
            &counters.refused_proxy,
            &counters.bad_proxy,
        ];
        refused.iter().map(|counter| counter.value()).sum()
    }

    /// How many messages the last turn has forwarded to workers.
    pub(crate) fn forwarded(&self) -> usize {
        self.forwarded
    }

    /// Futures alive on this shard; while there are any, the shell lets the runtime run too.
    pub(crate) fn tasks_alive(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn connections_open(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn id_of(&self, slot: Slot) -> SessionId {
        SessionId::new(self.index, slot, self.connections.generation(slot))
    }

    fn find(&mut self, session: SessionId) -> Option<(Slot, &mut Connection)> {
        if session.shard() != self.index {
            return None;
        }
        let slot = session.slot();
        Some((slot, self.connections.get_mut(slot, session.generation())?))
    }
}

/// How soon a full lane is tried again.
const BACKLOG_RETRY_US: u64 = 1_000;
