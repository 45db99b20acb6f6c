//! One connection's half of the member: what has come in pieces, and what waits to be sent.

use std::collections::VecDeque;

use super::mqtt::Reader;
use crate::session::{Generation, Slot, place_of, token_of};

/// A connection's name between the member and its shell, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerId {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
}

impl PeerId {
    /// The name as a word, for the kernel to give back.
    pub(crate) fn word(self) -> u64 {
        token_of((self.slot, self.generation))
    }

    pub(crate) fn from_word(word: u64) -> Self {
        let (slot, generation) = place_of(word);
        Self { slot, generation }
    }
}

/// The server that a connection is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Ours, to the master.
    Master,
    /// Ours, to a server, by its mailbox.
    Mailbox(Slot),
    /// A backend's, that calls us.
    Caller,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) owner: Owner,
    pub(super) is_open: bool,
    /// Set once the shell has been told that there is something to send.
    pub(super) is_dirty: bool,
    /// Set once it is to be closed, as it does not read.
    pub(super) is_overflowed: bool,
    pub(super) reader: Reader,
    pub(super) output: Output,
}

impl Peer {
    /// The memory that it takes: of what is to be sent, and of a packet that has come in part.
    pub(super) fn held_bytes(&self) -> (usize, usize) {
        (self.output.held_bytes(), self.reader.held_bytes())
    }

    pub(super) fn new(owner: Owner, is_open: bool) -> Self {
        let (reader, output) = (Reader::default(), Output::default());
        Self { owner, is_open, is_dirty: false, is_overflowed: false, reader, output }
    }
}

/// Bytes on their way to a socket, in blocks: what has been sent is given back block by block, and
/// nothing is moved to make room.
#[derive(Debug, Default)]
pub(crate) struct Output {
    blocks: VecDeque<Vec<u8>>,
    /// Bytes of the first block that are sent. INVARIANT: not all, unless it is the last one.
    sent: usize,
    /// Bytes that are to be sent.
    len: usize,
    /// The memory of all blocks.
    held: usize,
}

/// A block that has this many bytes takes no more.
const BLOCK_BYTES: usize = 64 * 1024;

impl Output {
    /// The first part of what is to be sent; empty if nothing is.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.blocks.front().map_or(&[], |block| &block[self.sent..])
    }

    /// The first `len` bytes of [`Self::unsent`] have been sent.
    pub(crate) fn advance(&mut self, len: usize) {
        self.sent += len;
        self.len -= len;
        let is_only = self.blocks.len() == 1;
        let Some(block) = self.blocks.front_mut().filter(|block| block.len() == self.sent) else {
            debug_assert!(self.blocks.front().is_some_and(|block| self.sent < block.len()));
            return;
        };
        self.sent = 0;
        if is_only && block.capacity() <= BLOCK_BYTES {
            block.clear();
        } else {
            self.held -= block.capacity();
            self.blocks.pop_front();
        }
    }

    /// Appends what `write` does, of about `bytes` bytes.
    pub(super) fn append(&mut self, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let has_room = |block: &Vec<u8>| block.is_empty() || block.len() + bytes <= BLOCK_BYTES;
        if !self.blocks.back().is_some_and(has_room) {
            // The first block grows as it is needed: most connections never fill it.
            let capacity = if self.blocks.is_empty() { bytes } else { bytes.max(BLOCK_BYTES) };
            self.blocks.push_back(Vec::with_capacity(capacity));
            self.held += capacity;
        }
        let Some(block) = self.blocks.back_mut() else { return };
        let (len, capacity) = (block.len(), block.capacity());
        block.reserve(bytes);
        write(block);
        self.len += block.len() - len;
        self.held += block.capacity() - capacity;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The memory that it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_sent_once_and_in_order() {
        let mut output = Output::default();
        let mut sent = Vec::new();
        for step in 0..100_u8 {
            output.append(5, |out| out.extend_from_slice(&[step; 5]));
            let len = output.unsent().len().min(usize::from(step % 9));
            sent.extend_from_slice(&output.unsent()[..len]);
            output.advance(len);
        }
        sent.extend_from_slice(output.unsent());
        let all: Vec<u8> = (0..100).flat_map(|step| [step; 5]).collect();
        assert_eq!(sent, all);
    }

    #[test]
    fn memory_is_taken_as_it_is_needed_and_given_back() {
        let mut output = Output::default();
        output.append(10, |out| out.extend_from_slice(&[1; 10]));
        assert_eq!(output.held_bytes(), 10);
        output.append(1 << 20, |out| out.extend_from_slice(&[2; 1 << 20]));
        for _ in 0..5_000 {
            output.append(100, |out| out.extend_from_slice(&[3; 100]));
        }
        let len = 10 + (1 << 20) + 500_000;
        assert_eq!(output.len(), len);
        assert!(output.held_bytes() < len + 2 * BLOCK_BYTES, "{}", output.held_bytes());
        let mut sent = 0;
        while output.len() > 0 {
            let all = output.unsent().len();
            sent += all;
            // In two pieces, so that a block is left half sent.
            output.advance(all / 2);
            output.advance(all - all / 2);
            assert!(output.held_bytes() <= len - sent + 2 * BLOCK_BYTES);
        }
        assert!(output.held_bytes() <= BLOCK_BYTES && output.unsent().is_empty());
    }
}
