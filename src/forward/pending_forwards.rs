//! The requests that a shard has forwarded and not yet answered.

use super::message_batch::{Head, KEPT_BYTES_MAX, Messages};
use crate::dispatch::context::{ClientCall, HeldRequest};
use crate::dispatch::{Request, Session};
use crate::route::table::RouteTable;
use crate::session::SessionId;

/// PendingForward requests by token, and in the order of their deadlines.
///
/// All deadlines of a shard are equally far away, so the order of forwarding is the order of
/// deadlines: a list through the entries keeps it, and leaving it is cheap.
#[derive(Default)]
pub(crate) struct PendingForwards {
    entries: Vec<Entry>,
    free: Vec<u32>,
    first: Option<u32>,
    last: Option<u32>,
    /// Requests in all entries.
    len: usize,
}

struct Entry {
    generation: u32,
    deadline_us: u64,
    next: Option<u32>,
    previous: Option<u32>,
    call: Option<PendingForward>,
}

/// What was forwarded at once.
pub(crate) enum PendingForward {
    One {
        client: ClientCall,
        /// For the global after filters, where there are any.
        held: Option<Box<HeldRequest>>,
    },
    Batch(PendingBatch),
}

/// The requests of a batch.
pub(crate) struct PendingBatch {
    pub(crate) session: SessionId,
    /// When they came, in microseconds of the shard's clock.
    pub(crate) started_us: u64,
    /// The ids of the batch's messages, 0 for notifies.
    pub(crate) ids: Vec<u32>,
    /// The messages that are not answered, a bit each.
    pub(crate) pending: u64,
    /// What they count for until all are answered.
    pub(crate) bytes: usize,
    /// For the global after filters, where there are any; then notifies are answered too.
    pub(crate) held: Option<Box<HeldMessages>>,
}

impl PendingBatch {
    /// One of its messages, as those that are answered by themselves.
    pub(crate) fn part(
        &self,
        index: usize,
        routes: &RouteTable,
    ) -> (ClientCall, Option<Box<HeldRequest>>) {
        let (session, started_us) = (self.session, self.started_us);
        let id = self.ids[index];
        let client = ClientCall { session, id, route: None, bytes: 0, started_us };
        (client, self.held.as_ref().and_then(|held| held.get(index, routes)))
    }
}

/// What the global after filters are to see of a batch's messages: these, and each one's session.
#[derive(Default)]
pub(crate) struct HeldMessages {
    messages: Messages,
    sessions: Vec<Session>,
}

impl HeldMessages {
    #[inline]
    pub(crate) fn push(&mut self, head: Head, body: &[u8], session: Session) {
        self.messages.push(head, body);
        self.sessions.push(session);
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Head, &[u8], &mut Session)> {
        let messages = self.messages.iter().zip(&mut self.sessions);
        messages.map(|((head, body), session)| (head, body, session))
    }

    /// One of them by itself.
    fn get(&self, index: usize, routes: &RouteTable) -> Option<Box<HeldRequest>> {
        let (head, body) = self.messages.iter().nth(index)?;
        let request = Request::new(&routes.entry(head.route).text, head.id, body).to_owned();
        Some(Box::new(HeldRequest { request, session: self.sessions.get(index)?.clone() }))
    }

    /// Forgets them; whether the memory is worth keeping.
    pub(crate) fn clear(&mut self) -> bool {
        self.messages.clear();
        self.sessions.clear();
        self.messages.capacity() <= KEPT_BYTES_MAX
    }
}

impl PendingForward {
    /// The requests in it.
    fn len(&self) -> usize {
        match self {
            Self::One { .. } => 1,
            Self::Batch(awaited) => awaited.ids.len(),
        }
    }
}

impl PendingForwards {
    /// Requests, and notifies that went with them, of which at least one waits.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes what is forwarded in; its token is never 0. Deadlines come in order.
    pub(crate) fn add(&mut self, call: PendingForward, deadline_us: u64) -> u64 {
        self.len += call.len();
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                deadline_us,
                next: None,
                previous: None,
                call: None,
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
        entry.call = Some(call);
        u64::from(entry.generation) << 32 | u64::from(index)
    }

    /// The requests of a batch's token, unless they have been answered for.
    pub(crate) fn batch_mut(&mut self, token: u64) -> Option<&mut PendingBatch> {
        let entry = self.entries.get_mut(token as u32 as usize)?;
        match &mut entry.call {
            Some(PendingForward::Batch(awaited)) if u64::from(entry.generation) == token >> 32 => {
                Some(awaited)
            }
            _ => None,
        }
    }

    /// Takes out what is of a token, unless it has been answered for.
    pub(crate) fn take(&mut self, token: u64) -> Option<PendingForward> {
        let index = token as u32;
        let entry = self.entries.get(index as usize)?;
        if u64::from(entry.generation) != token >> 32 {
            return None;
        }
        self.remove(index)
    }

    /// Takes out the first whose deadline has come.
    pub(crate) fn take_due(&mut self, now_us: u64) -> Option<PendingForward> {
        let first = self.first?;
        if self.entries[first as usize].deadline_us > now_us {
            return None;
        }
        self.remove(first)
    }

    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        Some(self.entries[self.first? as usize].deadline_us)
    }

    fn remove(&mut self, index: u32) -> Option<PendingForward> {
        let entry = &mut self.entries[index as usize];
        let call = entry.call.take()?;
        self.len -= call.len();
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

    fn call(id: u32) -> PendingForward {
        let session = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        let client = ClientCall { session, id, route: None, bytes: 0, started_us: 0 };
        PendingForward::One { client, held: None }
    }

    fn id_of(call: PendingForward) -> u32 {
        let PendingForward::One { client, .. } = call else { panic!("not what was added") };
        client.id
    }

    /// Random operations against a plain queue.
    #[test]
    fn behaves_like_a_queue_that_is_left_anywhere() {
        let mut calls = PendingForwards::default();
        let mut model: VecDeque<(u64, u32, u64)> = VecDeque::new();
        let (mut seed, mut now_us) = (0x1234_5678_9abc_def1_u64, 0);
        for id in 0..crate::testing::repetitions(50_000) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            now_us += seed % 3;
            match (seed >> 8) % 3 {
                0 => {
                    let token = calls.add(call(id), now_us + 100);
                    assert_ne!(token, 0);
                    model.push_back((token, id, now_us + 100));
                }
                1 if !model.is_empty() => {
                    let place = (seed >> 20) as usize % model.len();
                    let (token, id, _) = model.remove(place).unwrap();
                    assert_eq!(calls.take(token).map(id_of), Some(id));
                    assert!(calls.take(token).is_none(), "a token is good for one answer");
                }
                _ => {
                    while let Some(due) = calls.take_due(now_us) {
                        let (_, wanted, deadline_us) = model.pop_front().unwrap();
                        assert_eq!(id_of(due), wanted);
                        assert!(deadline_us <= now_us);
                    }
                    assert!(model.front().is_none_or(|(_, _, deadline)| *deadline > now_us));
                }
            }
            assert_eq!(calls.len(), model.len());
            assert_eq!(calls.next_deadline_us(), model.front().map(|(_, _, deadline)| *deadline));
        }
    }
}
