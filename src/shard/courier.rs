//! Parcels to workers and back.

use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use super::config::ShardConfig;
use super::connection::{Connection, State, Transport, worker_bit};
use super::dialect::Dialect;
use super::lane_full::LaneWaits;
use crate::dispatch::reply::Reply;
use crate::dispatch::{Request, Session, chain};
use crate::forward::calls::{Batch, Calls, Forwarded, HeldMessages};
use crate::forward::mail::{Mail, WorkerReply};
use crate::forward::parcel::{self, BODY_BYTES_MAX, Head, MESSAGES_MAX, Parcel, Parcels};
use crate::forward::{Carrier, Post};
use crate::session::SessionId;
use crate::wire::answer;

/// What a shard keeps of parcels.
#[derive(Default)]
pub(super) struct Courier {
    parcels: Parcels,
    /// Messages in parcels that each worker has not sent back.
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

/// Lists of ids, and of held messages, that are kept for the next parcels, at most.
const LISTS_KEPT_MAX: usize = 1024;

/// What bounds how much is forwarded.
pub(super) struct Room<'a> {
    pub(super) config: &'a ShardConfig,
    pub(super) post: &'a Post,
    pub(super) calls: &'a Calls,
    pub(super) lane_waits: &'a LaneWaits,
    /// What is left of `shard_bytes_max`.
    pub(super) memory_left: usize,
    /// Whether global filters are to see what becomes of each message.
    pub(super) is_filtered: bool,
}

impl Room<'_> {
    /// Whether a session may send a whole parcel more, whatever its length.
    fn has_bytes(&self, connection: &Connection, worker: u16) -> bool {
        let limits = &self.config.limits;
        let parcel = copies(self.is_filtered) * parcel::BYTES_MAX;
        let in_flight = connection.in_flight_bytes as usize + parcel;
        let party = self.post.hub().worker(worker);
        in_flight <= limits.in_flight_bytes_per_session_max
            && connection.kept_bytes() + parcel <= self.memory_left
            && in_flight <= self.post.bytes_left(party, limits.lane_bytes_max, in_flight)
    }

    /// The worker that a message goes to. Where the uid alone tells, it is that of the parcel which
    /// is being filled.
    #[inline(always)]
    fn pick_worker(&self, filling: Option<&Filling>, place: usize, seen: &Session) -> Option<u16> {
        match filling {
            Some(filling) if filling.place == place && filling.is_by_uid => {
                Some(filling.parcel.worker)
            }
            _ => self.config.pick_worker(place, &seen.view()),
        }
    }
}

/// Whose message goes where.
pub(super) struct To<'a> {
    pub(super) session: SessionId,
    pub(super) connection: &'a mut Connection,
    /// The server type, by its place.
    pub(super) place: usize,
    pub(super) head: Head,
}

/// A parcel that is being filled.
pub(super) struct Filling {
    parcel: Box<Parcel>,
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

impl Filling {
    /// Whether another message for a worker may go into it.
    #[inline(always)]
    fn takes_more(&self, worker: u16) -> bool {
        let parcel = &self.parcel;
        parcel.worker == worker && parcel.messages.len() < self.room && !parcel.messages.is_full()
    }

    /// Adds a message, with the session as filters have seen it.
    #[inline(always)]
    fn push(&mut self, head: Head, body: &[u8], seen: Option<Session>) {
        let is_told = head.id != 0 || self.held.is_some();
        self.pending |= u64::from(is_told) << self.ids.len();
        self.ids.push(head.id);
        self.parcel.messages.push(head, body);
        if let (Some(held), Some(seen)) = (&mut self.held, seen) {
            held.push(head, body, seen);
        }
    }
}

impl Courier {
    pub(super) fn new(workers: usize) -> Self {
        Self { away: vec![0; workers], ..Self::default() }
    }

    /// Puts a message into the parcel that is being filled, or into a new one where there is none.
    /// An error is the worker, if there is any, that it has to go to alone: it is long, filters
    /// have changed the session's data for it, it is for another worker than those before it, or
    /// there is no room and what becomes of it is decided there.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        filling: &mut Option<Filling>,
        to: To<'_>,
        body: &[u8],
        seen: &mut Option<Session>,
        room: &Room<'_>,
    ) -> Result<(), Option<u16>> {
        let Some(session) = seen else { return Err(None) };
        let (worker, head) = (room.pick_worker(filling.as_ref(), to.place, session), to.head);
        let is_as_others =
            body.len() <= BODY_BYTES_MAX && session.data().is_same(to.connection.data());
        let Some(index) = worker.filter(|_| is_as_others) else { return Err(worker) };
        if filling.is_none() {
            *filling = self.open(to, index, room);
        }
        let Some(filling) = filling.as_mut().filter(|filling| filling.takes_more(index)) else {
            return Err(worker);
        };
        filling.push(head, body, if room.is_filtered { seen.take() } else { None });
        Ok(())
    }

