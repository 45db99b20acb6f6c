//! Messages for a worker: into its lane, or, where that is full, what their server type's policy
//! says.
//!
//! A message that waits is the last that was read of its session, so no more than one of each
//! session waits; only filters that have taken their time may add others, which have been read
//! long ago. They go in the order in which they came, whosesoever they are, and while any waits
//! the later ones wait behind it: a session that sends much gets no more room than others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::Shard;
use super::connection::worker_bit;
use super::fairness::Pause;
use super::forward_batch::copies;
use crate::dispatch::context::{ClientCall, HeldRequest};
use crate::dispatch::reply::Reply;
use crate::forward::mail::{Forward, ForwardRoute, Mail};
use crate::forward::pending_forwards::PendingForward;
use crate::forward::{Carrier, LaneFull};
use crate::session::{SessionData, SessionId};

/// A message for a worker, as long as it is not in the lane.
pub(super) struct ForwardMessage {
    pub(super) client: ClientCall,
    pub(super) destination: Destination,
    pub(super) data: Arc<SessionData>,
    pub(super) held: Option<Box<HeldRequest>>,
    pub(super) route: ForwardRoute,
    pub(super) bytes: Bytes,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination {
    /// Its server type, by its place in the configuration.
    pub(super) place: usize,
    /// The place among all workers.
    pub(super) worker: u16,
}

/// A worker, and how many messages have come before.
type Place = (u16, u64);

/// The messages that wait for room in lanes.
#[derive(Default)]
pub(super) struct LaneWaits {
    waiting: BTreeMap<Place, Waiting>,
    /// How many have waited so far.
    count: u64,
    /// Those of each session, in order. INVARIANT: none is empty, and each session is paused.
    sessions: FxHashMap<SessionId, VecDeque<Place>>,
    /// Workers for whose lanes something has waited in vain, and which have had no room since for
    /// as many bytes.
    stuck: Vec<(u16, usize)>,
    /// What waited of sessions that have ended, and whose filters have yet to hear of it.
    ended: Vec<ForwardMessage>,
}

struct Waiting {
    message: ForwardMessage,
    deadline_us: u64,
    /// What it counts for.
    bytes: usize,
}

/// What a message that waits counts for besides its body, against `held_bytes_max`.
const WAITING_BYTES: usize = 256;
const _: () = assert!(size_of::<Waiting>() + size_of::<Place>() <= WAITING_BYTES);
/// Messages that go into one lane in one turn, of those that have waited.
const WAITING_PER_TURN: usize = 128;

impl LaneWaits {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing waits of a session.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.sessions.contains_key(&session)
    }

    /// Whether something has waited in vain for a worker's lane, which has had no room since.
    fn is_stuck(&self, worker: u16) -> bool {
        self.stuck.iter().any(|(stuck, _)| *stuck == worker)
    }

    /// Whether there is nothing to look at in a turn.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.stuck.is_empty() && self.ended.is_empty()
    }

    /// Messages that wait.
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(
            self.waiting.len(),
            self.sessions.values().map(VecDeque::len).sum::<usize>()
        );
        self.waiting.len() + self.ended.len()
    }

    /// The first for a worker, or for the next one that any waits for.
    fn first_from(&self, worker: u16) -> Option<(Place, &Waiting)> {
        self.waiting.range((worker, 0)..).next().map(|(place, waiting)| (*place, waiting))
    }

    fn first_of(&self, worker: u16) -> Option<(Place, &Waiting)> {
        self.first_from(worker).filter(|((other, _), _)| *other == worker)
    }

    fn add(&mut self, waiting: Waiting) {
        let place = (waiting.message.destination.worker, self.count);
        self.count += 1;
        let session = waiting.message.client.session;
        self.sessions.entry(session).or_default().push_back(place);
        self.waiting.insert(place, waiting);
    }

    /// Takes a message out; whether it was the last of its session.
    fn take(&mut self, place: Place) -> Option<(Waiting, bool)> {
        let waiting = self.waiting.remove(&place)?;
        let session = waiting.message.client.session;
        let places = self.sessions.get_mut(&session).expect("a session knows what waits of it");
        places.retain(|other| *other != place);
        let is_last = places.is_empty();
        if is_last {
            self.sessions.remove(&session);
        }
        Some((waiting, is_last))
    }
}

