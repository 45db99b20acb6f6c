//! The part of a shard or worker that does what the code on it asks for.

use std::rc::Rc;

use super::context::{Context, Op, ThreadState};
use super::handlers::Registry;
use super::last_call::What;
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
            if let Err(panic) = tick.run() {
                self.counters().tick_panics.one();
                crate::log::seldom!(error, tick = tick.name, panic, "a tick panicked; it goes on");
            }
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
            if !self.tasks_mut().run_one() {
                break;
            }
            self.settle_ops();
        }
        self.tasks_mut().end_run();
    }

    /// Tells of a turn that was longer than it should be, and what was called last in it.
    #[cold]
    fn tell_long_turn(&self, took_us: u64) {
        let thread = self.thread();
        thread.counters.long_turns.one();
        let (last_call, millis) = (&thread.last_call, took_us / 1_000);
        let server = &*thread.server_id;
        let route = match last_call.what() {
            What::Nothing => {
                crate::log::seldom!(warn, server, millis, "a turn has taken long");
                return;
            }
            What::Future => {
                let name = last_call.name();
                let future = Excerpt(name.as_deref().unwrap_or_default());
                crate::log::seldom!(warn, server, millis, %future, "a turn has taken long");
                return;
            }
            What::Route(route) => thread.routes.entry(route).text.to_string(),
            What::Text => last_call.text(),
            What::Answer(handler) => self.registry().route_of(handler).to_owned(),
        };
        let route = Excerpt(&route);
        crate::log::seldom!(warn, server, millis, %route, "a turn has taken long");
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
