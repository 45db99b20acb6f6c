//! The parts that are measured, fuzzed and simulated one by one. There only with the feature
//! `internals`.
//!
//! Nothing in here is part of the crate's interface: any release may change it or take it away, and
//! no version number tells of it. It is for this repository's own benches, fuzz targets and tests.
//!
//! Each is a thin face over the crate's own type, so that what is measured is what runs.

#[cfg(feature = "pitaya")]
pub mod cluster;
pub mod mailing;
#[cfg(feature = "pitaya")]
pub mod nats;
#[cfg(feature = "pomelo")]
pub mod rpc;
pub mod simulated;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use crate::dispatch::{Handlers, Register};
use crate::forward::mail::{Forward, ForwardRoute, Mail, WorkerBody, WorkerReply};
use crate::forward::{Endpoint, Hub, HubLimits, Party, WorkerIndex};
use crate::limits::Limits;
use crate::metrics::{CounterSnapshot, ForwardEnd};
use crate::route::Dictionary;
use crate::route::edition::Edition;
use crate::route::table::RouteTable;
use crate::session::{
    BufferPool, Generation, Outbox as SessionOutbox, SessionData, SessionId, ShardIndex, Slot,
    Table,
};
use crate::shard::{Connection, SendEnd, Shard, ShardConfig, SocketIndex, Transmit};
use crate::wheel::Wheel as TimerWheel;
use crate::wire::message;
use crate::wire::message::RouteRef;
use crate::wire::package::{Header, PackageType};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// One shard and a shell without sockets: bytes in, bytes out, in virtual time.
pub struct Core {
    shard: Shard,
    now_us: u64,
    sockets: u32,
    /// The output of the last turn; the shard is told in the next one, as from a ring.
    in_flight: Vec<Transmit>,
}

impl Core {
    /// A shard of a `connector` without heartbeat, filters or workers, with the default limits.
    pub fn new(
        routes: &[&str],
        dictionary: Option<&Dictionary>,
        register: impl Fn(&mut Handlers) + Send + Sync + 'static,
    ) -> Self {
        let register: Register = Arc::new(register);
        let routes = routes.iter().map(|&route| route.to_owned());
        let config =
            ShardConfig::bare(RouteTable::new(routes, dictionary, None), dictionary, register);
        // Nobody writes mail here; short lanes are made fast.
        let hub = Hub::new(1, 0, HubLimits { lane_len: 16, inbox_len: 16 });
        let shard = Shard::new(Arc::new(config), ShardIndex(0), &hub);
        Self { shard, now_us: 0, sockets: 0, in_flight: Vec::new() }
    }

    /// Begins a turn that much later than the last one.
    pub fn begin_turn(&mut self, passed_us: u64) {
        self.now_us += passed_us;
        self.shard.begin_turn(self.now_us);
        for Transmit { session, segment, .. } in self.in_flight.drain(..) {
            self.shard.handle_sent(session, segment, SendEnd::Sent);
        }
    }

    /// Takes a client in, within a turn; `None` if the shard is full.
    pub fn accept(&mut self) -> Option<SessionId> {
        let socket = SocketIndex(self.sockets);
        self.sockets += 1;
        self.shard.handle_accept(socket, PEER)
    }

    /// A client has sent bytes, within a turn. WebSocket frames are unmasked in place.
    #[inline]
    pub fn receive(&mut self, session: SessionId, input: &mut [u8]) {
        self.shard.handle_receive(session, input);
    }

    /// Ends the turn and shows what goes out, session by session.
    pub fn end_turn(&mut self, mut sent: impl FnMut(SessionId, &[u8])) {
        while self.shard.run() {}
        while let Some(transmit) = self.shard.poll_transmit() {
            sent(transmit.session, transmit.segment.as_slice());
            self.in_flight.push(transmit);
        }
        while self.shard.poll_command().is_some() {}
        while self.shard.poll_bell().is_some() {}
        self.shard.end_turn(self.now_us);
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        self.shard.counters().snapshot()
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("now_us", &self.now_us).finish_non_exhaustive()
    }
}

/// A shard's connections by session id.
pub struct SessionTable {
    table: Table<Connection>,
}

impl SessionTable {
    /// A table of that many connections, and their ids in the order of accepting.
    #[must_use]
    pub fn filled(len: usize) -> (Self, Vec<SessionId>) {
        let mut table = Table::new(len);
        let mut insert = |number: usize| {
            let connection = Connection::new(SocketIndex(number as u32), PEER, number as u64);
            let (slot, generation) = table.insert(connection)?;
            Some(SessionId::new(ShardIndex(0), slot, generation))
        };
        let ids = (0..len).map_while(&mut insert).collect();
        (Self { table }, ids)
    }

    /// The time at which the session was last heard of, if it is still there.
    #[inline]
    #[must_use]
    pub fn heard_ms(&self, session: SessionId) -> Option<u64> {
        Some(self.table.get(session.slot(), session.generation())?.heard_ms)
    }
}

impl std::fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionTable").field("len", &self.table.len()).finish()
    }
}

/// One session's outbox and its shard's buffers.
#[derive(Debug, Default)]
pub struct Outbox {
    outbox: SessionOutbox,
    pool: BufferPool,
}

impl Outbox {
    /// Appends an answer as a TCP client gets it.
    #[inline]
    pub fn append_answer(&mut self, id: u32, body: &[u8]) {
        let len = message::response_head_len(id) + body.len();
        let out = self.outbox.open(&mut self.pool);
        out.extend_from_slice(&Header::encode(PackageType::Data, len));
        message::encode_response_head(id, out);
        out.extend_from_slice(body);
    }

