//! Clients' messages on their way to servers and back.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;

use super::failure::{Failure, error};
use super::member::{Command, Member, Next, export, push_metadata};
use super::messages::{ClientMessage, Response};
use super::window::{MESSAGE_BYTES, Message, Place, Sent, Stage, Waiter, Waiting};
use crate::forward::mail::{Forward, WorkerReply};
use crate::session::SessionView;

/// The status of a message that says that nobody has heard the request.
pub(crate) const NO_RESPONDERS: u16 = 503;

impl Member {
    /// A client's message for a server.
    pub(super) fn handle_forward(&mut self, forward: Forward) {
        let Forward { token, session, data, route, id, bytes } = forward;
        let export = self.remote.export(session, &data, export).clone();
        let message = Message { session, data, export, route, id, bytes };
        if let Err(failure) = self.accept(token, message) {
            self.count(failure);
            let reply = WorkerReply { body: Some(failure.body()), failed: true, data: None };
            self.remote.answer(session.shard(), token, reply);
        }
    }

    fn count(&self, failure: Failure) {
        match failure {
            Failure::Busy => self.config.counters.forward_rejects.one(),
            _ => self.config.counters.forward_lost.one(),
        }
    }

    fn accept(&mut self, token: u64, message: Message) -> Result<(), Failure> {
        // It can't be sent now, and nobody knows when it could.
        if !self.is_connected {
            return Err(Failure::NoConnection);
        }
        let place = self.pick(&message).ok_or(Failure::NoServer)?;
        let limits = &self.config.limits;
        let is_full = self.calls.len() + self.orphans >= limits.calls_max
            || self.commands.len() >= limits.queue_len_max
            || self.bytes + message.bytes_counted() > limits.bytes_max;
        if is_full || !self.has_room_at(place, &message) {
            return Err(Failure::Busy);
        }
        let server = self.servers.table.at(place.0).ok_or(Failure::NoServer)?;
        let (route, _) = message.parts(&self.config.routes);
        let waiter = Waiter {
            shard: message.session.shard(),
            token,
            place,
            subject: server.subject.clone(),
            route: route.as_bytes().into(),
            stage: Stage::Waiting,
        };
        let deadline_us = self.now_us + self.config.request_timeout_us;
        let call = self.calls.add(waiter, deadline_us);
        self.put(call, place, message);
        Ok(())
    }

    /// The server that a message goes to.
    fn pick(&mut self, message: &Message) -> Option<Place> {
        let (route, _) = message.parts(&self.config.routes);
        let server_type = route.split('.').next().unwrap_or_default();
        let view = SessionView { id: message.session, data: &message.data };
        let slot = self.servers.pick(server_type, &view)?;
        Some((slot, self.servers.table.generation(slot)))
    }

    /// Tells whether a server may have one message more, be it one that waits.
    fn has_room_at(&self, place: Place, message: &Message) -> bool {
        let limits = &self.config.limits;
        let Some(server) = self.servers.table.at(place.0) else { return false };
        let window = &server.window;
        window.len() < limits.calls_per_server_max
            && (window.is_open(limits.window)
                || window.queue_bytes() + message.bytes_counted() <= limits.queue_bytes_max)
    }

    /// Sends a message, or lets it wait for its server's window.
    fn put(&mut self, call: u64, place: Place, mut message: Message) {
        let Some(server) = self.servers.table.at_mut(place.0) else { return };
        if server.window.is_open(self.config.limits.window) {
            return self.send(call, &message);
        }
        message.detach();
        self.bytes += message.bytes_counted();
        server.window.push(Waiting { call, message });
        self.config.counters.cluster_waits.one();
    }

    /// Gives a message a place in its server's window, which has one.
    fn send(&mut self, call: u64, message: &Message) {
        let payload = self.encode(message);
        let Some(waiter) = self.calls.get_mut(call) else { return };
        waiter.stage = Stage::Sent;
        let (place, subject) = (waiter.place, waiter.subject.clone());
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
        let sent = Sent { place, subject, call, bytes, payload: Some(payload) };
        let deadline_us = self.now_us + self.config.request_timeout_us;
        // There are never more of these than calls and orphans, which are bounded by the same.
        let token = self.sent.add(sent, deadline_us);
        if let Some(server) = self.servers.table.at_mut(place.0) {
            server.window.under_way += 1;
        }
        self.bytes += bytes;
        self.commands.push_back(Next::Sent(token));
    }

