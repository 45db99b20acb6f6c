//! Parcels to workers and back.

use std::sync::Arc;

use super::Shard;
use super::config::ShardConfig;
use super::connection::{Connection, State, Transport, worker_bit};
use super::dialect::Dialect;
use super::lane_full::LaneWaits;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::forward::calls::{Batch, Calls, Forwarded};
use crate::forward::mail::Mail;
use crate::forward::parcel::{Head, MESSAGES_MAX, Parcel, Parcels};
use crate::forward::{Carrier, Post};
use crate::route::default_route;
use crate::route::table::RouteId;
use crate::session::SessionId;

/// What a shard keeps of parcels.
#[derive(Default)]
pub(super) struct Courier {
    parcels: Parcels,
    /// Messages in parcels that each worker has not sent back.
    away: Vec<usize>,
    /// Memory for the ids of messages that are away.
    ids: Vec<Vec<u32>>,
}

/// Lists of ids that are kept for the next parcels, at most.
const IDS_KEPT_MAX: usize = 1024;

/// What bounds how much is forwarded.
pub(super) struct Room<'a> {
    pub(super) config: &'a ShardConfig,
    pub(super) post: &'a Post,
    pub(super) calls: &'a Calls,
    pub(super) lane_waits: &'a LaneWaits,
}

/// A parcel that is being filled.
pub(super) struct Filling {
    parcel: Box<Parcel>,
    /// The server type, by its place.
    place: usize,
    /// How many messages it may have.
    room: usize,
    /// The ids of its messages, and those of them that wait for an answer, a bit each.
    ids: Vec<u32>,
    pending: u64,
}

impl Filling {
    /// Whether another message for a server type may go into it.
    #[inline]
    pub(super) fn takes_more(&self, place: usize) -> bool {
        let messages = &self.parcel.messages;
        self.place == place && messages.len() < self.room && !messages.is_full()
    }

    #[inline]
    pub(super) fn push(&mut self, id: u32, route: RouteId, body: &[u8]) {
        self.pending |= u64::from(id != 0) << self.ids.len();
        self.ids.push(id);
        self.parcel.messages.push(Head { id, route }, body);
    }
}

impl Courier {
    pub(super) fn new(workers: usize) -> Self {
        Self { away: vec![0; workers], ..Self::default() }
    }

    /// The parcel that is being filled; begun with its first message.
    #[inline]
    pub(super) fn filling<'a>(
        &mut self,
        filling: &'a mut Option<Filling>,
        session: SessionId,
        connection: &mut Connection,
        place: usize,
        room: &Room<'_>,
    ) -> Option<&'a mut Filling> {
        if filling.is_none() {
            *filling = Some(self.open(session, connection, place, room)?);
        }
        filling.as_mut()
    }

    /// Begins a parcel to a worker of a server type. `None` where there is no worker, or no room
    /// for a message more: what becomes of one then is decided where it goes alone.
    fn open(
        &mut self,
        session: SessionId,
        connection: &mut Connection,
        place: usize,
        room: &Room<'_>,
    ) -> Option<Filling> {
        let Carrier::Workers { servers, first_worker, .. } =
            &room.config.server_types[place].carrier
        else {
            return None;
        };
        let uid = connection.uid().map_or("", |uid| uid.text());
        let index = default_route(uid, servers.len())?;
        let worker = first_worker + u16::try_from(index).ok()?;
        let limits = &room.config.limits;
        // Who waits for a lane comes first.
        if !room.lane_waits.is_empty() {
            return None;
        }
        let room = [
            self.lane_room(worker, room.post, limits.lane_len),
            usize::from(limits.in_flight_per_session_max.saturating_sub(connection.in_flight)),
            limits.forwards_in_flight_max.saturating_sub(room.calls.len()),
        ];
        let room = room.into_iter().fold(MESSAGES_MAX, usize::min);
        if room == 0 {
            return None;
        }
        let mut parcel = self.parcels.take(session);
        let data = connection.data().shared();
        parcel.data = Some([Arc::clone(data), Arc::clone(data)]);
        parcel.worker = worker;
        parcel.is_websocket = connection.transport == Transport::WebSocket;
        let ids = self.ids.pop().unwrap_or_default();
        Some(Filling { parcel, place, room, ids, pending: 0 })
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

    /// Takes the ids of requests back that are answered.
    fn give_ids(&mut self, mut ids: Vec<u32>) {
        if self.ids.len() < IDS_KEPT_MAX {
            ids.clear();
            self.ids.push(ids);
        }
    }
}

