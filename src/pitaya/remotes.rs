//! Remotes that backends call on a frontend, and the users who are logged in at it
//! (docs/protocol/pitaya.md, "Calls a frontend serves").

use std::sync::Arc;

use async_nats::Subject;
use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::failure::{error, unknown};
use super::member::{Caller, Command, Member};
use super::messages::{
    BindMsg, Error, KickAnswer, KickMsg, Msg, Push, Request, Response, Session, rpc_type,
};
use super::session_data;
use super::subjects;
use crate::dispatch::BindError;
use crate::forward::mail::Others;
use crate::forward::remote::{Done, Refused};
use crate::session::{SessionData, Uid, token_of};

/// A remote that waits for the shards' answer, and the subject of its own, if it gets one.
pub(super) struct Asked {
    reply: Option<Subject>,
}

/// A user who is logged in here.
#[derive(Default)]
pub(super) struct User {
    /// The sessions, by number. There are several only until the older ones have closed.
    sessions: SmallVec<[u64; 1]>,
}

/// The reason of a kick, for clients that are told one. Pitaya's are not.
const KICK_REASON: &str = "kick";

/// The `data` of an answer.
const ACK: &[u8] = b"ack";

impl Member {
    /// A request has come on this server's own subject. One that can't be read gets no answer.
    pub(crate) fn handle_request(&mut self, reply: Option<Subject>, payload: Bytes) {
        let Ok(request) = Request::decode(payload) else {
            return self.config.counters.cluster_bad_packets.one();
        };
        self.config.counters.cluster_calls.one();
        if let Err(error) = self.serve(reply.clone(), request) {
            self.answer(reply, Response { data: Bytes::new(), error: Some(error) });
        }
    }

    /// Asks the shards for what is wanted; their answer is the caller's.
    fn serve(&mut self, reply: Option<Subject>, request: Request) -> Result<(), Error> {
        let Request { kind, msg, .. } = request;
        let Some(Msg { route, data, .. }) = msg else {
            return Err(error("PIT-400", "there is no message in the request"));
        };
        // The server's type may stand in front.
        let own = &*self.config.frontend_type;
        let short = route.strip_prefix(own).and_then(|rest| rest.strip_prefix('.'));
        let short = short.unwrap_or(&route);
        match short {
            "sys.bindsession" if kind == rpc_type::USER => self.serve_bind(reply, &data),
            "sys.pushsession" if kind == rpc_type::USER => self.serve_push_session(reply, &data),
            "sys.kick" if kind == rpc_type::USER => self.serve_kick(reply, &data),
            _ => Err(Error {
                metadata: [("route".to_owned(), short.to_owned())].into(),
                ..error("PIT-404", "route not found")
            }),
        }
    }

    fn serve_bind(&mut self, reply: Option<Subject>, data: &[u8]) -> Result<(), Error> {
        let Session { id, uid, .. } = decode(data)?;
        let number = number(id)?;
        if !subjects::is_name(&uid) {
            return Err(unknown("illegal uid"));
        }
        if self.bound.contains(&number) {
            return Err(already_bound());
        }
        self.ask(reply, |member, caller| member.remote.bind(number, uid.into(), caller))
    }

    fn serve_push_session(&mut self, reply: Option<Subject>, data: &[u8]) -> Result<(), Error> {
        let Session { id, data, .. } = decode(data)?;
        let number = number(id)?;
        let settings: Map<String, Value> = match &*data {
            b"" => Map::new(),
            data => session_data::parse(data)
                .ok_or_else(|| unknown("the session's data is no JSON object"))?,
        };
        self.ask(reply, |member, caller| {
            member.remote.set(number, settings, Others::Remove, caller)
        })
    }

    fn serve_kick(&mut self, reply: Option<Subject>, data: &[u8]) -> Result<(), Error> {
        let KickMsg { user_id } = decode(data)?;
        self.ask(reply, |member, caller| {
            member.remote.kick_uid(Uid::from(user_id), Some(KICK_REASON.into()), caller)
        })
    }

    /// Keeps who asks, and asks the shards.
    fn ask(
        &mut self,
        reply: Option<Subject>,
        ask: impl FnOnce(&mut Self, Caller) -> Result<(), Refused>,
    ) -> Result<(), Error> {
        let busy = || error("PIT-500", Refused::Busy.to_string());
        let place = self.asked.insert(Asked { reply }).ok_or_else(busy)?;
        ask(self, Some(token_of(place))).map_err(|refused| {
            self.asked.remove(place.0);
            match refused {
                Refused::Gone { .. } => not_found(),
                Refused::Busy => busy(),
            }
        })
    }

    /// The shards have answered.
    pub(super) fn handle_done(&mut self, caller: Caller, result: Done) {
        let Some(asked) = self.take_asked(caller) else { return };
        let ack = || Response { data: Bytes::from_static(ACK), error: None }.encode_to_vec();
        let data = match result {
            Done::Bound(Ok(())) | Done::Set(true) => Ok(ack()),
            Done::Bound(Err(BindError::Gone { .. })) | Done::Set(false) | Done::Kicked(0) => {
                Err(not_found())
            }
            Done::Bound(Err(BindError::BoundToOther(_))) => Err(already_bound()),
            Done::Bound(Err(error)) => Err(unknown(error.to_string())),
            Done::Kicked(_) => Ok(KickAnswer { kicked: true }.encode_to_vec()),
            // Nothing is asked that would be answered so.
            Done::Pushed(_) | Done::Found(_) => return,
        };
        let response = match data {
            Ok(data) => Response { data: data.into(), error: None },
            Err(error) => Response { data: Bytes::new(), error: Some(error) },
        };
        self.answer(asked.reply, response);
    }

