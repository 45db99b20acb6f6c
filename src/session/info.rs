//! One session, as those who look at it from outside see it.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::shown::{id_text, route_text, uid_text};
use super::{ClosedSession, SessionId, Uid};

/// One session at one moment.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SessionInfo {
    /// Its id, as text.
    #[serde(serialize_with = "id_text")]
    pub(crate) id: SessionId,
    /// The number that clients and backends know it by; 0 until the first byte.
    pub(crate) number: u64,
    #[serde(serialize_with = "uid_text")]
    pub(crate) uid: Option<Uid>,
    pub(crate) peer: SocketAddr,
    /// The place of its listener among all.
    pub(crate) listener: u8,
    pub(crate) transport: &'static str,
    pub(crate) tls: bool,
    pub(crate) dialect: &'static str,
    pub(crate) state: &'static str,
    /// Seconds since its connection was accepted.
    pub(crate) age_s: u64,
    /// Milliseconds since the client last said what keeps it alive.
    pub(crate) silent_ms: u64,
    /// Bytes that wait for the client.
    pub(crate) outbox_bytes: usize,
    /// Milliseconds for which the oldest of them has waited.
    pub(crate) outbox_ms: u64,
    /// Requests that wait for an answer.
    pub(crate) in_flight: u16,
    pub(crate) in_flight_bytes: u32,
    /// Bytes that count against `shard_bytes_max`.
    pub(crate) kept_bytes: usize,
    /// True if it is read in later turns, as it has sent much.
    pub(crate) held: bool,
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

/// A part of a shard's sessions.
#[derive(Debug)]
pub(crate) struct SessionPage {
    pub(crate) sessions: Vec<SessionInfo>,
    /// Sessions that have ended, where those are looked at.
    pub(crate) closed: Vec<ClosedSession>,
    /// The slot where the next part begins, if there is one.
    pub(crate) next: Option<u32>,
}
