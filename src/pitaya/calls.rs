//! What has a deadline: who waits for servers' answers, and what is under way at them.

use crate::session::{Generation, Slot, Table, place_of, token_of};

/// Requests by token, and in the order of their deadlines.
///
/// All deadlines are equally far away, so the order of calling is the order of deadlines: a list
/// through the entries keeps it, and an answer takes its request out from anywhere.
pub(super) struct Calls<W> {
    entries: Table<Entry<W>>,
    first: Option<Slot>,
    last: Option<Slot>,
}

struct Entry<W> {
    waiter: W,
    deadline_us: u64,
    /// INVARIANT: slots that are taken.
    next: Option<Slot>,
    previous: Option<Slot>,
}

impl<W> Calls<W> {
    pub(super) fn new(len_max: usize) -> Self {
        Self { entries: Table::new(len_max), first: None, last: None }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes a request in; `None` when there are too many.
    pub(super) fn add(&mut self, waiter: W, deadline_us: u64) -> Option<u64> {
        let entry = Entry { waiter, deadline_us, next: None, previous: self.last };
        let place = self.entries.insert(entry)?;
        let slot = place.0;
        match self.last.replace(slot).and_then(|last| self.entries.at_mut(last)) {
            Some(last) => last.next = Some(slot),
            None => self.first = Some(slot),
        }
        Some(token_of(place))
    }

    pub(super) fn get(&self, token: u64) -> Option<&W> {
        let (slot, generation): (Slot, Generation) = place_of(token);
        self.entries.get(slot, generation).map(|entry| &entry.waiter)
    }

    pub(super) fn get_mut(&mut self, token: u64) -> Option<&mut W> {
        let (slot, generation): (Slot, Generation) = place_of(token);
        self.entries.get_mut(slot, generation).map(|entry| &mut entry.waiter)
    }

    /// Takes the request of a token out, unless it has been answered for.
    pub(super) fn take(&mut self, token: u64) -> Option<W> {
        let (slot, generation): (Slot, Generation) = place_of(token);
        self.entries.get(slot, generation)?;
        let entry = self.entries.remove(slot)?;
        match entry.previous.and_then(|previous| self.entries.at_mut(previous)) {
            Some(previous) => previous.next = entry.next,
            None => self.first = entry.next,
        }
        match entry.next.and_then(|next| self.entries.at_mut(next)) {
            Some(next) => next.previous = entry.previous,
            None => self.last = entry.previous,
        }
        Some(entry.waiter)
    }

    /// Takes out a request whose deadline has come.
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<W> {
        self.next_deadline_us().filter(|deadline_us| *deadline_us <= now_us)?;
        self.take_first()
    }

    /// Takes out the oldest request.
    pub(super) fn take_first(&mut self) -> Option<W> {
        let slot = self.first?;
        self.take(token_of((slot, self.entries.generation(slot))))
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        self.first.and_then(|slot| self.entries.at(slot)).map(|entry| entry.deadline_us)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn deadlines_come_in_order_whatever_is_answered_between() {
        let mut calls = Calls::new(8);
        let tokens: Vec<u64> = (0..5).map(|n| calls.add(n, 10 + n).unwrap()).collect();
        for at in [4, 0, 2] {
            assert_eq!(calls.take(tokens[at]), Some(at as u64));
            assert_eq!(calls.take(tokens[at]), None, "it is answered once");
        }
        assert_eq!(calls.next_deadline_us(), Some(11));
        assert_eq!(calls.take_due(10), None);
        assert_eq!(calls.take_due(20), Some(1));
        assert_eq!(calls.take_due(20), Some(3));
        assert_eq!((calls.take_due(20), calls.len()), (None, 0));
    }

    #[test]
    fn there_are_never_more_than_said() {
        let mut calls = Calls::new(2);
        let token = calls.add('a', 1).unwrap();
        assert!(calls.add('b', 1).is_some());
        assert_eq!(calls.add('c', 1), None);
        calls.take(token);
        assert!(calls.add('c', 1).is_some());
        assert_eq!(calls.take(token), None, "a token is not used again");
    }

    /// Random operations against a plain list.
    #[test]
    fn it_does_as_a_list_would() {
        let mut calls = Calls::new(16);
        let mut model: VecDeque<(u64, u64)> = VecDeque::new();
        let (mut state, mut now_us) = (7_u64, 0);
        for n in 0..crate::testing::repetitions(10_000).into() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match state >> 62 {
                0 | 1 => match calls.add(n, n + 20) {
                    Some(token) => model.push_back((token, n)),
                    None => assert_eq!(model.len(), 16),
                },
                2 if !model.is_empty() => {
                    let at = (state >> 32) as usize % model.len();
                    let (token, value) = model.remove(at).unwrap();
                    assert_eq!(calls.take(token), Some(value));
                }
                _ => {
                    now_us = n;
                    let due = model.pop_front_if(|(_, value)| *value + 20 <= now_us);
                    assert_eq!(calls.take_due(now_us), due.map(|(_, value)| value));
                }
            }
            assert_eq!(calls.len(), model.len());
        }
        assert!(now_us > 0);
    }
}
