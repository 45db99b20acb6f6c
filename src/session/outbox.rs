//! The queue of bytes to be sent to one client.

use bytes::Bytes;

use super::queue::{LossyPush, PushLoss, Queue};

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

/// The bytes queued for one client, in order. An empty outbox owns no buffer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The end of the queue, to which small pieces are appended.
    open: Vec<u8>,
    /// The entries in front of `open`: pushes too large to copy, and those that may still be
    /// dropped. INVARIANT: not empty.
    queue: Option<Box<Queue>>,
    /// Bytes of the segment that the shell has taken and not yet sent.
    in_flight_bytes: u32,
    /// The queue's own byte count, copied here because every answer reads it.
    queued_bytes: u32,
    in_flight_since: Since,
    open_since: Since,
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

impl Outbox {
    /// Bytes not yet sent, and the fixed cost of queued pushes that may be dropped.
    pub(crate) fn bytes(&self) -> usize {
        self.open.len() + self.queued_bytes as usize + self.in_flight_bytes as usize
    }

    /// The same without queued pushes that other sessions share; a shared segment in flight counts.
    pub(crate) fn own_bytes(&self) -> usize {
        self.bytes() - self.queue.as_ref().map_or(0, |queue| queue.shared_bytes())
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight_bytes > 0
    }

    /// True if [`Self::take`] would return a segment.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.open.is_empty() || self.queue.is_some()
    }

    /// The buffer to which small pieces are appended.
    #[inline]
    pub(crate) fn open(&mut self, pool: &mut BufferPool) -> &mut Vec<u8> {
        if self.open.capacity() == 0 {
            self.open = pool.take();
            self.open_since = pool.now;
        }
        &mut self.open
    }

    /// Appends bytes that other sessions share.
    pub(crate) fn push_shared(&mut self, bytes: &Bytes, pool: &mut BufferPool) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.open(pool).extend_from_slice(bytes);
            return;
        }
        let since = pool.now;
        let queue = self.queue_up(pool);
        queue.push(Segment::Shared(bytes.clone()), since);
        self.queued_bytes = as_u32(queue.bytes());
    }

    /// Appends a push that its route's policy may drop while it waits. Returns the loss that it
    /// caused.
    pub(crate) fn push_lossy(
        &mut self,
        push: LossyPush<'_>,
        len_max: usize,
        pool: &mut BufferPool,
    ) -> Option<PushLoss> {
        let since = pool.now;
        let queue = self.queue_up(pool);
        let lost = queue.push_lossy(push, len_max, since);
        self.queued_bytes = as_u32(queue.bytes());
        lost
    }

    /// Moves the open buffer into the queue, so that the next entry follows it.
    fn queue_up(&mut self, pool: &mut BufferPool) -> &mut Queue {
        let queue = self.queue.get_or_insert_with(|| pool.take_queue());
        if !self.open.is_empty() {
            queue.push(Segment::Owned(std::mem::take(&mut self.open)), self.open_since);
        }
        queue
    }

    /// Drops the oldest pushes that may be dropped, until at most `bytes_max` bytes wait or none is
    /// left. Returns the number dropped.
    #[cold]
    pub(crate) fn make_room(&mut self, bytes_max: usize, pool: &mut BufferPool) -> u64 {
        let mut dropped = 0;
        while self.bytes() > bytes_max
            && self.queue.as_mut().is_some_and(|queue| queue.drop_oldest())
        {
            dropped += 1;
            self.update_queue(pool);
        }
        dropped
    }

    /// Drops the pushes that may be dropped and have waited longer than `age_ms`. Returns the
    /// number dropped.
    pub(crate) fn drop_older(&mut self, age_ms: u64, now_ms: u64, pool: &mut BufferPool) -> u64 {
        let Some(queue) = &mut self.queue else { return 0 };
        let dropped = queue.drop_older(age_ms, now_ms);
        self.update_queue(pool);
        dropped
    }

    /// The waiting time of the oldest required piece.
    pub(crate) fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        let in_flight = self.is_in_flight().then(|| self.in_flight_since.age_ms(now_ms)).flatten();
        let queued = || self.queue.as_ref().and_then(|queue| queue.wait_ms(now_ms));
        let open = || if self.open.is_empty() { None } else { self.open_since.age_ms(now_ms) };
        in_flight.or_else(queued).or_else(open)
    }

    /// Takes the next segment to send. At most one is in flight, which keeps the order.
    pub(crate) fn take(&mut self, pool: &mut BufferPool) -> Option<Segment> {
        debug_assert!(!self.is_in_flight());
        let segment = if self.queue.is_some() {
            self.take_queued(pool)?
        } else {
            self.in_flight_since = self.open_since;
            if self.open.is_empty() {
                self.in_flight_since = Since::NEVER;
                return None;
            }
            Segment::Owned(std::mem::take(&mut self.open))
        };
        self.in_flight_bytes = as_u32(segment.as_slice().len());
        Some(segment)
    }

    #[inline(never)]
    fn take_queued(&mut self, pool: &mut BufferPool) -> Option<Segment> {
        let queue = self.queue.as_mut()?;
        let (mut segment, mut since) = queue.take(pool)?;
        self.update_queue(pool);
        // The open buffer is appended where that copies little.
        if self.queue.is_none()
            && let Segment::Owned(bytes) = &mut segment
            && !self.open.is_empty()
            && bytes.len() + self.open.len() <= GATHER_BYTES
        {
            bytes.extend_from_slice(&self.open);
            if since == Since::NEVER {
                since = self.open_since;
            }
            pool.give(std::mem::take(&mut self.open));
        }
        self.in_flight_since = since;
        Some(segment)
    }

    /// Updates the byte count after a removal, and returns an empty queue to the pool.
    fn update_queue(&mut self, pool: &mut BufferPool) {
        self.queued_bytes = as_u32(self.queue.as_ref().map_or(0, |queue| queue.bytes()));
        if let Some(queue) = self.queue.take_if(|queue| queue.is_empty()) {
            pool.give_queue(queue);
        }
    }

    /// Records a segment of another length, the encrypted bytes, as the one in flight.
    #[cfg(feature = "tls")]
    pub(crate) fn put_in_flight(&mut self, bytes: usize) {
        debug_assert!(!self.is_in_flight());
        self.in_flight_bytes = as_u32(bytes);
    }

    /// Ends the flight of the segment: it was sent whole, or never will be.
    pub(crate) fn finish(&mut self, segment: Segment, pool: &mut BufferPool) {
        debug_assert_eq!(self.in_flight_bytes as usize, segment.as_slice().len());
        self.in_flight_bytes = 0;
        if let Segment::Owned(buffer) = segment {
            pool.give(buffer);
        }
    }

    /// Drops the queue; a segment in flight still returns to [`Self::finish`].
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        self.queue = None;
        self.queued_bytes = 0;
        pool.give(std::mem::take(&mut self.open));
    }
}

