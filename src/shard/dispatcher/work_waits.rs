//! Messages that are kept until the turn has work left for them.

use super::Dispatcher;
use super::work::{WAITING_BYTES, Waiting};
use crate::dispatch::Failure;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::shard::connections::Pause;

impl Dispatcher {
    /// Counts work that was done for a message of the session that is being read.
    pub(super) fn charge(&mut self, work: usize) {
        self.work.charge(work);
        self.connections().budgets_mut().charge(work);
    }

    /// Keeps a message until there is work left for it, and pauses its session. Where there is no
    /// room for it, it is refused.
    #[cold]
    pub(super) fn wait_for_work(&mut self, client: &ClientCall, message: &[u8]) {
        if let Some(waiting) = self.keep_for_work(client, message) {
            self.work.waiting.push_back(waiting);
        }
    }

    pub(super) fn keep_for_work(&mut self, client: &ClientCall, message: &[u8]) -> Option<Waiting> {
        if !self.connections().budgets().has_room(WAITING_BYTES + message.len()) {
            self.counters.work_rejects.one();
            let session = client.session;
            crate::log::seldom!(
                warn,
                ?session,
                "too many messages wait for work of their shard; some are refused"
            );
            self.outbound().answer(client, &Reply::failure(Failure::Busy));
            return None;
        }
        let waiting = Waiting { client: *client, message: message.to_vec() };
        self.connections().budgets_mut().keep(waiting.bytes());
        self.counters.work_waits.one();
        self.connections().pause_reading(client.session, Pause::Work);
        Some(waiting)
    }
}
