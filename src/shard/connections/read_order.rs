//! The order in which held sessions are read.

use std::collections::VecDeque;

use crate::session::SessionId;

/// Held sessions whose handshake is done, in the order in which they are read.
#[derive(Debug, Default)]
pub(super) struct ReadOrder {
    /// Those whose turn has come.
    ready: VecDeque<SessionId>,
    /// Those that were held in this turn.
    next: Vec<SessionId>,
    /// Those that get long answers, or are new. They come behind the others.
    behind: VecDeque<SessionId>,
    /// The number of those that were there when the turn began.
    behind_before: usize,
}

impl ReadOrder {
    pub(super) fn begin_turn(&mut self) {
        self.behind_before = self.behind.len();
    }

    /// Lines a session up for the next turn.
    pub(super) fn add(&mut self, session: SessionId, is_behind: bool) {
        if is_behind {
            self.behind.push_back(session);
        } else {
            self.next.push(session);
        }
    }

    /// Has the turn come of those that were held in this one.
    pub(super) fn end_turn(&mut self) {
        if !self.next.is_empty() {
            self.ready.extend(self.next.drain(..));
        }
    }

    /// True if nobody is to be read.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.behind.is_empty() && self.next.is_empty()
    }

    /// True if somebody has to come behind the others.
    pub(super) fn has_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The sessions held in earlier turns: those whose turn has come, and those behind them.
    pub(super) fn lens(&self) -> [usize; 2] {
        [self.ready.len(), self.behind_before]
    }

    /// The next of the one or the other.
    pub(super) fn pop(&mut self, is_behind: bool) -> Option<SessionId> {
        if is_behind { &mut self.behind } else { &mut self.ready }.pop_front()
    }
}