/// Narrows a size. `outbox_bytes_max` bounds an outbox far below 4 GiB.
fn as_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("an outbox is bounded")
}

/// Free buffers for sending and assembling.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Vec<Vec<u8>>,
    /// The sum of their capacities.
    free_bytes: usize,
    /// Large buffers that are being freed piece by piece.
    large: Vec<Vec<u8>>,
    #[allow(clippy::vec_box)] // An outbox holds it boxed.
    queues: Vec<Box<Queue>>,
    /// The time of this turn, from which waiting times are counted.
    now: Since,
}

/// The most queues that a pool keeps; further ones are freed.
const QUEUES_LEN_MAX: usize = 256;

/// The most buffers that a pool keeps; further ones are freed.
const POOL_LEN_MAX: usize = 1024;
/// The most bytes that these may take together; a buffer above that is freed.
const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest buffer that is kept, in bytes; a larger one is freed.
const POOL_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The capacity of a new buffer: a few small answers.
const BUFFER_BYTES: usize = 512;
/// The capacity from which a buffer counts as large. The kernel takes 0.8 ms to free 16 MiB.
const LARGE_BYTES: usize = 1024 * 1024;
/// The bytes of a large buffer that are freed at a time.
const LARGE_PIECE_BYTES: usize = 256 * 1024;
/// The most large buffers that are freed in pieces; further ones are freed at once.
const LARGE_LEN_MAX: usize = 8;

