//! A dictionary changes while sessions play on: each session keeps the codes it was told of, in
//! both directions, and nobody ever gets a message under another route.

use std::time::Duration;

use serde_json::{Value, json};
use shaddock::client::{self, block_on};
use shaddock::route::Dictionary;
use shaddock::wire::message::{self, Message, MessageType, RouteRef};
use shaddock::wire::package::PackageType;
use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{Audience, Dialect, Drain, Engine, Handlers, Listener, Reply, Workers};
use support::{Client, Event, PATIENCE, ack, builder, eventually, handshake, package};

const ECHO: &str = "connector.play.echo";
const OTHER: &str = "connector.play.other";
const SPREAD: &str = "room.play.spread";

fn dictionary(routes: &[&str]) -> Dictionary {
    Dictionary::from_map(routes.iter().copied().zip(1..)).unwrap()
}

fn engine(first: &[&str]) -> Engine {
    builder(2)
        .dictionary(dictionary(first))
        .handler(ECHO, |_, _| Reply::json("echo"))
        .handler(OTHER, |_, _| Reply::json("other"))
        .forward("room", Workers::new(1, register))
        .start()
        .unwrap()
}

/// A worker that broadcasts what it is asked to.
fn register(handlers: &mut Handlers) {
    let context = handlers.context().clone();
    handlers.handler(SPREAD, move |_, _| {
        context.broadcast("onChat", b"{\"from\":\"worker\"}", Audience::all()).unwrap();
        Reply::json("spread")
    });
}

/// A client that says which dictionary it has been told of.
fn told(engine: &Engine) -> (Client, Value) {
    let mut client = Client::connect(engine.local_addr());
    client.send(&handshake());
    let Event::Handshake(answer) = client.next() else { panic!("no handshake") };
    client.send(&ack());
    (client, answer["sys"]["dict"].clone())
}

fn by_code(id: u32, code: u16) -> Vec<u8> {
    let (kind, route) = (MessageType::Request, Some(RouteRef::Code(code)));
    let mut out = Vec::new();
    message::encode(&Message { id, kind, route, body: b"{}", gzip: false }, &mut out).unwrap();
    package(PackageType::Data, &out)
}

fn ask_by_code(client: &mut Client, id: u32, code: u16) -> String {
    client.send(&by_code(id, code));
    client.answer(id)
}

/// The next push's route as it stands on the wire, and its body.
fn pushed(client: &mut Client) -> (Result<String, u16>, Value) {
    loop {
        match client.next() {
            Event::Push { route, body } => {
                return (Ok(route), serde_json::from_slice(&body).unwrap());
            }
            Event::CodedPush { code, body } => {
                return (Err(code), serde_json::from_slice(&body).unwrap());
            }
            Event::End => panic!("closed before the push"),
            _ => {}
        }
    }
}

/// Whoever connects now is told of the new dictionary, on every shard.
fn changed(engine: &Engine, expected: &Value) {
    let mut in_a_row = 0;
    eventually("all shards have the dictionary", || {
        in_a_row = if told(engine).1 == *expected { in_a_row + 1 } else { 0 };
        in_a_row == 20
    });
}

#[test]
fn sessions_keep_their_codes_when_the_dictionary_changes() {
    let engine = engine(&[ECHO, "onChat"]);
    let handle = engine.handle();
    let (mut old, dict) = told(&engine);
    assert_eq!(dict, json!({ECHO: 1, "onChat": 2}));
    assert_eq!(ask_by_code(&mut old, 1, 1), "\"echo\"");

    // The codes of one change places, and two routes are new to the engine.
    handle.set_dictionary(dictionary(&["onChat", OTHER, ECHO, SPREAD, "a.b.c"])).unwrap();
    let expected = json!({"onChat": 1, OTHER: 2, ECHO: 3, SPREAD: 4, "a.b.c": 5});
    changed(&engine, &expected);
    let (mut new, dict) = told(&engine);
    assert_eq!(dict, expected);

    assert_eq!(ask_by_code(&mut old, 2, 1), "\"echo\"");
    assert_eq!(ask_by_code(&mut old, 3, 3), "{\"code\":500}", "a code it was not told of");
    for (id, code, answer) in [(1, 2, "\"other\""), (2, 3, "\"echo\""), (3, 5, "{\"code\":500}")] {
        assert_eq!(ask_by_code(&mut new, id, code), answer);
    }

    // From the host, and from a worker, which learns of the change by way of a shard.
    handle.broadcast("onChat", "{\"from\":\"host\"}", Audience::all()).unwrap();
    assert_eq!(pushed(&mut old), (Err(2), json!({"from": "host"})));
    assert_eq!(pushed(&mut new), (Err(1), json!({"from": "host"})));
    handle.broadcast(OTHER, "{}", Audience::all()).unwrap();
    assert_eq!(pushed(&mut old), (Ok(OTHER.to_owned()), json!({})));
    assert_eq!(pushed(&mut new), (Err(2), json!({})));
    new.send(&by_code(9, 4));
    assert_eq!(pushed(&mut new), (Err(1), json!({"from": "worker"})));
    assert_eq!(pushed(&mut old), (Err(2), json!({"from": "worker"})));

    // None at all, while both play on.
    handle.set_dictionary(None).unwrap();
    changed(&engine, &Value::Null);
    assert_eq!(ask_by_code(&mut old, 10, 1), "\"echo\"");
    assert_eq!(ask_by_code(&mut new, 10, 3), "\"echo\"");
    engine.shutdown(Drain::within(PATIENCE));
    assert_eq!(old.until_end(), []);
}

