//! Messages that nothing stands before are handled in a loop of their own. A filter that does
//! nothing keeps them from it: both ways have to come to the same.

use super::*;
use crate::dispatch::{Audience, Filter, Request, Session, Verdict};

/// A filter that lets everything by.
struct Idle;

impl Filter for Idle {
    fn before(&self, _: &Request<'_>, _: &mut Session) -> Verdict {
        Verdict::Continue
    }

    fn after(&self, _: &Request<'_>, _: &mut Session, _: &mut Reply<'_>) {}
}

const FAIL: &str = "connector.entryHandler.n0";
const PANIC: &str = "connector.entryHandler.n1";
const LATER: &str = "connector.entryHandler.n2";
const PUSH: &str = "connector.entryHandler.n3";
const SET: &str = "connector.entryHandler.n4";
const ROUTES: [&str; 8] =
    [ECHO, FAIL, PANIC, LATER, PUSH, SET, "connector.entryHandler.none", "no.such.route"];

fn eventful(handlers: &mut Handlers) {
    super::handlers(handlers);
    handlers
        .handler(FAIL, |request, _| Reply::error_json(&request.value()))
        .handler(PANIC, |_, _| std::panic::resume_unwind(Box::new(())))
        .handler(LATER, |_, _| Reply::later(async { Reply::json(&1) }))
        .handler(PUSH, |request, session| {
            let body = request.id().to_string();
            let audience = Audience::all();
            session.context().broadcast("onPush", body.as_bytes(), audience).expect("it is short");
            Reply::empty()
        })
        // Tells what the message before it has left, which must be nothing.
        .handler(SET, |_, session| {
            let seen = Reply::json(&session.get("left").is_some());
            session.set("left", true);
            seen
        });
}

fn rig(is_direct: bool, limits: Limits) -> Rig {
    let register: Register = match is_direct {
        true => Arc::new(eventful),
        false => Arc::new(|handlers: &mut Handlers| {
            eventful(handlers);
            handlers.global_filter(Idle);
        }),
    };
    Rig::with_handlers(Some(Duration::from_secs(60)), limits, &[], register)
}

/// Numbers that differ from seed to seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// A package that a client may send, or should not.
fn any_package(numbers: &mut Numbers) -> Vec<u8> {
    let bodies = ["", "{}", "1", "null", r#"{"a":"some text"}"#];
    let body = bodies[numbers.below(bodies.len())];
    let route = ROUTES[numbers.below(ROUTES.len())];
    let id = [0, 1, 127, 128, 16_383, 16_384, 70_000, u32::MAX][numbers.below(8)];
    match numbers.below(24) {
        0 => heartbeat(),
        1 => handshake(),
        2 => package(PackageType::Data, b"\x0e"),
        3 => package(PackageType::Data, &[0x05, 1, 0, 9]),
        kind => {
            let kind = match kind {
                4..8 => MessageType::Notify,
                8 => MessageType::Push,
                _ => MessageType::Request,
            };
            let route = Some(RouteRef::Text(route.as_bytes()));
            let mut out = Vec::new();
            let body = body.as_bytes();
            message::encode(&Message { id, kind, route, body, gzip: false }, &mut out).unwrap();
            package(PackageType::Data, &out)
        }
    }
}

/// What comes of the same script: the bytes that were sent, what was commanded, what was counted.
fn run(is_direct: bool, seed: u64) -> (Vec<Vec<u8>>, Vec<Command>, Snapshot) {
    let mut numbers = Numbers(seed * 2 + 1);
    let limits = Limits {
        outbox_bytes_max: [Limits::default().outbox_bytes_max, 2_000][numbers.below(2)],
        messages_per_turn_max: [Limits::default().messages_per_turn_max, 5][numbers.below(2)],
        ..Limits::default()
    };
    let mut rig = rig(is_direct, limits);
    let session = rig.accept().unwrap();
    let is_websocket = numbers.below(2) == 1;
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let wrap = |first: u8, package: Vec<u8>| match is_websocket {
        true => frame(first, &package),
        false => package,
    };
    if is_websocket {
        rig.receive(session, upgrade);
    }
    rig.receive(session, &[wrap(0x82, handshake()), wrap(0x82, ack())].concat());
    rig.holds_sends = numbers.below(4) == 0;
    let mut input = Vec::new();
    for _ in 0..40 {
        let package = any_package(&mut numbers);
        match numbers.below(12) {
            0 if is_websocket => {
                let (one, other) = package.split_at(numbers.below(package.len()));
                input.extend(frame(0x02, one));
                input.extend(frame(0x80, other));
            }
            1 if is_websocket => {
                let both = [package.clone(), request(9, ECHO, "2")].concat();
                input.extend(if both.len() < 126 { frame(0x82, &both) } else { Vec::new() });
            }
            2 if is_websocket => input.extend(frame(0x89, b"ping")),
            _ => input.extend(wrap(0x82, package)),
        }
    }
    let mut rest = &input[..];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + numbers.below(400)).min(rest.len()));
        rig.receive(session, piece);
        rest = behind;
    }
    rig.pass(STEP_MS * 4);
    (rig.sent.clone(), std::mem::take(&mut rig.commands), rig.counters())
}

#[test]
fn a_filter_that_does_nothing_changes_nothing() {
    let mut answered = 0;
    for seed in 1..2_000 {
        let (direct, other) = (run(true, seed), run(false, seed));
        answered += direct.2.answers;
        assert!(direct.0 == other.0, "seed {seed}: {:?}, {:?}", direct.0, other.0);
        assert_eq!((direct.1, direct.2), (other.1, other.2), "seed {seed}");
    }
    assert!(answered > 10_000, "{answered} answers are few for these scripts");
}
