//! Clients' messages on their way to servers and back.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;

use super::commands::Command;
use super::failure::{Failure, error};
use super::messages::{ClientMessage, Response};
use super::servers::{Change, Servers};
use super::session_data::export;
use super::turn::Turn;
use super::window::{MESSAGE_BYTES, Message, Sent, ServerKey, Stage, Waiter, Waiting};
use crate::forward::Chunk;
use crate::forward::deadline_list::DeadlineList;
use crate::forward::mail::{Forward, WorkerBody, WorkerReply};
use crate::metrics::ForwardEnd;
use crate::session::SessionView;
use crate::span::SpanContext;

/// The status of a message that says that nobody has heard the request.
pub(crate) const NO_RESPONDERS: u16 = 503;

/// The messages that wait for servers, or are under way at them.
pub(super) struct Forwards {
    pub(super) servers: Servers,
    /// The callers that wait for an answer, since the message has come.
    calls: DeadlineList<Waiter>,
    /// Messages in servers' windows, since when they were sent.
    sent: DeadlineList<Sent>,
    /// Those of the latter whose caller does not wait any more.
    orphans: usize,
    /// Bytes of clients' messages that wait or are under way.
    bytes: usize,
    /// Set while something waits only as long as too much is to be sent.
    is_starved: bool,
    requests: u64,
    metadata: Vec<u8>,
    payload: Vec<u8>,
    /// Memory that messages to servers are carved from.
    chunk: Chunk,
}

