//! The buffers that a poller receives into.

use super::completion::BufferIndex;
use super::traits::ReceiveBuffers;

/// The buffers of one thread.
///
/// A buffer is in use from the receive that fills it until its completion is handled, so that few
/// of them are ever touched: the one used last is used next.
pub(crate) struct PollBuffers {
    memory: Box<[u8]>,
    buffer_bytes: usize,
    /// Those not in use, the last one used at the end.
    spare: Vec<BufferIndex>,
    count: u16,
}

impl PollBuffers {
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Self {
        let buffer_bytes = buffer_bytes as usize;
        Self {
            // Zeros that the system gives when they are touched.
            memory: vec![0; usize::from(count) * buffer_bytes].into_boxed_slice(),
            buffer_bytes,
            spare: (0..count).rev().map(BufferIndex).collect(),
            count,
        }
    }

    /// Takes a buffer that is not in use, if there is one.
    pub(super) fn take(&mut self) -> Option<BufferIndex> {
        self.spare.pop()
    }

    /// All the room of a buffer.
    pub(super) fn room(&mut self, buffer: BufferIndex) -> &mut [u8] {
        self.filled(buffer, self.buffer_bytes)
    }
}

impl ReceiveBuffers for PollBuffers {
    fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    fn filled(&mut self, buffer: BufferIndex, len: usize) -> &mut [u8] {
        assert!(len <= self.buffer_bytes);
        let start = usize::from(buffer.0) * self.buffer_bytes;
        &mut self.memory[start..start + len]
    }

    fn give_back(&mut self, buffer: BufferIndex) {
        assert!(buffer.0 < self.count && self.spare.len() < usize::from(self.count));
        self.spare.push(buffer);
    }

    fn ran_dry(&mut self) -> bool {
        true
    }

    fn publish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_used_last_is_used_next() {
        let mut buffers = PollBuffers::new(2, 64);
        let (first, second) = (buffers.take().unwrap(), buffers.take().unwrap());
        assert_eq!(buffers.take(), None);
        buffers.room(first).fill(1);
        buffers.room(second).fill(2);
        assert_eq!(buffers.filled(first, 3), [1; 3]);
        buffers.give_back(second);
        buffers.give_back(first);
        assert_eq!(buffers.take(), Some(first));
    }
}
