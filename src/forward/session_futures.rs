//! The messages of each session that wait in a worker's futures.
//!
//! A shard counts what its sessions have in flight, but is not told of a notify whose handler is
//! async once its worker has begun it. So the worker bounds these by itself, with the same limits:
//! no session fills [`Limits::tasks_max`] or a lane's bytes alone.

use rustc_hash::FxHashMap;

use crate::limits::Limits;
use crate::session::SessionId;

/// Messages that wait, by session.
#[derive(Debug)]
pub(super) struct SessionFutures {
    /// INVARIANT: none is empty.
    sessions: FxHashMap<SessionId, Waiting>,
    len_max: u32,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    len: u32,
    bytes: usize,
}

impl SessionFutures {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            sessions: FxHashMap::default(),
            len_max: limits.in_flight_per_session_max.into(),
            bytes_max: limits.in_flight_bytes_per_session_max,
        }
    }

    /// Counts a message, unless its session has too many, or too many of their bytes.
    pub(super) fn begin(&mut self, session: SessionId, bytes: usize) -> bool {
        let waiting = self.sessions.entry(session).or_default();
        // One alone always fits: it was let into the lane.
        let fits = waiting.len == 0
            || (waiting.len < self.len_max && waiting.bytes + bytes <= self.bytes_max);
        if fits {
            waiting.len += 1;
            waiting.bytes += bytes;
        }
        fits
    }

    /// A message that was counted is done.
    pub(super) fn end(&mut self, session: SessionId, bytes: usize) {
        let Some(waiting) = self.sessions.get_mut(&session) else { return };
        waiting.len -= 1;
        waiting.bytes -= bytes;
        if waiting.len == 0 {
            self.sessions.remove(&session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Generation, ShardIndex, Slot};

    #[test]
    fn a_session_has_its_bounds_and_leaves_nothing() {
        let limits = Limits {
            in_flight_per_session_max: 3,
            in_flight_bytes_per_session_max: 100,
            ..Limits::default()
        };
        let mut futures = SessionFutures::new(&limits);
        let [a, b] =
            [1, 2].map(|slot| SessionId::new(ShardIndex(0), Slot(slot), Generation::FIRST));
        assert!(futures.begin(a, 1000), "one alone always fits");
        assert!(!futures.begin(a, 1));
        assert!((0..3).all(|_| futures.begin(b, 1)));
        assert!(!futures.begin(b, 1));
        futures.end(a, 1000);
        assert!(futures.begin(a, 100) && !futures.begin(a, 1));
        futures.end(a, 100);
        (0..3).for_each(|_| futures.end(b, 1));
        assert!(futures.sessions.is_empty());
    }
}
