//! Pushes, broadcasts and kicks: from a uid's home to the sessions' owners.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Forwarder;
use crate::dispatch::Audience;
use crate::dispatch::pending::Completion;
use crate::forward::asks::Ask;
use crate::forward::mail::{Mail, Outcome, ReplyTo};
use crate::forward::worker::by_home;
use crate::route::push::Push;
use crate::session::{SessionId, SessionView, ShardIndex, Uid};

impl Forwarder {
    /// Asks the home shard of each uid.
    pub(in crate::shard) fn push(
        &mut self,
        uids: Vec<Uid>,
        push: &Arc<Push>,
        done: Completion<Vec<Uid>>,
    ) {
        let parts = by_home(uids, self.endpoint.hub().shards());
        let ask = Ask::Push { left: parts.len(), fails: Vec::new(), done };
        let token = match self.asks.add(ask) {
            Ok(token) => token,
            Err(ask) => return ask.refuse(),
        };
        let reply_to = Some(ReplyTo { party: self.endpoint.me(), token });
        for (home, uids) in parts {
            let mail = Mail::HomePush { uids, push: Arc::clone(push), reply_to };
            if let Err(Mail::HomePush { uids, .. }) = self.try_send(home, mail) {
                self.asks.finish(token, Outcome::Pushed(uids));
            }
        }
    }

    /// Finds the sessions of uids whose home this is.
    pub(super) fn push_home(
        &mut self,
        uids: Vec<Uid>,
        push: &Arc<Push>,
        reply_to: Option<ReplyTo>,
    ) {
        let mut owners: SmallVec<[(ShardIndex, Vec<SessionId>); 4]> = SmallVec::new();
        let mut fails = Vec::new();
        for uid in uids {
            let sessions = self.directory.get(uid.text());
            for session in sessions {
                match owners.iter_mut().find(|(shard, _)| *shard == session.shard()) {
                    Some((_, theirs)) => theirs.push(*session),
                    None => owners.push((session.shard(), vec![*session])),
                }
            }
            if sessions.is_empty() {
                fails.push(uid);
            }
        }
        for (shard, sessions) in owners {
            // Counted by `try_send` if it is refused.
            self.try_send(shard, Mail::Deliver { sessions, push: Arc::clone(push) }).ok();
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
                let keep = crate::dispatch::chain::guarded(|| filter(&view));
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
        for session in &sessions {
            let mail = Mail::Kick { session: *session, reason: reason.clone() };
            self.send(session.shard(), mail);
        }
        if let Some(reply_to) = reply_to {
            self.reply(reply_to, Outcome::Kicked(sessions.len()));
        }
    }
}
