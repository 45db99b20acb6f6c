//! The state of one frontend in its cluster: every server, every request, every user.
//!
//! It does no I/O and reads no clock. Its shell, in this order and over again:
//!
//! 1. [`Station::begin_turn`] with the time;
//! 2. [`Station::handle_connected`], [`Station::handle_lost`], [`Station::handle_servers`] and
//!    the other `handle_` methods for what NATS and etcd have brought;
//! 3. [`Station::run`], which reads mail and lets deadlines pass;
//! 4. [`Station::poll_command`] as long as NATS takes what it gives, and [`Station::poll_bell`]
//!    until it gives nothing more;
//! 5. it waits for the next event, for no longer than [`Station::next_deadline_us`] allows.
//!
//! # Order
//! All requests of a session to one server go out on one connection, in the order in which they
//! came, and all answers come back on one subject of that connection, in the order in which the
//! server has given them. Nothing is waited for in between.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;
use prost::Message as _;
use rustc_hash::{FxHashMap, FxHashSet};

use super::calls::Calls;
use super::cluster::{PitayaCluster, PitayaLimits};
use super::failure::Failure;
use super::messages::{ClientMessage, Response, Session};
use super::remotes::{Asked, User};
use super::servers::{Change, Random, Servers};
use crate::forward::mail::{Forward, WorkerReply};
use crate::forward::remote::{Received, Remote};
use crate::forward::{Chunk, Party, Route};
use crate::metrics::Counters;
use crate::route::table::RouteTable;
use crate::session::{
    Generation, SessionData, SessionId, SessionView, ShardIndex, Slot, Table, place_of,
};

/// How a question to shards is known: by its place among those that wait, if anybody does.
pub(crate) type Caller = Option<u64>;

/// Everything that a frontend knows of its cluster.
pub(crate) struct Station {
    pub(super) config: StationConfig,
    pub(super) remote: Remote<Caller, Vec<u8>>,
    servers: Servers,
    calls: Calls<Waiter>,
    /// What backends have asked and shards have not answered.
    pub(super) asked: Table<Asked>,
    /// Who is logged in here, by uid.
    pub(super) users: FxHashMap<Arc<str>, User>,
    /// The sessions of all users, by number.
    pub(super) bound: FxHashSet<u64>,
    commands: VecDeque<Command>,
    /// Whether the shell listens to other users than [`Self::users`].
    is_stale: bool,
    pub(super) is_connected: bool,
    pub(super) now_us: u64,
    requests: u64,
    metadata: Vec<u8>,
    payload: Vec<u8>,
    /// What is sent is carved from this.
    chunk: Chunk,
}

/// What a station is made of, besides its place among the parties.
pub(crate) struct StationConfig {
    pub(crate) frontend_id: Arc<str>,
    pub(crate) frontend_type: Arc<str>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: PitayaLimits,
    pub(crate) request_timeout_us: u64,
    pub(crate) unique_session: bool,
    /// Nanoseconds from 1970 to the engine's start.
    pub(crate) started_unix_ns: u64,
    /// What the subject of every answer begins with, which is this process's alone.
    pub(crate) inbox: String,
    /// What every request's metadata begins with.
    metadata_head: Vec<u8>,
    /// What every request's id begins with.
    id_head: u64,
}

/// What the shell has to do on NATS, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Send a message. If it can't be sent, [`Station::handle_unsent`] is told of `call`.
    Publish { subject: Subject, reply: Option<Subject>, payload: Bytes, call: Option<u64> },
    /// Listen to a user's pushes and kicks.
    Subscribe { uid: Arc<str> },
    /// Listen no more.
    Unsubscribe { uid: Arc<str> },
    /// Listen to none but those users that [`Station::has_user`] knows; those that are missing
    /// follow. What is said of one that is listened to already says nothing new.
    Review,
}

/// Who waits for a server's answer, and which server's.
struct Waiter {
    shard: ShardIndex,
    token: u64,
    server: (Slot, Generation),
}

/// How soon a full lane is tried again.
const BACKLOG_RETRY_US: u64 = 1_000;
/// The last part of the subject on which nobody waits for an answer.
const NOTIFIED: &str = "n";
/// The status of a message that says that nobody has heard the request.
pub(crate) const NO_RESPONDERS: u16 = 503;
/// Characters of a request's id in the metadata, half of which count.
const REQUEST_ID_DIGITS: usize = 22;

