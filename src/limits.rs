//! Every bound of the engine, with its unit, its default and what happens there.

use std::time::Duration;

/// The bounds of one engine. The defaults suit a connector of ordinary games.
///
/// Each refusal at a bound is counted in [`crate::metrics::Counters`] under the name given here.
///
/// ```
/// use shaddock::Limits;
///
/// let limits = Limits { package_bytes_max: 64 * 1024, ..Limits::default() };
/// assert!(limits.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Built with `..Limits::default()` by every embedder.
pub struct Limits {
    /// Connections of the whole process; Pomelo's `max-connections`. One more is closed at once,
    /// without a package (`refused_max_connections`). Default 1,000,000.
    pub connections_max: usize,
    /// Connections of one shard, at most 2^24. A ring's table of direct descriptors can't be
    /// larger than the process's descriptor limit, which lowers this one silently. One more is
    /// accepted by a shard that has a place; where none has, it waits in the listener's backlog.
    /// Default 65,536.
    pub connections_per_shard_max: u32,
    /// Connections of one IP address in a second, in the long run, with one shard; 0 is no bound.
    /// Each shard counts those that it gets: with several, an address may have as many times more.
    /// An IPv6 address counts with its network of 64 bits. Where a proxy tells the client's
    /// address, that one counts. One more is closed at once, an upgrade that a proxy has passed on
    /// after the answer 429 (`refused_accept_rate`). Default 0.
    pub accepts_per_ip_per_second: u32,
    /// Connections of one address at once, before [`Self::accepts_per_ip_per_second`] counts.
    /// Default 20.
    pub accepts_per_ip_burst: u32,
    /// Connections waiting in the kernel to be accepted, for each shard. Default 4,096.
    pub backlog: u32,

    /// Body bytes of a package before the handshake is done. A longer one closes the connection
    /// as soon as its header is there (`package_too_long`). Default 16 KiB.
    pub handshake_package_bytes_max: usize,
    /// Body bytes of a package once the session works, at most 2^24 - 1; the same happens.
    /// A WebSocket message may hold a few packages, and is bounded by twice this. So is, by this
    /// itself, what a compressed body becomes, and the JSON of one in protobuf, which is answered
    /// 500 above it (`bad_protobuf`). Default 2 MiB.
    pub package_bytes_max: usize,
    /// Bytes of an HTTP upgrade's head; a longer one is answered 431. Default 8 KiB.
    pub http_head_bytes_max: usize,
    /// Bytes queued for one slow client, at most 2^30. An answer that makes it more than half
    /// pauses the reading of its session, until it is less than a quarter (`outbox_pauses`). Above
    /// it pushes go whose route has the policy [`SlowConsumer::DropOldest`](crate::SlowConsumer)
    /// (`pushes_dropped`); if that is not enough the connection is closed
    /// (`closed_slow_consumer`). Default 8 MiB.
    pub outbox_bytes_max: usize,
    /// Pushes with the policy `DropOldest` that wait for one slow client; one more drops the oldest
    /// (`pushes_dropped`). Default 1,024.
    pub outbox_pushes_max: usize,
    /// For how long something may wait for a client to read. Then pushes go whose route has the
    /// policy `DropOldest` (`pushes_dropped`); for anything else but pushes that are kept as the
    /// latest, the connection is closed (`closed_outbox_age`). It is looked at every eighth of that
    /// time. Default 60 s.
    pub outbox_age_max: Duration,

    /// From the accept to the client's ACK, whatever it sends meanwhile; the time that the shard
    /// holds it back behind others does not count (`closed_handshake_timeout`). Default 10 s.
    pub handshake_timeout: Duration,
    /// A working TCP or WebSocket connection without a heartbeat configured is closed after this
    /// long without a byte from its client (`closed_idle`). Default 90 s.
    pub idle_timeout: Duration,
    /// How long a connection that the server closes may take to be read empty and closed by its
    /// client before it is cut. Default 1 s.
    pub close_linger: Duration,

