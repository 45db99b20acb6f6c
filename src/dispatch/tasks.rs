//! The futures that run on one shard or worker.
//!
//! A small executor of our own, so that the core runs without a runtime, and so that a waker may
//! go to any thread: it counts in an `Arc`, puts its task into a lock-free queue and rings the
//! shard's doorbell.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::at_end::AtEnd;
use super::panics::caught;
use super::reply::LocalFuture;
use crate::metrics::Counters;
use crate::session::{Generation, Slot, Table};
use crate::sync::{AtomicBool, Ordering, SegQueue};

/// Tells a sleeping shard or worker that it has something to do. May be called from any thread.
pub(crate) trait WakeThread: Send + Sync {
    fn wake(&self);
}

/// Counts a future that there is no room for, and logs it.
#[cold]
pub(crate) fn tell_no_room(counters: &Counters, what: &'static str) {
    counters.task_rejects.one();
    crate::log::seldom!(of what, warn, what, "too many futures on a thread; some are refused");
}

/// The tasks of one thread. What is owed and still there when they are dropped is counted as lost.
pub(crate) struct Tasks {
    table: Table<Task>,
    ready: Arc<Ready>,
    is_running: bool,
    /// Those that a drain waits for.
    owed: usize,
    counters: Arc<Counters>,
}

struct Task {
    future: LocalFuture<()>,
    at_end: AtEnd,
    waker: Arc<TaskWaker>,
}

struct Ready {
    /// Holds each task once at most, so it is bounded by the tasks.
    queue: SegQueue<(Slot, Generation)>,
    bell: Arc<dyn WakeThread>,
}

struct TaskWaker {
    task: std::sync::OnceLock<(Slot, Generation)>,
    is_queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(task) = self.task.get() {
            self.ready.queue.push(*task);
            self.ready.bell.wake();
        }
    }
}

impl Tasks {
    pub(crate) fn new(len_max: usize, bell: Arc<dyn WakeThread>, counters: Arc<Counters>) -> Self {
        let ready = Arc::new(Ready { queue: SegQueue::new(), bell });
        Self { table: Table::new(len_max), ready, is_running: false, owed: 0, counters }
    }

    /// Futures that a drain waits for.
    pub(crate) fn owed(&self) -> usize {
        self.owed
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.table.is_full()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.queue.is_empty()
    }

    /// Takes a future in, to be polled first by [`Self::run_one`]; gives it back when full.
    pub(crate) fn spawn(
        &mut self,
        future: LocalFuture<()>,
        at_end: AtEnd,
    ) -> Result<(), LocalFuture<()>> {
        let waker = Arc::new(TaskWaker {
            task: std::sync::OnceLock::new(),
            is_queued: AtomicBool::new(true),
            ready: Arc::clone(&self.ready),
        });
        if self.table.is_full() {
            return Err(future);
        }
        let task = Task { future, at_end, waker: Arc::clone(&waker) };
        self.owed += usize::from(at_end == AtEnd::Wait);
        let key = self.table.insert(task).expect("the table is not full");
        waker.task.set(key).expect("the waker is new");
        self.ready.queue.push(key);
        Ok(())
    }

    /// Begins to poll what is ready, unless that is under way already; whether it has begun.
    pub(super) fn begin_run(&mut self) -> bool {
        !std::mem::replace(&mut self.is_running, true)
    }

    pub(super) fn end_run(&mut self) {
        self.is_running = false;
    }

