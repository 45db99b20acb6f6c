//! The crate's client against an engine, over each transport, and against servers that are none:
//! whatever the peer does, each call ends, within its bound and with its reason.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shaddock::client::{
    Client, Closed, ConnectError, Fault, Options, RequestError, Tables, block_on,
};
use shaddock::route::Dictionary;
use shaddock::wire::package::{PackageError, PackageType};
use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{Audience, Builder, Drain, Engine, Limits, Refusal, Reply, Welcome};
use support::{PATIENCE, builder, eventually, package};

const ECHO: &str = "connector.play.echo";
const NEVER: &str = "connector.play.never";
const MOVE: &str = "connector.play.move";
const KICK: &str = "connector.play.kick";
/// Longer than anything here takes, and shorter than the patience of a test.
const SHORT: Duration = Duration::from_millis(200);

fn play(builder: Builder) -> Builder {
    builder
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(MOVE, |request, _| Reply::json(&request.value()))
        .handler(NEVER, |_, session| session.defer(std::mem::forget))
        .handler(KICK, |request, session| {
            session.kick(request.value().as_str());
            Reply::empty()
        })
}

fn tables(builder: Builder) -> Builder {
    let requests = Protos::parse_text(
        r#"{"connector.play.move": {"required int32 x": 1, "optional string by": 2}}"#,
    );
    let answers_and_pushes = Protos::parse_text(
        r#"{"connector.play.move": {"required int32 x": 1, "optional string by": 2},
            "onMove": {"required int32 x": 1, "repeated Point path": 2,
                       "message Point": {"required double y": 1}}}"#,
    );
    builder
        .dictionary(Dictionary::new([ECHO, MOVE], ["onMove"]).unwrap())
        .protos(ProtoTable::new(requests.unwrap(), answers_and_pushes.unwrap()))
}

fn connect(address: impl std::fmt::Display) -> Client {
    block_on(Client::connect(address)).unwrap()
}

fn ask(client: &Client, route: &str, body: &Value) -> Result<Value, RequestError> {
    block_on(client.request(route, body)).map(|answer| answer.json().unwrap())
}

fn push(engine: &Engine, route: &str, body: &Value) {
    engine.handle().broadcast(route, body.to_string(), Audience::all()).unwrap();
}

/// A request, a thousand at once, an answer longer than a read, and a push.
fn plays(engine: &Engine, client: &Client) {
    assert_eq!(ask(client, ECHO, &json!({"a": "é"})), Ok(json!({"a": "é"})));
    let under_way: Vec<_> = (1..1001).map(|number| client.request(ECHO, &number)).collect();
    for (number, answer) in (1..).zip(under_way).collect::<Vec<_>>().into_iter().rev() {
        assert_eq!(block_on(answer).unwrap().json::<u64>().unwrap(), number);
    }
    let long = "x".repeat(1 << 20);
    assert_eq!(ask(client, ECHO, &json!(long)), Ok(json!(long)));
    assert_eq!(ask(client, MOVE, &json!({"x": -2})), Ok(json!({"x": -2})));
    client.notify(ECHO, &1).unwrap();
    let body = json!({"x": 7, "path": [{"y": 0.5}]});
    push(engine, "onMove", &body);
    let pushed = block_on(client.next_push()).unwrap();
    assert_eq!((pushed.route(), pushed.json::<Value>().unwrap()), ("onMove", body));
}

#[test]
fn plays_over_tcp_and_websocket_with_and_without_tables() {
    for with in [play, |builder| tables(play(builder))] {
        let engine = with(builder(2)).start().unwrap();
        let address = engine.local_addr();
        let port = address.port();
        for address in
            [format!("{address}"), format!("ws://{address}/a?b=c"), format!("localhost:{port}")]
        {
            let client = connect(&address);
            plays(&engine, &client);
            client.close();
            assert_eq!(block_on(client.closed()), Closed::ByClient);
            assert_eq!(ask(&client, ECHO, &json!(1)), Err(RequestError::Closed(Closed::ByClient)));
        }
        eventually("all are gone", || engine.handle().metrics().unwrap().connections == 0);
        let counters = engine.shutdown(Drain::now()).counters;
        assert_eq!((counters.bad_message, counters.bad_protobuf), (0, 0));
    }
}

