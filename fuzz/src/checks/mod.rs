//! One check for each decoder: it takes bytes that a peer might send and panics where a promise of
//! the decoder is broken.

#[cfg(feature = "pitaya")]
pub mod cluster;
pub mod handshake;
pub mod http;
pub mod lanes;
pub mod message;
pub mod package;
pub mod pitaya;
pub mod protobuf;
pub mod proxy;
pub mod route;
pub mod rpc;
pub mod session;
pub mod websocket;

/// Lengths at which an input is cut: all of them if it is short, else some spread over it.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(len / CUTS_MAX + 1)
}

/// Decoding a prefix costs up to the whole input, so the work for one input is bounded by this.
const CUTS_MAX: usize = 256;
