//! The lanes between shards and workers by themselves: numbers instead of mail.

use std::sync::Arc;

use super::simulated::PartyIndex;
use crate::forward::mail::Mail;
use crate::forward::{Endpoint, Hub, HubLimits, Party};
use crate::session::{Generation, SessionId, ShardIndex, Slot};

/// The lanes of a few parties, each party's side of them, and the numbers that they send.
pub struct Lanes {
    hub: Arc<Hub>,
    endpoints: Vec<Endpoint>,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("parties", &self.endpoints.len()).finish_non_exhaustive()
    }
}

/// The count of numbers.
pub const NUMBERS: u32 = 1 << 24;

fn mail(number: u32) -> Mail {
    let session = SessionId::new(ShardIndex(0), Slot(number % NUMBERS), Generation::FIRST);
    Mail::Kick { session, reason: None }
}

fn number(mail: &Mail) -> u32 {
    match mail {
        Mail::Kick { session, .. } => session.slot().0,
        _ => u32::MAX,
    }
}

impl Lanes {
    /// Lanes of these lengths; a worker has no lane to another, nor anybody to itself.
    #[must_use]
    pub fn new(
        shards: u16,
        workers: u16,
        lane_len: usize,
        inbox_len: usize,
        backlog_len_max: usize,
    ) -> Self {
        let hub = Hub::new(shards, workers, HubLimits { lane_len, inbox_len });
        let endpoint = |party| Endpoint::new(Arc::clone(&hub), Party(party), backlog_len_max);
        let endpoints = (0..shards + workers).map(endpoint).collect();
        Self { hub, endpoints }
    }

    /// Sends what must arrive.
    pub fn send(&mut self, from: PartyIndex, to: PartyIndex, number: u32) {
        self.endpoints[usize::from(from)].send(Party(to), mail(number));
    }

    /// Sends what may be refused; whether it was taken.
    pub fn try_send(&mut self, from: PartyIndex, to: PartyIndex, number: u32) -> bool {
        self.endpoints[usize::from(from)].try_send(Party(to), mail(number)).is_ok()
    }

    /// Sends what the lane has room for; whether it had.
    pub fn send_within(
        &mut self,
        from: PartyIndex,
        to: PartyIndex,
        number: u32,
        lane_len: usize,
    ) -> bool {
        let endpoint = &mut self.endpoints[usize::from(from)];
        let has_room = endpoint.has_room_within(Party(to), lane_len);
        if has_room {
            endpoint.send(Party(to), mail(number));
        }
        has_room
    }

    /// Sends from a thread of the host's; whether there was room.
    pub fn send_from_host(&self, to: u16, number: u32) -> bool {
        self.hub.send_from_host(ShardIndex(to), mail(number)).is_ok()
    }

    /// The next number that `me` has got from `from`.
    pub fn receive(&mut self, me: PartyIndex, from: PartyIndex) -> Option<u32> {
        self.endpoints[usize::from(me)].receive(Party(from)).as_ref().map(number)
    }

    /// The next number that `me` has got from the host.
    pub fn receive_from_host(&mut self, me: PartyIndex) -> Option<u32> {
        self.endpoints[usize::from(me)].receive_from_host().as_ref().map(number)
    }

    /// See `Endpoint::waiting`.
    pub fn waiting(&mut self, me: PartyIndex, from: PartyIndex) -> usize {
        self.endpoints[usize::from(me)].waiting(Party(from))
    }

    /// See `Endpoint::flush`.
    pub fn flush(&mut self, me: PartyIndex) {
        self.endpoints[usize::from(me)].flush();
    }

    /// See `Endpoint::poll_bell`.
    pub fn poll_bell(&mut self, me: PartyIndex) -> Option<PartyIndex> {
        self.endpoints[usize::from(me)].poll_bell().map(|party| party.0)
    }

    /// See `Endpoint::has_work`.
    #[must_use]
    pub fn has_work(&self, me: PartyIndex) -> bool {
        self.endpoints[usize::from(me)].has_work()
    }

    /// Numbers from `me` to `to` that wait for room in the lane.
    #[must_use]
    pub fn backlog_len(&self, me: PartyIndex, to: PartyIndex) -> usize {
        self.endpoints[usize::from(me)].outgoing_len(Party(to))
    }

    /// The party is about to sleep; it has to look for work once more.
    pub fn arm(&self, party: PartyIndex) {
        self.hub.bell(Party(party)).arm();
    }

    /// The party is awake.
    pub fn disarm(&self, party: PartyIndex) {
        self.hub.bell(Party(party)).disarm();
    }

    /// True if the party's bell is armed, and nobody has rung it.
    #[must_use]
    pub fn is_armed(&self, party: PartyIndex) -> bool {
        self.hub.bell(Party(party)).is_armed()
    }
}