#[cfg(feature = "tls")]
#[test]
fn plays_inside_tls() {
    use shaddock::client::Trust;
    use shaddock::{Listener, Shards, Tls};

    let folder = support::folder::Folder::create();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let listener = Listener::new("127.0.0.1:0").tls(Tls::from_files(certificate, key).unwrap());
    let engine = tables(play(Engine::builder().listen(listener).shards(Shards::Count(1))));
    let engine = engine.start().unwrap();
    let port = engine.local_addr().port();
    for scheme in ["tls", "wss"] {
        let address = format!("{scheme}://localhost:{port}");
        let trust = Trust::pem(made.cert.pem().as_bytes()).unwrap();
        let client = block_on(Options::new().trust(trust).connect(&address)).unwrap();
        plays(&engine, &client);
        client.close();
        assert_eq!(block_on(client.closed()), Closed::ByClient);

        let missing = block_on(Client::connect(&address)).unwrap_err();
        assert_eq!(missing, ConnectError::TrustMissing);
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let trust = Trust::pem(other.cert.pem().as_bytes()).unwrap();
        let refused = block_on(Options::new().trust(trust).connect(&address)).unwrap_err();
        assert!(matches!(refused, ConnectError::Closed(Closed::Tls(_))), "{refused:?}");
    }
}

#[test]
fn tables_are_read_from_the_handshake_and_not_sent_again() {
    let engine = tables(play(builder(1))).start().unwrap();
    let client = connect(engine.local_addr());
    let told = client.tables();
    assert_eq!(told.dictionary().unwrap().code("onMove"), Some(3));
    let made = Dictionary::new([ECHO, MOVE], ["onMove"]).unwrap();
    assert_eq!(told.dictionary().unwrap().version(), made.version());
    assert!(told.protos().unwrap().client().schema(MOVE).is_some());
    // A server that has others sends them; this one has the same, and sends none.
    let longest = Options::new().handshake_bytes_max(100);
    let too_long = block_on(longest.clone().connect(engine.local_addr())).unwrap_err();
    assert!(matches!(too_long, ConnectError::Closed(Closed::Fault(Fault::Package(_)))));
    let again = block_on(longest.tables(told).connect(engine.local_addr())).unwrap();
    plays(&engine, &again);
}

#[test]
fn the_handshake_says_who_the_client_is_and_brings_the_games_word() {
    let engine = play(builder(1))
        .check_client(|name, version| name == Some("bot") && version == Some("7"))
        .user_handshake(|handshake| match handshake.user() {
            Some(user) if user["token"] == "t" => Ok(Welcome::user(json!({"hello": "bot"}))),
            _ => Err(Refusal::new()),
        })
        .start()
        .unwrap();
    let refused = |options: Options| match block_on(options.connect(engine.local_addr())) {
        Err(ConnectError::Closed(Closed::Refused { code })) => code,
        other => panic!("not refused: {other:?}"),
    };
    let bot = Options::new().client_type("bot", "7");
    assert_eq!(refused(Options::new()), 501);
    assert_eq!(refused(bot.clone()), 500);
    let client = bot.user(json!({"token": "t"})).connect(engine.local_addr());
    assert_eq!(block_on(client).unwrap().user(), Some(json!({"hello": "bot"})));
}

#[test]
fn the_heartbeat_keeps_an_idle_client() {
    // The engine closes a client that sends no heartbeat for two intervals.
    let engine = play(builder(1)).heartbeat(Duration::from_secs(1)).start().unwrap();
    let client = connect(engine.local_addr());
    eventually("several heartbeats", || engine.handle().counters().heartbeats >= 3);
    assert_eq!(client.close_reason(), None);
    assert_eq!(ask(&client, ECHO, &json!(1)), Ok(json!(1)));
}

