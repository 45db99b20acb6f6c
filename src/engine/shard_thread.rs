//! One shard's thread: the loop that drives I/O and core, and the rule by which it sleeps.
//!
//! By readiness it is all that the thread runs. By a ring it runs within a runtime, for the futures
//! of the embedder's that use one. As long as no future of the embedder's is alive on the shard,
//! the thread blocks in its own ring, which costs what a bare io_uring server costs. While there is
//! one, the runtime has to run too: the loop yields to it after each batch, blocks for a
//! millisecond at most, and then awaits a short timer of the runtime's, which makes it look at its
//! own ring.

use std::sync::Arc;
use std::time::Duration;

use super::accepts::Listeners;
use super::ring_memory::{SHARD_RING, ring_failed};
use super::sockets::Sockets;
use super::threads::{ThreadCounts, Threads};
use crate::error::StartError;
use crate::forward::{Doorbell, Party};
use crate::io::{Completion, Io, Poller, ReceiveBuffers as _, Ring};
use crate::limits::turn::{
    COMPLETIONS_PER_TURN, SEND_BYTES_PER_TURN, SENDS_PER_TURN, SUBMITS_PER_CROWDED_TURN,
};
use crate::session::ShardIndex;
use crate::shard::{Shard, ShardConfig};

/// All that one shard's thread is made of.
pub(super) struct ShardThread {
    pub(super) config: Arc<ShardConfig>,
    pub(super) index: ShardIndex,
    pub(super) listeners: Listeners,
    pub(super) sockets_max: u32,
    /// Those of the whole engine.
    pub(super) counts: ThreadCounts,
    pub(super) threads: Arc<Threads>,
}

/// The longest sleep. It bounds the delay of work that rings no bell.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// The longest sleep while a future of the embedder's is alive.
const SLEEP_MAX_WITH_TASKS: Duration = Duration::from_millis(1);
/// The interval at which the runtime is made to look at its own ring then.
const RUNTIME_EVERY_US: u64 = 1_000;
const RUNTIME_TIMER: Duration = Duration::from_micros(1);
/// The time for which a shard looks for answers before it sleeps.
const SPIN_US: u64 = 20;
/// The most messages forwarded in a turn for which it looks: where there are more, the next ones
/// are on their way, and what is gained by waiting for them is a batch.
const SPIN_MESSAGES_MAX: usize = 4;

/// The running loop.
pub(super) struct ShardLoop<I: Io> {
    io: I,
    sockets: Sockets,
    /// After the ring, so that it is dropped after it.
    buffers: I::Buffers,
    shard: Shard,
    threads: Arc<Threads>,
    me: Party,
    bell: Arc<Doorbell>,
    batch: Vec<Completion>,
    /// The time at which the last turn has ended.
    ended_us: u64,
    runtime_ran_us: u64,
    /// Many connections open or close at once.
    is_crowded: bool,
    is_draining: bool,
    rest: Rest,
}

/// The remainder of a drain once a shard has no connection any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// There are connections.
    Open,
    /// The hooks of the shutdown have begun; mail about the ends of sessions may wait for room.
    Hooks,
    /// Futures that are owed.
    Owed,
    /// Nothing, unless another shard asks for something.
    Settled,
}

impl ShardThread {
    /// Sets everything up on the shard's own thread.
    pub(super) fn open<I: Io>(self) -> Result<ShardLoop<I>, StartError> {
        let failed = |what| move |error| StartError::System { what, error };
        let limits = &self.config.limits;
        let refused = |what| move |error| ring_failed(what, error, self.counts);
        let mut io = I::open(SHARD_RING).map_err(refused(I::NAME))?;
        let sockets_max = self.sockets_max.min(limits.connections_per_shard_max);
        io.register_sockets(sockets_max).map_err(refused("the table of sockets"))?;
        let buffers = io
            .make_buffers(limits.receive_buffers, limits.receive_buffer_bytes)
            .map_err(failed("the receive buffers"))?;
        let mut sockets = Sockets::new(self.listeners, sockets_max);
        let me = Party::from(self.index);
        let threads = self.threads;
        let shard = Shard::new(self.config, self.index, &threads.hub);
        shard.set_thread(rustix::thread::gettid());
        io.watch(threads.eventfd(me).raw());
        sockets.start(&mut io);
        io.tick(SLEEP_MAX);
        io.submit().map_err(failed("the first submission"))?;
        threads.add_ring(me, &io);
        Ok(ShardLoop {
            io,
            sockets,
            buffers,
            shard,
            bell: Arc::clone(threads.hub.bell(me)),
            threads,
            me,
            batch: Vec::with_capacity(COMPLETIONS_PER_TURN),
            ended_us: 0,
            runtime_ran_us: 0,
            is_crowded: false,
            is_draining: false,
            rest: Rest::Open,
        })
    }
}

