//! The parts of their sessions that shards may be asked for: so many in a second by all who look,
//! so that those who look without end take a small share of a shard at the most.

use std::time::{Duration, Instant};

use super::bounds::{PAGES_AT_ONCE, PAGES_PER_SECOND};
use crate::session::ShardIndex;

/// The time that one part takes in the long run.
pub(super) const PAGE_EVERY: Duration =
    Duration::from_nanos(1_000_000_000 / PAGES_PER_SECOND as u64);

/// The time until which each shard has been asked in advance.
pub(super) struct Pages(Vec<Instant>);

impl Pages {
    pub(super) fn new(shards: u16, now: Instant) -> Self {
        Self(vec![now; usize::from(shards)])
    }

    /// True if a shard may be asked for one part more, which counts from here on.
    pub(super) fn take(&mut self, shard: ShardIndex, now: Instant) -> bool {
        let Some(until) = self.0.get_mut(shard.index()) else { return true };
        let next = (*until).max(now) + PAGE_EVERY;
        let may = next.saturating_duration_since(now) <= PAGE_EVERY * PAGES_AT_ONCE;
        if may {
            *until = next;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_asked_so_often_and_others_do_not_count() {
        let start = Instant::now();
        let mut pages = Pages::new(2, start);
        let first = ShardIndex(0);
        let taken = |pages: &mut Pages, shard, now| {
            (0..10_000).take_while(|_| pages.take(shard, now)).count() as u32
        };
        assert_eq!(taken(&mut pages, first, start), PAGES_AT_ONCE);
        assert_eq!(taken(&mut pages, ShardIndex(1), start), PAGES_AT_ONCE);
        for second in 1..=3 {
            let now = start + Duration::from_secs(second);
            assert_eq!(taken(&mut pages, first, now), PAGES_PER_SECOND);
        }
        let later = start + Duration::from_secs(3_600);
        assert_eq!(taken(&mut pages, first, later), PAGES_AT_ONCE);
    }
}
