//! One connection's half of the station: what has come in pieces, and what waits to be sent.

use super::mqtt::Reader;
use crate::session::{Generation, Slot, place_of, token_of};

/// A connection's name between the station and its shell, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
}

impl LinkId {
    /// The name as a word, for the kernel to give back.
    pub(crate) fn word(self) -> u64 {
        token_of((self.slot, self.generation))
    }

    pub(crate) fn from_word(word: u64) -> Self {
        let (slot, generation) = place_of(word);
        Self { slot, generation }
    }
}

/// Whose connection it is.
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
pub(super) struct Link {
    pub(super) owner: Owner,
    pub(super) is_open: bool,
    /// Whether the shell has been told that there is something to send.
    pub(super) is_dirty: bool,
    pub(super) reader: Reader,
    pub(super) output: Output,
}

impl Link {
    pub(super) fn new(owner: Owner, is_open: bool) -> Self {
        let (reader, output) = (Reader::default(), Output::default());
        Self { owner, is_open, is_dirty: false, reader, output }
    }
}

/// Bytes on their way to a socket. One write takes all that has gathered.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(super) bytes: Vec<u8>,
    /// INVARIANT: `sent <= bytes.len()`.
    sent: usize,
}

/// A buffer that has grown further is given back once it is empty.
const KEPT_BYTES_MAX: usize = 256 * 1024;

impl Output {
    /// What is to be sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The first `len` of these bytes have been sent.
    pub(crate) fn advance(&mut self, len: usize) {
        self.sent += len;
        debug_assert!(self.sent <= self.bytes.len());
        if self.sent == self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES_MAX);
        } else if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
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
            output.bytes.extend_from_slice(&[step; 5]);
            let len = output.len().min(usize::from(step % 9));
            sent.extend_from_slice(&output.unsent()[..len]);
            output.advance(len);
        }
        sent.extend_from_slice(output.unsent());
        let all: Vec<u8> = (0..100).flat_map(|step| [step; 5]).collect();
        assert_eq!(sent, all);
    }
}
