//! The buffers and queues that are free for the sessions of a thread.

use super::buffers::Buffers;
use super::queue::Queue;
use super::segment::Since;

/// Free buffers and queues of a thread's sessions, and the time of the turn.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    buffers: Buffers,
    #[allow(clippy::vec_box)] // An outbox holds it boxed.
    queues: Vec<Box<Queue>>,
    /// The time of this turn, from which waiting times are counted.
    now: Since,
}

/// The most queues that a pool keeps; further ones are freed.
const QUEUES_LEN_MAX: usize = 256;

impl BufferPool {
    pub(crate) fn begin_turn(&mut self, now_ms: u64) {
        self.now = Since::now(now_ms);
    }

    pub(super) fn now(&self) -> Since {
        self.now
    }

    pub(super) fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    pub(super) fn take_queue(&mut self) -> Box<Queue> {
        self.queues.pop().unwrap_or_default()
    }

    pub(super) fn give_queue(&mut self, queue: Box<Queue>) {
        debug_assert!(queue.is_empty());
        if self.queues.len() < QUEUES_LEN_MAX && queue.is_small() {
            self.queues.push(queue);
        }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.buffers.take()
    }

    #[inline]
    pub(crate) fn give(&mut self, buffer: Vec<u8>) {
        self.buffers.give(buffer);
    }

    /// Frees a piece of a large buffer. True if there is more to free.
    #[inline]
    pub(crate) fn give_back(&mut self) -> bool {
        self.buffers.give_back()
    }
}