impl Shard {
    /// Whether a message may go into its lane at once: there is room, and none waits before it.
    /// Of the lane's bytes as many have to be left as its session has in flight.
    #[inline]
    pub(super) fn has_lane_room(&self, to: Destination, session: SessionId) -> bool {
        self.has_room_in_lane(to.worker, self.in_flight_bytes(session))
            && (self.lane_waits.is_empty() || !self.waits_behind(to))
    }

    #[cold]
    fn waits_behind(&self, to: Destination) -> bool {
        self.lane_full_of(to) == LaneFull::Pause && self.lane_waits.first_of(to.worker).is_some()
    }

    fn lane_full_of(&self, to: Destination) -> LaneFull {
        self.config.server_types[to.place].lane_full
    }

    /// Whether a message that found its lane full may wait, and what it counts for if it does.
    #[cold]
    pub(super) fn may_wait(
        &self,
        session: SessionId,
        to: Destination,
        body: &[u8],
        is_held: bool,
    ) -> Option<usize> {
        // What global filters are to see afterwards has a copy of its own.
        let bytes = WAITING_BYTES + copies(is_held) * body.len();
        let connection = self.connections.get(session.slot(), session.generation())?;
        (self.lane_full_of(to) == LaneFull::Pause
            && !self.lane_waits.is_stuck(to.worker)
            && connection.state.is_working()
            && self.budgets.has_room(bytes))
        .then_some(bytes)
    }

    /// Keeps a message until its lane has room, and pauses its session.
    #[cold]
    pub(super) fn wait_for_lane(&mut self, mut message: ForwardMessage, bytes: usize) {
        // Carved memory would stay as a whole.
        message.bytes = Bytes::copy_from_slice(&message.bytes);
        let session = message.client.session;
        let deadline_us = self.clock.now_us + self.config.forward_timeout_us();
        self.lane_waits.add(Waiting { message, deadline_us, bytes });
        self.budgets.keep(bytes);
        self.counters.lane_pauses.one();
        self.pause_reading(session, Pause::Lane);
    }

    /// Puts a message into its lane, which has room.
    #[inline]
    pub(super) fn send_message(&mut self, message: ForwardMessage) {
        let ForwardMessage { client, destination, data, held, route, bytes } = message;
        let carrier = &self.config.server_types[destination.place].carrier;
        let is_near = matches!(carrier, Carrier::Workers { .. });
        // A worker says of a notify, too, that it is done with it; servers of a cluster may not.
        let is_answered = is_near || client.id != 0 || held.is_some();
        let deadline_us = self.clock.now_us + self.config.forward_timeout_us();
        let token = match is_answered {
            true => self.calls.add(PendingForward::One { client, held }, deadline_us),
            false => 0,
        };
        let (session, id) = (client.session, client.id);
        let party = self.endpoint.hub().worker(destination.worker);
        self.endpoint.add_sent(party, bytes.len());
        self.endpoint
            .send(party, Mail::Forward(Forward { token, session, data, route, id, bytes }));
        self.counters.forwards.one();
        // An answer over the network takes longer than a look for it is worth.
        self.forwarded += usize::from(is_near);
        if let Some((_, connection)) = self.find(session) {
            connection.workers |= worker_bit(destination.worker);
        }
        if !is_answered {
            self.end_in_flight(&client);
        }
    }

    /// Gives those that wait the room that there is now, and answers for those that have waited
    /// for too long.
    #[inline]
    pub(super) fn send_waiting(&mut self) {
        if !self.lane_waits.is_idle() {
            self.send_some_waiting();
        }
    }

