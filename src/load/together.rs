//! What the drivers of one run know of each other.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The drivers of one run go through its steps together.
pub(super) struct Together {
    /// What each has told of itself.
    told: Vec<Told>,
    /// How many have come to the end of each step.
    arrived: [AtomicU32; Step::COUNT],
    has_failed: AtomicBool,
}

/// One driver's figures. They are read now and then, to show how far the run is.
#[derive(Debug, Default)]
struct Told {
    messages: AtomicU64,
    pushes: AtomicU64,
    connections: AtomicU32,
}

/// Where all wait for each other.
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

/// Sums over all drivers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) messages: u64,
    pub(super) pushes: u64,
    pub(super) connections: u32,
}

impl Together {
    pub(super) fn new(drivers: u32) -> Self {
        Self {
            told: (0..drivers).map(|_| Told::default()).collect(),
            arrived: std::array::from_fn(|_| AtomicU32::new(0)),
            has_failed: AtomicBool::new(false),
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.told.len() as u32
    }

    pub(super) fn tell(&self, driver: u32, sums: Sums) {
        let told = &self.told[driver as usize];
        told.messages.store(sums.messages, Ordering::Relaxed);
        told.pushes.store(sums.pushes, Ordering::Relaxed);
        told.connections.store(sums.connections, Ordering::Relaxed);
    }

    pub(super) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for told in &self.told {
            sums.messages += told.messages.load(Ordering::Relaxed);
            sums.pushes += told.pushes.load(Ordering::Relaxed);
            sums.connections += told.connections.load(Ordering::Relaxed);
        }
        sums
    }

    /// A driver has come to the end of a step.
    pub(super) fn arrive(&self, step: Step) {
        self.arrived[step as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all have.
    pub(super) fn have_all_arrived(&self, step: Step) -> bool {
        self.arrived[step as usize].load(Ordering::Acquire) >= self.len()
    }

    /// A driver has given up; the others are to do so, too.
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
    fn a_step_ends_when_all_have_come() {
        let together = Together::new(2);
        together.arrive(Step::Connected);
        assert!(!together.have_all_arrived(Step::Connected));
        together.arrive(Step::Connected);
        assert!(together.have_all_arrived(Step::Connected));
        assert!(!together.have_all_arrived(Step::WarmedUp));
    }

    #[test]
    fn figures_are_summed() {
        let together = Together::new(2);
        together.tell(0, Sums { messages: 1, pushes: 2, connections: 3 });
        together.tell(1, Sums { messages: 10, pushes: 20, connections: 30 });
        together.tell(1, Sums { messages: 11, pushes: 22, connections: 33 });
        assert_eq!(together.sums(), Sums { messages: 12, pushes: 24, connections: 36 });
    }
}