    /// Polls one task that is ready; whether there was one.
    ///
    /// A future that panics is dropped; its handler's own guard has answered by then.
    pub(crate) fn run_one(&mut self) -> bool {
        // In front of `pop`, which has a fence where there is nothing. Who pushes rings the bell
        // behind that, and the thread looks again before it sleeps.
        if self.ready.queue.is_empty() {
            return false;
        }
        let Some((slot, generation)) = self.ready.queue.pop() else { return false };
        let Some(task) = self.table.get_mut(slot, generation) else { return true };
        // Cleared before the poll: a wake during it must queue the task again. By a swap, so that
        // the poll sees what was written before a wake that found the task queued.
        task.waker.is_queued.swap(false, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(&task.waker));
        let poll = caught(|| task.future.as_mut().poll(&mut Context::from_waker(&waker)));
        match poll {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => self.remove(slot),
            // Not the embedder's own code, which is guarded by itself, unless it is dropped here.
            Err(panic) => {
                self.counters.task_panics.one();
                crate::log::seldom!(error, %panic, "the end of a future has panicked");
                self.remove(slot);
            }
        }
        true
    }

    fn remove(&mut self, slot: Slot) {
        let task = self.table.remove(slot);
        self.owed -= usize::from(task.is_some_and(|task| task.at_end == AtEnd::Wait));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if self.owed > 0 {
            self.counters.futures_lost.add(self.owed as u64);
            let futures = self.owed;
            tracing::warn!(futures, "futures that are owed are dropped unfinished");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::dispatch::pending::Pending;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl WakeThread for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_runs_when_it_is_woken_and_is_freed_when_it_ends() {
        let bell = Arc::new(Count::default());
        let mut tasks = Tasks::new(1, Arc::<Count>::clone(&bell), Arc::default());
        let (completion, pending) = Pending::new();
        let seen = Rc::new(Cell::new(0));
        let out = Rc::clone(&seen);
        let future = Box::pin(async move { out.set(pending.await) });
        tasks.spawn(future, AtEnd::Drop).ok().unwrap();
        assert!(tasks.spawn(Box::pin(async {}), AtEnd::Drop).is_err(), "the table is full");
        assert!(tasks.run_one());
        assert!(!tasks.run_one());
        assert_eq!((seen.get(), tasks.len()), (0, 1));
        completion.complete(7);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert!(tasks.run_one());
        assert_eq!((seen.get(), tasks.len()), (7, 0));
    }

    #[test]
    fn a_panic_ends_only_its_own_task() {
        let mut tasks = Tasks::new(2, Arc::new(Count::default()), Arc::default());
        tasks.spawn(Box::pin(async { panic!("on purpose") }), AtEnd::Wait).ok().unwrap();
        tasks.spawn(Box::pin(async {}), AtEnd::Drop).ok().unwrap();
        assert_eq!(tasks.owed(), 1);
        while tasks.run_one() {}
        assert_eq!((tasks.len(), tasks.owed()), (0, 0));
    }

    #[test]
    fn what_is_owed_and_never_done_is_counted() {
        let counters = Arc::<Counters>::default();
        let mut tasks = Tasks::new(2, Arc::new(Count::default()), Arc::clone(&counters));
        for at_end in [AtEnd::Wait, AtEnd::Drop] {
            tasks.spawn(Box::pin(std::future::pending()), at_end).ok().unwrap();
        }
        while tasks.run_one() {}
        drop(tasks);
        assert_eq!(counters.snapshot().futures_lost, 1);
    }

    /// More wakes than a 16-bit count holds, from another thread.
    #[test]
    fn wakes_are_not_counted_in_16_bits() {
        let mut tasks = Tasks::new(1, Arc::new(Count::default()), Arc::default());
        let (send, receive) = std::sync::mpsc::channel::<Waker>();
        tasks
            .spawn(
                Box::pin(std::future::poll_fn(move |context| {
                    send.send(context.waker().clone()).ok();
                    Poll::Pending
                })),
                AtEnd::Drop,
            )
            .ok()
            .unwrap();
        tasks.run_one();
        let waker = receive.recv().unwrap();
        std::thread::spawn(move || {
            (0..crate::test_cases::repetitions(100_000)).for_each(|_| Waker::wake(waker.clone()))
        })
        .join()
        .unwrap();
        assert!(tasks.run_one());
        assert!(!tasks.run_one());
    }
}
