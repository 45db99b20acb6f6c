//! The frames to a server that its socket has not taken yet.

use std::collections::VecDeque;

use bytes::{Buf as _, BytesMut};

/// Frames in the order in which they are sent.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: BytesMut,
    /// The frames in `bytes`, of which the first may be sent in part.
    frames: VecDeque<Queued>,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    /// Bytes of it that are not sent.
    left: usize,
    /// True if it is a message of which nothing is sent.
    is_whole_message: bool,
}

impl Outgoing {
    /// The bytes to be sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes note that the first `len` bytes are sent.
    pub(crate) fn advance(&mut self, len: usize) {
        self.bytes.advance(len);
        let mut sent = len;
        while let Some(first) = self.frames.front_mut() {
            if sent < first.left {
                first.left -= sent;
                first.is_whole_message &= sent == 0;
                return;
            }
            sent -= first.left;
            self.frames.pop_front();
        }
    }

    fn queue(&mut self, len_before: usize, is_whole_message: bool) {
        let left = self.bytes.len() - len_before;
        self.frames.push_back(Queued { left, is_whole_message });
    }

    /// Adds lines as they are, each with its end.
    pub(crate) fn push_lines(&mut self, lines: &[u8]) {
        let len_before = self.bytes.len();
        self.bytes.extend_from_slice(lines);
        self.queue(len_before, false);
    }

    /// Subscribes to a subject, by a number that no other subscription has.
    pub(crate) fn subscribe(&mut self, sid: u64, subject: &str) {
        let len_before = self.bytes.len();
        for part in ["SUB ", subject, " ", &sid.to_string(), "\r\n"] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self.queue(len_before, false);
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, sid: u64) {
        self.push_lines(format!("UNSUB {sid}\r\n").as_bytes());
    }

    /// Publishes a message. The answer, if one is wanted, is to come on the subject of two parts:
    /// one's inbox, and a number in hexadecimal digits.
    pub(crate) fn publish(&mut self, subject: &str, reply: Option<(&str, u64)>, payload: &[u8]) {
        let len_before = self.bytes.len();
        self.bytes.reserve(subject.len() + payload.len() + LINE_BYTES);
        self.bytes.extend_from_slice(b"PUB ");
        self.bytes.extend_from_slice(subject.as_bytes());
        self.bytes.extend_from_slice(b" ");
        if let Some((inbox, number)) = reply {
            self.bytes.extend_from_slice(inbox.as_bytes());
            self.push_number::<16>(number);
            self.bytes.extend_from_slice(b" ");
        }
        self.push_number::<10>(payload.len() as u64);
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(payload);
        self.bytes.extend_from_slice(b"\r\n");
        self.queue(len_before, true);
    }

    fn push_number<const BASE: u64>(&mut self, number: u64) {
        let (mut digits, mut at, mut rest) = ([0; 20], 20, number);
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(rest % BASE) as usize];
            rest /= BASE;
            if rest == 0 {
                return self.bytes.extend_from_slice(&digits[at..]);
            }
        }
    }

    /// Drops all but the messages of which nothing is sent, for another connection: what a server
    /// has got of the others, and what the subscriptions were, ends with the connection.
    pub(crate) fn keep_messages(&mut self) {
        let mut kept = Self::default();
        let mut rest = &self.bytes[..];
        for frame in &self.frames {
            let (bytes, behind) = rest.split_at(frame.left);
            rest = behind;
            if frame.is_whole_message {
                kept.bytes.extend_from_slice(bytes);
                kept.frames.push_back(*frame);
            }
        }
        *self = kept;
    }

    /// Puts all of `other` behind what there is.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.frames.append(&mut other.frames);
        other.bytes = BytesMut::new();
    }

    /// Gives memory back that a burst has taken.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.is_empty() && self.frames.capacity() > FRAMES_KEPT {
            *self = Self::default();
        }
    }
}

/// Bytes of a line besides its subject.
const LINE_BYTES: usize = 128;
/// An empty list with room for more frames gives its memory back.
const FRAMES_KEPT: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outgoing: &Outgoing) -> &str {
        std::str::from_utf8(outgoing.bytes()).unwrap()
    }

    #[test]
    fn frames_are_written_as_servers_read_them() {
        let mut outgoing = Outgoing::default();
        outgoing.subscribe(4, "a/b");
        outgoing.publish("x", None, b"hi");
        outgoing.publish("x", Some(("in.", 0)), b"");
        outgoing.publish("x", Some(("in.", u64::MAX)), &[b'y'; 10]);
        outgoing.unsubscribe(4);
        outgoing.push_lines(b"PING\r\n");
        let wanted = "SUB a/b 4\r\nPUB x 2\r\nhi\r\nPUB x in.0 0\r\n\r\n\
            PUB x in.ffffffffffffffff 10\r\nyyyyyyyyyy\r\nUNSUB 4\r\nPING\r\n";
        assert_eq!(text(&outgoing), wanted);
        outgoing.advance(wanted.len());
        assert!(outgoing.bytes().is_empty() && outgoing.frames.is_empty());
    }

    /// However much of it a socket has taken when it fails.
    #[test]
    fn what_was_not_begun_goes_to_the_next_connection() {
        let messages = ["PUB a 1\r\n1\r\n", "PUB b 1\r\n2\r\n"];
        let all = [messages[0], "SUB s 1\r\n", messages[1], "PING\r\n"].concat();
        for sent in 0..=all.len() {
            let mut outgoing = Outgoing::default();
            outgoing.publish("a", None, b"1");
            outgoing.subscribe(1, "s");
            outgoing.publish("b", None, b"2");
            outgoing.push_lines(b"PING\r\n");
            assert_eq!(text(&outgoing), all);
            // In two steps, as a socket may take it.
            outgoing.advance(sent / 2);
            outgoing.advance(sent - sent / 2);
            outgoing.keep_messages();
            let kept = match sent {
                0 => messages.concat(),
                _ if sent <= messages[0].len() + "SUB s 1\r\n".len() => messages[1].into(),
                _ => String::new(),
            };
            assert_eq!(text(&outgoing), kept, "{sent} bytes were sent");
            let mut next = Outgoing::default();
            next.push_lines(b"PING\r\n");
            next.append(&mut outgoing);
            next.advance(next.bytes().len());
            assert!(next.frames.is_empty());
        }
    }
}
