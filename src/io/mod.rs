//! The I/O of one thread, by a ring of io_uring or by readiness, and the memory that it receives
//! into: what the engine's threads and the load client stand on. It knows neither of them.

mod address;
mod completion;
mod descriptors;
mod driver;
mod epoll;
mod faults;
mod poll_buffers;
mod poll_listeners;
mod poll_sockets;
mod poller;
mod refusal;
mod restrictions;
mod ring;
mod ring_buffers;
mod size;
mod traits;

pub(crate) use address::PeerAddress;
pub(crate) use completion::{AcceptIndex, Completion, SendIndex, Token};
pub use descriptors::raise_descriptor_limit;
pub(crate) use descriptors::{open_descriptors, sockets_max};
pub use driver::Driver;
pub(crate) use driver::{Chosen, give_way};
#[cfg(test)]
pub(crate) use faults::fail;
pub(crate) use poller::Poller;
#[cfg(test)]
pub(crate) use refusal::skip;
pub(crate) use refusal::{explain, explain_refusal, ring_failed, who_refuses};
pub(crate) use ring::Ring;
pub(crate) use size::RingSize;
pub(crate) use traits::{Io, ReceiveBuffers};
