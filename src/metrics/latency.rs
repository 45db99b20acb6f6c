//! The time that requests take inside the engine.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A histogram of microseconds from the turn in which a request was read to the one in which its
/// answer was handed to the socket. Three digits are kept.
#[derive(Debug, Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
}

/// The longest time, above every deadline of the engine; a longer one counts as this.
const MICROS_MAX: u64 = 600_000_000;

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MICROS_MAX, 3);
        Self { histogram: histogram.expect("the bounds are in order") }
    }
}

impl Latency {
    #[inline]
    pub(crate) fn record(&mut self, micros: u64, requests: u64) {
        self.histogram.saturating_record_n(micros.max(1), requests);
    }

    /// Takes what has been recorded and starts anew.
    pub(crate) fn take(&mut self) -> Self {
        let taken = self.clone();
        self.histogram.reset();
        taken
    }

    /// Adds what another shard recorded.
    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
    }

    /// Requests recorded.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.histogram.len()
    }

    /// The time within which the given share of requests stayed, such as 0.99 of them.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.histogram.value_at_quantile(share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_requests() {
        let mut latency = Latency::default();
        latency.record(10, 99);
        latency.record(1_000, 1);
        assert_eq!(latency.quantile(0.5), Duration::from_micros(10));
        assert!(latency.quantile(0.999) >= Duration::from_micros(1_000));
        let mut sum = Latency::default();
        sum.add(&latency.take());
        assert_eq!((sum.requests(), latency.requests()), (100, 0));
    }
}
