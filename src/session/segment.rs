//! A piece of what is sent to one client, and the time from which it has waited.

use bytes::Bytes;

/// A buffer on its way to the socket.
#[derive(Debug)]
pub(crate) enum Segment {
    /// Bytes of this session alone; the buffer returns to the pool.
    Owned(Vec<u8>),
    /// Bytes that many sessions share.
    Shared(Bytes),
}

impl Segment {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// The time from which a required piece has waited, in milliseconds of a clock that wraps every
/// seven weeks. Required are all bytes but the pushes that may be dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Since(u32);

impl Since {
    /// Nothing waits, or only pushes that may be dropped.
    pub(crate) const NEVER: Self = Self(0);

    pub(crate) fn now(now_ms: u64) -> Self {
        Self((now_ms as u32).max(1))
    }

    pub(crate) fn age_ms(self, now_ms: u64) -> Option<u64> {
        let age_ms = u64::from((now_ms as u32).wrapping_sub(self.0));
        // A start at 0 is stored as 1, so it may lie a millisecond ahead.
        (self != Self::NEVER).then_some(if age_ms > u64::from(u32::MAX / 2) { 0 } else { age_ms })
    }
}

/// The size in bytes from which a shared push is queued by reference; a shorter one is copied.
pub(super) const SHARE_BYTES_MIN: usize = 2048;
/// The approximate size of a segment that is gathered from small pieces, in bytes.
pub(super) const GATHER_BYTES: usize = 16 * 1024;
