//! The requests that a shard has forwarded and not yet answered.

use crate::dispatch::context::{ClientCall, Held};

/// Forwarded requests by token, and in the order of their deadlines.
///
/// All deadlines of a shard are equally far away, so the order of forwarding is the order of
/// deadlines: a list through the entries keeps it, and leaving it is cheap.
#[derive(Default)]
pub(crate) struct Calls {
    entries: Vec<Entry>,
    free: Vec<u32>,
    first: Option<u32>,
    last: Option<u32>,
}

struct Entry {
    generation: u32,
    next: Option<u32>,
    previous: Option<u32>,
    call: Option<Forwarded>,
}

/// One forwarded request.
pub(crate) struct Forwarded {
    pub(crate) client: ClientCall,
    pub(crate) deadline_us: u64,
    /// For the global after filters, where there are any.
    pub(crate) held: Option<Box<Held>>,
}

impl Calls {
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Takes a request in; its token is never 0.
    pub(crate) fn add(&mut self, call: Forwarded) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, next: None, previous: None, call: None });
            self.entries.len() as u32 - 1
        });
        let last = self.last.replace(index);
        match last {
            Some(last) => self.entries[last as usize].next = Some(index),
            None => self.first = Some(index),
        }
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1).max(1);
        entry.previous = last;
        entry.next = None;
        entry.call = Some(call);
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    /// Takes the request of a token out, unless it has been answered for.
    pub(crate) fn take(&mut self, token: u64) -> Option<Forwarded> {
        let index = token as u32;
        let entry = self.entries.get(index as usize)?;
        if u64::from(entry.generation) != token >> 32 {
            return None;
        }
        self.remove(index)
    }

    /// Takes the first request out whose deadline has come.
    pub(crate) fn take_due(&mut self, now_us: u64) -> Option<Forwarded> {
        let first = self.first?;
        let call = self.entries[first as usize].call.as_ref().expect("a listed entry is taken");
        if call.deadline_us > now_us {
            return None;
        }
        self.remove(first)
    }

    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        let entry = &self.entries[self.first? as usize];
        entry.call.as_ref().map(|call| call.deadline_us)
    }

    fn remove(&mut self, index: u32) -> Option<Forwarded> {
        let entry = &mut self.entries[index as usize];
        let call = entry.call.take()?;
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
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::session::{Generation, SessionId, ShardIndex, Slot};

    fn call(id: u32, deadline_us: u64) -> Forwarded {
        let session = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        let client = ClientCall { session, id, route: None, started_us: 0 };
        Forwarded { client, deadline_us, held: None }
    }

    /// Random operations against a plain queue.
    #[test]
    fn behaves_like_a_queue_that_is_left_anywhere() {
        let mut calls = Calls::default();
        let mut model: VecDeque<(u64, u32, u64)> = VecDeque::new();
        let (mut seed, mut now_us) = (0x1234_5678_9abc_def1_u64, 0);
        for id in 0..50_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            now_us += seed % 3;
            match (seed >> 8) % 3 {
                0 => {
                    let token = calls.add(call(id, now_us + 100));
                    assert_ne!(token, 0);
                    model.push_back((token, id, now_us + 100));
                }
                1 if !model.is_empty() => {
                    let place = (seed >> 20) as usize % model.len();
                    let (token, id, _) = model.remove(place).unwrap();
                    assert_eq!(calls.take(token).map(|call| call.client.id), Some(id));
                    assert!(calls.take(token).is_none(), "a token is good for one answer");
                }
                _ => {
                    while let Some(due) = calls.take_due(now_us) {
                        let (_, id, deadline_us) = model.pop_front().unwrap();
                        assert_eq!((due.client.id, due.deadline_us), (id, deadline_us));
                    }
                    assert!(model.front().is_none_or(|(_, _, deadline)| *deadline > now_us));
                }
            }
            assert_eq!(calls.len(), model.len());
            assert_eq!(calls.next_deadline_us(), model.front().map(|(_, _, deadline)| *deadline));
        }
    }
}
