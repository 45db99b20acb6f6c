//! The progress of a drain.

use rustc_hash::FxHashSet;

use crate::session::SessionId;

/// The progress of a drain.
#[derive(Debug, Default)]
pub(super) struct Draining {
    pub(super) step: Step,
    /// The sessions in the order in which they are closed; some may have ended.
    pub(super) order: Vec<SessionId>,
    /// Those of them whose turn has come.
    pub(super) due: usize,
    /// Sessions whose turn has come, and that wait for their answers.
    pub(super) waiting: FxHashSet<SessionId>,
}

/// The steps of a drain, by the last that was taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    #[default]
    Not,
    /// Sessions are closed one after the other.
    Closing,
    /// All are that wait for no answer.
    Closed,
    /// The others are, too.
    Noticed,
    Cut,
}

impl Draining {
    #[inline]
    pub(super) fn has_begun(&self) -> bool {
        self.step != Step::Not
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        self.waiting.remove(&session);
    }

    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.waiting.contains(&session)
    }
}
