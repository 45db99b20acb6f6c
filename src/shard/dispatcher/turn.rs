//! The way on from one message, mail or future to the next.

use std::ops::Range;
use std::rc::Rc;

use super::Dispatcher;
use super::completed::Completed;
use super::run::Run;
use crate::dispatch::context::{Op, ThreadState};
use crate::dispatch::handler_thread::HandlerThread;
use crate::dispatch::reply::Reply;
use crate::dispatch::tasks::Tasks;
use crate::dispatch::{Failure, Registry};
use crate::metrics::Counters;
use crate::session::SessionId;

/// Progress of [`Dispatcher::read_packages`].
pub(in crate::shard) struct Progress {
    pub(in crate::shard) consumed: usize,
    /// True if what follows may be for the same loop again.
    pub(in crate::shard) is_interrupted: bool,
}

impl Dispatcher {
    /// Handles the DATA packages that a working session of Pomelo's has sent at the start of
    /// `input`, up to one that needs more than its filters and its handler, and that one as well.
    /// What is unmasked on the way has a mask of zeros from then on.
    #[inline]
    pub(in crate::shard) fn read_packages(
        &mut self,
        session: SessionId,
        input: &mut [u8],
    ) -> Progress {
        let Run { consumed, is_interrupted, apart } = self.handle_packages(session, input);
        let has_apart = apart.is_some();
        if let Some(apart) = apart {
            self.read_apart(session, input, apart);
        }
        if is_interrupted || has_apart {
            self.run_tasks();
        }
        Progress { consumed, is_interrupted: is_interrupted || has_apart }
    }

    #[inline(never)]
    fn read_apart(&mut self, session: SessionId, input: &[u8], apart: Range<usize>) {
        // Long answers of the run may have left none.
        let budgets = self.connections().budgets_mut();
        budgets.left = budgets.left.saturating_sub(1);
        self.connections().hear_package(session.slot());
        self.handle_data(session, &input[apart]);
    }

    /// Handles one DATA package of a working session of Pomelo's.
    pub(in crate::shard) fn read_data(&mut self, session: SessionId, body: &[u8]) {
        self.handle_data(session, body);
        self.run_tasks();
    }

    /// Handles one DATA package of a working session of Pitaya's.
    pub(in crate::shard) fn read_pitaya_data(&mut self, session: SessionId, body: &[u8]) {
        self.handle_pitaya_data(session, body);
        self.run_tasks();
    }

    /// Does what handlers, filters, futures and the ends of sessions have led to.
    #[inline]
    pub(in crate::shard) fn settle(&mut self) {
        if self.is_unsettled() {
            self.settle_all();
        }
    }

    /// True if [`Self::settle`] has something to do.
    #[inline]
    pub(in crate::shard) fn is_unsettled(&self) -> bool {
        self.thread.has_ops() || self.forwarder.has_unsettled() || !self.completed.is_empty()
    }

    #[inline(never)]
    fn settle_all(&mut self) {
        self.do_ops();
        while let Some(completed) = self.completed.pop_front() {
            self.complete(completed);
            self.do_ops();
        }
    }

    fn complete(&mut self, completed: Completed) {
        match completed {
            Completed::Answered { client, held, reply } => {
                self.handle_answer(&client, held, &reply, None);
            }
            Completed::Admitted { client, held, admitted } => {
                self.handle_admit(&client, *held, admitted);
            }
            Completed::Rejected(message) => {
                let server_type = Some(message.destination.server_type);
                let reply = Reply::failure(Failure::Busy);
                self.handle_answer(&message.client, message.held, &reply, server_type);
            }
        }
    }
}

impl HandlerThread for Dispatcher {
    fn thread(&self) -> &Rc<ThreadState> {
        &self.thread
    }

    fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    fn tasks_mut(&mut self) -> &mut Tasks {
        &mut self.tasks
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn apply(&mut self, op: Op) {
        self.do_op(op);
    }

    #[inline]
    fn settle_op(&mut self) {
        self.settle_forwarder();
    }

    fn settle_ops(&mut self) {
        self.settle();
    }

    #[inline]
    fn long_answer_bytes(&self) -> usize {
        self.forwarder.outbound.connections.budgets().long_answer_bytes()
    }

    #[inline]
    fn has_answered_enough_since(&self, taken: usize) -> bool {
        self.forwarder.outbound.connections.budgets().has_answered_enough_since(taken)
    }
}
