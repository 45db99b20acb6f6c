//! One recording: a ring of packages, written by the session's shard and read by others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{RecordOptions, Target};
use crate::session::SessionInfo;
use crate::wire::package::PackageType;

/// A recording of one session.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) id: u32,
    pub(crate) target: Target,
    pub(crate) options: RecordOptions,
    /// Microseconds since 1970.
    pub(crate) armed_us: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    session: Option<SessionInfo>,
    /// Shared with whoever reads, who holds the shard up for no longer than their number takes.
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    /// Records that the ring had no more room for.
    lost: u64,
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
    pub(crate) bytes: usize,
    pub(crate) lost: u64,
}

impl Record {
    fn cost(&self) -> usize {
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
        let state = if session.is_some() { State::Recording } else { State::Waiting };
        let records = VecDeque::new();
        let inner = Mutex::new(Inner { state, session, records, bytes: 0, lost: 0 });
        Self { id, target, options, armed_us: now_us, inner }
    }

    /// Adds a record, for which older ones make room.
    pub(crate) fn push(&self, record: Record) {
        let mut inner = self.lock();
        inner.bytes += record.cost();
        inner.records.push_back(Arc::new(record));
        while inner.bytes > self.options.bytes_max
            && let Some(oldest) = inner.records.pop_front()
        {
            inner.bytes -= oldest.cost();
            inner.lost += 1;
        }
    }

    /// Begins with the session that was waited for.
    pub(super) fn begin(&self, session: SessionInfo) {
        let mut inner = self.lock();
        if inner.state == State::Waiting {
            inner.state = State::Recording;
            inner.session = Some(session);
        }
    }

    /// Describes the session as it is now.
    pub(crate) fn update(&self, session: SessionInfo) {
        self.lock().session = Some(session);
    }

    /// Ends it, unless it is over.
    pub(crate) fn end(&self, reason: &'static str) {
        let mut inner = self.lock();
        if !matches!(inner.state, State::Over(_)) {
            inner.state = State::Over(reason);
        }
    }

    /// True if nothing more is recorded.
    pub(crate) fn is_over(&self, now_us: u64) -> bool {
        matches!(self.state(now_us), State::Over(_))
    }

    pub(super) fn is_waiting(&self, now_us: u64) -> bool {
        self.state(now_us) == State::Waiting
    }

    pub(crate) fn state(&self, now_us: u64) -> State {
        self.state_of(self.lock().state, now_us)
    }

    fn state_of(&self, state: State, now_us: u64) -> State {
        let end_us = self.armed_us.saturating_add(self.options.seconds.saturating_mul(1_000_000));
        match state {
            State::Over(reason) => State::Over(reason),
            _ if now_us >= end_us => State::Over("its time is over"),
            state => state,
        }
    }

    /// All that is kept now.
    pub(crate) fn snapshot(&self, now_us: u64) -> Snapshot {
        let inner = self.lock();
        Snapshot {
            state: self.state_of(inner.state, now_us),
            session: inner.session.clone(),
            records: inner.records.iter().cloned().collect(),
            bytes: inner.bytes,
            lost: inner.lost,
        }
    }

    /// No code that holds the lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::RECORDING_BYTES_MIN;
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest() {
        let options = RecordOptions {
            bytes_max: RECORDING_BYTES_MIN,
            has_bodies: true,
            seconds: 1,
            secrets: Arc::default(),
        };
        let recording = Recording::new(1, Target::Uid("amy".into()), options, None, 0);
        for at_us in 0..1000 {
            recording.push(Record {
                at_us,
                direction: Direction::ToClient,
                kind: RecordKind::Package(PackageType::Data),
                len: 5,
                route: Some("onChat".into()),
                kept: vec![0; 1000].into(),
            });
        }
        let snapshot = recording.snapshot(0);
        assert!(snapshot.bytes <= RECORDING_BYTES_MIN && snapshot.bytes > RECORDING_BYTES_MIN / 2);
        assert_eq!(snapshot.records.len() as u64 + snapshot.lost, 1000);
        assert_eq!(snapshot.records.last().unwrap().at_us, 999);
        assert_eq!(snapshot.records[0].at_us, snapshot.lost);
        assert!(!recording.is_over(999_999) && recording.is_over(1_000_000));
    }
}
