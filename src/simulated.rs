//! A whole engine without threads and sockets: every shard and worker is stepped by the caller, in
//! the caller's time. The simulation in `tests/sim/` and the kit in `src/testing/` stand on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dispatch::{Register, Session};
use crate::forward::Hub;
use crate::forward::worker::Worker;
use crate::session::{SessionId, ShardIndex};
use crate::shard::{
    Command, DrainPlan, ListenerIndex, ReceiveEnd, SendEnd, Shard, ShardConfig, SocketIndex,
    Transmit,
};

/// A shard or worker: shards come first.
pub type PartyIndex = u16;

/// The engine. Its methods are those of the core; see the head of `src/shard/mod.rs` for the order
/// in which a shard's are called.
pub struct Simulated {
    pub(crate) config: Arc<ShardConfig>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) workers: Vec<Worker>,
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

    /// True if nothing waits for its end, so that a shell may learn of that later.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.transmit.is_last
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
    /// The shards and workers of a configuration; `registers` are the registrations of the workers
    /// of each forwarded type, in the order of the types.
    pub(crate) fn of_config(
        config: Arc<ShardConfig>,
        hub: Arc<Hub>,
        registers: &[Register],
    ) -> Self {
        let workers = config.workers(&hub, registers);
        let workers = workers.map(|(me, worker)| Worker::new(&worker, &hub, me)).collect();
        let shards = (0..hub.shards())
            .map(|index| Shard::new(Arc::clone(&config), ShardIndex(index), &hub))
            .collect();
        Self { config, hub, shards, workers }
    }

    pub(crate) fn at(&mut self, shard: u16) -> &mut Shard {
        &mut self.shards[usize::from(shard)]
    }

    pub(crate) fn of(&mut self, session: SessionId) -> &mut Shard {
        &mut self.shards[session.shard().index()]
    }

    /// See `Shard::begin_turn`.
    pub fn begin_turn(&mut self, shard: u16, now_us: u64) {
        self.at(shard).begin_turn(now_us);
    }

    /// See `Shard::handle_receive`.
    pub fn receive(&mut self, session: SessionId, input: &mut [u8]) {
        self.of(session).handle_receive(session, input);
    }

    /// The client has closed its writing side.
    pub fn receive_eof(&mut self, session: SessionId) {
        self.of(session).handle_receive_end(session, ReceiveEnd::Eof);
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

    /// See `Shard::do_work` and `Shard::run`.
    pub fn run(&mut self, shard: u16) -> bool {
        let shard = self.at(shard);
        shard.do_work();
        shard.run()
    }

    /// See `Shard::poll_transmit`.
    pub fn poll_transmit(&mut self, shard: u16) -> Option<Sending> {
        self.at(shard).poll_transmit().map(|transmit| Sending { transmit })
    }

    /// See `Shard::has_transmits`.
    #[must_use]
    pub fn has_transmits(&self, shard: u16) -> bool {
        self.shards[usize::from(shard)].has_transmits()
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

    /// Takes the steps of a drain that are due, one whose sessions are closed evenly between two
    /// times and that ends at a third. To be called in each turn of it, behind [`Self::run`].
    pub fn drain(&mut self, shard: u16, [begin_us, closed_us, end_us]: [u64; 3]) {
        self.at(shard).drain(DrainPlan { begin_us, closed_us, end_us });
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

    pub(crate) fn worker_of(&self, party: PartyIndex) -> Option<usize> {
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

    /// The time at which a party has to run again at the latest, besides the shell's own bound.
    #[must_use]
    pub fn next_deadline_us(&self, party: PartyIndex) -> Option<u64> {
        match self.worker_of(party) {
            Some(worker) => self.workers[worker].next_deadline_us(),
            None => self.shards[usize::from(party)].next_deadline_us(),
        }
    }

    /// Connections of all shards, as they are counted against `connections_max`.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.config.connections.load(Ordering::Relaxed)
    }
}

/// The kit's part of it.
impl Simulated {
    /// A client has connected at a listener.
    pub(crate) fn accept_at(
        &mut self,
        shard: u16,
        listener: ListenerIndex,
        socket: u32,
        peer: SocketAddr,
    ) -> Option<SessionId> {
        self.at(shard).handle_accept_at(listener, SocketIndex(socket), peer)
    }

    /// A session as the handlers of its shard see it.
    pub(crate) fn session(&mut self, session: SessionId) -> Option<Session> {
        self.of(session).session(session)
    }

    /// Futures alive on all parties: what may yet answer a request.
    pub(crate) fn tasks_alive(&self) -> usize {
        let shards = self.shards.iter().map(Shard::tasks_alive).sum::<usize>();
        shards + self.workers.iter().map(Worker::tasks_alive).sum::<usize>()
    }

    /// Runs a party's hooks of a shutdown, once all connections have ended.
    pub fn begin_shutdown(&mut self, party: PartyIndex) {
        match self.worker_of(party) {
            Some(worker) => self.workers[worker].begin_shutdown(),
            None => self.at(party).begin_shutdown(),
        }
    }

    /// Futures on a party that a drain waits for.
    #[must_use]
    pub fn owed(&self, party: PartyIndex) -> usize {
        match self.worker_of(party) {
            Some(worker) => self.workers[worker].tasks_owed(),
            None => self.shards[usize::from(party)].tasks_owed(),
        }
    }

    /// True if a shard keeps messages until a lane has room, of which nobody tells it.
    pub(crate) fn waits_for_lane(&self, shard: u16) -> bool {
        self.shards[usize::from(shard)].waits_for_lane()
    }
}
