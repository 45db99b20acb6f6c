//! Remotes that backends call on a frontend, and the users who are logged in at it
//! (docs/protocol/pitaya.md, "Calls a frontend serves").

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::commands::Command;
use super::failure::{error, unknown};
use super::messages::{
    BindMsg, Error, KickAnswer, KickMsg, Msg, Push, Request, Response, Session, rpc_type,
};
use super::session_data;
use super::subjects::{self, Subject};
use super::turn::{Caller, Turn};
use crate::dispatch::BindError;
use crate::forward::asker;
use crate::forward::mail::Others;
use crate::forward::remote::{Done, Refused, Remote};
use crate::session::{SessionData, Table, Uid, place_of, token_of};

/// A remote that waits for the shards' answer, and the subject of its own, if it gets one.
struct PendingRemote {
    reply: Option<Subject>,
}

/// A user who is logged in here.
#[derive(Default)]
struct User {
    /// The sessions, by number. There are several only until the older ones have closed.
    sessions: SmallVec<[u64; 1]>,
}

/// The reason of a kick, for clients that are told one. Pitaya's are not.
pub(crate) const KICK_REASON: &str = "kick";

/// The `data` of an answer.
const ACK: &[u8] = b"ack";

/// The remotes that backends call here, and the users that they may be about.
pub(super) struct Remotes {
    /// Those that shards have not answered.
    pending: Table<PendingRemote>,
    /// The users that are logged in here, by uid.
    users: FxHashMap<Arc<str>, User>,
    /// The sessions of all users, by number.
    bound: FxHashSet<u64>,
}

