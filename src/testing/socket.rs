//! A connection of the kit's, both ends of it: what the core has been told, and what its client
//! makes of the bytes that come.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::push::Push;
use crate::session::SessionId;
use crate::simulated::Sending;
use crate::wire::handshake::CODE_OK;
use crate::wire::message::{self, Message, MessageType, RouteRef};
use crate::wire::package::{self, PackageType, Status};
use crate::wire::protobuf::ProtoTable;

/// One connection.
pub(super) struct Socket {
    pub(super) shard: u16,
    pub(super) peer: SocketAddr,
    pub(super) session: Option<SessionId>,
    /// Bytes on their way to the core.
    pub(super) pipe: Vec<u8>,
    /// Bytes that the client has read, of which the core has not heard yet.
    pub(super) sending: Option<Sending>,
    pub(super) is_paused: bool,
    /// The core wants the socket closed.
    pub(super) is_closing: bool,
    /// The client has closed its writing side; the core may not have heard of that yet.
    pub(super) is_ended: bool,
    pub(super) is_end_told: bool,
    /// The server has closed the connection, or its side of it.
    pub(super) is_closed: bool,
    client: ClientState,
}

/// The state of the client itself.
#[derive(Default)]
struct ClientState {
    inbox: Vec<u8>,
    handshake: Option<Value>,
    last_id: u32,
    /// The routes of requests that wait for their answers.
    asked: BTreeMap<u32, String>,
    answers: BTreeMap<u32, Vec<u8>>,
    pushes: VecDeque<Push>,
    kick: Option<String>,
    beats: Option<Beats>,
}

/// The heartbeats that a client sends.
#[derive(Clone, Copy)]
struct Beats {
    interval_us: u64,
    next_us: u64,
}

/// The interval of heartbeats where the server asks for none: it closes those who say nothing.
const BEATS: Duration = Duration::from_secs(30);

impl Socket {
    pub(super) fn new(shard: u16, peer: SocketAddr) -> Self {
        Self {
            shard,
            peer,
            session: None,
            pipe: Vec::new(),
            sending: None,
            is_paused: false,
            is_closing: false,
            is_ended: false,
            is_end_told: false,
            is_closed: false,
            client: ClientState::default(),
        }
    }

    /// True if there is something that the core has yet to be told.
    pub(super) fn has_news(&self) -> bool {
        self.session.is_none()
            || self.sending.is_some()
            || self.is_closing
            || (!self.pipe.is_empty() && !self.is_paused)
            || (self.has_to_tell_end())
    }

    /// True if the client has ended its stream, and the core has read all that was before.
    pub(super) fn has_to_tell_end(&self) -> bool {
        self.is_ended && !self.is_end_told && self.pipe.is_empty()
    }

    fn send(&mut self, kind: PackageType, body: &[u8]) {
        if !self.is_ended {
            package::encode(kind, body, &mut self.pipe)
                .unwrap_or_else(|error| panic!("a client can't send a package: {error}"));
        }
    }

    pub(super) fn send_handshake(&mut self, sys: &Value, user: &Value) {
        let body = json!({ "sys": sys, "user": user }).to_string();
        self.send(PackageType::Handshake, body.as_bytes());
    }

    /// Sends a message; the id of a request.
    pub(super) fn send_message(
        &mut self,
        kind: MessageType,
        route: &str,
        body: &[u8],
        protos: Option<&ProtoTable>,
    ) -> u32 {
        let schema = protos.and_then(|protos| protos.client().schema(route));
        let mut binary = Vec::new();
        let body = match schema {
            None => body,
            Some(schema) => {
                schema.encode_json_text(body, &mut binary).unwrap_or_else(|error| {
                    panic!("the body for `{route}` does not fit its schema: {error}")
                });
                &binary
            }
        };
        let id = match kind {
            MessageType::Request => self.client.ask(route),
            _ => 0,
        };
        let route = match self.client.code(route) {
            Some(code) => RouteRef::Code(code),
            None => RouteRef::Text(route.as_bytes()),
        };
        let message = Message { id, kind, route: Some(route), body, gzip: false };
        let mut data = Vec::new();
        message::encode(&message, &mut data)
            .unwrap_or_else(|error| panic!("a client can't send this message: {error}"));
        self.send(PackageType::Data, &data);
        id
    }

    /// Reads what the server has sent at a time.
    pub(super) fn read(&mut self, bytes: &[u8], now_us: u64, protos: Option<&ProtoTable>) {
        let mut inbox = std::mem::take(&mut self.client.inbox);
        inbox.extend_from_slice(bytes);
        let mut at = 0;
        while let Status::Complete { value, consumed } =
            package::decode(&inbox[at..], package::BODY_BYTES_MAX)
                .expect("the server sends packages")
        {
            at += consumed;
            match value.kind {
                PackageType::Handshake => self.read_handshake(value.body, now_us),
                PackageType::Data => self.client.read_message(value.body, protos),
                PackageType::Kick => self.client.read_kick(value.body),
                _ => {}
            }
        }
        inbox.drain(..at);
        self.client.inbox = inbox;
    }

