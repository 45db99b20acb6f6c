//! Something that is to start with an engine.

use std::net::SocketAddr;

use super::attached::Attached;
use super::handle::Handle;
use crate::error::StartError;

/// Something that is to run beside an engine, as the embedder describes it.
#[cfg_attr(not(any(feature = "admin", feature = "traces")), allow(dead_code))]
pub(crate) trait Attachment: Send {
    /// Checks that it can be started, as far as that shows before.
    fn check(&self) -> Result<(), StartError>;

    /// Starts it beside an engine that runs, and that serves clients at an address.
    fn start(
        self: Box<Self>,
        handle: Handle,
        game: SocketAddr,
    ) -> Result<Box<dyn Attached>, StartError>;
}
