//! How many connections come and go in a millisecond while others are served.
//!
//! Most of what a connection's beginning and end cost is the kernel's work, and much of that is
//! done later, in one piece with that of others: a descriptor that is closed is freed some
//! milliseconds after. Thousands that break off and come back as fast as they can would so keep a
//! core from those who are in for a millisecond at a time, however few of them a turn takes. Where
//! nobody is served, nobody is made to wait.
//!
//! The places of a millisecond are for those who get in. One that is turned away gives its place to
//! the next: an address that connects more often than it may would keep all others out otherwise.

/// Connections that are let in, and streams whose end is taken note of, in a millisecond. With as
/// many ends as beginnings a crowd that comes back would find the places of its old connections
/// taken.
const COMINGS_PER_MS: u32 = 4;
const GOINGS_PER_MS: u32 = 8;
/// Connections that are turned away in a millisecond. One takes a sixth of what one that is let in
/// takes in the end, but the kernel's share of it is to be bounded as well.
const REFUSALS_PER_MS: u32 = 28;
const MS_US: u64 = 1_000;
/// For how long after a message a shard counts as serving somebody.
const SERVES_US: u64 = 10_000;

/// The bounds of one shard.
#[derive(Debug, Default)]
pub(super) struct Crossings {
    /// When the millisecond began.
    begun_us: u64,
    now_us: u64,
    comings: u32,
    goings: u32,
    refusals: u32,
    serves_until_us: u64,
    /// Messages that had been handled when a turn last looked.
    messages: u64,
    /// Connections that had been turned away.
    refused: u64,
}

impl Crossings {
    /// A turn begins. `messages` counts those of all sessions, ever.
    pub(super) fn begin_turn(&mut self, now_us: u64, messages: u64) {
        self.now_us = now_us;
        if now_us >= self.begun_us + MS_US {
            (self.begun_us, self.comings, self.goings, self.refusals) = (now_us, 0, 0, 0);
        }
        if std::mem::replace(&mut self.messages, messages) != messages {
            self.serves_until_us = now_us + SERVES_US;
        }
    }

    fn is_serving(&self) -> bool {
        self.now_us < self.serves_until_us
    }

    /// Takes note of those who were turned away. `refused` counts them all, ever.
    pub(super) fn refuse(&mut self, refused: u64) {
        let more = refused.saturating_sub(std::mem::replace(&mut self.refused, refused));
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.refusals = self.refusals.saturating_add(more).min(REFUSALS_PER_MS);
    }

    /// Whether one more connection may be let in, which then counts.
    pub(super) fn come(&mut self) -> bool {
        let may_come = self.comings < COMINGS_PER_MS + self.refusals || !self.is_serving();
        self.comings += u32::from(may_come);
        may_come
    }

    /// Whether the end of a stream may be taken note of, which then counts.
    pub(super) fn go(&mut self) -> bool {
        let may_go = self.goings < GOINGS_PER_MS || !self.is_serving();
        self.goings += u32::from(may_go);
        may_go
    }

    /// When those who wait may cross.
    pub(super) fn again_us(&self) -> u64 {
        self.begun_us + MS_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_cross_at_once_where_nobody_is_served() {
        let mut crossings = Crossings::default();
        crossings.begin_turn(5_000, 0);
        assert!((0..1_000).all(|_| crossings.come() && crossings.go()));
    }

    #[test]
    fn a_few_cross_in_a_millisecond_while_somebody_is_served() {
        let mut crossings = Crossings::default();
        crossings.begin_turn(5_000, 1);
        for begun_us in [5_000, 6_000, 7_500] {
            crossings.begin_turn(begun_us, 1);
            assert_eq!((0..).take_while(|_| crossings.come()).count() as u32, COMINGS_PER_MS);
            assert_eq!((0..).take_while(|_| crossings.go()).count() as u32, GOINGS_PER_MS);
            // Not in another turn of the same one either.
            crossings.begin_turn(begun_us + MS_US - 1, 1);
            assert!(!crossings.come() && !crossings.go());
            assert_eq!(crossings.again_us(), begun_us + MS_US);
        }
        crossings.begin_turn(5_000 + SERVES_US, 1);
        assert!((0..1_000).all(|_| crossings.come() && crossings.go()));
    }

    /// A storm of an address that may not connect as often, in a shard that serves others: for each
    /// millisecond, six that are turned away come before one that is let in.
    #[test]
    fn who_is_turned_away_takes_no_place() {
        const REFUSED_EVERY_MS: u64 = 6;
        let (mut crossings, mut refused) = (Crossings::default(), 0);
        // What waits in the kernel, by whether it may come in, and since when.
        let mut waiting = std::collections::VecDeque::new();
        for ms in 1..2_000 {
            waiting.extend((0..REFUSED_EVERY_MS).map(|_| (false, ms)));
            waiting.push_back((true, ms));
            crossings.begin_turn(ms * MS_US, ms);
            while !waiting.is_empty() && crossings.come() {
                let Some((may_come, since_ms)) = waiting.pop_front() else { break };
                assert!(ms - since_ms <= 1, "{} ms of waiting after {ms}", ms - since_ms);
                refused += u64::from(!may_come);
                crossings.refuse(refused);
            }
        }
    }

    #[test]
    fn turning_away_is_bounded_too() {
        let mut crossings = Crossings::default();
        crossings.begin_turn(5_000, 1);
        let mut refused = 0;
        while crossings.come() {
            refused += 1;
            crossings.refuse(refused);
        }
        assert_eq!(refused, u64::from(COMINGS_PER_MS + REFUSALS_PER_MS));
    }
}
