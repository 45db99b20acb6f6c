//! Clients that are admitted by a future: another thread, the service that knows the players, says
//! who comes in, while the shards serve others.

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::wire::package::PackageType;
use shaddock::{
    Builder, ClientRules, Dialect, Drain, Engine, Handlers, Handshake, Limits, Listener,
    Maintenance, Refusal, Reply, Welcome, Workers,
};
use support::{Client, Event, ack, builder, eventually, package, request};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

/// A question to the service, and who waits for its answer.
#[derive(Default)]
struct Question {
    token: String,
    answer: Mutex<(Option<bool>, Option<Waker>)>,
}

/// The service: it knows each token but `bad`, and never answers about `slow`.
#[derive(Clone)]
struct Service {
    questions: Arc<Mutex<mpsc::Sender<Arc<Question>>>>,
    /// Futures that wait for it.
    waiting: Arc<AtomicUsize>,
}

/// One of the service's askers, for as long as it is there.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    fn start() -> Self {
        let (questions, asked) = mpsc::channel::<Arc<Question>>();
        std::thread::spawn(move || {
            let mut slow = Vec::new();
            for question in asked {
                if question.token == "slow" {
                    slow.push(question);
                    continue;
                }
                std::thread::sleep(Duration::from_millis(1));
                let mut answer = question.answer.lock().unwrap();
                answer.0 = Some(question.token != "bad");
                if let Some(waker) = answer.1.take() {
                    waker.wake();
                }
            }
        });
        Self { questions: Arc::new(Mutex::new(questions)), waiting: Arc::default() }
    }

    async fn knows(&self, token: &str) -> bool {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(Arc::clone(&self.waiting));
        let question = Arc::new(Question { token: token.to_owned(), ..Question::default() });
        self.questions.lock().unwrap().send(Arc::clone(&question)).unwrap();
        std::future::poll_fn(|context| {
            let mut answer = question.answer.lock().unwrap();
            match answer.0 {
                Some(knows) => Poll::Ready(knows),
                None => {
                    answer.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The token is the handshake's `user`, or a header of a WebSocket's request.
fn describe(shards: u16, service: &Service) -> Builder {
    let service = service.clone();
    let get = |server_type: &'static str| {
        move |handlers: &mut Handlers| {
            handlers.handler(&format!("{server_type}.play.get"), |request, session| {
                Reply::json(&json!([session.get(request.value().as_str().unwrap())]))
            });
        }
    };
    builder(shards)
        .listen(Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya))
        .register(get("connector"))
        .forward("room", Workers::new(1, get("room")))
        .on_handshake(async move |handshake: Handshake| {
            assert!(handshake.peer().ip().is_loopback());
            let user = handshake.user().and_then(|user| user["token"].as_str());
            let Some(token) = handshake.header("X-Token").or(user) else {
                return Err(Refusal::new());
            };
            if !service.knows(token).await {
                return Err(Refusal::code(401).text(format!("\"{token}\" is bad")));
            }
            let listener = handshake.listener();
            Ok(Welcome::user(json!({ "hello": token, "listener": listener }))
                .setting("token", token)
                .setting("version", handshake.version()))
        })
}

fn asks(token: &str) -> Vec<u8> {
    let user = json!({ "token": token });
    package(
        PackageType::Handshake,
        json!({ "sys": { "version": "7" }, "user": user }).to_string().as_bytes(),
    )
}

fn answer(client: &mut Client) -> Value {
    let Event::Handshake(answer) = client.next() else { panic!("no handshake") };
    answer
}

fn websocket(engine: &Engine, token: &str) -> WebSocket<TcpStream> {
    let address = engine.local_addr();
    let mut request = format!("ws://{address}/").into_client_request().unwrap();
    request.headers_mut().insert("x-token", token.parse().unwrap());
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut socket = tungstenite::client(request, stream).unwrap().0;
    let hello = package(PackageType::Handshake, br#"{"sys":{}}"#);
    socket.send(Message::Binary(hello.into())).unwrap();
    socket
}

#[test]
fn many_clients_are_admitted_at_once_with_settings_of_their_own() {
    const CLIENTS: usize = 200;
    let service = Service::start();
    for shards in [1, 2] {
        let engine = describe(shards, &service).start().unwrap();
        let mut clients: Vec<Client> =
            (0..CLIENTS).map(|_| Client::connect(engine.local_addr())).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let ask = |id, route| request(id, route, "\"token\"");
            let rest = [ack(), ask(1, "connector.play.get"), ask(2, "room.play.get")];
            client.send(&[asks(&format!("t{number}")), rest.concat()].concat());
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let token = format!("t{number}");
            let told = answer(client);
            assert_eq!(told["code"], 200);
            assert_eq!(told["user"], json!({ "hello": token, "listener": 0 }));
            let expected = json!([token]).to_string();
            assert_eq!((client.answer(1), client.answer(2)), (expected.clone(), expected));
            let version = client.ask(3, "connector.play.get", "\"version\"");
            assert_eq!(version, "[\"7\"]");
        }
        assert_eq!(engine.handle().counters().handshakes, CLIENTS as u64);
        assert_eq!(service.waiting.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_refusal_has_its_code_and_text_in_both_dialects() {
    let engine = describe(1, &Service::start()).start().unwrap();
    for (listener, plain) in [(0, 500), (1, 400)] {
        let connect = || Client::connect(engine.local_addrs()[listener]);
        let mut client = connect();
        client.send(&asks("bad"));
        let told = inflated(&mut client, listener);
        assert_eq!((&told["code"], &told["msg"]), (&json!(401), &json!("\"bad\" is bad")));
        assert_eq!(told["sys"].is_object(), listener == 1, "Pitaya's client needs it");
        assert_eq!(client.until_end(), []);

        let mut client = connect();
        client.send(&package(PackageType::Handshake, br#"{"sys":{}}"#));
        let told = inflated(&mut client, listener);
        assert_eq!((&told["code"], &told["msg"]), (&json!(plain), &Value::Null));
        assert_eq!(client.until_end(), []);

        let mut client = connect();
        client.send(&asks("good"));
        assert_eq!(inflated(&mut client, listener)["user"]["listener"], listener);
    }
    assert_eq!(engine.handle().counters().refused_handshake, 4);
}

/// The answer to a handshake, which is compressed in Pitaya's dialect.
fn inflated(client: &mut Client, listener: usize) -> Value {
    if listener == 0 {
        return answer(client);
    }
    let mut head = [0; 4];
    std::io::Read::read_exact(&mut client.stream, &mut head).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    std::io::Read::read_exact(&mut client.stream, &mut body).unwrap();
    match body[0] {
        b'{' => serde_json::from_slice(&body).unwrap(),
        _ => serde_json::from_reader(flate2::read::ZlibDecoder::new(&body[..])).unwrap(),
    }
}

#[test]
fn the_headers_of_a_websocket_are_seen() {
    let service = Service::start();
    let engine = describe(1, &service).start().unwrap();
    for (token, code) in [("good", 200), ("bad", 401)] {
        let mut socket = websocket(&engine, token);
        let Message::Binary(bytes) = socket.read().unwrap() else { panic!("no package") };
        let told: Value = serde_json::from_slice(&bytes[4..]).unwrap();
        assert_eq!(told["code"], code);
    }
    // By the callback that answers at once, too.
    let engine = builder(1)
        .user_handshake(|handshake| match handshake.header("x-TOKEN") {
            Some(token) => Ok(Welcome::user(token)),
            None => Err(Refusal::code(403)),
        })
        .start()
        .unwrap();
    let mut socket = websocket(&engine, "a b");
    let Message::Binary(bytes) = socket.read().unwrap() else { panic!("no package") };
    assert_eq!(&bytes[4..], br#"{"code":200,"sys":{},"user":"a b"}"#);
    let mut client = Client::connect(engine.local_addr());
    client.send(&asks("by TCP there are none"));
    assert_eq!(answer(&mut client), json!({ "code": 403 }));
}

#[test]
fn clients_that_leave_while_they_wait_leave_nothing() {
    let service = Service::start();
    let engine = describe(2, &service).start().unwrap();
    let clients: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = Client::connect(engine.local_addr());
            client.send(&asks("slow"));
            if number % 2 == 0 {
                client.send(&ack());
            }
            client
        })
        .collect();
    let mut sockets: Vec<_> = (0..20).map(|_| websocket(&engine, "slow")).collect();
    eventually("all wait", || service.waiting.load(Ordering::Relaxed) == 40);
    // Others are served meanwhile.
    let mut other = Client::connect(engine.local_addr());
    other.send(&asks("good"));
    assert_eq!(answer(&mut other)["code"], 200);
    drop(clients);
    sockets.iter_mut().step_by(2).for_each(|socket| socket.close(None).unwrap());
    drop(sockets);
    eventually("the futures are dropped", || service.waiting.load(Ordering::Relaxed) == 0);
    eventually("all are gone", || engine.handle().metrics().unwrap().connections == 1);
}

#[test]
fn a_future_that_takes_too_long_is_dropped_with_its_client() {
    let service = Service::start();
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let engine = describe(1, &service).limits(limits).start().unwrap();
    let mut client = Client::connect(engine.local_addr());
    client.send(&asks("slow"));
    assert_eq!(client.until_end(), []);
    assert_eq!(engine.handle().counters().closed_handshake_timeout, 1);
    assert_eq!(service.waiting.load(Ordering::Relaxed), 0);
    // A shutdown does not wait for them either.
    let mut client = Client::connect(engine.local_addr());
    client.send(&asks("slow"));
    eventually("it waits", || service.waiting.load(Ordering::Relaxed) == 1);
    engine.shutdown(Drain::within(support::PATIENCE));
    assert_eq!(service.waiting.load(Ordering::Relaxed), 0);
}

#[test]
fn each_session_that_opens_is_told_of_once_and_before_it_closes() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (opened, closed) = (Arc::clone(&told), Arc::clone(&told));
    let engine = builder(2)
        .register(move |handlers| {
            let (opened, closed) = (Arc::clone(&opened), Arc::clone(&closed));
            handlers
                .on_session_opened(move |session, context| {
                    opened.lock().unwrap().push((session.number(), "opened"));
                    context.send(session.id, "onOpen", session.number().to_string()).unwrap();
                })
                .on_session_closed(move |session, _| {
                    closed.lock().unwrap().push((session.number(), "closed"));
                });
        })
        .start()
        .unwrap();
    // One that does not acknowledge the answer never opens.
    let mut silent = Client::connect(engine.local_addr());
    silent.send(&support::handshake());
    assert_eq!(answer(&mut silent)["code"], 200);
    let mut numbers = HashSet::new();
    for _ in 0..8 {
        let mut client = Client::ready(engine.local_addr());
        let Event::Push { route, body } = client.next() else { panic!("nobody was told") };
        let number: u64 = std::str::from_utf8(&body).unwrap().parse().unwrap();
        assert_eq!((route.as_str(), numbers.insert(number)), ("onOpen", true));
        client.send(&ack());
        drop(client);
        eventually("it is told of", || {
            *told.lock().unwrap() == [(number, "opened"), (number, "closed")]
        });
        told.lock().unwrap().clear();
    }
    drop(silent);
    eventually("it is gone", || engine.handle().metrics().unwrap().connections == 0);
    assert!(told.lock().unwrap().is_empty());
}

/// The code and the message that a client is told that says this of itself.
fn told(engine: &Engine, listener: usize, hello: &Value) -> (Value, Value) {
    let mut client = Client::connect(engine.local_addrs()[listener]);
    client.send(&package(PackageType::Handshake, hello.to_string().as_bytes()));
    let told = inflated(&mut client, listener);
    if told["code"] != 200 {
        assert_eq!(client.until_end(), []);
    }
    (told["code"].clone(), told["msg"].clone())
}

#[test]
fn clients_of_old_versions_and_other_types_are_told_so() {
    let rules = ClientRules::new()
        .version_min("1.2".parse().unwrap(), Refusal::new().text("please update"))
        .types(["unity"], Refusal::code(403).text("not here"));
    let engine = builder(1)
        .listen(Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya))
        .client_rules(rules)
        .start()
        .unwrap();
    // Pitaya's clients tell the same by other names.
    for (listener, [kind, version], too_old) in
        [(0, ["type", "version"], 501), (1, ["platform", "libVersion"], 400)]
    {
        let told = |sys: Value| told(&engine, listener, &json!({ "sys": sys }));
        let fine = (json!(200), Value::Null);
        assert_eq!(told(json!({ kind: "unity", version: "1.10" })), fine);
        assert_eq!(told(json!({ kind: "unity" })), fine, "who tells no version is let in");
        let old = (json!(too_old), json!("please update"));
        assert_eq!(told(json!({ kind: "unity", version: "1.1.9" })), old);
        let other = (json!(403), json!("not here"));
        assert_eq!(told(json!({ kind: "js", version: "1.2" })), other);
    }
    let counters = engine.handle().counters();
    assert_eq!((counters.refused_version, counters.refused_type, counters.handshakes), (2, 2, 4));
    engine.handle().set_client_rules(ClientRules::new()).unwrap();
    eventually("everybody is served", || {
        told(&engine, 0, &json!({ "sys": { "version": "0" } })).0 == 200
    });
}

#[test]
fn in_maintenance_nobody_new_comes_in_but_those_who_are_named() {
    let elsewhere = ["192.0.2.0/24".parse().unwrap()];
    let maintenance = Maintenance::new(Refusal::code(503).text("back at ten")).allow(elsewhere);
    let engine = builder(2)
        .listen(Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya))
        .handler("connector.play.echo", |request, _| Reply::borrowed(request.body()))
        .start()
        .unwrap();
    let mut inside = Client::ready(engine.local_addr());
    let handle = engine.handle();
    handle.set_maintenance(maintenance.clone()).unwrap();
    // Reports come behind it.
    handle.statistics().unwrap();
    for listener in [0, 1] {
        for _ in 0..4 {
            let hello = json!({ "sys": {} });
            assert_eq!(told(&engine, listener, &hello), (json!(503), json!("back at ten")));
        }
    }
    assert_eq!(handle.counters().refused_maintenance, 8);
    assert_eq!(inside.ask(1, "connector.play.echo", "[1]"), "[1]", "who is in stays in");
    let here = maintenance.allow(["127.0.0.0/8".parse().unwrap()]);
    handle.set_maintenance(here).unwrap();
    handle.statistics().unwrap();
    assert_eq!(told(&engine, 0, &json!({ "sys": {} })).0, 200);
    handle.set_maintenance(None).unwrap();
    handle.statistics().unwrap();
    assert_eq!(told(&engine, 1, &json!({ "sys": {} })).0, 200);

    // A client of Pitaya's that works may ask for its handshake again.
    let mut again = Client::connect(engine.local_addrs()[1]);
    let hello = package(PackageType::Handshake, br#"{"sys":{}}"#);
    again.send(&hello);
    assert_eq!(inflated(&mut again, 1)["code"], 200);
    again.send(&ack());
    handle.set_maintenance(Maintenance::new(Refusal::code(503))).unwrap();
    handle.statistics().unwrap();
    again.send(&hello);
    assert_eq!(inflated(&mut again, 1)["code"], 200);
    assert_eq!(told(&engine, 0, &json!({ "sys": {} })).0, 503);
}

#[test]
fn two_looks_at_handshakes_keep_an_engine_from_starting() {
    let both = || builder(1).user_handshake(|_| Ok(Welcome::new()));
    let later = both().on_handshake(async |_| Ok(Welcome::new())).start().unwrap_err();
    assert!(later.to_string().contains("`on_handshake` must be left out"), "{later}");
    let first = builder(1).on_handshake(async |_| Ok(Welcome::new()));
    assert!(first.user_handshake(|_| Ok(Welcome::new())).check().is_err());
    both().user_handshake(|_| Err(Refusal::new())).start().unwrap();
}
