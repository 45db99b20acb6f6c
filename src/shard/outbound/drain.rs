//! The ends of all sessions as the engine stops.

use super::Outbound;
use super::draining::{Draining, Step};
use crate::session::SessionId;
use crate::shard::connections::{CloseReason, State};
use crate::shard::drain_plan::DrainPlan;

impl Outbound {
    /// Takes the steps that are due.
    pub(in crate::shard) fn drain(&mut self, plan: DrainPlan) {
        let now_us = self.connections.now_us();
        if self.draining.step == Step::Not {
            self.draining.step = Step::Closing;
            self.begin_drain();
        }
        if self.draining.step == Step::Closing {
            let due = plan.due(self.draining.order.len(), now_us);
            while self.draining.due < due {
                let session = self.draining.order[self.draining.due];
                self.draining.due += 1;
                self.close_in_turn(session);
            }
            if now_us >= plan.closed_us {
                self.draining = Draining { step: Step::Closed, ..Draining::default() };
            }
        }
        if self.draining.step == Step::Closed && now_us >= plan.notice_us() {
            self.draining.step = Step::Noticed;
            for slot in self.connections.slots() {
                self.close_for_shutdown(slot);
            }
        }
        if self.draining.step == Step::Noticed && now_us >= plan.end_us {
            self.draining.step = Step::Cut;
            for slot in self.connections.slots() {
                self.connections.cut(slot, CloseReason::Shutdown);
            }
        }
    }

    /// Puts all connections into the order in which they are closed: those first that nobody has
    /// logged in by.
    fn begin_drain(&mut self) {
        let mut bound = Vec::new();
        for slot in self.connections.slots() {
            let Some(connection) = self.connections.at(slot) else { continue };
            if connection.state == State::Lingering {
                self.hurry(slot);
                continue;
            }
            let is_bound = connection.uid().is_some();
            let session = self.connections.id_of(slot);
            if is_bound { bound.push(session) } else { self.draining.order.push(session) }
        }
        self.draining.order.append(&mut bound);
    }

    fn close_in_turn(&mut self, session: SessionId) {
        let Some((slot, connection)) = self.connections.find(session) else { return };
        if connection.session.in_flight > 0 {
            self.draining.waiting.insert(session);
        } else {
            self.close_for_shutdown(slot);
        }
    }

    /// Closes a session that waits for nothing more, if the engine stops and its turn has come.
    #[inline]
    pub(in crate::shard) fn close_if_done(&mut self, session: SessionId) {
        if self.draining.has_begun() {
            self.close_if_due(session);
        }
    }

    #[cold]
    fn close_if_due(&mut self, session: SessionId) {
        let is_due = match self.draining.step {
            Step::Not => false,
            Step::Closing => self.draining.waiting.contains(&session),
            Step::Closed | Step::Noticed | Step::Cut => true,
        };
        if is_due
            && let Some((slot, connection)) = self.connections.find(session)
            && connection.session.in_flight == 0
        {
            self.close_for_shutdown(slot);
        }
    }
}
