//! The time that something takes, in buckets that are never reset: any number of readers see the
//! same, and each tells the rate of a time of its own by the difference of two looks.

use std::time::Duration;

use super::Counter;

/// The upper bounds of the buckets, in microseconds, each inclusive; what is above the last goes
/// into a bucket without a bound.
const BOUNDS_US: [u64; 19] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Bits of the longest time that a bound stands above; a longer one counts as this.
const BITS_MAX: usize = 26;

/// The first bucket that a time of so many bits may be in. There is one bound at most among the
/// times of as many bits, so that one comparison decides.
const FIRST_OF_BITS: [u8; BITS_MAX] = first_of_bits();

const fn first_of_bits() -> [u8; BITS_MAX] {
    let mut first = [0; BITS_MAX];
    let mut bits = 0;
    while bits < BITS_MAX {
        let (least, most) = (if bits == 0 { 0 } else { 1 << (bits - 1) }, (1_u64 << bits) - 1);
        let mut bucket = 0;
        while bucket < BOUNDS_US.len() && BOUNDS_US[bucket] < least {
            bucket += 1;
        }
        assert!(bucket + 1 >= BOUNDS_US.len() || BOUNDS_US[bucket + 1] >= most);
        first[bits] = bucket as u8;
        bits += 1;
    }
    first
}

fn bucket_of(micros: u64) -> usize {
    let bits = (u64::BITS - micros.leading_zeros()) as usize;
    let Some(first) = FIRST_OF_BITS.get(bits) else { return BOUNDS_US.len() };
    let first = usize::from(*first);
    first + usize::from(BOUNDS_US.get(first).is_some_and(|bound| micros > *bound))
}

/// Times as one thread counts them.
#[derive(Debug, Default)]
pub(crate) struct LatencyCounters {
    buckets: [Counter; BUCKETS],
    sum_us: Counter,
}

impl LatencyCounters {
    /// Counts things of which each has taken so long.
    #[inline]
    pub(crate) fn record(&self, micros: u64, times: u64) {
        self.buckets[bucket_of(micros)].add(times);
        self.sum_us.add(micros.wrapping_mul(times));
    }

    /// All that was counted so far.
    pub(crate) fn snapshot(&self) -> Latency {
        let mut buckets = [0; BUCKETS];
        for (bucket, counter) in buckets.iter_mut().zip(&self.buckets) {
            *bucket = counter.value();
        }
        Latency { buckets, sum_us: self.sum_us.value() }
    }
}

/// The time that requests, or other things, have taken so far: how many took up to each of some
/// bounds from 25 µs to 30 s, and the sum of all.
///
/// A request's time is that from the turn in which it was read to the one in which its answer was
/// handed to the socket.
///
/// ```
/// use shaddock::metrics::Latency;
///
/// # fn now() -> Latency { Latency::default() }
/// let before = now();
/// // A while later:
/// let lately = now().since(&before);
/// if lately.requests() > 0 {
///     println!("99 % within about {:?}", lately.quantile(0.99));
/// }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

impl Latency {
    /// Adds what another shard has counted.
    ///
    /// ```
    /// use shaddock::metrics::Latency;
    ///
    /// # fn print(handle: &shaddock::Handle) -> Result<(), shaddock::HandleError> {
    /// let mut turns = Latency::default();
    /// for shard in handle.metrics()?.shards {
    ///     turns.add(&shard.turns);
    /// }
    /// println!("{} turns took {:?}", turns.requests(), turns.sum());
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
    }

    /// The requests that have been counted since an earlier look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (bucket, earlier) in since.buckets.iter_mut().zip(&earlier.buckets) {
            *bucket = bucket.saturating_sub(*earlier);
        }
        since.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        since
    }

    /// Requests counted.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of their times.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// Each bucket: the longest time in it, and the requests that took so long but longer than
    /// those of the bucket before. The last one has no bound.
    ///
    /// ```
    /// # fn print(latency: &shaddock::metrics::Latency) {
    /// for (longest, requests) in latency.buckets() {
    ///     match longest {
    ///         Some(longest) => println!("{requests} took up to {longest:?}"),
    ///         None => println!("{requests} took longer"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + use<> {
        let bounds = BOUNDS_US.into_iter().map(|us| Some(Duration::from_micros(us)));
        bounds.chain([None]).zip(self.buckets)
    }

    /// The time within which about the given share of requests stayed, such as 0.99 of them: what
    /// a bucket has is taken as spread evenly over it. Of no requests it is zero.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = self.requests() as f64 * share.clamp(0.0, 1.0);
        let (mut below, mut least) = (0_u64, 0_u64);
        for (count, most) in self.buckets.iter().zip(BOUNDS_US) {
            let up_to = below + count;
            if *count > 0 && up_to as f64 >= wanted {
                let part = (wanted - below as f64) / *count as f64;
                let us = least as f64 + (most - least) as f64 * part.clamp(0.0, 1.0);
                return Duration::from_micros(us as u64);
            }
            (below, least) = (up_to, most);
        }
        if below == self.requests() { Duration::ZERO } else { Duration::from_micros(least) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_into_the_first_bucket_that_holds_it() {
        let times = BOUNDS_US.iter().flat_map(|us| [us - 1, *us, us + 1]);
        for us in times.chain([0, 1, 16, 31, 1 << 25, 1 << 26, 1 << 40, u64::MAX]) {
            let expected = BOUNDS_US.iter().position(|bound| us <= *bound);
            assert_eq!(bucket_of(us), expected.unwrap_or(BOUNDS_US.len()), "{us} µs");
        }
    }

    #[test]
    fn a_look_takes_nothing_away() {
        let counters = LatencyCounters::default();
        counters.record(10, 99);
        let before = counters.snapshot();
        assert_eq!(before, counters.snapshot());
        counters.record(1_000, 1);
        let after = counters.snapshot();
        assert_eq!((after.requests(), after.sum()), (100, Duration::from_micros(1_990)));
        let lately = after.since(&before);
        assert_eq!((lately.requests(), lately.sum()), (1, Duration::from_millis(1)));
        let mut sum = after;
        sum.add(&lately);
        assert_eq!(sum.requests(), 101);
    }

    #[test]
    fn quantiles_are_of_requests() {
        let counters = LatencyCounters::default();
        assert_eq!(counters.snapshot().quantile(0.5), Duration::ZERO);
        counters.record(10, 99);
        counters.record(900, 1);
        let latency = counters.snapshot();
        assert!(latency.quantile(0.5) <= Duration::from_micros(25));
        assert!(latency.quantile(0.999) > Duration::from_micros(500));
        assert!(latency.quantile(1.0) <= Duration::from_micros(1_000));
        counters.record(u64::MAX / 2, 1);
        assert_eq!(counters.snapshot().quantile(1.0), Duration::from_secs(30), "no less, at least");
    }

    #[test]
    fn buckets_name_their_bounds() {
        let counters = LatencyCounters::default();
        counters.record(25, 3);
        let buckets: Vec<_> = counters.snapshot().buckets().collect();
        assert_eq!(buckets.len(), BUCKETS);
        assert_eq!(buckets[0], (Some(Duration::from_micros(25)), 3));
        assert_eq!(buckets[BUCKETS - 1], (None, 0));
    }
}
