//! The bytes of a lane that its worker has not handled, counted without a count that both write.
//!
//! The shard adds up what it has sent, the worker what it has handled; the difference is what the
//! lane keeps. The worker publishes its sum once a turn, and the shard looks at it only when what
//! it saw last leaves too little room.

use std::cell::Cell;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

/// The worker's sum, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Published(AtomicU64);

/// The end of the party that sends.
#[derive(Debug)]
pub(crate) struct SentBytes {
    sent: u64,
    /// The receiver's sum when it was last looked at.
    handled: Cell<u64>,
    published: Arc<Published>,
}

/// The end of the party that receives.
#[derive(Debug)]
pub(crate) struct HandledBytes {
    handled: u64,
    published: Arc<Published>,
}

/// Both ends of a lane's bytes.
pub(crate) fn lane_bytes() -> (SentBytes, HandledBytes) {
    let published = Arc::<Published>::default();
    let sent = SentBytes { sent: 0, handled: Cell::new(0), published: Arc::clone(&published) };
    (sent, HandledBytes { handled: 0, published })
}

impl SentBytes {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Bytes that the lane keeps, or more than that where it is below `enough` all the same.
    #[inline]
    pub(crate) fn kept_below(&self, enough: usize) -> usize {
        let kept = self.sent - self.handled.get();
        if kept < enough as u64 {
            return kept as usize;
        }
        self.kept() as usize
    }

    #[cold]
    fn kept(&self) -> u64 {
        self.handled.set(self.published.0.load(Ordering::Relaxed));
        self.sent - self.handled.get()
    }
}

impl HandledBytes {
    #[inline]
    pub(crate) fn add(&mut self, bytes: usize) {
        self.handled += bytes as u64;
    }

    /// Lets the sender see the sum. Its order against other writes does not matter: it only tells
    /// of memory that has been given back.
    pub(crate) fn publish(&self) {
        self.published.0.store(self.handled, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(shaddock_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_handled_counts_once_it_is_published() {
        let (mut sent, mut handled) = lane_bytes();
        sent.add(100);
        handled.add(60);
        assert_eq!(sent.kept_below(1), 100);
        handled.publish();
        assert_eq!(sent.kept_below(1_000), 100, "nobody looks as long as there is room");
        assert_eq!(sent.kept_below(1), 40);
        handled.add(40);
        handled.publish();
        assert_eq!(sent.kept_below(1), 0);
    }
}
