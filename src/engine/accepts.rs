//! One shard's accepts: no more of them than its table has room for sockets. A connection beyond
//! that waits in the kernel's backlog.
//!
//! The kernel gives each connection to one shard's listening socket, whether that shard has room
//! or not. A shard that is full while connections wait for it says so to the others, and each of
//! them that has room accepts from its listening sockets, too, for as long as it is full.
//!
//! An accept under way takes the room of a socket. Where there is room for fewer than there are
//! listening sockets, some have no accept under way; they are watched, and where a connection waits
//! at one, it gets the room of an accept for which none waits.

#![allow(unsafe_code)] // Passes buffers to the ring; each block says what keeps them alive.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::io::Errno;
use socket2::Socket as ListeningSocket;

use super::churn::ChurnLimiter;
use super::listen::LISTENERS_MAX;
use crate::io::{AcceptIndex, Io, PeerAddress};
use crate::limits::turn::ACCEPTS_PER_LISTENER;
use crate::session::ShardIndex;
use crate::shard::ListenerIndex;

/// The listening sockets of an engine, as one of its shards has them.
pub(super) struct Listeners {
    /// Of each shard, those of every listener in order. Empty once no more is accepted.
    by_shard: Vec<Vec<Arc<ListeningSocket>>>,
    me: ShardIndex,
    full: Arc<FullShards>,
    /// True once the engine has started. A shard that ends before leaves its sockets as they are:
    /// one by the other driver may take its place.
    is_started: Arc<AtomicBool>,
}

impl Listeners {
    /// The listening sockets for each shard, in order. `is_started` is set once the engine has.
    pub(super) fn shared(
        by_shard: Vec<Vec<ListeningSocket>>,
        is_started: Arc<AtomicBool>,
    ) -> impl Iterator<Item = Self> {
        assert!(by_shard.iter().all(|sockets| (1..=LISTENERS_MAX).contains(&sockets.len())));
        let full = Arc::new(FullShards::new(by_shard.len()));
        let by_shard: Vec<Vec<_>> = by_shard
            .into_iter()
            .map(|sockets| sockets.into_iter().map(Arc::new).collect())
            .collect();
        (0..by_shard.len() as u16).map(move |me| Self {
            by_shard: by_shard.clone(),
            me: ShardIndex(me),
            full: Arc::clone(&full),
            is_started: Arc::clone(&is_started),
        })
    }

    /// The sockets of this shard.
    pub(super) fn own(&self) -> &[Arc<ListeningSocket>] {
        self.of(self.me)
    }

    fn of(&self, shard: ShardIndex) -> &[Arc<ListeningSocket>] {
        &self.by_shard[shard.index()]
    }
}

/// The shards that are full while connections wait for them; all shards share it.
#[derive(Debug)]
struct FullShards {
    by_shard: Vec<AtomicBool>,
    /// The number of changes of any of them.
    changes: AtomicU32,
}

impl FullShards {
    fn new(shards: usize) -> Self {
        let by_shard = (0..shards).map(|_| AtomicBool::new(false)).collect();
        Self { by_shard, changes: AtomicU32::new(0) }
    }

    fn contains(&self, shard: ShardIndex) -> bool {
        self.by_shard[shard.index()].load(Ordering::Acquire)
    }

    /// Sets whether a shard is one of them, which only that shard does; `true` if that is a change.
    fn set(&self, shard: ShardIndex, is_full: bool) -> bool {
        let full = &self.by_shard[shard.index()];
        if full.load(Ordering::Relaxed) == is_full {
            return false;
        }
        full.store(is_full, Ordering::Release);
        self.changes.fetch_add(1, Ordering::AcqRel);
        true
    }

    fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }
}

/// The accepts of one shard.
pub(super) struct Accepts {
    listeners: Listeners,
    /// Those of the shard's own listening sockets first.
    accepts: Vec<Accept>,
    /// Room for peers' addresses, by accept. Boxed once, as the kernel writes to it.
    addresses: Box<[PeerAddress]>,
    /// Accepts of the shard's own listening sockets that are not under way.
    idle: VecDeque<AcceptIndex>,
    /// Those that are to be the next: a connection waits for them.
    wanted: VecDeque<AcceptIndex>,
    /// Accepting has failed for want of memory; it begins again at this time.
    again_us: Option<u64>,
    /// The accepts of this millisecond are used up; the next one begins then. A connection that is
    /// refused gives its accept back, so that accepting may begin again before.
    churn_us: Option<u64>,
    sockets_max: u32,
    /// Connections that are open, and accepts under way. INVARIANT: together `sockets_max` at most.
    open: u32,
    under_way: u32,
    /// Accepts under way that are being cancelled.
    cancelling: u32,
    /// The changes of full shards that have been seen.
    changes: u32,
    /// This shard has become full, and the others have yet to be woken.
    has_become_full: bool,
}

