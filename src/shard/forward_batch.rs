//! Batches of messages to workers and back.

use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::config::ShardConfig;
use super::connection::{Connection, State, Transport, worker_bit};
use super::dialect::Dialect;
use super::lane_full::LaneWaits;
use crate::dispatch::reply::Reply;
use crate::dispatch::{Request, Session, chain};
use crate::forward::mail::{Mail, WorkerReply};
use crate::forward::message_batch::{
    self, BODY_BYTES_MAX, BatchPool, Head, MESSAGES_MAX, MessageBatch,
};
use crate::forward::pending_forwards::{
    HeldMessages, PendingBatch, PendingForward, PendingForwards,
};
use crate::forward::{Carrier, Endpoint};
use crate::session::SessionId;
use crate::wire::answer;

/// What a shard keeps of batches.
#[derive(Default)]
pub(super) struct ForwardBatches {
    pool: BatchPool,
    /// Messages in batches that each worker has not sent back.
    away: Vec<usize>,
    /// Memory for the ids of messages that are away.
    ids: Vec<Vec<u32>>,
    /// Memory for what filters are to see of them.
    #[allow(clippy::vec_box)] // The boxes are what goes to and fro.
    held: Vec<Box<HeldMessages>>,
}

/// How often a message is kept: once more where filters see it again behind its answer.
pub(super) fn copies(is_held: bool) -> usize {
    1 + usize::from(is_held)
}

/// Lists of ids, and of held messages, that are kept for the next batches, at most.
const LISTS_KEPT_MAX: usize = 1024;

/// What bounds how much is forwarded.
pub(super) struct Room<'a> {
    pub(super) config: &'a ShardConfig,
    pub(super) endpoint: &'a Endpoint,
    pub(super) calls: &'a PendingForwards,
    pub(super) lane_waits: &'a LaneWaits,
    /// What is left of `shard_bytes_max`.
    pub(super) memory_left: usize,
    /// Whether global filters are to see what becomes of each message.
    pub(super) is_filtered: bool,
}

impl Room<'_> {
    /// Whether a session may send a whole batch more, whatever its length.
    fn has_bytes(&self, connection: &Connection, worker: u16) -> bool {
        let limits = &self.config.limits;
        let batch = copies(self.is_filtered) * message_batch::BYTES_MAX;
        let in_flight = connection.in_flight_bytes as usize + batch;
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
        place: usize,
        seen: &Session,
    ) -> Option<u16> {
        match builder {
            Some(builder) if builder.place == place && builder.is_by_uid => {
                Some(builder.batch.worker)
            }
            _ => self.config.pick_worker(place, &seen.view()),
        }
    }
}

/// Whose message goes where.
pub(super) struct BatchTarget<'a> {
    pub(super) session: SessionId,
    pub(super) connection: &'a mut Connection,
    /// The server type, by its place.
    pub(super) place: usize,
    pub(super) head: Head,
}

/// A batch that is being filled.
pub(super) struct BatchBuilder {
    batch: Box<MessageBatch>,
    /// The server type, by its place.
    place: usize,
    /// Whether all messages of its session for that type go to its worker.
    is_by_uid: bool,
    /// How many messages it may have.
    room: usize,
    /// The ids of its messages, and those of them that wait for an answer, a bit each.
    ids: Vec<u32>,
    pending: u64,
    /// For the global after filters, where there are any.
    held: Option<Box<HeldMessages>>,
}

impl BatchBuilder {
    /// Whether another message for a worker may go into it.
    #[inline(always)]
    fn takes_more(&self, worker: u16) -> bool {
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

    /// Puts a message into the batch that is being filled, or into a new one where there is none.
    /// An error is the worker, if there is any, that it has to go to alone: it is long, filters
    /// have changed the session's data for it, it is for another worker than those before it, or
    /// there is no room and what becomes of it is decided there.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        builder: &mut Option<BatchBuilder>,
        to: BatchTarget<'_>,
        body: &[u8],
        seen: &mut Option<Session>,
        room: &Room<'_>,
    ) -> Result<(), Option<u16>> {
        let Some(session) = seen else { return Err(None) };
        let (worker, head) = (room.pick_worker(builder.as_ref(), to.place, session), to.head);
        let is_as_others =
            body.len() <= BODY_BYTES_MAX && session.data().is_same(to.connection.data());
        let Some(index) = worker.filter(|_| is_as_others) else { return Err(worker) };
        if builder.is_none() {
            *builder = self.open(to, index, room);
        }
        let Some(builder) = builder.as_mut().filter(|builder| builder.takes_more(index)) else {
            return Err(worker);
        };
        builder.push(head, body, if room.is_filtered { seen.take() } else { None });
        Ok(())
    }

