//! One worker's thread.

use std::sync::Arc;
use std::time::Duration;

use super::ring_memory::WORKER_RING;
use super::threads::Threads;
use crate::forward::Party;
use crate::forward::worker::{Worker, WorkerConfig};
use crate::io::{Completion, Io};

/// The longest sleep. It bounds the delay of work that rings no bell.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// The running loop.
pub(super) struct WorkerThread<I: Io> {
    io: I,
    worker: Worker,
    threads: Arc<Threads>,
    me: Party,
    name: Arc<str>,
    batch: Vec<Completion>,
}

impl<I: Io> WorkerThread<I> {
    /// Sets everything up on the worker's own thread.
    pub(super) fn open(
        config: &WorkerConfig,
        threads: Arc<Threads>,
        me: Party,
    ) -> std::io::Result<Self> {
        let mut io = I::open(WORKER_RING)?;
        io.watch(threads.eventfd(me).raw());
        io.tick(SLEEP_MAX);
        io.submit()?;
        let worker = Worker::new(config, &threads.hub, me);
        threads.add_ring(me, &io);
        if let Some(figures) = threads.figures_of(me) {
            figures.set_thread(rustix::thread::gettid().as_raw_nonzero().get());
        }
        let batch = Vec::with_capacity(WORKER_RING.completions as usize);
        Ok(Self { io, worker, threads, me, name: Arc::clone(&config.server_id), batch })
    }

    /// Runs until the engine has stopped its shards, and nothing is owed here.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        let bell = Arc::clone(self.threads.hub.bell(self.me));
        loop {
            // Looked at before the mail is read: what tells of the ends of sessions is there then.
            let are_closed = self.threads.are_closed();
            let is_stopping = self.threads.has_to_stop_workers();
            if is_stopping {
                self.worker.lose_shards();
            }
            let began_us = self.threads.now_us();
            let has_more = self.worker.run(began_us);
            if (are_closed || is_stopping) && !self.worker.has_mail() {
                self.worker.begin_shutdown();
            }
            if is_stopping && self.is_finished() {
                return Ok(());
            }
            while let Some(party) = self.worker.poll_bell() {
                self.threads.wake(party, &mut self.io);
            }
            let ended_us = self.threads.now_us();
            self.worker.end_turn(ended_us);
            if let Some(figures) = self.threads.figures_of(self.me) {
                figures.turns.record(ended_us.saturating_sub(began_us), 1);
            }
            if has_more {
                self.io.submit()?;
            } else {
                bell.arm();
                // The second look: mail that was pushed before the bell was armed has not rung it.
                if self.worker.has_work() {
                    self.io.submit()?;
                } else {
                    self.io.submit_and_wait(self.patience())?;
                }
                bell.disarm();
            }
            self.take_wakes();
        }
    }

    /// True if nothing is left to do, or the time of the drain is over. The shards have ended.
    fn is_finished(&mut self) -> bool {
        if self.threads.is_drain_over() {
            // Also where mail is left.
            self.worker.begin_shutdown();
            return true;
        }
        !self.worker.has_mail() && self.worker.tasks_owed() == 0
    }

    fn patience(&self) -> Duration {
        let now_us = self.threads.now_us();
        let deadline_us = self.worker.next_deadline_us();
        deadline_us.map_or(SLEEP_MAX, |deadline_us| {
            SLEEP_MAX.min(Duration::from_micros(deadline_us.saturating_sub(now_us)))
        })
    }

    fn take_wakes(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.io.reap_wakes(&mut batch);
        for completion in batch.drain(..) {
            self.threads.handle_wake(self.me, completion, &mut self.io);
        }
        self.batch = batch;
    }
}

impl<I: Io> Drop for WorkerThread<I> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.threads.fail(format!("worker {} has panicked", self.name));
        }
        self.threads.remove_ring(self.me);
    }
}
