//! The bytes that a shard keeps for its sessions, against [`Limits::shard_bytes_max`].
//!
//! A session may keep as much as all of them leave free. So a few that take what they can leave
//! each other session as much as each of them has, and nobody has to be looked for when memory
//! runs short: the one that asks for more is the one that is refused.
//!
//! Messages in flight count exactly. Input and output of a connection are counted once it has been
//! read, and once a turn when its output is sent, and only above [`UNCOUNTED_BYTES`], so that an
//! ordinary session costs nothing here.
//!
//! [`Limits::shard_bytes_max`]: crate::Limits::shard_bytes_max

use super::connection::Connection;

/// The bytes kept for all sessions of a shard.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    kept: usize,
}

/// Input and output of a connection that do not count.
pub(in crate::shard) const UNCOUNTED_BYTES: usize = 64 * 1024;

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: 0 }
    }

    /// The most that any session may keep.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.bytes_max.saturating_sub(self.kept)
    }

    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.kept += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        debug_assert!(self.kept >= bytes, "what is given back was taken");
        self.kept = self.kept.saturating_sub(bytes);
    }
}

impl Connection {
    /// The bytes that count of its input and output.
    pub(super) fn counted_bytes(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.buffer.capacity());
        let message = self.message.as_ref().map_or(0, |message| message.payload.capacity());
        match partial + message + self.outbox.own_bytes() {
            0..=UNCOUNTED_BYTES => 0,
            bytes => bytes,
        }
    }

    /// The bytes that count of everything that is kept for it.
    pub(in crate::shard) fn kept_bytes(&self) -> usize {
        self.io_bytes as usize + self.session.in_flight_bytes as usize
    }
}
