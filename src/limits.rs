//! Every bound of the engine, with its unit, its default and what happens there.

#[cfg(test)]
mod documents;
#[macro_use]
mod table;
pub(crate) mod turn;

use std::time::Duration;

pub use self::table::{Limit, LimitNumber, LimitVisitor};

limits! {
    /// The bounds of one engine. The defaults suit a connector of ordinary games.
    ///
    /// The first line of each is what it bounds. What happens there is counted in
    /// [`CounterSnapshot`](crate::metrics::CounterSnapshot) under the names that are given.
    ///
    /// ```
    /// use shaddock::Limits;
    ///
    /// let limits = Limits { package_bytes_max: 64 * 1024, ..Limits::default() };
    /// assert!(limits.check().is_ok());
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[allow(clippy::exhaustive_structs)] // Built with `..Limits::default()` by every embedder.
    Limits {
        /// Connections of the engine.
        ///
        /// Pomelo's `max-connections`. One more is closed at once, without a package.
        connections_max: usize = 1_000_000,
            check [at least 1],
            counters [refused_max_connections];

        /// Connections of one shard.
        ///
        /// A ring's table of direct descriptors can't be larger than the process's limit of
        /// descriptors, which lowers this one silently. One more is accepted by a shard that has a
        /// place; where none has, it waits in the listener's backlog.
        connections_per_shard_max: u32 = 65_536,
            check [1 to 16_777_216],
            told "`Metrics::connections` stays below it";

        /// Connections of one address in a second, in the long run, for each shard.
        ///
        /// 0 is no bound. Each shard counts those that it gets: with several, an address may have
        /// as many times more. An IPv6 address counts with its network of 64 bits. Where a proxy
        /// tells the client's address, that one counts. One more is closed at once, an upgrade that
        /// a proxy has passed on after the answer 429.
        accepts_per_ip_per_second: u32 = 0,
            check [any],
            counters [refused_accept_rate];

        /// Connections of one address at once, for each shard.
        ///
        /// From there on [`Self::accepts_per_ip_per_second`] counts.
        accepts_per_ip_burst: u32 = 20,
            check ["at least 1 where accepts_per_ip_per_second is set" if |limits| {
                limits.accepts_per_ip_burst >= 1 || limits.accepts_per_ip_per_second == 0
            }],
            counters [refused_accept_rate];

        /// Connections that wait in the kernel to be accepted, for each shard and listener.
        ///
        /// The kernel drops one more, and its client's kernel tries again after a second. The
        /// kernel's own bound, `net.core.somaxconn`, may be lower.
        backlog: u32 = 4_096,
            check [1 to 1_048_576],
            told "the kernel's `TcpExtListenOverflows`";

        /// Bytes of a package's body once the handshake is done.
        ///
        /// A longer one closes the connection as soon as its header is there. A WebSocket message
        /// may hold a few packages, and is bounded by twice this. So is, by this itself, what a
        /// compressed body becomes, and the JSON of one in protobuf, which is answered 500 above
        /// it.
        package_bytes_max: usize = 2 MiB,
            check ["64 to 16777215" if |limits| {
                (64..=crate::wire::package::BODY_BYTES_MAX).contains(&limits.package_bytes_max)
            }],
            counters [package_too_long, bad_protobuf];

        /// Bytes of a package's body before the handshake is done.
        ///
        /// A longer one closes the connection as soon as its header is there.
        handshake_package_bytes_max: usize = 16 KiB,
            check ["64 to package_bytes_max" if |limits| {
                (64..=limits.package_bytes_max).contains(&limits.handshake_package_bytes_max)
            }],
            counters [package_too_long];

        /// Bytes of the head of an HTTP upgrade.
        ///
        /// A longer one is answered 431, and closed.
        http_head_bytes_max: usize = 8 KiB,
            check [256 to 1_048_576],
            counters [refused_http];

        /// Bytes that wait for one client to read.
        ///
        /// An answer that makes it more than half pauses the reading of its session, until it is
        /// less than a quarter. Above it pushes go whose route has the policy
        /// [`SlowConsumer::DropOldest`](crate::SlowConsumer); if that is not enough the connection
        /// is closed.
        outbox_bytes_max: usize = 8 MiB,
            check ["more than package_bytes_max, and 1073741824 at most" if |limits| {
                limits.outbox_bytes_max > limits.package_bytes_max
                    && limits.outbox_bytes_max <= 1 << 30
            }],
            counters [outbox_pauses, pushes_dropped, closed_slow_consumer];

        /// Pushes of the policy `drop_oldest` that wait for one client to read.
        ///
        /// One more drops the oldest.
        outbox_pushes_max: usize = 1_024,
            check [1 to 1_048_576],
            counters [pushes_dropped];

        /// Time that something waits for one client to read.
        ///
        /// Then pushes go whose route has the policy `drop_oldest`; for anything else but pushes
        /// that are kept as the latest, the connection is closed. It is looked at every eighth of
        /// that time.
        outbox_age_max: Duration = 60 s,
            check ["8 ms or more" if |limits| limits.outbox_age_max.as_millis() >= 8],
            counters [pushes_dropped, closed_outbox_age];

        /// Time from the accept to the handshake's ACK.
        ///
        /// The connection is closed, whatever its client sends meanwhile. The time that the shard
        /// holds it back behind others does not count.
        handshake_timeout: Duration = 10 s,
            check ["more than zero" if |limits| !limits.handshake_timeout.is_zero()],
            counters [closed_handshake_timeout];

        /// Bytes of one shard's handshakes that wait for the embedder's future.
        ///
        /// A handshake counts with its body and its HTTP headers, and with 1 KiB at least; the JSON
        /// that is made of it may take thirty times as much. One more is refused
        /// ([`Builder::on_handshake`](crate::Builder::on_handshake)).
        handshakes_waiting_bytes_max: usize = 8 MiB,
            check [any],
            counters [handshake_rejects];

        /// Time without a byte from a client, where there are no heartbeats.
        ///
        /// A working connection, by TCP or WebSocket, is closed.
        idle_timeout: Duration = 90 s,
            check ["more than zero" if |limits| !limits.idle_timeout.is_zero()],
            counters [closed_idle];

        /// Time from the server's end of a connection to its client's.
        ///
        /// Until then it is read, so that the client gets what was sent last. Then it is cut. When
        /// the engine stops a client to whom all is sent has a quarter of it.
        close_linger: Duration = 1 s,
            check [any],
            counters [linger_cuts];

        /// Time from forwarding a request to its answer.
        ///
        /// The request is answered 500, and a later answer is dropped.
        forward_timeout: Duration = 30 s,
            check [any],
            counters [forward_timeouts];

        /// Requests of one shard that wait for workers and clusters.
        ///
        /// One more is answered 500 at once.
        forwards_in_flight_max: usize = 262_144,
            check [any],
            counters [forward_rejects];

        /// Messages between one shard and one worker that it has not read.
        ///
        /// As many more may be in batches that it has not handled. A request that finds the lane
        /// full is answered 500 at once, a notify is dropped; or both wait, by the policy of the
        /// server type ([`LaneFull`](crate::LaneFull)).
        lane_len: usize = 65_536,
            check [1 to 16_777_216],
            counters [forward_rejects, lane_pauses];

        /// Bytes of messages between one shard and one worker that it has not handled.
        ///
        /// Those that its async handlers have yet to answer count too. A session may take as much
        /// of it as is left free, so that no few of them fill it; above that the same happens as at
        /// [`Self::lane_len`]. An empty lane takes any message.
        lane_bytes_max: usize = 64 MiB,
            check [at least 1],
            counters [forward_rejects, lane_pauses];

        /// Mails that wait for one shard, from the other shards and from the host's threads.
        ///
        /// The host is told [`crate::HandleError::Busy`]; shards keep what does not fit, bounded by
        /// their sessions and [`Self::backlog_len_max`]. As many messages of the embedder's own may
        /// wait for one worker: whoever sends one more is told [`crate::MailError::Full`].
        inbox_len: usize = 16_384,
            check [1 to 16_777_216],
            counters [worker_mail_rejects];

        /// Pushes, kicks and look-ups of one shard or worker that wait for a full lane.
        ///
        /// One more fails with "busy".
        backlog_len_max: usize = 65_536,
            check [any],
            counters [mail_rejects];

        /// Requests of one session that wait for a worker or an async handler.
        ///
        /// Notifies in a worker's futures count too. One more request is answered 500 at once; with
        /// as many a client of Pitaya's is not read further.
        in_flight_per_session_max: u16 = 4_096,
            check [at least 1],
            counters [session_in_flight_rejects, in_flight_pauses];

        /// Bytes of one session's messages that wait for a worker or an async handler.
        ///
        /// They count twice where filters see them once more afterwards. One more message is
        /// refused as by [`Self::in_flight_per_session_max`], unless it is the only one.
        in_flight_bytes_per_session_max: usize = 8 MiB,
            check [1 to 1_073_741_824],
            counters [session_in_flight_rejects, in_flight_pauses];

        /// Bytes that one shard keeps for its sessions.
        ///
        /// These are messages that wait for workers and async handlers, packages and WebSocket
        /// messages that have come in part, and answers that wait to be read. A session may keep as
        /// much as is left free, so that no few of them fill it. A message above that is answered
        /// 500; a session whose input or answers go above it is closed. Up to 64 KiB of input and
        /// answers of a session do not count, nor do pushes that it shares with others.
        shard_bytes_max: usize = 512 MiB,
            check ["twice outbox_bytes_max or more" if |limits| {
                limits.shard_bytes_max >= 2 * limits.outbox_bytes_max
            }],
            counters [memory_rejects, closed_memory];

        /// Bytes of one session that are read in one turn of its shard.
        ///
        /// The rest is read in later turns, as much in each, and its socket not before.
        bytes_per_turn_max: usize = 64 KiB,
            check [at least 1],
            counters [reading_pauses];

        /// Packages of one session that are read in one turn of its shard.
        ///
        /// The rest is read in later turns, as much in each, and its socket not before. A WebSocket
        /// message of more packages closes the connection.
        messages_per_turn_max: u32 = 1_024,
            check [at least 1],
            counters [reading_pauses, bad_websocket_message];

        /// Bytes of work of one turn of a shard, for all its sessions together.
        ///
        /// Work is what clients can ask for with few bytes: bytes that are inflated, of Pitaya's
        /// clients, where a byte of input counts for eight, and signatures that are checked, where
        /// one of 1,024 bits counts for 2 KiB, one of 2,048 for 8 KiB, and a byte of its body for
        /// four. A message above it waits for a later turn, and its session is not read meanwhile.
        /// A body that takes more than that, or than [`Self::bytes_per_turn_max`], gets so much in
        /// each turn, once those before it are done.
        work_per_turn_max: usize = 16 KiB,
            check [at least 1],
            counters [work_waits];

        /// Bytes of the body of a message that has to be signed.
        ///
        /// The signature of a longer one is not looked at: a request is answered 500, a notify is
        /// dropped.
        signed_bytes_max: usize = 64 KiB,
            check [any],
            counters [bad_signature];

        /// Bytes of one shard's sessions that wait for later turns or for room in a lane.
        ///
        /// One filling of the receive buffers comes on top. Above it sessions are read on at once.
        /// A message that needs work as above and finds no room is refused.
        held_bytes_max: usize = 16 MiB,
            check [any],
            counters [hold_overflows, work_rejects];

        /// Messages of one session in a second, in the long run.
        ///
        /// 0 is no bound. Above it a request is answered 500 before any filter sees it, and a
        /// notify is dropped. Heartbeats do not count.
        messages_per_second: u32 = 0,
            check [any],
            counters [message_rate_rejects];

        /// Messages of one session at once.
        ///
        /// From there on [`Self::messages_per_second`] counts. A session that is silent saves up as
        /// many again.
        messages_burst: u32 = 100,
            check ["at least 1 where messages_per_second is set" if |limits| {
                limits.messages_burst >= 1 || limits.messages_per_second == 0
            }],
            counters [message_rate_rejects];

        /// Time that a turn of a shard or worker takes.
        ///
        /// The log tells of a longer one, with a route, or the name of a future or callback: the
        /// first time that of the call which came last in the turn; for a minute from then on calls
        /// are timed, and it is the longest. A process that was stopped, and a machine that is too
        /// busy, look the same.
        turn_warning: Duration = 100 ms,
            check ["more than zero" if |limits| !limits.turn_warning.is_zero()],
            counters [long_turns];

        /// Async handlers, filters and spawned futures alive on one shard or worker.
        ///
        /// A request that would need one more is answered 500.
        tasks_max: usize = 65_536,
            check [1 to 16_777_216],
            counters [task_rejects];

        /// Bytes of a uid's text.
        ///
        /// A longer one can't be bound.
        uid_bytes_max: usize = 4 KiB,
            check [1 to 65_535],
            told "`BindError::BadUid`";

        /// Bytes of one buffer that the kernel receives into.
        ///
        /// A client gets as many of them as it has sent bytes for.
        receive_buffer_bytes: u32 = 16 KiB,
            check ["a multiple of 4096 up to 16777216" if |limits| {
                limits.receive_buffer_bytes.is_multiple_of(4096)
                    && (4096..=1 << 24).contains(&limits.receive_buffer_bytes)
            }],
            counters [receive_buffers_empty];

        /// Receive buffers of one shard.
        ///
        /// When all are taken the kernel stops receiving until some are back.
        receive_buffers: u16 = 256,
            check ["a power of two up to 32768" if |limits| {
                limits.receive_buffers.is_power_of_two() && limits.receive_buffers <= 1 << 15
            }],
            counters [receive_buffers_empty];
    }
}

