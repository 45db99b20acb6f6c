//! The numbers of editions.

/// The number of an edition within one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EditionId(pub(crate) u16);

impl EditionId {
    /// The edition with which an engine starts.
    pub(crate) const FIRST: Self = Self(0);

    /// The next number. It wraps after 65,536 changes; a shard closes the sessions that still have
    /// the earlier edition then.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}
