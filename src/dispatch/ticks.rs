//! Functions that a thread calls at an interval.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::panics::{Panic, caught};

/// The policy for ticks that were missed, as the thread was busy for longer than the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// They are left out: the next tick comes at the next multiple of the interval.
    Skip,
    /// They are made up for, one in each turn, until none is owed.
    Burst,
    /// They put off all that follow: the next tick comes an interval after the late one.
    Delay,
}

/// The ticks of one thread.
pub(crate) struct Ticks {
    all: RefCell<Vec<Rc<Tick>>>,
    /// The time at which the first of them is due, so that a turn in which none is looks at nothing
    /// else.
    next_us: Cell<u64>,
}

/// One function and its interval.
pub(crate) struct Tick {
    /// That of the function, as its type has it.
    pub(crate) name: &'static str,
    period_us: u64,
    missed: Missed,
    at_us: Cell<u64>,
    run: Box<dyn Fn()>,
}

/// The shortest interval.
const PERIOD_MIN: Duration = Duration::from_millis(1);
/// The time of a tick when there is none.
const NEVER: u64 = u64::MAX;

impl Default for Ticks {
    fn default() -> Self {
        Self { all: RefCell::default(), next_us: Cell::new(NEVER) }
    }
}

impl Ticks {
    /// Adds a function that is due first after its period.
    pub(super) fn add(
        &self,
        now_us: u64,
        period: Duration,
        missed: Missed,
        name: &'static str,
        run: Box<dyn Fn()>,
    ) {
        let period_us = u64::try_from(period.max(PERIOD_MIN).as_micros()).unwrap_or(NEVER);
        let at_us = Cell::new(now_us.saturating_add(period_us));
        self.next_us.set(self.next_us.get().min(at_us.get()));
        self.all.borrow_mut().push(Rc::new(Tick { name, period_us, missed, at_us, run }));
    }

    #[inline]
    pub(super) fn has_due(&self, now_us: u64) -> bool {
        now_us >= self.next_us.get()
    }

    /// Gives those that are due, each once, the one first that has waited for longest.
    pub(super) fn take_due(&self, now_us: u64) -> Vec<Rc<Tick>> {
        let all = self.all.borrow();
        let mut due: Vec<_> = all.iter().filter(|tick| tick.at_us.get() <= now_us).collect();
        due.sort_by_key(|tick| tick.at_us.get());
        due.iter().for_each(|tick| tick.move_on(now_us));
        self.next_us.set(all.iter().map(|tick| tick.at_us.get()).min().unwrap_or(NEVER));
        due.into_iter().map(Rc::clone).collect()
    }

    /// The time at which the next one is due.
    pub(crate) fn next_us(&self) -> Option<u64> {
        Some(self.next_us.get()).filter(|next_us| *next_us != NEVER)
    }
}

impl Tick {
    fn move_on(&self, now_us: u64) {
        let (at_us, period_us) = (self.at_us.get(), self.period_us);
        let next_us = match self.missed {
            Missed::Skip => at_us + (now_us.saturating_sub(at_us) / period_us) * period_us,
            Missed::Burst => at_us,
            Missed::Delay => now_us,
        };
        self.at_us.set(next_us.saturating_add(period_us));
    }

    /// Calls the function. What it may leave half-done by a panic is the embedder's own state.
    pub(super) fn run(&self) -> Result<(), Panic> {
        caught(|| (self.run)())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times at which a tick of 10 ms is due, on a thread whose turns begin at these times.
    fn due_ms(missed: Missed, turns_ms: &[u64]) -> Vec<u64> {
        let ticks = Ticks::default();
        ticks.add(0, Duration::from_millis(10), missed, "tick", Box::new(|| {}));
        let mut due = Vec::new();
        for &now_ms in turns_ms {
            let now_us = now_ms * 1_000;
            assert_eq!(ticks.has_due(now_us), ticks.next_us().unwrap() <= now_us);
            due.extend(ticks.take_due(now_us).iter().map(|_| now_ms));
        }
        due
    }

    #[test]
    fn missed_ticks_go_by_their_policy() {
        // A turn every 5 ms, but for one that takes from 20 to 47.
        let turns = [5, 10, 15, 20, 47, 48, 49, 50, 55, 57, 60];
        assert_eq!(due_ms(Missed::Skip, &turns), [10, 20, 47, 50, 60]);
        assert_eq!(due_ms(Missed::Burst, &turns), [10, 20, 47, 48, 50, 60]);
        assert_eq!(due_ms(Missed::Delay, &turns), [10, 20, 47, 57]);
    }

    #[test]
    fn the_one_that_has_waited_for_longest_is_first_and_a_panic_is_told() {
        let ticks = Ticks::default();
        assert!(!ticks.has_due(NEVER - 1) && ticks.next_us().is_none());
        ticks.add(0, Duration::from_millis(20), Missed::Skip, "slow", Box::new(|| {}));
        ticks.add(0, Duration::ZERO, Missed::Skip, "quick", Box::new(|| panic!("at {}", 7)));
        assert_eq!(ticks.next_us(), Some(1_000), "no interval is shorter than 1 ms");
        let due = ticks.take_due(30_000);
        assert_eq!(due.iter().map(|tick| tick.name).collect::<Vec<_>>(), ["quick", "slow"]);
        assert_eq!(due[0].run().unwrap_err().to_string(), "at 7");
        assert!(due[1].run().is_ok());
    }
}