    /// Begins a batch to a worker, if there is room for a message, and for as many bytes as a
    /// batch may have.
    fn open(&mut self, to: BatchTarget<'_>, worker: u16, room: &Room<'_>) -> Option<BatchBuilder> {
        let BatchTarget { session, connection, place, .. } = to;
        let limits = &room.config.limits;
        // Who waits for a lane comes first.
        if !room.lane_waits.is_empty() {
            return None;
        }
        let bounds = [
            self.lane_room(worker, room.endpoint, limits.lane_len),
            usize::from(limits.in_flight_per_session_max.saturating_sub(connection.in_flight)),
            limits.forwards_in_flight_max.saturating_sub(room.calls.len()),
        ];
        let messages_max = bounds.into_iter().fold(MESSAGES_MAX, usize::min);
        if messages_max == 0 || !room.has_bytes(connection, worker) {
            return None;
        }
        let mut batch = self.pool.take(session);
        let data = connection.data().shared();
        batch.data = Some([Arc::clone(data), Arc::clone(data)]);
        batch.worker = worker;
        batch.is_websocket = connection.transport == Transport::WebSocket;
        batch.tells_all = room.is_filtered;
        let carrier = &room.config.server_types[place].carrier;
        Some(BatchBuilder {
            batch,
            place,
            is_by_uid: matches!(carrier, Carrier::Workers { route: None, .. }),
            room: messages_max,
            ids: self.ids.pop().unwrap_or_default(),
            pending: 0,
            held: room.is_filtered.then(|| self.held.pop().unwrap_or_default()),
        })
    }

    /// How many messages more may go into the lane to a worker.
    #[inline]
    pub(super) fn lane_room(&self, worker: u16, endpoint: &Endpoint, lane_len: usize) -> usize {
        match endpoint.has_room_within(endpoint.hub().worker(worker), lane_len) {
            true => lane_len.saturating_sub(self.away[usize::from(worker)]),
            false => 0,
        }
    }

    /// Messages in batches that a worker has not sent back.
    #[cfg(test)]
    pub(super) fn away(&self, worker: u16) -> usize {
        self.away[usize::from(worker)]
    }

