//! A bound on accepts and ends in a millisecond while others are served.
//!
//! Most of what a connection's beginning and end cost is the kernel's work, and much of that is
//! done later, in one piece with that of others: a descriptor that is closed is freed some
//! milliseconds after. Thousands that disconnect and connect again as fast as they can would so
//! keep a core from open sessions for a millisecond at a time, however few of them a turn takes.
//! In a shard that serves no message nothing is bounded.
//!
//! The accepts of a millisecond are for connections that are kept. A refused one gives its own to
//! the next: an address that connects more often than it may would keep all others out otherwise.

use crate::limits::turn::{ACCEPTS_PER_MS, ENDS_PER_MS, REFUSALS_PER_MS};

const MS_US: u64 = 1_000;
/// The time after a message for which a shard counts as serving others.
const SERVES_US: u64 = 10_000;

/// The bounds of one shard.
#[derive(Debug, Default)]
pub(super) struct ChurnLimiter {
    /// Start of the millisecond.
    begun_us: u64,
    now_us: u64,
    accepts: u32,
    ends: u32,
    refusals: u32,
    serves_until_us: u64,
    /// Messages handled until the last turn.
    messages: u64,
    /// Connections refused until the last look.
    refused: u64,
}

impl ChurnLimiter {
    /// A turn begins. `messages` counts those of all sessions, ever.
    pub(super) fn begin_turn(&mut self, now_us: u64, messages: u64) {
        self.now_us = now_us;
        if now_us >= self.begun_us + MS_US {
            (self.begun_us, self.accepts, self.ends, self.refusals) = (now_us, 0, 0, 0);
        }
        if std::mem::replace(&mut self.messages, messages) != messages {
            self.serves_until_us = now_us + SERVES_US;
        }
    }

    fn is_serving(&self) -> bool {
        self.now_us < self.serves_until_us
    }

    /// Takes note of refused connections. `refused` counts them all, ever.
    pub(super) fn refuse(&mut self, refused: u64) {
        let more = refused.saturating_sub(std::mem::replace(&mut self.refused, refused));
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.refusals = self.refusals.saturating_add(more).min(REFUSALS_PER_MS);
    }

    /// Counts an accept, if one more may begin.
    pub(super) fn try_accept(&mut self) -> bool {
        let may_accept = self.accepts < ACCEPTS_PER_MS + self.refusals || !self.is_serving();
        self.accepts += u32::from(may_accept);
        may_accept
    }

    /// Counts the end of a stream, if one more may be handled.
    pub(super) fn try_end(&mut self) -> bool {
        let may_end = self.ends < ENDS_PER_MS || !self.is_serving();
        self.ends += u32::from(may_end);
        may_end
    }

    /// Start of the next millisecond, in which connections that wait are accepted.
    pub(super) fn again_us(&self) -> u64 {
        self.begun_us + MS_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_accepted_at_once_where_no_message_is_served() {
        let mut churn = ChurnLimiter::default();
        churn.begin_turn(5_000, 0);
        assert!((0..1_000).all(|_| churn.try_accept() && churn.try_end()));
    }

    #[test]
    fn a_few_are_accepted_in_a_millisecond_while_messages_are_served() {
        let mut churn = ChurnLimiter::default();
        churn.begin_turn(5_000, 1);
        for begun_us in [5_000, 6_000, 7_500] {
            churn.begin_turn(begun_us, 1);
            assert_eq!((0..).take_while(|_| churn.try_accept()).count() as u32, ACCEPTS_PER_MS);
            assert_eq!((0..).take_while(|_| churn.try_end()).count() as u32, ENDS_PER_MS);
            // Not in another turn of the same one either.
            churn.begin_turn(begun_us + MS_US - 1, 1);
            assert!(!churn.try_accept() && !churn.try_end());
            assert_eq!(churn.again_us(), begun_us + MS_US);
        }
        churn.begin_turn(5_000 + SERVES_US, 1);
        assert!((0..1_000).all(|_| churn.try_accept() && churn.try_end()));
    }

    /// A storm of an address that may not connect as often, in a shard that serves others: in each
    /// millisecond, six connections that are refused come before one that is kept.
    #[test]
    fn a_refused_connection_uses_up_no_accept() {
        const REFUSED_EVERY_MS: u64 = 6;
        let (mut churn, mut refused) = (ChurnLimiter::default(), 0);
        // Connections in the backlog: `true` for one that is kept, and since when it waits.
        let mut waiting = std::collections::VecDeque::new();
        for ms in 1..2_000 {
            waiting.extend((0..REFUSED_EVERY_MS).map(|_| (false, ms)));
            waiting.push_back((true, ms));
            churn.begin_turn(ms * MS_US, ms);
            while !waiting.is_empty() && churn.try_accept() {
                let Some((may_accept, since_ms)) = waiting.pop_front() else { break };
                assert!(ms - since_ms <= 1, "{} ms of waiting after {ms}", ms - since_ms);
                refused += u64::from(!may_accept);
                churn.refuse(refused);
            }
        }
    }

    #[test]
    fn refusals_are_bounded_too() {
        let mut churn = ChurnLimiter::default();
        churn.begin_turn(5_000, 1);
        let mut refused = 0;
        while churn.try_accept() {
            refused += 1;
            churn.refuse(refused);
        }
        assert_eq!(refused, u64::from(ACCEPTS_PER_MS + REFUSALS_PER_MS));
    }
}
