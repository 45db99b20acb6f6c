//! What waits to be sent to one client.

use std::collections::VecDeque;

use bytes::Bytes;

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
    /// What stands before `open`; only pushes too large to copy make this.
    #[allow(clippy::box_collection)] // Eight bytes for each idle session instead of 32.
    closed: Option<Box<VecDeque<Segment>>>,
    /// Bytes of a segment that the shell has taken and not yet sent.
    in_flight_bytes: usize,
    closed_bytes: usize,
}

/// A shared push of at least this many bytes is queued by reference, a shorter one is copied.
const SHARE_BYTES_MIN: usize = 2048;

impl Outbox {
    /// Bytes not yet sent.
    pub(crate) fn bytes(&self) -> usize {
        self.open.len() + self.closed_bytes + self.in_flight_bytes
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight_bytes > 0
    }

    /// Whether there is something for [`Self::take`].
    pub(crate) fn is_waiting(&self) -> bool {
        !self.open.is_empty() || self.closed_bytes > 0
    }

    /// The buffer to append small pieces to.
    #[inline]
    pub(crate) fn open(&mut self, pool: &mut BufferPool) -> &mut Vec<u8> {
        if self.open.capacity() == 0 {
            self.open = pool.take();
        }
        &mut self.open
    }

    /// Appends bytes that other sessions get too.
    pub(crate) fn push_shared(&mut self, bytes: &Bytes, pool: &mut BufferPool) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.open(pool).extend_from_slice(bytes);
            return;
        }
        let closed = self.closed.get_or_insert_default();
        if !self.open.is_empty() {
            self.closed_bytes += self.open.len();
            closed.push_back(Segment::Owned(std::mem::take(&mut self.open)));
        }
        self.closed_bytes += bytes.len();
        closed.push_back(Segment::Shared(bytes.clone()));
    }

    /// Takes the next segment to send. One is in flight at a time, so that order holds.
    pub(crate) fn take(&mut self) -> Option<Segment> {
        debug_assert!(!self.is_in_flight());
        let segment = match &mut self.closed {
            Some(closed) => {
                let segment = closed.pop_front().expect("an empty queue is dropped");
                self.closed_bytes -= segment.as_slice().len();
                if closed.is_empty() {
                    self.closed = None;
                }
                segment
            }
            None if self.open.is_empty() => return None,
            None => Segment::Owned(std::mem::take(&mut self.open)),
        };
        self.in_flight_bytes = segment.as_slice().len();
        Some(segment)
    }

    /// A segment of another length is in flight in place of what was taken: its bytes sealed.
    #[cfg(feature = "tls")]
    pub(crate) fn put_in_flight(&mut self, bytes: usize) {
        debug_assert!(!self.is_in_flight());
        self.in_flight_bytes = bytes;
    }

    /// The segment in flight has been sent whole, or never will be.
    pub(crate) fn finish(&mut self, segment: Segment, pool: &mut BufferPool) {
        debug_assert_eq!(self.in_flight_bytes, segment.as_slice().len());
        self.in_flight_bytes = 0;
        if let Segment::Owned(buffer) = segment {
            pool.give(buffer);
        }
    }

    /// Drops what waits; a segment in flight still comes back to [`Self::finish`].
    pub(crate) fn clear(&mut self, pool: &mut BufferPool) {
        self.closed = None;
        self.closed_bytes = 0;
        pool.give(std::mem::take(&mut self.open));
    }
}

/// Send and assembly buffers that wait to be used again.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Vec<Vec<u8>>,
}

/// Buffers kept by one pool; one more is freed.
const POOL_LEN_MAX: usize = 1024;
/// A buffer that has grown above this is freed instead of kept.
const POOL_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Capacity of a new buffer: a few small answers.
const BUFFER_BYTES: usize = 512;

impl BufferPool {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let keep = (1..=POOL_BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if keep && self.free.len() < POOL_LEN_MAX {
            buffer.clear();
            self.free.push(buffer);
        }
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
        while let Some(segment) = outbox.take() {
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
}
