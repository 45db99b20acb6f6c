//! The server's side of WebSocket frames, RFC 6455 section 5.
//!
//! A session reads a frame in four steps, all in the buffer the bytes arrived in:
//! [`decode_header`], [`Fragments::on_frame`], [`unmask`], and for a close frame [`decode_close`].
//! Extensions are never negotiated, so the reserved bits must be zero.
//!
//! ```
//! use shaddock::wire::websocket::{self, Fragments, HeaderStatus};
//!
//! let mut input = [0x82, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3];
//! let mut fragments = Fragments::new(1024);
//! let HeaderStatus::Complete(header) = websocket::decode_header(&input, 1024)? else { panic!() };
//! fragments.on_frame(&header)?;
//! let payload = &mut input[header.header_len..][..header.payload_len];
//! websocket::unmask(payload, header.mask, 0);
//! assert_eq!(payload, b"abc");
//! # Ok::<(), websocket::FrameError>(())
//! ```
//!
//! The server's own frames have no mask:
//!
//! ```
//! use shaddock::wire::websocket::{self, CLOSE_NORMAL};
//!
//! let package = [3, 0, 0, 0];
//! let mut out = Vec::new();
//! websocket::encode_binary_header(package.len(), &mut out);
//! assert_eq!(out.len(), websocket::binary_header_len(package.len()));
//! out.extend_from_slice(&package);
//! websocket::encode_pong(b"?", &mut out);
//! websocket::encode_close(CLOSE_NORMAL, &mut out);
//! assert_eq!(out, b"\x82\x04\x03\0\0\0\x8a\x01?\x88\x02\x03\xe8");
//!
//! // A client's, unmasked:
//! assert_eq!(websocket::decode_close(b"\x03\xe8bye")?, Some(CLOSE_NORMAL));
//! assert!(websocket::check_text(b"\xff").is_err());
//! # Ok::<(), websocket::FrameError>(())
//! ```

mod close;
mod close_code;
mod fragments;
mod frame;
mod frame_error;
mod mask;

pub use close::{decode_close, encode_close};
pub use close_code::{
    CLOSE_BAD_TEXT, CLOSE_GOING_AWAY, CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG,
};
pub use fragments::{Fragments, check_text};
#[cfg(feature = "engine")]
pub(crate) use frame::binary_header_bytes;
pub use frame::{
    CONTROL_BYTES_MAX, FrameHeader, HEADER_BYTES_MAX, HEADER_BYTES_MIN, HeaderStatus, Opcode,
    binary_header_len, decode_header, encode_binary_header, encode_pong,
};
pub use frame_error::FrameError;
pub use mask::unmask;