impl Limits {
    pub(crate) fn turn_warning_us(&self) -> u64 {
        u64::try_from(self.turn_warning.as_micros()).unwrap_or(u64::MAX)
    }

    /// Checks that the bounds can hold and fit together.
    ///
    /// ```
    /// use shaddock::Limits;
    ///
    /// let error = Limits { tasks_max: 0, ..Limits::default() }.check().unwrap_err();
    /// assert_eq!((error.key, error.expected), ("tasks_max", "1 to 16777216"));
    /// ```
    ///
    /// # Errors
    /// The first bound that does not, and what to write instead.
    pub fn check(&self) -> Result<(), LimitError> {
        match Self::table().iter().find(|limit| !(limit.holds)(self)) {
            Some(limit) => Err(LimitError { key: limit.key, expected: limit.expected }),
            None => Ok(()),
        }
    }
}

/// A bound of [`Limits`] that can't hold (made by the embedder).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitError {
    /// The field.
    pub key: &'static str,
    /// The values that may be written there.
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
    use crate::metrics::CounterSnapshot;

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
        let limits = Limits { idle_timeout: Duration::ZERO, ..Limits::default() };
        let error = limits.check().unwrap_err();
        assert_eq!(error.to_string(), "limit `idle_timeout` must be more than zero");
    }

    #[test]
    fn a_burst_counts_only_where_there_is_a_rate() {
        let off = Limits { messages_burst: 0, accepts_per_ip_burst: 0, ..Limits::default() };
        assert_eq!(off.check(), Ok(()));
        let limits = Limits { messages_per_second: 1, ..off };
        assert_eq!(limits.check().unwrap_err().key, "messages_burst");
        let limits = Limits { messages_per_second: 0, accepts_per_ip_per_second: 1, ..limits };
        assert_eq!(limits.check().unwrap_err().key, "accepts_per_ip_burst");
    }

    #[test]
    fn every_counter_of_a_limit_is_one() {
        let counters: Vec<_> = CounterSnapshot::default().iter().map(|(name, _)| name).collect();
        for limit in Limits::table() {
            assert_eq!(limit.counters.is_empty(), !limit.told.is_empty(), "{}", limit.key);
        }
        for limit in Limits::table().iter().chain(turn::TABLE) {
            for counter in limit.counters {
                assert!(counters.contains(counter), "{}: there is no counter {counter}", limit.key);
            }
        }
    }
}
