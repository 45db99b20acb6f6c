//! Frame headers, and the frames that a server sends.

use super::frame_error::FrameError;
use super::mask::MASK_BYTES;

/// The length of the shortest header of a client's frame: two bytes and the mask.
pub const HEADER_BYTES_MIN: usize = 6;
/// The length of the longest header of a client's frame: the 64-bit length form.
pub const HEADER_BYTES_MAX: usize = 14;
/// The length of the longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

/// The type of a frame.
///
/// ```
/// use shaddock::wire::websocket::Opcode;
///
/// assert!(Opcode::Ping.is_control() && !Opcode::Continuation.is_control());
/// ```
#[allow(clippy::exhaustive_enums, reason = "the RFC defines these six; callers match all")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message begun by an earlier frame.
    Continuation = 0,
    /// A message, or the start of one, in UTF-8. Pomelo reads its bytes as a package.
    Text = 1,
    /// A message, or the start of one.
    Binary = 2,
    /// The peer's last frame.
    Close = 8,
    /// A ping, answered with a pong of the same payload.
    Ping = 9,
    /// A pong, never answered.
    Pong = 10,
}

impl Opcode {
    /// True if the frame may stand between the fragments of a message without being part of it.
    #[inline]
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    #[inline]
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Continuation),
            1 => Some(Self::Text),
            2 => Some(Self::Binary),
            8 => Some(Self::Close),
            9 => Some(Self::Ping),
            10 => Some(Self::Pong),
            _ => None,
        }
    }
}

/// The header of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// True if this frame ends its message.
    pub fin: bool,
    /// The frame's type.
    pub opcode: Opcode,
    /// The key for [`unmask`](super::unmask).
    pub mask: [u8; MASK_BYTES],
    /// INVARIANT: within the limit given to [`decode_header`], or within [`CONTROL_BYTES_MAX`].
    pub payload_len: usize,
    /// The offset of the payload: 6, 8 or 14.
    pub header_len: usize,
}

/// The outcome of decoding a header from a buffer that may still grow.
#[allow(clippy::exhaustive_enums, reason = "there is no third answer; callers match both")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderStatus {
    /// The header is whole; the payload may not be.
    Complete(FrameHeader),
    /// The input ends too early; the bytes so far are valid.
    Partial {
        /// The input length at which decoding proceeds, always greater than the length of the
        /// input.
        needed: usize,
    },
}

/// Decodes the header of the client's frame at the start of `input`.
///
/// A data frame's length in a longer form than necessary is accepted, as by tungstenite and ws; a
/// control frame's longer forms are refused, as by ws. An error is reported at the first byte that
/// proves it.
///
/// # Errors
/// [`FrameError`] for a frame that no client may send, or for a data frame of more than
/// `payload_bytes_max` bytes. A control frame only has to keep the RFC's limit.
#[inline]
pub fn decode_header(input: &[u8], payload_bytes_max: usize) -> Result<HeaderStatus, FrameError> {
    // RFC 6455 5.2:
    //
    //    0               1               2 ...
    //    +-+-+-+-+-------+-+-------------+----------------+-----------+
    //    |F|R|R|R|       |M|  length 0..=125              |           |
    //    |I|S|S|S|opcode |A|  126: u16be follows          | mask, 4   | payload
    //    |N|V|V|V|       |S|  127: u64be follows          | bytes     |
    //    | |1|2|3|       |K|             |                |           |
    //    +-+-+-+-+-------+-+-------------+----------------+-----------+
    let Some(&first) = input.first() else {
        return Ok(HeaderStatus::Partial { needed: HEADER_BYTES_MIN });
    };
    if first & RESERVED_BITS != 0 {
        return Err(FrameError::ReservedBits);
    }
    let Some(opcode) = Opcode::from_bits(first & OPCODE_BITS) else {
        return Err(FrameError::ReservedOpcode(first & OPCODE_BITS));
    };
    let fin = first & FIN_BIT != 0;
    // RFC 6455 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST
    // NOT be fragmented."
    if opcode.is_control() && !fin {
        return Err(FrameError::ControlFragmented);
    }
    let Some(&second) = input.get(1) else {
        return Ok(HeaderStatus::Partial { needed: HEADER_BYTES_MIN });
    };
    if second & MASK_BIT == 0 {
        return Err(FrameError::Unmasked);
    }
    let short = second & !MASK_BIT;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(FrameError::ControlTooLong);
    }
    let (len, mask_start) = match long_length(short, &input[2..])? {
        Length::Known { len, mask_start } => (len, mask_start),
        Length::Partial { needed } => return Ok(HeaderStatus::Partial { needed }),
    };
    let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
    if payload_len > payload_bytes_max && !opcode.is_control() {
        return Err(FrameError::TooLong { len, max: payload_bytes_max });
    }
    let header_len = mask_start + MASK_BYTES;
    let Some(&mask) = input[mask_start..].first_chunk() else {
        return Ok(HeaderStatus::Partial { needed: header_len });
    };
    Ok(HeaderStatus::Complete(FrameHeader { fin, opcode, mask, payload_len, header_len }))
}

