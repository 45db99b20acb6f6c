//! Counters with one writer and any number of readers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only its shard's thread changes, so that a plain load and store count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// Makes it a gauge: it says what is, not what has been.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Counts one less, of a gauge.
    #[inline]
    pub(crate) fn one_less(&self) {
        self.set(self.value().saturating_sub(1));
    }

    #[inline]
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// The counters of one shard.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        /// The counters at one moment; of several shards, their sum.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct CounterSnapshot {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Their values now. Counters of one moment may be a message apart.
            #[must_use]
            pub(crate) fn snapshot(&self) -> CounterSnapshot {
                CounterSnapshot { $($name: self.$name.value(),)+ }
            }
        }

        impl std::ops::AddAssign for CounterSnapshot {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)+
            }
        }

        impl CounterSnapshot {
            /// Each counter by its name.
            ///
            /// ```
            /// use shaddock::{Engine, testing};
            ///
            /// let t = testing::Engine::new(Engine::builder());
            /// let _amy = t.connect();
            /// for (name, count) in t.counters().iter().filter(|(_, count)| *count > 0) {
            ///     println!("{name} {count}");
            /// }
            /// ```
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_accepted,
    /// Connections whose sockets have been closed.
    connections_closed,
    /// Handshakes answered with 200.
    handshakes,
    /// Bytes received.
    bytes_in,
    /// Bytes sent.
    bytes_out,
    /// Requests received.
    requests,
    /// Notifies received, and pushes, which count as such.
    notifies,
    /// Answers sent.
    answers,
    /// Pushes queued, one for each receiver.
    pushes,
    /// Pushes that were dropped while they waited for slow clients, by the policy `drop_oldest`.
    pushes_dropped,
    /// Pushes that a newer one has replaced while they waited, by the policy `keep_latest`.
    pushes_replaced,
    /// Heartbeats of clients: answered, but for those of Pitaya's.
    heartbeats,

    /// Turned away by the host filter.
    refused_host,
    /// Turned away because of `accepts_per_ip_per_second`.
    refused_accept_rate,
    /// Turned away because of `connections_max`.
    refused_max_connections,
    /// Handshakes that are malformed, or refused by code of the embedder's.
    refused_handshake,
    /// Handshakes refused because of `handshakes_waiting_bytes_max`; they count above too.
    handshake_rejects,
    /// Handshakes refused because the client is too old, by `check_client` or `version_min`.
    refused_version,
    /// Handshakes refused because of the client's type.
    refused_type,
    /// Handshakes refused because of maintenance.
    refused_maintenance,
    /// HTTP requests that were no valid upgrade.
    refused_http,
    /// Requests for the health path, which are answered and closed.
    health_checks,
    /// WebSockets that pages of other origins than a listener's wanted to open.
    refused_origin,
    /// Handshakes turned away by a drain that refuses logins.
    refused_draining,
    /// Peers turned away by a listener with the PROXY protocol that does not trust them.
    refused_proxy,
    /// Connections closed because they did not start with a good PROXY header.
    bad_proxy,

    /// TLS handshakes done.
    tls_handshakes,
    /// Those of them that a ticket has made short.
    tls_resumptions,
    /// Connections closed because of their TLS: handshakes that failed, and records that are none.
    bad_tls,

    /// Packages of an unknown type, or of a type that clients may not send.
    bad_package_type,
    /// Packages above `handshake_package_bytes_max` or `package_bytes_max`, WebSocket messages
    /// above twice that, and compressed bodies that would be above it when they are inflated.
    package_too_long,
    /// Compressed bodies that can't be inflated.
    bad_compression,
    /// Messages cut short, or whose id has more than 32 bits.
    bad_message,
    /// Messages of a type that clients may not send; dropped.
    bad_message_type,
    /// Routes that nobody handles, including unknown codes.
    unknown_route,
    /// Bodies that do not fit their schema.
    bad_protobuf,
    /// Messages without a good signature, where they have to be signed.
    bad_signature,
    /// WebSocket frames against RFC 6455.
    bad_websocket,
    /// WebSocket messages that are not whole packages.
    bad_websocket_message,
    /// Packages that came in a state that ignores them.
    ignored_packages,
    /// Clients kicked for naming the method `constructor`.
    attacks,

    /// Closed by their clients.
    closed_by_peer,
    /// Closed by the engine's user: kicks.
    closed_by_kick,
    /// Those of them whose uid has logged in again, where the newest login wins (`single_session`,
    /// and in a Pitaya cluster).
    sessions_replaced,
    /// Closed because no heartbeat came in time.
    closed_heartbeat_timeout,
    /// Closed because nothing came for `idle_timeout`.
    closed_idle,
    /// Closed because the ACK did not come within `handshake_timeout`.
    closed_handshake_timeout,
    /// Closed because of what they sent.
    closed_protocol,
    /// Closed because more than `outbox_bytes_max` waited for them.
    closed_slow_consumer,
    /// Closed because something waited for them for longer than `outbox_age_max`.
    closed_outbox_age,
    /// Closed because more was kept for them than was left of `shard_bytes_max`.
    closed_memory,
    /// Closed by the engine's shutdown.
    closed_shutdown,
    /// Those that are closed and were cut, as their clients had not closed within `close_linger`.
    linger_cuts,

    /// Requests and notifies forwarded to workers and to other processes.
    forwards,
    /// Requests and notifies refused because the worker's lane was full, or because of a bound on
    /// what waits for a server of the cluster.
    forward_rejects,
    /// Requests and notifies that have waited for room in a worker's lane, their sessions paused,
    /// by the policy [`LaneFull::Pause`](crate::LaneFull).
    lane_pauses,
    /// Forwarded requests not answered within `forward_timeout`, or within a cluster's own time.
    forward_timeouts,
    /// Requests and notifies for other processes that found no server or no connection, and
    /// requests whose server's connection was lost.
    forward_lost,
    /// Requests and notifies that have waited for a place in the window of a server of a Pitaya
    /// cluster (`PitayaLimits::window`).
    cluster_waits,
    /// Calls from servers of the cluster.
    cluster_calls,
    /// Packets, calls and answers of servers of the cluster that could not be read.
    cluster_bad_packets,
    /// Connections of a cluster's servers closed because of `output_bytes_max`,
    /// `output_total_bytes_max` or `input_total_bytes_max`.
    cluster_overflows,
    /// Names of the cluster's servers that had to wait for other look-ups (`lookups_max`).
    lookup_waits,
    /// Times that a session's reading has paused, because its share of a turn was used up
    /// (`bytes_per_turn_max`, `messages_per_turn_max`).
    reading_pauses,
    /// Times that what a client has sent before its handshake was done had to wait for a later
    /// turn, because many came at once.
    handshake_waits,
    /// Times that a session's reading has paused, because an answer has filled its outbox to half
    /// of `outbox_bytes_max`.
    outbox_pauses,
    /// Messages that have waited for a later turn because of `work_per_turn_max`, or because their
    /// bodies are long when they are inflated.
    work_waits,
    /// Those of them that were refused because of `held_bytes_max`.
    work_rejects,
    /// Answers to clients of Pitaya's that were not compressed, because the turn had compressed
    /// enough.
    compression_skips,
    /// Times that a session was read on above its share, or with its outbox half full, because of
    /// `held_bytes_max`.
    hold_overflows,
    /// Requests and notifies refused because of `messages_per_second`.
    message_rate_rejects,
    /// Requests and notifies refused because of `in_flight_per_session_max` or
    /// `in_flight_bytes_per_session_max`.
    session_in_flight_rejects,
    /// Requests and notifies refused because their session would keep more than is left of
    /// `shard_bytes_max`.
    memory_rejects,
    /// Pauses of reading from clients of Pitaya's whose requests under way are as many as may be.
    in_flight_pauses,
    /// Requests refused, and futures dropped, because of `tasks_max`.
    task_rejects,
    /// Panics of handlers, sync or async.
    handler_panics,
    /// Panics of filters.
    filter_panics,
    /// Panics of other callbacks: routers, looks at handshakes, `on_session_opened` and
    /// `on_session_closed`, receivers of mail, the host filter's, and the filters of audiences.
    callback_panics,
    /// Turns of shards and workers that took longer than `turn_warning`.
    long_turns,
    /// Panics of spawned futures, of hooks of a shutdown, and of ticks of timers.
    task_panics,
    /// Futures that were owed when the engine stopped, and that its drain has had no time for.
    futures_lost,
    /// Pushes, kicks and look-ups refused because of `backlog_len_max`.
    mail_rejects,
    /// The embedder's own messages to workers refused because of `inbox_len`.
    worker_mail_rejects,
    /// The embedder's own messages to workers that nobody has received: of a type without a
    /// receiver.
    worker_mail_unhandled,
    /// Ticks that have panicked.
    tick_panics,
    /// Times that the kernel found no receive buffer.
    receive_buffers_empty,
    /// Times that accepting failed, for want of the kernel's memory.
    accept_failures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_add_up_and_name_their_counters() {
        let counters = Counters::default();
        counters.requests.add(2);
        counters.requests.one();
        let mut sum = counters.snapshot();
        sum += counters.snapshot();
        assert_eq!(sum.requests, 6);
        assert!(sum.iter().any(|pair| pair == ("requests", 6)));
    }
}