/// A schema of requests, answers and pushes whose numbers have that tag, on the wire.
fn protos(tag: u8, more: &str) -> ProtoTable {
    let fields = format!(r#"{{"required uInt32 n":{tag}}}"#);
    let client = format!(r#"{{"{ECHO}":{fields},"{SPREAD}":{fields}{more}}}"#);
    let server = format!(r#"{{"{ECHO}":{fields},"{SPREAD}":{fields},"onChat":{fields}{more}}}"#);
    ProtoTable::new(Protos::parse_text(&client).unwrap(), Protos::parse_text(&server).unwrap())
}

fn connect(engine: &Engine) -> client::Client {
    block_on(client::Client::connect(engine.local_addr())).unwrap()
}

/// Whoever connects now is told of those schemas, on every shard.
fn have(engine: &Engine, protos: Option<&ProtoTable>) -> client::Client {
    let version = protos.map(|protos| protos.version().to_owned());
    let mut in_a_row = 0;
    eventually("all shards have the schemas", || {
        let told = connect(engine).tables();
        let is_told = told.protos().map(|protos| protos.version().to_owned()) == version;
        in_a_row = if is_told { in_a_row + 1 } else { 0 };
        in_a_row == 20
    });
    connect(engine)
}

/// Each client reads and writes by what it was told; a body by another schema would be no number.
#[test]
fn sessions_keep_their_schemas_when_these_change() {
    let echo = |handlers: &mut Handlers| {
        handlers.handler(SPREAD, |request, _| Reply::bytes(request.body()));
    };
    let first = protos(1, "");
    let engine = builder(2)
        .listen(Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya))
        .protos(first.clone())
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .forward("room", Workers::new(1, echo))
        .start()
        .unwrap();
    let handle = engine.handle();
    let mut clients = vec![have(&engine, Some(&first))];
    let second = protos(2, "");
    assert_eq!(handle.set_protos(second.clone()).unwrap(), [""; 0]);
    clients.push(have(&engine, Some(&second)));
    // Without schemas, and with some again.
    handle.set_protos(None).unwrap();
    clients.push(have(&engine, None));
    let more = protos(3, r#","onNew":{"required uInt32 n":1}"#);
    assert_eq!(handle.set_protos(more).unwrap(), ["onNew"], "nobody knew it at the start");
    clients.push(have(&engine, Some(&protos(3, ""))));
    for (number, client) in clients.iter().enumerate() {
        for route in [ECHO, SPREAD] {
            let body = json!({ "n": 300 + number });
            let answer = block_on(client.request(route, &body)).unwrap();
            assert_eq!(answer.json::<Value>().unwrap(), body, "{number} {route}");
        }
    }
    for route in ["onChat", "onNew"] {
        handle.broadcast(route, r#"{"n":7}"#, Audience::all()).unwrap();
        for (number, client) in clients.iter().enumerate() {
            let push = block_on(client.next_push()).unwrap();
            assert_eq!(push.route(), route);
            assert_eq!(push.json::<Value>().unwrap(), json!({"n": 7}), "{number}");
        }
    }
    assert_eq!(handle.counters().bad_protobuf, 0);
}

#[test]
fn host_rules_are_replaced_as_a_whole() {
    let engine = builder(2).handler(ECHO, |_, _| Reply::json("echo")).start().unwrap();
    let handle = engine.handle();
    let mut inside = Client::ready(engine.local_addr());
    let refused = || {
        let mut client = Client::connect(engine.local_addr());
        client.next_within(Duration::from_millis(50)) == Some(Event::End)
    };
    let in_a_row = |wanted: bool| {
        let mut count = 0;
        eventually("all shards have the rules", || {
            count = if refused() == wanted { count + 1 } else { 0 };
            count == 10
        });
    };
    handle.deny_hosts(&["10.0.0.0/8".parse().unwrap()]).unwrap();
    handle.set_hosts(&["127.0.0.0/8".parse().unwrap()]).unwrap();
    in_a_row(true);
    handle.set_hosts(&[]).unwrap();
    in_a_row(false);
    assert_eq!(inside.ask(1, ECHO, "{}"), "\"echo\"", "who is in stays in");
}
