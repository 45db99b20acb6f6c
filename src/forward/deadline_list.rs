//! A list of what waits until a deadline, such as requests for their answers.

/// Values by token, and in the order of their deadlines.
///
/// All deadlines of a list are equally far away, so the order of adding is the order of deadlines:
/// a chain through the entries keeps it, and taking one out from anywhere is cheap. Whoever adds
/// to it bounds it.
pub(crate) struct DeadlineList<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    first: Option<u32>,
    last: Option<u32>,
}

struct Entry<T> {
    /// Goes up with each value, so that the token of one that is gone finds nothing. It has 32
    /// bits, as one entry may be used a million times a second.
    generation: u32,
    deadline_us: u64,
    /// INVARIANT: entries that hold a value.
    next: Option<u32>,
    previous: Option<u32>,
    value: Option<T>,
}

impl<T> Default for DeadlineList<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), first: None, last: None }
    }
}

impl<T> DeadlineList<T> {
    #[cfg(any(test, feature = "pitaya"))]
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Takes a value in; its token is never 0. Deadlines come in order.
    pub(crate) fn add(&mut self, value: T, deadline_us: u64) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                deadline_us,
                next: None,
                previous: None,
                value: None,
            });
            self.entries.len() as u32 - 1
        });
        let last = self.last.replace(index);
        match last {
            Some(last) => self.entries[last as usize].next = Some(index),
            None => self.first = Some(index),
        }
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1).max(1);
        entry.deadline_us = deadline_us;
        entry.previous = last;
        entry.next = None;
        entry.value = Some(value);
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    #[cfg(feature = "pitaya")]
    pub(crate) fn get(&self, token: u64) -> Option<&T> {
        let entry = self.entries.get(token as u32 as usize)?;
        entry.value.as_ref().filter(|_| u64::from(entry.generation) == token >> 32)
    }

    pub(crate) fn get_mut(&mut self, token: u64) -> Option<&mut T> {
        let entry = self.entries.get_mut(token as u32 as usize)?;
        entry.value.as_mut().filter(|_| u64::from(entry.generation) == token >> 32)
    }

    /// Takes out the value of a token, unless that has been done.
    pub(crate) fn take(&mut self, token: u64) -> Option<T> {
        let index = token as u32;
        let entry = self.entries.get(index as usize)?;
        if u64::from(entry.generation) != token >> 32 {
            return None;
        }
        self.remove(index)
    }

    /// Takes out the first whose deadline has come.
    pub(crate) fn take_due(&mut self, now_us: u64) -> Option<T> {
        let first = self.first?;
        if self.entries[first as usize].deadline_us > now_us {
            return None;
        }
        self.remove(first)
    }

    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        Some(self.entries[self.first? as usize].deadline_us)
    }

    fn remove(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        let value = entry.value.take()?;
        let (next, previous) = (entry.next, entry.previous);
        match previous {
            Some(previous) => self.entries[previous as usize].next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.entries[next as usize].previous = previous,
            None => self.last = previous,
        }
        self.free.push(index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn deadlines_come_in_order_whatever_is_taken_between() {
        let mut list = DeadlineList::default();
        let tokens: Vec<u64> = (0..5).map(|n| list.add(n, 10 + n)).collect();
        for at in [4, 0, 2] {
            assert_eq!(list.take(tokens[at]), Some(at as u64));
            assert_eq!(list.take(tokens[at]), None, "it is taken once");
        }
        assert_eq!(list.next_deadline_us(), Some(11));
        assert_eq!(list.take_due(10), None);
        assert_eq!(list.take_due(20), Some(1));
        assert_eq!(list.take_due(20), Some(3));
        assert_eq!((list.take_due(20), list.len()), (None, 0));
    }

    /// Random operations against a plain queue.
    #[test]
    fn behaves_like_a_queue_that_is_left_anywhere() {
        let mut list = DeadlineList::default();
        let mut model: VecDeque<(u64, u32, u64)> = VecDeque::new();
        let (mut seed, mut now_us) = (0x1234_5678_9abc_def1_u64, 0);
        for value in 0..crate::test_cases::repetitions(50_000) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            now_us += seed % 3;
            match (seed >> 8) % 3 {
                0 => {
                    let token = list.add(value, now_us + 100);
                    assert_ne!(token, 0);
                    assert_eq!(list.get_mut(token), Some(&mut { value }));
                    model.push_back((token, value, now_us + 100));
                }
                1 if !model.is_empty() => {
                    let at = (seed >> 20) as usize % model.len();
                    let (token, value, _) = model.remove(at).unwrap();
                    assert_eq!(list.take(token), Some(value));
                    assert!(list.take(token).is_none(), "a token is good for one value");
                    assert!(list.get_mut(token).is_none());
                }
                _ => {
                    while let Some(due) = list.take_due(now_us) {
                        let (_, wanted, deadline_us) = model.pop_front().unwrap();
                        assert_eq!(due, wanted);
                        assert!(deadline_us <= now_us);
                    }
                    assert!(model.front().is_none_or(|(_, _, deadline)| *deadline > now_us));
                }
            }
            assert_eq!(list.len(), model.len());
            assert_eq!(list.next_deadline_us(), model.front().map(|(_, _, deadline)| *deadline));
        }
    }
}
