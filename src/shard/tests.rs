//! The core by itself: bytes in, segments and commands out, in virtual time.

mod fairness;
mod fast_path;
mod fragments;
mod handshakes;
mod lane;
mod long_answers;
mod memory;
mod slow;
mod work;

use std::sync::RwLock;
use std::time::Duration;

use std::sync::atomic::Ordering;

use super::clock::PATIENCE_US;
use super::connections::{Connections, UNCOUNTED_BYTES};
use super::dispatcher::Dispatcher;
use super::forwarder::Forwarder;
use super::outbound::Outbound;
use super::*;
use crate::dispatch::{Handlers, Register, Reply};
use crate::forward::{Endpoint, HubLimits};
use crate::limits::Limits;
use crate::metrics::CounterSnapshot;
use crate::route::SlowConsumer;
use crate::route::edition::{Edition, EditionId};
use crate::route::schemas::Schemas;
use crate::route::table::RouteTable;
use crate::test_cases::{cases, repetitions};
use crate::wire::message::{self, Message, MessageType, RouteRef};
use crate::wire::package::{self, PackageType};

/// Closes everybody who waits for nothing, and waits for the others.
const AT_ONCE: DrainPlan = DrainPlan { begin_us: 0, closed_us: 0, end_us: u64::MAX };

const ECHO: &str = "connector.entryHandler.echo";
const KICK: &str = "connector.entryHandler.kick";
/// A turn of an idle shard, well below [`PATIENCE_US`].
const STEP_MS: u64 = 50;
/// The delay of a deadline at most: a step, and the wheel's tick.
const LATE_MS: u64 = 2 * STEP_MS;

fn handlers(handlers: &mut Handlers) {
    handlers.handler(ECHO, |request, _| Reply::borrowed(request.body())).handler(
        KICK,
        |_, session| {
            session.kick(Some("bye"));
            Reply::empty()
        },
    );
}

/// The parts of a shard.
trait Parts {
    fn dispatcher(&self) -> &Dispatcher;
    fn forwarder(&self) -> &Forwarder {
        &self.dispatcher().forwarder
    }
    fn outbound(&self) -> &Outbound {
        &self.forwarder().outbound
    }
    fn connections(&self) -> &Connections {
        &self.outbound().connections
    }
    fn forwarder_mut(&mut self) -> &mut Forwarder;
    fn outbound_mut(&mut self) -> &mut Outbound {
        &mut self.forwarder_mut().outbound
    }
    fn connections_mut(&mut self) -> &mut Connections {
        &mut self.outbound_mut().connections
    }
}

impl Parts for Shard {
    fn dispatcher(&self) -> &Dispatcher {
        &self.inbound.dispatcher
    }

    fn forwarder_mut(&mut self) -> &mut Forwarder {
        &mut self.inbound.dispatcher.forwarder
    }
}

/// A shard and a shell without a kernel: everything is sent at once, unless sends are held.
struct Rig {
    shard: Shard,
    now_us: u64,
    sockets: u32,
    holds_sends: bool,
    held: Vec<Transmit>,
    /// The bytes that were sent, by socket.
    sent: Vec<Vec<u8>>,
    transmits: usize,
    commands: Vec<Command>,
}

impl Rig {
    fn new(heartbeat: Option<Duration>, limits: Limits) -> Self {
        Self::with_policies(heartbeat, limits, &[])
    }

    fn with_policies(
        heartbeat: Option<Duration>,
        limits: Limits,
        policies: &[(&str, SlowConsumer)],
    ) -> Self {
        let routes = [ECHO, KICK].map(str::to_owned);
        Self::with_handlers(heartbeat, limits, policies, routes, Arc::new(handlers))
    }

    fn with_handlers(
        heartbeat: Option<Duration>,
        limits: Limits,
        policies: &[(&str, SlowConsumer)],
        routes: impl IntoIterator<Item = String>,
        register: Register,
    ) -> Self {
        // Nobody writes mail here; short lanes are made fast.
        let hub_limits = HubLimits { lane_len: 16, inbox_len: 16 };
        let policies = policies.iter().map(|(route, policy)| ((*route).to_owned(), *policy));
        let routes = RouteTable::new(routes, None, None).with_push_policies(policies);
        let config = ShardConfig {
            limits,
            heartbeat: heartbeat.map(|interval| Heartbeat {
                timeout: interval * 2,
                kept_alive_by: KeptAliveBy::Heartbeats,
            }),
            edition: RwLock::new(Arc::new(Edition::new(
                EditionId::FIRST,
                heartbeat,
                None,
                Arc::new(Schemas::new(EditionId::FIRST, None, &routes)),
                &routes,
            ))),
            ..ShardConfig::bare(routes, None, register)
        };
        Self::of(config, &Hub::new(1, 0, hub_limits))
    }

