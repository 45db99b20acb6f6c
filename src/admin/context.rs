//! The parts of the server that an answer is made from.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::guard::From;
use super::metrics::OwnCounters;
use super::options::AdminOptions;
use super::samples::Samples;
use crate::engine::Handle;
use crate::record::Secrets;

/// The parts of the server that an answer is made from.
pub(super) struct Context<'a> {
    pub(super) handle: &'a Handle,
    pub(super) options: &'a AdminOptions,
    /// Names of what is not kept in recordings.
    pub(super) secrets: &'a Arc<Secrets>,
    pub(super) samples: &'a Samples,
    pub(super) drain: &'a mut Drain,
    pub(super) own: OwnCounters,
    pub(super) from: From,
    /// The address where clients of the game connect.
    pub(super) game: SocketAddr,
    pub(super) now: Instant,
}

/// The progress of a drain that was asked for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// It has begun, or waits for the end of its delay.
    Asked,
    /// Whoever holds the engine was told that sessions are closed.
    Told,
}