    /// From forwarding a request to its answer; then it is answered 500 and a later answer is
    /// dropped (`forward_timeouts`). Default 30 s.
    pub forward_timeout: Duration,
    /// Requests of one shard that wait for workers. One more is answered 500 at once
    /// (`forward_rejects`). Default 262,144.
    pub forwards_in_flight_max: usize,
    /// Messages in one lane between a shard and a worker that it has not read, and as many more in
    /// batches that it has not handled. A request that finds it full is answered
    /// 500 at once, a notify is dropped (`forward_rejects`); or both wait, by the policy of the
    /// server type ([`LaneFull`](crate::LaneFull)). Default 65,536.
    pub lane_len: usize,
    /// Bytes of messages in one lane between a shard and a worker that it has not handled, those
    /// that its async handlers have yet to answer among them. A session may take as much of it as
    /// is left free, so that no few of them fill it; above that the same happens as at
    /// [`Self::lane_len`] (`forward_rejects`, `lane_pauses`). An empty lane takes any message.
    /// Default 64 MiB.
    pub lane_bytes_max: usize,
    /// Mails waiting for one shard from the other shards and from the host's threads. The host is
    /// told [`crate::HandleError::Busy`]; shards keep what does not fit, bounded by their sessions
    /// and [`Self::backlog_len_max`]. Default 16,384.
    pub inbox_len: usize,
    /// Pushes, kicks and look-ups kept by a shard or worker for a full lane. One more fails with
    /// "busy" (`mail_rejects`). Default 65,536.
    pub backlog_len_max: usize,
    /// Requests of one session that wait for a worker or an async handler. One more is answered
    /// 500 at once (`session_in_flight_rejects`); with as many a client of Pitaya's is not read
    /// further (`in_flight_pauses`). Default 4,096.
    pub in_flight_per_session_max: u16,
    /// Bytes of the messages of one session that wait for a worker or an async handler, twice
    /// where filters see them once more afterwards. One more message is refused as by
    /// [`Self::in_flight_per_session_max`] (`session_in_flight_rejects`), unless it is the only
    /// one. Default 8 MiB.
    pub in_flight_bytes_per_session_max: usize,
    /// Bytes that one shard keeps for its sessions: messages that wait for workers and async
    /// handlers, packages and WebSocket messages that have come in part, and answers that wait to
    /// be read. A session may keep as much as is left free, so that no few of them fill it. A
    /// message above that is answered 500 (`memory_rejects`); a session whose input or answers go
    /// above it is closed (`closed_memory`). Up to 64 KiB of input and answers of a session do not
    /// count, nor do pushes that it shares with others. Default 512 MiB.
    pub shard_bytes_max: usize,
    /// Bytes of one session that are read in one turn of its shard. What it has sent above that is
    /// read in later turns, as much in each, and its socket not before (`reading_pauses`). Default
    /// 64 KiB.
    pub bytes_per_turn_max: usize,
    /// Packages of one session that are read in one turn; the same happens. A WebSocket message of
    /// more packages closes the connection (`bad_websocket_message`). Default 1,024.
    pub messages_per_turn_max: u32,
    /// Work of one turn of a shard, for all its sessions together, that clients can ask for with
    /// few bytes: bytes that it inflates, of Pitaya's clients, where a byte of input counts for
    /// eight, and signatures that it checks, where one of 1,024 bits counts for 2 KiB, one of 2,048
    /// for 8 KiB, and a byte of its body for four. A message above it waits for a later turn, and
    /// its session is not read meanwhile (`work_waits`). A body that takes more than that, or than
    /// [`Self::bytes_per_turn_max`], gets so much in each turn, once those before it are done.
    /// Default 32 KiB.
    pub work_per_turn_max: usize,
    /// Body bytes of a message that has to be signed. The signature of a longer one is not looked
    /// at: a request is answered 500, a notify is dropped (`bad_signature`). Default 64 KiB.
    pub signed_bytes_max: usize,
    /// Bytes of one shard's sessions that wait for later turns or for room in a lane, besides one
    /// filling of the receive buffers. Above it sessions are read on at once (`hold_overflows`).
    /// A message that needs work as above and finds no room is refused (`work_rejects`). Default
    /// 16 MiB.
    pub held_bytes_max: usize,
    /// Messages of one session in a second, in the long run; 0 is no bound. Above it a request is
    /// answered 500 before any filter sees it, and a notify is dropped (`message_rate_rejects`).
    /// Heartbeats do not count. Default 0.
    pub messages_per_second: u32,
    /// Messages of one session at once, before [`Self::messages_per_second`] counts; a session that
    /// is silent saves up as many again. Default 100.
    pub messages_burst: u32,
    /// Async handlers, filters and spawned futures alive on one shard or worker. A request that
    /// would need one more is answered 500 (`task_rejects`). Default 65,536.
    pub tasks_max: usize,
    /// Bytes of a uid's text; a longer one can't be bound. Default 4,096.
    pub uid_bytes_max: usize,

    /// Bytes of one buffer that the kernel receives into, a multiple of 4,096. Default 16 KiB.
    pub receive_buffer_bytes: u32,
    /// Receive buffers of one shard, a power of two up to 32,768. When all are taken the kernel
    /// stops receiving until some are back (`receive_buffers_empty`). Default 256.
    pub receive_buffers: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            connections_per_shard_max: 65_536,
            accepts_per_ip_per_second: 0,
            accepts_per_ip_burst: 20,
            backlog: 4_096,
            handshake_package_bytes_max: 16 * 1024,
            package_bytes_max: 2 * 1024 * 1024,
            http_head_bytes_max: 8 * 1024,
            outbox_bytes_max: 8 * 1024 * 1024,
            outbox_pushes_max: 1_024,
            outbox_age_max: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            close_linger: Duration::from_secs(1),
            forward_timeout: Duration::from_secs(30),
            forwards_in_flight_max: 262_144,
            lane_len: 65_536,
            lane_bytes_max: 64 * 1024 * 1024,
            inbox_len: 16_384,
            backlog_len_max: 65_536,
            in_flight_per_session_max: 4_096,
            in_flight_bytes_per_session_max: 8 * 1024 * 1024,
            shard_bytes_max: 512 * 1024 * 1024,
            bytes_per_turn_max: 64 * 1024,
            messages_per_turn_max: 1_024,
            work_per_turn_max: 32 * 1024,
            signed_bytes_max: 64 * 1024,
            held_bytes_max: 16 * 1024 * 1024,
            messages_per_second: 0,
            messages_burst: 100,
            tasks_max: 65_536,
            uid_bytes_max: 4_096,
            receive_buffer_bytes: 16 * 1024,
            receive_buffers: 256,
        }
    }
}

