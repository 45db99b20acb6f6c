//! The queue of bytes to be sent to one client.

use bytes::Bytes;

use super::buffer_pool::BufferPool;
use super::queue::{LossyPush, PushLoss, Queue};
use super::segment::{GATHER_BYTES, SHARE_BYTES_MIN, Segment, Since};

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
            self.open_since = pool.now();
        }
        &mut self.open
    }

    /// Appends bytes that other sessions share.
    pub(crate) fn push_shared(&mut self, bytes: &Bytes, pool: &mut BufferPool) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.open(pool).extend_from_slice(bytes);
            return;
        }
        let since = pool.now();
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
        let since = pool.now();
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
        let (mut segment, mut since) = queue.take(pool.buffers())?;
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
}
