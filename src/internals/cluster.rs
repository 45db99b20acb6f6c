//! A frontend of a Pitaya cluster, with a shard that keeps its sessions and no NATS: what comes
//! from the cluster goes in as bytes.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use crate::dispatch::BindError;
use crate::forward::mail::{Forward, ForwardRoute, Mail, Outcome, ReplyTo};
use crate::forward::{Endpoint, Party};
use crate::metrics::Counters;
use crate::pitaya::messages::{Push, Request};
use crate::pitaya::{Change, Command, Member, PitayaCluster, PitayaLimits, ServerName, etcd};
use crate::session::{Generation, SessionData, SessionId, ShardIndex, Slot, Uid};

/// The effect of what a frontend is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // For checks, which look at each.
pub enum Effect {
    /// A client's request is answered.
    Answered {
        /// Which one.
        token: u64,
    },
    /// A session gets a push; who was logged in then.
    Delivered {
        /// The session's number.
        session: u64,
        /// Its uid.
        uid: Option<String>,
    },
    /// Something is sent on NATS.
    Published {
        /// The subject.
        subject: String,
        /// The subject of its answer.
        reply: Option<String>,
        /// The payload.
        payload: Bytes,
    },
}

/// The frontend and its shard.
pub struct Frontend {
    member: Member,
    shard: Endpoint,
    counters: Arc<Counters>,
    now_us: u64,
    /// The uid of each session, by its number.
    uids: Vec<Option<Uid>>,
    /// The users that the shell would listen to, in the order of the commands.
    listening: Vec<Arc<str>>,
    effects: VecDeque<Effect>,
}

/// The time that a request may take, in microseconds.
pub const TIMEOUT_US: u64 = 1_000_000;
/// The type that is forwarded.
const SERVER_TYPE: &str = "room";
/// Small, so that a few operations reach them.
const LEN_MAX: usize = 8;

impl Frontend {
    /// A frontend that is connected, has that many sessions and knows no server.
    #[must_use]
    pub fn new(sessions: usize) -> Self {
        let limits = PitayaLimits {
            calls_max: LEN_MAX,
            queue_len_max: LEN_MAX * 4,
            callers_max: LEN_MAX,
            servers_max: LEN_MAX,
            ..PitayaLimits::default()
        };
        let cluster = PitayaCluster::new(["n:1"], ["e:1"])
            .server_type(SERVER_TYPE)
            .request_timeout(Duration::from_micros(TIMEOUT_US))
            .unique_session(true)
            .limits(limits);
        let (member, shard, counters) = Member::bare(&cluster);
        Self {
            member,
            shard,
            counters,
            now_us: 0,
            uids: vec![None; sessions],
            listening: Vec::new(),
            effects: VecDeque::new(),
        }
    }

    /// The beginning of its answers' subjects.
    #[must_use]
    pub fn inbox(&self) -> String {
        self.member.inbox().to_string()
    }

    /// A client sends a message for the cluster; a token of 0 makes it a notify.
    pub fn forward(&mut self, session: usize, token: u64, route: &str, body: &[u8]) {
        let Ok(len) = u8::try_from(route.len()) else { return };
        let bytes = Bytes::from([route.as_bytes(), body].concat());
        let forward = Forward {
            token,
            session: id(session),
            data: self.data(session),
            route: ForwardRoute::Inline { len },
            id: token as u32,
            bytes,
        };
        self.send(Mail::Forward(forward));
    }

    /// An answer has come.
    pub fn handle_answer(&mut self, subject: &str, status: Option<u16>, payload: &[u8]) {
        self.member.handle_answer(subject, status, Bytes::copy_from_slice(payload));
    }

    /// A backend asks something; whether it gets an answer at all.
    pub fn handle_request(&mut self, reply: &str, payload: &[u8]) -> bool {
        let payload = Bytes::copy_from_slice(payload);
        self.member.handle_request(Some(reply.into()), payload.clone());
        Request::decode(payload).is_ok()
    }

    /// A push has come for some user.
    pub fn handle_push(&mut self, payload: &[u8]) {
        self.member.handle_push(Bytes::copy_from_slice(payload));
    }

    /// A kick has come for some user.
    pub fn handle_kick(&mut self, payload: &[u8]) {
        self.member.handle_kick(Bytes::copy_from_slice(payload));
    }

    /// Somebody has logged in somewhere.
    pub fn handle_binding(&mut self, payload: &[u8]) {
        self.member.handle_binding(Bytes::copy_from_slice(payload));
    }

    /// etcd tells a change, or the whole list.
    pub fn handle_etcd(&mut self, payload: &[u8], is_list: bool) {
        if is_list {
            let Ok(found) = etcd::RangeResponse::decode(payload) else { return };
            let names = found.kvs.iter().filter_map(|kv| server_name(&kv.key));
            self.member.handle_servers(Change::Replace(names.collect()));
            return;
        }
        let Ok(told) = etcd::WatchResponse::decode(payload) else { return };
        for event in told.events {
            let is_delete = event.is_delete();
            match event.kv.and_then(|kv| server_name(&kv.key)) {
                Some(name) if is_delete => self.member.handle_servers(Change::Delete(name)),
                Some(name) => self.member.handle_servers(Change::Put(name)),
                None => {}
            }
        }
    }

