//! Requests of handlers, filters and futures, and consequences of the ends of sessions.

use std::rc::Rc;

use super::Dispatcher;
use super::completed::Completed;
use crate::dispatch::context::{Op, Origin, SessionOp};
use crate::dispatch::handler_thread::HandlerThread as _;
use crate::dispatch::tasks::tell_no_room;
use crate::forward::asker;
use crate::forward::mail::Others;
use crate::session::SessionView;
use crate::shard::connections::Ended;

impl Dispatcher {
    /// Does what was asked for, in order. Messages that are done are left in `completed`.
    #[inline]
    pub(super) fn do_ops(&mut self) {
        self.apply_ops();
    }

    /// Handles mail from this shard to itself, ended sessions, and messages that found no lane.
    #[inline]
    pub(super) fn settle_forwarder(&mut self) {
        while self.forwarder.has_unsettled() {
            self.forwarder.handle_own_mail();
            while let Some(ended) = self.connections().take_ended() {
                self.handle_ended(&ended);
            }
            while let Some(message) = self.forwarder.take_rejected() {
                self.completed.push_back(Completed::Rejected(message));
            }
        }
    }

    pub(super) fn do_op(&mut self, op: Op) {
        match op {
            // The session is one of this shard's.
            Op::Session(SessionOp::Set { session, settings, done }) => {
                done.complete(self.forwarder.set(session, settings, Others::Keep));
            }
            Op::Session(op) => {
                let bytes = op.push().map_or(0, |push| push.package().len());
                self.connections().budgets_mut().pushed(bytes);
                asker::apply(&mut self.forwarder, op);
            }
            Op::Spawn { future, at_end } => {
                if self.tasks.spawn(future, at_end).is_err() {
                    tell_no_room(&self.counters, "a spawned future");
                }
            }
            Op::Answer { call, reply } => match call.origin {
                Origin::Client(client) => {
                    let held = call.held;
                    self.completed.push_back(Completed::Answered { client, held, reply });
                }
                Origin::Shard { .. } | Origin::Batch { .. } => {
                    debug_assert!(false, "a shard handles its own clients");
                }
            },
            Op::Welcome { session, admitted } => self.admissions.finish(session, admitted),
            Op::Admit { client, held, admitted } => {
                self.completed.push_back(Completed::Admitted { client, held, admitted });
            }
        }
    }

    /// Takes a session out of everything that knows it, and tells the embedder's code. What that
    /// asks for is done when the turn comes to it; the session is half closed.
    fn handle_ended(&mut self, ended: &Ended) {
        #[cfg(feature = "crypto")]
        self.keys.remove(&ended.id);
        self.admissions.forget(ended.id);
        self.forwarder.handle_ended(ended);
        let Some(data) = &ended.worked else { return };
        let registry = Rc::clone(&self.registry);
        registry.tell_closed(&self.thread, &SessionView { id: ended.id, data });
    }
}
