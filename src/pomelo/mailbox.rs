//! The calls to one server: what is under way, what waits for a connection, and how long.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::peer::PeerId;
use super::servers::Server;
use crate::session::ShardIndex;

/// Everything about one server but its connection's bytes.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) server: Server,
    pub(super) state: State,
    pub(super) calls: PendingCalls,
    /// Calls made since the connection began to be made.
    pub(super) queued: usize,
    pub(super) retry: Backoff,
    /// Set when the master has forgotten the server, though it answers: when it leaves the list.
    pub(super) leaves_us: Option<u64>,
}

/// The state of a connection to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// None, until then.
    Waiting {
        until_us: u64,
    },
    /// Being made, until then at the latest.
    Connecting {
        peer: PeerId,
        until_us: u64,
    },
    Open {
        peer: PeerId,
        pulse: Pulse,
    },
}

impl Mailbox {
    pub(super) fn new(server: Server, now_us: u64) -> Self {
        Self {
            server,
            state: State::Waiting { until_us: now_us },
            calls: PendingCalls::default(),
            queued: 0,
            retry: Backoff::new(RETRY_FIRST, RETRY_MAX),
            leaves_us: None,
        }
    }

    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.state {
            State::Waiting { .. } => None,
            State::Connecting { peer, .. } | State::Open { peer, .. } => Some(peer),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// The time at which something of it is due.
    pub(super) fn next_deadline_us(&self) -> u64 {
        let state = match &self.state {
            State::Waiting { until_us } | State::Connecting { until_us, .. } => *until_us,
            State::Open { pulse, .. } => pulse.next_us(),
        };
        let call = self.calls.next_deadline_us().unwrap_or(u64::MAX);
        state.min(call).min(self.leaves_us.unwrap_or(u64::MAX))
    }
}

/// The first connection that fails is tried again after this long, each further one after twice
/// as long, up to the greatest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The wait before a connection is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    first_us: u64,
    max_us: u64,
    next_us: u64,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        let (first_us, max_us) = (micros(first), micros(max));
        Self { first_us, max_us, next_us: first_us }
    }

    /// The wait after one more failure.
    pub(super) fn fail(&mut self) -> u64 {
        let wait_us = self.next_us;
        self.next_us = (wait_us * 2).min(self.max_us);
        wait_us
    }

    pub(super) fn succeed(&mut self) {
        self.next_us = self.first_us;
    }
}

/// The pings of a connection and their answers (docs/protocol/rpc.md, "Transport": PINGREQ,
/// PINGRESP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pulse {
    interval_us: u64,
    sent_us: u64,
    is_answered: bool,
}

/// The next step of a pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    None,
    Ping,
    /// Two intervals have passed without an answer.
    Lost,
}

impl Pulse {
    /// Starts when the connection does; the first ping goes out one interval later.
    pub(super) fn new(interval: Duration, now_us: u64) -> Self {
        Self { interval_us: micros(interval), sent_us: now_us, is_answered: true }
    }

    pub(super) fn handle_pong(&mut self) {
        self.is_answered = true;
    }

    pub(super) fn beat(&mut self, now_us: u64) -> Beat {
        if now_us < self.next_us() {
            return Beat::None;
        }
        if !self.is_answered {
            return Beat::Lost;
        }
        self.sent_us = now_us;
        self.is_answered = false;
        Beat::Ping
    }

    pub(super) fn next_us(&self) -> u64 {
        self.sent_us + self.interval_us * if self.is_answered { 1 } else { 2 }
    }
}

/// The caller that a call is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) shard: ShardIndex,
    pub(super) token: u64,
}

/// The calls that wait for a server's answers, by the id that the answer carries.
#[derive(Debug, Default)]
pub(super) struct PendingCalls {
    waiters: FxHashMap<u64, Waiter>,
    next_id: u64,
    /// The times at which the calls below an id are due, ascending. Calls of one millisecond are
    /// due together, so that there are never more entries than a timeout has milliseconds.
    deadlines: VecDeque<Deadline>,
    /// Calls below it have been looked at.
    looked_at: u64,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at_us: u64,
    id_end: u64,
}

/// Calls whose deadlines are closer together than this are due together.
const GRAIN_US: u64 = 1_000;

