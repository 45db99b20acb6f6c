//! The world of a test, as its engine and all its clients share it.

use std::cell::{RefCell, RefMut};
use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::world::{World, micros};

/// A world, and how long one waits for what other threads do to it.
pub(super) struct Shared {
    world: RefCell<World>,
    patience: Duration,
}

/// The interval of looks for what other threads have done.
const LOOK_EVERY: Duration = Duration::from_micros(100);

impl Shared {
    pub(super) fn new(world: World, patience: Duration) -> Self {
        Self { world: RefCell::new(world), patience }
    }

    /// The world, for a moment. Nobody keeps it while code of the test's own runs.
    pub(super) fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The world once it has come to rest.
    pub(super) fn settled(&self) -> RefMut<'_, World> {
        let mut world = self.world();
        world.settle();
        world
    }

    /// Runs until `look` finds something, and waits for other threads as long as `may_come` says
    /// that they may bring it. Time stands still in the world.
    pub(super) fn wait<T>(
        &self,
        mut look: impl FnMut() -> Option<T>,
        may_come: impl Fn(&World) -> bool,
    ) -> Option<T> {
        let start = Instant::now();
        loop {
            drop(self.settled());
            let found = look();
            if found.is_some() {
                return found;
            }
            if !may_come(&self.world()) || start.elapsed() >= self.patience {
                return None;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Runs until a future is ready, in real time; its output, unless that takes too long.
    pub(super) fn block_on<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        let mut poll = || match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        };
        // Before anybody runs: the engine may have nothing to do with it.
        poll().or_else(|| self.wait(poll, |_| true))
    }

    /// Lets time pass, for as long as `goes_on` says so.
    pub(super) fn advance(&self, by: Duration, goes_on: impl FnMut(&mut World) -> bool) {
        let mut world = self.world();
        let end_us = world.now_us.saturating_add(micros(by));
        world.advance_to(end_us, goes_on);
    }
}
