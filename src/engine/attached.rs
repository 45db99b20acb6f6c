//! Something that runs beside an engine, in a thread of its own, and stops behind it.

use std::net::SocketAddr;

/// Something that runs beside an engine. It has stopped once this is dropped.
pub(crate) trait Attached: Send {
    /// The address where it listens, if it does.
    fn address(&self) -> Option<SocketAddr>;
}