/// The number of bytes that [`encode_binary_header`] appends.
#[inline]
#[must_use]
pub const fn binary_header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// The first byte of an unfragmented binary frame.
const BINARY_START: u8 = FIN_BIT | Opcode::Binary as u8;

/// The header length of a frame that [`encode_binary_header`] began; `None` for other frames.
#[cfg(feature = "engine")]
pub(crate) fn binary_header_bytes(frame: &[u8]) -> Option<usize> {
    match *frame {
        [BINARY_START, LENGTH_U64, ..] => Some(10),
        [BINARY_START, LENGTH_U16, ..] => Some(4),
        [BINARY_START, ..] => Some(2),
        _ => None,
    }
}

/// Appends the header of an unfragmented binary frame, to be followed by the payload.
#[inline]
pub fn encode_binary_header(payload_len: usize, out: &mut Vec<u8>) {
    match binary_header_len(payload_len) {
        2 => out.extend_from_slice(&[BINARY_START, payload_len as u8]),
        4 => {
            let [high, low] = (payload_len as u16).to_be_bytes();
            out.extend_from_slice(&[BINARY_START, LENGTH_U16, high, low]);
        }
        _ => {
            let mut header = [BINARY_START, LENGTH_U64, 0, 0, 0, 0, 0, 0, 0, 0];
            header[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
            out.extend_from_slice(&header);
        }
    }
}

/// Appends the unmasked pong that answers a ping of this payload.
///
/// `payload` must not exceed [`CONTROL_BYTES_MAX`], which [`decode_header`] has checked for a ping.
pub fn encode_pong(payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= CONTROL_BYTES_MAX);
    out.extend_from_slice(&[FIN_BIT | Opcode::Pong as u8, payload.len() as u8]);
    out.extend_from_slice(payload);
}

enum Length {
    Known { len: u64, mask_start: usize },
    Partial { needed: usize },
}

/// The payload length from the seven bits of the second byte and the bytes behind it.
#[inline]
fn long_length(short: u8, rest: &[u8]) -> Result<Length, FrameError> {
    match short {
        LENGTH_U16 => Ok(match rest.first_chunk() {
            Some(&len) => Length::Known { len: u16::from_be_bytes(len).into(), mask_start: 4 },
            None => Length::Partial { needed: 8 },
        }),
        LENGTH_U64 => {
            // RFC 6455 5.2: "the most significant bit MUST be 0".
            if rest.first().is_some_and(|high| high & 0x80 != 0) {
                return Err(FrameError::LengthInvalid);
            }
            Ok(match rest.first_chunk() {
                Some(&len) => Length::Known { len: u64::from_be_bytes(len), mask_start: 10 },
                None => Length::Partial { needed: HEADER_BYTES_MAX },
            })
        }
        short => Ok(Length::Known { len: short.into(), mask_start: 2 }),
    }
}

