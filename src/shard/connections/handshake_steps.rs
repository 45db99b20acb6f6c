//! The steps of handshakes that a turn takes, and who waits for one.

use std::collections::VecDeque;

use crate::limits::turn::{HANDSHAKE_STEP_BYTES, HANDSHAKE_STEPS_PER_TURN};
use crate::session::SessionId;

/// The steps of handshakes that a turn may yet take.
#[derive(Debug, Default)]
pub(super) struct HandshakeSteps {
    left: u32,
    /// Held sessions whose handshake is not done, in the order they came.
    waiting: VecDeque<SessionId>,
    /// Some of them wait since an earlier turn, and come before whoever comes now.
    have_precedence: bool,
}

impl HandshakeSteps {
    pub(super) fn begin_turn(&mut self) {
        self.left = HANDSHAKE_STEPS_PER_TURN;
    }

    /// True if a session that nothing is held of may take a step.
    pub(super) fn may_take(&self) -> bool {
        self.left > 0 && !self.have_precedence
    }

    /// One has been taken, with so many bytes; a long one counts as several.
    pub(super) fn took(&mut self, bytes: usize) {
        let steps = 1 + bytes / HANDSHAKE_STEP_BYTES;
        self.left = self.left.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
    }

    /// True if this turn has taken many, or somebody waits.
    pub(super) fn are_wanted(&self) -> bool {
        !self.waiting.is_empty() || self.left < HANDSHAKE_STEPS_PER_TURN / 2
    }

    /// Lets whoever comes take one at once.
    pub(super) fn extend(&mut self) {
        (self.left, self.have_precedence) = (HANDSHAKE_STEPS_PER_TURN, false);
    }

    /// Lets a session wait for one.
    pub(super) fn wait(&mut self, session: SessionId) {
        self.waiting.push_back(session);
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives those that wait the steps that others had to leave them.
    pub(super) fn begin_waiting(&mut self) {
        if std::mem::take(&mut self.have_precedence) {
            self.left = HANDSHAKE_STEPS_PER_TURN;
        }
    }

    /// The next of those that wait, as long as the turn has steps.
    pub(super) fn next_waiting(&mut self) -> Option<SessionId> {
        if self.left == 0 {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Lets those that are still waiting come first in the next turn.
    pub(super) fn end_waiting(&mut self) {
        self.have_precedence = !self.waiting.is_empty();
    }
}
