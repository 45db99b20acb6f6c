//! Free buffers, which a thread's sessions send from and assemble in.

/// Free buffers for sending and assembling.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Vec<Vec<u8>>,
    /// The sum of their capacities.
    free_bytes: usize,
    /// Large buffers that are being freed piece by piece.
    large: Vec<Vec<u8>>,
}

/// The most buffers that are kept; further ones are freed.
const POOL_LEN_MAX: usize = 1024;
/// The most bytes that these may take together; a buffer above that is freed.
const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest buffer that is kept, in bytes; a larger one is freed.
const POOL_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The capacity of a new buffer: a few small answers.
const BUFFER_BYTES: usize = 512;
/// The bytes of a large buffer that are freed at a time. The kernel takes 0.2 ms to free 1 MiB.
const LARGE_PIECE_BYTES: usize = 256 * 1024;
/// The capacity from which a buffer counts as large.
const LARGE_BYTES: usize = 2 * LARGE_PIECE_BYTES;
/// The most large buffers that are freed in pieces; further ones are freed at once.
const LARGE_LEN_MAX: usize = 8;

impl Buffers {
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
        if buffer.capacity() <= LARGE_PIECE_BYTES {
            self.large.pop();
        }
        !self.large.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_no_large_buffers() {
        let mut buffers = Buffers::default();
        buffers.give(Vec::with_capacity(POOL_BUFFER_BYTES_MAX + 1));
        buffers.give(Vec::new());
        assert!(buffers.free.is_empty());
        buffers.give(vec![1, 2, 3]);
        assert!(buffers.take().is_empty());
    }

    #[test]
    fn large_buffers_are_freed_piece_by_piece() {
        let mut buffers = Buffers::default();
        assert!(!buffers.give_back());
        let buffer = || vec![1; 4 * LARGE_PIECE_BYTES];
        (0..=LARGE_LEN_MAX).for_each(|_| buffers.give(buffer()));
        assert_eq!(buffers.large.len(), LARGE_LEN_MAX, "one was freed at once");
        for left in (0..3 * LARGE_LEN_MAX).rev() {
            assert_eq!(buffers.give_back(), left > 0);
        }
        assert!(buffers.free.is_empty() && buffers.large.is_empty());
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_bytes() {
        let mut buffers = Buffers::default();
        let large = || Vec::with_capacity(POOL_BUFFER_BYTES_MAX);
        (0..POOL_LEN_MAX).for_each(|_| buffers.give(large()));
        assert_eq!(buffers.free.len(), POOL_BYTES_MAX / POOL_BUFFER_BYTES_MAX);
        assert_eq!(buffers.take().capacity(), POOL_BUFFER_BYTES_MAX);
        buffers.give(large());
        buffers.give(large());
        assert_eq!(buffers.free_bytes, POOL_BYTES_MAX);
    }
}