#[test]
fn a_kick_tells_its_reason_and_fails_what_waits() {
    let engine = play(builder(1)).start().unwrap();
    for scheme in ["tcp", "ws"] {
        let client = connect(format!("{scheme}://{}", engine.local_addr()));
        let waits = client.request(NEVER, &json!({}));
        let kicked = Closed::Kicked { reason: Some("bye".to_owned()) };
        assert_eq!(ask(&client, KICK, &json!("bye")), Err(RequestError::Closed(kicked.clone())));
        assert_eq!(block_on(waits), Err(RequestError::Closed(kicked.clone())));
        assert_eq!(block_on(client.closed()), kicked);
        assert_eq!(block_on(client.next_push()), None);
    }
}

#[test]
fn a_server_that_goes_in_the_middle_of_a_request_fails_it() {
    let engine = play(builder(1)).start().unwrap();
    let clients = ["tcp", "ws"].map(|s| connect(format!("{s}://{}", engine.local_addr())));
    let waiting = clients.each_ref().map(|client| client.request(NEVER, &json!({})));
    eventually("both are there", || engine.handle().counters().requests == 2);
    let _ = engine.shutdown(Drain::now());
    for waits in waiting {
        let failed = block_on(waits).unwrap_err();
        assert!(matches!(failed, RequestError::Closed(_)), "{failed:?}");
    }
    let refused = block_on(Client::connect("127.0.0.1:1")).unwrap_err();
    assert!(matches!(refused, ConnectError::Closed(Closed::Io(_))), "{refused:?}");
}

#[test]
fn a_request_without_an_answer_times_out_and_others_go_on() {
    let engine = play(builder(1)).start().unwrap();
    let options = Options::new().requests_max(3);
    let client = block_on(options.connect(engine.local_addr())).unwrap();
    let long = client.request(NEVER, &json!({}));
    let lost = [0; 2].map(|_| client.request_within(SHORT, NEVER, &json!({})));
    let too_many = block_on(client.request(ECHO, &1)).unwrap_err();
    assert_eq!(too_many, RequestError::TooMany { max: 3 });
    for lost in lost {
        assert_eq!(block_on(lost), Err(RequestError::TimedOut));
    }
    assert_eq!(ask(&client, ECHO, &json!(2)), Ok(json!(2)));
    drop(long);
    let options = Options::new().request_timeout(SHORT);
    let client = block_on(options.connect(engine.local_addr())).unwrap();
    assert_eq!(ask(&client, NEVER, &json!({})), Err(RequestError::TimedOut));
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    for scheme in ["tcp", "ws"] {
        let (noted, notes) = mpsc::channel();
        let engine = builder(1).handler("connector.play.note", move |request, _| {
            noted.send(request.value()).unwrap();
            Reply::empty()
        });
        let engine = engine.start().unwrap();
        let client = connect(format!("{scheme}://{}", engine.local_addr()));
        for number in 0..1000 {
            client.notify("connector.play.note", &number).unwrap();
        }
        drop(client);
        for number in 0..1000 {
            assert_eq!(notes.recv_timeout(PATIENCE).unwrap(), json!(number));
        }
    }
}

#[test]
fn pushes_that_nobody_takes_are_dropped_from_the_oldest() {
    let engine = play(builder(1)).start().unwrap();
    let options = Options::new().inbox_bytes_max(10_000);
    let client = block_on(options.connect(engine.local_addr())).unwrap();
    // A push reaches those whose ACK has come.
    assert_eq!(ask(&client, ECHO, &json!(1)), Ok(json!(1)));
    for number in 0..1000 {
        push(&engine, "onTick", &json!({"number": number, "state": "x".repeat(100)}));
    }
    // An answer behind them makes sure that all have come, and has room.
    eventually("the last has come", || client.dropped_pushes() > 900);
    assert_eq!(ask(&client, ECHO, &json!(1)), Ok(json!(1)));
    let numbers: Vec<u64> = std::iter::from_fn(|| client.try_push())
        .map(|push| push.json::<Value>().unwrap()["number"].as_u64().unwrap())
        .collect();
    assert!(numbers.len() > 10 && numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.len() as u64 + client.dropped_pushes(), 1000);
    let full = ask(&client, ECHO, &json!("x".repeat(20_000))).unwrap_err();
    assert_eq!(full, RequestError::InboxFull { max: 10_000 });
}

