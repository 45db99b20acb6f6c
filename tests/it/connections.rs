//! Replays whole connections recorded from a live Pomelo 2.2.7 against an engine with the same
//! handlers: what the client sent is sent, and what the server sent has to come, in that order and
//! to the byte, save for session numbers. `BETTER` lists where Shaddock does better, and why.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Map, Value, json};
use shaddock::route::Dictionary;
use shaddock::wire::package::{self, BODY_BYTES_MAX, Status};
use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{
    Builder, Engine, Handlers, OwnedRequest, Refusal, Reply, Session, Uid, Welcome, Workers,
};
use support::{PATIENCE, builder, request};

const CONNECTION: &str = include_str!("../vectors/connection.json");
const CASES: usize = 63;
/// The heartbeat's interval at the time of recording.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// What of a recording does not hold, by name: the reason (numbers are those of
/// docs/protocol/differences.md), and the steps that stand in for those from the given one on, up
/// to the last.
const BETTER: [(&str, &str, usize, &[Step]); 6] = [
    (
        "burst_hs_ack_data",
        "what is pipelined behind the handshake is kept (C3)",
        2,
        &[
            Step::Comes(b"\x03\0\0\0"),
            Step::Comes(
                b"\x04\0\0\x54\x04\x01{\"code\":200,\"msg\":{\"__route__\":\
                  \"connector.entryHandler.echo\"},\"sid\":18,\"uid\":null}",
            ),
            Step::Sent(b"\x02\0\0\0"),
            Step::Sent(b"\x04\0\0\x20\0\x02\x1bconnector.entryHandler.echo{}"),
            Step::Comes(
                b"\x04\0\0\x54\x04\x02{\"code\":200,\"msg\":{\"__route__\":\
                  \"connector.entryHandler.echo\"},\"sid\":18,\"uid\":null}",
            ),
        ],
    ),
    ("route_no_dot", "a request of an id is always answered (C5)", 5, &[Step::Comes(ERROR)]),
    ("route_empty", "a request of an id is always answered (C5)", 5, &[Step::Comes(ERROR)]),
    (
        "compressed_without_dict",
        "a request of an id is always answered (C5)",
        5,
        &[Step::Comes(ERROR)],
    ),
    ("dict_unknown_code", "a request of an id is always answered (C5)", 5, &[Step::Comes(ERROR)]),
    (
        "local_twice",
        "a handler has one answer; the original sends two to a client that waits for one",
        5,
        &[Step::Comes(b"\x04\0\0\x09\x04\x01{\"n\":1}")],
    ),
];
/// The answer `{"code":500}` to the request 1.
const ERROR: &[u8] = b"\x04\0\0\x0e\x04\x01{\"code\":500}";

#[derive(Clone, Copy)]
enum Step {
    Sent(&'static [u8]),
    Comes(&'static [u8]),
}

/// One step, from the recording or in its place.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    Sent(Vec<u8>),
    Comes(Vec<u8>),
    ClientCloses,
    ServerCloses,
}

#[test]
fn recorded_connections() {
    let file: Value = serde_json::from_str(CONNECTION).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let plain = app(builder(1)).start().unwrap();
    let full = with_tables(app(builder(1)), cases).start().unwrap();
    let mut better: Vec<&str> = BETTER.iter().map(|(name, ..)| *name).collect();
    let mut seen = 0;
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let engine = match case["config"].as_str() {
            None => &plain,
            Some("dict+protobuf") => &full,
            Some(other) => panic!("{name}: unknown config {other}"),
        };
        better.retain(|other| *other != name);
        replay(name, engine, &script(name, case));
        seen += 1;
    }
    assert_eq!(seen, CASES);
    assert!(better.is_empty(), "no such recordings: {better:?}");
    for engine in [plain, full] {
        support::eventually("all connections are freed", || {
            let counters = engine.handle().counters();
            counters.connections_accepted == counters.connections_closed
        });
    }
}

