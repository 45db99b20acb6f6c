//! The package, Pomelo's outer frame.

use std::fmt;

/// The length of the package header: a type byte and a 24-bit body length.
pub const HEADER_BYTES: usize = 4;

/// The longest body a package header can announce.
///
/// The stock encoder lets a longer body wrap modulo 2^24, which corrupts the stream; [`encode`]
/// refuses it.
pub const BODY_BYTES_MAX: usize = (1 << 24) - 1;

/// The type of a package.
///
/// ```
/// use shaddock::wire::package::PackageType;
///
/// assert_eq!(PackageType::from_byte(3), Some(PackageType::Heartbeat));
/// assert_eq!(PackageType::from_byte(6), None);
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PackageType {
    /// The handshake request (client to server) or its answer, UTF-8 JSON.
    Handshake = 1,
    /// The client's confirmation of the handshake answer; a body is ignored.
    HandshakeAck = 2,
    /// A sign of life in either direction; a body is ignored.
    Heartbeat = 3,
    /// One [message](super::message).
    Data = 4,
    /// The server's end of the session, `{"reason": text}`; never valid from a client.
    Kick = 5,
}

impl PackageType {
    /// The type of `byte`; `None` for a byte that the protocol does not define.
    #[inline]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Handshake),
            2 => Some(Self::HandshakeAck),
            3 => Some(Self::Heartbeat),
            4 => Some(Self::Data),
            5 => Some(Self::Kick),
            _ => None,
        }
    }
}

/// The four bytes in front of every body. The protocol has no more, so no member will be added.
///
/// ```
/// use shaddock::wire::package::{Header, PackageType};
///
/// let bytes = Header::encode(PackageType::Data, 300);
/// assert_eq!(bytes, [4, 0, 1, 44]);
/// assert_eq!(Header::decode(bytes)?, Header { kind: PackageType::Data, body_len: 300 });
/// # Ok::<(), shaddock::wire::package::PackageError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The package's type.
    pub kind: PackageType,
    /// INVARIANT: `body_len <= BODY_BYTES_MAX` in every header made by [`Header::decode`].
    pub body_len: usize,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`PackageError::UnknownType`] if the first byte is not 1..=5.
    #[inline]
    pub const fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, PackageError> {
        // The layout of a package:
        //
        //    0      1                    4
        //    +------+--------------------+----------------+
        //    | type | body length, u24be | body ...       |
        //    +------+--------------------+----------------+
        let Some(kind) = PackageType::from_byte(bytes[0]) else {
            return Err(PackageError::UnknownType(bytes[0]));
        };
        let body_len = u32::from_be_bytes(bytes) as usize & BODY_BYTES_MAX;
        debug_assert!(body_len <= BODY_BYTES_MAX);
        Ok(Self { kind, body_len })
    }

    /// The bytes of a header; `body_len` must not exceed [`BODY_BYTES_MAX`].
    #[inline]
    #[must_use]
    pub const fn encode(kind: PackageType, body_len: usize) -> [u8; HEADER_BYTES] {
        debug_assert!(body_len <= BODY_BYTES_MAX);
        let [_, high, middle, low] = (body_len as u32).to_be_bytes();
        [kind as u8, high, middle, low]
    }
}

/// A whole package; the body borrows the input. No member will be added, as for [`Header`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package<'a> {
    /// The package's type.
    pub kind: PackageType,
    /// The bytes behind the header, possibly none.
    pub body: &'a [u8],
}

/// The outcome of decoding from a buffer that may still grow.
#[allow(clippy::exhaustive_enums, reason = "there is no third answer; callers match both")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status<T> {
    /// A value was decoded from the first `consumed` bytes.
    Complete {
        /// The decoded value.
        value: T,
        /// The number of bytes it took, never zero.
        consumed: usize,
    },
    /// The input ends too early; the bytes so far are valid.
    Partial {
        /// The input length at which decoding proceeds: the whole package once its header is there,
        /// the header before that. Always greater than the length of the input.
        needed: usize,
    },
}

/// Decodes the package at the start of `input`.
///
/// An error is reported as soon as the header is there, so a peer cannot make the caller collect a
/// body that will be refused.
///
/// # Errors
/// [`PackageError::UnknownType`], or [`PackageError::TooLong`] if the body would exceed
/// `body_bytes_max`.
///
/// # Examples
/// ```
/// use shaddock::wire::package::{self, PackageType, Status};
///
/// let input = [4, 0, 0, 2, 0xaa, 0xbb, 3, 0];
/// let Status::Complete { value, consumed } = package::decode(&input, 1024)? else { panic!() };
/// assert_eq!((value.kind, value.body), (PackageType::Data, &[0xaa, 0xbb][..]));
/// assert_eq!(package::decode(&input[consumed..], 1024)?, Status::Partial { needed: 4 });
/// # Ok::<(), package::PackageError>(())
/// ```
#[inline]
pub fn decode(input: &[u8], body_bytes_max: usize) -> Result<Status<Package<'_>>, PackageError> {
    let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Status::Partial { needed: HEADER_BYTES });
    };
    let Header { kind, body_len } = Header::decode(*header)?;
    if body_len > body_bytes_max {
        return Err(PackageError::TooLong { len: body_len, max: body_bytes_max });
    }
    let consumed = HEADER_BYTES + body_len;
    match rest.get(..body_len) {
        Some(body) => Ok(Status::Complete { value: Package { kind, body }, consumed }),
        None => Ok(Status::Partial { needed: consumed }),
    }
}

