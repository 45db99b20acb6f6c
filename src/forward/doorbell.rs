//! The bell by which a thread that has put something into a lane wakes its reader.
//!
//! The reader looks at its lanes, arms the bell, looks once more and sleeps. The writer pushes,
//! and rings if the bell is armed. Either the reader's second look sees the push, or the writer
//! sees the armed bell: both put a fence between their store and their load, so not both can miss.
//! A busy reader has not armed its bell and costs the writer nothing but the look.

use std::sync::OnceLock;

use crate::dispatch::tasks::WakeThread;
use crate::sync::{AtomicBool, Ordering, fence};

/// The doorbell of one shard or worker.
#[derive(Default)]
pub(crate) struct Doorbell {
    is_armed: AtomicBool,
    /// Wakes the sleeper from a thread that has no ring; set once when the shell is up.
    wake: OnceLock<Box<dyn WakeThread>>,
}

impl Doorbell {
    /// Says how to ring from any thread.
    pub(crate) fn connect(&self, wake: Box<dyn WakeThread>) {
        // A second connection is a bug of the shell's, not of a peer's.
        assert!(self.wake.set(wake).is_ok(), "a doorbell is connected once");
    }

    /// Called by the reader before its last look.
    pub(crate) fn arm(&self) {
        // By a swap, which comes after every writer's that it does not undo; a store's place among
        // them is something that the model of `loom_tests` is not sure of.
        self.is_armed.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Called by the reader when it is awake.
    pub(crate) fn disarm(&self) {
        self.is_armed.store(false, Ordering::Relaxed);
    }

    #[cfg(feature = "internals")]
    pub(crate) fn is_armed(&self) -> bool {
        self.is_armed.load(Ordering::Relaxed)
    }

    /// Called by a writer after its push; whether it has to ring. Says so to one writer only.
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_armed.load(Ordering::Relaxed) && self.is_armed.swap(false, Ordering::AcqRel)
    }
}

/// Rings from a thread that has no ring of the engine's.
impl WakeThread for Doorbell {
    fn wake(&self) {
        if self.take()
            && let Some(wake) = self.wake.get()
        {
            wake.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_armed_bell_rings_and_only_once() {
        let bell = Doorbell::default();
        assert!(!bell.take());
        bell.arm();
        assert!(bell.take());
        assert!(!bell.take());
        bell.arm();
        bell.disarm();
        assert!(!bell.take());
    }
}
