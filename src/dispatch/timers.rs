//! The sleeps of one thread.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pending::{Completion, Pending};

/// The sleeps of one thread. They take room for about twice as many as are waited for: a sleep
/// whose future was dropped, such as the loser of a race, is forgotten before its time.
pub(super) struct Timers {
    heap: RefCell<BinaryHeap<Reverse<Timer>>>,
    begun: Cell<u64>,
    /// The number of sleeps at which the forgotten ones are looked for.
    sweep_len: Cell<usize>,
}

struct Timer {
    at_us: u64,
    /// Sleeps that end together end in the order they began.
    order: u64,
    done: Completion<()>,
}

/// The least number of sleeps at which it is worth to look for forgotten ones.
const SWEEP_LEN_MIN: usize = 64;

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.order) == (other.at_us, other.order)
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self { heap: RefCell::default(), begun: Cell::new(0), sweep_len: Cell::new(SWEEP_LEN_MIN) }
    }
}

impl Timers {
    /// Begins a sleep.
    pub(super) fn sleep_until(&self, at_us: u64) -> Pending<()> {
        if self.len() >= self.sweep_len.get() {
            self.sweep();
        }
        let (done, pending) = Pending::new();
        let order = self.begun.get();
        self.begun.set(order + 1);
        self.heap.borrow_mut().push(Reverse(Timer { at_us, order, done }));
        pending
    }

    /// Forgets the sleeps that nobody waits for. The time it takes is that of the sleeps that have
    /// begun since the last time.
    #[cold]
    fn sweep(&self) {
        let (awaited, forgotten): (Vec<_>, Vec<_>) =
            self.heap.take().into_iter().partition(|Reverse(timer)| timer.done.is_awaited());
        self.sweep_len.set(SWEEP_LEN_MIN.max(2 * awaited.len()));
        self.heap.replace(awaited.into());
        // Their wakers may be the embedder's, whose ends may begin further sleeps.
        drop(forgotten);
    }

    /// Ends the sleeps that are due, and tells when the next one is.
    pub(super) fn handle_time(&self, now_us: u64) -> Option<u64> {
        loop {
            let Timer { done, .. } = {
                let mut heap = self.heap.borrow_mut();
                match heap.peek() {
                    None => return None,
                    Some(Reverse(timer)) if timer.at_us > now_us && timer.done.is_awaited() => {
                        return Some(timer.at_us);
                    }
                    Some(_) => heap.pop().expect("peeked at").0,
                }
            };
            if done.is_awaited() {
                done.complete(());
            }
        }
    }

    pub(super) fn next_us(&self) -> Option<u64> {
        self.heap.borrow().peek().map(|Reverse(timer)| timer.at_us)
    }

    pub(super) fn len(&self) -> usize {
        self.heap.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_over(sleep: &mut Pending<()>) -> bool {
        Pin::new(sleep).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    /// A request that is raced against a sleep leaves nothing behind when it wins.
    #[test]
    fn sleeps_that_are_dropped_take_no_room() {
        let timers = Timers::default();
        let mut kept: Vec<_> = (0..100).map(|ms| timers.sleep_until(1_000 * ms)).collect();
        for round in 0..100_000 {
            drop(timers.sleep_until(30_000_000 + round));
            assert!(timers.len() <= 2 * kept.len() + SWEEP_LEN_MIN);
        }
        assert_eq!(timers.handle_time(50_000), Some(51_000));
        for (ms, sleep) in kept.iter_mut().enumerate() {
            assert_eq!(is_over(sleep), ms <= 50, "{ms}");
        }
        // Nobody is woken for those at the front.
        kept.truncate(99);
        kept.drain(..98);
        assert_eq!(timers.handle_time(50_000), Some(98_000));
        drop(kept);
        assert_eq!((timers.handle_time(50_000), timers.len()), (None, 0));
    }

    #[test]
    fn sleeps_that_end_together_end_in_their_order() {
        use std::sync::{Arc, Mutex};

        struct Note(usize, Arc<Mutex<Vec<usize>>>);
        impl std::task::Wake for Note {
            fn wake(self: Arc<Self>) {
                self.1.lock().unwrap().push(self.0);
            }
        }

        let (timers, woken) = (Timers::default(), Arc::default());
        let mut sleeps: Vec<_> = (0..200).map(|_| timers.sleep_until(7)).collect();
        for (index, sleep) in sleeps.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Note(index, Arc::clone(&woken))));
            assert!(Pin::new(sleep).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        timers.sweep();
        assert_eq!(timers.handle_time(7), None);
        assert_eq!(*woken.lock().unwrap(), (0..200).collect::<Vec<_>>());
    }
}