    /// NATS comes or goes.
    pub fn set_connected(&mut self, is_connected: bool) {
        match is_connected {
            true => self.member.handle_connected(),
            false => self.member.handle_lost(),
        }
    }

    /// Does what there is to do, that much later.
    pub fn turn(&mut self, passed_us: u64) {
        self.now_us += passed_us;
        self.member.begin_turn(self.now_us);
        self.member.run();
        while self.member.poll_bell().is_some() {}
        while let Some(mail) = self.shard.receive(Party(1)) {
            self.handle_mail(mail);
        }
        while let Some(command) = self.member.poll_command() {
            self.handle_command(command);
        }
    }

    /// The deeds, one after the other.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The users that it listens to, and those who are logged in; both sorted.
    #[must_use]
    pub fn listening(&self) -> (Vec<String>, Vec<String>) {
        let listening = self.listening.iter().map(|uid| uid.to_string());
        let users = self.uids.iter().flatten().map(|uid| uid.text().to_owned());
        let mut both: (Vec<String>, Vec<String>) = (listening.collect(), users.collect());
        both.0.sort();
        both.1.sort();
        both.1.dedup();
        both
    }

    /// Messages that could not be read.
    #[must_use]
    pub fn bad(&self) -> u64 {
        self.counters.snapshot().cluster_bad_packets
    }

    fn data(&self, session: usize) -> Arc<SessionData> {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let mut data = SessionData::new(session as u64, peer);
        data.uid.clone_from(&self.uids[session]);
        Arc::new(data)
    }

    fn send(&mut self, mail: Mail) {
        self.shard.send(Party(1), mail);
        self.shard.flush();
    }

    fn reply(&mut self, to: ReplyTo, outcome: Outcome) {
        self.send(Mail::Result { token: to.token, outcome });
    }

    /// The part of a shard, and of the home of every uid.
    fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Answer { token, .. } => self.effects.push_back(Effect::Answered { token }),
            Mail::Bind { session, uid, reply_to } => {
                let number = session.slot().0 as usize;
                let result = match &self.uids[number] {
                    Some(bound) if *bound == uid => Ok(()),
                    Some(bound) => Err(BindError::BoundToOther(bound.clone())),
                    None => {
                        self.uids[number] = Some(uid);
                        let data = self.data(number);
                        self.send(Mail::Login { session, data });
                        Ok(())
                    }
                };
                self.reply(reply_to, Outcome::Bound(result));
            }
            Mail::Set { reply_to, .. } => self.reply(reply_to, Outcome::Set(true)),
            Mail::Kick { session, .. } => self.end(session.slot().0 as usize),
            Mail::HomeKick { uid, reply_to, .. } => {
                let is_it = |number: &usize| self.uids[*number].as_ref() == Some(&uid);
                let ended: Vec<usize> = (0..self.uids.len()).filter(is_it).collect();
                ended.iter().for_each(|number| self.end(*number));
                if let Some(to) = reply_to {
                    self.reply(to, Outcome::Kicked(ended.len()));
                }
            }
            Mail::Deliver { sessions, .. } => {
                for session in sessions {
                    let number = session.slot().0 as usize;
                    let uid = self.uids[number].as_ref().map(|uid| uid.text().to_owned());
                    self.effects.push_back(Effect::Delivered { session: number as u64, uid });
                }
            }
            _ => panic!("nothing in Pitaya's protocol asks for this"),
        }
    }

    /// A session ends; another one of its number begins.
    fn end(&mut self, number: usize) {
        let (session, data) = (id(number), self.data(number));
        self.uids[number] = None;
        self.send(Mail::Closed { session, data });
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Publish { subject, payload, call } => {
                let reply = call.map(|call| self.member.reply_subject(call));
                let subject = subject.to_string();
                self.effects.push_back(Effect::Published { subject, reply, payload });
            }
            Command::Subscribe { uid } if self.listening.contains(&uid) => {}
            Command::Subscribe { uid } => self.listening.push(uid),
            Command::Unsubscribe { uid } => self.listening.retain(|other| *other != uid),
            Command::Review => self.listening.retain(|uid| self.member.has_user(uid)),
        }
    }
}

impl std::fmt::Debug for Frontend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frontend").field("uids", &self.uids).finish_non_exhaustive()
    }
}

/// The user whom a push is for.
#[must_use]
pub fn pushed_to(payload: &[u8]) -> Option<String> {
    Push::decode(payload).ok().map(|push| push.uid)
}

/// The route and the body in a forwarded message.
#[must_use]
pub fn forwarded(payload: &[u8]) -> Option<(String, Bytes)> {
    let msg = Request::decode(payload).ok()?.msg?;
    Some((msg.route, msg.data))
}

/// The server that a key in etcd names, which gives the key again.
fn server_name(key: &[u8]) -> Option<ServerName> {
    let name = ServerName::from_key("pitaya/", key)?;
    assert_eq!(name.key("pitaya/").as_bytes(), key);
    Some(name)
}

fn id(session: usize) -> SessionId {
    SessionId::new(ShardIndex(0), Slot(session as u32), Generation::FIRST)
}
