//! One shard's accepts: no more of them than it has places, so that whoever finds none waits in the
//! kernel's backlog.
//!
//! The kernel gives each connection to one shard's listening socket, whether that shard has a place
//! or not. A full shard that somebody waits for calls the others, and each of them that has a place
//! accepts from its listening sockets, too, for as long as it is full.
//!
//! An accept under way takes a place. Where there are fewer places than listening sockets, some
//! have none under way; they are watched, and where one has somebody waiting, it gets the place of
//! an accept that waits for nobody.

#![allow(unsafe_code)] // Passes buffers to the ring; each block says what keeps them alive.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use socket2::Socket as ListeningSocket;

use super::churn::ChurnLimiter;
use super::listen::LISTENERS_MAX;
use crate::uring::{RAW_ADDRESS_BYTES, RawAddress, Ring};

/// What an engine's shards accept from.
pub(super) struct Listeners {
    /// Of each shard, those of every listener in order. Empty once no more is accepted.
    by_shard: Vec<Vec<Arc<ListeningSocket>>>,
    me: usize,
    calls: Arc<Calls>,
}

/// The full shards that somebody waits for.
#[derive(Debug)]
struct Calls {
    full: Vec<AtomicBool>,
    /// How often one has called, or has had enough of it.
    changes: AtomicU32,
}

impl Listeners {
    /// The listening sockets as each shard has them, in order.
    pub(super) fn shared(by_shard: Vec<Vec<ListeningSocket>>) -> impl Iterator<Item = Self> {
        assert!(by_shard.iter().all(|sockets| (1..=LISTENERS_MAX).contains(&sockets.len())));
        let full = by_shard.iter().map(|_| AtomicBool::new(false)).collect();
        let calls = Arc::new(Calls { full, changes: AtomicU32::new(0) });
        let by_shard: Vec<Vec<_>> = by_shard
            .into_iter()
            .map(|sockets| sockets.into_iter().map(Arc::new).collect())
            .collect();
        (0..by_shard.len()).map(move |me| Self {
            by_shard: by_shard.clone(),
            me,
            calls: Arc::clone(&calls),
        })
    }
}

/// The accepts of one shard.
pub(super) struct Accepts {
    listeners: Listeners,
    /// Those of the shard's own listening sockets first.
    accepts: Vec<Accept>,
    /// Where the kernel writes peers' addresses, by accept. Boxed once, so they stay there.
    addresses: Box<[RawAddress]>,
    /// Accepts of the shard's own listening sockets that are not under way.
    idle: VecDeque<u32>,
    /// Those that are to be the next: somebody waits for them.
    wanted: VecDeque<u32>,
    /// Accepting has failed for want of memory; it begins again at this time.
    again_us: Option<u64>,
    /// The millisecond has no more places; the next one begins then. A connection that is turned
    /// away gives its place back, so that accepting may begin again before.
    places_us: Option<u64>,
    places: u32,
    /// Places of connections, and of accepts under way. INVARIANT: together `places` at most.
    open: u32,
    under_way: u32,
    /// Accepts under way that are being cancelled.
    cancelling: u32,
    /// The calls that have been seen.
    changes: u32,
    /// Somebody waits, and the others have yet to be woken.
    has_called: bool,
}

#[derive(Debug)]
struct Accept {
    shard: u16,
    listener: u8,
    state: State,
    /// Its listening socket is watched.
    is_watched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    UnderWay,
    Cancelling,
}

/// Accepts under way for each of a shard's own listening sockets. They bound how many connections a
/// turn lets in, so that those who are in are heard between thousands that come back at once.
const ACCEPTS: usize = 8;
/// After accepting has failed for want of memory.
const PAUSE_US: u64 = 20_000;
const _: () = assert!(LISTENERS_MAX <= u8::MAX as usize);

const CANCELED: i32 = -125; // ECANCELED

impl Accepts {
    /// The accepts of a shard with so many places.
    pub(super) fn new(listeners: Listeners, places: u32) -> Self {
        let me = listeners.me;
        let count = listeners.by_shard[me].len();
        let others = (0..listeners.by_shard.len()).filter(|shard| *shard != me);
        let accepts: Vec<Accept> = std::iter::repeat_n(me, ACCEPTS)
            .chain(others)
            .flat_map(|shard| (0..count).map(move |listener| (shard as u16, listener as u8)))
            .map(|(shard, listener)| Accept {
                shard,
                listener,
                state: State::Idle,
                is_watched: false,
            })
            .collect();
        let empty = RawAddress { bytes: [0; RAW_ADDRESS_BYTES], len: RAW_ADDRESS_BYTES as u32 };
        Self {
            listeners,
            addresses: vec![empty; accepts.len()].into(),
            idle: (0..(ACCEPTS * count) as u32).collect(),
            accepts,
            wanted: VecDeque::new(),
            again_us: None,
            places_us: None,
            places,
            open: 0,
            under_way: 0,
            cancelling: 0,
            changes: 0,
            has_called: false,
        }
    }

