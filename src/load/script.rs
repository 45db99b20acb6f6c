//! The messages that all connections send, and the answers they expect.

use super::flight::Span;
use super::{Check, LoadOptions, Mode, Transport};
use crate::wire::message::MessageType;
use crate::wire::package::{HEADER_BYTES, Header, PackageType};
use crate::wire::{answer, varint, websocket};

/// The messages that all connections send, and the answers they expect.
pub(super) struct Script {
    pub(super) transport: Transport,
    pub(super) check: Check,
    pub(super) body: Vec<u8>,
    pub(super) login: Option<String>,
    /// Requests in flight.
    pub(super) slots: u32,
    /// The number of ids; behind the last comes the first again.
    pub(super) ids: u32,
    /// Notifies in front of each request.
    notifies: u32,
    /// The route and the body, as they stand behind a message's flag and id.
    routed_body: Vec<u8>,
    tape: Option<Tape>,
}

/// The requests of all ids as they are sent, one behind the other, and their answers.
///
/// Behind the last id come the first again, as many as are in flight: what is sent at one time is
/// one piece, wherever it begins. So nothing is written for a request, nor read for an answer
/// but to compare it.
struct Tape {
    requests: Vec<u8>,
    request_bytes: usize,
    answers: Vec<u8>,
    answer_bytes: usize,
}

/// Ids of a session that has asked for some time: three bytes each.
const FIRST_ID: u32 = 1 << 14;
const IDS_MAX: u32 = (1 << 21) - FIRST_ID;
/// There are ids for twice as many requests as are in flight.
pub(super) const SLOTS_MAX: u32 = 1_000_000;
const _: () = assert!(2 * SLOTS_MAX <= IDS_MAX);
/// Bytes of a tape that the ids get, so that the cache next to the core holds it.
const TAPE_BYTES: usize = 32 * 1024;
/// The most that a tape may take; there is none where many large requests are in flight.
const TAPE_BYTES_MAX: usize = 1024 * 1024;
/// The first bytes of messages by a text route.
const REQUEST_FLAG: u8 = (MessageType::Request as u8) << 1;
const NOTIFY_FLAG: u8 = (MessageType::Notify as u8) << 1;
/// Frames of a client carry a mask. One of zeros leaves the payload as it is, for the client's
/// sake; the server has the same work with it as with any other.
const MASK: [u8; 4] = [0; 4];

impl Script {
    pub(super) fn new(options: &LoadOptions) -> Self {
        // A body as games have it: an object with a few members.
        let mut body = String::from("{\"msg\":\"");
        let room = options.body_bytes.saturating_sub(body.len() + 2);
        body.extend("the quick brown fox jumps over the lazy dog ".chars().cycle().take(room));
        body.push_str("\"}");
        let is_notify = options.mode == Mode::Notify;
        let mut script = Self {
            transport: options.transport,
            check: options.check,
            routed_body: routed(options.route.as_bytes(), body.as_bytes()),
            body: body.into_bytes(),
            login: options.login.clone(),
            slots: if is_notify { 1 } else { options.pipeline },
            notifies: if is_notify { options.pipeline } else { 0 },
            ids: IDS_MAX,
            tape: None,
        };
        script.make_tape();
        script
    }

    fn make_tape(&mut self) {
        let mut requests = Vec::new();
        self.write(Span { start: 0, count: 1 }, &mut requests);
        let request_bytes = requests.len();
        // Twice as many as are in flight, so that mostly many are free behind each other.
        let slots = self.slots as usize;
        let ids = (TAPE_BYTES / request_bytes).max(2 * slots);
        let count = ids + slots;
        if count.saturating_mul(request_bytes) > TAPE_BYTES_MAX {
            return;
        }
        self.ids = ids as u32;
        self.write(Span { start: 1, count: count as u32 - 1 }, &mut requests);
        let is_websocket = self.transport == Transport::WebSocket;
        let mut answers = Vec::new();
        for id_index in 0..count as u32 {
            answer::encode(is_websocket, self.id(id_index), &self.body, &mut answers);
        }
        let answer_bytes = answers.len() / count;
        self.tape = Some(Tape { requests, request_bytes, answers, answer_bytes });
    }

    /// Messages that one answer counts for.
    pub(super) fn messages_per_answer(&self) -> u64 {
        u64::from(self.notifies.max(1))
    }

