//! One connection of the load client, without its socket.

use super::disconnects::DisconnectReason;
use super::flight::{Flight, Span};
use super::script::{Script, routed};
use super::{Check, Transport};
use crate::wire::message::{self, MessageType};
use crate::wire::package::{self, PackageType, Status};

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
    /// Requests of the tape that wait to be sent, or bytes.
    queued: Span,
    out: Vec<u8>,
    flight: Flight,
    /// For the name it logs in by.
    pub(super) number: u32,
}

/// Bytes that are sent in one piece.
#[derive(Debug)]
pub(super) enum Piece {
    /// Requests of the script's tape.
    Taped(Span),
    Bytes(Vec<u8>),
}

/// The outcome of a piece of input.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The connection has begun to work.
    pub(super) is_ready: bool,
    pub(super) wrong: u64,
    pub(super) pushes: u64,
    /// The reason to end the connection, if there is one.
    pub(super) disconnect: Option<DisconnectReason>,
}

/// The id of the request that logs a client in.
const LOGIN_ID: u32 = 1;
const LOGIN_ROUTE: &[u8] = b"connector.entryHandler.entry";

impl Piece {
    pub(super) fn bytes<'a>(&'a self, script: &'a Script) -> &'a [u8] {
        match self {
            Self::Taped(span) => script.taped(*span).expect("it was there when it was queued"),
            Self::Bytes(bytes) => bytes,
        }
    }
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
            queued: Span::default(),
            out: Vec::new(),
            flight: Flight::default(),
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
        script.package(PackageType::Heartbeat, b"", self.bytes(script));
    }

    /// Sends up to `most` requests, as far as there are slots; they count from `at_ns`. Gives their
    /// number.
    pub(super) fn ask(&mut self, script: &Script, at_ns: u64, most: u32) -> u32 {
        let asked = most.min(script.slots - self.flight.len());
        let mut left = asked;
        while left > 0 {
            let span = self.flight.begin(left, script.ids, at_ns);
            left -= span.count;
            self.queue(script, span);
        }
        asked
    }

    fn queue(&mut self, script: &Script, span: Span) {
        if self.out.is_empty()
            && let Some(both) = self.queued.joined(span, script.ids)
            && script.taped(both).is_some()
        {
            self.queued = both;
            return;
        }
        script.append(span, self.bytes(script));
    }

    /// The bytes that wait, to append to; requests of the tape go in front.
    fn bytes(&mut self, script: &Script) -> &mut Vec<u8> {
        script.append(std::mem::take(&mut self.queued), &mut self.out);
        &mut self.out
    }

    /// Takes what waits to be sent.
    pub(super) fn take_queued(&mut self) -> Option<Piece> {
        if self.queued.count > 0 {
            return Some(Piece::Taped(std::mem::take(&mut self.queued)));
        }
        (!self.out.is_empty()).then(|| Piece::Bytes(std::mem::take(&mut self.out)))
    }

    pub(super) fn has_queued(&self) -> bool {
        self.queued.count > 0 || !self.out.is_empty()
    }

    /// Reads what the server has sent. `answered` is told the time that answers count from, and how
    /// many.
    pub(super) fn receive(
        &mut self,
        script: &Script,
        input: &[u8],
        mut answered: impl FnMut(u64, u32),
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
        answered: &mut impl FnMut(u64, u32),
        seen: &mut Seen,
    ) -> usize {
        let mut consumed = 0;
        while consumed < input.len() && seen.disconnect.is_none() {
            let rest = &input[consumed..];
            let expected = self.read_expected(script, rest, answered);
            if expected > 0 {
                consumed += expected;
                continue;
            }
            if self.state == State::Upgrade {
                let Some(end) = rest.windows(4).position(|end| end == b"\r\n\r\n") else { break };
                consumed += end + 4;
                if !rest.starts_with(b"HTTP/1.1 101") {
                    seen.disconnect = Some(DisconnectReason::Refused);
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
                        seen.disconnect = Some(DisconnectReason::Malformed);
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
                Err(_) => seen.disconnect = Some(DisconnectReason::Malformed),
            }
        }
        consumed
    }

    /// Reads as many answers as are there just as they are expected. Gives their bytes.
    fn read_expected(
        &mut self,
        script: &Script,
        input: &[u8],
        answered: &mut impl FnMut(u64, u32),
    ) -> usize {
        let mut oldest = self.flight.oldest(script.ids);
        while oldest.count > 0
            && let Some(answers) = script.answers(oldest)
        {
            if input.starts_with(answers) {
                answered(self.flight.take_oldest(oldest.count), oldest.count);
                return answers.len();
            }
            // Not all have come, or one is another.
            oldest.count /= 2;
        }
        0
    }

    fn handle(
        &mut self,
        script: &Script,
        kind: PackageType,
        body: &[u8],
        answered: &mut impl FnMut(u64, u32),
        seen: &mut Seen,
    ) {
        match (kind, self.state) {
            (PackageType::Data, _) => self.handle_message(script, body, answered, seen),
            (PackageType::Handshake, State::Handshake) => {
                if !body.starts_with(b"{\"code\":200") {
                    seen.disconnect = Some(DisconnectReason::Refused);
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
            (PackageType::Kick, _) => seen.disconnect = Some(DisconnectReason::Kicked),
            _ => {}
        }
    }

    fn handle_message(
        &mut self,
        script: &Script,
        body: &[u8],
        answered: &mut impl FnMut(u64, u32),
        seen: &mut Seen,
    ) {
        let Ok(message) = message::decode(body) else {
            seen.disconnect = Some(DisconnectReason::Malformed);
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
                let id = script.id_index(message.id);
                let at_ns = id.and_then(|id| self.flight.take(id, script.ids));
                if at_ns.is_none() || !is_right {
                    seen.wrong += 1;
                }
                at_ns.into_iter().for_each(|at_ns| answered(at_ns, 1));
            }
            _ => seen.disconnect = Some(DisconnectReason::Malformed),
        }
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
    use super::super::LoadOptions;
    use super::*;

    /// The answer to a request of that id.
    fn answer(id: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message::encode_response_head(id, &mut out);
        out.extend_from_slice(body);
        let mut package = Vec::new();
        package::encode(PackageType::Data, &out, &mut package).unwrap();
        package
    }

    fn working_with(options: LoadOptions) -> (Script, Client) {
        let script = Script::new(&options);
        let mut client = Client::new(&script, 0);
        client.connected(&script);
        let mut hello = Vec::new();
        package::encode(PackageType::Handshake, b"{\"code\":200}", &mut hello).unwrap();
        assert!(client.receive(&script, &hello, |_, _| {}).is_ready);
        while client.take_queued().is_some() {}
        (script, client)
    }

    fn working(pipeline: u32) -> (Script, Client) {
        let address = "127.0.0.1:1".parse().unwrap();
        working_with(LoadOptions { pipeline, ..LoadOptions::new(address) })
    }

    /// Takes what waits to be sent: the ids of requests, 0 for a heartbeat; in how many pieces.
    fn sent(script: &Script, client: &mut Client) -> (Vec<u32>, usize) {
        let (mut ids, mut pieces) = (Vec::new(), 0);
        while let Some(piece) = client.take_queued() {
            pieces += 1;
            let mut rest = piece.bytes(script);
            while let Status::Complete { value, consumed } =
                package::decode(rest, package::BODY_BYTES_MAX).unwrap()
            {
                rest = &rest[consumed..];
                if value.kind == PackageType::Heartbeat {
                    ids.push(0);
                    continue;
                }
                let message = message::decode(value.body).unwrap();
                assert_eq!((message.kind, message.body), (MessageType::Request, &script.body[..]));
                ids.push(message.id);
            }
            assert!(rest.is_empty());
        }
        (ids, pieces)
    }

    /// The times that the client counts from, and how many answers were wrong.
    fn times(script: &Script, client: &mut Client, input: &[u8]) -> (Vec<u64>, u64) {
        let mut times = Vec::new();
        let seen = client.receive(script, input, |at_ns, count| {
            times.extend(std::iter::repeat_n(at_ns, count as usize));
        });
        assert_eq!(seen.disconnect, None);
        (times, seen.wrong)
    }

    #[test]
    fn answers_are_matched_in_any_order_and_cut_anywhere() {
        let (script, mut client) = working(2);
        assert_eq!((client.ask(&script, 10, 1), client.ask(&script, 20, 1)), (1, 1));
        assert_eq!(client.ask(&script, 30, 1), 0, "both slots are taken");
        let (ids, _) = sent(&script, &mut client);
        let input = [answer(ids[1], &script.body), answer(ids[0], &script.body)].concat();
        let each = input.iter().map(|byte| times(&script, &mut client, &[*byte]));
        let all = each.fold(Vec::new(), |all, (times, wrong)| {
            assert_eq!(wrong, 0);
            [all, times].concat()
        });
        assert_eq!(all, [20, 10]);
        assert_eq!(client.ask(&script, 40, 1), 1);
        let again = answer(ids[1], &script.body);
        assert_eq!(times(&script, &mut client, &again), (vec![], 1), "answered twice");
    }

    #[test]
    fn expected_answers_are_counted_like_others() {
        let (script, mut client) = working(16);
        for round in 1..100 {
            assert_eq!(client.ask(&script, round, u32::MAX), 16);
            let (ids, pieces) = sent(&script, &mut client);
            assert_eq!((ids.len(), pieces), (16, 1), "also where ids begin anew");
            let answers: Vec<_> = ids.iter().map(|id| answer(*id, &script.body)).collect();
            let wrong_at = round as usize % 16;
            let mut input = answers.concat();
            input[answers[0].len() * (wrong_at + 1) - 1] ^= 1;
            // In two parts, cut anywhere.
            let (first, second) = input.split_at(round as usize * 7);
            let (first, second) =
                (times(&script, &mut client, first), times(&script, &mut client, second));
            assert_eq!(first.1 + second.1, 1, "the answer number {wrong_at}");
            assert_eq!([first.0, second.0].concat(), [round; 16]);
        }
    }

    #[test]
    fn requests_wait_in_the_order_in_which_they_were_made() {
        let (script, mut client) = working(9);
        assert_eq!(client.ask(&script, 1, 2), 2);
        assert_eq!(client.ask(&script, 2, 1), 1);
        client.heartbeat(&script);
        assert_eq!(client.ask(&script, 3, 4), 4);
        client.heartbeat(&script);
        let (ids, pieces) = sent(&script, &mut client);
        let first = ids[0];
        assert_eq!(
            ids,
            [0, 1, 2]
                .map(|more| first + more)
                .into_iter()
                .chain([0])
                .chain([3, 4, 5, 6].map(|more| first + more))
                .chain([0])
                .collect::<Vec<_>>()
        );
        assert_eq!(pieces, 1);
        assert!(!client.has_queued());
        assert_eq!(client.ask(&script, 4, u32::MAX), 2);
        assert_eq!(sent(&script, &mut client).0, [first + 7, first + 8]);
    }

    #[test]
    fn requests_too_large_for_a_tape_are_sent_too() {
        let address = "127.0.0.1:1".parse().unwrap();
        let options =
            LoadOptions { pipeline: 100, body_bytes: 30_000, ..LoadOptions::new(address) };
        let (script, mut client) = working_with(options);
        assert_eq!(script.taped(Span { start: 0, count: 1 }), None);
        assert_eq!(client.ask(&script, 1, u32::MAX), 100);
        let (ids, _) = sent(&script, &mut client);
        assert_eq!(ids.len(), 100);
        let answers: Vec<_> = ids.iter().flat_map(|id| answer(*id, &script.body)).collect();
        assert_eq!(times(&script, &mut client, &answers), (vec![1; 100], 0));
    }

    #[test]
    fn a_wrong_answer_is_counted() {
        let (script, mut client) = working(1);
        client.ask(&script, 1, 1);
        let (ids, _) = sent(&script, &mut client);
        assert_eq!(times(&script, &mut client, &answer(ids[0], b"{}")), (vec![1], 1));
        assert_eq!(
            times(&script, &mut client, &answer(7, &script.body)),
            (vec![], 1),
            "no such id"
        );
    }
}
