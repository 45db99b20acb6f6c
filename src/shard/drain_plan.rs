//! The times of a drain, which the shell, the test kit and the simulation give a shard.

/// The times of a drain, once its first sessions may be closed, in microseconds of the shell's
/// clock. The shard itself takes the steps that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainPlan {
    /// The time at which the first sessions are closed.
    pub(crate) begin_us: u64,
    /// The time for the last ones that no answer is pending for. In between they are closed evenly.
    pub(crate) closed_us: u64,
    /// The time at which those that are still there are cut.
    pub(crate) end_us: u64,
}

/// Sessions are told of the end this long before they are cut.
const NOTICE_US: u64 = 1_000_000;

impl DrainPlan {
    /// The time from which answers are waited for no longer.
    pub(super) fn notice_us(self) -> u64 {
        self.end_us.saturating_sub(NOTICE_US)
    }

    /// The number of those sessions, out of `count`, whose turn to be closed has come.
    pub(super) fn due(self, count: usize, now_us: u64) -> usize {
        let over_us = self.closed_us.saturating_sub(self.begin_us);
        let elapsed_us = now_us.saturating_sub(self.begin_us);
        if elapsed_us >= over_us {
            return count;
        }
        let due = count as u128 * u128::from(elapsed_us) / u128::from(over_us) + 1;
        usize::try_from(due).unwrap_or(count).min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_are_spread_evenly() {
        let plan = DrainPlan { begin_us: 1_000, closed_us: 2_000, end_us: 5_000_000 };
        let due = |now_us| plan.due(10, now_us);
        assert_eq!([due(1_000), due(1_099), due(1_100), due(1_999), due(2_000)], [1, 1, 2, 10, 10]);
        assert_eq!((plan.due(0, 1_500), plan.notice_us()), (0, 4_000_000));
        let at_once = DrainPlan { closed_us: 1_000, ..plan };
        assert_eq!(at_once.due(10, 1_000), 10);
    }
}
