//! One session of a shard, compared with a plain reading of its client's bytes.

use arbitrary::{Arbitrary, Result, Unstructured};
use shaddock::internals::simulated::{Sending, Setup, Simulated, Stage, Wish};
use shaddock::wire::handshake::HandshakeRequest;
use shaddock::wire::message::{self, MessageError, MessageType, RouteRef};
use shaddock::wire::package::{self, PackageType, Status};
use shaddock::wire::sniff::{Sniff, sniff};
use shaddock::{Handlers, Limits, Reply, SessionId};

/// For any operations of a client and any cuts of its bytes, the same bytes are sent back, each
/// request is answered once and in order, all sizes stay within their bounds, and the session ends.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(options) = Options::arbitrary(&mut input) else { return };
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < OPS_MAX {
        let Ok(op) = Op::arbitrary(&mut input) else { break };
        ops.push(op);
    }
    let whole = play(&options, &ops, usize::MAX);
    let cut = play(&options, &ops, 1 + usize::from(options.cut));
    if !whole.is_slow && !cut.is_slow {
        assert_eq!(whole.out, cut.out, "other cuts, other bytes");
        assert_eq!(whole.stages, cut.stages, "other cuts, another end");
    }
}

/// The settings that differ between sessions.
#[derive(Debug)]
struct Options {
    has_heartbeat: bool,
    any_package: bool,
    /// The bytes of a piece, less one.
    cut: u8,
}

/// One operation of a client or the host.
#[derive(Debug)]
enum Op<'a> {
    /// The client sends bytes as they are.
    Raw(&'a [u8]),
    /// The client opens a WebSocket.
    Upgrade,
    /// The client starts the handshake.
    Begin {
        is_framed: bool,
    },
    Package {
        is_framed: bool,
        kind: u8,
        body: &'a [u8],
    },
    Request {
        is_framed: bool,
        id: u32,
        route: Route<'a>,
        body: &'a [u8],
    },
    Frame {
        first: u8,
        payload: &'a [u8],
    },
    Wait {
        ms: u16,
    },
    /// The client stops reading.
    Hold,
    /// The client reads again.
    Release,
    /// The connection fails while it is sent something.
    FailSends,
    Eof,
    Reset,
    /// The host kicks the session.
    Kick,
}

#[derive(Debug)]
enum Route<'a> {
    Echo,
    Panic,
    Later,
    Bind,
    Kick,
    Constructor,
    Code(u16),
    Text(&'a [u8]),
}

// Written by hand and by the byte, so that a seed can be written, and a short input does much.

impl<'a> Arbitrary<'a> for Options {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let flags = u8::arbitrary(input)?;
        let cut = u8::arbitrary(input)?;
        Ok(Self { has_heartbeat: flags & 1 != 0, any_package: flags & 2 != 0, cut })
    }
}

impl<'a> Arbitrary<'a> for Op<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let kind = u8::arbitrary(input)?;
        let is_framed = kind & 0x80 != 0;
        Ok(match kind & 0x7f {
            0 => Self::Upgrade,
            1 => Self::Begin { is_framed },
            2..32 => {
                let route = Route::arbitrary(input)?;
                let id = u32::from(u8::arbitrary(input)?) << ((kind & 3) * 8);
                Self::Request { is_framed, id, route, body: bytes(input)? }
            }
            32..48 => Self::Package { is_framed, kind, body: bytes(input)? },
            48..64 => Self::Frame { first: u8::arbitrary(input)?, payload: bytes(input)? },
            64..80 => Self::Wait { ms: u16::arbitrary(input)? },
            80..84 => Self::Hold,
            84..88 => Self::Release,
            88 => Self::FailSends,
            89 => Self::Eof,
            90 => Self::Reset,
            91 => Self::Kick,
            _ => Self::Raw(bytes(input)?),
        })
    }
}

