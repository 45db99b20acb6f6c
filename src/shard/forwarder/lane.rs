//! Single messages into lanes, or, where a lane is full, what their server type's policy says.
//!
//! A message that waits is the last that was read of its session, so no more than one of each
//! session waits; only filters that have taken their time may add others, which have been read
//! long ago. They go in the order in which they came, whosesoever they are, and while any waits
//! the later ones wait behind it: a session that sends much gets no more room than others.

use std::sync::Arc;

use bytes::Bytes;

use super::Forwarder;
use super::batches::copies;
use super::lane_waits::{Destination, ForwardMessage, WAITING_BYTES, Waiting};
use crate::dispatch::context::{ClientCall, HeldRequest};
use crate::forward::mail::{Forward, ForwardRoute, Mail};
use crate::forward::pending_forwards::PendingForward;
use crate::forward::{Carrier, LaneFull, ServerId, WorkerIndex};
use crate::limits::turn::LANE_WAITS_PER_TURN;
use crate::metrics::ForwardEnd;
use crate::route::table::RouteId;
use crate::session::{SessionData, SessionId};
use crate::shard::connections::Pause;
use crate::span::{Span, cut};

/// A message that finds no room, with what filters are to see of it.
pub(in crate::shard) struct Rejected {
    pub(in crate::shard) held: Option<Box<HeldRequest>>,
}

impl Forwarder {
    /// Forwards a message by itself. It counts as in flight already.
    pub(in crate::shard) fn forward(
        &mut self,
        client: ClientCall,
        to: Destination,
        (text, body): (&str, &[u8]),
        data: Arc<SessionData>,
        held: Option<Box<HeldRequest>>,
    ) -> Result<(), Rejected> {
        let has_room = self.has_lane_room(to, client.session);
        let waits = match has_room {
            true => None,
            false => self.may_wait(client.session, to, body, held.is_some()),
        };
        let is_full = self.pending.len() >= self.config.limits.forwards_in_flight_max;
        if !has_room && waits.is_none() || is_full {
            self.count_rejected(to);
            return Err(Rejected { held });
        }
        let (route, bytes) = self.carve(to.worker, client.route, text, body);
        let message = ForwardMessage { client, destination: to, data, held, route, bytes };
        match waits {
            None => self.send_message(message),
            Some(counted) => self.wait_for_lane(message, counted),
        }
        Ok(())
    }

    /// The bytes that go to the worker: the body, behind the route's text where it has no id.
    fn carve(
        &mut self,
        worker: WorkerIndex,
        known: Option<RouteId>,
        text: &str,
        body: &[u8],
    ) -> (ForwardRoute, Bytes) {
        let (route, text) = match known {
            Some(id) => (ForwardRoute::Known(id), ""),
            // A route's length has one byte on the wire.
            None => (ForwardRoute::Inline { len: text.len() as u8 }, text),
        };
        (route, self.chunks[worker.index()].carve([text.as_bytes(), body]))
    }

    /// True if a message may go into its lane at once: there is room, and none waits before it.
    /// Of the lane's bytes as many have to be left as its session has in flight.
    #[inline]
    fn has_lane_room(&self, to: Destination, session: SessionId) -> bool {
        self.has_room_in_lane(to.worker, self.outbound.connections.in_flight_bytes(session))
            && (self.lane_waits.is_empty() || !self.waits_behind(to))
    }

    #[cold]
    fn waits_behind(&self, to: Destination) -> bool {
        self.lane_full_of(to) == LaneFull::Pause && self.lane_waits.first_of(to.worker).is_some()
    }

    fn lane_full_of(&self, to: Destination) -> LaneFull {
        self.config.server_types[to.server_type.index()].lane_full
    }

    /// The bytes that a message counts for that found its lane full and may wait.
    #[cold]
    fn may_wait(
        &self,
        session: SessionId,
        to: Destination,
        body: &[u8],
        is_held: bool,
    ) -> Option<usize> {
        // What global filters are to see afterwards has a copy of its own.
        let bytes = WAITING_BYTES + copies(is_held) * body.len();
        let connection = self.outbound.connections.get(session)?;
        (self.lane_full_of(to) == LaneFull::Pause
            && !self.lane_waits.is_stuck(to.worker)
            && connection.state.is_working()
            && self.outbound.connections.budgets().has_room(bytes))
        .then_some(bytes)
    }

