//! One recording: a ring of packages, written by the session's shard and read by others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::options::{RecordOptions, Target};
use crate::session::{CLOSE_REASONS, SessionInfo};
use crate::wire::package::PackageType;

/// A recording of one session.
///
/// Its shard never waits for those who read: it takes the ring if nobody has it, and else comes
/// again ([`Self::try_put`]). What is asked for each package, the state, is an atomic.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) id: u32,
    pub(crate) target: Target,
    pub(crate) options: RecordOptions,
    /// Microseconds since 1970.
    pub(crate) armed_us: u64,
    /// [`WAITING`], [`RECORDING`], or behind them the place of the reason in [`reasons`].
    state: AtomicU8,
    /// Records that the ring, or what waits for it, had no more room for.
    lost: AtomicU64,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    session: Option<SessionInfo>,
    /// Shared with whoever reads.
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

const WAITING: u8 = 0;
const RECORDING: u8 = 1;
const OVER: u8 = 2;

/// The reasons for which a recording ends, besides those of its session ([`CLOSE_REASONS`]).
const OWN_REASONS: [&str; 6] = [
    "the session has ended",
    "stopped",
    "another has begun",
    "its time is over",
    "the session was gone",
    "the session was not open",
];

/// Something that a shard has for a recording.
#[derive(Debug)]
pub(crate) enum News {
    Record(Record),
    /// The session as it is now.
    Session(Box<SessionInfo>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No session has come that is wanted.
    Waiting,
    Recording,
    /// It is over, for this reason.
    Over(&'static str),
}

/// The way that a package goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    FromClient,
    ToClient,
}

/// A package, or what else a connection carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Microseconds since 1970, of the shard's turn.
    pub(crate) at_us: u64,
    pub(crate) direction: Direction,
    pub(crate) kind: RecordKind,
    /// Bytes of the body on the wire.
    pub(crate) len: usize,
    /// The route that a code stands for in the session's dictionary.
    pub(crate) route: Option<Box<str>>,
    /// The beginning of the body, as far as it is kept; what is secret is covered.
    pub(crate) kept: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Package(PackageType),
    /// The head of a request for a WebSocket, or of the answer; nothing of it is kept.
    Http,
    /// A control frame of a WebSocket, by its opcode, and the code of a close.
    Control {
        opcode: u8,
        code: Option<u16>,
    },
    /// Bytes that are no package, after which nothing of this direction is read.
    Unreadable,
}

/// The bytes that a record counts with besides those that it keeps.
const RECORD_BYTES: usize = 96;
const _: () = assert!(size_of::<Record>() + 2 * size_of::<usize>() <= RECORD_BYTES);

/// A recording at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) session: Option<SessionInfo>,
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) lost: u64,
}

/// The extent of a recording at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) state: State,
    pub(crate) session: Option<SessionInfo>,
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) lost: u64,
}

/// All reasons, in the order of their places.
fn reasons() -> impl Iterator<Item = &'static str> {
    OWN_REASONS.into_iter().chain(CLOSE_REASONS)
}

impl Record {
    /// The bytes that it counts with.
    pub(crate) fn cost(&self) -> usize {
        let route = self.route.as_ref().map_or(0, |route| route.len());
        RECORD_BYTES + route + self.kept.len()
    }
}

impl Recording {
    pub(super) fn new(
        id: u32,
        target: Target,
        options: RecordOptions,
        session: Option<SessionInfo>,
        now_us: u64,
    ) -> Self {
        let state = if session.is_some() { RECORDING } else { WAITING };
        let ring = Ring { session, records: VecDeque::new(), bytes: 0 };
        Self {
            id,
            target,
            options,
            armed_us: now_us,
            state: AtomicU8::new(state),
            lost: AtomicU64::new(0),
            ring: Mutex::new(ring),
        }
    }