impl Limits {
    /// Whether the bounds fit together.
    ///
    /// # Errors
    /// The first bound that does not, and what to write instead.
    pub fn check(&self) -> Result<(), LimitError> {
        for (key, holds, expected) in
            self.rules_of_connections().into_iter().chain(self.rules_of_messages())
        {
            if !holds {
                return Err(LimitError { key, expected });
            }
        }
        Ok(())
    }

    fn rules_of_connections(&self) -> [Rule; 12] {
        [
            ("connections_max", self.connections_max > 0, "at least 1"),
            (
                "connections_per_shard_max",
                (1..=1 << 24).contains(&self.connections_per_shard_max),
                "1 to 16777216",
            ),
            ("accepts_per_ip_burst", self.accepts_per_ip_burst > 0, "at least 1"),
            ("backlog", (1..=1 << 20).contains(&self.backlog), "1 to 1048576"),
            (
                "package_bytes_max",
                (64..=crate::wire::package::BODY_BYTES_MAX).contains(&self.package_bytes_max),
                "64 to 16777215",
            ),
            (
                "handshake_package_bytes_max",
                (64..=self.package_bytes_max).contains(&self.handshake_package_bytes_max),
                "64 to package_bytes_max",
            ),
            (
                "http_head_bytes_max",
                (256..=1 << 20).contains(&self.http_head_bytes_max),
                "256 to 1048576",
            ),
            (
                "outbox_bytes_max",
                self.outbox_bytes_max > self.package_bytes_max,
                "more than package_bytes_max",
            ),
            ("outbox_bytes_max", self.outbox_bytes_max <= 1 << 30, "1073741824 at most"),
            ("outbox_pushes_max", (1..=1 << 20).contains(&self.outbox_pushes_max), "1 to 1048576"),
            ("outbox_age_max", self.outbox_age_max.as_millis() >= 8, "8 ms or more"),
            (
                "handshake_timeout",
                !self.handshake_timeout.is_zero() && !self.idle_timeout.is_zero(),
                "more than zero, as idle_timeout",
            ),
        ]
    }

    fn rules_of_messages(&self) -> [Rule; 14] {
        [
            ("lane_len", (1..=1 << 24).contains(&self.lane_len), "1 to 16777216"),
            ("lane_bytes_max", self.lane_bytes_max > 0, "at least 1"),
            ("inbox_len", (1..=1 << 24).contains(&self.inbox_len), "1 to 16777216"),
            ("in_flight_per_session_max", self.in_flight_per_session_max > 0, "at least 1"),
            (
                "in_flight_bytes_per_session_max",
                (1..=1 << 30).contains(&self.in_flight_bytes_per_session_max),
                "1 to 1073741824",
            ),
            (
                "shard_bytes_max",
                self.shard_bytes_max >= 2 * self.outbox_bytes_max,
                "twice outbox_bytes_max or more",
            ),
            ("bytes_per_turn_max", self.bytes_per_turn_max > 0, "at least 1"),
            ("messages_per_turn_max", self.messages_per_turn_max > 0, "at least 1"),
            ("work_per_turn_max", self.work_per_turn_max > 0, "at least 1"),
            ("messages_burst", self.messages_burst > 0, "at least 1"),
            ("tasks_max", (1..=1 << 24).contains(&self.tasks_max), "1 to 16777216"),
            ("uid_bytes_max", (1..=65_535).contains(&self.uid_bytes_max), "1 to 65535"),
            (
                "receive_buffer_bytes",
                self.receive_buffer_bytes.is_multiple_of(4096)
                    && (4096..=1 << 24).contains(&self.receive_buffer_bytes),
                "a multiple of 4096 up to 16777216",
            ),
            (
                "receive_buffers",
                self.receive_buffers.is_power_of_two() && self.receive_buffers <= 1 << 15,
                "a power of two up to 32768",
            ),
        ]
    }
}

/// A bound, whether it holds, and what may be written there.
type Rule = (&'static str, bool, &'static str);

/// A bound of [`Limits`] that can't hold (made by the embedder).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitError {
    /// The field.
    pub key: &'static str,
    /// What may be written there.
    pub expected: &'static str,
}

impl std::fmt::Display for LimitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "limit `{}` must be {}", self.key, self.expected)
    }
}

impl std::error::Error for LimitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fit_together() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_bad_bound_is_named() {
        let limits = Limits { receive_buffers: 100, ..Limits::default() };
        assert_eq!(limits.check().unwrap_err().key, "receive_buffers");
        let limits = Limits { handshake_package_bytes_max: 1 << 23, ..Limits::default() };
        assert_eq!(limits.check().unwrap_err().key, "handshake_package_bytes_max");
    }
}
