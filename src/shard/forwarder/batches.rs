//! Batches of messages to workers, while they are filled.

use std::sync::Arc;

use super::lane_waits::{Destination, LaneWaits};
use crate::dispatch::Session;
use crate::forward::message_batch::{
    self, BODY_BYTES_MAX, BatchPool, Head, MESSAGES_MAX, MessageBatch,
};
use crate::forward::pending_forwards::{HeldMessages, PendingForwards};
use crate::forward::{Carrier, Endpoint, ServerTypeIndex, WorkerIndex};
use crate::route::table::RouteId;
use crate::session::SessionId;
use crate::shard::config::ShardConfig;
use crate::shard::connections::{Connection, Transport};

/// The batches of a shard.
#[derive(Default)]
pub(super) struct ForwardBatches {
    pool: BatchPool,
    /// Messages in batches that each worker has not sent back.
    away: Vec<usize>,
    /// Memory for the ids of messages that are away.
    ids: Vec<Vec<u32>>,
    /// Memory for their routes, where those are measured.
    routes: Vec<Vec<RouteId>>,
    /// Memory for what filters are to see of them.
    #[allow(clippy::vec_box)] // The boxes are what goes to and fro.
    held: Vec<Box<HeldMessages>>,
}

/// The copies that are kept of a message: one more where filters see it again behind its answer.
pub(in crate::shard) fn copies(is_held: bool) -> usize {
    1 + usize::from(is_held)
}

/// Lists of ids, of routes, and of held messages, that are kept for the next batches, at most.
const LISTS_KEPT_MAX: usize = 1024;

/// The bounds of what is forwarded.
pub(super) struct Room<'a> {
    pub(super) config: &'a ShardConfig,
    pub(super) endpoint: &'a Endpoint,
    pub(super) pending: &'a PendingForwards,
    pub(super) lane_waits: &'a LaneWaits,
    /// The bytes left of `shard_bytes_max`.
    pub(super) memory_left: usize,
    /// Messages before the one that is sampled, which goes alone.
    pub(super) until_sampled: usize,
    /// True if global filters are to see the outcome of each message.
    pub(super) is_filtered: bool,
}

impl Room<'_> {
    /// True if a session may send a whole batch more, whatever its length.
    fn has_bytes(&self, connection: &Connection, worker: WorkerIndex) -> bool {
        let limits = &self.config.limits;
        let batch = copies(self.is_filtered) * message_batch::BYTES_MAX;
        let in_flight = connection.session.in_flight_bytes as usize + batch;
        let party = self.endpoint.hub().worker(worker);
        in_flight <= limits.in_flight_bytes_per_session_max
            && connection.kept_bytes() + batch <= self.memory_left
            && in_flight <= self.endpoint.bytes_left(party, limits.lane_bytes_max, in_flight)
    }

    /// The worker that a message goes to. Where the uid alone tells, it is that of the batch which
    /// is being filled.
    #[inline(always)]
    fn pick_worker(
        &self,
        builder: Option<&BatchBuilder>,
        server_type: ServerTypeIndex,
        seen: &Session,
    ) -> Option<WorkerIndex> {
        match builder {
            Some(builder) if builder.server_type == server_type && builder.is_by_uid => {
                Some(builder.batch.worker)
            }
            _ => self.config.pick_worker(server_type, &seen.view(), seen.counters()),
        }
    }
}

/// The batches of a shard, and the room that they find.
pub(in crate::shard) struct Batching<'a> {
    pub(super) batches: &'a mut ForwardBatches,
    pub(super) room: Room<'a>,
}

impl Batching<'_> {
    /// Puts a message into the batch that is being filled, or into a new one where there is none.
    /// An error is the worker, if there is any, that it has to go to alone: it is long, filters
    /// have changed the session's data for it, it is for another worker than those before it, or
    /// there is no room and what becomes of it is decided there, or it is sampled.
    #[inline(always)]
    pub(in crate::shard) fn put(
        &mut self,
        builder: &mut Option<BatchBuilder>,
        to: BatchTarget<'_>,
        body: &[u8],
        seen: &mut Option<Session>,
    ) -> Result<(), Alone> {
        let Some(session) = seen else { return Err(Alone { to: None }) };
        let BatchTarget { server_type, id, route, .. } = to;
        let worker = self.room.pick_worker(builder.as_ref(), server_type, session);
        let alone = Alone { to: worker.map(|worker| Destination { server_type, worker }) };
        let (Some(worker), Some(route)) = (worker, route) else { return Err(alone) };
        if body.len() > BODY_BYTES_MAX || !session.data().is_same(to.connection.data()) {
            return Err(alone);
        }
        if builder.is_none() {
            *builder = self.batches.open(to, worker, &self.room);
        }
        let Some(builder) = builder.as_mut().filter(|builder| builder.takes_more(worker)) else {
            return Err(alone);
        };
        let head = Head { id, route };
        builder.push(head, body, if self.room.is_filtered { seen.take() } else { None });
        Ok(())
    }
}

/// A message that goes to a worker by itself, if one was picked.
#[derive(Debug, Clone, Copy)]
pub(in crate::shard) struct Alone {
    pub(in crate::shard) to: Option<Destination>,
}

/// The session whose message is forwarded, and its destination.
pub(in crate::shard) struct BatchTarget<'a> {
    pub(in crate::shard) session: SessionId,
    pub(in crate::shard) connection: &'a mut Connection,
    pub(in crate::shard) server_type: ServerTypeIndex,
    /// The client's request id; 0 for a notify.
    pub(in crate::shard) id: u32,
    /// Its route; one that is in no table goes alone.
    pub(in crate::shard) route: Option<RouteId>,
}

