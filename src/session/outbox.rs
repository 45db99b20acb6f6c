//! What waits to be sent to one client.

use bytes::Bytes;

use super::queue::{LossyPush, PushLoss, Queue};

/// A buffer on its way to the socket.
#[derive(Debug)]
pub(crate) enum Segment {
    /// Bytes of this session alone; the buffer goes back to the pool.
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

/// The bytes queued for one client, in order. An idle one owns no buffer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The end of the queue, open for small pieces.
    open: Vec<u8>,
    /// What stands before `open`: pushes too large to copy, and those that may yet be dropped.
    /// INVARIANT: not empty.
    queue: Option<Box<Queue>>,
    /// Bytes of a segment that the shell has taken and not yet sent.
    in_flight_bytes: u32,
    /// What the queue counts. Kept here, as it is asked for with every answer.
    queued_bytes: u32,
    in_flight_since: Since,
    open_since: Since,
}

/// Since when something waits that its client has to get, in milliseconds of a clock that starts
/// anew every seven weeks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Since(u32);

impl Since {
    /// Nothing waits, or nothing but pushes that may be dropped.
    pub(crate) const NEVER: Self = Self(0);

    pub(crate) fn now(now_ms: u64) -> Self {
        Self((now_ms as u32).max(1))
    }

    pub(crate) fn age_ms(self, now_ms: u64) -> Option<u64> {
        let age_ms = u64::from((now_ms as u32).wrapping_sub(self.0));
        // A start that was 0 counts as 1, and so may lie a millisecond ahead.
        (self != Self::NEVER).then_some(if age_ms > u64::from(u32::MAX / 2) { 0 } else { age_ms })
    }
}

/// A shared push of at least this many bytes is queued by reference, a shorter one is copied.
pub(super) const SHARE_BYTES_MIN: usize = 2048;
/// Small pieces are gathered into one segment of about this many bytes.
pub(super) const GATHER_BYTES: usize = 16 * 1024;

impl Outbox {
    /// Bytes not yet sent, and what waiting pushes take besides.
    pub(crate) fn bytes(&self) -> usize {
        self.open.len() + self.queued_bytes as usize + self.in_flight_bytes as usize
    }

    /// The same without pushes that it shares with others, but for one that is on its way.
    pub(crate) fn own_bytes(&self) -> usize {
        self.bytes() - self.queue.as_ref().map_or(0, |queue| queue.shared_bytes())
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight_bytes > 0
    }

    /// Whether there is something for [`Self::take`].
    pub(crate) fn is_waiting(&self) -> bool {
        !self.open.is_empty() || self.queue.is_some()
    }

    /// The buffer to append small pieces to.
    #[inline]
    pub(crate) fn open(&mut self, pool: &mut BufferPool) -> &mut Vec<u8> {
        if self.open.capacity() == 0 {
            self.open = pool.take();
            self.open_since = pool.now;
        }
        &mut self.open
    }

    /// Appends bytes that other sessions get too.
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

    /// Appends a push that may be dropped, as long as it waits, by its route's policy. What was
    /// dropped for it is told.
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

    /// Closes what is open, so that what follows stands behind it.
    fn queue_up(&mut self, pool: &mut BufferPool) -> &mut Queue {
        let queue = self.queue.get_or_insert_with(|| pool.take_queue());
        if !self.open.is_empty() {
            queue.push(Segment::Owned(std::mem::take(&mut self.open)), self.open_since);
        }
        queue
    }

    /// Drops the oldest pushes that may be dropped until no more than that many bytes wait, as far
    /// as there are any; how many were dropped.
    #[cold]
    pub(crate) fn make_room(&mut self, bytes_max: usize, pool: &mut BufferPool) -> u64 {
        let mut dropped = 0;
        while self.bytes() > bytes_max
            && self.queue.as_mut().is_some_and(|queue| queue.drop_oldest())
        {
            dropped += 1;
            self.keep_queue(pool);
        }
        dropped
    }

    /// Drops the pushes that may be dropped and have waited for longer; how many.
    pub(crate) fn drop_older(&mut self, age_ms: u64, now_ms: u64, pool: &mut BufferPool) -> u64 {
        let Some(queue) = &mut self.queue else { return 0 };
        let dropped = queue.drop_older(age_ms, now_ms);
        self.keep_queue(pool);
        dropped
    }

    /// For how long the oldest has waited of what its client has to get.
    pub(crate) fn owed_ms(&self, now_ms: u64) -> Option<u64> {
        let in_flight = self.is_in_flight().then(|| self.in_flight_since.age_ms(now_ms)).flatten();
        let queued = || self.queue.as_ref().and_then(|queue| queue.owed_ms(now_ms));
        let open = || if self.open.is_empty() { None } else { self.open_since.age_ms(now_ms) };
        in_flight.or_else(queued).or_else(open)
    }

