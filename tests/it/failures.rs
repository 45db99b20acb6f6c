//! What goes wrong in a game's own code, or is refused, is answered with a code, counted and told.
//!
//! The engines have one shard, and a worker of the type `room`. Lines of the log are taken from all
//! engines of this process together, and are limited to one a second for each cause: what a test
//! looks for it causes again until it is there.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use shaddock::metrics::CounterSnapshot;
use shaddock::{
    Builder, Codes, Engine, Filter, Handlers, Limits, Reply, Request, Session, Verdict, Workers,
};
use support::{Client, PATIENCE, builder, eventually, request};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The lines of the log from `WARN` up.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        tracing::subscriber::set_global_default(log.clone()).unwrap();
        log
    })
}

/// Causes something until a line tells of it that has all these words.
pub(crate) fn is_told(words: &[&str], mut cause: impl FnMut()) {
    let (log, deadline) = (log(), Instant::now() + 3 * PATIENCE);
    loop {
        cause();
        let lines = log.0.lock().unwrap();
        if lines.iter().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        assert!(Instant::now() < deadline, "no line has {words:?}: {lines:#?}");
        drop(lines);
        std::thread::sleep(Duration::from_millis(200));
    }
}

const PANIC: &str = "connector.entry.panic";
const PANIC_LATER: &str = "connector.entry.panicLater";
const FILTERED: &str = "connector.entry.filtered";
const SLOW: &str = "connector.entry.slow";
const FAIL: &str = "connector.entry.fail";

/// Panics for the method `filtered`.
struct Bomb;

impl Filter for Bomb {
    fn before(&self, request: &Request<'_>, _: &mut Session) -> Verdict {
        assert!(!request.route().ends_with(".filtered"), "on purpose in a filter");
        Verdict::Continue
    }
}

