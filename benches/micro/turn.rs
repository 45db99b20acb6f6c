//! A whole turn of the core without sockets: the work of a busy shard between two waits on its
//! ring.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use serde::{Deserialize, Serialize};
use shaddock::internals::Core;
use shaddock::route::Dictionary;
use shaddock::wire::message::RouteRef;
use shaddock::wire::package::PackageType;
use shaddock::{Handlers, Reply, SessionId};

use crate::traffic::{BODY, FIRST_ID, ROUTE, ROUTES, frame, package, request};

const SESSIONS: usize = 100;
const REQUESTS: usize = 16;
const TURN_US: u64 = 100;
/// 4 bytes of package, 3 of message, and the body.
const ANSWER_BYTES: usize = 4 + 3 + BODY.len();
/// A mask that leaves the bytes unchanged, so that each turn can read the same buffer. Unmasking
/// costs the same with it.
const MASK: [u8; 4] = [0; 4];
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

pub(crate) fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn, 1600 messages of 64 B");
    group.throughput(Throughput::Elements((SESSIONS * REQUESTS) as u64));
    let dictionary = Dictionary::new(ROUTES, ["onChat"]).expect("the routes are few");
    let code = dictionary.code(ROUTE).expect("it is in the dictionary");
    let text = |_| RouteRef::Text(ROUTE.as_bytes());
    let mixed = |at: usize| RouteRef::Text(ROUTES[at * 5 % ROUTES.len()].as_bytes());

    bench(&mut group, "TCP, text route", None, requests(text, |package| package));
    let codes = requests(|_| RouteRef::Code(code), |package| package);
    bench(&mut group, "TCP, code route", Some(&dictionary), codes);
    bench(&mut group, "TCP, text routes mixed", None, requests(mixed, |package| package));
    let frames = requests(text, |package| frame(MASK, &package));
    bench_websocket(&mut group, "WebSocket, text route", frames);
    // The pair of the first row: the same echo, read and written by serde.
    let core = Core::new(&ROUTES, None, typed_handlers);
    let input = requests(text, |package| package);
    let hello = [hello(), ack()].concat();
    run(&mut group, "TCP, text route, typed", core, &hello, input, ANSWER_BYTES);
}

/// The bytes that one client sends for one turn.
fn requests<'a>(
    route: impl Fn(usize) -> RouteRef<'a>,
    wrap: impl Fn(Vec<u8>) -> Vec<u8>,
) -> Vec<u8> {
    let one = |at: usize| wrap(request(FIRST_ID + at as u32, route(at), BODY));
    (0..REQUESTS).flat_map(one).collect()
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    dictionary: Option<&Dictionary>,
    input: Vec<u8>,
) {
    let core = Core::new(&ROUTES, dictionary, handlers);
    let hello = [hello(), ack()].concat();
    run(group, name, core, &hello, input, ANSWER_BYTES);
}

fn bench_websocket(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, input: Vec<u8>) {
    let core = Core::new(&ROUTES, None, handlers);
    let hello = [UPGRADE, &frame(MASK, &hello()), &frame(MASK, &ack())].concat();
    run(group, name, core, &hello, input, 2 + ANSWER_BYTES);
}

fn run(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut core: Core,
    hello: &[u8],
    input: Vec<u8>,
    answer_bytes: usize,
) {
    core.begin_turn(TURN_US);
    let sessions: Vec<SessionId> =
        (0..SESSIONS).map(|_| core.accept().expect("there is room")).collect();
    for &session in &sessions {
        core.receive(session, &mut hello.to_vec());
    }
    core.end_turn(|_, _| ());
    // Each client's bytes have a buffer of their own, as the kernel delivers them.
    let mut inputs = vec![input; SESSIONS];
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            core.begin_turn(TURN_US);
            for (&session, input) in sessions.iter().zip(&mut inputs) {
                core.receive(session, black_box(input));
            }
            let mut bytes = 0;
            core.end_turn(|_, sent| bytes += black_box(sent).len());
            assert_eq!(bytes, SESSIONS * REQUESTS * answer_bytes);
        });
    });
}

fn handlers(handlers: &mut Handlers) {
    for route in ROUTES {
        handlers.handler(route, |request, _| Reply::borrowed(request.body()));
    }
}

/// The content of [`BODY`].
#[derive(Deserialize, Serialize)]
struct Say<'a> {
    rid: &'a str,
    content: &'a str,
    target: u32,
}

fn typed_handlers(handlers: &mut Handlers) {
    handlers.try_handler(ROUTE, |request, _| {
        let say: Say<'_> = request.json()?;
        Ok(Reply::json(&say))
    });
}

fn hello() -> Vec<u8> {
    package(PackageType::Handshake, br#"{"sys":{"type":"js-websocket","version":"0.0.1"}}"#)
}

fn ack() -> Vec<u8> {
    package(PackageType::HandshakeAck, b"")
}
