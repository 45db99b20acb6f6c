//! The words that a shard and its shell exchange.

use crate::session::{Segment, SessionId};

/// The shell's name for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SocketIndex(pub(crate) u32);

/// A buffer for the shell to send; it comes back by [`Shard::handle_sent`](super::Shard).
#[derive(Debug)]
pub(crate) struct Transmit {
    pub(crate) session: SessionId,
    pub(crate) socket: SocketIndex,
    pub(crate) segment: Segment,
    /// True if nothing waits for it to be sent: nothing stands behind it, and nobody is to be
    /// closed or read again then.
    pub(crate) is_last: bool,
}

/// Something else that the shell has to do with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Close the writing side; the client reads all that was sent, then an end.
    FinishWriting(SocketIndex),
    /// Receive no more for now. What was under way may yet come.
    PauseReading(SocketIndex),
    /// Receive again.
    ResumeReading(SocketIndex),
    /// Cancel what is under way, close, and say so by `Shard::handle_socket_closed`.
    Close(SocketIndex),
}

/// The way in which a client's stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiveEnd {
    /// It closed its writing side.
    Eof,
    Error,
}

/// The outcome of sending a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendEnd {
    Sent,
    Error,
}
