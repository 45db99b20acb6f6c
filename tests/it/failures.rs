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
    Builder, Codes, Engine, Filter, Handlers, Limits, Missed, Reply, Request, Session, Verdict,
    WorkerPick, Workers,
};
use support::{Client, PATIENCE, builder, eventually, request};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The lines of the log from `INFO` up.
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
        *metadata.level() <= Level::INFO
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
        let lines = log.0.lock().unwrap().clone();
        if lines.iter().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        assert!(Instant::now() < deadline, "no line has {words:?}: {lines:#?}");
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
    is_told(&["WARN", "more than its rate", "session=", "peer=127.0.0.1:"], || {
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

/// Once a second for each cause, with the session or the server type.
#[test]
fn what_is_refused_is_told() {
    let limits = Limits {
        forward_timeout: Duration::from_millis(50),
        in_flight_per_session_max: 1,
        tasks_max: 1,
        connections_max: 3,
        ..Limits::default()
    };
    let engine = troubled(builder(1)).limits(limits).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let two = |route: &str| [request(1, route, "{}"), request(2, route, "{}")].concat();
    is_told(
        &["WARN", "a forwarded message was not answered in time", "server_type=\"room\""],
        || {
            client.send(&two("room.play.never"));
            client.answer(2);
            client.answer(1);
        },
    );
    is_told(&["WARN", "a session has too much in flight on a worker", "session="], || {
        client.send(&two("room.play.never"));
        client.answer(2);
        client.answer(1);
    });
    is_told(&["WARN", "too many futures on a thread", "an async handler or filter"], || {
        let mut clients = [0; 2].map(|_| Client::ready(engine.local_addr()));
        clients.iter_mut().for_each(|client| client.send(&request(1, PANIC_LATER, "{}")));
        clients.iter_mut().for_each(|client| drop(client.answer(1)));
        drop(clients);
        eventually("they are gone", || engine.handle().metrics().unwrap().connections == 1);
    });
    is_told(&["WARN", "too many connections; some are turned away", "open="], || {
        let all = [0; 4].map(|_| std::net::TcpStream::connect(engine.local_addr()).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        drop(all);
    });
    client.send(&request(1, "connector.entry.never", "{}"));
    is_told(&["WARN", "a session has too much in flight; some is refused", "session="], || {
        client.send(&request(2, "connector.entry.never", "{}"));
        client.answer(2);
    });
}

/// Of several messages that come together the one that has blocked is told, though others come
/// behind it: the first time it may be the last of them, as nothing is timed until then.
#[test]
fn of_pipelined_messages_the_one_that_blocks_is_told() {
    // Some routes are known by id, others are not.
    let engine = troubled(builder(1)).routes([SLOW, FAIL, "room.play.slow", "room.play.fail"]);
    for engine in [engine.start().unwrap(), troubled(builder(1)).start().unwrap()] {
        log().0.lock().unwrap().retain(|line| !line.contains("the longest"));
        let mut client = Client::ready(engine.local_addr());
        for (slow, quick) in [(SLOW, FAIL), (&there(SLOW), &there(FAIL))] {
            let route = format!("route={slow}");
            is_told(&["WARN", "turn has taken long", "call=\"the longest\"", &route], || {
                let messages = [(1, slow), (2, quick), (3, quick)];
                let messages: Vec<u8> =
                    messages.iter().flat_map(|(id, route)| request(*id, route, "{}")).collect();
                client.send(&messages);
                client.answer(3);
            });
        }
    }
}

/// What no message leads to is told by its name, on a shard and on a worker.
#[test]
fn callbacks_that_block_are_told_by_their_names() {
    struct Halt;
    fn halting_tick(_: &shaddock::Context) {
        std::thread::sleep(Duration::from_millis(250));
    }
    let ticks = |handlers: &mut Handlers| {
        handlers.every(Duration::from_millis(300), Missed::Skip, halting_tick);
    };
    for builder in [builder(1).register(ticks), builder(1).forward("room", Workers::new(1, ticks))]
    {
        log().0.lock().unwrap().retain(|line| !line.contains("halting_tick"));
        let _engine = builder.start().unwrap();
        is_told(
            &["WARN", "turn has taken long", "the longest", "callback=", "halting_tick"],
            || (),
        );
    }
    let halt = || std::thread::sleep(Duration::from_millis(250));
    let receive = move |handlers: &mut Handlers| {
        handlers.mail(move |_: Halt, _| halt());
    };
    let engine = builder(1)
        .register(move |handlers| {
            handlers.on_session_opened(move |_, _| halt());
            handlers.on_session_closed(move |_, _| halt());
        })
        .forward("room", Workers::new(1, receive))
        .start()
        .unwrap();
    is_told(&["WARN", "turn has taken long", "callback=", "Halt"], || {
        engine.handle().mail("room", WorkerPick::index(0), Halt).unwrap();
        // What comes meanwhile would be received in the same turn.
        std::thread::sleep(Duration::from_millis(400));
    });
    for callback in ["callback=on_session_opened", "callback=on_session_closed"] {
        is_told(&["WARN", "turn has taken long", callback], || {
            drop(Client::ready(engine.local_addr()));
        });
    }
}

/// One tick after the other goes on, and the text can't look like another line.
#[test]
fn a_tick_that_panics_is_told_by_its_name() {
    fn bursting_tick(_: &shaddock::Context) {
        panic!("tick\n{}", "x".repeat(300));
    }
    let ticks = |handlers: &mut Handlers| {
        handlers.every(Duration::from_millis(5), Missed::Skip, bursting_tick);
    };
    for builder in [builder(1).register(ticks), builder(1).forward("room", Workers::new(1, ticks))]
    {
        log().0.lock().unwrap().retain(|line| !line.contains("bursting_tick"));
        let engine = builder.start().unwrap();
        eventually("ticks go on", || counters(&engine).tick_panics > 3);
        let text = format!("panic=tick\\n{}...", "x".repeat(195));
        is_told(&["ERROR", "a tick panicked", "bursting_tick", &text], || ());
    }
}

/// The same for receivers of mail.
#[test]
fn a_receiver_of_mail_that_panics_is_told_by_the_type() {
    struct Bang;
    let receive = |handlers: &mut Handlers| {
        handlers.mail(|_: Bang, _| panic!("mail\n{}", "x".repeat(300)));
    };
    log();
    let engine = builder(1).forward("room", Workers::new(1, receive)).start().unwrap();
    let text = format!("panic=mail\\n{}...", "x".repeat(195));
    is_told(&["ERROR", "receiver of mail panicked", "Bang", &text, "worker=\"room-1\""], || {
        engine.handle().mail("room", WorkerPick::index(0), Bang).unwrap();
    });
    eventually("it is counted", || counters(&engine).callback_panics > 0);
    assert_eq!(counters(&engine).worker_mail_unhandled, 0);
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
        // The line may be of the client before, which was counted already.
        eventually("it is counted", || panics() > before);
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