impl Shard {
    pub(super) fn send_parcel(&mut self, filling: Filling) {
        let Filling { mut parcel, ids, pending, .. } = filling;
        let (session, worker) = (parcel.session, parcel.worker);
        if let Some((_, connection)) = self.find(session) {
            connection.in_flight += pending.count_ones() as u16;
            connection.workers |= worker_bit(worker);
        }
        parcel.token = 0;
        if pending == 0 {
            self.courier.give_ids(ids);
        } else {
            let started_us = self.clock.now_us;
            let batch = Batch { session, started_us, ids, pending };
            let deadline_us = started_us + self.config.forward_timeout_us();
            parcel.token = self.calls.add(Forwarded::Parcel(batch), deadline_us);
        }
        let messages = parcel.messages.len();
        self.courier.away[usize::from(worker)] += messages;
        self.counters.forwards.add(messages as u64);
        self.forwarded += messages;
        let party = self.post.hub().worker(worker);
        self.post.send(party, Mail::Parcel(parcel));
    }

    /// A parcel has come back.
    pub(super) fn handle_parcel(&mut self, parcel: Box<Parcel>) {
        let away = &mut self.courier.away[usize::from(parcel.worker)];
        debug_assert!(*away >= parcel.messages.len());
        *away = away.saturating_sub(parcel.messages.len());
        if parcel.answered != 0 {
            self.handle_answers(parcel.token, parcel.answered, &parcel.answers);
        }
        self.courier.parcels.give(parcel);
    }

    /// A worker has answered some messages of a parcel. An answer after its deadline finds nothing.
    pub(super) fn handle_answers(&mut self, token: u64, answered: u64, bytes: &[u8]) {
        let Some(batch) = self.calls.batch_mut(token) else { return };
        debug_assert_eq!(batch.pending & answered, answered, "a message is answered once");
        batch.pending &= !answered;
        let (session, started_us) = (batch.session, batch.started_us);
        if batch.pending == 0
            && let Some(Forwarded::Parcel(batch)) = self.calls.take(token)
        {
            self.courier.give_ids(batch.ids);
        }
        let answers = u64::from(answered.count_ones());
        self.latency.record(self.clock.now_us.saturating_sub(started_us), answers);
        let slot = session.slot();
        let Some(connection) = self.connections.get_mut(slot, session.generation()) else {
            return;
        };
        debug_assert!(u64::from(connection.in_flight) >= answers);
        connection.in_flight = connection.in_flight.saturating_sub(answers as u16);
        if connection.state == State::Working(Dialect::Pomelo) {
            connection.outbox.open(&mut self.pool).extend_from_slice(bytes);
            self.counters.answers.add(answers);
            let bytes = connection.outbox.bytes();
            self.mark_dirty(slot);
            if bytes > self.outbox_pauses.pause_bytes() {
                self.pause_for_outbox(slot);
            }
        }
        self.kick_if_drained_id(session);
    }

    /// Answers for a worker that has not.
    pub(super) fn expire_batch(&mut self, batch: Batch, reply: &Reply<'_>) {
        let Batch { session, started_us, ids, pending } = batch;
        for (at, &id) in ids.iter().enumerate() {
            if pending >> at & 1 == 1 {
                self.counters.forward_timeouts.one();
                let client = ClientCall { session, id, route: None, started_us };
                self.handle_answer(&client, None, reply);
            }
        }
        self.courier.give_ids(ids);
    }
}