impl Forwards {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            servers,
            calls: DeadlineList::default(),
            sent: DeadlineList::default(),
            orphans: 0,
            bytes: 0,
            is_starved: false,
            requests: 0,
            metadata: Vec::new(),
            payload: Vec::new(),
            chunk: Chunk::default(),
        }
    }

    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        let deadlines = [
            self.calls.next_deadline_us(),
            self.sent.next_deadline_us(),
            self.servers.doubts_end_us(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Bytes of clients' messages that wait or are under way.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if nothing is left of any message.
    #[cfg(test)]
    pub(super) fn has_nothing(&self) -> bool {
        (self.calls.len(), self.sent.len(), self.orphans, self.bytes) == (0, 0, 0, 0)
    }

    /// The servers of a type, and how many of them etcd has forgotten.
    pub(super) fn servers_known(&self, server_type: &str) -> (usize, usize) {
        self.servers.known(server_type)
    }

    /// A client's message for a server.
    pub(super) fn handle_forward(
        &mut self,
        turn: &mut Turn<'_>,
        forward: Forward,
        span: Option<Box<SpanContext>>,
    ) {
        let Forward { token, session, data, route, id, bytes } = forward;
        let export = turn.remote.export(session, &data, export).clone();
        let message = Message { session, data, export, route, id, bytes, span };
        if let Err(failure) = self.accept(turn, token, message) {
            count(turn, failure);
            let (body, end) = (WorkerBody::Bytes(failure.body()), failure.end());
            let reply = WorkerReply { body, end, data: None };
            turn.remote.answer(session.shard(), token, reply);
        }
    }

    fn accept(&mut self, turn: &mut Turn<'_>, token: u64, message: Message) -> Result<(), Failure> {
        // It can't be sent now, and nobody knows when it could.
        if !turn.commands.is_connected() {
            return Err(Failure::NoConnection);
        }
        let server_key = self.pick(turn, &message).ok_or(Failure::NoServer)?;
        let limits = &turn.config.limits;
        let is_full = self.calls.len() + self.orphans >= limits.calls_max
            || turn.commands.is_full()
            || self.bytes + message.bytes_counted() > limits.bytes_max;
        if is_full || !self.has_room_at(turn, server_key, &message) {
            return Err(Failure::Busy);
        }
        let server = self.servers.table.at(server_key.0).ok_or(Failure::NoServer)?;
        let (route, _) = message.parts(&turn.config.routes);
        let waiter = Waiter {
            shard: message.session.shard(),
            token,
            server_key,
            subject: server.subject.clone(),
            route: route.as_bytes().into(),
            stage: Stage::Waiting,
        };
        let deadline_us = turn.now_us + turn.config.request_timeout_us;
        let call = self.calls.add(waiter, deadline_us);
        self.put(turn, call, server_key, message);
        Ok(())
    }

    /// The server that a message goes to.
    fn pick(&mut self, turn: &mut Turn<'_>, message: &Message) -> Option<ServerKey> {
        let (route, _) = message.parts(&turn.config.routes);
        let server_type = route.split('.').next().unwrap_or_default();
        let view = SessionView { id: message.session, data: &message.data };
        let slot = self.servers.pick(server_type, &view, &turn.config.counters)?;
        Some((slot, self.servers.table.generation(slot)))
    }

    /// True if a server may have one message more, be it one that waits.
    fn has_room_at(&self, turn: &mut Turn<'_>, server_key: ServerKey, message: &Message) -> bool {
        let limits = &turn.config.limits;
        let Some(server) = self.servers.table.at(server_key.0) else { return false };
        let window = &server.window;
        window.len() < limits.calls_per_server_max
            && (window.is_open(limits.window)
                || window.queue_bytes() + message.bytes_counted() <= limits.queue_bytes_max)
    }

    /// Sends a message, or lets it wait for its server's window.
    fn put(&mut self, turn: &mut Turn<'_>, call: u64, server_key: ServerKey, mut message: Message) {
        let Some(server) = self.servers.table.at_mut(server_key.0) else { return };
        if server.window.is_open(turn.config.limits.window) {
            return self.send(turn, call, &message);
        }
        message.detach();
        self.bytes += message.bytes_counted();
        server.window.push(Waiting { call, message });
        turn.config.counters.cluster_waits.one();
    }

    /// Gives a message a place in its server's window, which has one.
    fn send(&mut self, turn: &mut Turn<'_>, call: u64, message: &Message) {
        let payload = self.encode(turn, message);
        let Some(waiter) = self.calls.get_mut(call) else { return };
        waiter.stage = Stage::Sent;
        let (server_key, subject) = (waiter.server_key, waiter.subject.clone());
        let call = match waiter.token {
            // Nobody waits for it any more, but its place is taken until it is acknowledged.
            0 => {
                self.calls.take(call);
                self.orphans += 1;
                0
            }
            _ => call,
        };
        let bytes = MESSAGE_BYTES + payload.len();
        let sent = Sent { server_key, subject, call, bytes, payload: Some(payload) };
        let deadline_us = turn.now_us + turn.config.request_timeout_us;
        // There are never more of these than calls and orphans, which are bounded by the same.
        let token = self.sent.add(sent, deadline_us);
        if let Some(server) = self.servers.table.at_mut(server_key.0) {
            server.window.under_way += 1;
        }
        self.bytes += bytes;
        turn.commands.push_sent(token);
    }

    /// Lays out a client's message.
    fn encode(&mut self, turn: &mut Turn<'_>, message: &Message) -> Bytes {
        self.requests += 1;
        let (route, body) = message.parts(&turn.config.routes);
        self.metadata.clear();
        let span = message.span.as_deref();
        turn.config.push_metadata(route, span, (turn.now_us, self.requests), &mut self.metadata);
        self.payload.clear();
        let message = ClientMessage {
            session: &message.export,
            id: message.id,
            route,
            body,
            frontend_id: &turn.config.frontend_id,
            metadata: &self.metadata,
        };
        message.encode(&mut self.payload);
        let payload = self.chunk.carve([&self.payload]);
        if self.payload.capacity() > SCRATCH_KEPT_BYTES {
            self.payload = Vec::new();
        }
        payload
    }

    /// Sends what waits for a server, as far as its window has room.
    pub(super) fn pump(&mut self, turn: &mut Turn<'_>, server_key: ServerKey) {
        loop {
            let limits = &turn.config.limits;
            let Some(server) = self.servers.table.get_mut(server_key.0, server_key.1) else {
                return;
            };
            if server.window.under_way >= limits.window || !turn.commands.is_connected() {
                return;
            }
            if turn.commands.is_full() {
                self.is_starved = true;
                return;
            }
            let Some(Waiting { call, message }) = server.window.pop() else { return };
            self.bytes -= message.bytes_counted();
            // One that has timed out behind others that had not.
            if self.calls.get(call).is_some() {
                self.send(turn, call, &message);
            }
        }
    }

    /// The same for all servers.
    pub(super) fn pump_all(&mut self, turn: &mut Turn<'_>) {
        for server_key in self.servers.keys() {
            self.pump(turn, server_key);
        }
    }

    /// The command that sends a message, unless that has timed out meanwhile.
    pub(super) fn publish_sent(&mut self, token: u64) -> Option<Command> {
        let sent = self.sent.get_mut(token)?;
        let (subject, payload) = (sent.subject.clone(), sent.payload.take()?);
        Some(Command::Publish { subject, payload, call: Some(token) })
    }

    /// The list of servers has changed.
    pub(super) fn handle_servers(&mut self, turn: &mut Turn<'_>, change: Change) {
        let doubted_until_us = turn.now_us.saturating_add(turn.config.lease_us);
        let left = self.servers.apply(change, doubted_until_us);
        left.into_iter().for_each(|waiting| self.move_on(turn, waiting));
    }

    /// An answer has come, on one of the subjects of the inbox.
    pub(super) fn handle_answer(
        &mut self,
        turn: &mut Turn<'_>,
        subject: &str,
        status: Option<u16>,
        payload: Bytes,
    ) {
        let token = subject.strip_prefix(&*turn.config.inbox);
        let token = token.and_then(|token| u64::from_str_radix(token, 16).ok());
        let Some(sent) = token.and_then(|token| self.sent.take(token)) else { return };
        let waiter = self.release(&sent);
        if status == Some(NO_RESPONDERS) {
            count_lost(turn);
            if let Some(waiter) = waiter {
                fail(turn, waiter, Failure::NoResponders);
            }
            // Whoever is in the list for old times' sake alone is not called again.
            let waiting = self.servers.handle_unheard(sent.server_key);
            waiting.into_iter().for_each(|waiting| self.move_on(turn, waiting));
        } else if let Some(waiter) = waiter {
            match Response::decode(payload) {
                Ok(Response { error: None, data }) => {
                    finish(turn, waiter, Some(data), ForwardEnd::Answered);
                }
                Ok(Response { error: Some(error), .. }) => {
                    finish(turn, waiter, Some(error.into_body()), ForwardEnd::Failed);
                }
                Err(_) => {
                    turn.config.counters.cluster_bad_packets.one();
                    fail(turn, waiter, Failure::BadAnswer);
                }
            }
        }
        self.pump(turn, sent.server_key);
    }

    /// A message could not be sent, as it is too long.
    pub(super) fn handle_unsent(&mut self, turn: &mut Turn<'_>, call: u64) {
        let Some(sent) = self.sent.take(call) else { return };
        turn.config.counters.forward_rejects.one();
        crate::log::seldom!(warn, "a message is too long for NATS; it was refused");
        if let Some(waiter) = self.release(&sent) {
            fail(turn, waiter, Failure::TooLong);
        }
        self.pump(turn, sent.server_key);
    }

    /// Gives a place in a window back; who waits for the answer, if anybody still does.
    fn release(&mut self, sent: &Sent) -> Option<Waiter> {
        // The server may have gone, and another one may be in its place.
        if let Some(server) = self.servers.table.get_mut(sent.server_key.0, sent.server_key.1) {
            server.window.under_way -= 1;
        }
        self.bytes -= sent.bytes;
        let waiter = self.calls.take(sent.call);
        self.orphans -= usize::from(waiter.is_none());
        waiter
    }

    /// Lets deadlines pass: behind those of servers first those of the callers, of whom some wait
    /// for a window.
    pub(super) fn pass_deadlines(&mut self, turn: &mut Turn<'_>) {
        let left = self.servers.end_doubts(turn.now_us);
        left.into_iter().for_each(|waiting| self.move_on(turn, waiting));
        while let Some(waiter) = self.calls.take_due(turn.now_us) {
            count_timeout(turn);
            match waiter.stage {
                Stage::Sent => self.orphans += 1,
                Stage::Waiting => self.drop_dead(waiter.server_key),
            }
            fail(turn, waiter, Failure::Timeout);
        }
        // A server that has not answered for that long has lost the message, most likely.
        while let Some(sent) = self.sent.take_due(turn.now_us) {
            if sent.call == 0 {
                count_timeout(turn);
            }
            self.release(&sent);
            self.pump(turn, sent.server_key);
        }
        if std::mem::take(&mut self.is_starved) {
            self.pump_all(turn);
        }
    }

    /// Drops what has timed out at the front of a server's queue.
    fn drop_dead(&mut self, server_key: ServerKey) {
        let Some(server) = self.servers.table.get_mut(server_key.0, server_key.1) else { return };
        while let Some(first) = server.window.first()
            && self.calls.get(first.call).is_none()
            && let Some(dead) = server.window.pop()
        {
            self.bytes -= dead.message.bytes_counted();
        }
    }

    /// A message's server has gone before it was sent: it goes to another one.
    pub(super) fn move_on(&mut self, turn: &mut Turn<'_>, waiting: Waiting) {
        let Waiting { call, message } = waiting;
        self.bytes -= message.bytes_counted();
        if self.calls.get(call).is_none() {
            return;
        }
        let picked = self.pick(turn, &message).ok_or(Failure::NoServer);
        let placed = picked.and_then(|server_key| {
            if !self.has_room_at(turn, server_key, &message) {
                return Err(Failure::Busy);
            }
            let server = self.servers.table.at(server_key.0).ok_or(Failure::NoServer)?;
            if let Some(waiter) = self.calls.get_mut(call) {
                (waiter.server_key, waiter.subject) = (server_key, server.subject.clone());
            }
            Ok(server_key)
        });
        match placed {
            Ok(server_key) => self.put(turn, call, server_key, message),
            Err(failure) => {
                count(turn, failure);
                if let Some(waiter) = self.calls.take(call) {
                    fail(turn, waiter, failure);
                }
            }
        }
    }
}

fn count(turn: &Turn<'_>, failure: Failure) {
    match failure {
        Failure::Busy => {
            turn.config.counters.forward_rejects.one();
            crate::log::seldom!(
                warn,
                "too much waits for a server of the cluster; messages are refused"
            );
        }
        _ => count_lost(turn),
    }
}

fn count_lost(turn: &Turn<'_>) {
    turn.config.counters.forward_lost.one();
    crate::log::seldom!(warn, "a message has found no server of the cluster");
}

fn count_timeout(turn: &Turn<'_>) {
    turn.config.counters.forward_timeouts.one();
    crate::log::seldom!(warn, "a server of the cluster has not answered in time");
}

fn fail(turn: &mut Turn<'_>, waiter: Waiter, failure: Failure) {
    let body = match failure {
        Failure::Timeout => timeout_of(turn, &waiter),
        failure => failure.body(),
    };
    finish(turn, waiter, Some(body), failure.end());
}

/// The error of a timeout, as Pitaya's frontends tell it: whose it was, and how long they
/// have waited (docs/protocol/pitaya.md, "Error codes").
fn timeout_of(turn: &Turn<'_>, waiter: &Waiter) -> Bytes {
    let peer = waiter.subject.rsplit('/').next().unwrap_or_default();
    let route = String::from_utf8_lossy(&waiter.route);
    let members = [
        ("timeout", &*turn.config.request_timeout_text),
        ("route", &*route),
        ("server", &*turn.config.frontend_id),
        ("peer.id", peer),
    ];
    let members = members.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (code, msg) = Failure::Timeout.parts();
    let error = super::messages::Error { metadata: HashMap::from(members), ..error(code, msg) };
    error.into_body()
}

fn finish(turn: &mut Turn<'_>, waiter: Waiter, body: Option<Bytes>, end: ForwardEnd) {
    let reply = WorkerReply { body: body.into(), end, data: None };
    turn.remote.answer(waiter.shard, waiter.token, reply);
}

/// Memory for a message that is laid out; more is given back.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;
