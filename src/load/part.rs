//! One ring's part of a run.

use super::LoadOptions;
use super::run_barrier::{DriverIndex, RunBarrier};

/// One ring's part of a run.
pub(super) struct Part<'a> {
    pub(super) barrier: &'a RunBarrier,
    pub(super) driver: DriverIndex,
    /// The whole run's options with this part's numbers.
    pub(super) options: LoadOptions,
    /// The number of its first connection in the whole run.
    pub(super) first: u32,
}

impl<'a> Part<'a> {
    pub(super) fn new(options: &LoadOptions, barrier: &'a RunBarrier, driver: DriverIndex) -> Self {
        let (all, rings) = (options.connections, barrier.len());
        let share = |driver: u32| all / rings + u32::from(driver < all % rings);
        let connections = share(driver.0);
        let rate = |rate: f64| rate * f64::from(connections) / f64::from(all);
        let options = LoadOptions {
            connections,
            opening: (options.opening / rings).max(1),
            rate: options.rate.map(rate),
            ..options.clone()
        };
        Self { barrier, driver, options, first: (0..driver.0).map(share).sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_rate_are_shared_out() {
        let address = "127.0.0.1:1".parse().unwrap();
        let options =
            LoadOptions { connections: 10, rate: Some(100.0), ..LoadOptions::new(address) };
        let barrier = RunBarrier::new(3);
        let parts: Vec<_> = (0..3).map(|n| Part::new(&options, &barrier, DriverIndex(n))).collect();
        let of = |part: &Part<'_>| (part.first, part.options.connections);
        assert_eq!(parts.iter().map(of).collect::<Vec<_>>(), [(0, 4), (4, 3), (7, 3)]);
        assert_eq!(parts[1].options.rate, Some(30.0));
    }
}