/// A batch that is being filled.
pub(in crate::shard) struct BatchBuilder {
    pub(super) batch: Box<MessageBatch>,
    pub(super) server_type: ServerTypeIndex,
    /// True if all messages of its session for that type go to its worker.
    is_by_uid: bool,
    /// The messages that it may have.
    room: usize,
    /// The ids of its messages, and those of them that wait for an answer, a bit each.
    pub(super) ids: Vec<u32>,
    pub(super) pending: u64,
    /// For the global after filters, where there are any.
    pub(super) held: Option<Box<HeldMessages>>,
}

impl BatchBuilder {
    /// True if another message for a worker may go into it.
    #[inline(always)]
    fn takes_more(&self, worker: WorkerIndex) -> bool {
        let batch = &self.batch;
        batch.worker == worker && batch.messages.len() < self.room && !batch.messages.is_full()
    }

    /// Adds a message, with the session as filters have seen it.
    #[inline(always)]
    fn push(&mut self, head: Head, body: &[u8], seen: Option<Session>) {
        let is_told = head.id != 0 || self.held.is_some();
        self.pending |= u64::from(is_told) << self.ids.len();
        self.ids.push(head.id);
        self.batch.messages.push(head, body);
        if let (Some(held), Some(seen)) = (&mut self.held, seen) {
            held.push(head, body, seen);
        }
    }
}

impl ForwardBatches {
    pub(super) fn new(workers: usize) -> Self {
        Self { away: vec![0; workers], ..Self::default() }
    }

    /// Begins a batch to a worker, if there is room for a message, and for as many bytes as a
    /// batch may have.
    fn open(
        &mut self,
        to: BatchTarget<'_>,
        worker: WorkerIndex,
        room: &Room<'_>,
    ) -> Option<BatchBuilder> {
        let BatchTarget { session, connection, server_type, .. } = to;
        let limits = &room.config.limits;
        // Who waits for a lane comes first.
        if !room.lane_waits.is_empty() {
            return None;
        }
        let bounds = [
            self.lane_room(worker, room.endpoint, limits.lane_len),
            usize::from(
                limits.in_flight_per_session_max.saturating_sub(connection.session.in_flight),
            ),
            limits.forwards_in_flight_max.saturating_sub(room.pending.len()),
            room.until_sampled,
        ];
        let messages_max = bounds.into_iter().fold(MESSAGES_MAX, usize::min);
        if messages_max == 0 || !room.has_bytes(connection, worker) {
            return None;
        }
        let mut batch = self.pool.take(session, worker);
        let data = connection.data().shared();
        batch.data = Some([Arc::clone(data), Arc::clone(data)]);
        batch.is_websocket = connection.transport == Transport::WebSocket;
        batch.tells_all = room.is_filtered;
        let carrier = &room.config.server_types[server_type.index()].carrier;
        Some(BatchBuilder {
            batch,
            server_type,
            is_by_uid: matches!(carrier, Carrier::Workers { route: None, .. }),
            room: messages_max,
            ids: self.ids.pop().unwrap_or_default(),
            pending: 0,
            held: room.is_filtered.then(|| self.held.pop().unwrap_or_default()),
        })
    }

    /// The messages more that may go into the lane to a worker.
    #[inline]
    pub(super) fn lane_room(
        &self,
        worker: WorkerIndex,
        endpoint: &Endpoint,
        lane_len: usize,
    ) -> usize {
        match endpoint.has_room_within(endpoint.hub().worker(worker), lane_len) {
            true => lane_len.saturating_sub(self.away[worker.index()]),
            false => 0,
        }
    }

    /// Messages in batches that a worker has not sent back.
    pub(in crate::shard) fn away(&self, worker: WorkerIndex) -> usize {
        self.away[worker.index()]
    }

    /// Counts messages that went to a worker.
    pub(super) fn add_away(&mut self, worker: WorkerIndex, messages: usize) {
        self.away[worker.index()] += messages;
    }

    /// Counts messages that a worker has sent back.
    pub(super) fn remove_away(&mut self, worker: WorkerIndex, messages: usize) {
        let away = &mut self.away[worker.index()];
        debug_assert!(*away >= messages);
        *away = away.saturating_sub(messages);
    }

    /// Takes the memory back of a batch that has come back.
    pub(super) fn give_batch(&mut self, batch: Box<MessageBatch>) {
        self.pool.give(batch);
    }

    /// The routes of a batch's messages.
    pub(super) fn routes_of(&mut self, batch: &MessageBatch) -> Vec<RouteId> {
        let mut routes = self.routes.pop().unwrap_or_default();
        routes.extend(batch.messages.iter().map(|(head, _)| head.route));
        routes
    }

    /// Takes the memory back of what was kept of a batch whose messages are answered.
    pub(super) fn give(
        &mut self,
        mut ids: Vec<u32>,
        mut routes: Vec<RouteId>,
        held: Option<Box<HeldMessages>>,
    ) {
        if routes.capacity() > 0 && self.routes.len() < LISTS_KEPT_MAX {
            routes.clear();
            self.routes.push(routes);
        }
        if self.ids.len() < LISTS_KEPT_MAX {
            ids.clear();
            self.ids.push(ids);
        }
        if let Some(mut held) = held
            && self.held.len() < LISTS_KEPT_MAX
            && held.clear()
        {
            self.held.push(held);
        }
    }
}
