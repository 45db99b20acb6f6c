//! The part of a shard or worker that does what the code on it asks for.

use std::rc::Rc;

use super::context::{Context, Op, ThreadState};
use super::handlers::Registry;
use super::tasks::Tasks;
use crate::limits::turn::TASKS_AT_ONCE;

/// A shard or worker: whoever calls handlers, filters and futures on its thread.
pub(crate) trait HandlerThread {
    fn thread(&self) -> &Rc<ThreadState>;

    fn registry(&self) -> &Rc<Registry>;

    fn tasks_mut(&mut self) -> &mut Tasks;

    fn apply(&mut self, op: Op);

    /// Does what handlers, filters and futures have asked for, in order.
    #[inline]
    fn apply_ops(&mut self) {
        // Doing one may lead to the next.
        while let Some(mut ops) = self.thread().take_ops() {
            ops.drain(..).for_each(|op| self.apply(op));
            self.thread().reuse(ops);
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
            self.apply_ops();
        }
        self.tasks_mut().end_run();
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
        self.apply_ops();
        self.run_tasks();
    }
}