#[test]
fn what_can_not_be_sent_says_so() {
    let engine = tables(play(builder(1))).start().unwrap();
    let options = Options::new().package_bytes_max(10_000);
    let client = block_on(options.connect(engine.local_addr())).unwrap();
    let long = "x".repeat(20_000);
    let sent = |route: &str, body: &Value| ask(&client, route, body).unwrap_err();
    assert!(matches!(sent(ECHO, &json!(long)), RequestError::TooLong { max: 10_000, .. }));
    assert!(matches!(sent(&long, &json!(1)), RequestError::Route(_)));
    assert!(matches!(sent(MOVE, &json!({"by": "x"})), RequestError::Schema(_)));
    let map = std::collections::HashMap::from([([1, 2], 3)]);
    let failed = block_on(client.request(ECHO, &map)).unwrap_err();
    assert!(matches!(failed, RequestError::Json(_)));
    assert_eq!(ask(&client, ECHO, &json!(1)), Ok(json!(1)));
}

/// One client that plays a little.
async fn game(address: SocketAddr, number: u64) {
    let client = Client::connect(address).await.unwrap();
    for round in 1..=10 {
        let answer = client.request(ECHO, &(number + round)).await.unwrap();
        assert_eq!(answer.json::<u64>().unwrap(), number + round);
    }
}

/// 300 clients of tokio's tasks and of threads share the one thread of the clients.
#[test]
fn any_executor_will_do() {
    let engine = play(builder(2)).start().unwrap();
    let address = engine.local_addr();
    thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let tasks: Vec<_> =
                (0..200).map(|number| runtime.spawn(game(address, number))).collect();
            tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
        });
        for number in 0..100 {
            scope.spawn(move || futures_lite::future::block_on(game(address, number)));
        }
    });
    eventually("all are gone", || engine.handle().metrics().unwrap().connections == 0);
}

/// A server of one connection that does what a test says.
fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        serve(stream);
    };
    (address, thread::spawn(serve))
}