    /// Takes and finishes all that waits; how many bytes it was.
    pub fn send(&mut self) -> usize {
        let mut bytes = 0;
        while let Some(segment) = self.outbox.take(&mut self.pool) {
            bytes += segment.as_slice().len();
            self.outbox.finish(segment, &mut self.pool);
        }
        bytes
    }
}

/// The timer wheel, by slot number.
#[derive(Debug)]
pub struct Wheel {
    wheel: TimerWheel,
    due: Vec<Slot>,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { wheel: TimerWheel::with_capacity(0), due: Vec::new() }
    }
}

impl Wheel {
    /// Sets the deadline of a slot.
    #[inline]
    pub fn set(&mut self, slot: u32, deadline_ms: u64) {
        self.wheel.set(Slot(slot), deadline_ms);
    }

    /// Lets time pass, and sets the deadline of each slot that is due anew, as clients that live
    /// have it; how many were due.
    pub fn advance(&mut self, now_ms: u64, again_ms: u64) -> usize {
        self.wheel.advance(now_ms, &mut self.due);
        let len = self.due.len();
        for slot in self.due.drain(..) {
            self.wheel.set(slot, now_ms + again_ms);
        }
        len
    }
}

/// The routes that an engine knows.
#[derive(Debug)]
pub struct Routes {
    table: RouteTable,
    edition: Edition,
}

impl Routes {
    /// A table of these routes, and of the dictionary's.
    #[must_use]
    pub fn new(routes: &[&str], dictionary: Option<&Dictionary>) -> Self {
        let routes = routes.iter().map(|&route| route.to_owned());
        let table = RouteTable::new(routes, dictionary, None);
        let edition = Edition::bare(dictionary, &table);
        Self { table, edition }
    }

    /// The text of a route as it stands on the wire, if it is known.
    #[inline]
    #[must_use]
    pub fn find(&self, route: RouteRef<'_>) -> Option<&str> {
        let id = match route {
            RouteRef::Text(text) => self.table.find(text),
            RouteRef::Code(code) => self.edition.find(code),
        };
        id.map(|id| &*self.table.entry(id).text)
    }
}

/// A shard's end of the two lanes between it and a worker.
pub struct ShardEnd {
    endpoint: Endpoint,
    worker: Party,
    session: SessionId,
    data: Arc<SessionData>,
}

/// The worker's end.
pub struct WorkerEnd {
    endpoint: Endpoint,
    shard: Party,
}

/// The two ends of the lanes between a shard and a worker.
#[must_use]
pub fn lanes() -> (ShardEnd, WorkerEnd) {
    let limits = Limits::default();
    let hub_limits = HubLimits { lane_len: limits.lane_len, inbox_len: 16 };
    let hub = Hub::new(1, 1, hub_limits);
    let (shard, worker) = (Party::from(ShardIndex(0)), hub.worker(WorkerIndex(0)));
    let session = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
    let endpoint = |party| Endpoint::new(Arc::clone(&hub), party, limits.backlog_len_max);
    let data = Arc::new(SessionData::new(1, PEER));
    let shard_end = ShardEnd { endpoint: endpoint(shard), worker, session, data };
    (shard_end, WorkerEnd { endpoint: endpoint(worker), shard })
}

impl ShardEnd {
    /// Forwards a request; `false` when the lane is full.
    #[inline]
    pub fn forward(&mut self, token: u64, body: Bytes) -> bool {
        let forward = Forward {
            token,
            session: self.session,
            data: Arc::clone(&self.data),
            route: ForwardRoute::Inline { len: 0 },
            id: 1,
            bytes: body,
        };
        let lane_len = Limits::default().lane_len;
        let has_room = self.endpoint.has_room_within(self.worker, lane_len);
        if has_room {
            self.endpoint.send(self.worker, Mail::Forward(forward));
        }
        has_room
    }

    /// The next answer: its token and its length.
    #[inline]
    pub fn receive(&mut self) -> Option<(u64, usize)> {
        match self.endpoint.receive(self.worker)? {
            Mail::Answer { token, reply } => {
                Some((token, reply.body.bytes().map_or(0, |body| body.len())))
            }
            _ => None,
        }
    }

    /// Looks whether the worker sleeps, as each turn does; it never does here.
    #[inline]
    pub fn ring(&mut self) -> bool {
        self.endpoint.poll_bell().is_some()
    }
}

impl WorkerEnd {
    /// Answers all requests that wait with their own bodies; how many there were.
    #[inline]
    pub fn echo(&mut self) -> usize {
        let waiting = self.endpoint.waiting(self.shard);
        for _ in 0..waiting {
            let Some(Mail::Forward(forward)) = self.endpoint.receive(self.shard) else { break };
            let Forward { token, bytes, data, .. } = forward;
            let reply = WorkerReply {
                body: WorkerBody::Bytes(bytes),
                end: ForwardEnd::Answered,
                data: Some(data),
            };
            self.endpoint.send(self.shard, Mail::Answer { token, reply });
        }
        waiting
    }

    /// Moves what waited for room into the lane, and looks whether the shard sleeps.
    #[inline]
    pub fn ring(&mut self) -> bool {
        self.endpoint.flush();
        self.endpoint.poll_bell().is_some()
    }
}

impl std::fmt::Debug for ShardEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardEnd").field("session", &self.session).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WorkerEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerEnd").field("shard", &self.shard).finish_non_exhaustive()
    }
}
