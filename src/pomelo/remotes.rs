//! The remotes that backends call on a frontend: `sys.sessionRemote` and `sys.channelRemote`
//! (docs/protocol/rpc.md, "Calls backend to frontend").

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::member_config::MemberConfig;
use super::mqtt;
use super::peer::PeerId;
use super::peers::Peers;
use super::rpc::{self, Call, NoCall, Request, encode_answer, push_error, push_json};
use crate::dispatch::{Audience, BindError};
use crate::forward::mail::Others;
use crate::forward::remote::{Done, Refused, Remote};
use crate::route::push::Push;
use crate::session::Uid;
use crate::wire::truthy::is_truthy;

/// The caller that a shard's answer is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    peer: PeerId,
    id: Option<u64>,
    pending: PendingRemote,
}

/// A remote that waits for the shards' answer, as far as its own answer depends on it.
#[derive(Debug, Clone, Copy)]
enum PendingRemote {
    /// Something about a session, by its number.
    Session(u64),
    /// Something about a uid or about several.
    Uid,
    /// Something whose answer was given already.
    Nothing,
}

/// The outcome of a call that needs no shard; the others wait for the shards' answers.
enum Now {
    /// `cb()`: no arguments.
    Empty,
    /// The shards are asked.
    Later,
    /// `cb(null, uids)`: those that got nothing.
    Fails(Vec<Value>),
}

/// An error that a caller is told.
enum Wrong {
    Refused(Refused),
    Text(String),
}

impl From<Refused> for Wrong {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Text(text.into()))
}

/// The reason of a kick that names none.
const KICK_REASON: &str = "kick";

/// The parts of a member that serve its backends' calls.
pub(super) struct Remotes<'a> {
    pub(super) config: &'a MemberConfig,
    pub(super) remote: &'a mut Remote<Caller, Vec<u8>>,
    pub(super) peers: &'a mut Peers,
}

