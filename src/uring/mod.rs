//! One io_uring of one thread, and the memory that it receives into: what the engine's threads and
//! the load client stand on. It knows neither of them.

mod buffers;
mod descriptors;
mod ring;

pub(crate) use buffers::{Buffers, GROUP};
pub use descriptors::raise_descriptor_limit;
pub(crate) use descriptors::sockets_max;
#[cfg(test)]
pub(crate) use ring::faults;
pub(crate) use ring::{Completion, RAW_ADDRESS_BYTES, RawAddress, Ring, Token};
