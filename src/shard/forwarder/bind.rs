//! Logging in: the owning shard asks the uid's home (docs/protocol/sessions.md, "Sessions").

use std::sync::Arc;

use super::Forwarder;
use crate::dispatch::BindError;
use crate::forward::mail::{Mail, Outcome, ReplyTo};
use crate::session::{SessionId, Uid};
use crate::shard::connections::Binding;

impl Forwarder {
    pub(super) fn bind(&mut self, session: SessionId, uid: Uid, reply_to: ReplyTo) {
        match self.begin_bind(session, &uid) {
            Ok(Begin::Ask) => {
                let home = self.endpoint.hub().home(&uid);
                self.send(home, Mail::HomeBind { session, uid, reply_to });
            }
            Ok(Begin::Done) => self.reply(reply_to, Outcome::Bound(Ok(()))),
            Err(error) => self.reply(reply_to, Outcome::Bound(Err(error))),
        }
    }

    fn begin_bind(&mut self, session: SessionId, uid: &Uid) -> Result<Begin, BindError> {
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
            Some(binding) if binding.uid == *uid => binding.asked = binding.asked.saturating_add(1),
            Some(binding) => return Err(BindError::BoundToOther(binding.uid.clone())),
            none => *none = Some(Box::new(Binding { uid: uid.clone(), asked: 1, undone: 0 })),
        }
        Ok(Begin::Ask)
    }

    /// The home shard has decided.
    pub(super) fn handle_bound(
        &mut self,
        session: SessionId,
        uid: Uid,
        is_free: bool,
        reply_to: ReplyTo,
    ) {
        let subscribers = self.config.subscribers_to_logins;
        let unix_ms = self.config.started_unix_ms + self.outbound.connections.now_us() / 1000;
        // A session that has closed meanwhile has told its home to forget it.
        let outcome = match self.outbound.connections.find(session) {
            Some((_, connection)) if connection.state.is_working() => {
                let mut is_undone = false;
                if let Some(binding) = &mut connection.session.binding {
                    is_undone = binding.undone > 0;
                    binding.undone = binding.undone.saturating_sub(1);
                    binding.asked -= 1;
                    if binding.asked == 0 {
                        connection.session.binding = None;
                    }
                }
                if is_undone && is_free {
                    Ok(())
                } else if is_free {
                    let peer = connection.peer;
                    connection.data().make_mut().uid = Some(uid.clone());
                    connection.session.workers |= subscribers;
                    let data = Arc::clone(connection.data().shared());
                    self.logins.add(&uid, peer, unix_ms);
                    self.tell_workers(subscribers, || Mail::Login {
                        session,
                        data: Arc::clone(&data),
                    });
                    Ok(())
                } else {
                    Err(BindError::InUse(uid))
                }
            }
            _ => Err(BindError::Gone { number: 0 }),
        };
        self.reply(reply_to, Outcome::Bound(outcome));
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
                if let Some(binding) = &mut connection.session.binding {
                    binding.undone = binding.asked;
                }
                self.logins.remove(&uid);
                let subscribers = self.config.subscribers_to_logins;
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
    Done,
}