#[derive(Debug)]
struct Accept {
    shard: ShardIndex,
    listener: ListenerIndex,
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

/// After accepting has failed for want of memory.
const PAUSE_US: u64 = 20_000;
const _: () = assert!(LISTENERS_MAX <= u8::MAX as usize);

impl Accepts {
    /// The accepts of a shard whose table has room for so many sockets.
    pub(super) fn new(listeners: Listeners, sockets_max: u32) -> Self {
        let me = listeners.me;
        let count = listeners.of(me).len();
        let shards = (0..listeners.by_shard.len() as u16).map(ShardIndex);
        let accepts: Vec<Accept> = std::iter::repeat_n(me, ACCEPTS_PER_LISTENER)
            .chain(shards.filter(|shard| *shard != me))
            .flat_map(|shard| (0..count as u8).map(move |index| (shard, ListenerIndex(index))))
            .map(|(shard, listener)| Accept {
                shard,
                listener,
                state: State::Idle,
                is_watched: false,
            })
            .collect();
        Self {
            listeners,
            addresses: accepts.iter().map(|_| PeerAddress::empty()).collect(),
            idle: (0..(ACCEPTS_PER_LISTENER * count) as u32).map(AcceptIndex).collect(),
            accepts,
            wanted: VecDeque::new(),
            again_us: None,
            churn_us: None,
            sockets_max,
            open: 0,
            under_way: 0,
            cancelling: 0,
            changes: 0,
            has_become_full: false,
        }
    }

    /// Takes the address of an accept's peer.
    pub(super) fn take_peer(&mut self, io: &mut impl Io, accept: AcceptIndex) -> SocketAddr {
        io.take_peer(accept, &mut self.addresses[accept.0 as usize])
    }

    /// The listener that an accept is of.
    pub(super) fn listener(&self, accept: AcceptIndex) -> ListenerIndex {
        self.accepts[accept.0 as usize].listener
    }

    /// The time of the next thing to do that no completion tells of.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.again_us.into_iter().chain(self.churn_us).min()
    }

    /// Tells once that this shard has become full, so that the others are to be woken.
    pub(super) fn take_has_become_full(&mut self) -> bool {
        std::mem::take(&mut self.has_become_full)
    }

    /// Begins accepts, as many as there is room for and as may be.
    pub(super) fn begin(&mut self, io: &mut impl Io, churn: &mut ChurnLimiter) {
        if self.again_us.is_some() || self.is_over() {
            return;
        }
        let me = self.listeners.me;
        while self.has_room() {
            if !self.has_next() {
                self.listeners.full.set(me, false);
                return;
            }
            if !churn.try_accept() {
                self.churn_us = Some(churn.again_us());
                return;
            }
            let Some(accept) = self.next_to_begin() else { continue };
            self.begin_one(io, accept);
        }
        let is_wanted = || {
            let mut wanted = self.wanted.iter().map(|accept| &self.accepts[accept.0 as usize]);
            wanted.any(|accept| accept.shard == me)
        };
        let is_full =
            self.open == self.sockets_max && (self.listeners.full.contains(me) || is_wanted());
        self.has_become_full |= self.listeners.full.set(me, is_full) && is_full;
        self.free_room(io);
    }

    /// Begins again after a pause, or when another shard has become full.
    pub(super) fn resume(&mut self, io: &mut impl Io, churn: &mut ChurnLimiter, now_us: u64) {
        let mut is_over = false;
        for pause in [&mut self.again_us, &mut self.churn_us] {
            is_over |= pause.take_if(|end_us| *end_us <= now_us).is_some();
        }
        let changes = self.listeners.full.changes();
        if is_over || std::mem::replace(&mut self.changes, changes) != changes {
            self.begin(io, churn);
        }
    }