fn script(name: &str, case: &Value) -> Vec<Event> {
    let steps = case["script"].as_array().unwrap();
    let mut script: Vec<Event> = steps
        .iter()
        .map(|step| match (step["dir"].as_str().unwrap(), step["hex"].as_str()) {
            ("c2s", Some(hex)) => Event::Sent(unhex(hex)),
            ("s2c", Some(hex)) => Event::Comes(unhex(hex)),
            (dir, None) => {
                assert_eq!(step["ev"], "close", "{name}");
                if dir == "c2s" { Event::ClientCloses } else { Event::ServerCloses }
            }
            (dir, _) => panic!("{name}: unknown direction {dir}"),
        })
        .collect();
    let Some((_, why, from, steps)) = BETTER.iter().find(|(other, ..)| *other == name) else {
        return script;
    };
    let recorded = script.clone();
    let end = script.pop().unwrap();
    script.truncate(*from);
    script.extend(steps.iter().map(|step| match step {
        Step::Sent(bytes) => Event::Sent(bytes.to_vec()),
        Step::Comes(bytes) => Event::Comes(bytes.to_vec()),
    }));
    script.push(end);
    assert_ne!(script, recorded, "{name} does not need: {why}");
    script
}

fn replay(name: &str, engine: &Engine, script: &[Event]) {
    let mut client = Client::connect(engine.local_addr());
    for step in script {
        match step {
            Event::Sent(bytes) => client.stream.write_all(bytes).unwrap(),
            Event::Comes(expected) => {
                let came = client.next();
                let came = came.unwrap_or_else(|| panic!("{name}: closed before {expected:x?}"));
                let (came, expected) = (comparable(&came), comparable(expected));
                assert_eq!(came, expected, "{name}");
                client.is_working |= expected == "03000000";
            }
            Event::ClientCloses => client.nothing_more(name),
            Event::ServerCloses => assert_eq!(client.next(), None, "{name}"),
        }
    }
}

/// A package as text, with the session's number blotted out.
fn comparable(package: &[u8]) -> String {
    let numbered = package.windows(7).position(|window| window == b",\"sid\":");
    let Some(place) = numbered.map(|place| place + 7) else {
        return package.iter().map(|byte| format!("{byte:02x}")).collect();
    };
    let digits = package[place..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    assert!(digits > 0, "a session's number is a number");
    // The length follows the digits, which differ.
    let shorter = u32::from_be_bytes([0, package[1], package[2], package[3]]) - digits as u32;
    let (before, after) = (&package[4..place], &package[place + digits..]);
    let [before, after] = [before, after].map(String::from_utf8_lossy);
    format!("{} {shorter} {before:?} {after:?}", package[0])
}

/// A client that looks at bytes alone.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    is_working: bool,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new(), is_working: false }
    }

    /// The next package, `None` once the server has closed.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Status::Complete { consumed, .. } =
                package::decode(&self.buffer, BODY_BYTES_MAX).unwrap()
            {
                return Some(self.buffer.drain(..consumed).collect());
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert_eq!(self.buffer, b"", "closed inside of a package");
                    return None;
                }
                Ok(len) => self.buffer.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the server says nothing: {error}"),
            }
        }
    }

    /// The server has nothing to say that it has not said: a last request, where there can be
    /// one, is answered next, and the goodbye of the client ends the connection.
    fn nothing_more(&mut self, name: &str) {
        if self.is_working {
            self.stream.write_all(&request(99, "connector.entryHandler.str", "{}")).unwrap();
            let answer = self.next().unwrap_or_else(|| panic!("{name}: closed"));
            assert_eq!(answer, b"\x04\0\0\x09\x04\x63\"hello\"", "{name}");
        }
        self.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.next(), None, "{name}");
    }
}