    /// Begins a parcel to a worker, if there is room for a message, and for as many bytes as a
    /// parcel may have.
    fn open(&mut self, to: To<'_>, worker: u16, room: &Room<'_>) -> Option<Filling> {
        let To { session, connection, place, .. } = to;
        let limits = &room.config.limits;
        // Who waits for a lane comes first.
        if !room.lane_waits.is_empty() {
            return None;
        }
        let bounds = [
            self.lane_room(worker, room.post, limits.lane_len),
            usize::from(limits.in_flight_per_session_max.saturating_sub(connection.in_flight)),
            limits.forwards_in_flight_max.saturating_sub(room.calls.len()),
        ];
        let messages_max = bounds.into_iter().fold(MESSAGES_MAX, usize::min);
        if messages_max == 0 || !room.has_bytes(connection, worker) {
            return None;
        }
        let mut parcel = self.parcels.take(session);
        let data = connection.data().shared();
        parcel.data = Some([Arc::clone(data), Arc::clone(data)]);
        parcel.worker = worker;
        parcel.is_websocket = connection.transport == Transport::WebSocket;
        parcel.tells_all = room.is_filtered;
        let carrier = &room.config.server_types[place].carrier;
        Some(Filling {
            parcel,
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
    pub(super) fn lane_room(&self, worker: u16, post: &Post, lane_len: usize) -> usize {
        match post.has_room_within(post.hub().worker(worker), lane_len) {
            true => lane_len.saturating_sub(self.away[usize::from(worker)]),
            false => 0,
        }
    }

    /// Messages in parcels that a worker has not sent back.
    #[cfg(test)]
    pub(super) fn away(&self, worker: u16) -> usize {
        self.away[usize::from(worker)]
    }

    /// Takes the memory back of what was kept of a parcel whose messages are answered.
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
    pub(super) fn send_parcel(&mut self, filling: Filling) {
        let Filling { mut parcel, ids, pending, held, .. } = filling;
        let (session, worker) = (parcel.session, parcel.worker);
        let bytes = copies(held.is_some()) * parcel.messages.bytes();
        self.memory.add(bytes);
        if let Some((_, connection)) = self.find(session) {
            connection.in_flight += pending.count_ones() as u16;
            connection.in_flight_bytes += bytes as u32;
            connection.workers |= worker_bit(worker);
        }
        parcel.token = 0;
        if pending == 0 {
            self.courier.give(ids, held);
        } else {
            let started_us = self.clock.now_us;
            let batch = Batch { session, started_us, ids, pending, bytes, held };
            let deadline_us = started_us + self.config.forward_timeout_us();
            parcel.token = self.calls.add(Forwarded::Parcel(batch), deadline_us);
        }
        let messages = parcel.messages.len();
        self.courier.away[usize::from(worker)] += messages;
        self.counters.forwards.add(messages as u64);
        self.forwarded += messages;
        let party = self.post.hub().worker(worker);
        self.post.add_sent(party, parcel.messages.bytes());
        self.post.send(party, Mail::Parcel(parcel));
    }

    /// A parcel has come back.
    pub(super) fn handle_parcel(&mut self, parcel: Box<Parcel>) {
        let away = &mut self.courier.away[usize::from(parcel.worker)];
        debug_assert!(*away >= parcel.messages.len());
        *away = away.saturating_sub(parcel.messages.len());
        if parcel.token == 0 {
            self.release_in_flight(parcel.session, parcel.messages.bytes());
        }
        if parcel.answered != 0 {
            self.handle_answers(parcel.token, parcel.answered, &parcel.answers);
        }
        self.courier.parcels.give(parcel);
    }

    /// A worker has answered some messages of a parcel. An answer after its deadline finds nothing.
    pub(super) fn handle_answers(&mut self, token: u64, answered: u64, bytes: &[u8]) {
        let Some(batch) = self.calls.batch_mut(token) else { return };
        let (session, started_us) = (batch.session, batch.started_us);
        let held = batch.held.take();
        let answers = u64::from(answered.count_ones());
        self.latency.record(self.clock.now_us.saturating_sub(started_us), answers);
        self.deliver_answers(session, answers as u16, bytes);
        if let Some(mut held) = held {
            self.show_answers(&mut held, answered, bytes);
            // For those that are answered later.
            if let Some(batch) = self.calls.batch_mut(token) {
                batch.held = Some(held);
            }
        }
        self.settle(token, answered);
        self.kick_if_drained_id(session);
    }

    /// Takes messages of a parcel for answered.
    fn settle(&mut self, token: u64, answered: u64) {
        let Some(batch) = self.calls.batch_mut(token) else { return };
        debug_assert_eq!(batch.pending & answered, answered, "a message is answered once");
        batch.pending &= !answered;
        if batch.pending == 0
            && let Some(Forwarded::Parcel(batch)) = self.calls.take(token)
        {
            self.release_in_flight(batch.session, batch.bytes);
            self.courier.give(batch.ids, batch.held);
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
        let (link, registry) = (Rc::clone(&self.link), Rc::clone(&self.registry));
        let mut bodies = answer::bodies(bytes);
        for (index, (head, body, session)) in held.iter_mut().enumerate() {
            if answered >> index & 1 == 1 {
                let reply = bodies.next().map_or_else(Reply::error, Reply::borrowed);
                let request = Request::new(&link.routes.entry(head.route).text, head.id, body);
                chain::after_answer(&registry.global_filters, &request, session, &reply);
            }
        }
        self.apply_ops();
    }

    /// A worker has answered one message of a parcel that global filters are to see.
    pub(super) fn handle_part(&mut self, token: u64, index: u8, reply: WorkerReply) {
        let Some(batch) = self.calls.batch_mut(token) else { return };
        let index = usize::from(index);
        let (client, held) = batch.part(index, &self.link.routes);
        self.settle(token, 1 << index);
        self.handle_answer(&client, held, &reply.into_reply());
    }

    /// Answers for a worker that has not.
    pub(super) fn expire_batch(&mut self, batch: Batch, reply: &Reply<'_>) {
        for index in (0..batch.ids.len()).filter(|index| batch.pending >> index & 1 == 1) {
            self.counters.forward_timeouts.one();
            let (client, held) = batch.part(index, &self.link.routes);
            self.handle_answer(&client, held, reply);
        }
        self.release_in_flight(batch.session, batch.bytes);
        self.courier.give(batch.ids, batch.held);
    }
}
