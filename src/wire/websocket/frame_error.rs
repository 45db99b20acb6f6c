//! The faults of a frame.

use std::fmt;

use super::close_code::{CLOSE_BAD_TEXT, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG};

/// The reasons why a frame ends the connection; the peer is at fault.
///
/// ```
/// use shaddock::wire::websocket::{CLOSE_PROTOCOL_ERROR, decode_header};
///
/// let error = decode_header(&[0xff], 1024).unwrap_err();
/// assert_eq!(error.close_code(), CLOSE_PROTOCOL_ERROR);
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A reserved bit is set, although no extension was negotiated.
    ReservedBits,
    /// An opcode the RFC does not define.
    ReservedOpcode(u8),
    /// A frame without a mask, which a client must use.
    Unmasked,
    /// A frame with a mask, which a server must not use.
    Masked,
    /// A control frame without the final bit.
    ControlFragmented,
    /// A control frame of more than [`CONTROL_BYTES_MAX`](super::CONTROL_BYTES_MAX) bytes.
    ControlTooLong,
    /// The most significant bit of a 64-bit length is set.
    LengthInvalid,
    /// The frame, or the message it belongs to, is longer than allowed.
    TooLong {
        /// The length of the frame or of the message so far.
        len: u64,
        /// The longest allowed.
        max: usize,
    },
    /// A continuation frame outside a message.
    ContinuationUnexpected,
    /// A new message inside a fragmented one.
    ContinuationExpected,
    /// A close frame with a body of one byte.
    CloseTruncated,
    /// A close code that must not be sent.
    CloseCode(u16),
    /// A text message, or the reason of a close frame, is not UTF-8.
    BadText,
}

impl FrameError {
    /// The code of the close frame that informs the peer.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::TooLong { .. } => CLOSE_TOO_BIG,
            Self::BadText => CLOSE_BAD_TEXT,
            _ => CLOSE_PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits => f.write_str("reserved bits are set"),
            Self::ReservedOpcode(opcode) => write!(f, "reserved opcode {opcode}"),
            Self::Unmasked => f.write_str("the frame is not masked"),
            Self::Masked => f.write_str("the frame is masked"),
            Self::ControlFragmented => f.write_str("the control frame is fragmented"),
            Self::ControlTooLong => f.write_str("the control frame is too long"),
            Self::LengthInvalid => f.write_str("the frame length exceeds 63 bits"),
            Self::TooLong { len, max } => write!(f, "{len} bytes, at most {max} allowed"),
            Self::ContinuationUnexpected => f.write_str("continuation outside a message"),
            Self::ContinuationExpected => f.write_str("new message inside a fragmented one"),
            Self::CloseTruncated => f.write_str("the close code is cut off"),
            Self::CloseCode(code) => write!(f, "invalid close code {code}"),
            Self::BadText => f.write_str("the text is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}