    fn answer(&mut self, reply: Option<Subject>, response: Response) {
        if let Some(reply) = reply {
            self.publish(reply, response.encode_to_vec());
        }
    }

    /// A push has come for a user who is logged in here. Nobody waits for an answer.
    pub(crate) fn handle_push(&mut self, payload: Bytes) {
        let Ok(Push { route, uid, data }) = Push::decode(payload) else {
            return self.config.counters.cluster_bad_packets.one();
        };
        self.config.counters.cluster_calls.one();
        let Some(user) = self.users.get(uid.as_str()) else { return };
        let push = match self.remote.encode_any_push(&route, &data) {
            Ok(push) => push,
            Err(error) => {
                self.config.counters.cluster_bad_packets.one();
                return tracing::debug!(%error, route, "a backend's push can't be sent");
            }
        };
        // Not by way of the uid's home, which an answer that follows would overtake.
        for number in &user.sessions {
            if self.remote.deliver(*number, &push) == Err(Refused::Busy) {
                self.config.counters.mail_rejects.one();
            }
        }
    }

    /// A user who is logged in here is to be kicked. Nobody waits for an answer.
    pub(crate) fn handle_kick(&mut self, payload: Bytes) {
        let Ok(KickMsg { user_id }) = KickMsg::decode(payload) else {
            return self.config.counters.cluster_bad_packets.one();
        };
        self.config.counters.cluster_calls.one();
        self.kick(user_id);
    }

    /// Some frontend of this type has told who has logged in at it.
    pub(crate) fn handle_binding(&mut self, payload: Bytes) {
        let Ok(BindMsg { uid, fid }) = BindMsg::decode(payload) else {
            return self.config.counters.cluster_bad_packets.one();
        };
        let is_elsewhere = fid != *self.config.frontend_id;
        if self.config.unique_session && is_elsewhere && self.users.contains_key(uid.as_str()) {
            tracing::debug!(uid, frontend = fid, "a user has logged in elsewhere");
            self.kick(uid);
        }
    }

    fn kick(&mut self, uid: String) {
        if self.remote.kick_uid(Uid::from(uid), Some(KICK_REASON.into()), None).is_err() {
            self.config.counters.mail_rejects.one();
        }
    }

    /// A session has got a uid, from a backend or from a handler of this process: pushes to the
    /// user are listened to, the others are told, and older sessions of the user close.
    pub(super) fn handle_login(&mut self, data: &Arc<SessionData>) {
        let Some(uid) = &data.uid else { return };
        self.bound.insert(data.number);
        if !subjects::is_name(uid.text()) {
            return crate::log::seldom!(
                warn,
                session = data.number,
                "backends can't push to a user, as its uid can't stand in a subject"
            );
        }
        let uid: Arc<str> = uid.text().into();
        let is_new = !self.users.contains_key(&uid);
        let user = self.users.entry(Arc::clone(&uid)).or_default();
        let older: SmallVec<[u64; 1]> =
            user.sessions.iter().copied().filter(|number| *number != data.number).collect();
        if older.len() == user.sessions.len() {
            user.sessions.push(data.number);
        }
        if is_new {
            self.command(Command::Subscribe { uid: Arc::clone(&uid) });
        }
        // Where a uid is unique the older one is kicked here as it is elsewhere; without it closes.
        let reason = self.config.unique_session.then_some(KICK_REASON);
        for number in older {
            if self.remote.kick(number, reason.map(Arc::from)) == Err(Refused::Busy) {
                self.config.counters.mail_rejects.one();
            }
        }
        let told = BindMsg { uid: uid.to_string(), fid: self.config.frontend_id.to_string() };
        let subject = subjects::bindings(&self.config.frontend_type);
        self.publish(subject, told.encode_to_vec());
    }

    /// A session has lost its uid, or has ended.
    pub(super) fn handle_logout(&mut self, data: &Arc<SessionData>) {
        let Some(uid) = &data.uid else { return };
        self.bound.remove(&data.number);
        let Some(user) = self.users.get_mut(uid.text()) else { return };
        user.sessions.retain(|number| *number != data.number);
        if user.sessions.is_empty() {
            let gone = self.users.remove_entry(uid.text());
            if let Some((uid, _)) = gone {
                self.command(Command::Unsubscribe { uid });
            }
        }
    }
}

fn decode<M: Message + Default>(data: &[u8]) -> Result<M, Error> {
    M::decode(data).map_err(|error| unknown(error.to_string()))
}

/// A session's number as a backend tells it.
fn number(id: i64) -> Result<u64, Error> {
    u64::try_from(id).map_err(|_| not_found())
}

fn not_found() -> Error {
    unknown("session not found")
}

fn already_bound() -> Error {
    unknown("session is already bound to an uid")
}