    /// Keeps a message until its lane has room, and pauses its session.
    #[cold]
    fn wait_for_lane(&mut self, mut message: ForwardMessage, bytes: usize) {
        // Carved memory would stay as a whole.
        message.bytes = Bytes::copy_from_slice(&message.bytes);
        let session = message.client.session;
        let connections = &mut self.outbound.connections;
        let deadline_us = connections.now_us() + self.config.forward_timeout_us();
        self.lane_waits.add(Waiting { message, deadline_us, bytes });
        connections.budgets_mut().keep(bytes);
        self.counters.lane_pauses.one();
        connections.pause_reading(session, Pause::Lane);
    }

    /// Puts a message into its lane, which has room.
    #[inline]
    fn send_message(&mut self, message: ForwardMessage) {
        let ForwardMessage { client, destination, data, held, route, bytes } = message;
        let carrier = &self.config.server_types[destination.server_type.index()].carrier;
        let is_near = matches!(carrier, Carrier::Workers { .. });
        // A worker says of a notify, too, that it is done with it; servers of a cluster may not.
        let is_answered = is_near || client.id != 0 || held.is_some();
        let span = match self.sampler.is_due() {
            true => self.begin_span(&client, destination, &data, route, &bytes),
            false => None,
        };
        let context = span.as_ref().filter(|_| !is_near).map(|span| Box::new(span.context));
        let connections = &mut self.outbound.connections;
        let deadline_us = connections.now_us() + self.config.forward_timeout_us();
        let token = match is_answered {
            true => {
                let server_type = destination.server_type;
                self.figures.forwards[server_type.index()].awaited.one();
                let waits = PendingForward::One { client, server_type, held, span };
                self.pending.add(waits, deadline_us)
            }
            false => {
                if let Some(span) = span {
                    self.sampler.end(span, None, connections.now_us());
                }
                0
            }
        };
        let (session, id) = (client.session, client.id);
        let party = self.endpoint.hub().worker(destination.worker);
        self.endpoint.add_sent(party, bytes.len());
        let forward = Forward { token, session, data, route, id, bytes };
        self.endpoint.send(
            party,
            match context {
                None => Mail::Forward(forward),
                Some(context) => Mail::Traced(Box::new(forward), context),
            },
        );
        self.counters.forwards.one();
        // An answer over the network takes longer than a look for it is worth.
        self.forwarded += usize::from(is_near);
        if let Some((_, connection)) = connections.find(session) {
            connection.session.workers |= destination.worker.bit();
        }
        if !is_answered {
            connections.end_in_flight(&client);
        }
    }

    /// Begins the span of a message that is sampled.
    #[cold]
    fn begin_span(
        &mut self,
        client: &ClientCall,
        destination: Destination,
        data: &SessionData,
        route: ForwardRoute,
        bytes: &[u8],
    ) -> Option<Box<Span>> {
        let Destination { server_type, worker } = destination;
        let server_type = &self.config.server_types[server_type.index()];
        let party = self.endpoint.hub().worker(worker);
        let shard = self.outbound.connections.index().0;
        let (carrier, worker) = match &server_type.carrier {
            Carrier::Workers { servers, first_worker, .. } => {
                let place = worker.index().saturating_sub(first_worker.index());
                ("worker", servers.get(place).map(ServerId::shared))
            }
            Carrier::Remote(_) => {
                let mut clusters = self.config.figures.clusters();
                let cluster = clusters.find(|cluster| cluster.party == party.0);
                (cluster.map_or("cluster", |cluster| cluster.kind), None)
            }
        };
        self.sampler.begin(|context| Span {
            context,
            started_us: client.started_us,
            ended_us: client.started_us,
            end: None,
            is_notify: client.id == 0,
            shard,
            session: data.number,
            route: cut(route.split(&self.config.routes, bytes).0),
            uid: data.uid.as_ref().map(|uid| cut(uid.text())),
            server_type: Arc::clone(&server_type.name),
            carrier,
            worker,
        })
    }

    /// Gives those that wait the room that there is now, and rejects those that have waited for
    /// too long.
    #[inline]
    pub(in crate::shard) fn send_waiting(&mut self) {
        if !self.lane_waits.is_idle() {
            self.send_some_waiting();
        }
    }

