//! Sessions that have ended, as other threads hear of it.

use std::sync::Arc;

use super::Forwarder;
use crate::dispatch::BindError;
use crate::forward::mail::{Mail, Outcome};
use crate::session::SessionId;
use crate::shard::connections::Ended;

impl Forwarder {
    /// Takes a session out of everything that knows it here and elsewhere.
    pub(in crate::shard) fn handle_ended(&mut self, ended: &Ended) {
        let session = ended.id;
        self.outbound.forget(session);
        self.forget_waiting(session);
        if let Some(uid) = &ended.uid {
            self.logins.remove(uid);
        }
        let binding = ended.binding.as_deref();
        for reply_to in binding.iter().flat_map(|binding| &binding.waiting) {
            self.reply(*reply_to, Outcome::Bound(Err(BindError::Gone { number: 0 })));
        }
        if let Some(uid) = ended.uid.as_ref().or_else(|| binding.map(|binding| &binding.uid)) {
            let home = self.endpoint.hub().home(uid);
            self.send(home, Mail::HomeUnbind { session, uid: uid.clone() });
        }
        if let Some(data) = &ended.worked {
            let subscribers = self.config.subscribers.to_ends_at(session.shard());
            let workers = ended.workers | subscribers;
            self.tell_workers(workers, || Mail::Closed { session, data: Arc::clone(data) });
        }
    }

    /// True if nothing is kept by the id of a session that is gone. The lists of those whose turn
    /// comes may name it yet, by its id, which finds nobody.
    pub(in crate::shard) fn has_forgotten(&self, session: SessionId) -> bool {
        self.lane_waits.has_forgotten(session) && self.outbound.has_forgotten(session)
    }
}