    /// Adds a record, for which older ones make room, or describes the session. Gives it back where
    /// somebody reads the ring just now: nobody waits for the other.
    pub(crate) fn try_put(&self, news: News) -> Result<(), News> {
        let mut ring = match self.ring.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(news),
        };
        match news {
            News::Record(record) => self.add(&mut ring, record),
            News::Session(session) => ring.session = Some(*session),
        }
        Ok(())
    }

    fn add(&self, ring: &mut Ring, record: Record) {
        ring.bytes += record.cost();
        ring.records.push_back(Arc::new(record));
        while ring.bytes > self.options.bytes_max
            && let Some(oldest) = ring.records.pop_front()
        {
            ring.bytes -= oldest.cost();
            self.lose();
        }
    }

    /// Counts a record that found no room.
    pub(crate) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins with a session that was waited for. False where another shard's has come first.
    pub(crate) fn begin(&self) -> bool {
        let order = Ordering::Relaxed;
        self.state.compare_exchange(WAITING, RECORDING, order, order).is_ok()
    }

    /// Ends it, unless it is over.
    pub(crate) fn end(&self, reason: &'static str) {
        let place = reasons().position(|it| it == reason).unwrap_or(0);
        let over = |state| (state < OVER).then_some(OVER + place as u8);
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, over).ok();
    }

    /// True if nothing more is recorded.
    pub(crate) fn is_over(&self, now_us: u64) -> bool {
        matches!(self.state(now_us), State::Over(_))
    }

    pub(crate) fn is_waiting(&self, now_us: u64) -> bool {
        self.state(now_us) == State::Waiting
    }

    /// The state at a time. Who finds that over ends it for all, as their clocks differ a little.
    pub(crate) fn state(&self, now_us: u64) -> State {
        let end_us = self.armed_us.saturating_add(self.options.seconds.saturating_mul(1_000_000));
        if now_us >= end_us {
            self.end("its time is over");
        }
        match self.state.load(Ordering::Relaxed) {
            WAITING => State::Waiting,
            RECORDING => State::Recording,
            over => {
                let place = usize::from(over - OVER);
                State::Over(reasons().nth(place).unwrap_or(OWN_REASONS[0]))
            }
        }
    }

    /// All that is kept now. Not for shards, nor are those that follow.
    pub(crate) fn snapshot(&self, now_us: u64) -> Snapshot {
        let ring = self.lock();
        Snapshot {
            state: self.state(now_us),
            session: ring.session.clone(),
            records: ring.records.iter().cloned().collect(),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// The extent of what is kept now.
    pub(crate) fn extent(&self, now_us: u64) -> Extent {
        let ring = self.lock();
        Extent {
            state: self.state(now_us),
            session: ring.session.clone(),
            records: ring.records.len(),
            bytes: ring.bytes,
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// No code that holds the lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if a recording can tell that it has ended for a reason.
    #[cfg(test)]
    pub(crate) fn knows(reason: &str) -> bool {
        reasons().any(|it| it == reason)
    }

    /// Calls something while the ring is being read.
    #[cfg(test)]
    pub(crate) fn while_read(&self, call: impl FnOnce()) {
        let _ring = self.lock();
        call();
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::RECORDING_BYTES_MIN;
    use super::super::secrets::Secrets;
    use super::*;

    /// A recording of one second, as small as one may be.
    fn recording() -> Recording {
        let options = RecordOptions {
            bytes_max: RECORDING_BYTES_MIN,
            has_bodies: true,
            seconds: 1,
            secrets: Arc::new(Secrets::default()),
        };
        Recording::new(1, Target::Uid("amy".into()), options, None, 0)
    }

    #[test]
    fn the_ring_keeps_the_newest() {
        let recording = recording();
        for at_us in 0..1000 {
            let record = Record {
                at_us,
                direction: Direction::ToClient,
                kind: RecordKind::Package(PackageType::Data),
                len: 5,
                route: Some("onChat".into()),
                kept: vec![0; 1000].into(),
            };
            recording.try_put(News::Record(record)).unwrap();
        }
        let (snapshot, extent) = (recording.snapshot(0), recording.extent(0));
        assert!(extent.bytes <= RECORDING_BYTES_MIN && extent.bytes > RECORDING_BYTES_MIN / 2);
        assert_eq!((extent.records, extent.lost), (snapshot.records.len(), snapshot.lost));
        assert_eq!(snapshot.records.len() as u64 + snapshot.lost, 1000);
        assert_eq!(snapshot.records.last().unwrap().at_us, 999);
        assert_eq!(snapshot.records[0].at_us, snapshot.lost);
        assert!(!recording.is_over(999_999) && recording.is_over(1_000_000));
        assert!(recording.is_over(999_999), "for those whose clock is behind, too");
    }

    #[test]
    fn a_recording_begins_and_ends_once() {
        let recording = recording();
        assert!(recording.is_waiting(0) && recording.begin() && !recording.begin());
        assert_eq!(recording.state(0), State::Recording);
        recording.end("kick");
        recording.end("stopped");
        assert_eq!(recording.state(u64::MAX), State::Over("kick"));
        assert!(!recording.begin());
    }
}