impl ShardLoop<Ring> {
    /// Runs within a shard's runtime, until the engine is shut down.
    pub(super) async fn run(mut self) -> std::io::Result<()> {
        while let Some(has_more) = self.next_turn()? {
            let mut patience = SLEEP_MAX;
            if self.shard.tasks_alive() > 0 {
                self.let_runtime_run().await;
                patience = SLEEP_MAX_WITH_TASKS;
            }
            self.sleep(has_more, patience)?;
        }
        Ok(())
    }

    async fn let_runtime_run(&mut self) {
        let now_us = self.threads.now_us();
        if now_us.saturating_sub(self.runtime_ran_us) >= RUNTIME_EVERY_US {
            self.runtime_ran_us = now_us;
            glommio::timer::sleep(RUNTIME_TIMER).await;
        } else {
            glommio::executor().yield_now().await;
        }
    }
}

impl ShardLoop<Poller> {
    /// Runs until the engine is shut down. There is no runtime round it.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        while let Some(has_more) = self.next_turn()? {
            self.sleep(has_more, SLEEP_MAX)?;
        }
        Ok(())
    }
}

impl<I: Io> ShardLoop<I> {
    /// Takes one turn. Gives true if there is more to do at once, `None` if it was the last.
    fn next_turn(&mut self) -> std::io::Result<Option<bool>> {
        let has_more = self.turn()?;
        Ok((!self.is_finished()).then_some(has_more))
    }

