//! Mistakes in registrations: all are found when the engine starts, and named with what to write.

use serde_json::json;
use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{Builder, Handlers, Mistake, Reply, Routes, StartError, TooBusy, Workers};
use support::builder;

/// The mistakes for which an engine does not start, as route and mistake.
fn mistakes(builder: Builder) -> Vec<(String, Mistake)> {
    match builder.start() {
        Err(StartError::Handlers(mistakes)) => {
            mistakes.into_iter().map(|found| (found.route, found.mistake)).collect()
        }
        other => panic!("no mistake was found: {other:?}"),
    }
}

fn empty(builder: Builder, route: &str) -> Builder {
    builder.handler(route, |_, _| Reply::empty())
}

fn chat(routes: &'static [&'static str]) -> Workers {
    Workers::new(2, move |handlers: &mut Handlers| {
        for route in routes {
            handlers.handler(route, |_, _| Reply::empty());
        }
    })
}

#[test]
fn each_mistake_alone_keeps_an_engine_from_starting() {
    let one = |route: &str| mistakes(empty(builder(2), route));
    assert_eq!(one("entryHandler.hello"), [("entryHandler.hello".into(), Mistake::Malformed)]);
    assert_eq!(one("chat.a.b"), [("chat.a.b".into(), Mistake::OtherType)]);
    assert_eq!(
        one("connector.a.constructor"),
        [("connector.a.constructor".into(), Mistake::Constructor)]
    );
    let twice = empty(empty(builder(2), "connector.a.b"), "connector.a.b");
    assert_eq!(mistakes(twice), [("connector.a.b".into(), Mistake::Duplicate)]);
    let on_worker = builder(1).forward("chat", chat(&["connector.a.b"]));
    assert_eq!(mistakes(on_worker), [("connector.a.b".into(), Mistake::OtherType)]);
    let on_worker = builder(1).forward("chat", chat(&["chat.a.b", "chat.a.b"]));
    assert_eq!(mistakes(on_worker), [("chat.a.b".into(), Mistake::Duplicate)]);
    let filtered = |handlers: &mut Handlers| {
        handlers.global_filter(TooBusy::default());
    };
    let on_worker = builder(1).forward("chat", Workers::new(2, filtered));
    assert_eq!(mistakes(on_worker), [("global_filter".into(), Mistake::GlobalFilter)]);
    let told = |handlers: &mut Handlers| {
        handlers.on_session_opened(|_, _| ());
    };
    let on_worker = builder(1).forward("chat", Workers::new(2, told));
    assert_eq!(mistakes(on_worker), [("on_session_opened".into(), Mistake::OpenedOnWorker)]);
    let received = |handlers: &mut Handlers| {
        handlers.mail(|_: u64, _| ());
    };
    assert_eq!(mistakes(builder(2).register(received)), [("u64".into(), Mistake::MailOnShard)]);
}

/// Of two shards and two workers, each of which finds some of them.
#[test]
fn all_mistakes_are_told_at_once_with_what_to_write() {
    let described = empty(empty(builder(2), "hello"), "chat.chatHandler.send");
    let described = empty(empty(described, "connector.a.b"), "connector.a.b");
    let described = described.forward("chat", chat(&["chat.a.b", "chat.a", "connector.a.c"]));
    let text = described.start().unwrap_err().to_string();
    let expected = [
        "handlers and schemas are registered wrongly:",
        "- `chat.a` on `chat` is no route of three parts: write `chat.chat.a`",
        "- `connector.a.c` on `chat` gets no message, as those of `connector` go elsewhere: write \
         `chat.a.c`, or register it where `connector` is handled",
        "- `chat.chatHandler.send` on `connector` gets no message, as those of `chat` go \
         elsewhere: write `connector.chatHandler.send`, or register it where `chat` is handled",
        "- `connector.a.b` on `connector` has two handlers: remove one",
        "- `hello` on `connector` is no route of three parts: write `connector.handler.method`",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn mistakes_of_stateful_handlers_are_found() {
    let workers = Workers::stateful(
        2,
        |_| 0,
        |routes: &mut Routes<u64>| {
            routes
                .call("enter", |_, (), _| Ok(()))
                .call("room.roomHandler.enter", |_, (), _| Ok(()))
                .call("roomHandler.enter", |_, (), _| Ok(()))
                .call("roomHandler.enter", |_, (), _| Ok(()))
                .mail(|_, ()| ())
                .mail(|_, ()| ());
        },
    );
    let error = builder(1).forward("room", workers).start().unwrap_err().to_string();
    let expected = [
        "handlers and schemas are registered wrongly:",
        "- `()` on `room` is received as mail twice: remove one",
        "- `enter` on `room` is no path of two parts: write `handler.method`, as `room.` is implied",
        "- `room.roomHandler.enter` on `room` is no path of two parts: write `handler.method`, as \
         `room.` is implied",
        "- `room.roomHandler.enter` on `room` has two handlers: remove one",
    ];
    assert_eq!(error.lines().collect::<Vec<_>>(), expected);
}

fn schemas(client: &[&str], server: &[&str]) -> ProtoTable {
    let protos = |routes: &[&str]| {
        let schema = json!({"required string text": 1});
        let all = routes.iter().map(|route| ((*route).to_owned(), schema.clone()));
        Protos::parse(&all.collect::<serde_json::Map<_, _>>().into()).unwrap()
    };
    ProtoTable::new(protos(client), protos(server))
}

#[test]
fn a_schema_of_requests_that_nobody_handles_is_found() {
    let requests = ["connector.a.b", "connector.a.gone", "chat.a.b", "chat.a.gone", "room.a.b"];
    let protos = schemas(&requests, &["onChat", "connector.a.pushed"]);
    let described = empty(builder(1), "connector.a.b").protos(protos);
    assert_eq!(
        mistakes(described.forward("chat", chat(&["chat.a.b"]))),
        [
            ("chat.a.gone".into(), Mistake::SchemaWithoutHandler),
            ("connector.a.gone".into(), Mistake::SchemaWithoutHandler),
            ("room.a.b".into(), Mistake::SchemaWithoutServer),
        ]
    );
}

/// Schemas of answers and pushes have no handler, and an engine that registers nothing may have
/// those of a whole game.
#[test]
fn what_can_not_be_told_of_schemas_is_no_mistake() {
    let pushes = schemas(&["connector.a.b"], &["onChat", "connector.a.pushed"]);
    empty(builder(1), "connector.a.b").protos(pushes).start().unwrap();
    let of_a_game = schemas(&["connector.a.b", "chat.a.b"], &[]);
    builder(1).protos(of_a_game).start().unwrap();
}
