//! Mail about sessions and uids, from other parties and from this shard itself.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Forwarder;
use crate::forward::WorkerIndex;
use crate::forward::mail::{Mail, Others, Outcome, ReplyTo};
use crate::session::SessionId;
use crate::shard::connections::CloseReason;

impl Forwarder {
    /// Handles what this shard has sent to itself, and what follows on that, up to the end of a
    /// session: what that leads to comes before the next mail, which may be about a session that
    /// takes its place.
    #[inline]
    pub(in crate::shard) fn handle_own_mail(&mut self) {
        while !self.outbound.connections.has_ended()
            && let Some(mail) = self.own_mail.pop_front()
        {
            self.handle_mail(mail);
        }
    }

    /// Handles mail about sessions and uids. Mail to this shard that follows on it is left to
    /// [`Self::handle_own_mail`].
    pub(in crate::shard) fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Set { session, settings, others, reply_to } => {
                let was_there = self.set(session, *settings, others);
                self.reply(reply_to, Outcome::Set(was_there));
            }
            Mail::Bind { session, uid, reply_to } => self.bind(session, uid, reply_to),
            Mail::Unbind { session, uid, reply_to } => self.unbind(session, uid, reply_to),
            Mail::Bound { session, is_free } => self.handle_bound(session, is_free),
            Mail::Replaced { session, uid } => self.handle_replaced(session, &uid),
            Mail::Kick { session, reason } => {
                if let Some((slot, _)) = self.outbound.connections.find(session) {
                    self.outbound.kick(slot, reason.as_deref(), CloseReason::Kick);
                }
            }
            Mail::Export { sessions, reply_to } => self.export(&sessions, reply_to),
            Mail::Deliver { sessions, push } => self.deliver(&sessions, &push),
            Mail::Broadcast { push, audience } => self.broadcast(&push, &audience),
            Mail::HomeBind { session, uid } => {
                self.home_bind(session, &uid);
                self.show_uids();
            }
            Mail::HomeUnbind { session, uid } => {
                self.directory.unbind(uid.text(), session);
                self.show_uids();
            }
            Mail::HomeKick { uid, reason, reply_to } => self.kick_uid(&uid, reason, reply_to),
            Mail::HomeSessions { uid, reply_to } => {
                let sessions = self.directory.get(uid.text()).to_vec();
                self.reply(reply_to, Outcome::Sessions(sessions));
            }
            Mail::HomePush { uids, push, reply_to } => self.push_home(uids, &push, reply_to),
            Mail::Result { token, outcome } => self.asks.complete(token, outcome),
            _ => debug_assert!(false, "this mail is about no session or uid"),
        }
    }

    /// Shows sessions to a forwarder, which is told of their ends from here on.
    fn export(&mut self, sessions: &[SessionId], reply_to: ReplyTo) {
        let forwarder = self.endpoint.hub().worker_of(reply_to.party).map_or(0, WorkerIndex::bit);
        let mut exported = Vec::with_capacity(sessions.len());
        for &session in sessions {
            if let Some((_, connection)) = self.outbound.connections.find(session)
                && connection.state.is_working()
            {
                connection.session.workers |= forwarder;
                exported.push((session, Arc::clone(connection.data().shared())));
            }
        }
        self.reply(reply_to, Outcome::Exported(exported));
    }

    /// Writes settings of a session of this shard; false if it is gone.
    pub(in crate::shard) fn set(
        &mut self,
        session: SessionId,
        settings: Map<String, Value>,
        others: Others,
    ) -> bool {
        let Some((_, connection)) = self.outbound.connections.find(session) else { return false };
        if !connection.state.is_working() {
            return false;
        }
        let written = &mut connection.data().make_mut().settings;
        match others {
            Others::Keep => written.extend(settings),
            Others::Remove => *written = settings,
        }
        true
    }
}
