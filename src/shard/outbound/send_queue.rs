//! The order in which outboxes are sent.

use std::collections::VecDeque;

use crate::session::SessionId;
use crate::shard::connections::{Connection, Listed};

/// The sessions whose outboxes may have something to send.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    /// Those that have got more than pushes, in the order they got it.
    dirty: VecDeque<SessionId>,
    /// Those that have got nothing but pushes.
    pushed: VecDeque<SessionId>,
    /// The list that the next one is taken from is the second.
    takes_pushed: bool,
    /// Those of the first list that are left for the next turn.
    deferred: Vec<SessionId>,
    /// Those of the first list that have much to send, in their order.
    long: VecDeque<SessionId>,
    /// The turns so far, and the last of them that has taken one of these.
    turns: u64,
    last_long: u64,
}

impl SendQueue {
    pub(super) fn begin_turn(&mut self) {
        if !self.deferred.is_empty() {
            self.dirty.extend(self.deferred.drain(..));
        }
        self.turns += 1;
    }

    /// Lists a session that has got something else than a push.
    #[inline]
    pub(super) fn mark_dirty(&mut self, session: SessionId, connection: &mut Connection) {
        if !connection.listed.is_dirty() {
            connection.listed = connection.listed.with_dirty();
            self.dirty.push_back(session);
        }
    }

    /// Lists a session that has got a push.
    #[inline]
    pub(super) fn mark_pushed(&mut self, session: SessionId, connection: &mut Connection) {
        if connection.listed == Listed::Not {
            connection.listed = Listed::Pushed;
            self.pushed.push_back(session);
        }
    }

    /// Leaves a session that [`Self::next`] has given for the next turn.
    pub(super) fn defer(&mut self, session: SessionId, connection: &mut Connection) {
        connection.listed = Listed::Deferred;
        self.deferred.push(session);
    }

    /// Puts a session that [`Self::next`] has given behind those that have less to send.
    pub(super) fn put_behind(&mut self, session: SessionId, connection: &mut Connection) {
        connection.listed = Listed::Long;
        self.long.push_back(session);
    }

    /// The next session to look at, and where one is still listed that was in both lists.
    ///
    /// Sessions that have got nothing but pushes come in turns with the others: an answer overtakes
    /// a push to thousands that was queued before it, and nobody waits for ever. Those that have
    /// much to send come behind them, and one comes first in every second turn.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(SessionId, Listed)> {
        let is_first = !self.long.is_empty() && self.turns > self.last_long + 1;
        if is_first || self.dirty.is_empty() && self.pushed.is_empty() {
            let session = self.long.pop_front()?;
            self.last_long = self.turns;
            return Some((session, Listed::Not));
        }
        self.takes_pushed = !self.takes_pushed;
        if (self.takes_pushed || self.dirty.is_empty())
            && let Some(session) = self.pushed.pop_front()
        {
            return Some((session, Listed::Dirty));
        }
        Some((self.dirty.pop_front()?, Listed::Pushed))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.pushed.is_empty() && self.long.is_empty()
    }
}