    #[cold]
    fn send_some_waiting(&mut self) {
        for message in std::mem::take(&mut self.lane_waits.ended) {
            self.handle_answer(&message.client, message.held, &Reply::error());
        }
        let mut next = 0;
        while let Some(((worker, _), _)) = self.lane_waits.first_from(next) {
            for _ in 0..WAITING_PER_TURN {
                if !self.send_first_waiting(worker) {
                    break;
                }
            }
            let Some(after) = worker.checked_add(1) else { break };
            next = after;
        }
        let stuck = std::mem::take(&mut self.lane_waits.stuck);
        let is_stuck = |stuck: &(u16, usize)| !self.has_room_in_lane(stuck.0, stuck.1);
        self.lane_waits.stuck = stuck.into_iter().filter(is_stuck).collect();
    }

    /// Whether there was anything to do for the first that waits for a worker.
    fn send_first_waiting(&mut self, worker: u16) -> bool {
        let Some((place, waiting)) = self.lane_waits.first_of(worker) else { return false };
        let is_due = waiting.deadline_us <= self.clock.now_us;
        let needed = self.in_flight_bytes(waiting.message.client.session);
        let has_room = self.has_room_in_lane(worker, needed);
        if !has_room && !is_due {
            return false;
        }
        let Some((Waiting { message, bytes, .. }, is_last)) = self.lane_waits.take(place) else {
            return false;
        };
        self.budgets.release(bytes);
        if is_last {
            self.budgets.resume(message.client.session, Pause::Lane);
        }
        let has_call = self.calls.len() < self.config.limits.forwards_in_flight_max;
        let session = message.client.session;
        if has_room && has_call {
            self.send_message(message);
            // A notify that a drain has waited for.
            self.kick_if_drained_id(session);
            return true;
        }
        if !has_room && !self.lane_waits.is_stuck(worker) {
            self.lane_waits.stuck.push((worker, needed));
        }
        self.counters.forward_rejects.one();
        self.handle_answer(&message.client, message.held, &Reply::error());
        true
    }

    /// Whether a lane has room for a message more, of a session that has so many bytes in flight
    /// with it. An empty lane has room for any.
    fn has_room_in_lane(&self, worker: u16, bytes: usize) -> bool {
        let limits = &self.config.limits;
        let bytes = bytes.min(limits.lane_bytes_max);
        let party = self.endpoint.hub().worker(worker);
        self.batches.lane_room(worker, &self.endpoint, limits.lane_len) > 0
            && self.endpoint.bytes_left(party, limits.lane_bytes_max, bytes) >= bytes
    }

    fn in_flight_bytes(&self, session: SessionId) -> usize {
        let connection = self.connections.get(session.slot(), session.generation());
        connection.map_or(0, |connection| connection.in_flight_bytes as usize)
    }

    /// Whether [`Self::send_waiting`] has something to do.
    pub(super) fn has_sendable(&self) -> bool {
        let waits = &self.lane_waits;
        if waits.is_idle() {
            return false;
        }
        let mut firsts = std::iter::successors(waits.first_from(0), |((worker, _), _)| {
            waits.first_from(worker.checked_add(1)?)
        });
        !waits.ended.is_empty()
            || firsts.any(|((worker, _), waiting)| {
                waiting.deadline_us <= self.clock.now_us
                    || self.has_room_in_lane(
                        worker,
                        self.in_flight_bytes(waiting.message.client.session),
                    )
            })
    }

    /// A session has ended: nothing of it waits any more.
    pub(super) fn forget_waiting(&mut self, session: SessionId) {
        if self.lane_waits.sessions.is_empty() {
            return;
        }
        for place in self.lane_waits.sessions.remove(&session).into_iter().flatten() {
            let Some(Waiting { message, bytes, .. }) = self.lane_waits.waiting.remove(&place)
            else {
                continue;
            };
            self.budgets.release(bytes);
            match message.held {
                Some(_) => self.lane_waits.ended.push(message),
                None => self.end_in_flight(&message.client),
            }
        }
    }
}
