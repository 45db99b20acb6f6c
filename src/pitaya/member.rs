//! The state of one frontend in its cluster: every server, every request, every user.
//!
//! It does no I/O and reads no clock. Its shell, in this order and over again:
//!
//! 1. [`Member::begin_turn`] with the time;
//! 2. [`Member::handle_connected`], [`Member::handle_lost`], [`Member::handle_servers`] and
//!    the other `handle_` methods for what NATS and etcd have brought, behind
//!    [`Member::advance`] where the turn began some time ago;
//! 3. [`Member::run`], which reads mail and lets deadlines pass;
//! 4. [`Member::poll_command`] as long as NATS takes what it gives, and [`Member::poll_bell`]
//!    until it gives nothing more;
//! 5. it waits for the next event, for no longer than [`Member::next_deadline_us`] allows.
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

use super::cluster::{PitayaCluster, PitayaLimits};
use super::messages::Session;
use super::remotes::{Asked, User};
use super::servers::{Change, Random, Servers};
use super::window::{Sent, Waiter};
use crate::forward::deadline_list::DeadlineList;
use crate::forward::remote::{Received, Remote};
use crate::forward::{Chunk, Party, Route};
use crate::metrics::Counters;
use crate::route::table::RouteTable;
use crate::session::{SessionData, Table, place_of};

/// The token of a question to shards among those that wait, if anybody waits.
pub(crate) type Caller = Option<u64>;

/// Everything that a frontend knows of its cluster.
pub(crate) struct Member {
    pub(super) config: MemberConfig,
    pub(super) remote: Remote<Caller, Bytes>,
    pub(super) servers: Servers,
    /// Who waits for an answer, since when the message has come.
    pub(super) calls: DeadlineList<Waiter>,
    /// Messages in servers' windows, since when they were sent.
    pub(super) sent: DeadlineList<Sent>,
    /// Those of the latter whose caller does not wait any more.
    pub(super) orphans: usize,
    /// Bytes of clients' messages that wait or are under way.
    pub(super) bytes: usize,
    /// Set while something waits only as long as too much is to be sent.
    pub(super) is_starved: bool,
    /// Remotes of backends that shards have not answered.
    pub(super) asked: Table<Asked>,
    /// Who is logged in here, by uid.
    pub(super) users: FxHashMap<Arc<str>, User>,
    /// The sessions of all users, by number.
    pub(super) bound: FxHashSet<u64>,
    pub(super) commands: VecDeque<Next>,
    /// Set while the shell listens to other users than [`Self::users`].
    is_stale: bool,
    pub(super) is_connected: bool,
    pub(super) now_us: u64,
    pub(super) requests: u64,
    pub(super) metadata: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// Memory that messages to servers are carved from.
    pub(super) chunk: Chunk,
}

/// The settings of a member.
pub(crate) struct MemberConfig {
    pub(crate) frontend_id: Arc<str>,
    pub(crate) frontend_type: Arc<str>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: PitayaLimits,
    pub(crate) request_timeout_us: u64,
    /// The same as Go writes it.
    pub(super) request_timeout_text: String,
    /// The time that a server lives on in etcd's list without a word.
    lease_us: u64,
    pub(crate) unique_session: bool,
    /// Nanoseconds from 1970 to the engine's start.
    pub(crate) started_unix_ns: u64,
    /// The prefix of every answer's subject, which is this process's alone.
    pub(crate) inbox: String,
    /// The head of every request's metadata.
    metadata_head: Vec<u8>,
    /// The first half of every request's id.
    id_head: u64,
}

/// A command to the shell about NATS; they are done in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Send a message. If it can't be sent, [`Member::handle_unsent`] is told of `call`.
    Publish { subject: Subject, reply: Option<Subject>, payload: Bytes, call: Option<u64> },
    /// Listen to a user's pushes and kicks.
    Subscribe { uid: Arc<str> },
    /// Listen no more.
    Unsubscribe { uid: Arc<str> },
    /// Listen to none but those users that [`Member::has_user`] knows; those that are missing
    /// follow. What is said of one that is listened to already says nothing new.
    Review,
}

/// Something that waits for NATS to take it.
pub(super) enum Next {
    /// A client's message, by its place among what is [`Member::sent`].
    Sent(u64),
    Command(Command),
}

/// Characters of a request's id in the metadata, half of which count.
const REQUEST_ID_DIGITS: usize = 22;

impl MemberConfig {
    /// The part of a description that the member needs; it has been checked. `random` is any two
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
            request_timeout_text: timeout,
            lease_us: micros(cluster.heartbeat_ttl),
            unique_session: cluster.unique_session,
            started_unix_ns: started_unix_ms.saturating_mul(1_000_000),
            inbox: format!("_INBOX.{:016x}{:016x}.", random[0], random[1]),
            metadata_head: head.into_bytes(),
            id_head: random[0],
        }
    }
}