impl<'a> Arbitrary<'a> for Route<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u8::arbitrary(input)? % 12 {
            0 => Self::Panic,
            1 | 2 => Self::Later,
            3 => Self::Bind,
            4 => Self::Kick,
            5 => Self::Constructor,
            6 => Self::Code(u16::arbitrary(input)?),
            7 => Self::Text(bytes(input)?),
            _ => Self::Echo,
        })
    }
}

/// Reads a length, and as many bytes as there are up to it.
fn bytes<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let len = usize::from(u8::arbitrary(input)?);
    input.bytes(len.min(input.len()))
}

const OPS_MAX: usize = 64;
const PACKAGE_BYTES_MAX: usize = 2_048;
const HANDSHAKE_BYTES_MAX: usize = 512;
const HEAD_BYTES_MAX: usize = 512;
const OUTBOX_BYTES_MAX: usize = 4_096;
const TIMEOUT_MS: u64 = 1_000;
const TICK_MS: u64 = 50;
/// The bytes beside packages: an upgrade's answer, a close frame.
const SLACK_BYTES: usize = 256;
const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn handlers(handlers: &mut Handlers) {
    handlers
        .handler("connector.e.echo", |request, _| Reply::borrowed(request.body()))
        // Without the panic hook, which a fuzzer takes for a crash.
        .handler("connector.e.panic", |_, _| std::panic::resume_unwind(Box::new("on purpose")))
        .async_handler("connector.e.later", |request, _| async move {
            Reply::bytes(request.bytes().to_vec())
        })
        .async_handler("connector.e.bind", |_, mut session| async move {
            Reply::json(&session.bind("amy").await.is_ok())
        })
        .handler("connector.e.kick", |_, session| {
            session.kick(Some("asked"));
            Reply::empty()
        });
}

/// The outcome of a session.
struct Outcome {
    out: Vec<u8>,
    /// The stage after each step.
    stages: Vec<Option<Stage>>,
    /// True if it was closed because it did not read.
    is_slow: bool,
}

struct Play {
    engine: Simulated,
    session: SessionId,
    now_ms: u64,
    held: Vec<Sending>,
    holds: bool,
    fails: bool,
    out: Vec<u8>,
    stream: Vec<u8>,
    is_finished: bool,
    is_closed: bool,
    is_ended: bool,
    is_gone: bool,
    stages: Vec<Option<Stage>>,
}

