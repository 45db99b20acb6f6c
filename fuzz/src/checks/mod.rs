//! One check per decoder: it takes bytes that a peer might send, and panics if the decoder breaks a
//! promise.

pub mod client;
#[cfg(feature = "pitaya")]
pub mod cluster;
pub mod handshake;
pub mod http;
pub mod lanes;
pub mod message;
#[cfg(feature = "pitaya")]
pub mod nats;
pub mod package;
pub mod pitaya;
pub mod protobuf;
pub mod proxy;
pub mod route;
pub mod rpc;
pub mod session;
pub mod websocket;

/// Lengths at which an input is cut: all of them if it is short, otherwise a sample.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(len / CUTS_MAX + 1)
}

/// The most cuts of one input. Decoding a prefix costs up to the whole input, so this bounds the
/// work.
const CUTS_MAX: usize = 256;