pub(super) const FIN_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0f;
const MASK_BIT: u8 = 0x80;
const LENGTH_U16: u8 = 126;
const LENGTH_U64: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;
    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn header(first: u8, length: &[u8]) -> Vec<u8> {
        [&[first], length, &MASK].concat()
    }

    #[test]
    fn the_three_length_forms_are_read_and_every_cut_is_partial() {
        for (length, payload_len) in [
            (&[0x80][..], 0),
            (&[0x80 | 125], 125),
            (&[0xfe, 0, 126], 126),
            (&[0xfe, 0xff, 0xff], 65_535),
            (&[0xff, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
            // Longer forms than necessary.
            (&[0xfe, 0, 1], 1),
            (&[0xff, 0, 0, 0, 0, 0, 0, 0, 1], 1),
        ] {
            let bytes = header(0x82, length);
            let header = FrameHeader {
                fin: true,
                opcode: Opcode::Binary,
                mask: MASK,
                payload_len,
                header_len: bytes.len(),
            };
            assert_eq!(decode_header(&bytes, MAX), Ok(HeaderStatus::Complete(header)));
            for cut in 0..bytes.len() {
                let needed = if cut < 2 { HEADER_BYTES_MIN } else { bytes.len() };
                let partial = Ok(HeaderStatus::Partial { needed });
                assert_eq!(decode_header(&bytes[..cut], MAX), partial, "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_no_client_may_send_is_refused_at_the_byte_that_proves_it() {
        for (bytes, error) in [
            (&[0xc2][..], FrameError::ReservedBits),
            (&[0xa2], FrameError::ReservedBits),
            (&[0x92], FrameError::ReservedBits),
            (&[0x83], FrameError::ReservedOpcode(3)),
            (&[0x8f], FrameError::ReservedOpcode(15)),
            (&[0x09], FrameError::ControlFragmented),
            (&[0x82, 0x00], FrameError::Unmasked),
            (&[0x89, 0xfe], FrameError::ControlTooLong),
            (&[0x82, 0xff, 0x80], FrameError::LengthInvalid),
            (&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0], FrameError::TooLong { len: 1 << 32, max: MAX }),
        ] {
            let (last, prefix) = bytes.split_last().unwrap();
            let before = decode_header(prefix, MAX);
            assert!(matches!(before, Ok(HeaderStatus::Partial { .. })), "{prefix:?} then {last}");
            assert_eq!(decode_header(bytes, MAX), Err(error), "{bytes:?}");
            let more = [bytes, &[0xff; 16]].concat();
            assert_eq!(decode_header(&more, MAX), Err(error), "{more:?}");
        }
    }

    #[test]
    fn the_limit_is_exact_and_spares_control_frames() {
        let data = header(0x82, &[0x80 | 11]);
        assert!(decode_header(&data, 11).is_ok());
        let refused = FrameError::TooLong { len: 11, max: 10 };
        assert_eq!(decode_header(&data, 10), Err(refused));
        let ping = header(0x89, &[0x80 | 125]);
        assert!(decode_header(&ping, 0).is_ok());
    }

    #[test]
    fn no_header_panics() {
        for start in crate::test_cases::cases(997, 0..=u16::MAX) {
            for fill in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = [fill; HEADER_BYTES_MAX];
                bytes[..2].copy_from_slice(&start.to_be_bytes());
                for cut in 0..=bytes.len() {
                    if let Ok(HeaderStatus::Partial { needed }) = decode_header(&bytes[..cut], MAX)
                    {
                        assert!(needed > cut);
                    }
                }
            }
        }
    }

    #[test]
    fn binary_headers_take_the_shortest_form() {
        for (payload_len, expected) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            encode_binary_header(payload_len, &mut out);
            assert_eq!(out, expected);
            assert_eq!(out.len(), binary_header_len(payload_len));
        }
    }

    #[test]
    fn a_pong_carries_the_payload_back() {
        let mut out = Vec::new();
        encode_pong(b"abc", &mut out);
        assert_eq!(out, b"\x8a\x03abc");
    }
}
