//! Messages sent in several frames.

use super::frame::{FrameHeader, Opcode};
use super::frame_error::FrameError;

/// The state of a connection between the fragments of a message. It holds no bytes: the caller
/// keeps the payloads, and this decides whether the next frame may follow.
///
/// ```
/// use shaddock::wire::websocket::{FrameHeader, Fragments, Opcode};
///
/// let frame = |opcode, fin| {
///     let (payload_len, header_len) = (60, 6);
///     FrameHeader { fin, opcode, mask: [0; 4], payload_len, header_len }
/// };
/// let mut fragments = Fragments::new(100);
/// fragments.on_frame(&frame(Opcode::Text, false))?;
/// assert_eq!(fragments.open(), Some(Opcode::Text));
/// assert!(fragments.on_frame(&frame(Opcode::Continuation, true)).is_err()); // 120 bytes.
/// # Ok::<(), shaddock::wire::websocket::FrameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragments {
    /// The kind of the message that waits for more fragments.
    open: Option<Opcode>,
    /// INVARIANT: at most `message_bytes_max`, and zero unless a message is open.
    message_bytes: usize,
    message_bytes_max: usize,
}

impl Fragments {
    /// The state in which no message is open. A message of more than `message_bytes_max` bytes in
    /// any number of frames ends the connection.
    #[must_use]
    pub const fn new(message_bytes_max: usize) -> Self {
        Self { open: None, message_bytes: 0, message_bytes_max }
    }

    /// Processes a client's frame as soon as its header is decoded, before its payload is there. A
    /// control frame changes nothing; a data frame with `fin` ends the message.
    ///
    /// # Errors
    /// [`FrameError::ContinuationUnexpected`], [`FrameError::ContinuationExpected`], or
    /// [`FrameError::TooLong`] if the message has grown over the limit.
    #[inline]
    pub fn on_frame(&mut self, header: &FrameHeader) -> Result<(), FrameError> {
        // RFC 6455 5.4: "Control frames MAY be injected in the middle of a fragmented message".
        if header.opcode.is_control() {
            return Ok(());
        }
        let opcode = match (header.opcode, self.open) {
            (Opcode::Continuation, None) => return Err(FrameError::ContinuationUnexpected),
            (Opcode::Continuation, Some(opcode)) => opcode,
            (_, Some(_)) => return Err(FrameError::ContinuationExpected),
            (opcode, None) => opcode,
        };
        let message_bytes = self.message_bytes.saturating_add(header.payload_len);
        if message_bytes > self.message_bytes_max {
            let max = self.message_bytes_max;
            return Err(FrameError::TooLong { len: message_bytes as u64, max });
        }
        if header.fin {
            (self.open, self.message_bytes) = (None, 0);
        } else {
            (self.open, self.message_bytes) = (Some(opcode), message_bytes);
        }
        Ok(())
    }

    /// The most bytes of a message.
    #[inline]
    #[must_use]
    pub const fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// The kind of the message that waits for more fragments, `None` between messages.
    #[inline]
    #[must_use]
    pub const fn open(&self) -> Option<Opcode> {
        self.open
    }
}

/// Checks a whole, unmasked text message.
///
/// Pomelo reads the bytes as a package and does not need this; RFC 6455 8.1 asks for it.
///
/// # Errors
/// [`FrameError::BadText`] if the message is not UTF-8.
pub fn check_text(message: &[u8]) -> Result<(), FrameError> {
    str::from_utf8(message).map(|_| ()).map_err(|_| FrameError::BadText)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: Opcode, fin: bool, payload_len: usize) -> FrameHeader {
        FrameHeader { fin, opcode, mask: [0; 4], payload_len, header_len: 6 }
    }

    #[test]
    fn control_frames_may_stand_between_fragments() {
        let mut fragments = Fragments::new(10);
        for (opcode, fin, open) in [
            (Opcode::Binary, true, None),
            (Opcode::Text, false, Some(Opcode::Text)),
            (Opcode::Ping, true, Some(Opcode::Text)),
            (Opcode::Continuation, false, Some(Opcode::Text)),
            (Opcode::Pong, true, Some(Opcode::Text)),
            (Opcode::Continuation, true, None),
            (Opcode::Close, true, None),
        ] {
            assert_eq!(fragments.on_frame(&frame(opcode, fin, 1)), Ok(()));
            assert_eq!(fragments.open(), open);
        }
        assert_eq!(fragments, Fragments::new(10));
    }

    #[test]
    fn a_continuation_needs_a_message_and_a_message_its_continuation() {
        let mut fragments = Fragments::new(10);
        let unexpected = Err(FrameError::ContinuationUnexpected);
        assert_eq!(fragments.on_frame(&frame(Opcode::Continuation, true, 0)), unexpected);
        assert_eq!(fragments.on_frame(&frame(Opcode::Binary, false, 0)), Ok(()));
        let expected = Err(FrameError::ContinuationExpected);
        assert_eq!(fragments.on_frame(&frame(Opcode::Binary, true, 0)), expected);
        assert_eq!(fragments.on_frame(&frame(Opcode::Text, false, 0)), expected);
    }

    #[test]
    fn the_limit_counts_the_whole_message_and_starts_again_with_the_next() {
        let mut fragments = Fragments::new(10);
        assert_eq!(fragments.on_frame(&frame(Opcode::Binary, false, 6)), Ok(()));
        assert_eq!(fragments.on_frame(&frame(Opcode::Continuation, true, 4)), Ok(()));
        assert_eq!(fragments.on_frame(&frame(Opcode::Binary, false, 10)), Ok(()));
        let refused = Err(FrameError::TooLong { len: 11, max: 10 });
        assert_eq!(fragments.on_frame(&frame(Opcode::Continuation, true, 1)), refused);
    }

    #[test]
    fn text_is_checked_as_a_whole() {
        assert_eq!(check_text("é".as_bytes()), Ok(()));
        assert_eq!(check_text(&"é".as_bytes()[..1]), Err(FrameError::BadText));
    }
}
