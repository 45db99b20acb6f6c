//! One connection of the load client, without its socket.

use smallvec::SmallVec;

use super::{Check, LoadOptions, Lost, Mode, Transport};
use crate::wire::message::{self, MessageType};
use crate::wire::package::{self, HEADER_BYTES, Header, PackageType, Status};
use crate::wire::{answer, varint};

/// What all connections send.
pub(super) struct Script {
    transport: Transport,
    check: Check,
    body: Vec<u8>,
    /// The route and the body, as they stand behind a message's flag and id.
    routed_body: Vec<u8>,
    login: Option<String>,
    slots: u32,
    /// Notifies in front of each request.
    notifies: u32,
}

/// The states of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Upgrade,
    Handshake,
    Login,
    Working,
    /// The connection has ended, or is going to.
    Over,
}

/// One connection.
pub(super) struct Client {
    pub(super) state: State,
    /// The start of a package whose rest has not come yet.
    partial: Vec<u8>,
    /// What waits to be sent.
    pub(super) out: Vec<u8>,
    /// Requests in flight, in the order in which they were sent.
    bursts: SmallVec<[Burst; 2]>,
    in_flight: u32,
    next_id: u32,
    /// For the name it logs in by.
    pub(super) number: u32,
}

/// Requests that were sent, or due, at one time, and some of which are in flight: a bit for each.
///
/// A thousand connections are more than a cache holds, so each keeps little.
#[derive(Debug)]
struct Burst {
    at_ns: u64,
    unanswered: u64,
    first_id: u32,
}

/// What came of a piece of input.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The connection has begun to work.
    pub(super) is_ready: bool,
    pub(super) wrong: u64,
    pub(super) pushes: u64,
    /// The server has said goodbye, or what it says makes no sense.
    pub(super) lost: Option<Lost>,
}

/// The id of the request that logs a client in.
const LOGIN_ID: u32 = 1;
const LOGIN_ROUTE: &[u8] = b"connector.entryHandler.entry";
const FIRST_ID: u32 = LOGIN_ID + 1;
/// Where the ids of stock servers end.
const ID_END: u32 = 1 << 31;
/// Frames of a client carry a mask. One of zeros leaves the payload as it is, for the client's
/// sake; the server has the same work with it as with any other.
const MASK: [u8; 4] = [0; 4];

impl Script {
    /// Messages that one answer counts for.
    pub(super) fn messages_per_answer(&self) -> u64 {
        u64::from(self.notifies.max(1))
    }

    pub(super) fn new(options: &LoadOptions) -> Self {
        // A body as games have it: an object with a few members.
        let mut body = String::from("{\"msg\":\"");
        let room = options.body_bytes.saturating_sub(body.len() + 2);
        body.extend("the quick brown fox jumps over the lazy dog ".chars().cycle().take(room));
        body.push_str("\"}");
        Self {
            transport: options.transport,
            check: options.check,
            routed_body: routed(options.route.as_bytes(), body.as_bytes()),
            body: body.into_bytes(),
            login: options.login.clone(),
            slots: if options.mode == Mode::Notify { 1 } else { options.pipeline },
            notifies: if options.mode == Mode::Notify { options.pipeline } else { 0 },
        }
    }

    fn frame(&self, len: usize, out: &mut Vec<u8>) {
        if self.transport == Transport::Tcp {
            return;
        }
        let start = out.len();
        crate::wire::websocket::encode_binary_header(len, out);
        out[start + 1] |= 0x80;
        out.extend_from_slice(&MASK);
    }

    fn package(&self, kind: PackageType, body: &[u8], out: &mut Vec<u8>) {
        self.frame(HEADER_BYTES + body.len(), out);
        out.extend_from_slice(&Header::encode(kind, body.len()));
        out.extend_from_slice(body);
    }

    fn request(&self, id: u32, routed_body: &[u8], out: &mut Vec<u8>) {
        let id_len = varint::len(id);
        self.frame(HEADER_BYTES + 1 + id_len + routed_body.len(), out);
        answer::encode_package(message::REQUEST_FLAG, id, routed_body, out);
    }

    fn notify(&self, out: &mut Vec<u8>) {
        let len = 1 + self.routed_body.len();
        self.frame(HEADER_BYTES + len, out);
        out.extend_from_slice(&Header::encode(PackageType::Data, len));
        out.push(message::NOTIFY_FLAG);
        out.extend_from_slice(&self.routed_body);
    }
}

/// A route by text and a body, as they stand in a message.
fn routed(route: &[u8], body: &[u8]) -> Vec<u8> {
    let route_len = u8::try_from(route.len()).expect("the route is checked before the run");
    [&[route_len], route, body].concat()
}

impl Client {
    pub(super) fn new(script: &Script, number: u32) -> Self {
        let state = match script.transport {
            Transport::Tcp => State::Handshake,
            Transport::WebSocket => State::Upgrade,
        };
        Self {
            state,
            partial: Vec::new(),
            out: Vec::new(),
            bursts: SmallVec::new(),
            in_flight: 0,
            next_id: FIRST_ID,
            number,
        }
    }

