//! Pitaya's dialect of the protocol, where it differs from Pomelo's (docs/protocol/pitaya.md,
//! "Client dialect").
//!
//! Packages, message ids and route codes are the same. These differ:
//!
//! ```text
//!  flag:   bit 0     the route is a dictionary code
//!          bits 1-3  type: 0 request, 1 notify, 2 response, 3 push
//!          bit 4     the body is compressed, as zlib does it (RFC 1950)
//!          bit 5     the body is an error
//! ```
//!
//! The handshake's members ([`handshake`]) and errors ([`Error`]) differ too.

mod compression;
mod error;
pub mod handshake;
mod zlib;

use std::fmt;

pub use compression::{COMPRESS_BYTES_MAX, COMPRESS_BYTES_MIN, Compression};
pub use error::Error;
#[cfg(feature = "engine")]
pub(crate) use zlib::is_worth_compressing;
pub use zlib::{Deflater, INPUT_WORK, InflateError, Inflated, Inflater};

use super::message;
use super::message::MessageError;

/// The flag's bit for a compressed body.
pub const COMPRESSED_BIT: u8 = 0x10;
/// The flag's bit for a body that is an [`Error`].
pub const ERROR_BIT: u8 = 0x20;

/// The serialization of a listener's bodies, which its handshakes announce.
///
/// ```
/// use shaddock::wire::pitaya::Serializer;
///
/// assert_eq!(Serializer::Json.name(), "json");
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serializer {
    /// JSON text.
    #[default]
    Json,
    /// Protobuf. Handlers receive and return encoded bytes.
    Protobuf,
}

impl Serializer {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }
}

/// True if the body of a client's message is compressed.
#[inline]
#[must_use]
pub fn is_compressed(message: &[u8]) -> bool {
    message.first().is_some_and(|flag| flag & COMPRESSED_BIT != 0)
}

/// Appends a client's compressed message in its uncompressed form: its head without the bit, and
/// its body inflated.
///
/// ```
/// use shaddock::wire::pitaya::{self, COMPRESSED_BIT, Deflater, Inflater};
///
/// let text = "hi ".repeat(100);
/// let mut message = b"\x02\x0achat.a.say".to_vec(); // A notify.
/// message[0] |= COMPRESSED_BIT;
/// assert!(Deflater::default().deflate(text.as_bytes(), &mut message));
///
/// assert!(pitaya::is_compressed(&message));
/// let mut plain = Vec::new();
/// pitaya::inflate_message(&message, 4096, &mut Inflater::default(), &mut plain)?;
/// assert_eq!(plain, format!("\x02\x0achat.a.say{text}").as_bytes());
/// # Ok::<(), pitaya::CompressedError>(())
/// ```
///
/// # Errors
/// The errors of [`message::decode`], and those of a body that is not a zlib stream or is longer
/// than `body_bytes_max`. `out` then holds at most that many bytes more, and they are of no use.
pub fn inflate_message(
    message: &[u8],
    body_bytes_max: usize,
    inflater: &mut Inflater,
    out: &mut Vec<u8>,
) -> Result<(), CompressedError> {
    let body = message::decode(message).map_err(CompressedError::Message)?.body;
    let head = &message[..message.len() - body.len()];
    let at = out.len();
    out.extend_from_slice(head);
    if let Some(flag) = out.get_mut(at) {
        *flag &= !COMPRESSED_BIT;
    }
    inflater.inflate(body, body_bytes_max, out).map_err(CompressedError::Body)
}

/// The reasons to refuse a compressed message; the peer is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressedError {
    /// The message itself is malformed.
    Message(MessageError),
    /// The body can't be inflated.
    Body(InflateError),
}

impl fmt::Display for CompressedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(error) => error.fmt(f),
            Self::Body(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CompressedError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Message, MessageType, RouteRef};

    const BODY_BYTES_MAX: usize = 10_000;

    /// A message as a client sends it, with its body compressed.
    fn compressed(message: &Message<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        assert!(Deflater::default().deflate(message.body, &mut body));
        let mut out = Vec::new();
        message::encode(&Message { body: &body, gzip: true, ..*message }, &mut out).unwrap();
        assert!(is_compressed(&out));
        out
    }

    fn inflated(message: &[u8], body_bytes_max: usize) -> Result<Vec<u8>, CompressedError> {
        let mut out = Vec::new();
        inflate_message(message, body_bytes_max, &mut Inflater::default(), &mut out)?;
        Ok(out)
    }

    #[test]
    fn a_compressed_message_is_the_plain_one_again() {
        let body = &[b'a'; 1000][..];
        let text = RouteRef::Text(b"room.room.echo");
        for (kind, route) in [
            (MessageType::Request, Some(text)),
            (MessageType::Request, Some(RouteRef::Code(7))),
            (MessageType::Notify, Some(text)),
            (MessageType::Response, None),
        ] {
            let id = if kind == MessageType::Notify { 0 } else { 300 };
            let message = Message { id, kind, route, body, gzip: false };
            let plain = inflated(&compressed(&message), BODY_BYTES_MAX).unwrap();
            assert_eq!(message::decode(&plain), Ok(message));
        }
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        let route = Some(RouteRef::Text(b"a.b.c"));
        let kind = MessageType::Request;
        let message = Message { id: 1, kind, route, body: &[b'a'; 1000], gzip: false };
        let good = compressed(&message);
        for cut in 0..good.len() {
            let error = inflated(&good[..cut], BODY_BYTES_MAX).unwrap_err();
            let in_head = cut < 8;
            assert_eq!(matches!(error, CompressedError::Message(_)), in_head, "{cut}: {error}");
        }
        let too_long = CompressedError::Body(InflateError::TooLong);
        assert_eq!(inflated(&good, 999), Err(too_long));
        assert!(inflated(&good, 1000).is_ok());
    }
}