/// The application that was recorded.
fn app(builder: Builder) -> Builder {
    let entry = |method: &str| format!("connector.entryHandler.{method}");
    builder
        .heartbeat(HEARTBEAT)
        .check_client(|sys_type, _| sys_type != Some("old"))
        .user_handshake(|handshake| {
            let user = handshake.user();
            if user.is_some_and(|user| user.get("fail").is_some()) {
                return Err(Refusal::new());
            }
            let echo = user.filter(|user| user.get("echo").is_some());
            Ok(echo.cloned().map_or_else(Welcome::new, Welcome::user))
        })
        .handler(entry("echo"), |request, session| {
            let mut msg = request.value();
            if let Value::Object(members) = &mut msg {
                members.insert("__route__".into(), request.route().into());
            }
            let (sid, uid) = (session.number(), session.uid().map(Uid::to_value));
            Reply::json(&json!({ "code": 200, "msg": msg, "sid": sid, "uid": uid }))
        })
        .handler(entry("err"), |_, _| Reply::error())
        .handler(entry("errresp"), |_, _| Reply::error_json(&json!({ "a": 1 })))
        .handler(entry("errcode"), |_, _| Reply::error_json(&json!({ "code": 777 })))
        .handler(entry("noresp"), |_, _| Reply::empty())
        .handler(entry("str"), |_, _| Reply::json("hello"))
        .handler(entry("num"), |_, _| Reply::json(&0))
        .handler(entry("never"), |_, session| session.defer(std::mem::forget))
        .handler(entry("twice"), |_, _| Reply::json(&json!({ "n": 1 })))
        .async_handler(entry("bind"), |request, mut session| async move {
            let uid = Uid::try_from(&request.value()["uid"]).unwrap();
            match session.bind(uid).await {
                Ok(()) => Reply::json(&json!({ "code": 200 })),
                Err(error) => Reply::json(&json!({ "code": 501, "err": error.to_string() })),
            }
        })
        .async_handler(entry("push"), push)
        .handler(entry("kickme"), |request, session| {
            session.kick(request.value()["reason"].as_str());
            Reply::empty()
        })
        .forward("chat", Workers::new(1, chat))
}

async fn push(request: OwnedRequest, session: Session) -> Reply<'static> {
    let message = request.value();
    let (route, body) = (message["route"].as_str().unwrap(), message["body"].to_string());
    let uids = session.uid().cloned();
    let fails = session.context().push(uids, route, body.as_bytes()).unwrap().await;
    let fails: Vec<Value> = fails.iter().map(Uid::to_value).collect();
    Reply::json(&json!({ "code": 200, "err": null, "fails": fails }))
}

fn chat(handlers: &mut Handlers) {
    handlers
        .async_handler("chat.chatHandler.set", |request, mut session| async move {
            session.set("room", request.value()["room"].clone());
            assert!(session.push("room").await);
            Reply::json(&json!({ "code": 200 }))
        })
        .handler("chat.chatHandler.err", |_, _| Reply::error())
        .handler("chat.chatHandler.errresp", |_, _| Reply::error_json(&json!({ "a": 1 })))
        .handler("chat.chatHandler.noresp", |_, _| Reply::empty())
        .handler("chat.chatHandler.thrower", |_, _| panic!("on purpose"))
        .handler("chat.chatHandler.kick", |request, session| {
            // The recorded one does not wait for its kick either: the answer is sent first.
            let reason = request.value()["reason"].as_str().map(str::to_owned);
            let (context, id) = (session.context(), session.id());
            session.context().spawn(async move { context.kick(id, reason.as_deref()) });
            Reply::empty()
        })
        .handler("chat.chatHandler.proto", |request, _| {
            let message = request.value();
            let name = format!("{}{}", message["name"].as_str().unwrap(), message["xs"]);
            Reply::json(&json!({ "code": 200, "name": name }))
        });
}

/// The dictionary and the schemas of the recorded server, taken from its own handshake.
fn with_tables(builder: Builder, cases: &[Value]) -> Builder {
    let case = cases.iter().find(|case| case["name"] == "dict_proto_handshake").unwrap();
    let answer = unhex(case["script"][1]["hex"].as_str().unwrap());
    let answer: Value = serde_json::from_slice(&answer[4..]).unwrap();
    let sys = &answer["sys"];
    let dict = sys["dict"].as_object().unwrap();
    let codes = dict.iter().map(|(route, code)| (route.as_str(), code.as_u64().unwrap() as u32));
    let protos = |side: &str| {
        let parsed = sys["protos"][side].as_object().unwrap();
        let file = parsed.iter().map(|(route, schema)| (route.clone(), unparsed(schema)));
        Protos::parse(&Value::Object(file.collect())).unwrap()
    };
    builder
        .dictionary(Dictionary::from_map(codes).unwrap())
        .protos(ProtoTable::new(protos("client"), protos("server")))
}

/// The text of a schema file for what was parsed from it.
fn unparsed(schema: &Value) -> Value {
    let members = schema.as_object().unwrap().iter();
    let fields = members.filter(|(member, _)| !member.starts_with("__")).map(|(name, field)| {
        let [option, kind] = ["option", "type"].map(|part| field[part].as_str().unwrap());
        (format!("{option} {kind} {name}"), field["tag"].clone())
    });
    assert_eq!(schema["__messages"], json!({}), "not needed so far");
    Value::Object(fields.collect::<Map<_, _>>())
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
