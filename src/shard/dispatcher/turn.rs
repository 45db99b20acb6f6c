//! What goes on from one message, mail or future to the next.

use std::ops::Range;

use super::Dispatcher;
use super::messages::Run;
use super::ops::Completed;
use crate::dispatch::reply::Reply;
use crate::session::SessionId;
use crate::shard::config::KeptAliveBy;
use crate::shard::connections::State;
use crate::shard::listener_config::Dialect;

/// Futures polled at once.
const TASKS_PER_TURN: usize = 256;

/// Progress of [`Dispatcher::read_packages`].
pub(in crate::shard) struct Progress {
    pub(in crate::shard) consumed: usize,
    /// What follows may be for the same loop again.
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
        let connections = self.connections();
        connections.budgets_mut().left -= 1;
        let now_ms = connections.patient_ms();
        let kept_alive_by = self.config.heartbeat.map(|heartbeat| heartbeat.kept_alive_by);
        if kept_alive_by == Some(KeptAliveBy::AnyPackage)
            && let Some(connection) = self.connections().at_mut(session.slot())
        {
            connection.heard_ms = now_ms;
        }
        self.handle_data(session, &input[apart]);
    }

    /// Handles one DATA package of a working session.
    pub(in crate::shard) fn read_data(&mut self, session: SessionId, body: &[u8]) {
        let state = self.connections().at(session.slot()).map(|connection| connection.state);
        match state {
            Some(State::Working(Dialect::Pitaya)) => self.handle_pitaya_data(session, body),
            _ => self.handle_data(session, body),
        }
        self.run_tasks();
    }

    /// Runs what is ready. A handler that waits for nothing but this shard has answered when it
    /// is back, so that what its client has pipelined behind it finds its work done.
    pub(in crate::shard) fn run_tasks(&mut self) {
        self.settle();
        for _ in 0..TASKS_PER_TURN {
            if !self.tasks.run_one() {
                break;
            }
            self.settle();
        }
    }

    /// Does what handlers, filters, futures and the ends of sessions have led to.
    #[inline]
    pub(in crate::shard) fn settle(&mut self) {
        self.apply_ops();
        while let Some(completed) = self.completed.pop_front() {
            self.complete(completed);
            self.apply_ops();
        }
    }

    fn complete(&mut self, completed: Completed) {
        match completed {
            Completed::Answered { client, held, reply } => {
                self.handle_answer(&client, held, &reply);
            }
            Completed::Admitted { client, held, admitted } => {
                self.handle_admit(&client, *held, admitted);
            }
            Completed::Rejected(message) => {
                self.handle_answer(&message.client, message.held, &Reply::error());
            }
        }
    }
}
