//! The engine under test, its clients' connections, and the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::socket::Socket;
use crate::dispatch::Session;
use crate::engine::{Drain, Handle, TestPlan};
use crate::shard::{ListenerIndex, ShardConfig};
use crate::simulated::{PartyIndex, Simulated, Wish};

/// Everything of one test, in one thread.
pub(super) struct World {
    pub(super) config: Arc<ShardConfig>,
    pub(super) handle: Handle,
    pub(super) now_us: u64,
    core: Simulated,
    listener: ListenerIndex,
    shards: u16,
    parties: Vec<Party>,
    /// All connections that have ever been, by their places.
    sockets: Vec<Socket>,
    /// The places of those that are open, by shard.
    open: Vec<Vec<usize>>,
    /// The times of a drain: of its first close, of the last one, of the end.
    drain: Option<[u64; 3]>,
}

/// A shard or worker.
#[derive(Default)]
struct Party {
    /// It has asked for another turn.
    has_more: bool,
    /// Turns at this time that it has had for a deadline of now.
    turns_for_time: u32,
}

/// The longest time between two turns while clients are connected, whose deadlines nobody tells of.
/// Short enough for a shard to count all of it.
const STEP_US: u64 = 100_000;
/// Sleeps of no length come to an end in a turn for this many times; then time has to pass.
const TURNS_FOR_TIME_MAX: u32 = 64;
/// Turns of all parties in which an engine comes to rest, by far.
const ROUNDS_MAX: usize = 100_000;

impl World {
    pub(super) fn new(plan: TestPlan) -> Self {
        let TestPlan { config, hub, registers, handle, host, listener } = plan;
        let (shards, parties) = (hub.shards(), hub.parties());
        let core = Simulated::of_config(Arc::clone(&config), hub, &registers);
        drop(host);
        Self {
            core,
            config,
            handle,
            now_us: 0,
            listener,
            shards,
            parties: (0..parties).map(|_| Party::default()).collect(),
            sockets: Vec::new(),
            open: (0..shards).map(|_| Vec::new()).collect(),
            drain: None,
        }
    }

    /// Connects, each client to the next shard; the place of its connection.
    pub(super) fn connect(&mut self, peer: Option<SocketAddr>) -> usize {
        assert!(self.drain.is_none(), "a client can't connect: the engine has been drained");
        let at = self.sockets.len();
        let shard = (at % usize::from(self.shards)) as u16;
        let port = 1024 + (at % 60_000) as u16;
        let peer = peer.unwrap_or_else(|| ([127, 0, 0, 1], port).into());
        self.sockets.push(Socket::new(shard, peer));
        self.open[usize::from(shard)].push(at);
        at
    }

    pub(super) fn socket(&mut self, at: usize) -> &mut Socket {
        &mut self.sockets[at]
    }

    /// A client's session as handlers see it, while it lives.
    pub(super) fn session(&mut self, at: usize) -> Option<Session> {
        self.core.session(self.sockets[at].session?)
    }

    /// True if a future is alive, which may wait for another thread.
    pub(super) fn has_futures(&self) -> bool {
        self.core.tasks_alive() > 0
    }

    /// Runs until nobody has anything to do at this time.
    pub(super) fn settle(&mut self) {
        let mut has_worked = false;
        for _ in 0..ROUNDS_MAX {
            let mut is_quiet = true;
            let mut works = false;
            for party in 0..self.parties.len() as PartyIndex {
                let waits = has_worked && party < self.shards && self.core.waits_for_lane(party);
                if waits || self.is_due(party) {
                    is_quiet = false;
                    works |= party >= self.shards;
                    self.turn(party);
                }
            }
            if is_quiet {
                return;
            }
            has_worked = works;
        }
        panic!("the engine does not come to rest: a future wakes itself without end");
    }

    fn is_due(&mut self, party: PartyIndex) -> bool {
        let state = &self.parties[usize::from(party)];
        let open = self.open.get(usize::from(party)).into_iter().flatten();
        if state.has_more
            || self.core.has_work(party)
            || open.into_iter().any(|at| self.sockets[*at].has_news())
        {
            return true;
        }
        let deadline_us = self.core.next_deadline_us(party);
        let is_due = deadline_us.is_some_and(|deadline_us| deadline_us <= self.now_us);
        let state = &mut self.parties[usize::from(party)];
        state.turns_for_time += u32::from(is_due);
        is_due && state.turns_for_time <= TURNS_FOR_TIME_MAX
    }

    fn turn(&mut self, party: PartyIndex) {
        let has_more = match party.checked_sub(self.shards) {
            Some(worker) => self.core.run_worker(worker, self.now_us),
            None => self.shard_turn(party),
        };
        // Nobody sleeps here, so nobody is woken.
        while self.core.poll_bell(party).is_some() {}
        if party < self.shards {
            self.core.end_turn(party, self.now_us);
        }
        self.parties[usize::from(party)].has_more = has_more;
    }

