//! Bytes to values and back: packages, messages, handshakes, WebSocket frames, Pomelo's protobuf.
//!
//! Nothing here does I/O or reads a clock, and decoding borrows its input.

pub mod handshake;
pub mod http;
pub mod message;
pub mod package;
pub mod sniff;
pub mod varint;
pub mod websocket;
