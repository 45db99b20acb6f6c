//! Messages that nothing has to wait for are handled in a loop of their own. A bound on their rate
//! keeps them from it: both ways have to come to the same.

use std::sync::Mutex;

use super::*;
use crate::dispatch::{Audience, Filter, Request, Session, Verdict};
use crate::forward::worker::{Worker, WorkerConfig};
use crate::forward::{Carrier, LaneFull, ServerType, WorkerIndex};
use crate::wire::package::HEADER_BYTES;

const FAIL: &str = "connector.entryHandler.n0";
const PANIC: &str = "connector.entryHandler.n1";
const LATER: &str = "connector.entryHandler.n2";
const PUSH: &str = "connector.entryHandler.n3";
const SET: &str = "connector.entryHandler.n4";
const ROUTES: [&str; 8] =
    [ECHO, FAIL, PANIC, LATER, PUSH, SET, "connector.entryHandler.none", "no.such.route"];
/// The same, but for what would be known at once, on a worker.
const CHAT_ROUTES: [&str; 7] = [
    "chat.chatHandler.echo",
    "chat.chatHandler.fail",
    "chat.chatHandler.panic",
    "chat.chatHandler.later",
    "chat.chatHandler.push",
    "chat.chatHandler.set",
    "chat.chatHandler.none",
];

fn eventful(handlers: &mut Handlers, [fail, panic, later, push, set]: [&str; 5]) {
    handlers
        .handler(fail, |request, _| Reply::error_json(&request.value()))
        .handler(panic, |_, _| std::panic::resume_unwind(Box::new(())))
        .handler(later, |_, _| Reply::later(async { Reply::json(&1) }))
        .handler(push, |request, session| {
            let body = request.id().to_string();
            let audience = Audience::all();
            session.context().broadcast("onPush", body.as_bytes(), audience).expect("it is short");
            Reply::empty()
        })
        // Tells what the message before it has left, which must be nothing.
        .handler(set, |_, session| {
            let seen = Reply::json(&session.get("left").is_some());
            session.set("left", true);
            seen
        });
}

/// The calls that filters have seen, in words.
type Log = Arc<Mutex<Vec<String>>>;

/// A filter that does what a body says, and notes what it sees.
struct Busy {
    name: &'static str,
    log: Log,
}

impl Busy {
    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.log.lock().unwrap().push(format!("{} {what}", self.name));
    }

    fn push(&self, session: &Session) {
        let body = self.name.as_bytes();
        session.context().broadcast("onPush", body, Audience::all()).expect("it is short");
    }
}

impl Filter for Busy {
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        self.note(format_args!("before {request:?}"));
        session.mark(self.name.len(), request.id().into());
        let value = request.value();
        let Some(order) = value.as_str().and_then(|body| body.strip_prefix(self.name)) else {
            return Verdict::Continue;
        };
        match order {
            " refuses" => return Verdict::Refuse(Reply::json(&"refused")),
            " refuses without a word" => return Verdict::Refuse(Reply::error()),
            " waits" => return Verdict::wait(async { Verdict::Continue }),
            " panics" => std::panic::resume_unwind(Box::new(())),
            " pushes" => self.push(session),
            " sets" => session.set("left", 1),
            _ => {}
        }
        Verdict::Continue
    }

    fn after(&self, request: &Request<'_>, session: &mut Session, reply: &mut Reply<'_>) {
        let (mark, left) = (session.marked(self.name.len()), session.get("left"));
        self.note(format_args!("after {request:?} {reply:?} {mark:?} {left:?}"));
        if request.value() == "pushes after" {
            self.push(session);
        }
    }
}

const GLOBAL: &str = "global";
const LOCAL: &str = "local";
const BODIES: [&str; 18] = [
    "",
    "{}",
    "1",
    "null",
    r#"{"a":"some text"}"#,
    r#""pushes after""#,
    r#""global refuses""#,
    r#""global refuses without a word""#,
    r#""global waits""#,
    r#""global panics""#,
    r#""global pushes""#,
    r#""global sets""#,
    r#""local refuses""#,
    r#""local refuses without a word""#,
    r#""local waits""#,
    r#""local panics""#,
    r#""local pushes""#,
    r#""local sets""#,
];

/// The way that messages take, and who stands there.
#[derive(Clone, Copy)]
struct Way {
    is_fast: bool,
    is_filtered: bool,
    is_forwarded: bool,
}

impl Way {
    fn register(self, log: &Log, is_worker: bool) -> Register {
        let log = Arc::clone(log);
        Arc::new(move |handlers: &mut Handlers| {
            if is_worker {
                let [echo, fail, panic, later, push, set, _] = CHAT_ROUTES;
                handlers.handler(echo, |request, _| Reply::borrowed(request.body()));
                eventful(handlers, [fail, panic, later, push, set]);
            } else {
                super::handlers(handlers);
                eventful(handlers, [FAIL, PANIC, LATER, PUSH, SET]);
            }
            if self.is_filtered {
                handlers.global_filter(Busy { name: GLOBAL, log: Arc::clone(&log) });
                handlers.filter(Busy { name: LOCAL, log: Arc::clone(&log) });
            }
        })
    }