    fn of(config: ShardConfig, hub: &Arc<Hub>) -> Self {
        let shard = Shard::new(Arc::new(config), ShardIndex(0), hub);
        Self {
            shard,
            now_us: 0,
            sockets: 0,
            holds_sends: false,
            held: Vec::new(),
            sent: Vec::new(),
            transmits: 0,
            commands: Vec::new(),
        }
    }

    /// One turn, in the order that the module's head gives, and one for each time that something
    /// was sent.
    fn turn<T>(&mut self, act: impl FnOnce(&mut Shard) -> T) -> T {
        self.shard.begin_turn(self.now_us);
        let result = act(&mut self.shard);
        loop {
            let sent = self.rest_of_turn();
            if sent.is_empty() {
                return result;
            }
            self.shard.begin_turn(self.now_us);
            finish(&mut self.shard, sent, SendEnd::Sent);
        }
    }

    fn rest_of_turn(&mut self) -> Vec<Transmit> {
        loop {
            self.shard.do_work();
            if !self.shard.run() {
                break;
            }
        }
        let mut sent = Vec::new();
        while let Some(transmit) = self.shard.poll_transmit() {
            self.sent[transmit.socket.0 as usize].extend(transmit.segment.as_slice());
            self.transmits += 1;
            if self.holds_sends { &mut self.held } else { &mut sent }.push(transmit);
        }
        while let Some(command) = self.shard.poll_command() {
            self.commands.push(command);
        }
        self.shard.end_turn(self.now_us);
        sent
    }

    fn accept(&mut self) -> Option<SessionId> {
        let socket = SocketIndex(self.sockets);
        self.sockets += 1;
        self.sent.push(Vec::new());
        self.turn(|shard| shard.handle_accept(socket, "127.0.0.1:9".parse().unwrap()))
    }

    fn receive(&mut self, session: SessionId, bytes: &[u8]) {
        self.turn(|shard| shard.handle_receive(session, &mut bytes.to_vec()));
    }

    /// A session that works, with nothing in `sent`.
    fn ready(&mut self) -> SessionId {
        let session = self.accept().unwrap();
        self.receive(session, &[handshake(), ack()].concat());
        self.sent.last_mut().unwrap().clear();
        session
    }

    /// Lets time pass in turns of [`STEP_MS`].
    fn pass(&mut self, ms: u64) {
        assert!(ms.is_multiple_of(STEP_MS));
        for _ in 0..ms / STEP_MS {
            self.now_us += STEP_MS * 1000;
            self.turn(|_| ());
        }
    }

    fn counters(&self) -> CounterSnapshot {
        self.shard.counters().snapshot()
    }

    /// Asserts that nothing is commanded before that time, and exactly this soon after it.
    fn expect_after(&mut self, ms: u64, command: Command) {
        self.pass(ms - STEP_MS);
        assert_eq!(self.commands, []);
        self.pass(STEP_MS + LATE_MS);
        assert_eq!(std::mem::take(&mut self.commands), [command]);
    }
}

fn finish(shard: &mut Shard, transmits: Vec<Transmit>, end: SendEnd) {
    for Transmit { session, segment, .. } in transmits {
        shard.handle_sent(session, segment, end);
    }
}

fn package(kind: PackageType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    package::encode(kind, body, &mut out).unwrap();
    out
}