    /// Lays out a client's message.
    fn encode(&mut self, message: &Message) -> Bytes {
        self.requests += 1;
        let (route, body) = message.parts(&self.config.routes);
        self.metadata.clear();
        push_metadata(&self.config, route, self.now_us, self.requests, &mut self.metadata);
        self.payload.clear();
        let message = ClientMessage {
            session: &message.export,
            id: message.id,
            route,
            body,
            frontend_id: &self.config.frontend_id,
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
    pub(super) fn pump(&mut self, place: Place) {
        loop {
            let limits = &self.config.limits;
            let Some(server) = self.servers.table.get_mut(place.0, place.1) else { return };
            if server.window.under_way >= limits.window || !self.is_connected {
                return;
            }
            if self.commands.len() >= limits.queue_len_max {
                self.is_starved = true;
                return;
            }
            let Some(Waiting { call, message }) = server.window.pop() else { return };
            self.bytes -= message.bytes_counted();
            // One that has timed out behind others that had not.
            if self.calls.get(call).is_some() {
                self.send(call, &message);
            }
        }
    }

    /// The same for all servers.
    pub(super) fn pump_all(&mut self) {
        for place in self.servers.places() {
            self.pump(place);
        }
    }

    /// The command that sends a message, unless that has timed out meanwhile.
    pub(super) fn publish_sent(&mut self, token: u64) -> Option<Command> {
        let sent = self.sent.get_mut(token)?;
        let (subject, payload) = (sent.subject.clone(), sent.payload.take()?);
        let reply = Some(format!("{}{token:x}", self.config.inbox).into());
        Some(Command::Publish { subject, reply, payload, call: Some(token) })
    }

    /// An answer has come, on one of the subjects of [`Self::inbox`].
    pub(crate) fn handle_answer(&mut self, subject: &str, status: Option<u16>, payload: Bytes) {
        let token = subject.strip_prefix(&*self.config.inbox);
        let token = token.and_then(|token| u64::from_str_radix(token, 16).ok());
        let Some(sent) = token.and_then(|token| self.sent.take(token)) else { return };
        let waiter = self.release(&sent);
        if status == Some(NO_RESPONDERS) {
            self.config.counters.forward_lost.one();
            if let Some(waiter) = waiter {
                self.fail(waiter, Failure::NoResponders);
            }
            // Whoever is in the list for old times' sake alone is not called again.
            let waiting = self.servers.handle_unheard(sent.place);
            waiting.into_iter().for_each(|waiting| self.move_on(waiting));
        } else if let Some(waiter) = waiter {
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
        self.pump(sent.place);
    }

    /// A message could not be sent, as it is too long.
    pub(crate) fn handle_unsent(&mut self, call: u64) {
        let Some(sent) = self.sent.take(call) else { return };
        self.config.counters.forward_rejects.one();
        if let Some(waiter) = self.release(&sent) {
            self.fail(waiter, Failure::TooLong);
        }
        self.pump(sent.place);
    }

    /// Gives a place in a window back; who waits for the answer, if anybody still does.
    fn release(&mut self, sent: &Sent) -> Option<Waiter> {
        // The server may have gone, and another one may be in its place.
        if let Some(server) = self.servers.table.get_mut(sent.place.0, sent.place.1) {
            server.window.under_way -= 1;
        }
        self.bytes -= sent.bytes;
        let waiter = self.calls.take(sent.call);
        self.orphans -= usize::from(waiter.is_none());
        waiter
    }

    /// Lets deadlines pass: first those of the callers, of whom some wait for a window.
    pub(super) fn pass_deadlines(&mut self) {
        while let Some(waiter) = self.calls.take_due(self.now_us) {
            self.config.counters.forward_timeouts.one();
            match waiter.stage {
                Stage::Sent => self.orphans += 1,
                Stage::Waiting => self.drop_dead(waiter.place),
            }
            self.fail(waiter, Failure::Timeout);
        }
        // A server that has not answered for that long has lost the message, most likely.
        while let Some(sent) = self.sent.take_due(self.now_us) {
            if sent.call == 0 {
                self.config.counters.forward_timeouts.one();
            }
            self.release(&sent);
            self.pump(sent.place);
        }
        if std::mem::take(&mut self.is_starved) {
            self.pump_all();
        }
    }

    /// Drops what has timed out at the front of a server's queue.
    fn drop_dead(&mut self, place: Place) {
        let Some(server) = self.servers.table.get_mut(place.0, place.1) else { return };
        while let Some(first) = server.window.first()
            && self.calls.get(first.call).is_none()
            && let Some(dead) = server.window.pop()
        {
            self.bytes -= dead.message.bytes_counted();
        }
    }

    /// A message's server has gone before it was sent: it goes to another one.
    pub(super) fn move_on(&mut self, waiting: Waiting) {
        let Waiting { call, message } = waiting;
        self.bytes -= message.bytes_counted();
        if self.calls.get(call).is_none() {
            return;
        }
        let picked = self.pick(&message).ok_or(Failure::NoServer);
        let placed = picked.and_then(|place| {
            if !self.has_room_at(place, &message) {
                return Err(Failure::Busy);
            }
            let server = self.servers.table.at(place.0).ok_or(Failure::NoServer)?;
            if let Some(waiter) = self.calls.get_mut(call) {
                (waiter.place, waiter.subject) = (place, server.subject.clone());
            }
            Ok(place)
        });
        match placed {
            Ok(place) => self.put(call, place, message),
            Err(failure) => {
                self.count(failure);
                if let Some(waiter) = self.calls.take(call) {
                    self.fail(waiter, failure);
                }
            }
        }
    }

    fn fail(&mut self, waiter: Waiter, failure: Failure) {
        let body = match failure {
            Failure::Timeout => self.timeout_of(&waiter),
            failure => failure.body(),
        };
        self.finish(waiter, Some(body), true);
    }

    /// The error of a timeout, as Pitaya's frontends tell it: whose it was, and how long they
    /// have waited (docs/protocol/pitaya.md, "Error codes").
    fn timeout_of(&self, waiter: &Waiter) -> Bytes {
        let peer = waiter.subject.rsplit('/').next().unwrap_or_default();
        let route = String::from_utf8_lossy(&waiter.route);
        let members = [
            ("timeout", &*self.config.request_timeout_text),
            ("route", &*route),
            ("server", &*self.config.frontend_id),
            ("peer.id", peer),
        ];
        let members = members.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let (code, msg) = Failure::Timeout.parts();
        let error = super::messages::Error { metadata: HashMap::from(members), ..error(code, msg) };
        error.into_body()
    }

    fn finish(&mut self, waiter: Waiter, body: Option<Bytes>, failed: bool) {
        let reply = WorkerReply { body, failed, data: None };
        self.remote.answer(waiter.shard, waiter.token, reply);
    }
}

/// Memory for a message that is laid out; more is given back.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;
