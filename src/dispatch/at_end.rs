//! The fate of a future that is not done when the engine stops.

/// The treatment of a future that is not done when the engine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtEnd {
    /// It is owed: a drain waits for it, within its deadline.
    Wait,
    /// It is dropped.
    Drop,
}