fn handshake() -> Vec<u8> {
    package(PackageType::Handshake, br#"{"sys":{}}"#)
}

fn ack() -> Vec<u8> {
    package(PackageType::HandshakeAck, b"")
}

fn heartbeat() -> Vec<u8> {
    package(PackageType::Heartbeat, b"")
}

fn request(id: u32, route: &str, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let route = Some(RouteRef::Text(route.as_bytes()));
    let (kind, body) = (MessageType::Request, body.as_bytes());
    message::encode(&Message { id, kind, route, body, gzip: false }, &mut out).unwrap();
    package(PackageType::Data, &out)
}

fn response(id: u32, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message::encode_response_head(id, &mut out);
    out.extend_from_slice(body.as_bytes());
    package(PackageType::Data, &out)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let len = u8::try_from(payload.len()).unwrap();
    assert!(len < 126);
    [first, 0x80 | len].into_iter().chain(mask).chain(masked).collect()
}

/// A bound on messages that nobody comes to, which keeps them from the loop for those that have
/// none.
fn one_by_one(limits: Limits) -> Limits {
    Limits { messages_per_second: 1_000_000, messages_burst: 1_000_000, ..limits }
}

/// Everything that can be told apart of a connection that was fed these pieces.
fn outcome(pieces: &[&[u8]], in_one_turn: bool) -> (Vec<u8>, Vec<Command>, CounterSnapshot) {
    let mut rig = Rig::new(Some(Duration::from_secs(60)), Limits::default());
    let session = rig.accept().unwrap();
    if in_one_turn {
        rig.turn(|shard| {
            for piece in pieces {
                shard.handle_receive(session, &mut piece.to_vec());
            }
        });
    } else {
        for piece in pieces {
            rig.receive(session, piece);
        }
    }
    let counters = rig.counters();
    (rig.sent.remove(0), rig.commands, counters)
}

fn assert_cuts_do_not_matter(stream: &[u8]) {
    let whole = outcome(&[stream], true);
    assert_eq!(whole.1, [Command::FinishWriting(SocketIndex(0))]);
    for in_one_turn in [true, false] {
        for cut in cases(499, 1..stream.len()) {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(outcome(&[head, tail], in_one_turn), whole, "cut at {cut}");
        }
        for len in cases(4, [7, 3, 2, 1]) {
            let pieces: Vec<&[u8]> = stream.chunks(len).collect();
            assert_eq!(outcome(&pieces, in_one_turn), whole, "pieces of {len}");
        }
    }
}

#[test]
fn packages_may_be_cut_anywhere() {
    assert_cuts_do_not_matter(
        &[
            heartbeat(),
            handshake(),
            handshake(),
            ack(),
            heartbeat(),
            request(1, ECHO, r#"{"a":1}"#),
            request(300, "no.such.route", "{}"),
            package(PackageType::Data, b"\x0e{}"),
            request(70_000, ECHO, &"7".repeat(300)),
            request(2, ECHO, ""),
            request(3, KICK, ""),
            request(4, ECHO, "never"),
        ]
        .concat(),
    );
    assert_cuts_do_not_matter(
        &[handshake(), ack(), request(1, ECHO, "1"), vec![9, 0, 0, 0], ack()].concat(),
    );
}

#[test]
fn frames_may_be_cut_anywhere() {
    let head = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let asked = request(1, ECHO, "\"é\"");
    let frames = [
        frame(0x82, &handshake()),
        frame(0x81, &ack()),
        frame(0x89, b"ping"),
        frame(0x01, &asked[..asked.len() - 2]),
        frame(0x89, b""),
        frame(0x00, b""),
        frame(0x80, &asked[asked.len() - 2..]),
        frame(0x82, &[request(2, ECHO, "2"), request(3, ECHO, "3")].concat()),
    ]
    .concat();
    let goodbye = frame(0x88, b"\x03\xe9bye");
    assert_cuts_do_not_matter(&[head, &frames[..], &goodbye].concat());
    // What is wrong shows at the last byte of each.
    for bad in cases(3, [&[0xc2][..], &[0x82, 0], &[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]]) {
        assert_cuts_do_not_matter(&[head, &frames[..], bad].concat());
    }
    assert_cuts_do_not_matter(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nmore");
}

#[test]
fn a_pipelined_burst_is_answered_in_order_and_in_one_piece() {
    let mut rig = Rig::new(None, Limits::default());
    let session = rig.ready();
    let transmits = rig.transmits;
    let ids = 1..=repetitions(1000);
    let burst = ids.clone().flat_map(|id| request(id, ECHO, &id.to_string()));
    rig.receive(session, &burst.collect::<Vec<u8>>());
    let expected: Vec<u8> = ids.flat_map(|id| response(id, &id.to_string())).collect();
    assert!(rig.sent[0] == expected);
    assert_eq!(rig.transmits, transmits + 1);
}

/// Routes that differ in little; more of them than are kept as recent.
const NUMBERED: usize = 3 * 32;

fn numbered(number: usize) -> String {
    format!("connector.entryHandler.n{number}")
}

#[test]
fn each_route_reaches_its_own_handler_whatever_came_before() {
    let all = [ECHO, KICK].map(str::to_owned).into_iter().chain((0..NUMBERED).map(numbered));
    let register = Arc::new(|to: &mut Handlers| {
        handlers(to);
        for number in 0..NUMBERED {
            to.handler(&numbered(number), move |_, _| Reply::json(&number));
        }
    });
    let mut rig = Rig::with_handlers(None, Limits::default(), &[], all, register);
    let session = rig.ready();
    let mut expected = Vec::new();
    let mut burst = Vec::new();
    for step in 0..repetitions(20 * NUMBERED as u32) as usize {
        // In order, by turns, and some that nobody handles.
        let number = [step, step / 2 % 2 * 32 + step % 3, step * 7][step % 3] % (NUMBERED + 1);
        let id = step as u32 + 1;
        burst.extend(request(id, &numbered(number), ""));
        expected.extend(match number {
            // What JavaScript takes for nothing.
            0 => response(id, "{}"),
            NUMBERED => response(id, "{\"code\":500}"),
            number => response(id, &number.to_string()),
        });
    }
    rig.receive(session, &burst);
    assert!(rig.sent[0] == expected);
}

#[test]
fn only_heartbeats_keep_a_client_alive_and_two_missed_ones_close_it() {
    let mut rig = Rig::new(Some(Duration::from_secs(1)), Limits::default());
    let session = rig.ready();
    for _ in 0..20 {
        rig.pass(900);
        rig.receive(session, &heartbeat());
    }
    assert_eq!(rig.sent[0], heartbeat().repeat(20));
    rig.pass(1_000);
    rig.receive(session, &request(1, ECHO, "1"));
    rig.expect_after(1_000, Command::FinishWriting(SocketIndex(0)));
    assert_eq!(rig.counters().closed_heartbeat_timeout, 1);
}

/// The process may be stopped, or a handler may block: what clients sent meanwhile is read in the
/// same turn in which their time is up.
#[test]
fn a_stall_closes_nobody() {
    let mut rig = Rig::new(Some(Duration::from_secs(1)), Limits::default());
    let session = rig.ready();
    for _ in 0..5 {
        rig.now_us += 10_000_000;
        rig.turn(|_| ());
    }
    // The stall counts as little, not as nothing.
    assert_eq!((&rig.commands[..], rig.counters().closed_heartbeat_timeout), (&[][..], 0));
    rig.receive(session, &heartbeat());
    rig.expect_after(2_000, Command::FinishWriting(SocketIndex(0)));
}

#[test]
fn whoever_does_not_come_to_work_in_time_is_cut() {
    let starts: [&[u8]; 5] = [b"", b"GET /", &[1, 0], &ack(), &handshake()];
    for start in starts {
        let mut rig = Rig::new(None, Limits::default());
        let session = rig.accept().unwrap();
        for byte in start {
            rig.receive(session, &[*byte]);
        }
        rig.expect_after(10_000, Command::Close(SocketIndex(0)));
        assert_eq!(rig.counters().closed_handshake_timeout, 1, "{start:x?}");
        rig.turn(|shard| shard.handle_socket_closed(session));
        assert_eq!(rig.shard.connections_open(), 0);
    }
}

#[test]
fn without_heartbeats_any_byte_keeps_a_client() {
    let idle_ms = repetitions(90_000).into();
    let idle_timeout = Duration::from_millis(idle_ms);
    let mut rig = Rig::new(None, Limits { idle_timeout, ..Limits::default() });
    let session = rig.ready();
    for byte in request(1, ECHO, "1") {
        rig.pass(idle_ms / 9 * 8);
        rig.receive(session, &[byte]);
    }
    assert_eq!(rig.sent[0], response(1, "1"));
    rig.expect_after(idle_ms, Command::FinishWriting(SocketIndex(0)));
    assert_eq!(rig.counters().closed_idle, 1);
}

#[test]
fn a_client_that_does_not_close_is_cut_after_the_linger() {
    let mut rig = Rig::new(None, Limits::default());
    let session = rig.ready();
    rig.receive(session, &[9, 0, 0, 0]);
    assert_eq!(std::mem::take(&mut rig.commands), [Command::FinishWriting(SocketIndex(0))]);
    let requests = rig.counters().requests;
    rig.pass(500);
    rig.receive(session, &request(1, ECHO, "1"));
    rig.expect_after(500, Command::Close(SocketIndex(0)));
    assert_eq!((&rig.sent[0][..], rig.counters().requests), (&[][..], requests));
    // It was closed once, for one reason.
    let counters = rig.counters();
    assert_eq!((counters.closed_protocol, counters.closed_by_peer), (1, 0));
    assert_eq!(counters.linger_cuts, 1);

    // One that does is cut at once.
    let session = rig.ready();
    rig.receive(session, &[9, 0, 0, 0]);
    rig.turn(|shard| shard.handle_receive_end(session, ReceiveEnd::Eof));
    let socket = SocketIndex(1);
    assert_eq!(rig.commands, [Command::FinishWriting(socket), Command::Close(socket)]);
    assert_eq!(rig.counters().linger_cuts, 1);
}

#[test]
fn a_kick_comes_behind_what_was_answered_and_nothing_behind_it() {
    let mut rig = Rig::new(None, Limits::default());
    let session = rig.ready();
    let all = [request(1, ECHO, "1"), request(2, KICK, ""), request(3, ECHO, "3")].concat();
    rig.receive(session, &all);
    rig.receive(session, &request(4, ECHO, "4"));
    let kick = package(PackageType::Kick, br#"{"reason":"bye"}"#);
    assert_eq!(rig.sent[0], [response(1, "1"), kick].concat());
    assert_eq!(rig.commands, [Command::FinishWriting(SocketIndex(0))]);
    assert_eq!(rig.counters().closed_by_kick, 1);
}

#[test]
fn a_close_waits_for_the_segment_in_flight_and_the_rest() {
    let mut rig = Rig::new(None, Limits::default());
    let session = rig.ready();
    rig.holds_sends = true;
    rig.receive(session, &request(1, ECHO, "1"));
    rig.receive(session, &[request(2, ECHO, "2"), vec![9, 0, 0, 0]].concat());
    // One segment is in flight at a time.
    assert_eq!((&rig.sent[0], rig.held.len()), (&response(1, "1"), 1));
    for expected in [response(2, "2"), Vec::new()] {
        assert_eq!(rig.commands, []);
        rig.sent[0].clear();
        let held = std::mem::take(&mut rig.held);
        rig.turn(|shard| finish(shard, held, SendEnd::Sent));
        assert_eq!(rig.sent[0], expected);
    }
    assert_eq!(rig.commands, [Command::FinishWriting(SocketIndex(0))]);

    rig.turn(|shard| shard.handle_receive_end(session, ReceiveEnd::Eof));
    rig.turn(|shard| shard.handle_socket_closed(session));

    // A client that never takes it is cut after the linger.
    let session = rig.ready();
    rig.commands.clear();
    rig.receive(session, &[9, 0, 0, 0]);
    rig.expect_after(1_000, Command::Close(SocketIndex(1)));
    let held = std::mem::take(&mut rig.held);
    assert_eq!(held.len(), 1);
    rig.turn(|shard| finish(shard, held, SendEnd::Error));
    rig.turn(|shard| shard.handle_socket_closed(session));
    assert_eq!((&rig.commands[..], rig.shard.connections_open()), (&[][..], 0));
}

#[test]
fn a_client_that_reads_nothing_is_cut_at_its_bound() {
    const OUTBOX_BYTES_MAX: usize = 64 * 1024;
    let limits = Limits {
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        package_bytes_max: 16 * 1024,
        ..Limits::default()
    };
    let mut rig = Rig::new(None, limits);
    let other = rig.ready();
    let session = rig.ready();
    rig.holds_sends = true;
    let body = "7".repeat(1000);
    let mut queued = 0;
    while rig.commands.is_empty() {
        // Something that it has not asked for: its own requests are not read that long.
        let slot = session.slot();
        rig.turn(|shard| {
            shard.outbound_mut().send_package(slot, PackageType::Data, body.as_bytes())
        });
        queued += package(PackageType::Data, body.as_bytes()).len();
        assert!(queued <= OUTBOX_BYTES_MAX + 2 * 1024);
    }
    assert!(queued > OUTBOX_BYTES_MAX);
    assert_eq!(rig.commands, [Command::Close(SocketIndex(1))]);
    assert_eq!(rig.counters().closed_slow_consumer, 1);
    let held = std::mem::take(&mut rig.held);
    rig.turn(|shard| finish(shard, held, SendEnd::Error));
    rig.turn(|shard| shard.handle_socket_closed(session));
    rig.holds_sends = false;
    rig.receive(other, &request(1, ECHO, "1"));
    assert_eq!(rig.sent[0], response(1, "1"));
    assert_eq!(rig.counters().connections_closed, 1);
}

#[test]
fn a_stale_id_reaches_nobody() {
    let mut rig = Rig::new(None, Limits::default());
    let stale = rig.ready();
    rig.turn(|shard| shard.handle_receive_end(stale, ReceiveEnd::Error));
    assert_eq!(std::mem::take(&mut rig.commands), [Command::Close(SocketIndex(0))]);
    rig.turn(|shard| shard.handle_socket_closed(stale));
    let session = rig.ready();
    assert_eq!(session.slot(), stale.slot());
    let before = rig.counters();
    rig.receive(stale, &[9, 0, 0, 0]);
    rig.turn(|shard| {
        shard.handle_receive_end(stale, ReceiveEnd::Eof);
        shard.handle_sent(stale, Segment::Owned(vec![0; 9]), SendEnd::Error);
        shard.handle_socket_closed(stale);
    });
    let bytes_in = before.bytes_in + 4;
    assert_eq!(
        (rig.counters(), &rig.commands[..]),
        (CounterSnapshot { bytes_in, ..before }, &[][..])
    );
    rig.receive(session, &request(1, ECHO, "1"));
    assert_eq!(rig.sent[1], response(1, "1"));
}

#[test]
fn heartbeats_do_not_count_for_the_rate_of_messages() {
    let limits = Limits { messages_per_second: 1, messages_burst: 2, ..Limits::default() };
    let mut rig = Rig::new(Some(Duration::from_secs(1)), limits);
    let session = rig.ready();
    let requests: Vec<u8> = (1..=3).flat_map(|id| request(id, ECHO, "1")).collect();
    rig.receive(session, &[heartbeat().repeat(20), requests].concat());
    let answers = [response(1, "1"), response(2, "1"), response(3, r#"{"code":500}"#)].concat();
    assert!(rig.sent[0].ends_with(&answers));
    assert_eq!(rig.counters().message_rate_rejects, 1);
}

#[test]
fn a_turn_reads_so_much_mail_of_the_host() {
    let hub_limits = HubLimits { lane_len: 16, inbox_len: 4 * MAILS_PER_PARTY };
    let hub = Hub::new(1, 0, hub_limits);
    let routes = RouteTable::new([], None, None);
    let mut rig = Rig::of(ShardConfig::bare(routes, None, Arc::new(handlers)), &hub);
    let (stale, session) = (rig.ready(), rig.ready());
    rig.turn(|shard| shard.handle_receive_end(stale, ReceiveEnd::Error));
    let kick = |session| {
        assert!(hub.send_from_host(ShardIndex(0), Mail::Kick { session, reason: None }).is_ok());
    };
    (0..2 * MAILS_PER_PARTY).for_each(|_| kick(stale));
    kick(session);
    for kicked in [0, 0, 1] {
        fairness::one_turn(&mut rig, &[]);
        assert_eq!(rig.counters().closed_by_kick, kicked);
        assert_eq!(rig.shard.has_more, kicked == 0, "the next turn follows at once");
    }
}

#[test]
fn a_refused_connection_takes_no_place() {
    let mut rig = Rig::new(None, Limits { connections_max: 1, ..Limits::default() });
    let session = rig.accept().unwrap();
    for _ in 0..3 {
        assert_eq!(rig.accept(), None);
    }
    assert_eq!(rig.counters().refused_max_connections, 3);
    rig.turn(|shard| shard.handle_receive_end(session, ReceiveEnd::Error));
    rig.turn(|shard| shard.handle_socket_closed(session));
    assert!(rig.accept().is_some());
}

/// Editions are told apart by 16 bits: one that is named like that of a session from long ago must
/// not give its codes another meaning.
#[test]
fn a_session_is_closed_when_the_id_of_its_edition_comes_again() {
    let mut rig = Rig::new(None, Limits::default());
    let session = rig.ready();
    let edition = |id| {
        let routes = RouteTable::default();
        Arc::new(Edition::plain(EditionId(id), None, &routes))
    };
    let known = EditionId::FIRST.0;
    rig.turn(|shard| shard.outbound_mut().add_edition(edition(known + 1)));
    assert!(rig.shard.connections_mut().find(session).is_some());
    rig.turn(|shard| shard.outbound_mut().add_edition(edition(known)));
    assert!(rig.shard.connections_mut().find(session).is_none_or(|(_, it)| !it.state.is_reading()));
    assert_eq!(rig.counters().closed_protocol, 1);
}
