//! A bound on how often something may happen: a bucket of tokens that fills up with time.

use crate::session::Slot;

/// A rate, and what may happen at once above it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    interval_ns: u64,
    burst_ns: u64,
}

/// One bucket: when it will be full again. One that is full needs no upkeep, and is all zero.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    full_at_ns: u64,
}

impl Rate {
    /// `None` where there is no bound: a rate of 0.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let interval_ns = 1_000_000_000_u64.checked_div(u64::from(per_second))?;
        Some(Self { interval_ns, burst_ns: interval_ns * u64::from(burst) })
    }

    /// Takes a token; whether there was one.
    #[inline]
    pub(super) fn take(self, bucket: &mut Bucket, now_us: u64) -> bool {
        let now_ns = now_us * 1000;
        let full_at_ns = bucket.full_at_ns.max(now_ns) + self.interval_ns;
        let has_token = full_at_ns - now_ns <= self.burst_ns;
        if has_token {
            bucket.full_at_ns = full_at_ns;
        }
        has_token
    }
}

impl Bucket {
    /// The earlier, the fuller it is.
    pub(super) fn full_at_ns(self) -> u64 {
        self.full_at_ns
    }
}

/// The messages of sessions. It stands beside the connections, so that those of an engine without
/// this bound are no larger.
#[derive(Debug)]
pub(super) struct MessageRate {
    rate: Rate,
    /// By slot.
    buckets: Vec<Bucket>,
}

impl MessageRate {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Vec::new() }
    }

    /// A session begins, with a full bucket.
    pub(super) fn begin(&mut self, slot: Slot) {
        if self.buckets.len() <= slot.index() {
            self.buckets.resize(slot.index() + 1, Bucket::default());
        }
        self.buckets[slot.index()] = Bucket::default();
    }

    /// Counts a message; whether the session may send it.
    #[inline]
    pub(super) fn take(&mut self, slot: Slot, now_us: u64) -> bool {
        self.buckets.get_mut(slot.index()).is_some_and(|bucket| self.rate.take(bucket, now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, 3).unwrap();
        let mut bucket = Bucket::default();
        let taken = |bucket: &mut Bucket, now_us: u64| {
            (0..20).filter(|_| rate.take(bucket, now_us)).count()
        };
        assert_eq!(taken(&mut bucket, 5_000_000), 3);
        assert_eq!(taken(&mut bucket, 5_099_999), 0);
        assert_eq!(taken(&mut bucket, 5_100_000), 1);
        assert_eq!(taken(&mut bucket, 5_250_000), 1);
        assert_eq!(taken(&mut bucket, 5_299_999), 0);
        assert_eq!(taken(&mut bucket, 5_300_000), 1);
        assert_eq!(taken(&mut bucket, 60_000_000), 3, "no more than the burst is saved up");
    }

    #[test]
    fn rates_may_be_as_large_as_they_like() {
        assert!(Rate::new(0, 5).is_none());
        for (per_second, burst) in [(1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            let rate = Rate::new(per_second, burst).unwrap();
            assert!(rate.take(&mut Bucket::default(), 1 << 50));
        }
    }
}