    /// Takes the memory back of what was kept of a batch whose messages are answered.
    fn give(&mut self, mut ids: Vec<u32>, held: Option<Box<HeldMessages>>) {
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

impl Shard {
    pub(super) fn send_batch(&mut self, builder: BatchBuilder) {
        let BatchBuilder { mut batch, ids, pending, held, .. } = builder;
        let (session, worker) = (batch.session, batch.worker);
        let bytes = copies(held.is_some()) * batch.messages.bytes();
        self.memory.add(bytes);
        if let Some((_, connection)) = self.find(session) {
            connection.in_flight += pending.count_ones() as u16;
            connection.in_flight_bytes += bytes as u32;
            connection.workers |= worker_bit(worker);
        }
        batch.token = 0;
        if pending == 0 {
            self.batches.give(ids, held);
        } else {
            let started_us = self.clock.now_us;
            let awaited = PendingBatch { session, started_us, ids, pending, bytes, held };
            let deadline_us = started_us + self.config.forward_timeout_us();
            batch.token = self.calls.add(PendingForward::Batch(awaited), deadline_us);
        }
        let messages = batch.messages.len();
        self.batches.away[usize::from(worker)] += messages;
        self.counters.forwards.add(messages as u64);
        self.forwarded += messages;
        let party = self.endpoint.hub().worker(worker);
        self.endpoint.add_sent(party, batch.messages.bytes());
        self.endpoint.send(party, Mail::Batch(batch));
    }

    /// A batch has come back.
    pub(super) fn handle_batch(&mut self, batch: Box<MessageBatch>) {
        let away = &mut self.batches.away[usize::from(batch.worker)];
        debug_assert!(*away >= batch.messages.len());
        *away = away.saturating_sub(batch.messages.len());
        if batch.token == 0 {
            self.release_in_flight(batch.session, batch.messages.bytes());
        }
        if batch.answered != 0 {
            self.handle_answers(batch.token, batch.answered, &batch.answers);
        }
        self.batches.pool.give(batch);
    }

    /// A worker has answered some messages of a batch. An answer after its deadline finds nothing.
    pub(super) fn handle_answers(&mut self, token: u64, answered: u64, bytes: &[u8]) {
        let Some(awaited) = self.calls.batch_mut(token) else { return };
        let (session, started_us) = (awaited.session, awaited.started_us);
        let held = awaited.held.take();
        let answers = u64::from(answered.count_ones());
        self.latency.record(self.clock.now_us.saturating_sub(started_us), answers);
        self.deliver_answers(session, answers as u16, bytes);
        if let Some(mut held) = held {
            self.show_answers(&mut held, answered, bytes);
            // For those that are answered later.
            if let Some(awaited) = self.calls.batch_mut(token) {
                awaited.held = Some(held);
            }
        }
        self.settle(token, answered);
        self.kick_if_drained_id(session);
    }

    /// Takes messages of a batch for answered.
    fn settle(&mut self, token: u64, answered: u64) {
        let Some(awaited) = self.calls.batch_mut(token) else { return };
        debug_assert_eq!(awaited.pending & answered, answered, "a message is answered once");
        awaited.pending &= !answered;
        if awaited.pending == 0
            && let Some(PendingForward::Batch(awaited)) = self.calls.take(token)
        {
            self.release_in_flight(awaited.session, awaited.bytes);
            self.batches.give(awaited.ids, awaited.held);
        }
    }

    /// Queues answers that are laid out already.
    fn deliver_answers(&mut self, session: SessionId, answers: u16, bytes: &[u8]) {
        let slot = session.slot();
        let Some(connection) = self.connections.get_mut(slot, session.generation()) else {
            return;
        };
        debug_assert!(connection.in_flight >= answers);
        connection.in_flight = connection.in_flight.saturating_sub(answers);
        if connection.state == State::Working(Dialect::Pomelo) {
            connection.outbox.open(&mut self.pool).extend_from_slice(bytes);
            self.counters.answers.add(u64::from(answers));
            let bytes = connection.outbox.bytes();
            self.mark_dirty(slot);
            if bytes > self.outbox_pauses.pause_bytes() {
                self.pause_for_outbox(slot);
            }
        }
    }

    /// Lets the global after filters see answers as they were laid out.
    fn show_answers(&mut self, held: &mut HeldMessages, answered: u64, bytes: &[u8]) {
        let (thread, registry) = (Rc::clone(&self.thread), Rc::clone(&self.registry));
        let mut bodies = answer::bodies(bytes);
        for (index, (head, body, session)) in held.iter_mut().enumerate() {
            if answered >> index & 1 == 1 {
                let reply = bodies.next().map_or_else(Reply::error, Reply::borrowed);
                let request = Request::new(&thread.routes.entry(head.route).text, head.id, body);
                chain::after_answer(&registry.global_filters, &request, session, &reply);
            }
        }
        self.apply_ops();
    }

    /// A worker has answered one message of a batch that global filters are to see.
    pub(super) fn handle_part(&mut self, token: u64, index: u8, reply: WorkerReply) {
        let Some(awaited) = self.calls.batch_mut(token) else { return };
        let index = usize::from(index);
        let (client, held) = awaited.part(index, &self.thread.routes);
        self.settle(token, 1 << index);
        self.handle_answer(&client, held, &reply.into_reply());
    }

    /// Answers for a worker that has not.
    pub(super) fn expire_batch(&mut self, awaited: PendingBatch, reply: &Reply<'_>) {
        for index in (0..awaited.ids.len()).filter(|index| awaited.pending >> index & 1 == 1) {
            self.counters.forward_timeouts.one();
            let (client, held) = awaited.part(index, &self.thread.routes);
            self.handle_answer(&client, held, reply);
        }
        self.release_in_flight(awaited.session, awaited.bytes);
        self.batches.give(awaited.ids, awaited.held);
    }
}