impl StationConfig {
    /// The part of a description that the station needs; it has been checked. `random` is any two
    /// numbers that no other process has.
    pub(crate) fn new(
        cluster: &PitayaCluster,
        server_type: &Arc<str>,
        server_id: &Arc<str>,
        routes: &Arc<RouteTable>,
        counters: &Arc<Counters>,
        (random, started_unix_ms): ([u64; 2], u64),
    ) -> Self {
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let (id, kind) = (json(server_id), json(server_type));
        let timeout = go_duration(cluster.request_timeout);
        let head = format!(
            "{{\"peer.id\":{id},\"peer.service\":{kind},\"reqTimeout\":\"{timeout}\",\
             \"req-route\":"
        );
        Self {
            frontend_id: Arc::clone(server_id),
            frontend_type: Arc::clone(server_type),
            routes: Arc::clone(routes),
            counters: Arc::clone(counters),
            limits: cluster.limits.clone(),
            request_timeout_us: micros(cluster.request_timeout),
            unique_session: cluster.unique_session,
            started_unix_ns: started_unix_ms.saturating_mul(1_000_000),
            inbox: format!("_INBOX.{:016x}{:016x}.", random[0], random[1]),
            metadata_head: head.into_bytes(),
            id_head: random[0],
        }
    }
}

impl Station {
    pub(crate) fn new(
        config: StationConfig,
        cluster: &PitayaCluster,
        routers: &[(String, Route)],
        remote: Remote<Caller, Vec<u8>>,
    ) -> Self {
        let limits = &config.limits;
        let random = Random::new(config.id_head);
        Self {
            remote,
            servers: Servers::new(&cluster.server_types, routers, limits.servers_max, random),
            calls: Calls::new(limits.calls_max),
            asked: Table::new(limits.callers_max),
            users: FxHashMap::default(),
            bound: FxHashSet::default(),
            commands: VecDeque::new(),
            is_stale: false,
            is_connected: false,
            now_us: 0,
            requests: 0,
            metadata: Vec::new(),
            payload: Vec::new(),
            chunk: Chunk::default(),
            config,
        }
    }

    /// The subjects of all answers, as one.
    pub(crate) fn inbox(&self) -> String {
        format!("{}*", self.config.inbox)
    }

    /// Begins a turn at the given time.
    pub(crate) fn begin_turn(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        self.remote.begin_turn();
    }

    /// There is a connection to NATS.
    pub(crate) fn handle_connected(&mut self) {
        self.is_connected = true;
    }

