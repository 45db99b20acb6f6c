//! The options of a recording, and their bounds.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::secrets::Secrets;
use crate::session::SessionId;

/// Recordings of an engine, armed or kept; `docs/limits.md` lists this and what follows.
pub(crate) const RECORDINGS_MAX: usize = 16;
/// The least bytes of a recording's ring.
pub(crate) const RECORDING_BYTES_MIN: usize = 64 * 1024;
/// The most bytes of a recording's ring.
pub(crate) const RECORDING_BYTES_MAX: usize = 1024 * 1024;
/// The longest time that a session is recorded, or waited for.
pub(crate) const RECORDING_SECONDS_MAX: u64 = 3_600;

/// The extent of a recording, in bytes and time.
#[derive(Debug, Clone)]
pub(crate) struct RecordOptions {
    /// Bytes of the ring.
    pub(crate) bytes_max: usize,
    /// True if bodies are kept, without what is secret; else only the heads of messages are.
    pub(crate) has_bodies: bool,
    pub(crate) seconds: u64,
    pub(crate) secrets: Arc<Secrets>,
}

impl RecordOptions {
    /// Bytes of one package's body that are kept where bodies are.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.bytes_max / 16
    }
}

/// The session that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Session(SessionId),
    Uid(String),
    Peer(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session {id:?}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Peer(peer) => write!(f, "address {peer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_the_bounds() {
        let text = include_str!("../../docs/limits.md");
        let (min, max) = (RECORDING_BYTES_MIN / 1024, RECORDING_BYTES_MAX / 1024 / 1024);
        for row in [
            format!("| fixed (`RECORDINGS_MAX`) | {RECORDINGS_MAX} |"),
            format!("| fixed (`RECORDING_BYTES_MAX`) | {min} KiB to {max} MiB |"),
            "| fixed (`RECORDING_SECONDS_MAX`) | 1 h |".to_owned(),
        ] {
            assert!(text.contains(&row), "docs/limits.md lacks the row: {row}");
        }
        assert_eq!(RECORDING_SECONDS_MAX, 3_600);
    }
}
