//! Answers that the engine gives by itself.

/// The reason why the engine answers by itself. Clients of Pomelo are told a code, mostly the same
/// for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The route is none that could be handled.
    BadRoute,
    /// It leads here, or to a worker, where nobody handles it.
    NoHandler,
    /// It leads to a server type that nobody has heard of.
    NoServerType,
    /// It leads to a server type without a server.
    NoServer,
    /// The server that it was forwarded to has not answered in time.
    TimedOut,
    /// Its session sends too fast.
    RateLimited,
    /// There is no room for it.
    Busy,
    /// A handler or filter has panicked.
    Panicked,
}
