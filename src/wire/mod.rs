//! Bytes to values and back: packages, messages, handshakes, WebSocket frames, Pomelo's protobuf.
//!
//! Nothing here does I/O or reads a clock, and decoding borrows its input.

pub(crate) mod fingerprint;
pub(crate) mod member_order;
pub mod number;
pub mod protobuf;
pub mod surrogate;
