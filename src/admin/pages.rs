//! The parts of their sessions that shards may be asked for: so many in a second by all who look,
//! so that those who look without end take a small share of a shard at the most. A shard that has
//! left one of them unanswered is asked for no other until it has answered.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::bounds::{PAGES_AT_ONCE, PAGES_PER_SECOND, SHARD_TIME_MAX};
use crate::session::{SessionPage, ShardIndex};

/// The time that one part takes in the long run.
pub(super) const PAGE_EVERY: Duration =
    Duration::from_nanos(1_000_000_000 / PAGES_PER_SECOND as u64);

/// The parts that each shard was asked for.
pub(super) struct Pages(Vec<Asked>);

struct Asked {
    /// The time until which it has been asked in advance.
    until: Instant,
    silent: Option<Silent>,
}

/// A shard that has not answered in time.
enum Silent {
    /// It still has the question.
    Asked(Receiver<SessionPage>),
    /// It had no room for the question, and may be asked again from then on.
    Full { again: Instant },
}

impl Pages {
    pub(super) fn new(shards: u16, now: Instant) -> Self {
        Self((0..shards).map(|_| Asked { until: now, silent: None }).collect())
    }

    /// True if a shard may be asked for one part more, which counts from here on.
    pub(super) fn take(&mut self, shard: ShardIndex, now: Instant) -> bool {
        let Some(Asked { until, .. }) = self.0.get_mut(shard.index()) else { return true };
        let next = (*until).max(now) + PAGE_EVERY;
        let may = next.saturating_duration_since(now) <= PAGE_EVERY * PAGES_AT_ONCE;
        if may {
            *until = next;
        }
        may
    }

    /// Takes a shard for silent that has not answered a question, or had no room for it.
    pub(super) fn give_up(
        &mut self,
        shard: ShardIndex,
        answer: Option<Receiver<SessionPage>>,
        now: Instant,
    ) {
        let Some(asked) = self.0.get_mut(shard.index()) else { return };
        asked.silent = Some(match answer {
            Some(answer) => Silent::Asked(answer),
            None => Silent::Full { again: now + SHARD_TIME_MAX },
        });
    }

    /// True if a shard has left a question unanswered, and still does.
    pub(super) fn is_silent(&mut self, shard: ShardIndex, now: Instant) -> bool {
        let Some(Asked { silent, .. }) = self.0.get_mut(shard.index()) else { return false };
        let is_silent = match silent {
            None => false,
            Some(Silent::Asked(answer)) => matches!(answer.try_recv(), Err(TryRecvError::Empty)),
            Some(Silent::Full { again }) => now < *again,
        };
        if !is_silent {
            *silent = None;
        }
        is_silent
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_shard_is_silent_until_it_answers_or_may_have_room() {
        let start = Instant::now();
        let mut pages = Pages::new(2, start);
        let (first, second) = (ShardIndex(0), ShardIndex(1));
        let (to, answer) = sync_channel(1);
        pages.give_up(first, Some(answer), start);
        pages.give_up(second, None, start);
        let later = start + 2 * SHARD_TIME_MAX;
        assert!(pages.is_silent(first, later) && pages.is_silent(second, start));
        assert!(!pages.is_silent(second, later), "it is asked again");
        to.send(SessionPage { sessions: Vec::new(), closed: Vec::new(), next: None }).unwrap();
        assert!(!pages.is_silent(first, later) && !pages.is_silent(first, later));
    }

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
