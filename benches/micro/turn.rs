//! A whole turn of the core without sockets: the work of a busy shard between two waits on its
//! ring.

use std::hint::black_box;
use std::time::{Duration, Instant};

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
    // The pairs of the first row: the same echo, read and written by serde.
    for (name, register) in TYPED {
        let core = Core::new(&ROUTES, None, register);
        let input = requests(text, |package| package);
        let hello = [hello(), ack()].concat();
        run(&mut group, name, core, &hello, input, ANSWER_BYTES);
    }
    group.finish();
    print_ratios();
}

type Register = fn(&mut Handlers);

/// The typed echoes.
const TYPED: [(&str, Register); 2] = [
    ("TCP, text route, typed, borrowed", typed_handlers),
    ("TCP, text route, typed, call", call_handlers),
];
/// Turns of each in a row, and the number of rows.
const PAIRED_TURNS: u32 = 20;
const PAIRED_ROUNDS: usize = 20;

/// Times the raw and the typed echoes in turns, so that whatever else the machine does falls on all
/// alike, and prints the ratios of the medians.
fn print_ratios() {
    let registers = [handlers as Register].into_iter().chain(TYPED.map(|(_, by)| by));
    let mut echoes: Vec<Echo> = registers.map(Echo::new).collect();
    let mut times = vec![Vec::new(); echoes.len()];
    for _ in 0..PAIRED_ROUNDS {
        for (echo, times) in echoes.iter_mut().zip(&mut times) {
            times.push(echo.time());
        }
    }
    let medians = times.iter_mut().map(|times| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    });
    let medians: Vec<f64> = medians.collect();
    for ((name, _), median) in TYPED.iter().zip(&medians[1..]) {
        println!("{name}: {:.2} times the raw echo", median / medians[0]);
    }
}

/// A core with its sessions and what they send in each turn.
struct Echo {
    core: Core,
    sessions: Vec<SessionId>,
    inputs: Vec<Vec<u8>>,
}

impl Echo {
    fn new(register: Register) -> Self {
        let mut core = Core::new(&ROUTES, None, register);
        let sessions = open(&mut core, &[hello(), ack()].concat());
        let text = |_| RouteRef::Text(ROUTE.as_bytes());
        Self { core, sessions, inputs: vec![requests(text, |package| package); SESSIONS] }
    }

    fn time(&mut self) -> Duration {
        let begin = Instant::now();
        for _ in 0..PAIRED_TURNS {
            turn(&mut self.core, &self.sessions, &mut self.inputs, ANSWER_BYTES);
        }
        begin.elapsed()
    }
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
    let sessions = open(&mut core, hello);
    // Each client's bytes have a buffer of their own, as the kernel delivers them.
    let mut inputs = vec![input; SESSIONS];
    group.bench_function(name, |bencher| {
        bencher.iter(|| turn(&mut core, &sessions, &mut inputs, answer_bytes));
    });
}

/// Accepts the sessions, which shake hands.
fn open(core: &mut Core, hello: &[u8]) -> Vec<SessionId> {
    core.begin_turn(TURN_US);
    let sessions: Vec<SessionId> =
        (0..SESSIONS).map(|_| core.accept().expect("there is room")).collect();
    for &session in &sessions {
        core.receive(session, &mut hello.to_vec());
    }
    core.end_turn(|_, _| ());
    sessions
}

#[inline]
fn turn(core: &mut Core, sessions: &[SessionId], inputs: &mut [Vec<u8>], answer_bytes: usize) {
    core.begin_turn(TURN_US);
    for (&session, input) in sessions.iter().zip(inputs) {
        core.receive(session, black_box(input));
    }
    let mut bytes = 0;
    core.end_turn(|_, sent| bytes += black_box(sent).len());
    assert_eq!(bytes, SESSIONS * REQUESTS * answer_bytes);
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

/// The same for [`Handlers::call`], whose types own their texts.
#[derive(Deserialize, Serialize)]
struct OwnedSay {
    rid: Box<str>,
    content: Box<str>,
    target: u32,
}

fn call_handlers(handlers: &mut Handlers) {
    handlers.call(ROUTE, |say: OwnedSay, _| Ok(say));
}

fn hello() -> Vec<u8> {
    package(PackageType::Handshake, br#"{"sys":{"type":"js-websocket","version":"0.0.1"}}"#)
}

fn ack() -> Vec<u8> {
    package(PackageType::HandshakeAck, b"")
}
