//! Clients that do not read, and the policies of what is pushed to them.

use super::*;
use crate::dispatch::Audience;
use crate::dispatch::context::ClientCall;
use crate::route::push::Push;
use crate::wire::websocket;

const POLICIES: [(&str, SlowConsumer); 2] =
    [("onTick", SlowConsumer::KeepLatest), ("onEffect", SlowConsumer::DropOldest)];
const AGE_MS: u64 = 1_000;

fn limits() -> Limits {
    Limits { outbox_age_max: Duration::from_millis(AGE_MS), ..Limits::default() }
}

/// A client that has stopped reading: the first answer is in flight for good.
fn stuck(limits: Limits) -> (Rig, SessionId) {
    let mut rig = Rig::with_policies(None, limits, &POLICIES);
    let session = rig.ready();
    rig.holds_sends = true;
    rig.receive(session, &request(1, ECHO, "first"));
    assert_eq!(std::mem::take(&mut rig.sent[0]), response(1, "first"));
    (rig, session)
}

fn push(rig: &mut Rig, route: &str, body: &str) {
    let push = {
        let config = rig.shard.forwarder().config();
        Push::encode(&config.routes, &config.edition(), route, body.as_bytes()).unwrap()
    };
    rig.turn(|shard| shard.forwarder_mut().broadcast(&push, &Audience::all()));
}

fn pushed(route: &str, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message::encode_push_head(&RouteRef::Text(route.as_bytes()), &mut out).unwrap();
    out.extend_from_slice(body.as_bytes());
    package(PackageType::Data, &out)
}

/// The client reads again; what it gets.
fn read_again(rig: &mut Rig) -> Vec<u8> {
    rig.holds_sends = false;
    let held = std::mem::take(&mut rig.held);
    rig.turn(|shard| finish(shard, held, SendEnd::Sent));
    std::mem::take(&mut rig.sent[0])
}

#[test]
fn a_slow_client_gets_all_answers_and_the_latest_pushes() {
    let (mut rig, session) = stuck(limits());
    push(&mut rig, "onTick", "1");
    push(&mut rig, "onChat", "hello");
    push(&mut rig, "onTick", "2");
    rig.receive(session, &request(2, ECHO, "second"));
    push(&mut rig, "onEffect", "boom");
    push(&mut rig, "onTick", "3");
    rig.receive(session, &request(3, ECHO, "third"));
    let expected = [
        pushed("onChat", "hello"),
        response(2, "second"),
        pushed("onEffect", "boom"),
        pushed("onTick", "3"),
        response(3, "third"),
    ];
    assert_eq!(read_again(&mut rig), expected.concat());
    let counters = rig.counters();
    assert_eq!((counters.pushes, counters.pushes_replaced, counters.pushes_dropped), (5, 2, 0));
}

#[test]
fn frames_stand_before_the_pushes_that_are_left() {
    let mut rig = Rig::with_policies(None, limits(), &POLICIES);
    let session = rig.accept().unwrap();
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    rig.receive(session, &[&upgrade[..], &frame(0x82, &handshake())].concat());
    rig.holds_sends = true;
    rig.receive(session, &[frame(0x82, &ack()), frame(0x82, &request(1, ECHO, "1"))].concat());
    rig.sent[0].clear();
    let long = "x".repeat(70_000);
    for number in 0..3 {
        push(&mut rig, "onTick", &format!("{number}{long}"));
        push(&mut rig, "onEffect", &number.to_string());
    }
    let mut expected = Vec::new();
    for package in [
        pushed("onEffect", "0"),
        pushed("onEffect", "1"),
        pushed("onTick", &format!("2{long}")),
        pushed("onEffect", "2"),
    ] {
        websocket::encode_binary_header(package.len(), &mut expected);
        expected.extend(package);
    }
    assert!(read_again(&mut rig) == expected);
}

#[test]
fn the_oldest_go_at_the_bounds_of_bytes_and_pushes() {
    let bytes = Limits {
        package_bytes_max: 1_000,
        handshake_package_bytes_max: 1_000,
        outbox_bytes_max: 4_000,
        ..limits()
    };
    for limits in [bytes, Limits { outbox_pushes_max: 3, ..limits() }] {
        let (mut rig, _) = stuck(limits);
        let body = |number: usize| format!("{number}{}", "x".repeat(1_000));
        for number in 0..50 {
            push(&mut rig, "onEffect", &body(number));
        }
        let left = (47..50).map(|number| pushed("onEffect", &body(number)));
        assert_eq!(read_again(&mut rig), left.collect::<Vec<_>>().concat());
        let counters = rig.counters();
        assert_eq!((counters.pushes_dropped, counters.closed_slow_consumer), (47, 0));
    }
}