impl BufferPool {
    pub(crate) fn begin_turn(&mut self, now_ms: u64) {
        self.now = Since::now(now_ms);
    }

    fn take_queue(&mut self) -> Box<Queue> {
        self.queues.pop().unwrap_or_default()
    }

    fn give_queue(&mut self, queue: Box<Queue>) {
        debug_assert!(queue.is_empty());
        if self.queues.len() < QUEUES_LEN_MAX && queue.is_small() {
            self.queues.push(queue);
        }
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Some(buffer) = self.free.pop() else { return Vec::with_capacity(BUFFER_BYTES) };
        self.free_bytes -= buffer.capacity();
        buffer
    }

    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if (1..=POOL_BUFFER_BYTES_MAX).contains(&bytes)
            && self.free.len() < POOL_LEN_MAX
            && self.free_bytes + bytes <= POOL_BYTES_MAX
        {
            buffer.clear();
            self.free_bytes += bytes;
            self.free.push(buffer);
        } else if bytes >= LARGE_BYTES && self.large.len() < LARGE_LEN_MAX {
            buffer.clear();
            self.large.push(buffer);
        }
    }

    /// Frees a piece of a large buffer. True if there is more to free.
    #[inline]
    pub(crate) fn give_back(&mut self) -> bool {
        let Some(buffer) = self.large.last_mut() else { return false };
        buffer.shrink_to(buffer.capacity().saturating_sub(LARGE_PIECE_BYTES));
        if buffer.capacity() < LARGE_BYTES {
            self.large.pop();
        }
        !self.large.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_over_small_and_shared_pieces() {
        let mut pool = BufferPool::default();
        let mut outbox = Outbox::default();
        let large = Bytes::from(vec![7; SHARE_BYTES_MIN]);
        outbox.open(&mut pool).extend_from_slice(b"one");
        outbox.push_shared(&large, &mut pool);
        outbox.push_shared(&Bytes::from_static(b"two"), &mut pool);
        assert_eq!(outbox.bytes(), 6 + SHARE_BYTES_MIN);

        let mut sent = Vec::new();
        while let Some(segment) = outbox.take(&mut pool) {
            assert!(outbox.is_in_flight());
            sent.extend_from_slice(segment.as_slice());
            outbox.finish(segment, &mut pool);
        }
        let expected = [&b"one"[..], &large, b"two"].concat();
        assert_eq!(sent, expected);
        assert_eq!(outbox.bytes(), 0);
        assert!(!outbox.is_waiting());
    }

    #[test]
    fn an_idle_outbox_is_small() {
        const _: () = assert!(size_of::<Outbox>() <= 48);
    }

    #[test]
    fn the_pool_keeps_no_large_buffers() {
        let mut pool = BufferPool::default();
        pool.give(Vec::with_capacity(POOL_BUFFER_BYTES_MAX + 1));
        pool.give(Vec::new());
        assert!(pool.free.is_empty());
        pool.give(vec![1, 2, 3]);
        assert!(pool.take().is_empty());
    }

    #[test]
    fn large_buffers_are_freed_piece_by_piece() {
        let mut pool = BufferPool::default();
        assert!(!pool.give_back());
        let buffer = || vec![1; LARGE_BYTES + 2 * LARGE_PIECE_BYTES];
        (0..=LARGE_LEN_MAX).for_each(|_| pool.give(buffer()));
        assert_eq!(pool.large.len(), LARGE_LEN_MAX, "one was freed at once");
        for left in (0..3 * LARGE_LEN_MAX).rev() {
            assert_eq!(pool.give_back(), left > 0);
        }
        assert!(pool.free.is_empty() && pool.large.is_empty());
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bytes() {
        let mut pool = BufferPool::default();
        let large = || Vec::with_capacity(POOL_BUFFER_BYTES_MAX);
        (0..POOL_LEN_MAX).for_each(|_| pool.give(large()));
        assert_eq!(pool.free.len(), POOL_BYTES_MAX / POOL_BUFFER_BYTES_MAX);
        assert_eq!(pool.take().capacity(), POOL_BUFFER_BYTES_MAX);
        pool.give(large());
        pool.give(large());
        assert_eq!(pool.free_bytes, POOL_BYTES_MAX);
    }
}
