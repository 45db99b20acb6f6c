//! Heartbeats of Pitaya's clients.

/// Heartbeats that were due since a client was heard.
#[derive(Debug, Default)]
pub(super) struct Beats {
    pub(super) heard_ms: u64,
    pub(super) silent: u64,
}
