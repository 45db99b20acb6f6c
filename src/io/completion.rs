//! Completions, and the tokens that say what each is of.

use io_uring::cqueue;
use rustix::io::Errno;

use crate::forward::Party;
use crate::shard::SocketIndex;

/// The operation that a completion is of. A submission carries it as its user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Accept(AcceptIndex),
    Receive(SocketIndex),
    Send(SendIndex),
    /// A send that was to be done at once has sent a part, or nothing.
    SentInPart(SendIndex),
    FinishWriting(SocketIndex),
    Cancel(SocketIndex),
    Close(SocketIndex),
    /// The doorbell's eventfd.
    Bell,
    /// Another thread's ring has woken this one.
    Woken,
    /// A party could not be woken by its ring.
    WakeFailed(Party),
    /// Accepts, or the watch of a listening socket, have been cancelled.
    AcceptCancelled,
    /// The ring's own clock, by which a thread that waits is awake from time to time.
    Tick,
    /// A connection is in the backlog of an accept's listening socket.
    Waiting(AcceptIndex),
    /// The load client's connection is up, or could not be made.
    #[cfg(feature = "load")]
    Connected(SocketIndex),
}

/// An accept of a shard: which of its records the kernel writes the peer's address to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AcceptIndex(pub(crate) u32);

/// A send under way: which of its ring's records keeps the bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SendIndex(pub(crate) u32);

/// One of a ring's receive buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufferIndex(pub(crate) u16);

/// One completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// The result, or the negated error number.
    result: i32,
    /// As the kernel writes them: [`HAS_BUFFER`], [`HAS_MORE`], and the buffer's index above.
    flags: u32,
}

const _: () = assert!(size_of::<Completion>() == 16);

/// `IORING_CQE_F_BUFFER`.
const HAS_BUFFER: u32 = 1 << 0;
/// `IORING_CQE_F_MORE`.
const HAS_MORE: u32 = 1 << 1;
const BUFFER_SHIFT: u32 = 16;

impl Completion {
    /// Reads one of the kernel's. `None` for a token that no submission carries.
    pub(super) fn decode(entry: &cqueue::Entry) -> Option<Self> {
        let token = Token::decode(entry.user_data())?;
        Some(Self { token, result: entry.result(), flags: entry.flags() })
    }

    /// One of a request that has ended so.
    pub(super) fn new(token: Token, result: Result<u32, Errno>) -> Self {
        let result = match result {
            Ok(count) => i32::try_from(count).unwrap_or(i32::MAX),
            Err(error) => -error.raw_os_error(),
        };
        Self { token, result, flags: 0 }
    }

    /// Names the receive buffer that was filled.
    pub(super) fn with_buffer(self, buffer: BufferIndex) -> Self {
        let flags = self.flags | HAS_BUFFER | u32::from(buffer.0) << BUFFER_SHIFT;
        Self { flags, ..self }
    }

    /// Says that the request goes on.
    pub(super) fn with_more(self) -> Self {
        Self { flags: self.flags | HAS_MORE, ..self }
    }

    /// A count of bytes or a new descriptor, as the operation has it.
    #[inline]
    pub(crate) fn result(self) -> Result<u32, Errno> {
        match self.result {
            0.. => Ok(self.result as u32),
            number => Err(Errno::from_raw_os_error(-number)),
        }
    }

    /// True if a multishot operation goes on.
    pub(crate) fn has_more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that was filled.
    pub(crate) fn buffer(self) -> Option<BufferIndex> {
        cqueue::buffer_select(self.flags).map(BufferIndex)
    }
}

const KIND_SHIFT: u32 = 56;

impl Token {
    pub(super) fn encode(self) -> u64 {
        let (kind, value) = match self {
            Self::Accept(accept) => (1, accept.0),
            Self::Receive(socket) => (2, socket.0),
            Self::Send(send) => (3, send.0),
            Self::FinishWriting(socket) => (4, socket.0),
            Self::Cancel(socket) => (5, socket.0),
            Self::Close(socket) => (6, socket.0),
            Self::Bell => (7, 0),
            Self::Woken => (8, 0),
            Self::WakeFailed(party) => (9, party.0.into()),
            Self::AcceptCancelled => (10, 0),
            #[cfg(feature = "load")]
            Self::Connected(socket) => (11, socket.0),
            Self::Waiting(accept) => (12, accept.0),
            Self::SentInPart(send) => (13, send.0),
            Self::Tick => (14, 0),
        };
        u64::from(value) | kind << KIND_SHIFT
    }

    fn decode(word: u64) -> Option<Self> {
        let value = word as u32;
        Some(match word >> KIND_SHIFT {
            1 => Self::Accept(AcceptIndex(value)),
            2 => Self::Receive(SocketIndex(value)),
            3 => Self::Send(SendIndex(value)),
            4 => Self::FinishWriting(SocketIndex(value)),
            5 => Self::Cancel(SocketIndex(value)),
            6 => Self::Close(SocketIndex(value)),
            7 => Self::Bell,
            8 => Self::Woken,
            9 => Self::WakeFailed(Party(value as u16)),
            10 => Self::AcceptCancelled,
            #[cfg(feature = "load")]
            11 => Self::Connected(SocketIndex(value)),
            12 => Self::Waiting(AcceptIndex(value)),
            13 => Self::SentInPart(SendIndex(value)),
            14 => Self::Tick,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let socket = SocketIndex(u32::MAX);
        for token in [
            Token::Accept(AcceptIndex(6)),
            Token::Receive(socket),
            Token::Send(SendIndex(9)),
            Token::FinishWriting(socket),
            Token::Cancel(socket),
            Token::Close(socket),
            Token::Bell,
            Token::Woken,
            Token::WakeFailed(Party(u16::MAX)),
            Token::AcceptCancelled,
            #[cfg(feature = "load")]
            Token::Connected(socket),
            Token::Waiting(AcceptIndex(3)),
            Token::SentInPart(SendIndex(4)),
            Token::Tick,
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }

    #[test]
    fn a_completion_of_our_own_reads_as_one_of_the_kernel_s() {
        let plain = Completion::new(Token::Bell, Ok(7));
        assert_eq!((plain.result(), plain.buffer(), plain.has_more()), (Ok(7), None, false));
        let full = plain.with_buffer(BufferIndex(u16::MAX)).with_more();
        assert_eq!((full.buffer(), full.has_more()), (Some(BufferIndex(u16::MAX)), true));
        assert_eq!(plain.with_buffer(BufferIndex(0)).buffer(), Some(BufferIndex(0)));
        let failed = Completion::new(Token::Bell, Err(Errno::CANCELED));
        assert_eq!(failed.result(), Err(Errno::CANCELED));
    }

    #[test]
    fn a_negative_result_is_an_error_number() {
        let of = |result| Completion { token: Token::Bell, result, flags: 0 }.result();
        assert_eq!((of(0), of(i32::MAX)), (Ok(0), Ok(i32::MAX as u32)));
        assert_eq!((of(-105), of(-125)), (Err(Errno::NOBUFS), Err(Errno::CANCELED)));
    }
}
