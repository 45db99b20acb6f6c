//! The times of what goes round all connections.

use std::time::Duration;

/// Goes round the connections, each once in an interval, evenly.
#[derive(Debug)]
pub(super) struct Rounds {
    interval_ns: f64,
    count: u32,
    /// The connection whose turn is next, and the time of that.
    next: u32,
    due_ns: f64,
}

impl Rounds {
    /// The first turn comes one step after `now_ns`.
    pub(super) fn new(interval: Duration, count: u32, now_ns: u64) -> Self {
        let interval_ns = interval.as_secs_f64() * 1e9;
        let due_ns = now_ns as f64 + interval_ns / f64::from(count);
        Self { interval_ns, count, next: 0, due_ns }
    }

    /// The next connection whose turn has come, if there is one.
    #[inline]
    pub(super) fn next(&mut self, now_ns: u64) -> Option<u32> {
        let now_ns = now_ns as f64;
        if self.due_ns > now_ns {
            return None;
        }
        // After a stall each gets one turn, not one for each round that was missed.
        self.due_ns = self.due_ns.max(now_ns - self.interval_ns);
        self.due_ns += self.interval_ns / f64::from(self.count);
        let index = self.next;
        self.next = (index + 1) % self.count;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_once_in_an_interval() {
        let mut rounds = Rounds::new(Duration::from_nanos(1000), 4, 0);
        let mut take = |now_ns| std::iter::from_fn(|| rounds.next(now_ns)).collect::<Vec<u32>>();
        assert!(take(249).is_empty());
        assert_eq!(take(250), [0]);
        assert_eq!(take(760), [1, 2]);
        assert_eq!(take(1250), [3, 0]);
        assert!((4..=5).contains(&take(9000).len()), "once each, however late");
        assert!(take(9000).is_empty());
    }
}
