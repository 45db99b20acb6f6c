//! The steps that the drivers of one run take together, and the figures they tell each other.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A barrier at the end of each step of a run.
pub(super) struct RunBarrier {
    /// The figures of each driver.
    shown: Vec<Shown>,
    /// The number of drivers that have arrived at the end of each step.
    arrived: [AtomicU32; Step::COUNT],
    has_failed: AtomicBool,
}

/// One driver's figures. They are read now and then, to show how far the run is.
#[derive(Debug, Default)]
struct Shown {
    messages: AtomicU64,
    pushes: AtomicU64,
    connections: AtomicU32,
}

/// A step, at whose end all wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connected,
    WarmedUp,
    Reconnected,
    Reset,
    Measured,
    Done,
}

impl Step {
    const COUNT: usize = Self::Done as usize + 1;
}

/// A driver of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DriverIndex(pub(super) u32);

/// Figures of one driver, or sums over all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) messages: u64,
    pub(super) pushes: u64,
    pub(super) connections: u32,
}

/// The reason for which a driver has given up.
#[derive(Debug)]
pub(super) enum GivenUp {
    /// An error of its own.
    Failed(io::Error),
    /// Another driver has given up.
    WithAnother,
}

impl From<io::Error> for GivenUp {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl RunBarrier {
    pub(super) fn new(drivers: u32) -> Self {
        Self {
            shown: (0..drivers).map(|_| Shown::default()).collect(),
            arrived: std::array::from_fn(|_| AtomicU32::new(0)),
            has_failed: AtomicBool::new(false),
        }
    }

    /// The number of drivers.
    pub(super) fn len(&self) -> u32 {
        self.shown.len() as u32
    }

    /// Shows a driver's figures to the others.
    pub(super) fn show(&self, driver: DriverIndex, figures: Sums) {
        let shown = &self.shown[driver.0 as usize];
        shown.messages.store(figures.messages, Ordering::Relaxed);
        shown.pushes.store(figures.pushes, Ordering::Relaxed);
        shown.connections.store(figures.connections, Ordering::Relaxed);
    }

    /// The sums of what all have shown.
    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for shown in &self.shown {
            sums.messages += shown.messages.load(Ordering::Relaxed);
            sums.pushes += shown.pushes.load(Ordering::Relaxed);
            sums.connections += shown.connections.load(Ordering::Relaxed);
        }
        sums
    }

    /// A driver has arrived at the end of a step.
    pub(super) fn arrive(&self, step: Step) {
        self.arrived[step as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// True if all have arrived there.
    pub(super) fn have_all_arrived(&self, step: Step) -> bool {
        self.arrived[step as usize].load(Ordering::Acquire) >= self.len()
    }

    /// A driver has given up, so that the others do, too.
    pub(super) fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_when_all_have_arrived() {
        let barrier = RunBarrier::new(2);
        barrier.arrive(Step::Connected);
        assert!(!barrier.have_all_arrived(Step::Connected));
        barrier.arrive(Step::Connected);
        assert!(barrier.have_all_arrived(Step::Connected));
        assert!(!barrier.have_all_arrived(Step::WarmedUp));
    }

    #[test]
    fn figures_are_summed() {
        let barrier = RunBarrier::new(2);
        barrier.show(DriverIndex(0), Sums { messages: 1, pushes: 2, connections: 3 });
        barrier.show(DriverIndex(1), Sums { messages: 10, pushes: 20, connections: 30 });
        barrier.show(DriverIndex(1), Sums { messages: 11, pushes: 22, connections: 33 });
        assert_eq!(barrier.sums(), Sums { messages: 12, pushes: 24, connections: 36 });
    }
}
