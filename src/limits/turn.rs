//! The bounds of a turn: the most of each kind of work that a thread does before it looks at the
//! rest. What is left is done in the next turn, which follows at once.
//!
//! They are constants, as no game needs others: what they bound is how long one client waits for
//! another. `docs/limits.md`, "A turn of a shard", lists them; a test compares it.

turn_bounds! {
    /// Completions of the ring in a turn.
    ///
    /// Mail and deadlines get their time between them.
    COMPLETIONS_PER_TURN: usize = 4_096, counters [];

    /// Accepts under way at one listener of a shard.
    ///
    /// They bound how many connections a turn accepts, so that those who are in are heard between
    /// thousands that come back at once.
    ACCEPTS_PER_LISTENER: usize = 8, counters [];

    /// Accepts in a millisecond of a shard that handles messages.
    ACCEPTS_PER_MS: u32 = 4, counters [];

    /// Refused connections in a millisecond that take no accept from others.
    ///
    /// One takes a sixth of what an accepted one takes in the end, but the kernel's share of it is
    /// to be bounded as well.
    REFUSALS_PER_MS: u32 = 28, counters [];

    /// Ends of clients' streams in a turn.
    ///
    /// Most of a connection's end is work.
    ENDS_PER_TURN: usize = 4, counters [];

    /// Ends of clients' streams in a millisecond of a shard that handles messages.
    ///
    /// With as many ends as accepts, a crowd that connects again would find the places of its old
    /// connections taken.
    ENDS_PER_MS: u32 = 8, counters [];

    /// Steps of handshakes in a turn.
    ///
    /// A look at the first bytes, at a request for an upgrade, at a handshake and at its
    /// acknowledgement are a step each. About as many as the connections that a turn accepts.
    HANDSHAKE_STEPS_PER_TURN: u32 = 16, counters [handshake_waits];

    /// Bytes of a handshake that count for a step more.
    ///
    /// Its JSON takes 13 ns for a byte.
    HANDSHAKE_STEP_BYTES: usize = 4 KiB, counters [];

    /// Sessions above their share that are read on in a turn.
    HELD_PER_TURN: usize = 8, counters [];

    /// Mails from the host, and messages from one worker, in a turn.
    ///
    /// Mails from shards are bounded by their lanes.
    MAILS_PER_PARTY: usize = 1_024, counters [];

    /// Messages that have waited and go into one lane in a turn.
    LANE_WAITS_PER_TURN: usize = 128, counters [];

    /// Futures of a shard or worker that are polled one after the other.
    TASKS_AT_ONCE: usize = 256, counters [];

    /// Bytes of one long body that are inflated in a turn at least.
    ///
    /// A smaller part is no use.
    INFLATED_PART_MIN: usize = 4 KiB, counters [];

    /// Bytes of answers that are compressed in a turn.
    ///
    /// They take half a millisecond or so. Further answers go as they are.
    DEFLATED_PER_TURN: usize = 128 KiB, counters [compression_skips];

    /// Bytes of long answers in a turn.
    ///
    /// Few bytes ask for many, and who has made them once does it again: sessions that get long
    /// answers come behind the others, and one in each turn, at least. So many take an eighth of a
    /// millisecond or so.
    ANSWER_BYTES_PER_TURN: usize = 64 KiB, counters [reading_pauses];

    /// Bytes of long answers in a turn from which sessions known for short ones wait, too.
    ///
    /// They do not before, as most that come in a turn are theirs, and few are read of those that
    /// have waited.
    ANSWER_BYTES_PER_TURN_MAX: usize = 4 MiB, counters [reading_pauses];

    /// Bytes above which the answers to what has come from a session at once are long.
    ///
    /// Without as many as their requests have, where they are answered at once.
    LONG_ANSWER_BYTES: usize = 4 KiB, counters [];

    /// Sends begun in a turn.
    ///
    /// A push to thousands takes several turns, so that those who ask for something meanwhile are
    /// answered between them.
    SENDS_PER_TURN: usize = 256, counters [];

    /// Bytes of the sends begun in a turn.
    SEND_BYTES_PER_TURN: usize = 16 KiB, counters [];

    /// Further submissions behind a turn in which many come or go.
    ///
    /// The kernel gives some twenty completions each time, in the order things happened, so that a
    /// message of somebody who is in would stand behind thousands of handshakes.
    SUBMITS_PER_CROWDED_TURN: usize = 12, counters [];

    #[cfg(feature = "admin")]
    /// Slots of sessions that are shown in a turn to whoever looks at them from outside.
    SESSIONS_SHOWN_PER_TURN: u32 = 256, counters [];

    #[cfg(feature = "admin")]
    /// Bytes of bodies of recorded sessions that are searched for secrets in a turn.
    ///
    /// A body that finds no room is not kept. They take half a millisecond or so.
    REDACTED_PER_TURN: usize = 64 KiB, counters [];

    /// Messages that a worker takes from one shard in a turn.
    ///
    /// The shard is woken once for all of their answers, so that it sends many of them at a time.
    MESSAGES_PER_SHARD: usize = 1_024, counters [];

    #[cfg(feature = "pomelo")]
    /// Reads from one connection of a Pomelo cluster in a turn of its thread.
    CLUSTER_READS_PER_TURN: usize = 4, counters [];

    #[cfg(feature = "pitaya")]
    /// Messages from NATS in a turn of the Pitaya cluster's thread.
    ///
    /// As many as share the cost, few enough for answers not to wait long behind each other.
    CLUSTER_MESSAGES_PER_TURN: usize = 1_024, counters [];
}
