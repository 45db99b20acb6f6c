//! Bytes that go to another thread.

use bytes::{Bytes, BytesMut};

/// Memory that small bodies are carved from, so that few of them cost an allocation.
#[derive(Default)]
pub(crate) struct Chunk {
    rest: BytesMut,
}

/// Larger bodies get memory of their own.
const CARVE_BYTES_MAX: usize = 16 * 1024;
const CHUNK_BYTES: usize = 64 * 1024;

impl Chunk {
    /// A copy of some parts, one behind the other.
    #[inline]
    pub(crate) fn carve<const N: usize>(&mut self, parts: [&[u8]; N]) -> Bytes {
        let len = parts.iter().map(|part| part.len()).sum();
        if len > CARVE_BYTES_MAX {
            return parts.concat().into();
        }
        if self.rest.capacity() < len {
            self.rest = BytesMut::with_capacity(CHUNK_BYTES);
        }
        parts.iter().for_each(|part| self.rest.extend_from_slice(part));
        self.rest.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_parts_come_whole() {
        let mut chunk = Chunk::default();
        let large = vec![7; CARVE_BYTES_MAX];
        let first = chunk.carve([b"ab", b"c"]);
        // Over the end of the chunk, and of the next one.
        for _ in 0..2 * CHUNK_BYTES / 999 + 1 {
            assert_eq!(chunk.carve([b"", &large[..999]]), large[..999]);
        }
        assert_eq!(chunk.carve([&large, b"!"]), [&large[..], b"!"].concat());
        assert_eq!(&first[..], b"abc", "what was carved stays as it is");
    }
}
