//! The policy for pushes to a client that does not read.

/// The policy for a route's pushes while they wait for a client that does not read
/// ([`Builder::push_policy`](crate::Builder::push_policy)).
///
/// A push that is already on its way to the socket is never withdrawn, and answers to requests are
/// never dropped. Dropped pushes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// None is dropped. If more than `outbox_bytes_max` waits, or anything for longer than
    /// `outbox_age_max`, the client is disconnected (`closed_slow_consumer`, `closed_outbox_age`).
    #[default]
    Disconnect,
    /// The oldest are dropped, if more than `outbox_bytes_max` or `outbox_pushes_max` would wait,
    /// and all that have waited for longer than `outbox_age_max` (`pushes_dropped`). For pushes
    /// that are worthless when late, such as effects.
    DropOldest,
    /// The newest replaces the one before it, so at most one waits (`pushes_replaced`). For pushes
    /// that a newer one makes void, such as a position or a whole state.
    KeepLatest,
}