/// Pushes that may not be dropped count, and close at the bound.
#[test]
fn what_is_owed_is_never_dropped() {
    let limits = Limits {
        package_bytes_max: 1_000,
        handshake_package_bytes_max: 1_000,
        outbox_bytes_max: 4_000,
        ..limits()
    };
    for route in ["onTick", "onChat"] {
        let (mut rig, session) = stuck(limits.clone());
        let body = "x".repeat(900);
        push(&mut rig, "onEffect", &body);
        push(&mut rig, route, &body);
        let answer = |rig: &mut Rig, id| {
            let client = ClientCall { session, id, route: None, bytes: 0, started_us: 0 };
            // Of a request that was read long ago: what is asked now is not read any more.
            rig.turn(|shard| shard.outbound_mut().answer(&client, &Reply::bytes(body.clone())));
        };
        for id in 2..5 {
            answer(&mut rig, id);
        }
        assert_eq!((rig.counters().pushes_dropped, rig.counters().closed_slow_consumer), (1, 0));
        rig.commands.clear();
        answer(&mut rig, 5);
        assert_eq!(rig.counters().closed_slow_consumer, 1);
        assert_eq!(rig.commands, [Command::Close(SocketIndex(0))]);
    }
}

#[test]
fn a_client_that_reads_nothing_for_too_long_is_disconnected() {
    let (mut rig, _) = stuck(limits());
    let idle = rig.ready();
    rig.expect_after(AGE_MS, Command::Close(SocketIndex(0)));
    assert_eq!(rig.counters().closed_outbox_age, 1);
    assert!(rig.shard.connections_mut().find(idle).is_some(), "nothing waits for it");
}

#[test]
fn pushes_that_may_be_dropped_disconnect_nobody() {
    let mut rig = Rig::with_policies(None, limits(), &POLICIES);
    rig.ready();
    rig.holds_sends = true;
    push(&mut rig, "onTick", "0");
    rig.sent[0].clear();
    push(&mut rig, "onEffect", "late");
    push(&mut rig, "onTick", "1");
    rig.pass(3 * AGE_MS);
    push(&mut rig, "onEffect", "now");
    assert_eq!(rig.counters().closed_outbox_age, 0);
    assert_eq!(rig.counters().pushes_dropped, 1);
    let expected = [pushed("onTick", "1"), pushed("onEffect", "now")];
    assert_eq!(read_again(&mut rig), expected.concat());
}

/// A push to many takes the shell several turns; who is answered meanwhile does not wait for all of
/// them, and gets its own push before the answer, as that is the order they came in.
#[test]
fn an_answer_does_not_wait_for_a_push_to_all_others() {
    const SESSIONS: usize = if cfg!(miri) { 20 } else { 100 };
    let mut rig = Rig::new(None, Limits::default());
    let sessions: Vec<SessionId> = (0..SESSIONS).map(|_| rig.ready()).collect();
    let tick = {
        let config = rig.shard.forwarder().config();
        Push::encode(&config.routes, &config.edition(), "onTick", b"1").unwrap()
    };
    let first = |rig: &mut Rig, count: usize| -> Vec<Transmit> {
        (0..count).map_while(|_| rig.shard.poll_transmit()).collect()
    };
    for asking in [0, SESSIONS / 2, SESSIONS - 1] {
        rig.shard.begin_turn(rig.now_us);
        rig.shard.forwarder_mut().broadcast(&tick, &Audience::all());
        rig.shard.handle_receive(sessions[asking], &mut request(1, ECHO, "1"));
        let some = first(&mut rig, 4);
        let place = SocketIndex(asking as u32);
        let answer = some.iter().find(|transmit| transmit.socket == place).expect("it is early");
        let expected = [pushed("onTick", "1"), response(1, "1")].concat();
        assert_eq!(answer.segment.as_slice(), expected);
        finish(&mut rig.shard, some, SendEnd::Sent);
        let rest = first(&mut rig, usize::MAX);
        assert_eq!(rest.len(), SESSIONS - 4, "each is sent to once");
        finish(&mut rig.shard, rest, SendEnd::Sent);
        assert!(first(&mut rig, 1).is_empty());
    }
}

