//! The messages between Pitaya's servers, in protobuf (docs/protocol/pitaya.md,
//! "Protobuf messages").
//!
//! Written by hand, so that no build needs `protoc`. A forwarded message, of which there are many,
//! is put together from parts that are encoded already; the others go through `prost`.

use std::collections::HashMap;

use bytes::Bytes;

/// Anything that is asked of a server.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    /// One of the [`rpc_type`]s.
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) session: Option<Session>,
    #[prost(message, optional, tag = "3")]
    pub(crate) msg: Option<Msg>,
    #[prost(string, tag = "4")]
    pub(crate) frontend_id: String,
    /// A JSON object.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) metadata: Bytes,
}

/// The kinds of a [`Request`].
pub(crate) mod rpc_type {
    /// From one server to another.
    pub(crate) const USER: i32 = 1;
}

/// The message in a [`Request`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Msg {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) route: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
    /// 0 for a request, 1 for a notify.
    #[prost(int32, tag = "5")]
    pub(crate) kind: i32,
}

/// A session, as servers tell each other of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Session {
    #[prost(int64, tag = "1")]
    pub(crate) id: i64,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    /// A JSON object.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) data: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<Error>,
}

/// An error.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Error {
    #[prost(string, tag = "1")]
    pub(crate) code: String,
    #[prost(string, tag = "2")]
    pub(crate) msg: String,
    #[prost(map = "string, string", tag = "3")]
    pub(crate) metadata: HashMap<String, String>,
}

/// A push to a user, on the user's subject.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Push {
    #[prost(string, tag = "1")]
    pub(crate) route: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
}

/// A kick, on the user's subject or as `sys.kick`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KickMsg {
    #[prost(string, tag = "1")]
    pub(crate) user_id: String,
}

/// The answer to `sys.kick`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KickAnswer {
    #[prost(bool, tag = "1")]
    pub(crate) kicked: bool,
}

/// A user has logged in at a frontend.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BindMsg {
    #[prost(string, tag = "1")]
    pub(crate) uid: String,
    /// The frontend's id.
    #[prost(string, tag = "2")]
    pub(crate) fid: String,
}

/// A client's message on its way to a server.
pub(super) struct ClientMessage<'a> {
    /// A [`Session`], encoded.
    pub(super) session: &'a [u8],
    /// The client's request id; 0 for a notify.
    pub(super) id: u32,
    pub(super) route: &'a str,
    pub(super) body: &'a [u8],
    pub(super) frontend_id: &'a str,
    pub(super) metadata: &'a [u8],
}

/// The keys of the fields that [`ClientMessage`] writes: number and wire type.
mod key {
    pub(super) const REQUEST_SESSION: u8 = 2 << 3 | 2;
    pub(super) const REQUEST_MSG: u8 = 3 << 3 | 2;
    pub(super) const REQUEST_FRONTEND_ID: u8 = 4 << 3 | 2;
    pub(super) const REQUEST_METADATA: u8 = 5 << 3 | 2;
    pub(super) const MSG_ID: u8 = 1 << 3;
    pub(super) const MSG_ROUTE: u8 = 2 << 3 | 2;
    pub(super) const MSG_DATA: u8 = 3 << 3 | 2;
    pub(super) const MSG_TYPE: u8 = 5 << 3;
}

/// `Msg.type` of a notify.
const NOTIFY: u8 = 1;

impl ClientMessage<'_> {
    /// Appends a [`Request`] of the type "a client's message", which is 0 and so left out.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        push_bytes(key::REQUEST_SESSION, self.session, out);
        let is_notify = self.id == 0;
        let id_len = if is_notify { 0 } else { 1 + varint_len(u64::from(self.id)) };
        let data_len = if self.body.is_empty() { 0 } else { bytes_len(self.body.len()) };
        let kind_len = if is_notify { 2 } else { 0 };
        out.push(key::REQUEST_MSG);
        push_varint((id_len + bytes_len(self.route.len()) + data_len + kind_len) as u64, out);
        if !is_notify {
            out.push(key::MSG_ID);
            push_varint(u64::from(self.id), out);
        }
        push_bytes(key::MSG_ROUTE, self.route.as_bytes(), out);
        if !self.body.is_empty() {
            push_bytes(key::MSG_DATA, self.body, out);
        }
        if is_notify {
            out.extend([key::MSG_TYPE, NOTIFY]);
        }
        push_bytes(key::REQUEST_FRONTEND_ID, self.frontend_id.as_bytes(), out);
        push_bytes(key::REQUEST_METADATA, self.metadata, out);
    }
}

/// The length of a field of bytes, its key and length included.
fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn varint_len(number: u64) -> usize {
    prost::encoding::encoded_len_varint(number)
}

fn push_varint(number: u64, out: &mut Vec<u8>) {
    prost::encoding::encode_varint(number, out);
}

fn push_bytes(key: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(key);
    push_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn session(data: &'static str) -> Session {
        Session { id: 1, uid: String::new(), data: Bytes::from_static(data.as_bytes()) }
    }

    /// The bytes that a frontend was seen to send (docs/protocol/pitaya.md, "Worked example").
    #[test]
    fn a_client_message_looks_as_seen() {
        let session = session("{\"ipversion\":\"ipv4\"}").encode_to_vec();
        let (route, frontend_id) = ("room.room.echo", "c");
        let message = ClientMessage {
            session: &session,
            id: 2,
            route,
            body: b"world",
            frontend_id,
            metadata: b"{}",
        };
        let mut out = Vec::new();
        message.encode(&mut out);
        let wanted = [
            b"\x12\x18\x08\x01\x1a\x14{\"ipversion\":\"ipv4\"}".as_slice(),
            b"\x1a\x19\x08\x02\x12\x0eroom.room.echo\x1a\x05world\x22\x01c\x2a\x02{}",
        ];
        assert_eq!(out, wanted.concat());
    }

    #[test]
    fn what_is_written_by_hand_is_read_back() {
        for (id, body) in [(0, "x".repeat(300)), (300, String::new()), (u32::MAX, "y".into())] {
            let session = session("{}");
            let message = ClientMessage {
                session: &session.encode_to_vec(),
                id,
                route: &"r".repeat(200),
                body: body.as_bytes(),
                frontend_id: "connector-1",
                metadata: b"{\"a\":1}",
            };
            let mut out = Vec::new();
            message.encode(&mut out);
            let wanted = Request {
                kind: 0,
                session: Some(session),
                msg: Some(Msg {
                    id: id.into(),
                    route: "r".repeat(200),
                    data: body.clone().into(),
                    kind: i32::from(id == 0),
                }),
                frontend_id: "connector-1".into(),
                metadata: Bytes::from_static(b"{\"a\":1}"),
            };
            assert_eq!(Request::decode(out.as_slice()), Ok(wanted.clone()));
            assert_eq!(out, wanted.encode_to_vec());
        }
    }

    #[test]
    fn answers_look_as_seen() {
        let ack = Response { data: Bytes::from_static(b"ack"), error: None };
        assert_eq!(ack.encode_to_vec(), b"\x0a\x03ack");
        assert_eq!(KickAnswer { kicked: true }.encode_to_vec(), b"\x08\x01");
        assert_eq!(Response::decode(&b"\x0a\x05world"[..]).unwrap().data, "world");
    }
}