impl Remotes {
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            pending: Table::new(len_max),
            users: FxHashMap::default(),
            bound: FxHashSet::default(),
        }
    }

    /// The uids of all users.
    pub(super) fn users(&self) -> impl Iterator<Item = Arc<str>> {
        self.users.keys().map(Arc::clone)
    }

    /// True if anybody is logged in here by a uid.
    pub(super) fn has_user(&self, uid: &str) -> bool {
        self.users.contains_key(uid)
    }

    /// Takes a remote out, once it is answered.
    fn take(&mut self, caller: Caller) -> Option<PendingRemote> {
        let (slot, generation) = place_of(caller?);
        self.pending.get(slot, generation)?;
        self.pending.remove(slot)
    }

    /// A request has come on this server's own subject. One that can't be read gets no answer.
    pub(super) fn handle_request(
        &mut self,
        turn: &mut Turn<'_>,
        reply: Option<Subject>,
        payload: Bytes,
    ) {
        let share = turn.config.share;
        let Ok(request) = Request::decode(payload) else {
            return turn.config.counters.cluster_bad_packets.add(share.is_first().into());
        };
        let is_mine = match session_meant(turn, &request) {
            Some(number) => share.serves(number),
            None => share.is_first(),
        };
        if !is_mine {
            return;
        }
        turn.config.counters.cluster_calls.one();
        if let Err(error) = self.serve(turn, reply.clone(), request) {
            answer(turn, reply, Response { data: Bytes::new(), error: Some(error) });
        }
    }

    /// Asks the shards for what is wanted; their answer is the caller's.
    fn serve(
        &mut self,
        turn: &mut Turn<'_>,
        reply: Option<Subject>,
        request: Request,
    ) -> Result<(), Error> {
        let Request { kind, msg, .. } = request;
        let Some(Msg { route, data, .. }) = msg else {
            return Err(error("PIT-400", "there is no message in the request"));
        };
        let short = short_route(turn, &route);
        match short {
            "sys.bindsession" if kind == rpc_type::USER => self.serve_bind(turn, reply, &data),
            "sys.pushsession" if kind == rpc_type::USER => {
                self.serve_push_session(turn, reply, &data)
            }
            "sys.kick" if kind == rpc_type::USER => self.serve_kick(turn, reply, &data),
            _ => Err(Error {
                metadata: [("route".to_owned(), short.to_owned())].into(),
                ..error("PIT-404", "route not found")
            }),
        }
    }

    fn serve_bind(
        &mut self,
        turn: &mut Turn<'_>,
        reply: Option<Subject>,
        data: &[u8],
    ) -> Result<(), Error> {
        let Session { id, uid, .. } = decode(data)?;
        let number = number(id)?;
        if !subjects::is_name(&uid) {
            return Err(unknown("illegal uid"));
        }
        if self.bound.contains(&number) {
            return Err(already_bound());
        }
        self.ask(turn, reply, |remote, caller| remote.bind(number, uid.into(), caller))
    }

    fn serve_push_session(
        &mut self,
        turn: &mut Turn<'_>,
        reply: Option<Subject>,
        data: &[u8],
    ) -> Result<(), Error> {
        let Session { id, data, .. } = decode(data)?;
        let number = number(id)?;
        let settings: Map<String, Value> = match &*data {
            b"" => Map::new(),
            data => session_data::parse(data)
                .ok_or_else(|| unknown("the session's data is no JSON object"))?,
        };
        self.ask(turn, reply, |remote, caller| remote.set(number, settings, Others::Remove, caller))
    }

    fn serve_kick(
        &mut self,
        turn: &mut Turn<'_>,
        reply: Option<Subject>,
        data: &[u8],
    ) -> Result<(), Error> {
        let KickMsg { user_id } = decode(data)?;
        self.ask(turn, reply, |remote, caller| {
            remote.kick_uid(Uid::from(user_id), Some(KICK_REASON.into()), caller)
        })
    }

    /// Keeps who asks, and asks the shards.
    fn ask(
        &mut self,
        turn: &mut Turn<'_>,
        reply: Option<Subject>,
        ask: impl FnOnce(&mut Remote<Caller, Bytes>, Caller) -> Result<(), Refused>,
    ) -> Result<(), Error> {
        let busy = || error("PIT-500", Refused::Busy.to_string());
        let place = self.pending.insert(PendingRemote { reply }).ok_or_else(busy)?;
        ask(turn.remote, Some(token_of(place))).map_err(|refused| {
            self.pending.remove(place.0);
            match refused {
                Refused::Gone { .. } => not_found(),
                Refused::Busy => busy(),
            }
        })
    }

    /// The shards have answered.
    pub(super) fn handle_done(&mut self, turn: &mut Turn<'_>, caller: Caller, result: Done) {
        let Some(pending) = self.take(caller) else { return };
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
        answer(turn, pending.reply, response);
    }

    /// A push has come for a user who is logged in here. Nobody waits for an answer.
    pub(super) fn handle_push(&mut self, turn: &mut Turn<'_>, payload: Bytes) {
        let Ok(Push { route, uid, data }) = Push::decode(payload) else {
            return turn.config.counters.cluster_bad_packets.one();
        };
        turn.config.counters.cluster_calls.one();
        let Some(user) = self.users.get(uid.as_str()) else { return };
        let push = match turn.remote.encode_any_push(&route, &data) {
            Ok(push) => push,
            Err(error) => {
                turn.config.counters.cluster_bad_packets.one();
                return tracing::debug!(%error, route, "a backend's push can't be sent");
            }
        };
        // Not by way of the uid's home, which an answer that follows would overtake.
        for number in &user.sessions {
            if turn.remote.deliver(*number, &push) == Err(Refused::Busy) {
                asker::tell_refused(&turn.config.counters);
            }
        }
    }

    /// A user who is logged in here is to be kicked. Nobody waits for an answer.
    pub(super) fn handle_kick(&mut self, turn: &mut Turn<'_>, payload: Bytes) {
        let Ok(KickMsg { user_id }) = KickMsg::decode(payload) else {
            return turn.config.counters.cluster_bad_packets.one();
        };
        turn.config.counters.cluster_calls.one();
        kick(turn, user_id);
    }

    /// Some frontend of this type has told who has logged in at it.
    pub(super) fn handle_binding(&mut self, turn: &mut Turn<'_>, payload: Bytes) {
        let Ok(BindMsg { uid, fid }) = BindMsg::decode(payload) else {
            return turn.config.counters.cluster_bad_packets.one();
        };
        let is_elsewhere = fid != *turn.config.frontend_id;
        if turn.config.unique_session && is_elsewhere && self.users.contains_key(uid.as_str()) {
            tracing::debug!(uid, frontend = fid, "a user has logged in elsewhere");
            kick(turn, uid);
        }
    }

    /// A session has got a uid, from a backend or from a handler of this process: pushes to the
    /// user are listened to, and the others are told. Older sessions of the user are the shards'
    /// matter.
    pub(super) fn handle_login(&mut self, turn: &mut Turn<'_>, data: &Arc<SessionData>) {
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
        if !user.sessions.contains(&data.number) {
            user.sessions.push(data.number);
        }
        if is_new {
            turn.commands.push(Command::Subscribe { uid: Arc::clone(&uid) });
        }
        let told = BindMsg { uid: uid.to_string(), fid: turn.config.frontend_id.to_string() };
        let subject = subjects::bindings(&turn.config.frontend_type);
        turn.commands.publish(subject, told.encode_to_vec());
    }

    /// A session has lost its uid, or has ended.
    pub(super) fn handle_logout(&mut self, turn: &mut Turn<'_>, data: &Arc<SessionData>) {
        let Some(uid) = &data.uid else { return };
        self.bound.remove(&data.number);
        let Some(user) = self.users.get_mut(uid.text()) else { return };
        user.sessions.retain(|number| *number != data.number);
        if user.sessions.is_empty() {
            let gone = self.users.remove_entry(uid.text());
            if let Some((uid, _)) = gone {
                turn.commands.push(Command::Unsubscribe { uid });
            }
        }
    }
}

/// A route without the server's type, which may stand in front.
fn short_route<'r>(turn: &Turn<'_>, route: &'r str) -> &'r str {
    let own = &*turn.config.frontend_type;
    route.strip_prefix(own).and_then(|rest| rest.strip_prefix('.')).unwrap_or(route)
}

/// The number of the session that a request is about, if it is about one and can be read.
fn session_meant(turn: &Turn<'_>, request: &Request) -> Option<u64> {
    let Msg { route, data, .. } = request.msg.as_ref()?;
    let is_of_session = matches!(short_route(turn, route), "sys.bindsession" | "sys.pushsession");
    let session = is_of_session.then(|| Session::decode(&**data).ok()).flatten()?;
    u64::try_from(session.id).ok()
}

fn answer(turn: &mut Turn<'_>, reply: Option<Subject>, response: Response) {
    if let Some(reply) = reply {
        turn.commands.publish(reply, response.encode_to_vec());
    }
}

fn kick(turn: &mut Turn<'_>, uid: String) {
    if turn.remote.kick_uid(Uid::from(uid), Some(KICK_REASON.into()), None).is_err() {
        asker::tell_refused(&turn.config.counters);
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