/// A client may ask for as much as it likes before it reads: it gets all answers, in order.
#[test]
fn a_client_that_asks_and_does_not_read_is_not_read_either() {
    const REQUESTS: u32 = if cfg!(miri) { 200 } else { 2_000 };
    let limits = Limits {
        package_bytes_max: 1_000,
        handshake_package_bytes_max: 1_000,
        outbox_bytes_max: 8_000,
        ..limits()
    };
    let (mut rig, session) = stuck(limits);
    let other = rig.ready();
    let body = "x".repeat(100);
    let stream: Vec<u8> = (2..=REQUESTS).flat_map(|id| request(id, ECHO, &body)).collect();
    for piece in stream.chunks(3_000) {
        rig.receive(session, piece);
        assert!(rig.shard.connections_mut().find(session).unwrap().1.outbox.bytes() < 4_200);
    }
    assert_eq!(rig.commands, [Command::PauseReading(SocketIndex(0))]);
    rig.receive(other, &request(1, ECHO, "1"));
    assert_eq!(rig.counters().requests, rig.counters().answers);
    let read = rig.counters().requests;

    let sent = read_again(&mut rig);
    let answers = (2..=REQUESTS).flat_map(|id| response(id, &body));
    assert!(sent == answers.collect::<Vec<_>>());
    let counters = rig.counters();
    assert!(counters.outbox_pauses > 1 && counters.requests > read);
    assert_eq!((counters.closed_slow_consumer, counters.reading_pauses), (0, 0));
    assert_eq!(rig.commands.last(), Some(&Command::ResumeReading(SocketIndex(0))));
    assert!(
        rig.shard.outbound().has_no_pauses() && rig.shard.connections().budgets().held_bytes() == 0
    );
}

/// However full pushes keep an outbox: a client that reads is read.
#[test]
fn pushes_do_not_keep_a_client_that_reads_from_being_read() {
    let limits = Limits {
        package_bytes_max: 1_000,
        handshake_package_bytes_max: 1_000,
        outbox_bytes_max: 8_000,
        ..limits()
    };
    for route in ["onChat", "onEffect"] {
        let (mut rig, session) = stuck(limits.clone());
        let body = "x".repeat(900);
        for id in 2..20 {
            rig.receive(session, &request(id, ECHO, &body));
        }
        assert_eq!(rig.counters().outbox_pauses, 1);
        let mut rounds = 0;
        while rig.counters().requests < 19 {
            rounds += 1;
            assert!(rounds < 100, "it is never read again");
            // Whatever has gone, as much comes: it is never below a quarter.
            let held = std::mem::take(&mut rig.held);
            rig.turn(|shard| finish(shard, held, SendEnd::Sent));
            while rig.shard.connections_mut().find(session).unwrap().1.outbox.bytes() < 5_000 {
                push(&mut rig, route, &body);
            }
        }
        assert_eq!(rig.counters().closed_slow_consumer, 0);
    }
}

/// A paused client is owed something, so that time finds it if nothing else does.
#[test]
fn a_client_that_asks_and_never_reads_is_disconnected() {
    let limits = Limits {
        package_bytes_max: 1_000,
        handshake_package_bytes_max: 1_000,
        outbox_bytes_max: 8_000,
        idle_timeout: Duration::from_millis(AGE_MS / 2),
        ..limits()
    };
    let (mut rig, session) = stuck(limits);
    for id in 2..20 {
        rig.receive(session, &request(id, ECHO, &"x".repeat(900)));
    }
    rig.pass(AGE_MS - STEP_MS);
    assert_eq!(rig.counters().closed_outbox_age + rig.counters().closed_idle, 0);
    rig.pass(AGE_MS / 4 + LATE_MS);
    assert_eq!(rig.counters().closed_outbox_age, 1);
    assert!(
        rig.shard.outbound().has_no_pauses() && rig.shard.connections().budgets().held_bytes() == 0
    );
}

/// Nor is who pings and does not read, whatever the ping is.
#[test]
fn a_client_that_does_not_read_its_heartbeats_or_pongs_is_not_read() {
    const OUTBOX_BYTES: usize = 8 * 1024;
    let limits = Limits {
        outbox_bytes_max: OUTBOX_BYTES,
        package_bytes_max: 4_000,
        handshake_package_bytes_max: 1_000,
        ..Limits::default()
    };
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    for is_websocket in [false, true] {
        let mut rig = Rig::new(Some(Duration::from_secs(1)), limits.clone());
        let session = rig.accept().unwrap();
        let wrap = |package: Vec<u8>| if is_websocket { frame(0x82, &package) } else { package };
        let start = if is_websocket { &upgrade[..] } else { b"" };
        rig.receive(session, &[start, &wrap(handshake()), &wrap(ack())].concat());
        rig.holds_sends = true;
        let ping = if is_websocket { frame(0x89, &[b'a'; 100]) } else { heartbeat() };
        for _ in 0..50 {
            rig.receive(session, &ping.repeat(OUTBOX_BYTES / ping.len()));
        }
        assert_eq!(rig.counters().closed_slow_consumer, 0, "WebSocket: {is_websocket}");
        assert_eq!(rig.counters().outbox_pauses, 1);
        assert!(rig.shard.connections().budgets().is_held(session));
    }
}