    fn start(self, limits: Limits, log: &Log) -> (Rig, Option<Worker>) {
        let limits = if self.is_fast { limits } else { one_by_one(limits) };
        if !self.is_forwarded {
            let register = self.register(log, false);
            let heartbeat = Some(Duration::from_secs(60));
            let known = [ECHO, KICK, FAIL, PANIC, LATER, PUSH, SET].map(str::to_owned);
            return (Rig::with_handlers(heartbeat, limits, &[], known, register), None);
        }
        let hub = Hub::new(1, 1, HubLimits { lane_len: 64, inbox_len: 16 });
        let servers = ["chat-1".into()].into();
        let carrier = Carrier::Workers { servers, first_worker: WorkerIndex(0), route: None };
        let routes = RouteTable::new(CHAT_ROUTES.map(str::to_owned), None, None);
        let config = ShardConfig {
            limits: limits.clone(),
            server_types: vec![ServerType {
                name: "chat".into(),
                carrier,
                lane_full: LaneFull::Reject,
            }],
            ..ShardConfig::bare(routes, None, self.register(log, false))
        };
        let worker = WorkerConfig {
            host: None,
            server_type: "chat".into(),
            server_id: "chat-1".into(),
            frontend_id: Arc::clone(&config.server_id),
            routes: Arc::clone(&config.routes),
            edition: config.edition(),
            register: self.register(log, true),
            mistakes: Arc::default(),
            post: Arc::default(),
            limits,
            counters: Arc::default(),
            failures: Arc::default(),
        };
        let worker = Worker::new(&worker, &hub, hub.worker(WorkerIndex(0)));
        (Rig::of(config, &hub), Some(worker))
    }
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
fn any_package(numbers: &mut Numbers, is_forwarded: bool) -> Vec<u8> {
    let body = BODIES[numbers.below(BODIES.len())];
    let routes: &[&str] = if is_forwarded { &CHAT_ROUTES } else { &ROUTES };
    let route = routes[numbers.below(routes.len())];
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

/// Packages that a script sends.
const PACKAGES: usize = if cfg!(miri) { 16 } else { 40 };

/// The outcome of a script.
#[derive(PartialEq)]
struct Outcome {
    sent: Vec<Vec<u8>>,
    commands: Vec<Command>,
    counters: CounterSnapshot,
    seen: Vec<String>,
}

fn run(way: Way, seed: u64) -> Outcome {
    let mut numbers = Numbers(seed * 2 + 1);
    let limits = Limits {
        outbox_bytes_max: [Limits::default().outbox_bytes_max, 2_000][numbers.below(2)],
        messages_per_turn_max: [Limits::default().messages_per_turn_max, 5][numbers.below(2)],
        ..Limits::default()
    };
    let log = Log::default();
    let (mut rig, mut worker) = way.start(limits, &log);
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
    for _ in 0..PACKAGES {
        let package = any_package(&mut numbers, way.is_forwarded);
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
        if let Some(worker) = &mut worker {
            while worker.run(rig.now_us) {}
            while worker.poll_bell().is_some() {}
            rig.turn(|_| ());
        }
        rest = behind;
    }
    rig.pass(STEP_MS * 4);
    let (counters, seen) = (rig.counters(), std::mem::take(&mut *log.lock().unwrap()));
    Outcome { sent: rig.sent, commands: rig.commands, counters, seen }
}

/// Without what global filters have pushed, and how much that was. They see the answers of a batch
/// once all of these are queued.
fn without_global_pushes(sent: &[Vec<u8>]) -> (Vec<u8>, usize) {
    let (mut rest, mut count) = (sent.concat(), 0);
    let pushed = b"\x06\x06onPushglobal";
    while let Some(at) = rest.windows(pushed.len()).position(|part| part == pushed) {
        let head = if rest[0] == b'H' { 2 + HEADER_BYTES } else { HEADER_BYTES };
        rest.drain(at - head..at + pushed.len());
        count += 1;
    }
    (rest, count)
}

#[test]
fn both_ways_come_to_the_same() {
    for (is_filtered, is_forwarded) in [(false, false), (true, false), (false, true), (true, true)]
    {
        let (mut answered, mut seen) = (0, 0);
        let scripts = if cfg!(miri) { 2 } else { 1_000 };
        for seed in 1..scripts {
            let ways = [true, false].map(|is_fast| Way { is_fast, is_filtered, is_forwarded });
            let [fast, other] = ways.map(|way| run(way, seed));
            answered += fast.counters.answers;
            seen += fast.seen.len();
            let what = format!("seed {seed}, filters: {is_filtered}, worker: {is_forwarded}");
            assert_eq!(fast.seen, other.seen, "{what}");
            assert_eq!(fast.counters, other.counters, "{what}");
            assert_eq!(fast.commands, other.commands, "{what}");
            if is_filtered && is_forwarded {
                let [fast, other] = [fast, other].map(|it| without_global_pushes(&it.sent));
                assert_eq!(fast, other, "{what}");
            } else {
                assert!(fast.sent == other.sent, "{what}: {:?}, {:?}", fast.sent, other.sent);
            }
        }
        assert!(answered > 5 * scripts, "{answered} answers are few for these scripts");
        assert_eq!(seen as u64 > 10 * scripts, is_filtered, "{seen}");
    }
}
