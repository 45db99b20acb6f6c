//! Pushes, broadcasts and kicks: from a uid's home to the sessions' owners.

use std::sync::Arc;

use super::Forwarder;
use crate::dispatch::Audience;
use crate::dispatch::chain::guarded;
use crate::forward::asker::Asker as _;
use crate::forward::mail::{Mail, Outcome, ReplyTo};
use crate::forward::scatter::ByShard;
use crate::route::push::Push;
use crate::session::{SessionId, SessionView, Uid};

impl Forwarder {
    /// Finds the sessions of uids whose home this is.
    pub(super) fn push_home(
        &mut self,
        uids: Vec<Uid>,
        push: &Arc<Push>,
        reply_to: Option<ReplyTo>,
    ) {
        let mut owners = ByShard::new();
        let mut fails = Vec::new();
        for uid in uids {
            let sessions = self.directory.get(uid.text());
            for session in sessions {
                owners.add(session.shard(), *session);
            }
            if sessions.is_empty() {
                fails.push(uid);
            }
        }
        for (shard, sessions) in owners {
            // Counted by `try_mail` if it is refused.
            self.try_mail(shard, Mail::Deliver { sessions, push: Arc::clone(push) }).ok();
        }
        if let Some(reply_to) = reply_to {
            self.reply(reply_to, Outcome::Pushed(fails));
        }
    }

    pub(super) fn deliver(&mut self, sessions: &[SessionId], push: &Arc<Push>) {
        for session in sessions {
            if let Some((slot, connection)) = self.outbound.connections.find(*session)
                && connection.state.is_working()
            {
                self.outbound.send_shared(slot, push);
            }
        }
    }

    pub(in crate::shard) fn broadcast(&mut self, push: &Arc<Push>, audience: &Audience) {
        for slot in self.outbound.connections.slots() {
            let id = self.outbound.connections.id_of(slot);
            let Some(connection) = self.outbound.connections.at_mut(slot) else { continue };
            if !connection.state.is_working() || (audience.bound_only && connection.uid().is_none())
            {
                continue;
            }
            if let Some(filter) = &audience.filter {
                let data = connection.data().clone();
                let view = SessionView { id, data: &data };
                self.last_call.note_callback("an audience's filter");
                let keep = guarded("an audience's filter", &self.counters, || filter(&view));
                self.last_call.end();
                if keep != Some(true) {
                    continue;
                }
            }
            self.outbound.send_shared(slot, push);
        }
    }

    /// Kicks all sessions of a uid whose home this is. They are unbound at once, so that a bind
    /// that follows finds the uid free.
    pub(super) fn kick_uid(
        &mut self,
        uid: &Uid,
        reason: Option<Arc<str>>,
        reply_to: Option<ReplyTo>,
    ) {
        let sessions = self.directory.remove(uid.text());
        self.show_uids();
        for session in &sessions {
            let mail = Mail::Kick { session: *session, reason: reason.clone() };
            self.send(session.shard(), mail);
        }
        if let Some(reply_to) = reply_to {
            self.reply(reply_to, Outcome::Kicked(sessions.len()));
        }
    }
}
