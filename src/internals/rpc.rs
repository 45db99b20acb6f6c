//! The packets of Pomelo's RPC by themselves: frames, calls and answers.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::pomelo::mqtt;
use crate::pomelo::rpc::{self, Message, RemoteName};

/// A packet as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // The codec knows no other.
pub enum Packet {
    /// A peer's first.
    Connect,
    /// The answer to it; 0 is a yes.
    ConnAck(u8),
    /// A payload, and what it is of.
    Publish {
        /// Any bytes.
        topic: Vec<u8>,
        /// Any bytes.
        payload: Vec<u8>,
    },
    /// A question whether one is there.
    PingReq,
    /// The answer to it.
    PingResp,
    /// A peer's last.
    Disconnect,
    /// Of a type that nobody looks at.
    Other,
}

impl From<mqtt::Packet<'_>> for Packet {
    fn from(packet: mqtt::Packet<'_>) -> Self {
        match packet {
            mqtt::Packet::Connect => Self::Connect,
            mqtt::Packet::ConnAck { code } => Self::ConnAck(code),
            mqtt::Packet::Publish { topic, payload } => {
                Self::Publish { topic: topic.to_vec(), payload: payload.to_vec() }
            }
            mqtt::Packet::PingReq => Self::PingReq,
            mqtt::Packet::PingResp => Self::PingResp,
            mqtt::Packet::Disconnect => Self::Disconnect,
            mqtt::Packet::Other => Self::Other,
        }
    }
}

/// The element at the start of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // As `Packet`.
pub enum First {
    /// A packet, and its length.
    Packet(Packet, usize),
    /// The start of one; how many bytes it takes to tell more.
    Partial(usize),
    /// No packet, and why.
    Bad(String),
}

/// Reads the packet that `input` starts with.
#[must_use]
pub fn first(input: &[u8], bytes_max: usize) -> First {
    match mqtt::decode(input, bytes_max) {
        Ok(mqtt::Decoded::Packet(packet, len)) => First::Packet(packet.into(), len),
        Ok(mqtt::Decoded::Partial { needed }) => First::Partial(needed),
        Err(error) => First::Bad(error.to_string()),
    }
}

/// Puts packets together from pieces.
#[derive(Debug)]
pub struct Reader {
    reader: mqtt::Reader,
    bytes_max: usize,
}

impl Reader {
    /// A reader of packets of `bytes_max` bytes at most.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { reader: mqtt::Reader::default(), bytes_max }
    }

    /// Takes a piece, and appends the packets that it completes.
    ///
    /// # Errors
    /// Says why the bytes are no packets; what came before them has been appended.
    pub fn read(&mut self, piece: &[u8], packets: &mut Vec<Packet>) -> Result<(), String> {
        self.reader
            .read(piece, self.bytes_max, |packet| packets.push(packet.into()))
            .map_err(|error| error.to_string())
    }

    /// Bytes that wait for the rest of their packet.
    #[must_use]
    pub fn partial_len(&self) -> usize {
        self.reader.partial_len()
    }
}

/// Appends a PUBLISH of some payload.
pub fn publish(topic: &str, payload: &[u8], out: &mut Vec<u8>) {
    mqtt::encode_publish(topic, out, |out| out.extend_from_slice(payload));
}

/// An answer to a call of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // As `Packet`.
pub struct Answer {
    /// Which call it answers.
    pub id: u64,
    /// True if it says that the call failed.
    pub failed: bool,
    /// The JSON that it carries.
    pub body: Option<String>,
}

/// The answers in a payload, and how much in it is none.
#[must_use]
pub fn answers(payload: &[u8]) -> (Vec<Answer>, usize) {
    let mut answers = Vec::new();
    let bad = rpc::decode_answers(payload, |rpc::Answer { id, failed, body }| {
        answers.push(Answer { id, failed, body: body.map(str::to_owned) });
    });
    (answers, bad)
}

/// Appends an answer whose arguments are JSON, one after another with commas between them.
pub fn answer(id: Option<u64>, arguments: &str, out: &mut Vec<u8>) {
    rpc::encode_answer(id, out, |out| out.extend_from_slice(arguments.as_bytes()));
}

/// A call of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // As `Packet`.
pub struct Call {
    /// `sys` or `user`.
    pub namespace: String,
    /// The remote's object.
    pub service: String,
    /// The remote's method.
    pub method: String,
    /// JSON.
    pub arguments: Vec<String>,
}

/// The calls in a payload, each with the caller's id; nothing for what is no call.
#[must_use]
pub fn calls(payload: &[u8]) -> Vec<(Option<u64>, Option<Call>)> {
    let mut calls = Vec::new();
    rpc::decode_requests(payload, |request| {
        let call = request.call.ok().map(|call| Call {
            namespace: call.namespace.into_owned(),
            service: call.service.into_owned(),
            method: call.method.into_owned(),
            arguments: call.args.into_iter().map(RawValue::get).map(str::to_owned).collect(),
        });
        calls.push((request.id, call));
    });
    calls
}

/// Appends the call of a remote of the game's; `false` if it has no name that can be called.
pub fn user_call(id: u64, name: &str, arguments: &[Value], out: &mut Vec<u8>) -> bool {
    let Some(remote) = RemoteName::parse(name) else { return false };
    rpc::encode_user_call(id, &remote, arguments, out);
    true
}

/// Appends the call that forwards a client's message to a server of the type `chat`; `session` is
/// JSON.
#[must_use]
pub fn forward(id: u64, message_id: u32, route: &str, body: &[u8], session: &str) -> Vec<u8> {
    let message = Message { id: message_id, route, body, span: None };
    let mut out = Vec::new();
    rpc::encode_forward(id, "chat", &message, session.as_bytes(), &mut out);
    out
}

/// A client's body as a forwarded message carries it: one JSON value.
#[must_use]
pub fn spliced(body: &[u8]) -> Vec<u8> {
    rpc::spliced(body).into_owned()
}

/// The deepest nesting of that value.
pub const DEPTH_MAX: usize = rpc::DEPTH_MAX;
