//! The pauses before a batch is sent again, as the specification of OTLP has them: they grow, with
//! a part that is random, and are never shorter than the collector asks for.

use std::time::Duration;

use super::bounds::{RETRY_AFTER_MAX, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};

/// The pauses of one batch.
pub(super) struct Backoff {
    /// The longest that the next pause may be.
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: RETRY_PAUSE_MIN }
    }

    /// The next pause: by a random number at least half of what it may be, so that servers which
    /// have lost the same collector do not come back together.
    pub(super) fn pause(&mut self, random: u64) -> Duration {
        let half = self.next / 2;
        self.next = (self.next * 2).min(RETRY_PAUSE_MAX);
        let half_us = half.as_micros() as u64;
        half + Duration::from_micros(random % (half_us + 1))
    }
}

/// True if an answer of this status asks for the same request again: "OTLP/HTTP Response",
/// "Retryable Response Codes".
pub(super) fn is_retryable(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// The time that a `Retry-After` in seconds asks for, as far as it is granted. A date is not looked
/// at, since the clocks may differ.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits that are no number are too many.
    Some(text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_with_a_random_half() {
        for random in [0, 7, 123_456, u64::MAX] {
            let mut backoff = Backoff::new();
            let mut most = RETRY_PAUSE_MIN;
            for _ in 0..10 {
                let pause = backoff.pause(random);
                assert!(pause >= most / 2 && pause <= most, "{pause:?}");
                most = (most * 2).min(RETRY_PAUSE_MAX);
            }
            assert_eq!(most, RETRY_PAUSE_MAX);
        }
        let [one, other] = [1, 400_000].map(|random| Backoff::new().pause(random));
        assert_ne!(one, other);
    }

    #[test]
    fn a_wait_is_granted_in_seconds_and_bounded() {
        for (text, seconds) in [("0", 0), (" 7 ", 7), ("3600", 60), ("99999999999999999999", 60)] {
            assert_eq!(retry_after(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }

    #[test]
    fn only_what_may_pass_is_sent_again() {
        let retried: Vec<u16> = (100..600).filter(|status| is_retryable(*status)).collect();
        assert_eq!(retried, [429, 502, 503, 504]);
    }
}