    /// Takes the next segment to send. One is in flight at a time, so that order holds.
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
        self.keep_queue(pool);
        // What is open goes along where that is no more than a little copying.
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

    /// Something may have left the queue, which is given back once it is empty.
    fn keep_queue(&mut self, pool: &mut BufferPool) {
        self.queued_bytes = as_u32(self.queue.as_ref().map_or(0, |queue| queue.bytes()));
        if let Some(queue) = self.queue.take_if(|queue| queue.is_empty()) {
            pool.give_queue(queue);
        }
    }

    /// A segment of another length is in flight in place of what was taken: its bytes sealed.
    #[cfg(feature = "tls")]
    pub(crate) fn put_in_flight(&mut self, bytes: usize) {
        debug_assert!(!self.is_in_flight());
        self.in_flight_bytes = as_u32(bytes);
    }

    /// The segment in flight has been sent whole, or never will be.
    pub(crate) fn finish(&mut self, segment: Segment, pool: &mut BufferPool) {
        debug_assert_eq!(self.in_flight_bytes as usize, segment.as_slice().len());
        self.in_flight_bytes = 0;
        if let Segment::Owned(buffer) = segment {
            pool.give(buffer);
        }
    }

    /// Drops what waits; a segment in flight still comes back to [`Self::finish`].
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        self.queue = None;
        self.queued_bytes = 0;
        pool.give(std::mem::take(&mut self.open));
    }
}

/// What waits for one client is far below, as `outbox_bytes_max` is.
fn as_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("an outbox is bounded")
}

/// Send and assembly buffers that wait to be used again.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Vec<Vec<u8>>,
    /// What they take together.
    free_bytes: usize,
    /// Giants that are on their way back to the system.
    giants: Vec<Vec<u8>>,
    #[allow(clippy::vec_box)] // An outbox holds it boxed.
    queues: Vec<Box<Queue>>,
    /// The turn's time, from which an outbox counts how long something has waited.
    now: Since,
}

/// Queues kept by one pool; one more is freed.
const QUEUES_LEN_MAX: usize = 256;

/// Buffers kept by one pool; one more is freed.
const POOL_LEN_MAX: usize = 1024;
/// What they may take together; one more is freed.
const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A buffer that has grown above this is freed instead of kept.
const POOL_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Capacity of a new buffer: a few small answers.
const BUFFER_BYTES: usize = 512;
/// From this capacity on a buffer is a giant. To free one of 16 MiB takes the kernel 0.8 ms.
const GIANT_BYTES: usize = 1024 * 1024;
/// What is given back of a giant at a time.
const GIANT_PIECE_BYTES: usize = 256 * 1024;
/// Giants that are given back in pieces; one more is freed at once.
const GIANTS_LEN_MAX: usize = 8;

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
        } else if bytes >= GIANT_BYTES && self.giants.len() < GIANTS_LEN_MAX {
            buffer.clear();
            self.giants.push(buffer);
        }
    }

    /// Gives a piece of a giant back; whether there is more to give.
    #[inline]
    pub(crate) fn give_back(&mut self) -> bool {
        let Some(giant) = self.giants.last_mut() else { return false };
        giant.shrink_to(giant.capacity().saturating_sub(GIANT_PIECE_BYTES));
        if giant.capacity() < GIANT_BYTES {
            self.giants.pop();
        }
        !self.giants.is_empty()
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
    fn the_pool_keeps_no_giants() {
        let mut pool = BufferPool::default();
        pool.give(Vec::with_capacity(POOL_BUFFER_BYTES_MAX + 1));
        pool.give(Vec::new());
        assert!(pool.free.is_empty());
        pool.give(vec![1, 2, 3]);
        assert!(pool.take().is_empty());
    }

    #[test]
    fn giants_go_back_piece_by_piece() {
        let mut pool = BufferPool::default();
        assert!(!pool.give_back());
        let giant = || vec![1; GIANT_BYTES + 2 * GIANT_PIECE_BYTES];
        (0..=GIANTS_LEN_MAX).for_each(|_| pool.give(giant()));
        assert_eq!(pool.giants.len(), GIANTS_LEN_MAX, "one was freed at once");
        for left in (0..3 * GIANTS_LEN_MAX).rev() {
            assert_eq!(pool.give_back(), left > 0);
        }
        assert!(pool.free.is_empty() && pool.giants.is_empty());
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