impl Remotes<'_> {
    /// Calls have come on a backend's connection.
    pub(super) fn handle_requests(&mut self, peer: PeerId, payload: &[u8]) {
        rpc::decode_requests(payload, |Request { id, call }| {
            let caller = Caller { peer, id, pending: PendingRemote::Uid };
            let call = match call {
                Ok(call) => call,
                Err(NoCall) => {
                    self.config.counters.cluster_bad_packets.one();
                    return self.answer_wrong(caller, &"bad rpc message");
                }
            };
            self.config.counters.cluster_calls.one();
            match self.serve(caller, &call) {
                Ok(Now::Later) => {}
                Ok(Now::Empty) => self.answer(caller, |_| {}),
                Ok(Now::Fails(uids)) => self.answer(caller, |out| push_value(&uids, out)),
                Err(wrong) => self.answer_wrong(caller, &wrong),
            }
        });
    }

    fn serve(&mut self, caller: Caller, call: &Call<'_>) -> Result<Now, Wrong> {
        if call.namespace != "sys" {
            return wrong(format!("no such namespace:{}", call.namespace));
        }
        let args = Args(&call.args);
        match (&*call.service, &*call.method) {
            ("sessionRemote", method) => self.serve_session(caller, method, &args),
            ("channelRemote", "pushMessage") => self.serve_push(caller, &args),
            ("channelRemote", "broadcast") => self.serve_broadcast(&args),
            ("channelRemote", method) => wrong(format!("no such method:{method}")),
            (service, _) => wrong(format!("no such service:{service}")),
        }
    }

    fn serve_session(
        &mut self,
        caller: Caller,
        method: &str,
        args: &Args<'_>,
    ) -> Result<Now, Wrong> {
        let remote = &mut self.remote;
        let about = |number| Caller { pending: PendingRemote::Session(number), ..caller };
        match method {
            "bind" => {
                let number = args.number()?;
                remote.bind(number, args.uid(1)?, about(number))?;
            }
            "unbind" => {
                let number = args.number()?;
                remote.unbind(number, args.uid(1)?, about(number))?;
            }
            "push" => {
                let Value::String(key) = args.value(1) else { return wrong("key is no text") };
                let settings = Map::from_iter([(key, args.value(2))]);
                let number = args.number()?;
                remote.set(number, settings, Others::Keep, about(number))?;
            }
            "pushAll" => {
                let Value::Object(settings) = args.value(1) else {
                    return wrong("settings are no object");
                };
                let number = args.number()?;
                remote.set(number, settings, Others::Keep, about(number))?;
            }
            "getBackendSessionBySid" => {
                let number = args.number()?;
                // A session that is not there is no error here.
                return match remote.find(number, about(number)) {
                    Err(Refused::Gone { .. }) => Ok(Now::Empty),
                    asked => Ok(asked.map(|()| Now::Later)?),
                };
            }
            "getBackendSessionsByUid" => match args.uid(0) {
                Ok(uid) => remote.find_uid(uid, caller)?,
                Err(_) => return Ok(Now::Empty),
            },
            "kickBySid" => {
                return match remote.kick(args.number()?, args.reason()) {
                    Ok(()) | Err(Refused::Gone { .. }) => Ok(Now::Empty),
                    Err(refused) => Err(refused.into()),
                };
            }
            "kickByUid" => match args.uid(0) {
                Ok(uid) => remote.kick_uid(uid, args.reason(), caller)?,
                Err(_) => return Ok(Now::Empty),
            },
            method => return wrong(format!("no such method:{method}")),
        }
        Ok(Now::Later)
    }

    /// `pushMessage(route, msg, uids, opts)`
    fn serve_push(&mut self, caller: Caller, args: &Args<'_>) -> Result<Now, Wrong> {
        let push = self.encode_push(args)?;
        let listed = args.0.get(2).map_or("", |listed| listed.get());
        let listed = match rpc::elements(listed, self.config.limits.push_uids_max) {
            Ok(listed) => listed,
            Err(why) => return wrong(why),
        };
        // What can be no uid has no session, either.
        let uids: Vec<Uid> = listed.iter().filter_map(|uid| Uid::try_from(uid).ok()).collect();
        if uids.len() < listed.len() || uids.is_empty() {
            let strange = listed.into_iter().filter(|uid| Uid::try_from(uid).is_err()).collect();
            if !uids.is_empty() {
                // Those that are uids get it; that some of them may have no session, too, is not
                // told along with the strange ones.
                let caller = Caller { pending: PendingRemote::Nothing, ..caller };
                self.remote.push(uids, &push, caller)?;
            }
            return Ok(Now::Fails(strange));
        }
        self.remote.push(uids, &push, caller)?;
        Ok(Now::Later)
    }

    /// `broadcast(route, msg, opts)`
    fn serve_broadcast(&mut self, args: &Args<'_>) -> Result<Now, Wrong> {
        let push = self.encode_push(args)?;
        let opts = args.value(2);
        let is_set = |path: &str| opts.pointer(path).is_some_and(is_truthy);
        let audience = match is_set("/binded") || is_set("/userOptions/binded") {
            true => Audience::bound(),
            false => Audience::all(),
        };
        self.remote.broadcast(&push, &audience)?;
        Ok(Now::Empty)
    }

    /// The push of a route and a body, which stand first in the arguments.
    fn encode_push(&self, args: &Args<'_>) -> Result<Arc<Push>, Wrong> {
        let Value::String(route) = args.value(0) else { return wrong("route is no text") };
        let body = args.0.get(1).map_or("", |body| body.get());
        let body = match body {
            "0" | "-0" | "false" | "\"\"" => "",
            body => body,
        };
        let push = self.remote.encode_push(&route, body.as_bytes());
        push.map_err(|error| Wrong::Text(error.to_string()))
    }

    /// The shards have answered.
    pub(super) fn handle_done(&mut self, caller: Caller, result: Done) {
        match (caller.pending, result) {
            (PendingRemote::Nothing, _) => {}
            (_, Done::Bound(Err(error))) => self.answer_wrong(caller, &error),
            (PendingRemote::Session(number), Done::Set(false)) => {
                self.answer_wrong(caller, &Refused::Gone { number });
            }
            (_, Done::Pushed(fails)) => self.answer(caller, |out| push_value(&fails, out)),
            (_, Done::Found(sessions)) if !sessions.is_empty() => {
                let frontend_id = Arc::clone(&self.config.frontend_id);
                self.answer(caller, |out| {
                    let mut exports = sessions.iter().map(|data| rpc::export(data, &frontend_id));
                    out.extend_from_slice(b"null,");
                    match caller.pending {
                        PendingRemote::Session(_) => out.extend(exports.next().unwrap_or_default()),
                        _ => {
                            out.push(b'[');
                            out.extend(exports.collect::<Vec<_>>().join(&b','));
                            out.push(b']');
                        }
                    }
                });
            }
            (_, Done::Bound(Ok(())) | Done::Set(_) | Done::Kicked(_) | Done::Found(_)) => {
                self.answer(caller, |_| {});
            }
        }
    }

    /// Answers a call, with whatever `values` appends.
    fn answer(&mut self, caller: Caller, values: impl FnOnce(&mut Vec<u8>)) {
        self.peers.write(caller.peer, |out| {
            mqtt::encode_publish(rpc::TOPIC, out, |out| encode_answer(caller.id, out, values));
        });
    }

    fn answer_wrong(&mut self, caller: Caller, text: &dyn std::fmt::Display) {
        self.answer(caller, |out| push_error(text, out));
    }
}

/// A call's arguments. One that is missing is the callback's place in the original; here it reads
/// as `null`.
struct Args<'a>(&'a [&'a RawValue]);

impl Args<'_> {
    fn value(&self, index: usize) -> Value {
        // What stands in a call that has been read is JSON; its numbers may be out of range.
        self.0.get(index).and_then(|arg| serde_json::from_str(arg.get()).ok()).unwrap_or_default()
    }

    /// The session's number, which stands first; JavaScript finds it by its text, too.
    fn number(&self) -> Result<u64, Wrong> {
        let number = match self.value(0) {
            Value::Number(number) => number.as_u64().or_else(|| {
                let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
                (0.0..9e15).contains(&number).then_some(number as u64)
            }),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => Ok(number),
            None => wrong(format!("session does not exist, sid: {}", self.value(0))),
        }
    }

    fn uid(&self, index: usize) -> Result<Uid, Wrong> {
        Uid::try_from(&self.value(index)).or_else(|_| wrong(BindError::BadUid.to_string()))
    }

    /// The reason of a kick, which stands second: a kick without one has the reason `kick`, one
    /// with `null` closes without a KICK package.
    fn reason(&self) -> Option<Arc<str>> {
        match self.value(1) {
            _ if self.0.len() < 2 => Some(KICK_REASON.into()),
            Value::String(reason) => Some(reason.into()),
            _ => None,
        }
    }
}

/// Appends what a callback without an error gets.
fn push_value(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"null,");
    push_json(value, out);
}
