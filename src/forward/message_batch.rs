//! Messages of one session that go to a worker together, and their answers on the way back.
//!
//! A shard fills a batch with what a client has sent in one piece of input. The worker lays the
//! answers out in the same memory as the client gets them, and sends it back. So a hop costs one
//! mail for all of them, and what moves from one core to the other stands one behind the other.

use std::sync::Arc;

use super::workers::WorkerIndex;
use crate::route::table::RouteId;
use crate::session::{SessionData, SessionId};

/// The most messages in a batch: a bit says of each whether it is answered.
pub(crate) const MESSAGES_MAX: usize = u64::BITS as usize;
/// The most bytes of a body that goes into a batch; a longer one goes alone.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;
/// A batch with this many bytes takes no more.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a batch at the most: the last message may go above `BATCH_BYTES_MAX`.
pub(crate) const BYTES_MAX: usize = BATCH_BYTES_MAX + HEAD_BYTES + BODY_BYTES_MAX;

/// Messages on their way to a worker, or back.
pub(crate) struct MessageBatch {
    /// Comes back with the answers; 0 where nobody waits for any.
    pub(crate) token: u64,
    pub(crate) session: SessionId,
    /// The worker that it goes to.
    pub(crate) worker: WorkerIndex,
    /// Set where answers stand in frames of their own.
    pub(crate) is_websocket: bool,
    /// Set where the shard is told of the end of each message, of notifies too, and what is not an
    /// ordinary answer as it is: its filters are to see it.
    pub(crate) tells_all: bool,
    /// The session's data, twice: one goes into the snapshot that handlers get, and the other
    /// stays as it is for the next message. Only the shard changes the count, as long as handlers
    /// leave the snapshot alone, so that its cache line stays where it is.
    pub(crate) data: Option<[Arc<SessionData>; 2]>,
    pub(crate) messages: Messages,
    /// Answers, laid out one behind the other.
    pub(crate) answers: Vec<u8>,
    /// The messages that they answer, a bit each.
    pub(crate) answered: u64,
    /// Of these, those whose handlers have failed.
    pub(crate) failed: u16,
}

/// The messages of a batch, in the order they came: each a head and its body, all in one piece of
/// memory, as the worker's core has to fetch it from the shard's.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    len: usize,
}

/// The words before a message's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The client's request id; 0 for a notify.
    pub(crate) id: u32,
    pub(crate) route: RouteId,
}

/// An id, a route and a body's length.
const HEAD_BYTES: usize = 3 * size_of::<u32>();

impl Messages {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.len >= MESSAGES_MAX || self.bytes.len() >= BATCH_BYTES_MAX
    }

    /// Adds a message; its body is at most [`BODY_BYTES_MAX`].
    #[inline]
    pub(crate) fn push(&mut self, head: Head, body: &[u8]) {
        debug_assert!(!self.is_full() && body.len() <= BODY_BYTES_MAX);
        let words = [head.id, head.route.to_bits(), body.len() as u32];
        self.bytes.extend_from_slice(words.map(u32::to_ne_bytes).as_flattened());
        self.bytes.extend_from_slice(body);
        self.len += 1;
    }

    /// Each message with its body.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Head, &[u8])> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (head, behind) = rest.split_first_chunk::<HEAD_BYTES>()?;
            let (words, _) = head.as_chunks();
            let [id, route, body_len] = [words[0], words[1], words[2]].map(u32::from_ne_bytes);
            let (body, behind) = behind.split_at_checked(body_len as usize)?;
            rest = behind;
            Some((Head { id, route: RouteId::from_bits(route) }, body))
        })
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.len = 0;
    }

    /// The bytes of the messages, with what stands before each.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that it holds memory for.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Empty batches, kept for the next messages.
#[derive(Default)]
pub(crate) struct BatchPool {
    #[allow(clippy::vec_box)] // The boxes are what goes to and fro.
    empty: Vec<Box<MessageBatch>>,
}

/// Empty batches that are kept, at most.
const KEPT_MAX: usize = 1024;
/// Memory that an empty batch may hold to be kept.
pub(super) const KEPT_BYTES_MAX: usize = 8 * 1024;

impl BatchPool {
    /// An empty batch of a session for a worker.
    pub(crate) fn take(&mut self, session: SessionId, worker: WorkerIndex) -> Box<MessageBatch> {
        if let Some(mut batch) = self.empty.pop() {
            batch.session = session;
            batch.worker = worker;
            return batch;
        }
        Box::new(MessageBatch {
            token: 0,
            session,
            worker,
            is_websocket: false,
            tells_all: false,
            data: None,
            messages: Messages::default(),
            answers: Vec::new(),
            answered: 0,
            failed: 0,
        })
    }

    /// Takes a batch back whose answers have been read.
    pub(crate) fn give(&mut self, mut batch: Box<MessageBatch>) {
        let bytes = batch.messages.capacity() + batch.answers.capacity();
        if self.empty.len() == KEPT_MAX || bytes > KEPT_BYTES_MAX {
            return;
        }
        batch.messages.clear();
        batch.answers.clear();
        batch.answered = 0;
        batch.failed = 0;
        batch.data = None;
        self.empty.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::RouteTable;
    use crate::session::{Generation, ShardIndex, Slot};

    fn names() -> (SessionId, RouteId) {
        let table = RouteTable::new(["chat.chatHandler.echo".to_owned()], None, None);
        let route = table.find(b"chat.chatHandler.echo").unwrap();
        (SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST), route)
    }

    #[test]
    fn messages_come_out_as_they_went_in_and_an_empty_batch_is_used_again() {
        let (session, route) = names();
        let mut batches = BatchPool::default();
        for _ in 0..2 {
            let mut batch = batches.take(session, WorkerIndex(0));
            assert!(batch.messages.len() == 0 && batch.answers.is_empty());
            let mut count = 0;
            while !batch.messages.is_full() {
                let body = vec![count as u8; count];
                batch.messages.push(Head { id: count as u32, route }, &body);
                count += 1;
            }
            assert_eq!(count, MESSAGES_MAX);
            for (at, (head, body)) in batch.messages.iter().enumerate() {
                assert_eq!((head.id, body), (at as u32, &vec![at as u8; at][..]));
            }
            batch.answers.extend_from_slice(b"answers");
            batches.give(batch);
            assert_eq!(batches.empty.len(), 1);
        }
    }

    #[test]
    fn a_batch_is_full_of_bytes_too_and_a_large_one_is_not_kept() {
        let (session, route) = names();
        let mut batches = BatchPool::default();
        let mut batch = batches.take(session, WorkerIndex(0));
        while !batch.messages.is_full() {
            batch.messages.push(Head { id: 1, route }, &[0; BODY_BYTES_MAX]);
        }
        assert_eq!(batch.messages.len(), BATCH_BYTES_MAX / BODY_BYTES_MAX);
        batches.give(batch);
        assert!(batches.empty.is_empty());
    }
}