    /// There is none any more. What is under way gets no answer, so it fails at once.
    pub(crate) fn handle_lost(&mut self) {
        self.is_connected = false;
        let lost = self.calls.len();
        self.config.counters.forward_lost.add(lost as u64);
        while let Some(waiter) = self.calls.take_first() {
            self.fail(waiter, Failure::NoConnection);
        }
        // What has not been sent would be heard too late. Who is listened to is looked at anew.
        self.is_stale = true;
        self.commands.clear();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The list of servers has changed.
    pub(crate) fn handle_servers(&mut self, change: Change) {
        self.servers.apply(change);
    }

    /// An answer has come, on one of the subjects of [`Self::inbox`].
    pub(crate) fn handle_answer(&mut self, subject: &str, status: Option<u16>, payload: Bytes) {
        let token = subject.strip_prefix(&*self.config.inbox);
        let is_unheard = status == Some(NO_RESPONDERS);
        if token == Some(NOTIFIED) {
            if is_unheard {
                self.config.counters.forward_lost.one();
            }
            return;
        }
        // Nobody waits for what has been answered for.
        let token = token.and_then(|token| u64::from_str_radix(token, 16).ok());
        let Some(waiter) = token.and_then(|token| self.calls.take(token)) else { return };
        if is_unheard {
            self.config.counters.forward_lost.one();
            return self.fail(waiter, Failure::NoResponders);
        }
        match Response::decode(payload) {
            Ok(Response { error: None, data }) => self.finish(waiter, Some(data), false),
            Ok(Response { error: Some(error), .. }) => {
                self.finish(waiter, Some(error.into_body()), true);
            }
            Err(_) => {
                self.config.counters.cluster_bad_packets.one();
                self.fail(waiter, Failure::BadAnswer);
            }
        }
    }

    /// A request could not be sent, as it is too long.
    pub(crate) fn handle_unsent(&mut self, call: u64) {
        if let Some(waiter) = self.calls.take(call) {
            self.config.counters.forward_rejects.one();
            self.fail(waiter, Failure::TooLong);
        }
    }

    /// Reads mail, and lets deadlines pass.
    pub(crate) fn run(&mut self) {
        while let Some(received) = self.remote.receive() {
            match received {
                Received::Forward(forward) => self.handle_forward(forward),
                Received::Login { data } => self.handle_login(&data),
                Received::Logout { data } | Received::Closed { data, .. } => {
                    self.handle_logout(&data);
                }
                Received::Done { caller, result } => self.handle_done(caller, result),
            }
        }
        while let Some(waiter) = self.calls.take_due(self.now_us) {
            self.config.counters.forward_timeouts.one();
            self.fail(waiter, Failure::Timeout);
        }
    }

    /// A client's message for a server.
    fn handle_forward(&mut self, forward: Forward) {
        let (shard, token) = (forward.session.shard(), forward.token);
        if let Err(failure) = self.call(forward) {
            match failure {
                Failure::Busy => self.config.counters.forward_rejects.one(),
                _ => self.config.counters.forward_lost.one(),
            }
            let reply = WorkerReply { body: Some(failure.body()), failed: true, data: None };
            self.remote.answer(shard, token, reply);
        }
    }

    fn call(&mut self, forward: Forward) -> Result<(), Failure> {
        let Forward { token, session, data, route, id, bytes } = forward;
        let routes = Arc::clone(&self.config.routes);
        let (route, body) = route.split(&routes, &bytes);
        if !self.is_connected {
            return Err(Failure::NoConnection);
        }
        let server_type = route.split('.').next().unwrap_or_default();
        let view = SessionView { id: session, data: &data };
        let slot = self.servers.pick(server_type, &view).ok_or(Failure::NoServer)?;
        let generation = self.servers.table.generation(slot);
        let server = self.servers.table.at_mut(slot).ok_or(Failure::NoServer)?;
        let limits = &self.config.limits;
        if self.commands.len() >= limits.queue_len_max
            || server.calls >= limits.calls_per_server_max
        {
            return Err(Failure::Busy);
        }
        let call = match token {
            0 => None,
            _ => {
                let shard = session.shard();
                let waiter = Waiter { shard, token, server: (slot, generation) };
                let deadline_us = self.now_us + self.config.request_timeout_us;
                let call = self.calls.add(waiter, deadline_us).ok_or(Failure::Busy)?;
                server.calls += 1;
                Some(call)
            }
        };
        let subject = server.subject.clone();
        let payload = self.encode(session, &data, id, route, body);
        let inbox = &self.config.inbox;
        let reply = match call {
            Some(call) => format!("{inbox}{call:x}"),
            None => format!("{inbox}{NOTIFIED}"),
        };
        let reply = Some(reply.into());
        self.commands.push_back(Command::Publish { subject, reply, payload, call });
        Ok(())
    }

    /// Lays out a client's message.
    fn encode(
        &mut self,
        session: SessionId,
        data: &Arc<SessionData>,
        id: u32,
        route: &str,
        body: &[u8],
    ) -> Bytes {
        self.requests += 1;
        self.metadata.clear();
        push_metadata(&self.config, route, self.now_us, self.requests, &mut self.metadata);
        self.payload.clear();
        let message = ClientMessage {
            session: self.remote.export(session, data, export),
            id,
            route,
            body,
            frontend_id: &self.config.frontend_id,
            metadata: &self.metadata,
        };
        message.encode(&mut self.payload);
        self.chunk.carve([&self.payload])
    }

    fn fail(&mut self, waiter: Waiter, failure: Failure) {
        self.finish(waiter, Some(failure.body()), true);
    }

    fn finish(&mut self, waiter: Waiter, body: Option<Bytes>, failed: bool) {
        self.servers.finish_call(waiter.server);
        let reply = WorkerReply { body, failed, data: None };
        self.remote.answer(waiter.shard, waiter.token, reply);
    }

    /// Sends what is no client's message, if there is a connection and room for it.
    pub(super) fn publish(&mut self, subject: Subject, payload: Vec<u8>) {
        if !self.is_connected {
            return;
        }
        if self.commands.len() >= self.config.limits.queue_len_max {
            return self.config.counters.forward_rejects.one();
        }
        let payload = payload.into();
        self.commands.push_back(Command::Publish { subject, reply: None, payload, call: None });
    }

    /// Adds what follows from a user's coming or going. Where that is too much, all users are
    /// looked at once there is room.
    pub(super) fn command(&mut self, command: Command) {
        if self.is_connected && self.commands.len() < self.config.limits.queue_len_max {
            self.commands.push_back(command);
        } else {
            self.is_stale = true;
        }
    }

    /// What is to be done next. One that could not be done is to be given back.
    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        if self.commands.is_empty() && self.is_connected && std::mem::take(&mut self.is_stale) {
            self.commands.push_back(Command::Review);
            let uids = self.users.keys().map(Arc::clone);
            self.commands.extend(uids.map(|uid| Command::Subscribe { uid }));
        }
        self.commands.pop_front()
    }