fn play(options: &Options, ops: &[Op<'_>], piece: usize) -> Outcome {
    let timeout = std::time::Duration::from_millis(TIMEOUT_MS);
    let limits = Limits {
        package_bytes_max: PACKAGE_BYTES_MAX,
        handshake_package_bytes_max: HANDSHAKE_BYTES_MAX,
        http_head_bytes_max: HEAD_BYTES_MAX,
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        handshake_timeout: timeout,
        idle_timeout: timeout,
        close_linger: timeout,
        ..Limits::default()
    };
    let mut engine = Simulated::new(Setup {
        limits,
        heartbeat: options.has_heartbeat.then_some(timeout),
        any_package: options.any_package,
        ..Setup::new(handlers)
    });
    engine.begin_turn(0, 0);
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let session = engine.accept(0, 0, peer).expect("the first");
    let mut play = Play {
        engine,
        session,
        now_ms: 0,
        held: Vec::new(),
        holds: false,
        fails: false,
        out: Vec::new(),
        stream: Vec::new(),
        is_finished: false,
        is_closed: false,
        is_ended: false,
        is_gone: false,
        stages: Vec::new(),
    };
    let mut bytes = Vec::new();
    for op in ops {
        if !write(op, &mut bytes) {
            play.receive(&std::mem::take(&mut bytes), piece);
            play.act(op);
        }
    }
    play.receive(&bytes, piece);
    play.check_packages(options.has_heartbeat);
    play.end();
    let is_slow = play.engine.counters(0).closed_slow_consumer > 0;
    Outcome { out: play.out, stages: play.stages, is_slow }
}

/// Appends the bytes that the client sends. False if the operation sends none.
fn write(op: &Op<'_>, out: &mut Vec<u8>) -> bool {
    let mut package = Vec::new();
    match op {
        Op::Raw(raw) => out.extend_from_slice(raw),
        Op::Upgrade => out.extend_from_slice(HEAD),
        Op::Begin { is_framed } => {
            encode(PackageType::Handshake, br#"{"sys":{"type":"a"}}"#, &mut package);
            frame_if(*is_framed, &package, out);
            package.clear();
            encode(PackageType::HandshakeAck, b"", &mut package);
            frame_if(*is_framed, &package, out);
        }
        Op::Package { is_framed, kind, body } => {
            let kind = PackageType::from_byte(1 + kind % 5).expect("1 to 5");
            encode(kind, body, &mut package);
            frame_if(*is_framed, &package, out);
        }
        Op::Request { is_framed, id, route, body } => {
            encode(PackageType::Data, &request(*id, route, body), &mut package);
            frame_if(*is_framed, &package, out);
        }
        Op::Frame { first, payload } => frame(*first, payload, out),
        _ => return false,
    }
    true
}

impl Play {
    /// Delivers the client's bytes in pieces.
    fn receive(&mut self, bytes: &[u8], piece: usize) {
        if self.is_ended || bytes.is_empty() {
            return;
        }
        self.stream.extend_from_slice(bytes);
        for part in bytes.chunks(piece.min(bytes.len())) {
            if self.is_closed {
                break;
            }
            let mut part = part.to_vec();
            self.turn(|engine, session| engine.receive(session, &mut part));
        }
        self.stages.push(self.stage());
    }

    /// Applies an operation that sends no bytes.
    fn act(&mut self, op: &Op<'_>) {
        match op {
            Op::Wait { ms } => self.now_ms += u64::from(*ms) % (2 * TIMEOUT_MS),
            Op::Hold => self.holds = true,
            Op::Release => self.holds = false,
            Op::FailSends => self.fails = true,
            Op::Eof if !self.is_ended && !self.is_closed => {
                self.is_ended = true;
                self.turn(Simulated::receive_eof);
                assert!(self.is_closed || !self.held.is_empty(), "nothing is left to send");
            }
            Op::Reset if !self.is_ended && !self.is_closed => {
                self.is_ended = true;
                self.turn(Simulated::receive_error);
                assert!(self.is_closed, "nobody is left to send to");
            }
            Op::Kick => drop(self.engine.host_kick_session(self.session, Some("host"))),
            _ => {}
        }
        self.turn(|_, _| ());
        self.stages.push(self.stage());
    }

    /// Runs turns until nothing more happens at this time.
    fn turn(&mut self, act: impl FnOnce(&mut Simulated, SessionId)) {
        if self.is_gone {
            return;
        }
        self.engine.begin_turn(0, self.now_ms * 1_000);
        act(&mut self.engine, self.session);
        for _ in 0..TURNS_MAX {
            let has_more = self.engine.run(0);
            let mut has_sent = has_more;
            while let Some(sending) = self.engine.poll_transmit(0) {
                assert!(!self.is_finished && !self.is_closed, "bytes after the end");
                self.held.push(sending);
                assert_eq!(self.held.len(), 1, "one send at a time");
            }
            while let Some(wish) = self.engine.poll_command(0) {
                assert!(!self.is_closed, "{wish:?} after the close");
                match wish {
                    Wish::FinishWriting(_) => {
                        assert!(!self.is_finished && self.held.is_empty());
                        self.is_finished = true;
                    }
                    Wish::Close(_) => self.is_closed = true,
                    // Bytes that arrive in spite of a pause are held, like those that the kernel
                    // already has.
                    Wish::PauseReading(_) | Wish::ResumeReading(_) => {}
                }
            }
            self.engine.end_turn(0, self.now_ms * 1_000);
            self.check_bounds();
            self.engine.begin_turn(0, self.now_ms * 1_000);
            if !self.holds || self.fails || self.is_closed {
                for sending in self.held.drain(..) {
                    has_sent = true;
                    let is_sent = !self.fails;
                    // The part of a held send that a closed connection has carried is unknown.
                    if is_sent && !(self.holds && self.is_closed) {
                        self.out.extend_from_slice(sending.bytes());
                    }
                    self.engine.sent(sending, is_sent);
                }
            }
            if self.is_closed && self.held.is_empty() {
                self.engine.socket_closed(self.session);
                self.engine.run(0);
                self.is_gone = true;
                return;
            }
            if !has_sent {
                return;
            }
        }
        panic!("a turn has no end");
    }

    fn stage(&self) -> Option<Stage> {
        self.engine.sessions(0).find(|probe| probe.id == self.session).map(|probe| probe.stage)
    }

    fn check_bounds(&self) {
        let Some(probe) = self.engine.sessions(0).next() else { return };
        let payload_max = 2 * (package::HEADER_BYTES + PACKAGE_BYTES_MAX);
        assert!(probe.partial_bytes <= payload_max + 14, "{probe:?}");
        assert!(probe.message_bytes <= payload_max, "{probe:?}");
        assert_eq!(probe.in_flight, 0, "nothing here waits");
        if probe.stage != Stage::Dead {
            assert!(probe.outbox_bytes <= OUTBOX_BYTES_MAX + SLACK_BYTES, "{probe:?}");
        }
        let sizes = self.engine.probe(0);
        assert!(sizes.uids <= 1 && sizes.logins <= 1 && sizes.deadlines <= 1, "{sizes:?}");
        assert_eq!((sizes.tasks, sizes.asks, sizes.calls), (0, 0, 0), "{sizes:?}");
    }

    /// Compares the packages so far with the client's bytes.
    fn check_packages(&self, has_heartbeat: bool) {
        let counters = self.engine.counters(0);
        assert!(counters.answers <= counters.requests);
        let Some(expected) = expected(&self.stream, has_heartbeat) else { return };
        let mut got = got(&self.out);
        if got.last() == Some(&Sent::Kick) && !expected.starts_with(&got) {
            // The host's kick.
            got.pop();
        }
        assert!(expected.starts_with(&got), "{got:?} of {expected:?}");
        if self.stage() == Some(Stage::Working) && self.held.is_empty() {
            assert_eq!(got, expected);
        }
    }

    /// A client that does nothing more is closed in the end, and leaves nothing.
    fn end(&mut self) {
        self.holds = false;
        for _ in 0..ENDS_MAX {
            if self.is_gone {
                break;
            }
            self.now_ms += TICK_MS;
            self.turn(|_, _| ());
        }
        assert!(self.is_gone, "{:?} is still there", self.stage());
        let sizes = self.engine.probe(0);
        let left = sizes.connections + sizes.deadlines + sizes.uids + sizes.logins + sizes.timers;
        assert_eq!(left, 0, "{sizes:?}");
        let counters = self.engine.counters(0);
        assert_eq!((counters.connections_accepted, counters.connections_closed), (1, 1));
    }
}

/// The ticks of a handshake, a silence and a linger.
const ENDS_MAX: u64 = 3 * (TIMEOUT_MS / TICK_MS + 2);
/// The most turns: each send takes one, and the queue fits into a few.
const TURNS_MAX: usize = 1_000;

/// A package from the server.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Handshake,
    Heartbeat,
    Answer(u32),
    Kick,
}

/// The answers to a TCP client's bytes; `None` if the bytes are not a TCP client's.
fn expected(stream: &[u8], has_heartbeat: bool) -> Option<Vec<Sent>> {
    if sniff(stream) == Sniff::Http {
        return None;
    }
    let (mut sent, mut rest, mut state) = (Vec::new(), stream, 0);
    loop {
        let max = if state == 2 { PACKAGE_BYTES_MAX } else { HANDSHAKE_BYTES_MAX };
        let Ok(Status::Complete { value, consumed }) = package::decode(rest, max) else {
            return Some(sent);
        };
        rest = &rest[consumed..];
        match (value.kind, state) {
            (PackageType::Kick, _) => return Some(sent),
            (PackageType::Handshake, 0) => {
                sent.push(Sent::Handshake);
                state = 1;
                if HandshakeRequest::parse(value.body).is_err() {
                    return Some(sent);
                }
            }
            (PackageType::HandshakeAck, 1) => {
                state = 2;
                sent.extend(has_heartbeat.then_some(Sent::Heartbeat));
            }
            (PackageType::Heartbeat, 2) => sent.extend(has_heartbeat.then_some(Sent::Heartbeat)),
            (PackageType::Data, 2) => match message::decode(value.body) {
                Ok(message) => {
                    let is_message = message.kind != MessageType::Response;
                    if is_message && is_kicked(message.route) {
                        sent.push(Sent::Kick);
                        return Some(sent);
                    }
                    if message.kind == MessageType::Request && message.id != 0 {
                        sent.push(Sent::Answer(message.id));
                    }
                }
                Err(MessageError::UnknownType(_)) => {}
                Err(_) => return Some(sent),
            },
            _ => {}
        }
    }
}

/// True if a route leads to a kick: by its handler, or by naming a method that attackers use.
fn is_kicked(route: Option<RouteRef<'_>>) -> bool {
    let Some(RouteRef::Text(text)) = route else { return false };
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'.').collect();
    let is_attack = std::str::from_utf8(text).is_ok()
        && matches!(parts[..], [first, _, b"constructor"] if !first.is_empty());
    is_attack || text == b"connector.e.kick"
}