    fn shard_turn(&mut self, shard: u16) -> bool {
        self.core.begin_turn(shard, self.now_us);
        let mut open = std::mem::take(&mut self.open[usize::from(shard)]);
        open.retain(|at| self.deliver(*at));
        self.open[usize::from(shard)] = open;
        let has_more = self.core.run(shard);
        if let Some(times_us) = self.drain {
            self.core.drain(shard, times_us);
        }
        let edition = self.config.edition();
        while let Some(sending) = self.core.poll_transmit(shard) {
            let socket = &mut self.sockets[sending.socket() as usize];
            socket.read(sending.bytes(), self.now_us, edition.protos());
            socket.sending = Some(sending);
        }
        while let Some(wish) = self.core.poll_command(shard) {
            self.grant(wish);
        }
        has_more
    }

    /// Tells the core what has happened on a socket. True if it stays open.
    fn deliver(&mut self, at: usize) -> bool {
        let socket = &mut self.sockets[at];
        let Some(session) = socket.session else {
            let (shard, peer) = (socket.shard, socket.peer);
            socket.session = self.core.accept_at(shard, self.listener, at as u32, peer);
            socket.is_closed = socket.session.is_none();
            return !socket.is_closed;
        };
        if let Some(sending) = socket.sending.take() {
            self.core.sent(sending, true);
        }
        if socket.is_closing {
            self.core.socket_closed(session);
            socket.is_closed = true;
            return false;
        }
        if !socket.is_paused && !socket.pipe.is_empty() {
            let mut bytes = std::mem::take(&mut socket.pipe);
            self.core.receive(session, &mut bytes);
        }
        if socket.has_to_tell_end() {
            socket.is_end_told = true;
            self.core.receive_eof(session);
        }
        true
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::FinishWriting(at) => {
                // A client that has read the end closes, too.
                let socket = &mut self.sockets[at as usize];
                (socket.is_closed, socket.is_ended) = (true, true);
            }
            Wish::PauseReading(at) => self.sockets[at as usize].is_paused = true,
            Wish::ResumeReading(at) => self.sockets[at as usize].is_paused = false,
            Wish::Close(at) => self.sockets[at as usize].is_closing = true,
        }
    }

    /// Lets time pass up to `end_us`, for as long as `goes_on` says so. Everything happens when it
    /// is due.
    pub(super) fn advance_to(&mut self, end_us: u64, mut goes_on: impl FnMut(&mut Self) -> bool) {
        self.settle();
        while self.now_us < end_us && goes_on(self) {
            self.pass_time(self.next_us().min(end_us));
            self.settle();
        }
    }

    /// The next time at which anything may happen.
    fn next_us(&self) -> u64 {
        let parties = 0..self.parties.len() as PartyIndex;
        let deadlines = parties.filter_map(|party| self.core.next_deadline_us(party));
        let open = || self.open.iter().flatten();
        let beats = open().filter_map(|at| self.sockets[*at].next_beat_us());
        let step = open().next().map(|_| self.now_us + STEP_US);
        let next_us = deadlines.chain(beats).chain(step).min().unwrap_or(u64::MAX);
        next_us.max(self.now_us + 1)
    }

    fn pass_time(&mut self, now_us: u64) {
        self.now_us = now_us;
        for party in &mut self.parties {
            *party = Party { has_more: true, turns_for_time: 0 };
        }
        for at in self.open.iter().flatten() {
            self.sockets[*at].beat(now_us);
        }
    }

    /// Stops as [`Engine::shutdown`](crate::Engine::shutdown) does; the time that it took.
    pub(super) fn drain(&mut self, drain: Drain) -> Duration {
        let start_us = self.now_us;
        let plan = drain.plan(start_us);
        self.settle();
        self.handle.tell_of_drain(drain);
        self.advance_to(start_us.saturating_add(micros(drain.delay)), |_| true);
        self.drain = Some([plan.begin_us, plan.closed_us, plan.end_us]);
        let is_open = |world: &mut Self| world.core.connections() > 0;
        self.parties.iter_mut().for_each(|party| party.has_more = true);
        self.advance_to(plan.closed_us, is_open);
        self.handle.set_stopped();
        self.advance_to(plan.end_us, is_open);
        // Those that are cut are gone once their shards have had a turn.
        self.settle();
        for party in 0..self.parties.len() as PartyIndex {
            self.core.begin_shutdown(party);
            self.parties[usize::from(party)].has_more = true;
        }
        self.advance_to(plan.end_us, |world| {
            (0..world.parties.len() as PartyIndex).any(|party| world.core.owed(party) > 0)
        });
        Duration::from_micros(self.now_us - start_us)
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