    /// Where an accept's peer is.
    pub(super) fn address(&self, accept: u32) -> &RawAddress {
        &self.addresses[accept as usize]
    }

    /// The listener that an accept is of.
    pub(super) fn listener(&self, accept: u32) -> usize {
        usize::from(self.accepts[accept as usize].listener)
    }

    /// When there is something to do that no completion tells of.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.again_us.into_iter().chain(self.places_us).min()
    }

    /// Whether the other shards are to be woken, as somebody waits for this one, which is full.
    pub(super) fn calls(&mut self) -> bool {
        std::mem::take(&mut self.has_called)
    }

    /// Begins accepts, as many as there are places and may be.
    pub(super) fn begin(&mut self, ring: &mut Ring, churn: &mut ChurnLimiter) {
        if self.again_us.is_some() || self.is_over() {
            return;
        }
        while self.has_place() {
            if !self.has_next() {
                self.call(false);
                return;
            }
            if !churn.try_accept() {
                self.places_us = Some(churn.again_us());
                return;
            }
            let Some(accept) = self.next_to_begin() else { continue };
            self.begin_one(ring, accept);
        }
        let is_full = self.open == self.places;
        let is_needed = || {
            let mut wanted = self.wanted.iter().map(|accept| &self.accepts[*accept as usize]);
            wanted.any(|accept| usize::from(accept.shard) == self.listeners.me)
        };
        let calls = is_full && (self.is_called(self.listeners.me) || is_needed());
        self.has_called |= self.call(calls) && calls;
        self.make_do(ring);
    }

    /// Begins again after a pause, or when another shard has called.
    pub(super) fn resume(&mut self, ring: &mut Ring, churn: &mut ChurnLimiter, now_us: u64) {
        let mut is_over = false;
        for pause in [&mut self.again_us, &mut self.places_us] {
            is_over |= pause.take_if(|end_us| *end_us <= now_us).is_some();
        }
        let changes = self.listeners.calls.changes.load(Ordering::Acquire);
        if is_over || std::mem::replace(&mut self.changes, changes) != changes {
            self.begin(ring, churn);
        }
    }

    /// An accept has ended. `Err` tells of a failure that will pass.
    pub(super) fn handle_end(&mut self, accept: u32, result: i32, now_us: u64) -> Result<(), i32> {
        let Accept { shard, state, .. } = self.accepts[accept as usize];
        let is_mine = usize::from(shard) == self.listeners.me;
        self.cancelling -= u32::from(state == State::Cancelling);
        self.accepts[accept as usize].state = State::Idle;
        self.under_way -= 1;
        if is_mine {
            self.idle.push_back(accept);
        }
        match result {
            0.. => self.open += 1,
            CANCELED => {}
            _ if self.is_over() => {}
            error => {
                self.again_us = Some(now_us + PAUSE_US);
                // Another shard stops a little earlier than this one.
                return if is_mine { Err(-error) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// A connection's socket is closed.
    pub(super) fn handle_closed(&mut self) {
        self.open -= 1;
    }

    /// Somebody waits at the listening socket of an accept, or has waited.
    pub(super) fn handle_waiting(&mut self, accept: u32) {
        self.accepts[accept as usize].is_watched = false;
        if self.is_over() || self.is_accepting_as(accept) {
            return;
        }
        if !self.wanted.contains(&accept) {
            self.wanted.push_back(accept);
        }
    }

    /// Stops for good.
    pub(super) fn stop(&mut self, ring: &mut Ring) {
        let by_shard = std::mem::take(&mut self.listeners.by_shard);
        for (shard, listener) in by_shard
            .iter()
            .enumerate()
            .flat_map(|(shard, sockets)| sockets.iter().map(move |socket| (shard, socket)))
        {
            // At once: an accept under way holds the socket until the kernel has taken the ring
            // apart, and clients would be let into a backlog that nobody looks at.
            if shard == self.listeners.me
                && let Err(error) = listener.shutdown(std::net::Shutdown::Both)
            {
                tracing::error!(%error, "a socket goes on listening");
            }
            let is_used = |accept: &Accept| {
                usize::from(accept.shard) == shard
                    && (accept.state != State::Idle || accept.is_watched)
            };
            if self.accepts.iter().any(is_used) {
                ring.cancel_all(listener.as_raw_fd());
            }
        }
        // The cancels have to find the descriptors open.
        if let Err(error) = ring.submit() {
            tracing::error!(%error, "accepting could not be cancelled");
        }
    }

    fn is_over(&self) -> bool {
        self.listeners.by_shard.is_empty()
    }

    fn has_place(&self) -> bool {
        self.open + self.under_way < self.places
    }

    fn is_called(&self, shard: usize) -> bool {
        self.listeners.calls.full[shard].load(Ordering::Acquire)
    }

    /// Has the other shards accept for this one, or no longer; whether that is new.
    fn call(&self, is_full: bool) -> bool {
        let calls = &self.listeners.calls;
        let full = &calls.full[self.listeners.me];
        if full.load(Ordering::Relaxed) == is_full {
            return false;
        }
        full.store(is_full, Ordering::Release);
        calls.changes.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Whether there may be an accept to begin.
    fn has_next(&self) -> bool {
        !self.wanted.is_empty() || !self.idle.is_empty() || self.others_that_call().next().is_some()
    }

    /// The accept to begin next: one that somebody waits for, one of a shard that has called, or
    /// one of its own.
    fn next_to_begin(&mut self) -> Option<u32> {
        while let Some(accept) = self.wanted.pop_front() {
            if self.accepts[accept as usize].state == State::Idle {
                self.idle.retain(|other| *other != accept);
                return Some(accept);
            }
        }
        // One of each listener of theirs, against several of its own.
        let called = self.others_that_call().next();
        called.or_else(|| self.idle.pop_front())
    }

    /// Accepts for shards that have called, which are not under way.
    fn others_that_call(&self) -> impl Iterator<Item = u32> {
        let mine = ACCEPTS * self.listeners.by_shard[self.listeners.me].len();
        (mine..self.accepts.len())
            .filter(|accept| {
                let Accept { shard, state, .. } = self.accepts[*accept];
                state == State::Idle && self.is_called(usize::from(shard))
            })
            .map(|accept| accept as u32)
    }

    fn fd_of(&self, accept: u32) -> RawFd {
        let Accept { shard, listener, .. } = self.accepts[accept as usize];
        self.listeners.by_shard[usize::from(shard)][usize::from(listener)].as_raw_fd()
    }

    fn begin_one(&mut self, ring: &mut Ring, accept: u32) {
        let fd = self.fd_of(accept);
        self.accepts[accept as usize].state = State::UnderWay;
        self.under_way += 1;
        let address = &mut self.addresses[accept as usize];
        address.len = RAW_ADDRESS_BYTES as u32;
        // SAFETY: the addresses are boxed and live as long as `self`, which outlives the ring;
        // each accept is under way once at a time.
        unsafe { ring.accept(fd, accept, address) };
    }

    /// Whether an accept of the same listening socket is under way.
    fn is_accepting_as(&self, accept: u32) -> bool {
        let Accept { shard, listener, .. } = self.accepts[accept as usize];
        self.accepts.iter().any(|other| {
            (other.shard, other.listener) == (shard, listener) && other.state == State::UnderWay
        })
    }

    /// There is no place: has those listening sockets watched that have no accept under way, and
    /// takes places from those whose accepts wait in vain.
    #[cold]
    fn make_do(&mut self, ring: &mut Ring) {
        let own = 0..self.listeners.by_shard[self.listeners.me].len() as u32;
        let unwatched: Vec<u32> = own
            .chain(self.others_that_call())
            .filter(|accept| {
                !self.accepts[*accept as usize].is_watched
                    && !self.wanted.contains(accept)
                    && !self.is_accepting_as(*accept)
            })
            .collect();
        for accept in unwatched {
            self.accepts[accept as usize].is_watched = true;
            ring.watch_listener(self.fd_of(accept), accept);
        }
        while (self.cancelling as usize) < self.wanted.len() {
            let idle = self.accepts.iter().rposition(|accept| accept.state == State::UnderWay);
            let Some(accept) = idle else { return };
            self.accepts[accept].state = State::Cancelling;
            self.cancelling += 1;
            ring.cancel_accept(accept as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a shard that serves others a millisecond has few places. Who is turned away gives the
    /// place back, also once all are taken and accepting waits for the next millisecond.
    #[test]
    fn who_is_turned_away_makes_room_for_the_next_at_once() {
        const STORM: u64 = 20;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let listeners = Listeners::shared(vec![vec![socket.unwrap()]]).next().unwrap();
        let mut accepts = Accepts::new(listeners, 1_000);
        // Nothing is submitted, so that every accept ends as the test says.
        let mut ring = Ring::new(64, 64).unwrap();
        let mut churn = ChurnLimiter::default();
        churn.begin_turn(5_000, 1);
        accepts.begin(&mut ring, &mut churn);
        assert!(accepts.next_deadline_us().is_some(), "all places of the millisecond are taken");
        for refused in 1..=STORM {
            let accept = accepts.accepts.iter().position(|it| it.state == State::UnderWay);
            let accept = accept.expect("an accept is under way") as u32;
            accepts.handle_end(accept, 7, 5_000).unwrap();
            churn.refuse(refused);
            accepts.begin(&mut ring, &mut churn);
        }
        assert_eq!(u64::from(accepts.open), STORM);
    }
}