    /// An accept has ended. `Err` tells of a failure that will pass.
    pub(super) fn handle_end(
        &mut self,
        accept: AcceptIndex,
        result: Result<(), Errno>,
        now_us: u64,
    ) -> Result<(), Errno> {
        let Accept { shard, state, .. } = self.accepts[accept.0 as usize];
        let is_mine = shard == self.listeners.me;
        self.cancelling -= u32::from(state == State::Cancelling);
        self.accepts[accept.0 as usize].state = State::Idle;
        self.under_way -= 1;
        if is_mine {
            self.idle.push_back(accept);
        }
        match result {
            Ok(()) => self.open += 1,
            Err(Errno::CANCELED) => {}
            Err(_) if self.is_over() => {}
            Err(error) => {
                self.again_us = Some(now_us + PAUSE_US);
                // Another shard stops a little earlier than this one.
                return if is_mine { Err(error) } else { Ok(()) };
            }
        }
        Ok(())
    }

    /// A connection's socket is closed.
    pub(super) fn handle_closed(&mut self) {
        self.open -= 1;
    }

    /// A connection waits at the listening socket of an accept, or has waited.
    pub(super) fn handle_waiting(&mut self, accept: AcceptIndex) {
        self.accepts[accept.0 as usize].is_watched = false;
        if self.is_over() || self.is_accepting_as(accept) {
            return;
        }
        if !self.wanted.contains(&accept) {
            self.wanted.push_back(accept);
        }
    }

    /// Stops for good.
    pub(super) fn stop(&mut self, io: &mut impl Io) {
        let by_shard = std::mem::take(&mut self.listeners.by_shard);
        for (shard, listener) in (0..)
            .map(ShardIndex)
            .zip(&by_shard)
            .flat_map(|(shard, sockets)| sockets.iter().map(move |socket| (shard, socket)))
        {
            // At once: an accept under way holds the socket until the kernel has taken the ring
            // apart, and clients would connect to a backlog that is not accepted from.
            if shard == self.listeners.me
                && self.listeners.is_started.load(Ordering::Acquire)
                && let Err(error) = listener.shutdown(std::net::Shutdown::Both)
            {
                tracing::error!(%error, "a listener can't be closed: who connects gets no answer");
            }
            let is_used = |accept: &Accept| {
                accept.shard == shard && (accept.state != State::Idle || accept.is_watched)
            };
            if self.accepts.iter().any(is_used) {
                io.cancel_all(listener.as_raw_fd());
            }
        }
        // The cancels have to find the descriptors open.
        if let Err(error) = io.submit() {
            tracing::error!(%error, "a listener's accepts could not be cancelled");
        }
    }

    fn is_over(&self) -> bool {
        self.listeners.by_shard.is_empty()
    }

    fn has_room(&self) -> bool {
        self.open + self.under_way < self.sockets_max
    }

    /// True if there may be an accept to begin.
    fn has_next(&self) -> bool {
        !self.wanted.is_empty() || !self.idle.is_empty() || self.of_full_shards().next().is_some()
    }

    /// The accept to begin next: one that a connection waits for, one of a shard that is full, or
    /// one of its own.
    fn next_to_begin(&mut self) -> Option<AcceptIndex> {
        while let Some(accept) = self.wanted.pop_front() {
            if self.accepts[accept.0 as usize].state == State::Idle {
                self.idle.retain(|other| *other != accept);
                return Some(accept);
            }
        }
        // One of each listener of theirs, against several of its own.
        let of_others = self.of_full_shards().next();
        of_others.or_else(|| self.idle.pop_front())
    }

    /// Accepts for other shards, which are full, that are not under way.
    fn of_full_shards(&self) -> impl Iterator<Item = AcceptIndex> {
        let mine = ACCEPTS_PER_LISTENER * self.listeners.of(self.listeners.me).len();
        (mine..self.accepts.len())
            .filter(|accept| {
                let Accept { shard, state, .. } = self.accepts[*accept];
                state == State::Idle && self.listeners.full.contains(shard)
            })
            .map(|accept| AcceptIndex(accept as u32))
    }

    fn fd_of(&self, accept: AcceptIndex) -> RawFd {
        let Accept { shard, listener, .. } = self.accepts[accept.0 as usize];
        self.listeners.of(shard)[usize::from(listener.0)].as_raw_fd()
    }

