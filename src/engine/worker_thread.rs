//! One worker's thread.

use std::sync::Arc;
use std::time::Duration;

use super::ring_memory::WORKER_RING;
use super::threads::Threads;
use crate::forward::Party;
use crate::forward::worker::{Worker, WorkerConfig};
use crate::io::{Completion, Ring};

/// The longest sleep. It bounds the delay of work that rings no bell.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// The running loop.
pub(super) struct WorkerThread {
    ring: Ring,
    worker: Worker,
    threads: Arc<Threads>,
    me: Party,
    name: Arc<str>,
    batch: Vec<Completion>,
}

impl WorkerThread {
    /// Sets everything up on the worker's own thread.
    pub(super) fn open(
        config: &WorkerConfig,
        threads: Arc<Threads>,
        me: Party,
    ) -> std::io::Result<Self> {
        let mut ring = Ring::new(WORKER_RING)?;
        ring.watch(threads.eventfd(me).raw());
        ring.submit()?;
        let worker = Worker::new(config, &threads.hub, me);
        threads.add_ring(me, &ring);
        let batch = Vec::with_capacity(WORKER_RING.completions as usize);
        Ok(Self { ring, worker, threads, me, name: Arc::clone(&config.server_id), batch })
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
            let has_more = self.worker.run(self.threads.now_us());
            if (are_closed || is_stopping) && !self.worker.has_mail() {
                self.worker.begin_shutdown();
            }
            if is_stopping && self.is_finished() {
                return Ok(());
            }
            while let Some(party) = self.worker.poll_bell() {
                self.threads.wake(party, &mut self.ring);
            }
            self.worker.end_turn(self.threads.now_us());
            if has_more {
                self.ring.submit()?;
            } else {
                bell.arm();
                // The second look: mail that was pushed before the bell was armed has not rung it.
                if self.worker.has_work() {
                    self.ring.submit()?;
                } else {
                    self.ring.submit_and_wait(self.patience())?;
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
        self.ring.reap(&mut batch);
        for completion in batch.drain(..) {
            self.threads.handle_wake(self.me, completion, &mut self.ring);
        }
        self.batch = batch;
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.threads.fail(format!("worker {} has panicked", self.name));
        }
        self.threads.remove_ring(self.me);
    }
}
