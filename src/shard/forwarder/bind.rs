//! Logging in: the owning shard asks the uid's home (docs/protocol/sessions.md, "Sessions").

use std::sync::Arc;

use smallvec::SmallVec;

use super::Forwarder;
use crate::dispatch::BindError;
use crate::forward::mail::{Mail, Outcome, ReplyTo};
use crate::session::{OnSecondBind, SessionId, Uid};
use crate::shard::connections::{Binding, CloseReason};

impl Forwarder {
    pub(super) fn bind(&mut self, session: SessionId, uid: Uid, reply_to: ReplyTo) {
        match self.begin_bind(session, &uid, reply_to) {
            Ok(Begin::Ask) => self.ask_home(session, uid),
            Ok(Begin::Wait) => {}
            Ok(Begin::Done) => self.reply(reply_to, Outcome::Bound(Ok(()))),
            Err(error) => self.reply(reply_to, Outcome::Bound(Err(error))),
        }
    }

    fn begin_bind(
        &mut self,
        session: SessionId,
        uid: &Uid,
        reply_to: ReplyTo,
    ) -> Result<Begin, BindError> {
        let uid_bytes_max = self.config.limits.uid_bytes_max;
        let connection = match self.outbound.connections.find(session) {
            Some((_, connection)) if connection.state.is_working() => connection,
            _ => return Err(BindError::Gone { number: 0 }),
        };
        if uid.is_falsy() || uid.text().len() > uid_bytes_max {
            return Err(BindError::BadUid);
        }
        match connection.uid() {
            Some(bound) if bound == uid => return Ok(Begin::Done),
            Some(bound) => return Err(BindError::BoundToOther(bound.clone())),
            None => {}
        }
        match &mut connection.session.binding {
            Some(binding) if binding.uid == *uid => {
                binding.waiting.push(reply_to);
                Ok(Begin::Wait)
            }
            Some(binding) => Err(BindError::BoundToOther(binding.uid.clone())),
            none => {
                let waiting = SmallVec::from_iter([reply_to]);
                *none = Some(Box::new(Binding { uid: uid.clone(), waiting }));
                Ok(Begin::Ask)
            }
        }
    }

    fn ask_home(&mut self, session: SessionId, uid: Uid) {
        let home = self.endpoint.hub().home(&uid);
        self.send(home, Mail::HomeBind { session, uid });
    }

    /// Decides about a uid whose home this is. A session that loses it is out of the directory
    /// before the newer one learns that it is bound, so that their order is the order in which
    /// their binds came here, whatever is under way between the shards.
    pub(super) fn home_bind(&mut self, session: SessionId, uid: &Uid) {
        let on_second = self.config.on_second_bind.as_ref();
        let bound = self.directory.bind(uid.text(), session, on_second);
        let is_free = bound.is_ok();
        for first in bound.unwrap_or_default() {
            self.send(first.shard(), Mail::Replaced { session: first, uid: uid.clone() });
        }
        self.send(session.shard(), Mail::Bound { session, is_free });
    }

    /// A newer session has the uid now.
    ///
    /// The home says so behind its answer to the bind that it undoes. So a session that is not
    /// bound here has logged out since, and may be about to log in again, which its home has yet to
    /// decide.
    pub(super) fn handle_replaced(&mut self, session: SessionId, uid: &Uid) {
        let config = Arc::clone(&self.config);
        if let Some((slot, connection)) = self.outbound.connections.find(session)
            && connection.state.is_working()
            && connection.uid().is_some_and(|bound| bound.text() == uid.text())
        {
            self.counters.sessions_replaced.one();
            let reason = config.on_second_bind.as_ref().and_then(OnSecondBind::reason);
            self.outbound.kick(slot, reason.map(|reason| &**reason), CloseReason::Kick);
        }
    }

    /// The home shard has decided. A session that has closed meanwhile has told its home to forget
    /// it, and those who waited that it is gone.
    pub(super) fn handle_bound(&mut self, session: SessionId, is_free: bool) {
        let connection = match self.outbound.connections.find(session) {
            Some((_, connection)) if connection.state.is_working() => connection,
            _ => return,
        };
        let Some(mut binding) = connection.session.binding.take() else {
            return debug_assert!(false, "a home answers each bind once");
        };
        if is_free {
            self.set_uid(session, &binding.uid);
            for reply_to in binding.waiting {
                self.reply(reply_to, Outcome::Bound(Ok(())));
            }
            return;
        }
        let first = binding.waiting.remove(0);
        let uid = binding.uid.clone();
        // Who has asked later may have done so when the uid was free already.
        if !binding.waiting.is_empty() {
            connection.session.binding = Some(binding);
            self.ask_home(session, uid.clone());
        }
        self.reply(first, Outcome::Bound(Err(BindError::InUse(uid))));
    }

    /// Writes the uid into a working session, and tells those who want to know of logins.
    fn set_uid(&mut self, session: SessionId, uid: &Uid) {
        let subscribers = self.config.subscribers.to_logins_at(session.shard());
        let unix_ms = self.config.started_unix_ms + self.outbound.connections.now_us() / 1000;
        let Some((_, connection)) = self.outbound.connections.find(session) else { return };
        let peer = connection.peer;
        connection.data().make_mut().uid = Some(uid.clone());
        connection.session.workers |= subscribers;
        let data = Arc::clone(connection.data().shared());
        self.logins.add(uid, peer, unix_ms);
        #[cfg(feature = "admin")]
        self.outbound.record_login(session, uid);
        self.tell_workers(subscribers, || Mail::Login { session, data: Arc::clone(&data) });
    }

    pub(super) fn unbind(&mut self, session: SessionId, uid: Uid, reply_to: ReplyTo) {
        let outcome = match self.outbound.connections.find(session) {
            // One that closes has been taken off its uid already, and the uid may be another's now.
            Some((_, connection)) if !connection.state.is_working() => {
                Err(BindError::Gone { number: 0 })
            }
            None => Err(BindError::Gone { number: 0 }),
            Some((_, connection)) if connection.uid() != Some(&uid) => {
                Err(BindError::NotBound(uid))
            }
            Some((_, connection)) => {
                let data = Arc::clone(connection.data().shared());
                connection.data().make_mut().uid = None;
                self.logins.remove(&uid);
                let subscribers = self.config.subscribers.to_logins_at(session.shard());
                self.tell_workers(subscribers, || Mail::Logout { data: Arc::clone(&data) });
                let home = self.endpoint.hub().home(&uid);
                self.send(home, Mail::HomeUnbind { session, uid });
                Ok(())
            }
        };
        self.reply(reply_to, Outcome::Bound(outcome));
    }
}

/// The way on for a bind.
enum Begin {
    Ask,
    /// The home has been asked already.
    Wait,
    Done,
}