impl Member {
    pub(crate) fn new(
        config: MemberConfig,
        cluster: &PitayaCluster,
        routers: &[(String, Route)],
        remote: Remote<Caller, Bytes>,
    ) -> Self {
        let limits = &config.limits;
        let random = Random::new(config.id_head);
        Self {
            remote,
            servers: Servers::new(&cluster.server_types, routers, limits.servers_max, random),
            calls: DeadlineList::default(),
            sent: DeadlineList::default(),
            orphans: 0,
            bytes: 0,
            is_starved: false,
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
        self.advance(now_us);
        self.remote.begin_turn();
    }

    /// Tells the time, for what is handed in before the next turn.
    pub(crate) fn advance(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// There is a connection to NATS. What has waited for it is sent, behind what it takes to
    /// listen to all users.
    pub(crate) fn handle_connected(&mut self) {
        self.is_connected = true;
        if std::mem::take(&mut self.is_stale) {
            let waiting = std::mem::take(&mut self.commands);
            self.review();
            self.commands.extend(waiting);
        }
        self.pump_all();
    }

    /// There is another one in place of the one there was; all users are to be listened to there.
    pub(crate) fn handle_moved(&mut self) {
        self.is_stale = true;
        self.handle_connected();
    }

    /// Tells whether the shell listens to all users, and has nothing else to do.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_connected && !self.is_stale && self.commands.is_empty()
    }

    /// There is none any more. What is under way may be answered when there is one again, so it is
    /// left to its deadline, as by Pitaya: its handler runs, and would run twice for a client that
    /// were told to try again.
    pub(crate) fn handle_lost(&mut self) {
        self.is_connected = false;
        // Who is listened to is looked at anew.
        self.is_stale = true;
        let stays =
            |next: &Next| matches!(next, Next::Sent(_) | Next::Command(Command::Publish { .. }));
        self.commands.retain(stays);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The list of servers has changed.
    pub(crate) fn handle_servers(&mut self, change: Change) {
        let doubted_until_us = self.now_us.saturating_add(self.config.lease_us);
        let left = self.servers.apply(change, doubted_until_us);
        left.into_iter().for_each(|waiting| self.move_on(waiting));
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
        let left = self.servers.end_doubts(self.now_us);
        left.into_iter().for_each(|waiting| self.move_on(waiting));
        self.pass_deadlines();
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
        let command = Command::Publish { subject, reply: None, payload, call: None };
        self.commands.push_back(Next::Command(command));
    }

    /// Adds what follows from a user's coming or going. Where that is too much, all users are
    /// looked at once there is room.
    pub(super) fn command(&mut self, command: Command) {
        if self.is_connected && self.commands.len() < self.config.limits.queue_len_max {
            self.commands.push_back(Next::Command(command));
        } else {
            self.is_stale = true;
        }
    }

    /// The next command. One that could not be done is to be given back.
    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        if self.commands.is_empty() && self.is_connected && std::mem::take(&mut self.is_stale) {
            self.review();
        }
        loop {
            match self.commands.pop_front()? {
                // One that was given back, and has had no place in a window since.
                Next::Command(Command::Publish { call: Some(token), .. })
                    if self.sent.get(token).is_none() => {}
                Next::Command(command) => return Some(command),
                Next::Sent(token) => {
                    if let Some(command) = self.publish_sent(token) {
                        return Some(command);
                    }
                }
            }
        }
    }

    /// Has the shell listen to all users, and to nobody else.
    fn review(&mut self) {
        self.commands.push_back(Next::Command(Command::Review));
        let uids = self.users.keys().map(Arc::clone);
        self.commands.extend(uids.map(|uid| Next::Command(Command::Subscribe { uid })));
    }

    /// Tells whether anybody is logged in here by a uid.
    pub(crate) fn has_user(&self, uid: &str) -> bool {
        self.users.contains_key(uid)
    }

    /// Takes a command back that has to wait for NATS.
    pub(crate) fn give_back(&mut self, command: Command) {
        self.commands.push_front(Next::Command(command));
    }

    /// Tells whether anything waits for NATS to take it.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// A party that sleeps and has got mail: the shell wakes it.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.remote.poll_bell()
    }

    /// Tells whether mail has come that [`Self::run`] has not seen. To be asked again once the
    /// doorbell is armed.
    pub(crate) fn has_work(&self) -> bool {
        self.remote.has_work()
    }

    /// When the shell has to run again at the latest.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        let backlog = self.remote.backlog_retry_us(self.now_us);
        let deadlines = [
            self.calls.next_deadline_us(),
            self.sent.next_deadline_us(),
            self.servers.doubts_end_us(),
            backlog,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Takes out what backends have asked, once it is answered.
    pub(super) fn take_asked(&mut self, caller: Caller) -> Option<Asked> {
        let (slot, generation) = place_of(caller?);
        self.asked.get(slot, generation)?;
        self.asked.remove(slot)
    }
}

/// A session as servers are told of it. Its address is no setting here, but is one in Pitaya.
pub(super) fn export(data: &SessionData) -> Bytes {
    let mut settings = data.settings.clone();
    let ip_version = if data.peer.is_ipv4() { "ipv4" } else { "ipv6" };
    settings.entry("ipversion").or_insert_with(|| ip_version.into());
    let session = Session {
        id: i64::try_from(data.number).unwrap_or(i64::MAX),
        uid: data.uid.as_ref().map_or_else(String::new, |uid| uid.text().to_owned()),
        data: serde_json::Value::Object(settings).to_string().into(),
    };
    session.encode_to_vec().into()
}

/// The context that a backend demands of every request (docs/protocol/pitaya.md,
/// "Forwarding a client message", `metadata`).
pub(super) fn push_metadata(
    config: &MemberConfig,
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