    #[cold]
    fn send_some_waiting(&mut self) {
        let mut next = WorkerIndex(0);
        while let Some(((worker, _), _)) = self.lane_waits.first_from(next) {
            for _ in 0..LANE_WAITS_PER_TURN {
                if !self.send_first_waiting(worker) {
                    break;
                }
            }
            let Some(after) = worker.0.checked_add(1) else { break };
            next = WorkerIndex(after);
        }
        for (worker, bytes) in self.lane_waits.take_stuck() {
            if !self.has_room_in_lane(worker, bytes) {
                self.lane_waits.mark_stuck(worker, bytes);
            }
        }
    }

    /// Sends or rejects the first that waits for a worker; true if there was anything to do.
    fn send_first_waiting(&mut self, worker: WorkerIndex) -> bool {
        let Some((place, waiting)) = self.lane_waits.first_of(worker) else { return false };
        let connections = &mut self.outbound.connections;
        let is_due = waiting.deadline_us <= connections.now_us();
        let needed = connections.in_flight_bytes(waiting.message.client.session);
        let has_room = self.has_room_in_lane(worker, needed);
        if !has_room && !is_due {
            return false;
        }
        let Some((Waiting { message, bytes, .. }, is_last)) = self.lane_waits.take(place) else {
            return false;
        };
        let session = message.client.session;
        let budgets = self.outbound.connections.budgets_mut();
        budgets.release(bytes);
        if is_last {
            budgets.resume(session, Pause::Lane);
        }
        let has_call = self.pending.len() < self.config.limits.forwards_in_flight_max;
        if has_room && has_call {
            self.send_message(message);
            // A notify that a drain has waited for.
            self.outbound.close_if_done(session);
            return true;
        }
        if !has_room {
            self.lane_waits.mark_stuck(worker, needed);
        }
        self.count_rejected(message.destination);
        self.lane_waits.reject(message);
        true
    }

    /// Counts a message that is refused, and logs it.
    #[cold]
    fn count_rejected(&self, to: Destination) {
        self.counters.forward_rejects.one();
        let server_type = &*self.config.server_types[to.server_type.index()].name;
        crate::log::seldom!(
            of server_type,
            warn,
            server_type,
            "too many messages wait for a worker; some are refused"
        );
        self.figures.forwards[to.server_type.index()].end(ForwardEnd::Rejected, 1);
    }

    /// Takes a message that has waited for its lane in vain, to be answered.
    #[inline]
    pub(in crate::shard) fn take_rejected(&mut self) -> Option<ForwardMessage> {
        self.lane_waits.take_rejected()
    }

    /// True if a lane has room for a message more, of a session that has so many bytes in flight
    /// with it. An empty lane has room for any.
    fn has_room_in_lane(&self, worker: WorkerIndex, bytes: usize) -> bool {
        let limits = &self.config.limits;
        let bytes = bytes.min(limits.lane_bytes_max);
        let party = self.endpoint.hub().worker(worker);
        self.batches.lane_room(worker, &self.endpoint, limits.lane_len) > 0
            && self.endpoint.bytes_left(party, limits.lane_bytes_max, bytes) >= bytes
    }

    /// True if something came in, or may go out now, that this turn has not seen.
    pub(in crate::shard) fn has_work(&self) -> bool {
        self.endpoint.has_work() || self.has_sendable()
    }

    /// True if [`Self::send_waiting`] has something to do.
    fn has_sendable(&self) -> bool {
        if self.lane_waits.is_idle() {
            return false;
        }
        let connections = &self.outbound.connections;
        self.lane_waits.firsts().any(|(worker, waiting)| {
            let bytes = connections.in_flight_bytes(waiting.message.client.session);
            waiting.deadline_us <= connections.now_us() || self.has_room_in_lane(worker, bytes)
        })
    }

    /// Drops what waits of a session that has ended.
    pub(super) fn forget_waiting(&mut self, session: SessionId) {
        for Waiting { message, bytes, .. } in self.lane_waits.take_all_of(session) {
            self.outbound.connections.budgets_mut().release(bytes);
            match message.held {
                // Its filters have yet to hear of its end.
                Some(_) => self.lane_waits.reject(message),
                None => self.outbound.connections.end_in_flight(&message.client),
            }
        }
    }
}
