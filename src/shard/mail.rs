//! What others ask of this shard, and what its own code asks for.

use std::sync::Arc;

use super::Shard;
use super::connection::{CloseReason, worker_bit};
use crate::dispatch::context::{Op, Origin};
use crate::forward::asks::Ask;
use crate::forward::mail::{HostChange, Mail, Others, Outcome, ReplyTo, Report, ReportKind};
use crate::metrics::Latency;
use crate::session::{SessionId, ShardIndex};

impl Shard {
    pub(super) fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Answer { token, reply } => self.handle_worker_answer(token, reply),
            Mail::Answers { token, answered, bytes } => {
                self.handle_answers(token, answered, &bytes);
            }
            Mail::Batch(batch) => self.handle_batch(batch),
            Mail::Part { token, index, reply } => self.handle_part(token, index, reply),
            Mail::Set { session, settings, others, reply_to } => {
                let was_there = self.set(session, *settings, others);
                self.reply(reply_to, Outcome::Set(was_there));
            }
            Mail::Bind { session, uid, reply_to } => self.bind(session, uid, reply_to),
            Mail::Unbind { session, uid, reply_to } => self.unbind(session, uid, reply_to),
            Mail::Bound { session, uid, is_free, reply_to } => {
                self.handle_bound(session, uid, is_free, reply_to);
            }
            Mail::Kick { session, reason } => {
                if let Some((slot, _)) = self.find(session) {
                    self.kick(slot, reason.as_deref(), CloseReason::Kick);
                }
            }
            Mail::Export { sessions, reply_to } => self.export(&sessions, reply_to),
            Mail::HomeSessions { uid, reply_to } => {
                let sessions = self.directory.get(uid.text()).to_vec();
                self.reply(reply_to, Outcome::Sessions(sessions));
            }
            Mail::Deliver { sessions, push } => self.deliver(&sessions, &push),
            Mail::HomeBind { session, uid, reply_to } => {
                let is_free = self.directory.bind(uid.text(), session, self.config.single_session);
                self.mail(session.shard(), Mail::Bound { session, uid, is_free, reply_to });
            }
            Mail::HomeUnbind { session, uid } => {
                self.directory.unbind(uid.text(), session);
            }
            Mail::HomeKick { uid, reason, reply_to } => self.kick_uid(&uid, reason, reply_to),
            Mail::HomePush { uids, push, reply_to } => self.push_home(uids, &push, reply_to),
            Mail::Broadcast { push, audience } => self.broadcast(&push, &audience),
            Mail::Edition(edition) => self.handle_edition(edition),
            Mail::Result { token, outcome } => self.asks.finish(token, outcome),
            Mail::Report { to, kind } => {
                // A host that has given up waiting has dropped the other end.
                to.try_send(self.report(kind)).ok();
            }
            Mail::Hosts { rules, change } => {
                let changed = match change {
                    HostChange::Add => self.host_filter.add(&rules),
                    HostChange::Remove => {
                        self.host_filter.remove(&rules);
                        Ok(())
                    }
                    HostChange::Replace => self.host_filter.replace(rules),
                };
                if let Err(error) = changed {
                    tracing::warn!(%error, "host rules were not taken");
                }
            }
            #[cfg(feature = "tls")]
            Mail::Certificate { listener, config } => self.tls.set_config(listener, config),
            Mail::Forward(_) | Mail::Closed { .. } | Mail::Login { .. } | Mail::Logout { .. } => {
                debug_assert!(false, "mail for a worker reached a shard");
            }
        }
    }

    /// Mail that must arrive, to any shard, itself included.
    pub(super) fn mail(&mut self, to: ShardIndex, mail: Mail) {
        if to == self.index {
            self.handle_mail(mail);
        } else {
            self.endpoint.send(to.into(), mail);
        }
    }

    /// Mail that may be refused; whether it was taken.
    pub(super) fn try_mail(&mut self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        if to == self.index {
            self.handle_mail(mail);
            return Ok(());
        }
        self.endpoint.try_send(to.into(), mail).inspect_err(|_| self.counters.mail_rejects.one())
    }

    pub(super) fn reply(&mut self, to: ReplyTo, outcome: Outcome) {
        if to.party == self.endpoint.me() {
            self.asks.finish(to.token, outcome);
        } else {
            self.endpoint.send(to.party, Mail::Result { token: to.token, outcome });
        }
    }

    fn report(&mut self, kind: ReportKind) -> Report {
        let (logins, latency) = match kind {
            ReportKind::Logins => (self.logins.list(), Latency::default()),
            ReportKind::Latency => (Vec::new(), self.latency.take()),
        };
        let (connections, uids) = (self.connections.len(), self.directory.len());
        Report { connections, logins, latency, uids }
    }

    /// Does what handlers, filters and futures have asked for, in order.
    pub(super) fn apply_ops(&mut self) {
        if !self.thread.has_ops() {
            return;
        }
        loop {
            // Taken out, as doing one may lead to the next.
            let mut ops = std::mem::take(&mut self.ops);
            std::mem::swap(&mut *self.thread.ops.borrow_mut(), &mut ops);
            if ops.is_empty() {
                self.ops = ops;
                return;
            }
            ops.drain(..).for_each(|op| self.apply(op));
            self.ops = ops;
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Bind { session, uid, done } => self.ask(Ask::Bind(done), |shard, reply_to| {
                shard.try_mail(session.shard(), Mail::Bind { session, uid, reply_to })
            }),
            Op::Unbind { session, uid, done } => self.ask(Ask::Bind(done), |shard, reply_to| {
                shard.try_mail(session.shard(), Mail::Unbind { session, uid, reply_to })
            }),
            Op::Set { session, settings, done } => {
                let was_there = self.set(session, settings, Others::Keep);
                done.complete(was_there);
            }
            Op::Kick { session, reason } => {
                // Counted by `try_mail` if it is refused.
                self.try_mail(session.shard(), Mail::Kick { session, reason }).ok();
            }
            Op::KickUid { uid, reason, done } => {
                let home = self.endpoint.hub().home(&uid);
                self.ask(Ask::Kick(done), |shard, to| {
                    shard.try_mail(home, Mail::HomeKick { uid, reason, reply_to: Some(to) })
                });
            }
            Op::Push { uids, push, done } => self.push(uids, &push, done),
            Op::Broadcast { push, audience } => {
                for shard in (0..self.endpoint.hub().shards()).map(ShardIndex) {
                    let (push, audience) = (Arc::clone(&push), audience.clone());
                    // Counted by `try_mail` if it is refused.
                    self.try_mail(shard, Mail::Broadcast { push, audience }).ok();
                }
            }
            Op::Spawn(future) => {
                if self.tasks.spawn(future).is_err() {
                    self.counters.task_rejects.one();
                    crate::log::seldom!(warn, "too many futures on a shard; one was dropped");
                }
            }
            Op::Answer { call, reply } => match call.origin {
                Origin::Client(client) => self.handle_answer(&client, call.held, &reply),
                Origin::Shard { .. } | Origin::Batch { .. } => {
                    debug_assert!(false, "a shard handles its own clients");
                }
            },
            Op::Admit { client, held, admitted } => self.handle_admit(&client, *held, admitted),
        }
    }

    /// Keeps a question and asks it.
    fn ask(&mut self, ask: Ask, send: impl FnOnce(&mut Self, ReplyTo) -> Result<(), Mail>) {
        let token = match self.asks.add(ask) {
            Ok(token) => token,
            Err(ask) => return ask.refuse(),
        };
        let reply_to = ReplyTo { party: self.endpoint.me(), token };
        if send(self, reply_to).is_err()
            && let Some(ask) = self.asks.take(token)
        {
            ask.refuse();
        }
    }

    /// Shows sessions to a forwarder, which is told of their ends from here on.
    fn export(&mut self, sessions: &[SessionId], reply_to: ReplyTo) {
        let told = worker_bit(reply_to.party.0 - self.endpoint.hub().shards());
        let mut exported = Vec::with_capacity(sessions.len());
        for &session in sessions {
            if let Some((_, connection)) = self.find(session)
                && connection.state.is_working()
            {
                connection.workers |= told;
                exported.push((session, Arc::clone(connection.data().shared())));
            }
        }
        self.reply(reply_to, Outcome::Exported(exported));
    }

    fn set(
        &mut self,
        session: SessionId,
        settings: serde_json::Map<String, serde_json::Value>,
        others: Others,
    ) -> bool {
        let Some((_, connection)) = self.find(session) else { return false };
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
