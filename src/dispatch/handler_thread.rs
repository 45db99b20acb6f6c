//! The part of a shard or worker that does what the code on it asks for.

use std::rc::Rc;

use super::context::{Context, Op, ThreadState};
use super::handlers::Registry;
use super::last_call::{TimedCall, What};
use super::tasks::Tasks;
use crate::limits::turn::TASKS_AT_ONCE;
use crate::log::Excerpt;
use crate::metrics::Counters;

/// A shard or worker: whoever calls handlers, filters and futures on its thread.
pub(crate) trait HandlerThread {
    fn thread(&self) -> &Rc<ThreadState>;

    fn registry(&self) -> &Rc<Registry>;

    fn tasks_mut(&mut self) -> &mut Tasks;

    fn counters(&self) -> &Counters;

    fn apply(&mut self, op: Op);

    /// Does what comes ahead of the first of these, and behind each.
    #[inline]
    fn settle_op(&mut self) {}

    /// Does what handlers, filters and futures have asked for, in order.
    #[inline]
    fn apply_ops(&mut self) {
        self.settle_op();
        // Doing one may lead to the next.
        while let Some(mut ops) = self.thread().take_ops() {
            for op in ops.drain(..) {
                self.apply(op);
                self.settle_op();
            }
            self.thread().reuse(ops);
        }
    }

    /// The same, and all that this leads to.
    #[inline]
    fn settle_ops(&mut self) {
        self.apply_ops();
    }

    /// The bytes of long answers that the turn has taken, where it may have only so many.
    #[inline]
    fn long_answer_bytes(&self) -> usize {
        0
    }

    /// True if they are enough, and more than so many: what else is ready waits for the next turn.
    #[inline]
    fn has_answered_enough_since(&self, _: usize) -> bool {
        false
    }

    /// Calls the ticks that are due, each once: what is owed besides comes in the next turns.
    #[inline]
    fn run_ticks(&mut self) {
        let now_us = self.thread().now_us.get();
        if self.registry().ticks.has_due(now_us) {
            self.run_due_ticks(now_us);
        }
    }

    #[cold]
    fn run_due_ticks(&mut self, now_us: u64) {
        for tick in self.registry().ticks.take_due(now_us) {
            self.thread().last_call.note_callback(tick.name);
            if let Err(panic) = tick.run() {
                self.counters().tick_panics.one();
                let tick = tick.name;
                crate::log::seldom!(of tick, error, tick, %panic, "a tick panicked; it goes on");
            }
            self.thread().last_call.end();
            self.settle_ops();
        }
    }

    /// Runs what is ready. A handler that waits for nothing but this thread has answered when it
    /// is back, so that what its client has pipelined behind it finds its work done.
    fn run_tasks(&mut self) {
        // What a task leads to may come here again.
        if !self.tasks_mut().begin_run() {
            return;
        }
        for _ in 0..TASKS_AT_ONCE {
            let taken = self.long_answer_bytes();
            if !self.tasks_mut().run_one() {
                break;
            }
            self.thread().last_call.end();
            self.settle_ops();
            if self.has_answered_enough_since(taken) {
                break;
            }
        }
        self.tasks_mut().end_run();
    }

    /// Tells of a turn that was longer than it should be, and of the call that took longest in it.
    /// Where calls are not timed yet it is the last call, and they are from now on.
    #[cold]
    fn tell_long_turn(&self, took_us: u64) {
        let thread = self.thread();
        thread.counters.long_turns.one();
        let longest = thread.last_call.longest();
        thread.last_call.time_calls(thread.now_us.get());
        let call = if longest.is_some() { "the longest" } else { "the last" };
        let call_millis = longest.as_ref().map(|longest| longest.took.as_millis() as u64);
        let TimedCall { what, text, .. } = longest.unwrap_or_else(|| thread.last_call.last());
        let (server, millis) = (&*thread.server_id, took_us / 1_000);
        macro_rules! tell {
            ($name:expr, $field:ident) => {{
                let name: &str = $name;
                let $field = Excerpt(name);
                crate::log::seldom!(
                    of name,
                    warn,
                    server,
                    millis,
                    call,
                    call_millis,
                    %$field,
                    "a turn has taken long"
                );
            }};
        }
        match what {
            What::Nothing => crate::log::seldom!(warn, server, millis, "a turn has taken long"),
            What::Future => tell!(&text, future),
            What::Callback(name) => tell!(name, callback),
            What::Text => tell!(&text, route),
            What::Route(route) => tell!(&thread.routes.entry(route).text, route),
            What::Answer(handler) => tell!(self.registry().route_of(handler), route),
        }
    }

    /// Runs the hooks of a shutdown, which are owed. A second call does nothing.
    fn begin_shutdown(&mut self) {
        let hooks = self.registry().on_shutdown.take();
        if hooks.is_empty() {
            return;
        }
        let context = Context { thread: Rc::clone(self.thread()) };
        for hook in hooks {
            let of_hook = context.clone();
            // Where the hook itself panics its future does.
            context.task("on_shutdown").owed().spawn(async move { hook(of_hook).await });
        }
        self.settle_ops();
        self.run_tasks();
    }
}
