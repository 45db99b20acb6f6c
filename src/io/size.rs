//! The room of a ring.

/// The room that a ring has. A poller has no need of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingSize {
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
}

impl RingSize {
    /// Memory that the kernel takes for it: entries have 64 and 16 bytes, and each ring also has a
    /// page of its own and an index for each submission.
    pub(crate) const fn bytes(self) -> u64 {
        self.submissions as u64 * (64 + 4) + self.completions as u64 * 16 + 4096
    }
}