    fn read_handshake(&mut self, body: &[u8], now_us: u64) {
        if self.client.read_handshake(body, now_us) {
            self.send(PackageType::HandshakeAck, b"");
        }
    }

    /// The way in which the connection has ended.
    pub(super) fn ending(&self) -> String {
        match self.kick() {
            Some(reason) => format!("the client has been kicked, with the reason \"{reason}\""),
            None if self.is_closed => "the client has been closed by the server".to_owned(),
            None => "the client has closed its connection".to_owned(),
        }
    }

    /// The server's answer to the handshake, once it is there.
    pub(super) fn handshake(&self) -> Option<&Value> {
        self.client.handshake.as_ref()
    }

    pub(super) fn take_pushes(&mut self) -> Vec<Push> {
        self.client.pushes.drain(..).collect()
    }

    pub(super) fn kick(&self) -> Option<&str> {
        self.client.kick.as_deref()
    }

    pub(super) fn has_answer(&self, id: u32) -> bool {
        self.client.answers.contains_key(&id)
    }

    pub(super) fn take_answer(&mut self, id: u32) -> Option<Vec<u8>> {
        self.client.answers.remove(&id)
    }

    /// The time of the next heartbeat.
    pub(super) fn next_beat_us(&self) -> Option<u64> {
        self.client.beats.filter(|_| !self.is_closed).map(|beats| beats.next_us)
    }

    /// Sends the heartbeat that is due.
    pub(super) fn beat(&mut self, now_us: u64) {
        if let Some(beats) = &mut self.client.beats
            && beats.next_us <= now_us
        {
            beats.next_us = now_us + beats.interval_us;
            self.send(PackageType::Heartbeat, b"");
        }
    }

    /// Sends no heartbeats from here on.
    pub(super) fn stop_beats(&mut self) {
        self.client.beats = None;
    }
}

impl ClientState {
    fn ask(&mut self, route: &str) -> u32 {
        self.last_id += 1;
        self.asked.insert(self.last_id, route.to_owned());
        self.last_id
    }

    /// The code of a route, by the dictionary of the handshake's answer.
    fn code(&self, route: &str) -> Option<u16> {
        let code = self.handshake.as_ref()?["sys"]["dict"].get(route)?.as_u64()?;
        u16::try_from(code).ok()
    }

    fn text(&self, route: RouteRef<'_>) -> String {
        match route {
            RouteRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            RouteRef::Code(code) => {
                let handshake = self.handshake.as_ref().expect("a push comes behind a handshake");
                let routes = handshake["sys"]["dict"].as_object().into_iter().flatten();
                let mut found = routes.filter(|(_, value)| value.as_u64() == Some(code.into()));
                found.next().expect("the server uses codes that it has told of").0.clone()
            }
        }
    }

    /// Takes the answer to the handshake; whether it is to be acknowledged.
    fn read_handshake(&mut self, body: &[u8], now_us: u64) -> bool {
        let answer: Value = serde_json::from_slice(body).expect("a handshake's answer is JSON");
        let is_accepted = answer["code"] == CODE_OK;
        if is_accepted {
            let asked = answer["sys"]["heartbeat"].as_f64().filter(|seconds| *seconds > 0.0);
            let interval = asked.map_or(BEATS, Duration::from_secs_f64);
            let interval_us = (interval.as_micros() as u64).max(1);
            self.beats = Some(Beats { interval_us, next_us: now_us + interval_us });
        }
        self.handshake = Some(answer);
        is_accepted
    }

    fn read_message(&mut self, data: &[u8], protos: Option<&ProtoTable>) {
        let message = message::decode(data).expect("the server sends messages");
        match message.kind {
            MessageType::Response => {
                let Some(route) = self.asked.remove(&message.id) else {
                    panic!("the server has answered request {} twice", message.id);
                };
                self.answers.insert(message.id, plain(&route, message.body, protos));
            }
            _ => {
                let route = self.text(message.route.expect("a push has a route"));
                let bytes = plain(&route, message.body, protos);
                self.pushes.push_back(Push::new(route, bytes));
            }
        }
    }

    fn read_kick(&mut self, body: &[u8]) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        self.kick = Some(body["reason"].as_str().unwrap_or_default().to_owned());
    }
}

/// A body of the server's as JSON where it has a schema, else as it came.
fn plain(route: &str, body: &[u8], protos: Option<&ProtoTable>) -> Vec<u8> {
    let schema = protos.and_then(|protos| protos.server().schema(route));
    let mut text = Vec::new();
    match schema.map(|schema| schema.decode_to_json(body, &mut text)) {
        Some(Ok(())) => text,
        _ => body.to_vec(),
    }
}
