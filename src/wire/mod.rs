//! Codecs between bytes and values: packages, messages, handshakes, WebSocket frames, Pomelo's
//! protobuf.
//!
//! The module does no I/O and reads no clock, and decoding borrows its input.
//!
//! | for | there is |
//! |---|---|
//! | Pomelo's protocol with clients | [`package`], [`message`], [`varint`], [`handshake`] |
//! | bodies by a schema, signed bodies | [`protobuf`], `signature` (feature `crypto`) |
//! | Pitaya's dialect of it | [`pitaya`] |
//! | the way from the socket | [`sniff`], [`http`], [`websocket`] |
//! | proxies in front | [`proxy`], [`forwarded`] |
//! | JSON as JavaScript reads, tests and prints it | [`surrogate`], [`truthy`], [`number`] |

#[cfg(feature = "engine")]
pub(crate) mod answer;
pub(crate) mod fingerprint;
pub mod forwarded;
pub mod handshake;
pub mod http;
pub(crate) mod member_order;
pub mod message;
pub mod number;
pub mod package;
pub mod pitaya;
pub mod protobuf;
pub mod proxy;
#[cfg(feature = "crypto")]
pub mod signature;
pub mod sniff;
pub mod surrogate;
pub mod truthy;
pub mod varint;
pub mod websocket;
