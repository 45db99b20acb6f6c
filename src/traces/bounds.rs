//! The bounds of traces. `docs/limits.md`, "Traces", lists them with those of the shards; a test
//! compares it.

use std::time::Duration;

/// The time between two looks for spans.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Spans of one request.
pub(super) const BATCH_SPANS_MAX: usize = 512;
/// Bytes of the spans of one request, before the one that goes above.
pub(super) const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer.
pub(super) const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Time in which the collector has to answer, where nobody says another.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(5);
/// The longest that may be said.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Time for the spans that are left when the engine has stopped.
pub(super) const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);
/// Time from the first request on in which a batch is sent again, where nobody says another. No
/// more than that batch is kept meanwhile.
pub(super) const RETRY_TIME: Duration = Duration::from_secs(30);
/// The longest that may be said.
pub(super) const RETRY_TIME_MAX: Duration = Duration::from_secs(300);
/// The first pause before a batch is sent again, at most.
pub(super) const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The pause that they grow to, at most.
pub(super) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest wait that a collector is granted by `Retry-After`.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::{OPEN_SPANS_MAX, QUEUE_SPANS_MAX, TEXT_BYTES_MAX};

    #[test]
    fn the_documentation_lists_them() {
        let text = include_str!("../../docs/limits.md");
        let rows = [
            ("OPEN_SPANS_MAX", "1,024".to_owned()),
            ("QUEUE_SPANS_MAX", "1,024".to_owned()),
            ("TEXT_BYTES_MAX", TEXT_BYTES_MAX.to_string()),
            ("BATCH_SPANS_MAX", BATCH_SPANS_MAX.to_string()),
            ("BATCH_BYTES_MAX", format!("{} KiB", BATCH_BYTES_MAX / 1024)),
            ("LOOK_EVERY", format!("{} ms", LOOK_EVERY.as_millis())),
            ("ANSWER_BYTES_MAX", format!("{} KiB", ANSWER_BYTES_MAX / 1024)),
            ("ANSWER_TIME", format!("{} s", ANSWER_TIME.as_secs())),
            ("ANSWER_TIME_MAX", format!("{} s", ANSWER_TIME_MAX.as_secs())),
            ("RETRY_TIME", format!("{} s", RETRY_TIME.as_secs())),
            ("RETRY_TIME_MAX", format!("{} min", RETRY_TIME_MAX.as_secs() / 60)),
            ("RETRY_PAUSE_MIN", format!("{} s", RETRY_PAUSE_MIN.as_secs())),
            ("RETRY_PAUSE_MAX", format!("{} s", RETRY_PAUSE_MAX.as_secs())),
            ("RETRY_AFTER_MAX", format!("{} s", RETRY_AFTER_MAX.as_secs())),
            ("FLUSH_TIME_MAX", format!("{} s", FLUSH_TIME_MAX.as_secs())),
        ];
        assert_eq!((OPEN_SPANS_MAX, QUEUE_SPANS_MAX), (1_024, 1_024));
        for (name, value) in rows {
            let row = format!("| fixed (`{name}`) | {value} |");
            assert!(text.contains(&row), "docs/limits.md lacks the row: {row}");
        }
    }
}