/// The same handlers for the connector and for rooms, by the first parts of their routes.
fn trouble(prefix: &'static str) -> impl Fn(&mut Handlers) + Send + Sync + 'static {
    move |handlers| {
        let route = |method: &str| format!("{prefix}.{method}");
        handlers.handler(&route("panic"), |_, _| panic!("on {}\n\u{1b}", "purpose"));
        handlers.async_handler(&route("panicLater"), async |_, session: Session| {
            session.context().sleep(Duration::from_millis(1)).await;
            panic!("on purpose, later")
        });
        handlers.handler(&route("filtered"), |_, _| Reply::empty());
        handlers.handler(&route("fail"), |_, _| Reply::error());
        handlers.handler(&route("never"), |_, session| session.defer(std::mem::forget));
        handlers.handler(&route("slow"), |_, _| {
            std::thread::sleep(Duration::from_millis(250));
            Reply::empty()
        });
        handlers.filter(Bomb);
    }
}

fn troubled(builder: Builder) -> Builder {
    log();
    let workers = Workers::new(1, trouble("room.play"));
    builder.register(trouble("connector.entry")).forward("room", workers)
}

fn counters(engine: &Engine) -> CounterSnapshot {
    engine.handle().counters()
}

fn there(route: &str) -> String {
    route.replace("connector.entry", "room.play")
}

#[test]
fn panics_are_answered_counted_and_told() {
    let codes = Codes::pomelo().panicked(599);
    // Some routes are known by id, others are not.
    let engine = troubled(builder(1)).routes([PANIC, "room.play.panic"]).answer_codes(codes);
    let engine = engine.start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    for (index, prefix) in [(1, "connector.entry"), (2, "room.play")] {
        let mut ask = |method: &str| {
            let answer = client.ask(1, &format!("{prefix}.{method}"), "{}");
            assert_eq!(answer, "{\"code\":599}", "{prefix}.{method}");
        };
        ask("panic");
        ask("panicLater");
        ask("filtered");
        let CounterSnapshot { handler_panics, filter_panics, .. } = counters(&engine);
        assert_eq!((handler_panics, filter_panics), (2 * index, index), "{prefix}");
    }
    let mut ask = |route: &str| drop(client.ask(1, route, "{}"));
    for route in [PANIC, &there(PANIC)] {
        let route_field = format!("route={route} ");
        is_told(&["ERROR", "handler", &route_field, "on purpose\\n\\u{1b}", "session="], || {
            ask(route);
        });
    }
    for route in [PANIC_LATER, &there(PANIC_LATER)] {
        is_told(&["ERROR", "handler", route, "on purpose, later"], || ask(route));
    }
    is_told(&["ERROR", "filter", FILTERED, "on purpose in a filter"], || ask(FILTERED));
}

#[test]
fn a_panic_of_a_future_is_told_by_its_name() {
    let engine = builder(1).handler(FAIL, |_, session| {
        session.context().task("ticks of room 7").spawn(async { panic!("a tick went wrong") });
        Reply::empty()
    });
    let engine = engine.start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    is_told(&["ERROR", "ticks of room 7", "a tick went wrong"], || {
        assert_eq!(client.ask(1, FAIL, "{}"), "{}");
    });
    assert!(counters(&engine).task_panics > 0);
}

#[test]
fn an_unknown_route_is_answered_counted_and_told() {
    let engine = troubled(builder(1)).answer_codes(Codes::pomelo().unknown_route(404));
    let engine = engine.routes(["room.play.known"]).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let long = format!("room.play.\u{7}\"{}", "x".repeat(230));
    for (index, route) in [
        "no route",
        "nobody.play.enter",
        "connector.entry.nobody",
        "room.play.nobody",
        "room.play.known",
        &long,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(client.ask(1, route, "{}"), "{\"code\":404}", "{route}");
        assert_eq!(counters(&engine).unknown_route, index as u64 + 1, "{route}");
    }
    assert_eq!(client.ask(1, FAIL, "{}"), "{\"code\":500}", "a handler's own error");
    let cut = format!("route=room.play.\\u{{7}}\"{}...", "x".repeat(188));
    is_told(&["WARN", "nobody handles", &cut, "session="], || {
        client.ask(1, &long, "{}");
    });
}

#[test]
fn what_is_refused_or_late_has_a_code_of_its_own() {
    let limits = Limits {
        forward_timeout: Duration::from_millis(50),
        in_flight_per_session_max: 1,
        messages_per_second: 1,
        messages_burst: 8,
        ..Limits::default()
    };
    let engine = troubled(builder(1)).limits(limits).answer_codes(Codes::http()).start().unwrap();
    let code = |answer: String| serde_json::from_str::<Value>(&answer).unwrap()["code"].clone();
    let mut client = Client::ready(engine.local_addr());
    let both = [request(1, "room.play.never", "{}"), request(2, "room.play.never", "{}")];
    client.send(&both.concat());
    assert_eq!(code(client.answer(2)), 503);
    assert_eq!(code(client.answer(1)), 504);
    let mut flooding = Client::ready(engine.local_addr());
    is_told(&["WARN", "more than its rate", "session="], || {
        let requests: Vec<u8> = (1..=20).flat_map(|id| request(id, FAIL, "{}")).collect();
        flooding.send(&requests);
        assert_eq!(code(flooding.answer(20)), 429);
    });
    // By default they are all the same, as Pomelo's.
    let limits = Limits { messages_per_second: 1, messages_burst: 1, ..Limits::default() };
    let engine = troubled(builder(1)).limits(limits).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&[request(1, PANIC, "{}"), request(2, PANIC, "{}")].concat());
    assert_eq!(
        (client.answer(1), client.answer(2)),
        ("{\"code\":500}".into(), "{\"code\":500}".into())
    );
}

