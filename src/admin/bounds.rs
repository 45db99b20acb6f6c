//! The bounds of the admin server. They are constants, as what they bound is who may look at an
//! engine at once, and for how long. `docs/operating.md`, "Bounds", lists them; a test compares it.

use std::time::Duration;

/// Connections on the Unix socket, and as many by TCP. One more is answered 503, unless one of them
/// has been silent for [`SILENCE_MAX`], which is closed for it.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head; one that is longer is answered 431.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines of a request; more are answered 431.
pub(super) const HEADERS_MAX: usize = 64;
/// Bytes of a request's body; one that is longer is answered 413.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// The time of a request from its connection's beginning until its answer is sent. What is not done
/// then is closed.
pub(super) const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// The time after which a connection that has sent no whole request makes room for another.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Streams of events on the Unix socket, and as many by TCP; one more is answered 503.
pub(super) const STREAMS_MAX: usize = 8;
/// Looks at sessions that are under way on the Unix socket, and as many by TCP; one more is
/// answered 503. With the streams they leave places to those who ask for less, as Prometheus does.
pub(super) const WALKS_MAX: usize = 4;
/// Bytes of the sessions that one look has found and keeps; the last of them are left out.
pub(super) const WALK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The time that a look waits for a shard. One that has not answered by then counts as silent until
/// it answers: the looks go on without it, and tell so.
pub(super) const SHARD_TIME_MAX: Duration = Duration::from_millis(500);
/// Parts of a shard's sessions that all looks together may ask it for in a second, in the long run.
pub(super) const PAGES_PER_SECOND: u32 = 100;
/// Parts of a shard's sessions that may be asked for at once: as many as all sessions of one are.
pub(super) const PAGES_AT_ONCE: u32 = 256;
/// Bytes of a list in an answer; what is behind them is left out, and `truncated` tells so.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a recording in an answer; what is behind them is left out.
pub(super) const RECORDING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of lists and recordings that wait for all their readers; one more is answered 503.
pub(super) const ANSWERS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that wait for the reader of a stream; while there are more it gets no events.
pub(super) const STREAM_BYTES_MAX: usize = 64 * 1024;
/// The time after which the stream of a reader who takes nothing is closed.
pub(super) const STREAM_SILENCE_MAX: Duration = Duration::from_secs(15);
/// Sessions in an answer, and a thousand where nobody asks for less.
pub(super) const SESSIONS_MAX: usize = 1_000;
/// Sessions that an answer may leave out in front (`offset`).
pub(super) const OFFSET_MAX: usize = 10_000;
/// Denied hosts in an answer, of at most 131,072 that there may be.
pub(super) const DENIED_SHOWN_MAX: usize = 1_000;
/// The time for which a host is denied where nobody says.
pub(super) const DENY_TIME: Duration = Duration::from_secs(3_600);
/// The longest time for which a host is denied from here: 30 days.
pub(super) const DENY_TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The time in which a shard has to turn to count as alive.
pub(super) const TURN_TIME_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_them() {
        let text = include_str!("../../docs/operating.md");
        let mib = |bytes: usize| format!("{} MiB", bytes / 1024 / 1024);
        let rows = [
            ("CONNECTIONS_MAX", CONNECTIONS_MAX.to_string()),
            ("HEAD_BYTES_MAX", format!("{} KiB", HEAD_BYTES_MAX / 1024)),
            ("HEADERS_MAX", HEADERS_MAX.to_string()),
            ("BODY_BYTES_MAX", format!("{} KiB", BODY_BYTES_MAX / 1024)),
            ("REQUEST_TIME_MAX", format!("{} s", REQUEST_TIME_MAX.as_secs())),
            ("SILENCE_MAX", format!("{} s", SILENCE_MAX.as_secs())),
            ("STREAMS_MAX", STREAMS_MAX.to_string()),
            ("WALKS_MAX", WALKS_MAX.to_string()),
            ("WALK_BYTES_MAX", mib(WALK_BYTES_MAX)),
            ("SHARD_TIME_MAX", format!("{} ms", SHARD_TIME_MAX.as_millis())),
            ("PAGES_PER_SECOND", PAGES_PER_SECOND.to_string()),
            ("PAGES_AT_ONCE", PAGES_AT_ONCE.to_string()),
            ("ANSWER_BYTES_MAX", mib(ANSWER_BYTES_MAX)),
            ("RECORDING_BYTES_MAX", mib(RECORDING_BYTES_MAX)),
            ("ANSWERS_BYTES_MAX", mib(ANSWERS_BYTES_MAX)),
            ("STREAM_BYTES_MAX", format!("{} KiB", STREAM_BYTES_MAX / 1024)),
            ("STREAM_SILENCE_MAX", format!("{} s", STREAM_SILENCE_MAX.as_secs())),
            ("SESSIONS_MAX", "1,000".to_owned()),
            ("OFFSET_MAX", "10,000".to_owned()),
            ("DENIED_SHOWN_MAX", "1,000".to_owned()),
            ("DENY_TIME", format!("{} h", DENY_TIME.as_secs() / 3_600)),
            ("DENY_TIME_MAX", format!("{} days", DENY_TIME_MAX.as_secs() / 86_400)),
            ("TURN_TIME_MAX", format!("{} s", TURN_TIME_MAX.as_secs())),
        ];
        assert_eq!((SESSIONS_MAX, OFFSET_MAX, DENIED_SHOWN_MAX), (1_000, 10_000, 1_000));
        for (name, value) in rows {
            let row = format!("| `{name}` | {value} |");
            assert!(text.contains(&row), "docs/operating.md lacks the row: {row}");
        }
    }
}