    /// Takes one turn. `true` if there is more to do at once.
    fn turn(&mut self) -> std::io::Result<bool> {
        let now_us = self.threads.now_us();
        self.shard.begin_turn(now_us);
        self.sockets.begin_turn(now_us, &self.shard);
        if self.shard.do_work() {
            self.io.submit_again()?;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.io.reap(&mut batch, &mut self.buffers);
        let is_full = batch.len() == batch.capacity();
        // In front of what comes, whose answers may go out then.
        self.handle_done(now_us);
        for completion in batch.drain(..) {
            self.handle(completion, now_us);
        }
        self.batch = batch;
        let has_ends = self.sockets.end_some(&mut self.shard);
        let has_more = self.shard.run() || has_ends;
        self.is_crowded = has_ends || self.shard.is_crowded();
        self.drain(now_us);
        self.sockets.resume_accepting(&mut self.io, now_us);
        let mut has_more = has_more | self.transmit();
        self.obey();
        while let Some(party) = self.shard.poll_bell() {
            self.threads.wake(party, &mut self.io);
        }
        if self.handle_done(now_us) {
            // A connection whose last bytes were sent at once may end with them.
            self.obey();
            has_more |= self.shard.has_transmits();
        }
        if self.sockets.take_has_become_full() {
            self.wake_shards();
        }
        self.buffers.publish();
        self.ended_us = self.threads.now_us();
        self.shard.end_turn(self.ended_us);
        Ok(has_more || is_full)
    }

    /// Does what the shard wants done with its sockets.
    #[inline(always)]
    fn obey(&mut self) {
        while let Some(command) = self.shard.poll_command() {
            self.sockets.command(command, &mut self.io);
        }
    }

    fn handle(&mut self, completion: Completion, now_us: u64) {
        let Self { sockets, io, buffers, shard, .. } = self;
        if !sockets.handle(completion, io, buffers, shard, now_us) {
            self.threads.handle_wake(self.me, completion, &mut self.io);
        }
    }

    /// Handles what was done at once, mostly sends. True if there was something.
    fn handle_done(&mut self, now_us: u64) -> bool {
        let count = self.io.done_len();
        for _ in 0..count {
            let Some(completion) = self.io.next_done() else { break };
            self.handle(completion, now_us);
        }
        count > 0
    }

    /// Wakes the other shards, to accept for this one.
    #[cold]
    fn wake_shards(&mut self) {
        for party in (0..self.threads.hub.shards()).map(Party).filter(|party| *party != self.me) {
            self.threads.wake(party, &mut self.io);
        }
    }

    /// Sends what a turn may send. `true` if there is more.
    fn transmit(&mut self) -> bool {
        let (mut sends, mut bytes) = (0, 0);
        while sends < SENDS_PER_TURN && bytes < SEND_BYTES_PER_TURN {
            let Some(transmit) = self.shard.poll_transmit() else { return false };
            sends += 1;
            bytes += transmit.segment.as_slice().len();
            self.sockets.send(transmit, &mut self.io);
        }
        self.shard.has_transmits()
    }

    /// Submits, and sleeps for `longest` at most unless there is something to do.
    fn sleep(&mut self, has_more: bool, longest: Duration) -> std::io::Result<()> {
        if has_more {
            let again = if self.is_crowded { SUBMITS_PER_CROWDED_TURN } else { 0 };
            return (0..=again).try_for_each(|_| self.io.submit());
        }
        if (1..=SPIN_MESSAGES_MAX).contains(&self.shard.forwarded()) && self.spin()? {
            return Ok(());
        }
        let patience = self.patience(longest);
        self.bell.arm();
        // The second look: mail that was pushed before the bell was armed has not rung it.
        let slept = if self.shard.has_work() {
            self.io.submit()
        } else {
            self.io.submit_and_wait(patience)
        };
        self.bell.disarm();
        slept
    }

    /// The time to sleep: `longest`, or until a deadline that comes sooner. Only for one of these
    /// the clock is read once more.
    fn patience(&self, longest: Duration) -> Duration {
        let deadlines_us = [self.shard.next_deadline_us(), self.sockets.next_deadline_us()];
        let longest_us = self.ended_us + longest.as_micros() as u64;
        match deadlines_us.into_iter().flatten().min().filter(|at_us| *at_us < longest_us) {
            Some(at_us) => Duration::from_micros(at_us.saturating_sub(self.threads.now_us())),
            None => longest,
        }
    }

    /// Looks for the answers to what was just forwarded, for about as long as a worker takes to be
    /// woken: to be woken in turn would take as long again. `true` if there is something to do.
    fn spin(&mut self) -> std::io::Result<bool> {
        self.io.submit()?;
        let until_us = self.threads.now_us() + SPIN_US;
        while self.threads.now_us() < until_us {
            if self.shard.has_work() || self.io.has_completions() {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Takes the steps of a drain that are due.
    fn drain(&mut self, now_us: u64) {
        let Some(plan) = self.threads.drain_plan(now_us) else { return };
        if !self.is_draining {
            self.is_draining = true;
            self.sockets.stop_accepting(&mut self.io);
        }
        self.shard.drain(plan);
    }

    /// True if the shard may end: its connections have, and nothing is owed on any shard.
    fn is_finished(&mut self) -> bool {
        if !self.is_draining || self.shard.connections_open() > 0 || self.sockets.is_sending() {
            return false;
        }
        if self.rest == Rest::Open {
            self.rest = Rest::Hooks;
            self.shard.begin_shutdown();
        }
        if self.threads.is_drain_over() {
            return true;
        }
        if self.rest == Rest::Hooks && !self.shard.has_backlog() {
            self.rest = Rest::Owed;
            self.threads.add_closed();
        }
        if self.rest == Rest::Owed && self.shard.tasks_owed() == 0 {
            self.rest = Rest::Settled;
            self.threads.add_settled();
        }
        self.rest == Rest::Settled && self.threads.are_settled() && self.shard.tasks_owed() == 0
    }
}

impl<I: Io> Drop for ShardLoop<I> {
    fn drop(&mut self) {
        // Nobody waits for a shard that is gone.
        if matches!(self.rest, Rest::Open | Rest::Hooks) {
            self.threads.add_closed();
        }
        if self.rest != Rest::Settled {
            self.threads.add_settled();
        }
        self.threads.hub.close_inbox(self.me);
        if std::thread::panicking() {
            self.threads.fail(format!("shard {} has panicked", self.me.0));
        }
        self.threads.remove_ring(self.me);
    }
}