    /// Whether anybody is logged in here by a uid.
    pub(crate) fn has_user(&self, uid: &str) -> bool {
        self.users.contains_key(uid)
    }

    /// Takes a command back that has to wait for NATS.
    pub(crate) fn give_back(&mut self, command: Command) {
        self.commands.push_front(command);
    }

    /// Whether anything waits for NATS to take it.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// A party that sleeps and has got mail: the shell wakes it.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.remote.poll_bell()
    }

    /// Whether mail has come that [`Self::run`] has not seen. To be asked again once the doorbell
    /// is armed.
    pub(crate) fn has_work(&self) -> bool {
        self.remote.has_work()
    }

    /// When the shell has to run again at the latest.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        let backlog = self.remote.has_backlog().then_some(self.now_us + BACKLOG_RETRY_US);
        self.calls.next_deadline_us().into_iter().chain(backlog).min()
    }

    /// Takes out what backends have asked, once it is answered.
    pub(super) fn take_asked(&mut self, caller: Caller) -> Option<Asked> {
        let (slot, generation) = place_of(caller?);
        self.asked.get(slot, generation)?;
        self.asked.remove(slot)
    }
}

/// What servers are told of a session. Its address is no setting here, but is one in Pitaya.
fn export(data: &SessionData) -> Vec<u8> {
    let mut settings = data.settings.clone();
    let ip_version = if data.peer.is_ipv4() { "ipv4" } else { "ipv6" };
    settings.entry("ipversion").or_insert_with(|| ip_version.into());
    let session = Session {
        id: i64::try_from(data.number).unwrap_or(i64::MAX),
        uid: data.uid.as_ref().map_or_else(String::new, |uid| uid.text().to_owned()),
        data: serde_json::Value::Object(settings).to_string().into(),
    };
    session.encode_to_vec()
}

/// The context that a backend demands of every request (docs/protocol/pitaya.md,
/// "Forwarding a client message", `metadata`).
fn push_metadata(
    config: &StationConfig,
    route: &str,
    now_us: u64,
    requests: u64,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&config.metadata_head);
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if route.bytes().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(route.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(serde_json::Value::from(route).to_string().as_bytes());
    }
    let started_ns = config.started_unix_ns.saturating_add(now_us.saturating_mul(1_000));
    // To write to memory can't fail.
    write!(out, ",\"req-start-time\":{started_ns},\"request.id\":\"").ok();
    push_digits(config.id_head, out);
    push_digits(requests, out);
    out.extend_from_slice(b"\"}");
}

/// Appends a number as half of a request's id.
fn push_digits(mut number: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let start = out.len();
    for _ in 0..REQUEST_ID_DIGITS / 2 {
        out.push(DIGITS[(number % 62) as usize]);
        number /= 62;
    }
    out[start..].reverse();
}

/// A duration as Go writes it.
fn go_duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
