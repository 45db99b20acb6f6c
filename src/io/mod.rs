//! One io_uring of one thread, and the memory that it receives into: what the engine's threads and
//! the load client stand on. It knows neither of them.

mod address;
mod buffers;
mod completion;
mod descriptors;
mod faults;
mod ring;

pub(crate) use address::PeerAddress;
pub(crate) use buffers::Buffers;
pub(crate) use completion::{AcceptIndex, Completion, SendIndex, Token};
pub use descriptors::raise_descriptor_limit;
pub(crate) use descriptors::sockets_max;
#[cfg(test)]
pub(crate) use faults::fail;
pub(crate) use ring::{Ring, RingSize};