    /// The connection is up.
    pub(super) fn connected(&mut self, script: &Script) {
        match self.state {
            State::Upgrade => self.out.extend_from_slice(
                b"GET / HTTP/1.1\r\nHost: load\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            ),
            _ => self.shake_hands(script),
        }
    }

    fn shake_hands(&mut self, script: &Script) {
        let body = br#"{"sys":{"type":"shaddock-load","version":"0.1.0"}}"#;
        script.package(PackageType::Handshake, body, &mut self.out);
        self.state = State::Handshake;
    }

    pub(super) fn heartbeat(&mut self, script: &Script) {
        script.package(PackageType::Heartbeat, b"", &mut self.out);
    }

    /// Takes a buffer for what is to be sent, if it has none. The one used last is still in the
    /// cache, so none is taken before there is something to send.
    pub(super) fn take_spare(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.out.capacity() == 0 {
            self.out = spare.pop().unwrap_or_default();
        }
    }

    /// Sends what fits into one slot, if there is one; it counts from `at_ns`.
    pub(super) fn ask(&mut self, script: &Script, at_ns: u64) -> bool {
        if self.in_flight == script.slots {
            return false;
        }
        self.in_flight += 1;
        let id = self.next_id;
        self.next_id = if id + 1 == ID_END { FIRST_ID } else { id + 1 };
        match self.bursts.last_mut() {
            Some(burst) if burst.at_ns == at_ns && burst.bit(id) != 0 => {
                burst.unanswered |= burst.bit(id);
            }
            _ => self.bursts.push(Burst { at_ns, unanswered: 1, first_id: id }),
        }
        for _ in 0..script.notifies {
            script.notify(&mut self.out);
        }
        script.request(id, &script.routed_body, &mut self.out);
        true
    }

    /// Notes an answer; when its request was sent, if one of that id was in flight.
    fn take(&mut self, id: u32) -> Option<u64> {
        // Mostly it is of the first.
        let place = self.bursts.iter().position(|burst| burst.bit(id) & burst.unanswered != 0)?;
        let burst = &mut self.bursts[place];
        let at_ns = burst.at_ns;
        burst.unanswered &= !burst.bit(id);
        if burst.unanswered == 0 {
            self.bursts.remove(place);
        }
        self.in_flight -= 1;
        Some(at_ns)
    }

    /// Reads what the server has sent. `answered` is told the time that each answer counts from.
    pub(super) fn receive(
        &mut self,
        script: &Script,
        input: &[u8],
        mut answered: impl FnMut(u64),
    ) -> Seen {
        let mut seen = Seen::default();
        if self.partial.is_empty() {
            let consumed = self.read(script, input, &mut answered, &mut seen);
            self.partial.extend_from_slice(&input[consumed..]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(input);
            let consumed = self.read(script, &partial, &mut answered, &mut seen);
            partial.drain(..consumed);
            self.partial = partial;
        }
        seen
    }

    fn read(
        &mut self,
        script: &Script,
        input: &[u8],
        answered: &mut impl FnMut(u64),
        seen: &mut Seen,
    ) -> usize {
        let mut consumed = 0;
        while consumed < input.len() && seen.lost.is_none() {
            let rest = &input[consumed..];
            if self.state == State::Upgrade {
                let Some(end) = rest.windows(4).position(|end| end == b"\r\n\r\n") else { break };
                consumed += end + 4;
                if !rest.starts_with(b"HTTP/1.1 101") {
                    seen.lost = Some(Lost::Refused);
                    break;
                }
                self.shake_hands(script);
                continue;
            }
            let head_len = match script.transport {
                Transport::Tcp => 0,
                Transport::WebSocket => match server_frame(rest) {
                    None => break,
                    Some(Ok(head_len)) => head_len,
                    Some(Err(())) => {
                        seen.lost = Some(Lost::Nonsense);
                        break;
                    }
                },
            };
            match package::decode(&rest[head_len..], package::BODY_BYTES_MAX) {
                Ok(Status::Complete { value, consumed: more }) => {
                    consumed += head_len + more;
                    self.handle(script, value.kind, value.body, answered, seen);
                }
                Ok(Status::Partial { .. }) => break,
                Err(_) => seen.lost = Some(Lost::Nonsense),
            }
        }
        consumed
    }

    fn handle(
        &mut self,
        script: &Script,
        kind: PackageType,
        body: &[u8],
        answered: &mut impl FnMut(u64),
        seen: &mut Seen,
    ) {
        match (kind, self.state) {
            (PackageType::Data, _) => self.handle_message(script, body, answered, seen),
            (PackageType::Handshake, State::Handshake) => {
                if !body.starts_with(b"{\"code\":200") {
                    seen.lost = Some(Lost::Refused);
                    return;
                }
                script.package(PackageType::HandshakeAck, b"", &mut self.out);
                match &script.login {
                    None => {
                        self.state = State::Working;
                        seen.is_ready = true;
                    }
                    Some(uid) => {
                        self.state = State::Login;
                        let body = format!("{{\"uid\":\"{uid}-{}\"}}", self.number);
                        let routed_body = routed(LOGIN_ROUTE, body.as_bytes());
                        script.request(LOGIN_ID, &routed_body, &mut self.out);
                    }
                }
            }
            (PackageType::Kick, _) => seen.lost = Some(Lost::Kicked),
            _ => {}
        }
    }

    fn handle_message(
        &mut self,
        script: &Script,
        body: &[u8],
        answered: &mut impl FnMut(u64),
        seen: &mut Seen,
    ) {
        let Ok(message) = message::decode(body) else {
            seen.lost = Some(Lost::Nonsense);
            return;
        };
        match message.kind {
            MessageType::Push => seen.pushes += 1,
            MessageType::Response if message.id == LOGIN_ID && self.state == State::Login => {
                self.state = State::Working;
                seen.is_ready = true;
            }
            MessageType::Response => {
                let is_right = script.check == Check::Any || message.body == script.body;
                let at_ns = self.take(message.id);
                if at_ns.is_none() || !is_right {
                    seen.wrong += 1;
                }
                at_ns.into_iter().for_each(answered);
            }
            _ => seen.lost = Some(Lost::Nonsense),
        }
    }
}

impl Burst {
    /// The bit of an id; 0 if it has none here.
    fn bit(&self, id: u32) -> u64 {
        1_u64.checked_shl(id.wrapping_sub(self.first_id)).unwrap_or_default()
    }
}

/// The length of a frame's head, once the whole frame is there. A server's frames have no mask.
fn server_frame(input: &[u8]) -> Option<Result<usize, ()>> {
    const BINARY: u8 = 0x82;
    const PONG: u8 = 0x8a;
    let [first, second, rest @ ..] = input else { return None };
    if !matches!(*first, BINARY | PONG) {
        return Some(Err(()));
    }
    let (head_len, payload_len) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    (input.len() - head_len.min(input.len()) >= payload_len).then_some(Ok(head_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::encode_response_head(id, &mut out);
        out.extend_from_slice(body);
        let mut package = Vec::new();
        package::encode(PackageType::Data, &out, &mut package).unwrap();
        package
    }

    fn working(pipeline: u32) -> (Script, Client) {
        let address = "127.0.0.1:1".parse().unwrap();
        let script = Script::new(&LoadOptions { pipeline, ..LoadOptions::new(address) });
        let mut client = Client::new(&script, 0);
        client.connected(&script);
        let mut hello = Vec::new();
        package::encode(PackageType::Handshake, b"{\"code\":200}", &mut hello).unwrap();
        assert!(client.receive(&script, &hello, |_| {}).is_ready);
        (script, client)
    }

    #[test]
    fn the_body_has_the_length_asked_for() {
        let (script, _) = working(1);
        assert_eq!(script.body.len(), 64);
        assert!(serde_json::from_slice::<serde_json::Value>(&script.body).is_ok());
    }

    #[test]
    fn answers_are_matched_in_any_order_and_cut_anywhere() {
        let (script, mut client) = working(2);
        assert!(client.ask(&script, 10) && client.ask(&script, 20));
        assert!(!client.ask(&script, 30), "both slots are taken");
        let input = [answer(3, &script.body), answer(2, &script.body)].concat();
        let mut times = Vec::new();
        for byte in input {
            let seen = client.receive(&script, &[byte], |at_ns| times.push(at_ns));
            assert_eq!(seen.wrong, 0);
        }
        assert_eq!(times, [20, 10]);
        assert!(client.ask(&script, 40));
        let seen = client.receive(&script, &answer(3, &script.body), |_| panic!("answered twice"));
        assert_eq!(seen.wrong, 1);
    }

    #[test]
    fn what_was_sent_at_one_time_is_counted_together() {
        let (script, mut client) = working(133);
        client.next_id = ID_END - 30;
        (0..100).for_each(|_| assert!(client.ask(&script, 1)));
        (0..33).for_each(|_| assert!(client.ask(&script, 2)));
        assert_eq!(client.bursts.len(), 4, "ids begin anew, and a burst has 64");
        let ids: Vec<u32> = (ID_END - 30..ID_END).chain((FIRST_ID..).take(103)).collect();
        let times = |ids: &[u32], client: &mut Client| {
            let answers: Vec<u8> =
                ids.iter().rev().flat_map(|id| answer(*id, &script.body)).collect();
            let mut times = Vec::new();
            let seen = client.receive(&script, &answers, |at_ns| times.push(at_ns));
            (times, seen.wrong)
        };
        assert_eq!(times(&ids[50..], &mut client), ([[2; 33].as_slice(), &[1; 50]].concat(), 0));
        assert_eq!(times(&ids[40..], &mut client), (vec![1; 10], 83), "answered once more");
        assert_eq!(times(&ids[..40], &mut client), (vec![1; 40], 0));
        assert!(client.bursts.is_empty());
        assert_eq!(client.in_flight, 0);
    }

    #[test]
    fn a_wrong_answer_is_counted() {
        let (script, mut client) = working(1);
        client.ask(&script, 1);
        assert_eq!(client.receive(&script, &answer(2, b"{}"), |_| {}).wrong, 1);
    }
}