/// Appends a package to `out`.
///
/// ```
/// use shaddock::wire::package::{self, PackageType};
///
/// let mut out = Vec::new();
/// package::encode(PackageType::Heartbeat, b"", &mut out)?;
/// assert_eq!(out, [3, 0, 0, 0]);
/// # Ok::<(), package::PackageError>(())
/// ```
///
/// # Errors
/// [`PackageError::TooLong`] if `body` is longer than [`BODY_BYTES_MAX`]; `out` is left as it was.
#[inline]
pub fn encode(kind: PackageType, body: &[u8], out: &mut Vec<u8>) -> Result<(), PackageError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(PackageError::TooLong { len: body.len(), max: BODY_BYTES_MAX });
    }
    out.reserve(HEADER_BYTES + body.len());
    out.extend_from_slice(&Header::encode(kind, body.len()));
    out.extend_from_slice(body);
    Ok(())
}

/// The reasons to refuse a package. In [`decode`] the peer is at fault, in [`encode`] the embedder.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageError {
    /// The type byte is not 1..=5; the peer does not use Pomelo's protocol or has lost its framing.
    UnknownType(u8),
    /// The body is longer than allowed.
    TooLong {
        /// The length of the refused body.
        len: usize,
        /// The longest body allowed.
        max: usize,
    },
}

impl fmt::Display for PackageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(byte) => write!(f, "unknown package type {byte}"),
            Self::TooLong { len, max } => {
                write!(f, "package body of {len} bytes, at most {max} allowed")
            }
        }
    }
}

impl std::error::Error for PackageError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        encode(PackageType::Data, &vec![0xab; len], &mut out).unwrap();
        out
    }

    #[test]
    fn every_type_byte_is_known_or_refused() {
        for byte in 0..=u8::MAX {
            let header = Header::decode([byte, 0, 0, 0]);
            match PackageType::from_byte(byte) {
                Some(kind) => {
                    assert_eq!(kind as u8, byte);
                    assert_eq!(header, Ok(Header { kind, body_len: 0 }));
                }
                None => assert_eq!(header, Err(PackageError::UnknownType(byte))),
            }
        }
    }

    #[test]
    fn lengths_survive_the_round_trip() {
        for len in [0, 1, 255, 256, 65_535, 65_536, BODY_BYTES_MAX] {
            let header = Header::encode(PackageType::Data, len);
            assert_eq!(
                Header::decode(header),
                Ok(Header { kind: PackageType::Data, body_len: len })
            );
        }
    }

    #[test]
    fn every_prefix_is_partial_and_names_what_is_needed() {
        let package = data(300);
        for cut in 0..package.len() {
            let needed = if cut < HEADER_BYTES { HEADER_BYTES } else { package.len() };
            assert_eq!(decode(&package[..cut], 300), Ok(Status::Partial { needed }));
        }
        let value = Package { kind: PackageType::Data, body: &package[HEADER_BYTES..] };
        let complete = Ok(Status::Complete { value, consumed: package.len() });
        assert_eq!(decode(&package, 300), complete);
    }

    #[test]
    fn the_body_limit_is_checked_before_the_body_arrives() {
        let package = data(11);
        let refused = Err(PackageError::TooLong { len: 11, max: 10 });
        for cut in HEADER_BYTES..=package.len() {
            assert_eq!(decode(&package[..cut], 10), refused);
        }
        assert!(decode(&package, 11).is_ok());
    }

    #[test]
    fn an_unknown_type_is_known_only_after_the_whole_header() {
        assert_eq!(decode(&[9, 0, 0], 1), Ok(Status::Partial { needed: HEADER_BYTES }));
        assert_eq!(decode(&[9, 0, 0, 0], 1), Err(PackageError::UnknownType(9)));
    }

    #[test]
    fn bytes_after_the_package_are_left_alone() {
        let mut two = data(2);
        two.extend_from_slice(&[3, 0, 0, 0]);
        let Ok(Status::Complete { consumed, .. }) = decode(&two, 2) else { panic!("{two:?}") };
        assert_eq!(&two[consumed..], [3, 0, 0, 0]);
    }

    #[test]
    fn encode_refuses_a_body_over_24_bits() {
        let body = vec![0; BODY_BYTES_MAX + 1];
        let mut out = vec![7];
        let refused = PackageError::TooLong { len: BODY_BYTES_MAX + 1, max: BODY_BYTES_MAX };
        assert_eq!(encode(PackageType::Data, &body, &mut out), Err(refused));
        assert_eq!(out, [7]);
        assert_eq!(encode(PackageType::Data, &body[1..], &mut out), Ok(()));
        assert_eq!(out[1..5], [4, 0xff, 0xff, 0xff]);
    }
}
