//! Work that a client can ask for with few bytes: bodies to inflate, signatures to check.
//!
//! It counts in bytes, as long as one that is inflated takes. It is of the session's share of the
//! turn, and a turn does only so much of it for all sessions together: what comes above that waits
//! for a later turn, its session paused, in the order it came.
//!
//! A body that grows above a session's share is inflated a part in each turn, one such body after
//! another, so that a shard has one buffer of that length.

use std::collections::VecDeque;

use crate::dispatch::context::ClientCall;
use crate::limits::Limits;
use crate::limits::turn::INFLATED_PART_MIN;
use crate::wire::pitaya::Inflater;

/// The work of one shard.
pub(super) struct Work {
    per_turn: usize,
    /// Work that this turn may yet do.
    left: usize,
    /// The part of one body that is done in a turn.
    pub(super) part: usize,
    pub(super) inflater: Inflater,
    /// Messages that came when no more could be done.
    pub(super) waiting: VecDeque<Waiting>,
    /// Those whose bodies grow above a part.
    pub(super) large: VecDeque<Waiting>,
    /// The first of these, whose body is being inflated.
    pub(super) begun: Option<Waiting>,
    pub(super) large_inflater: Inflater,
    /// The part of its body that is made. The memory stays for the next one that waits: the kernel
    /// takes as long to give and to take it as the body takes.
    pub(super) large_plain: Vec<u8>,
}

/// A message that waits. INVARIANT: its session is paused, or has ended.
pub(super) struct Waiting {
    pub(super) client: ClientCall,
    /// The body of its package.
    pub(super) message: Vec<u8>,
}

/// Bytes that a message that waits counts for besides its own, against `held_bytes_max`.
pub(super) const WAITING_BYTES: usize = 256;

impl Waiting {
    pub(super) fn bytes(&self) -> usize {
        WAITING_BYTES + self.message.len()
    }
}

impl Work {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            per_turn: limits.work_per_turn_max,
            left: limits.work_per_turn_max,
            part: limits.bytes_per_turn_max.min(limits.work_per_turn_max).max(INFLATED_PART_MIN),
            inflater: Inflater::default(),
            waiting: VecDeque::new(),
            large: VecDeque::new(),
            begun: None,
            large_inflater: Inflater::default(),
            large_plain: Vec::new(),
        }
    }

    /// Gives the next turn its work.
    pub(super) fn end_turn(&mut self) {
        self.left = self.per_turn;
    }

    /// True if the next turn has something to do.
    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty() || !self.large.is_empty() || self.begun.is_some()
    }

    /// Messages that wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.large.len() + usize::from(self.begun.is_some())
    }

    /// True if a message that needs work may have it now: some is left, and nobody waits for it.
    #[inline]
    pub(super) fn is_free(&self) -> bool {
        self.left > 0 && self.waiting.is_empty()
    }

    /// Counts work that was done.
    pub(super) fn charge(&mut self, work: usize) {
        self.left = self.left.saturating_sub(work);
    }

    /// Takes the next message that waits, as long as the turn has work left.
    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        if self.left == 0 { None } else { self.waiting.pop_front() }
    }
}