/// The packages that a TCP client has received.
fn got(mut out: &[u8]) -> Vec<Sent> {
    let mut sent = Vec::new();
    while let Ok(Status::Complete { value, consumed }) =
        package::decode(out, package::BODY_BYTES_MAX)
    {
        out = &out[consumed..];
        sent.push(match value.kind {
            PackageType::Handshake => Sent::Handshake,
            PackageType::Heartbeat => Sent::Heartbeat,
            PackageType::Kick => Sent::Kick,
            PackageType::Data => {
                let message = message::decode(value.body).expect("a server's message is whole");
                assert_eq!(message.kind, MessageType::Response);
                Sent::Answer(message.id)
            }
            kind => panic!("the server has sent a {kind:?}"),
        });
    }
    assert!(out.is_empty(), "a server's package is whole");
    sent
}

fn request(id: u32, route: &Route<'_>, body: &[u8]) -> Vec<u8> {
    let text: &[u8] = match route {
        Route::Echo => b"connector.e.echo",
        Route::Panic => b"connector.e.panic",
        Route::Later => b"connector.e.later",
        Route::Bind => b"connector.e.bind",
        Route::Kick => b"connector.e.kick",
        Route::Constructor => b"connector.e.constructor",
        Route::Code(_) => b"",
        Route::Text(text) => &text[..text.len().min(message::ROUTE_BYTES_MAX)],
    };
    let route = match route {
        Route::Code(code) => RouteRef::Code(*code),
        _ => RouteRef::Text(text),
    };
    let kind = if id == 0 { MessageType::Notify } else { MessageType::Request };
    let message = message::Message { id, kind, route: Some(route), body, gzip: false };
    let mut out = Vec::new();
    message::encode(&message, &mut out).expect("the route is short");
    out
}

fn encode(kind: PackageType, body: &[u8], out: &mut Vec<u8>) {
    package::encode(kind, body, out).expect("a fuzzer's body is short");
}

fn frame_if(is_framed: bool, payload: &[u8], out: &mut Vec<u8>) {
    if is_framed { frame(0x82, payload, out) } else { out.extend_from_slice(payload) }
}

/// Appends a frame whose mask is 0, so that its payload is readable in a finding.
fn frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend_from_slice(payload);
}