#[test]
fn a_handler_that_blocks_is_told_by_its_route() {
    let engine = troubled(builder(1)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    for route in [SLOW, &there(SLOW)] {
        let before = counters(&engine).long_turns;
        client.ask(1, route, "{}");
        eventually("it is counted", || counters(&engine).long_turns > before);
        is_told(&["WARN", "turn has taken long", "millis=", route], || {
            client.ask(1, route, "{}");
        });
    }
}

/// The panics of all that is no handler and no filter.
#[test]
fn callbacks_that_panic_are_counted_and_named() {
    let engine = builder(1)
        .register(|handlers| {
            handlers.on_session_opened(|_, _| panic!("opened on purpose"));
            handlers.on_session_closed(|_, _| panic!("closed on purpose"));
        })
        .user_handshake(|handshake| match handshake.version() {
            Some("1") => Ok(shaddock::Welcome::new()),
            _ => panic!("admitted on purpose"),
        })
        .forward("room", Workers::new(1, |_: &mut Handlers| ()))
        .route("room", |_, _| panic!("routed on purpose"))
        .start()
        .unwrap();
    let panics = || engine.handle().counters().callback_panics;
    for (callback, text) in
        [("on_session_opened", "opened on purpose"), ("on_session_closed", "closed on purpose")]
    {
        let before = panics();
        is_told(&[callback, text], || drop(Client::ready(engine.local_addr())));
        assert!(panics() > before);
    }
    let mut client = Client::ready(engine.local_addr());
    is_told(&["\"route\"", "routed on purpose"], || {
        assert_eq!(client.ask(1, "room.play.echo", "{}"), "{\"code\":500}");
    });
    is_told(&["user_handshake", "admitted on purpose"], || {
        let mut client = Client::connect(engine.local_addr());
        let hello = br#"{"sys":{"version":"2"}}"#;
        client.send(&support::package(shaddock::wire::package::PackageType::Handshake, hello));
        client.until_end();
    });
}

/// A worker counts what it is refused as a shard does.
#[test]
fn questions_that_too_many_wait_for_are_counted() {
    let limits = Limits { backlog_len_max: 0, ..Limits::default() };
    let ask = |handlers: &mut Handlers| {
        let context = handlers.context().clone();
        handlers.async_handler("room.play.kick", move |_, _| {
            let context = context.clone();
            async move { Reply::json(&[context.kick_uid("amy".into(), None).await]) }
        });
    };
    let engine = builder(1).limits(limits).forward("room", Workers::new(1, ask)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, "room.play.kick", "{}"), "[0]");
    assert_eq!(engine.handle().counters().mail_rejects, 1);
}

/// Ids are handed about in a process; those of an engine with more shards are of nobody here.
#[test]
fn sessions_of_another_engine_are_gone() {
    let (sender, ids) = std::sync::mpsc::channel();
    let many = builder(4)
        .handler("connector.play.id", move |_, session| {
            sender.send(session.id()).ok();
            Reply::json("told")
        })
        .start()
        .unwrap();
    let mut clients = Vec::new();
    let foreign = loop {
        let mut client = Client::ready(many.local_addr());
        client.ask(1, "connector.play.id", "{}");
        clients.push(client);
        let id = ids.recv().unwrap();
        if id.shard().index() >= 2 {
            break id;
        }
        assert!(clients.len() < 1000, "all come in at two of four shards");
    };
    let ask = move |server_type: &'static str| {
        move |handlers: &mut Handlers| {
            let context = handlers.context().clone();
            handlers.handler(&format!("{server_type}.play.ask"), move |_, _| {
                context.kick(foreign, None);
                context.send(foreign, "onChat", "{}").ok();
                Reply::json("asked")
            });
        }
    };
    let one = builder(1)
        .register(ask("connector"))
        .forward("room", Workers::new(1, ask("room")))
        .start()
        .unwrap();
    let handle = one.handle();
    assert_eq!(handle.kick_session(foreign, Some("bye")), Ok(()));
    assert_eq!(handle.send(foreign, "onChat", "{}"), Ok(()));
    let mut client = Client::ready(one.local_addr());
    for (id, route) in [(1, "connector.play.ask"), (2, "room.play.ask"), (3, "room.play.ask")] {
        assert_eq!(client.ask(id, route, "{}"), "\"asked\"");
    }
    assert_eq!(handle.failure(), None);
}
