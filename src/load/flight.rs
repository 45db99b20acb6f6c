//! The requests of one connection that are in flight.

use smallvec::SmallVec;

/// Ids that follow each other, by their indexes. They may go on beyond the last, where the first
/// come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// The requests of one connection that are in flight.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// In the order in which they were sent.
    bursts: SmallVec<[Burst; 2]>,
    len: u32,
    /// The index of the next request's id, if `free` is not 0.
    next: u32,
    /// Ids from there on that are known not to be in flight.
    free: u32,
}

/// Requests that were sent, or due, at one time, and some of which are in flight: a bit for each.
///
/// A thousand connections are more than a cache holds, so each keeps little.
#[derive(Debug)]
struct Burst {
    at_ns: u64,
    unanswered: u64,
    first: u32,
}

impl Span {
    /// The span of both, if the other goes on where this ends.
    pub(super) fn joined(self, next: Self, ids: u32) -> Option<Self> {
        if self.count == 0 {
            return Some(next);
        }
        let count = self.count + next.count;
        (wrapped(self.start + self.count, ids) == next.start).then_some(Self { count, ..self })
    }
}

impl Flight {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Takes ids that follow each other, up to `most` of all `ids`, one of which at least is not in
    /// flight. Their requests count from `at_ns`.
    pub(super) fn begin(&mut self, most: u32, ids: u32, at_ns: u64) -> Span {
        if self.free == 0 {
            self.find_free(ids);
        }
        let start = self.next;
        let has_room = |burst: &Burst| burst.at_ns == at_ns && burst.offset(start, ids) < u64::BITS;
        if !self.bursts.last().is_some_and(has_room) {
            self.bursts.push(Burst { at_ns, unanswered: 0, first: start });
        }
        let burst = self.bursts.last_mut().expect("one was pushed if there was none");
        let offset = burst.offset(start, ids);
        let count = most.min(self.free).min(u64::BITS.min(ids) - offset);
        burst.unanswered |= (u64::MAX >> (u64::BITS - count)) << offset;
        self.len += count;
        self.free -= count;
        self.next = wrapped(start + count, ids);
        Span { start, count }
    }

    /// Mostly the next is free, and so are all up to the first that was sent, a round of ids ago.
    #[cold]
    fn find_free(&mut self, ids: u32) {
        let mut is_in_flight = vec![false; ids as usize];
        let in_flight = self.bursts.iter().flat_map(|burst| burst.in_flight(ids));
        in_flight.for_each(|index| is_in_flight[index as usize] = true);
        let from = |start| (0..ids).map(move |more| wrapped(start + more, ids));
        let is_free = |index: &u32| !is_in_flight[*index as usize];
        self.next = from(self.next).find(is_free).expect("some id is not in flight");
        self.free = from(self.next).take_while(is_free).count() as u32;
    }

    /// Notes an answer. Gives the time when its request was sent, if one of that id was in flight.
    pub(super) fn take(&mut self, id_index: u32, ids: u32) -> Option<u64> {
        let mut bursts = self.bursts.iter().enumerate();
        // Mostly it is of the first.
        let (index, bit) = bursts.find_map(|(index, burst)| {
            let bit = 1_u64.checked_shl(burst.offset(id_index, ids))?;
            (burst.unanswered & bit != 0).then_some((index, bit))
        })?;
        Some(self.answered(index, bit))
    }

    /// Those that have waited longest and follow each other: what most servers answer next.
    pub(super) fn oldest(&self, ids: u32) -> Span {
        let Some(burst) = self.bursts.first() else { return Span::default() };
        let offset = burst.unanswered.trailing_zeros();
        let count = (burst.unanswered >> offset).trailing_ones();
        Span { start: wrapped(burst.first + offset, ids), count }
    }

    /// Notes the answers to the first of [`Self::oldest`]. Gives the time when they were sent.
    pub(super) fn take_oldest(&mut self, count: u32) -> u64 {
        let offset = self.bursts[0].unanswered.trailing_zeros();
        self.answered(0, (u64::MAX >> (u64::BITS - count)) << offset)
    }

    fn answered(&mut self, index: usize, bits: u64) -> u64 {
        let burst = &mut self.bursts[index];
        let at_ns = burst.at_ns;
        burst.unanswered &= !bits;
        if burst.unanswered == 0 {
            self.bursts.remove(index);
        }
        self.len -= bits.count_ones();
        at_ns
    }
}

impl Burst {
    /// The bit of an id; it may have none here.
    fn offset(&self, id_index: u32, ids: u32) -> u32 {
        distance(self.first, id_index, ids)
    }

    /// The ids in flight.
    fn in_flight(&self, ids: u32) -> impl Iterator<Item = u32> {
        let is_in_flight = |offset: &u32| self.unanswered >> offset & 1 != 0;
        (0..u64::BITS).filter(is_in_flight).map(move |offset| wrapped(self.first + offset, ids))
    }
}

/// The steps from one id on to another.
fn distance(from: u32, to: u32, ids: u32) -> u32 {
    if to >= from { to - from } else { to + ids - from }
}

fn wrapped(id_index: u32, ids: u32) -> u32 {
    if id_index >= ids { id_index - ids } else { id_index }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::test_cases::repetitions;

    #[test]
    fn what_was_sent_at_one_time_is_together() {
        const IDS: u32 = 300;
        let mut flight = Flight { next: IDS - 30, free: IDS, ..Flight::default() };
        assert_eq!(flight.begin(100, IDS, 1), Span { start: IDS - 30, count: 64 });
        assert_eq!(flight.begin(36, IDS, 1), Span { start: 34, count: 36 });
        assert_eq!(flight.begin(1, IDS, 2), Span { start: 70, count: 1 });
        assert_eq!((flight.bursts.len(), flight.len()), (3, 101));
        assert_eq!(flight.take(10, IDS), Some(1));
        assert_eq!(flight.oldest(IDS), Span { start: IDS - 30, count: 40 });
        assert_eq!((flight.take_oldest(40), flight.len()), (1, 60));
        assert_eq!(flight.oldest(IDS), Span { start: 11, count: 23 });
    }

    /// The same as a map does, however few ids there are and whatever is answered next.
    #[test]
    fn no_id_is_in_flight_twice() {
        let mut state = 1_u32;
        let mut random = move |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for ids in [2, 3, 17, 63, 64, 65, 130, 1000] {
            let (mut flight, mut model) = (Flight::default(), BTreeMap::new());
            for step in 0..repetitions(3000) {
                let at_ns = u64::from(step / 4);
                let room = ids - 1 - flight.len();
                if room > 0 && random(2) == 0 {
                    let most = 1 + random(room.min(80));
                    let span = flight.begin(most, ids, at_ns);
                    assert!(span.start < ids && (1..=most).contains(&span.count));
                    for index in span.start..span.start + span.count {
                        assert_eq!(model.insert(wrapped(index, ids), at_ns), None);
                    }
                } else if random(2) == 0 {
                    let index = random(ids);
                    assert_eq!(flight.take(index, ids), model.remove(&index));
                } else {
                    let Span { start, count } = flight.oldest(ids);
                    let taken = if count == 0 { 0 } else { 1 + random(count) };
                    let at_ns = (taken > 0).then(|| flight.take_oldest(taken));
                    for index in start..start + taken {
                        assert_eq!(model.remove(&wrapped(index, ids)), at_ns);
                    }
                }
                assert_eq!(flight.len() as usize, model.len());
            }
        }
    }
}