impl PendingCalls {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// An id for a call that nobody waits for.
    pub(super) fn skip(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// An id for a call, due at that time. Times must not go back.
    pub(super) fn add(&mut self, waiter: Waiter, deadline_us: u64) -> u64 {
        let id = self.skip();
        self.waiters.insert(id, waiter);
        match self.deadlines.back_mut() {
            Some(last) if deadline_us <= last.at_us => last.id_end = self.next_id,
            _ => {
                let at_us = deadline_us + GRAIN_US;
                self.deadlines.push_back(Deadline { at_us, id_end: self.next_id });
            }
        }
        id
    }

    /// The caller that waits for an answer; none if it comes too late or twice.
    pub(super) fn take(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id);
        if self.waiters.is_empty() {
            self.deadlines.clear();
            self.looked_at = self.next_id;
        }
        waiter
    }

    /// Takes out one call that is due.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<Waiter> {
        loop {
            let first = *self.deadlines.front().filter(|first| first.at_us <= now_us)?;
            while self.looked_at < first.id_end {
                self.looked_at += 1;
                if let Some(waiter) = self.waiters.remove(&(self.looked_at - 1)) {
                    return Some(waiter);
                }
            }
            self.deadlines.pop_front();
        }
    }

    /// Takes out all calls, in the order they were made.
    pub(super) fn take_all(&mut self) -> Vec<Waiter> {
        let mut all: Vec<(u64, Waiter)> = self.waiters.drain().collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        self.deadlines.clear();
        self.looked_at = self.next_id;
        all.into_iter().map(|(_, waiter)| waiter).collect()
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.deadlines.front().map(|first| first.at_us)
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn waiter(token: u64) -> Waiter {
        Waiter { shard: ShardIndex(0), token }
    }

    /// Random operations against a plain map.
    #[test]
    fn calls_behave_like_a_map_with_deadlines() {
        let mut calls = PendingCalls::default();
        let mut model: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let (mut seed, mut now_us) = (0x9e37_79b9_7f4a_7c15_u64, 0);
        for token in 1..crate::test_cases::repetitions(50_000).into() {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            now_us += seed % 300;
            match (seed >> 8) % 4 {
                0 | 1 => {
                    let id = calls.add(waiter(token), now_us + 20_000);
                    assert!(model.insert(id, (token, now_us + 20_000)).is_none());
                }
                2 if !model.is_empty() => {
                    let at = (seed >> 20) as usize % model.len();
                    let (&id, &(token, _)) = model.iter().nth(at).unwrap();
                    model.remove(&id);
                    assert_eq!(calls.take(id), Some(waiter(token)));
                    assert_eq!(calls.take(id), None, "an id is good for one answer");
                }
                _ => {
                    while let Some(due) = calls.take_due(now_us) {
                        let (_, (token, deadline_us)) = model.pop_first().unwrap();
                        assert_eq!(due, waiter(token));
                        assert!(deadline_us <= now_us, "not before its time");
                    }
                    let late = |(_, deadline_us): &(u64, u64)| deadline_us + GRAIN_US < now_us;
                    assert!(!model.values().any(late), "all that are due");
                }
            }
            assert_eq!(calls.len(), model.len());
        }
        let left: Vec<_> = model.values().map(|(token, _)| waiter(*token)).collect();
        assert_eq!(calls.take_all(), left);
        assert_eq!(calls.next_deadline_us(), None);
    }

    #[test]
    fn a_pulse_is_lost_after_two_silent_intervals() {
        let mut pulse = Pulse::new(Duration::from_millis(1), 0);
        assert_eq!(pulse.beat(999), Beat::None);
        assert_eq!(pulse.beat(1_000), Beat::Ping);
        pulse.handle_pong();
        assert_eq!(pulse.beat(1_999), Beat::None);
        assert_eq!(pulse.beat(2_000), Beat::Ping);
        assert_eq!(pulse.beat(3_999), Beat::None);
        assert_eq!(pulse.beat(4_000), Beat::Lost);
    }

    #[test]
    fn waits_double_up_to_the_greatest() {
        let mut retry = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<_> = (0..4).map(|_| retry.fail() / 1_000_000).collect();
        assert_eq!(waits, [1, 2, 4, 5]);
        retry.succeed();
        assert_eq!(retry.fail(), 1_000_000);
    }
}