/// The end of a connection to a server that says only this.
fn end_behind(scheme: &str, says: Vec<u8>, options: Options) -> Closed {
    let (address, server) = server(move |mut stream| {
        let _ = stream.write_all(&says);
        // Until the client closes, so that it isn't the server who ends it.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let connected = block_on(options.connect(format!("{scheme}://{address}")));
    let closed = match connected {
        Err(ConnectError::Closed(closed)) => closed,
        Err(other) => panic!("{other:?}"),
        Ok(client) => block_on(client.closed()),
    };
    server.join().unwrap();
    closed
}

fn ready() -> Vec<u8> {
    package(PackageType::Handshake, br#"{"code":200,"sys":{}}"#)
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    for scheme in ["tcp", "ws"] {
        let options = Options::new().connect_timeout(SHORT);
        assert_eq!(end_behind(scheme, Vec::new(), options), Closed::ConnectTimeout);
    }
    let handshake = package(PackageType::Handshake, br#"{"code":200,"sys":{"heartbeat":0.1}}"#);
    assert_eq!(end_behind("tcp", handshake, Options::new()), Closed::Silent);
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_with_the_reason() {
    let data = |message: &[u8]| [ready(), package(PackageType::Data, message)].concat();
    let unexpected = |kind| Fault::Unexpected(kind);
    for (says, fault) in [
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Fault::Package(PackageError::UnknownType(b'H'))),
        (package(PackageType::Data, b"\x04\x01{}"), unexpected(PackageType::Data)),
        (package(PackageType::Handshake, b"garbage"), Fault::Handshake),
        (data(b""), Fault::Message(shaddock::wire::message::MessageError::Empty)),
        (data(b"\x07\x00\x09{}"), Fault::UnknownCode(9)),
        ([ready(), package(PackageType::HandshakeAck, b"")].concat(), {
            unexpected(PackageType::HandshakeAck)
        }),
        (
            [ready(), b"\x04\xff\xff\xff".to_vec()].concat(),
            Fault::Package(PackageError::TooLong { len: (1 << 24) - 1, max: 4 << 20 }),
        ),
    ] {
        assert_eq!(end_behind("tcp", says, Options::new()), Closed::Fault(fault));
    }
    let refused = b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec();
    assert_eq!(end_behind("ws", refused, Options::new()), Closed::Upgrade { status: 503 });
    let not_http = end_behind("ws", ready(), Options::new());
    assert_eq!(not_http, Closed::Fault(Fault::Upgrade));
}

/// Whatever bytes come behind the handshake, the connection ends or goes on, and no call hangs.
#[test]
fn garbage_ends_a_connection_and_nothing_else() {
    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u8
    };
    for _ in 0..50 {
        let garbage: Vec<u8> = (0..200).map(|_| random()).collect();
        let (address, server) = server(move |mut stream| {
            let _ = stream.write_all(&[ready(), garbage].concat());
        });
        let client = block_on(Client::connect(address));
        if let Ok(client) = client {
            let failed = block_on(client.request(ECHO, &1)).unwrap_err();
            assert!(matches!(failed, RequestError::Closed(_)), "{failed:?}");
        }
        server.join().unwrap();
    }
}

/// A server that does not read is sent no more than the bound.
#[test]
fn a_server_that_does_not_read_costs_no_more_than_the_bound() {
    let (done, wait) = mpsc::channel::<()>();
    let (address, server) = server(move |mut stream| {
        stream.write_all(&ready()).unwrap();
        let _ = wait.recv();
    });
    let options = Options::new().output_bytes_max(100_000);
    let client = block_on(options.connect(address)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let body = "x".repeat(10_000);
    loop {
        match client.notify(ECHO, &body) {
            Ok(()) => assert!(Instant::now() < deadline, "the kernel takes all of it"),
            Err(error) => {
                assert_eq!(error, RequestError::OutputFull { max: 100_000 });
                break;
            }
        }
    }
    drop(client);
    drop(done);
    server.join().unwrap();
}

/// The crate's tables of a recorded handshake of Pomelo 2.2.7.
#[test]
fn a_recorded_handshake_gives_its_tables() {
    let file: Value = serde_json::from_str(include_str!("../vectors/connection.json")).unwrap();
    let full = |case: &&Value| case["config"] == "dict+protobuf";
    let mut seen = 0;
    for case in file["cases"].as_array().unwrap().iter().filter(full) {
        for step in case["script"].as_array().unwrap() {
            let (Some("s2c"), Some(hex)) = (step["dir"].as_str(), step["hex"].as_str()) else {
                continue;
            };
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let Ok(answer) = serde_json::from_slice::<Value>(&bytes[4..]) else { continue };
            if bytes[0] != 1 || answer["sys"]["dict"].is_null() {
                continue;
            }
            let sys = &answer["sys"];
            let tables = Tables::from_handshake(sys).unwrap();
            let dictionary = tables.dictionary().unwrap();
            assert_eq!(sys["dictVersion"], dictionary.version());
            assert_eq!(sys["dict"].to_string(), dictionary.route_to_code_json());
            if let Some(protos) = tables.protos() {
                assert_eq!(sys["protos"].to_string(), protos.protos_json());
            }
            seen += 1;
        }
    }
    assert!(seen > 0, "no recording has tables");
}

/// The dead client's limits do not reach the engine's.
#[test]
fn an_engine_that_is_flooded_by_clients_of_the_crate_closes_none() {
    let limits = Limits { messages_per_turn_max: 4, ..Limits::default() };
    let engine = play(builder(1)).limits(limits).start().unwrap();
    let client = Arc::new(connect(engine.local_addr()));
    thread::scope(|scope| {
        for number in 0..8 {
            let client = Arc::clone(&client);
            scope.spawn(move || {
                for round in 0..200 {
                    let body = json!([number, round]);
                    assert_eq!(ask(&client, ECHO, &body), Ok(body));
                }
            });
        }
    });
    assert_eq!(client.close_reason(), None);
}
