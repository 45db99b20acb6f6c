//! One session that has ended, as those who ask later see it.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::shown::{id_text, route_text, uid_text};
use super::{SessionId, Uid};

/// A reason for which a session has ended, as the metrics name it.
pub(crate) type CloseText = &'static str;

/// The reasons for which a session may end.
pub(crate) const CLOSE_REASONS: [CloseText; 11] = [
    "peer",
    "kick",
    "heartbeat_timeout",
    "idle",
    "handshake_timeout",
    "protocol",
    "refused",
    "slow_consumer",
    "outbox_age",
    "shutdown",
    "memory",
];

/// A session at its end.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClosedSession {
    /// Its id, as text.
    #[serde(serialize_with = "id_text")]
    pub(crate) id: SessionId,
    /// The number that clients and backends know it by; 0 if no byte has come.
    pub(crate) number: u64,
    #[serde(serialize_with = "uid_text")]
    pub(crate) uid: Option<Uid>,
    pub(crate) peer: SocketAddr,
    /// The place of its listener among all.
    pub(crate) listener: u8,
    pub(crate) transport: &'static str,
    pub(crate) tls: bool,
    pub(crate) reason: CloseText,
    /// True if its handshake was done.
    pub(crate) worked: bool,
    /// Milliseconds from 1970 to its end.
    pub(crate) closed_unix_ms: u64,
    /// Milliseconds from its accept to its end.
    pub(crate) age_ms: u64,
    /// Milliseconds since the client had last said what keeps it alive.
    pub(crate) silent_ms: u64,
    /// Bytes that waited for the client.
    pub(crate) outbox_bytes: usize,
    /// Milliseconds for which the oldest of them had waited.
    pub(crate) outbox_ms: u64,
    /// Requests that waited for an answer.
    pub(crate) in_flight: u16,
    /// Bytes that counted against `shard_bytes_max`.
    pub(crate) kept_bytes: usize,
    /// Bytes of its socket.
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// Requests and notifies of the client's; wraps at 2^32, as the next one does.
    pub(crate) received_messages: u32,
    /// Answers and pushes to it.
    pub(crate) sent_messages: u32,
    /// The route of its last message, if it is one of those that are known at the start.
    #[serde(serialize_with = "route_text")]
    pub(crate) last_route: Option<Arc<str>>,
}