    /// The index of an id among all.
    pub(super) fn id_index(&self, id: u32) -> Option<u32> {
        id.checked_sub(FIRST_ID).filter(|index| *index < self.ids)
    }

    fn id(&self, id_index: u32) -> u32 {
        FIRST_ID + id_index % self.ids
    }

    /// The requests of a span, if they are on the tape.
    pub(super) fn taped(&self, span: Span) -> Option<&[u8]> {
        let tape = self.tape.as_ref()?;
        piece(&tape.requests, tape.request_bytes, span)
    }

    /// The answers to a span's requests, as most servers write them, if they are known.
    pub(super) fn answers(&self, span: Span) -> Option<&[u8]> {
        let tape = self.tape.as_ref().filter(|_| self.check == Check::Echo)?;
        piece(&tape.answers, tape.answer_bytes, span)
    }

    /// Appends the requests of a span.
    pub(super) fn append(&self, span: Span, out: &mut Vec<u8>) {
        match self.taped(span) {
            Some(requests) => out.extend_from_slice(requests),
            None => self.write(span, out),
        }
    }

    fn write(&self, span: Span, out: &mut Vec<u8>) {
        for id_index in span.start..span.start + span.count {
            (0..self.notifies).for_each(|_| self.notify(out));
            self.request(self.id(id_index), &self.routed_body, out);
        }
    }

    fn frame(&self, len: usize, out: &mut Vec<u8>) {
        if self.transport == Transport::Tcp {
            return;
        }
        let start = out.len();
        websocket::encode_binary_header(len, out);
        out[start + 1] |= 0x80;
        out.extend_from_slice(&MASK);
    }

    pub(super) fn package(&self, kind: PackageType, body: &[u8], out: &mut Vec<u8>) {
        self.frame(HEADER_BYTES + body.len(), out);
        out.extend_from_slice(&Header::encode(kind, body.len()));
        out.extend_from_slice(body);
    }

    pub(super) fn request(&self, id: u32, routed_body: &[u8], out: &mut Vec<u8>) {
        let id_len = varint::len(id);
        self.frame(HEADER_BYTES + 1 + id_len + routed_body.len(), out);
        answer::encode_package(REQUEST_FLAG, id, routed_body, out);
    }

    fn notify(&self, out: &mut Vec<u8>) {
        let len = 1 + self.routed_body.len();
        self.frame(HEADER_BYTES + len, out);
        out.extend_from_slice(&Header::encode(PackageType::Data, len));
        out.push(NOTIFY_FLAG);
        out.extend_from_slice(&self.routed_body);
    }
}

fn piece(bytes: &[u8], each: usize, span: Span) -> Option<&[u8]> {
    let start = span.start as usize * each;
    bytes.get(start..start + span.count as usize * each)
}

/// A route by text and a body, as they stand in a message.
pub(super) fn routed(route: &[u8], body: &[u8]) -> Vec<u8> {
    let route_len = u8::try_from(route.len()).expect("the route is checked before the run");
    [&[route_len], route, body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_length_asked_for() {
        let script = Script::new(&LoadOptions::new("127.0.0.1:1".parse().unwrap()));
        assert_eq!(script.body.len(), 64);
        assert!(serde_json::from_slice::<serde_json::Value>(&script.body).is_ok());
    }

    #[test]
    fn a_tape_has_all_ids_and_then_the_first_again() {
        for transport in [Transport::Tcp, Transport::WebSocket] {
            let address = "127.0.0.1:1".parse().unwrap();
            let options = LoadOptions { transport, pipeline: 5, ..LoadOptions::new(address) };
            let script = Script::new(&options);
            assert!(script.ids > 100);
            for start in [0, 7, script.ids - 5, script.ids - 1] {
                let span = Span { start, count: 5 };
                let mut requests = Vec::new();
                let mut answers = Vec::new();
                for id in (start..start + 5).map(|index| FIRST_ID + index % script.ids) {
                    script.request(id, &script.routed_body, &mut requests);
                    let is_websocket = transport == Transport::WebSocket;
                    answer::encode(is_websocket, id, &script.body, &mut answers);
                }
                assert_eq!(script.taped(span), Some(&requests[..]));
                assert_eq!(script.answers(span), Some(&answers[..]));
            }
            assert_eq!(script.taped(Span { start: script.ids, count: 6 }), None);
        }
    }
}