    fn begin_one(&mut self, io: &mut impl Io, accept: AcceptIndex) {
        let fd = self.fd_of(accept);
        self.accepts[accept.0 as usize].state = State::UnderWay;
        self.under_way += 1;
        let address = &mut self.addresses[accept.0 as usize];
        // SAFETY: the addresses are boxed and live as long as `self`, which outlives `io`;
        // each accept is under way once at a time.
        unsafe { io.accept(fd, accept, address) };
    }

    /// True if an accept of the same listening socket is under way.
    fn is_accepting_as(&self, accept: AcceptIndex) -> bool {
        let Accept { shard, listener, .. } = self.accepts[accept.0 as usize];
        self.accepts.iter().any(|other| {
            (other.shard, other.listener) == (shard, listener) && other.state == State::UnderWay
        })
    }

    /// There is no room: has those listening sockets watched that have no accept under way, and
    /// cancels accepts that wait in vain.
    #[cold]
    fn free_room(&mut self, io: &mut impl Io) {
        let own = 0..self.listeners.of(self.listeners.me).len() as u32;
        let unwatched: Vec<AcceptIndex> = own
            .map(AcceptIndex)
            .chain(self.of_full_shards())
            .filter(|accept| {
                !self.accepts[accept.0 as usize].is_watched
                    && !self.wanted.contains(accept)
                    && !self.is_accepting_as(*accept)
            })
            .collect();
        for accept in unwatched {
            self.accepts[accept.0 as usize].is_watched = true;
            io.watch_listener(self.fd_of(accept), accept);
        }
        while (self.cancelling as usize) < self.wanted.len() {
            let idle = self.accepts.iter().rposition(|accept| accept.state == State::UnderWay);
            let Some(accept) = idle else { return };
            self.accepts[accept].state = State::Cancelling;
            self.cancelling += 1;
            let accept = AcceptIndex(accept as u32);
            io.cancel_accept(self.fd_of(accept), accept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Poller, RingSize};

    /// In a shard that serves others a millisecond has few accepts. A refused connection gives its
    /// own back, also once all are used up and accepting waits for the next millisecond.
    #[test]
    fn a_refused_connection_makes_room_for_the_next_at_once() {
        const STORM: u64 = 20;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let by_shard = vec![vec![socket.unwrap()]];
        let listeners = Listeners::shared(by_shard, Arc::default()).next().unwrap();
        let mut accepts = Accepts::new(listeners, 1_000);
        // Nothing is submitted, so that every accept ends as the test says.
        let mut io = Poller::open(RingSize { submissions: 64, completions: 64 }).unwrap();
        let mut churn = ChurnLimiter::default();
        churn.begin_turn(5_000, 1);
        accepts.begin(&mut io, &mut churn);
        assert!(accepts.next_deadline_us().is_some(), "all accepts of the millisecond are used up");
        for refused in 1..=STORM {
            let accept = accepts.accepts.iter().position(|it| it.state == State::UnderWay);
            let accept = AcceptIndex(accept.expect("an accept is under way") as u32);
            accepts.handle_end(accept, Ok(()), 5_000).unwrap();
            churn.refuse(refused);
            accepts.begin(&mut io, &mut churn);
        }
        assert_eq!(u64::from(accepts.open), STORM);
    }

    /// The kernel has no memory for a connection: it is asked again when that may be over.
    #[test]
    fn accepting_pauses_when_it_fails() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let listeners =
            Listeners::shared(vec![vec![socket.unwrap()]], Arc::default()).next().unwrap();
        let mut accepts = Accepts::new(listeners, 1_000);
        let mut io = Poller::open(RingSize { submissions: 64, completions: 64 }).unwrap();
        let mut churn = ChurnLimiter::default();
        churn.begin_turn(5_000, 0);
        accepts.begin(&mut io, &mut churn);
        let under_way = accepts.under_way;
        let failed = accepts.handle_end(AcceptIndex(0), Err(Errno::NOBUFS), 5_000);
        assert_eq!(failed, Err(Errno::NOBUFS));
        for (now_us, pauses) in
            [(5_000, true), (5_000 + PAUSE_US - 1, true), (5_000 + PAUSE_US, false)]
        {
            churn.begin_turn(now_us, 0);
            accepts.begin(&mut io, &mut churn);
            accepts.resume(&mut io, &mut churn, now_us);
            assert_eq!(accepts.under_way, under_way - u32::from(pauses), "at {now_us}");
            assert_eq!(accepts.next_deadline_us(), pauses.then_some(5_000 + PAUSE_US));
        }
    }
}
