//! Clients of Pitaya: small raw ones, over TCP and WebSocket, that know of flags, zlib and errors
//! what Pitaya's own do. One engine listens for both dialects, and what its other clients see of it
//! is looked at, too.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use shaddock::route::Dictionary;
use shaddock::wire::message::{self, Message, MessageType, RouteRef};
use shaddock::wire::package::{self as wire, HEADER_BYTES, PackageType};
use shaddock::wire::pitaya::{COMPRESS_BYTES_MIN, Compression, Serializer};
use shaddock::{
    Audience, Dialect, Drain, Engine, Handlers, Limits, Listener, Refusal, Reply, Welcome, Workers,
};
use support::{Event, PATIENCE, builder, eventually, package};
use tungstenite::WebSocket;

const ECHO: &str = "connector.room.echo";
const FAIL: &str = "connector.room.fail";
const BIND: &str = "connector.room.bind";
const KICK: &str = "connector.room.kick";
/// Handlers of a worker, which answers late, or never.
const LATE: &str = "slow.room.late";
const PUSH: &str = "onChat";
const RESPONSE: u8 = 0x04;
const COMPRESSED: u8 = 0x10;
const ERROR: u8 = 0x20;
const PACKAGE_BYTES_MAX: usize = 64 * 1024;
/// The listeners, in this order.
const POMELO: usize = 0;
const PLAIN: usize = 1;
const SHORT: usize = 2;
const PROTOBUF: usize = 3;

fn register(handlers: &mut Handlers) {
    handlers
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(FAIL, |request, _| Reply::error_json(&request.value()))
        .handler(KICK, |_, session| {
            session.kick(Some("bye"));
            Reply::empty()
        })
        .async_handler(BIND, |request, mut session| async move {
            let uid = request.value().as_str().unwrap_or_default().to_owned();
            match session.bind(uid).await {
                Ok(()) => Reply::empty(),
                Err(error) => Reply::error_json(&error.to_string()),
            }
        });
}

fn engine(change: impl FnOnce(shaddock::Builder) -> shaddock::Builder) -> Engine {
    let pitaya = || Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya);
    let limits = Limits {
        package_bytes_max: PACKAGE_BYTES_MAX,
        forward_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let many = (0..30).map(|number| format!("room.room.route{number}"));
    let routes = [PUSH.to_owned()].into_iter().chain(many);
    let engine = builder(1)
        .listen(pitaya().compression(Compression::Off))
        .listen(pitaya())
        .listen(pitaya().serializer(Serializer::Protobuf).compression(Compression::Off))
        .limits(limits)
        .dictionary(Dictionary::new([ECHO], routes).unwrap())
        .forward(
            "slow",
            Workers::new(1, |handlers: &mut Handlers| {
                handlers
                    .async_handler(LATE, |_, _| std::future::pending())
                    .handler("slow.room.no", |_, _| {
                        let metadata = json!({"room": "7"});
                        Reply::error_json(
                            &json!({"code": "GAME-1", "msg": "no", "metadata": metadata}),
                        )
                    })
                    .async_handler("slow.room.soon", |_, _| async { Reply::bytes(b"7".as_slice()) })
                    .handler("slow.room.empty", |_, _| Reply::bytes(b"".as_slice()))
                    .handler("slow.room.echo", |request, _| Reply::borrowed(request.body()));
            }),
        )
        .register(register);
    change(engine).start().unwrap()
}

fn plain_engine() -> Engine {
    engine(|builder| builder)
}

/// What carries packages, one after another.
enum Carrier {
    Tcp(TcpStream),
    /// Exactly one package in each message.
    WebSocket(Box<WebSocket<TcpStream>>),
}

struct Player {
    carrier: Carrier,
}

/// A message as it came, with its body inflated.
#[derive(Debug, PartialEq)]
struct Answer {
    flag: u8,
    id: u32,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    ZlibDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn request(id: u32, route: RouteRef<'_>, body: &[u8], gzip: bool) -> Vec<u8> {
    let (kind, mut out) = (MessageType::Request, Vec::new());
    message::encode(&Message { id, kind, route: Some(route), body, gzip }, &mut out).unwrap();
    package(PackageType::Data, &out)
}

impl Player {
    fn connect(address: SocketAddr, is_websocket: bool) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let carrier = match is_websocket {
            false => Carrier::Tcp(stream),
            true => {
                let (socket, _) = tungstenite::client(format!("ws://{address}/"), stream).unwrap();
                Carrier::WebSocket(Box::new(socket))
            }
        };
        Self { carrier }
    }

    /// A client whose session works.
    fn ready(address: SocketAddr, is_websocket: bool) -> Self {
        let mut player = Self::connect(address, is_websocket);
        let (answer, _) = player.greet(b"{}");
        assert_eq!(answer["code"], 200);
        player.send(&support::ack());
        player
    }

    /// The answer to a handshake, and whether it came compressed.
    fn greet(&mut self, hello: &[u8]) -> (Value, bool) {
        self.send(&package(PackageType::Handshake, hello));
        let (kind, body) = self.read().unwrap();
        assert_eq!(kind, PackageType::Handshake);
        let is_short = body[0] == 0x78;
        let text = if is_short { inflate(&body) } else { body };
        (serde_json::from_slice(&text).unwrap(), is_short)
    }

    fn send(&mut self, package: &[u8]) {
        match &mut self.carrier {
            Carrier::Tcp(stream) => stream.write_all(package).unwrap(),
            Carrier::WebSocket(socket) => {
                socket.send(tungstenite::Message::binary(package.to_vec())).unwrap();
            }
        }
    }

    /// The next package, `None` at the end. A message that is not one package fails the test.
    fn read(&mut self) -> Option<(PackageType, Vec<u8>)> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => {
                let mut header = [0; HEADER_BYTES];
                if stream.read_exact(&mut header[..1]).is_err() {
                    return None;
                }
                stream.read_exact(&mut header[1..]).unwrap();
                let header = wire::Header::decode(header).unwrap();
                let mut body = vec![0; header.body_len];
                stream.read_exact(&mut body).unwrap();
                Some((header.kind, body))
            }
            Carrier::WebSocket(socket) => loop {
                match socket.read() {
                    Ok(tungstenite::Message::Binary(bytes)) => {
                        let decoded = wire::decode(&bytes, wire::BODY_BYTES_MAX).unwrap();
                        let wire::Status::Complete { value, consumed } = decoded else {
                            panic!("no package: {bytes:x?}");
                        };
                        assert_eq!(consumed, bytes.len(), "more than one package in a message");
                        return Some((value.kind, value.body.to_vec()));
                    }
                    Ok(tungstenite::Message::Close(_)) => {}
                    Ok(other) => panic!("no server sends {other:?}"),
                    Err(_) => return None,
                }
            },
        }
    }

    /// The next message, heartbeats aside.
    fn read_message(&mut self) -> (Message<'static>, Vec<u8>, u8) {
        loop {
            let (kind, body) = self.read().expect("closed before the message");
            if kind == PackageType::Heartbeat {
                continue;
            }
            assert_eq!(kind, PackageType::Data);
            let message = message::decode(&body).unwrap();
            let is_short = body[0] & COMPRESSED != 0;
            let text = if is_short { inflate(message.body) } else { message.body.to_vec() };
            let route = message.route.map(|route| match route {
                RouteRef::Code(code) => RouteRef::Code(code),
                RouteRef::Text(text) => RouteRef::Text(text.to_vec().leak()),
            });
            return (Message { route, body: b"", ..message }, text, body[0]);
        }
    }

    fn answer(&mut self) -> Answer {
        let (message, body, flag) = self.read_message();
        assert_eq!(message.kind, MessageType::Response);
        Answer { flag, id: message.id, body }
    }

    fn ask(&mut self, id: u32, route: &str, body: &[u8]) -> Answer {
        self.send(&request(id, RouteRef::Text(route.as_bytes()), body, false));
        let answer = self.answer();
        assert_eq!(answer.id, id);
        answer
    }

    fn ask_json(&mut self, route: &str, body: &str) -> (u8, Value) {
        let answer = self.ask(5, route, body.as_bytes());
        (answer.flag, answer.json())
    }

    /// Waits for the server to close; gives the kinds of the packages before.
    fn until_end(&mut self) -> Vec<(PackageType, Vec<u8>)> {
        std::iter::from_fn(|| self.read()).collect()
    }
}

fn address(engine: &Engine, listener: usize) -> SocketAddr {
    engine.local_addrs()[listener]
}

fn long_body() -> Vec<u8> {
    let text = "all work and no play makes jack a dull boy ".repeat(20);
    assert!(text.len() > 2 * COMPRESS_BYTES_MIN);
    serde_json::to_vec(&text).unwrap()
}

#[test]
fn a_handshake_tells_codes_heartbeat_and_serializer() {
    let engine = plain_engine();
    let hello = br#"{"sys":{"platform":"mac","libVersion":"0.3.5-release","clientBuildNumber":"20",
        "clientVersion":"2.1"},"user":{"age":30}}"#;
    for is_websocket in [false, true] {
        for (listener, serializer) in [(PLAIN, "json"), (SHORT, "json"), (PROTOBUF, "protobuf")] {
            for hello in [&hello[..], b"{}"] {
                let mut player = Player::connect(address(&engine, listener), is_websocket);
                let (answer, is_short) = player.greet(hello);
                assert_eq!(is_short, listener == SHORT);
                assert_eq!(answer["code"], 200);
                let sys = answer["sys"].as_object().unwrap();
                assert_eq!(sys.keys().collect::<Vec<_>>(), ["dict", "heartbeat", "serializer"]);
                assert_eq!(
                    (&sys["heartbeat"], &sys["serializer"]),
                    (&json!(30), &json!(serializer))
                );
                assert_eq!((&sys["dict"][ECHO], &sys["dict"][PUSH]), (&json!(1), &json!(2)));
            }
        }
    }
}

#[test]
fn a_bad_or_unwanted_handshake_is_answered_400_and_closed() {
    let engine = engine(|builder| {
        builder
            .check_client(|platform, version| (platform, version) != (Some("mac"), Some("1")))
            .user_handshake(|handshake| match handshake.user() {
                Some(user) if user["banned"] == true => Err(Refusal::new()),
                _ => Ok(Welcome::new()),
            })
    });
    for hello in [
        "",
        "no JSON",
        r#"{"sys":{"platform":5}}"#,
        r#"{"sys":{"platform":"mac","libVersion":"1"}}"#,
        r#"{"user":{"banned":true}}"#,
    ] {
        for (listener, is_websocket) in [(PLAIN, false), (SHORT, true)] {
            let mut player = Player::connect(address(&engine, listener), is_websocket);
            let (answer, is_short) = player.greet(hello.as_bytes());
            assert_eq!(is_short, listener == SHORT);
            // Pitaya's client for Go panics without `sys` (docs/protocol/pitaya.md,
            // "Client dialect").
            let sys = answer["sys"].as_object().unwrap();
            assert_eq!(sys.keys().collect::<Vec<_>>(), ["dict", "heartbeat", "serializer"]);
            assert_eq!((&answer["code"], &sys["dict"][ECHO]), (&json!(400), &json!(1)), "{hello}");
            assert_eq!(player.until_end(), []);
        }
    }
    drop(Player::ready(address(&engine, PLAIN), false));
}

#[test]
fn bodies_go_compressed_where_that_is_shorter() {
    let engine = plain_engine();
    let long = long_body();
    for is_websocket in [false, true] {
        let mut player = Player::ready(address(&engine, SHORT), is_websocket);
        let answer = player.ask(1, ECHO, &long);
        assert_eq!((answer.flag, &answer.body), (RESPONSE | COMPRESSED, &long));
        let answer = player.ask(2, ECHO, b"\"short\"");
        assert_eq!((answer.flag, &answer.body[..]), (RESPONSE, &b"\"short\""[..]));

        // What a client sends compressed is understood by all listeners, by text and by code.
        let mut plain = Player::ready(address(&engine, PLAIN), is_websocket);
        assert_eq!(plain.ask(1, ECHO, &long), Answer { flag: RESPONSE, id: 1, body: long.clone() });
        for route in [RouteRef::Text(ECHO.as_bytes()), RouteRef::Code(1)] {
            plain.send(&request(3, route, &deflate(&long), true));
            assert_eq!(plain.answer(), Answer { flag: RESPONSE, id: 3, body: long.clone() });
        }
        player.send(&request(4, RouteRef::Code(1), &deflate(b"7"), true));
        assert_eq!(player.answer(), Answer { flag: RESPONSE, id: 4, body: b"7".to_vec() });
    }
}

/// On a listener of Pomelo's the bit means nothing, as ever.
#[test]
fn clients_of_pomelo_notice_nothing() {
    let engine = plain_engine();
    let mut client = support::Client::ready(address(&engine, POMELO));
    client.send(&request(1, RouteRef::Code(1), b"\"as it is\"", true));
    assert_eq!(client.answer(1), "\"as it is\"");
    let long = long_body();
    let text = String::from_utf8(long).unwrap();
    assert_eq!(client.ask(2, ECHO, &text), text);
    assert_eq!(client.ask(3, "connector.room.nobody", "{}"), r#"{"code":500}"#);
    assert_eq!(client.ask(4, "nobody.room.nobody", "{}"), r#"{"code":500}"#);
    assert_eq!(client.ask(5, LATE, "{}"), r#"{"code":500}"#);
    let error = json!({"code": "GAME-1", "msg": "no", "metadata": {"room": "7"}});
    assert_eq!(client.ask_json(6, "slow.room.no", "{}"), error);
}

#[test]
fn a_route_of_two_parts_is_of_the_own_server() {
    let engine = plain_engine();
    let mut player = Player::ready(address(&engine, PLAIN), false);
    assert_eq!(player.ask_json("room.echo", "7"), (RESPONSE, json!(7)));
    assert_eq!(player.ask_json("room.nobody", "7").1["code"], "PIT-404");
    let mut client = support::Client::ready(address(&engine, POMELO));
    assert_eq!(client.ask(1, "room.echo", "7"), r#"{"code":500}"#);
}

#[test]
fn failures_are_errors_with_a_code() {
    let engine = plain_engine();
    let mut player = Player::ready(address(&engine, PLAIN), false);
    let mut failure = |route: &str, body: &str| {
        let (flag, error) = player.ask_json(route, body);
        assert_eq!(flag, RESPONSE | ERROR, "{route}");
        error
    };
    let of = |code: &str, msg: &str| json!({"code": code, "msg": msg});
    assert_eq!(failure("connector.room.nobody", "{}"), of("PIT-404", "route not found"));
    for route in ["room", "a.b.c.d", ".b.c"] {
        assert_eq!(failure(route, "{}"), of("PIT-400", "invalid route"));
    }
    let no_servers = "no servers available of this type";
    assert_eq!(failure("nobody.room.nobody", "{}"), of("PIT-500", no_servers));
    assert_eq!(failure(LATE, "{}"), of("PIT-408", "request timeout"));
    let error = json!({"code": "GAME-1", "msg": "no", "metadata": {"room": "7"}});
    assert_eq!(failure("slow.room.no", "{}"), error);
    assert_eq!(failure(FAIL, "\"words\""), of("PIT-500", "words"));
    assert_eq!(failure(FAIL, r#"{"code":501,"msg":"m"}"#), of("PIT-501", "m"));
    assert_eq!(failure(FAIL, "{}"), json!({"code": "PIT-500"}));

    let mut player = Player::ready(address(&engine, PROTOBUF), true);
    let answer = player.ask(1, "slow.room.no", b"");
    assert_eq!(answer.flag, RESPONSE | ERROR);
    assert_eq!(answer.body, b"\x0a\x06GAME-1\x12\x02no\x1a\x09\x0a\x04room\x12\x017");
    let answer = player.ask(2, "connector.room.nobody", b"");
    assert_eq!(answer.body, b"\x0a\x07PIT-404\x12\x0froute not found");
}

/// An empty body is a message in protobuf, and stays one on its way to a backend.
#[test]
fn protobuf_goes_through_as_it_is() {
    let engine = plain_engine();
    let mut player = Player::ready(address(&engine, PROTOBUF), false);
    for body in [&b""[..], b"\x0a\x03abc", b"\0\xff"] {
        let answer = player.ask(1, "slow.room.echo", body);
        // A worker's handler sees an empty body as `{}`, like every handler.
        let expected = if body.is_empty() { b"{}" } else { body };
        assert_eq!((answer.flag, &answer.body[..]), (RESPONSE, expected));
    }
    let answer = player.ask(1, BIND, b"\x0a\x03abc");
    assert_eq!((answer.flag, answer.body), (RESPONSE | ERROR, error_in_protobuf("uid is empty")));
}

fn error_in_protobuf(start: &str) -> Vec<u8> {
    let msg = format!("{start} or too long");
    [&b"\x0a\x07PIT-500\x12"[..], &[msg.len() as u8], msg.as_bytes()].concat()
}

const INTERVAL: Duration = Duration::from_millis(200);

/// An empty raw answer has no bytes, as by Pitaya; of nothing at all JSON makes an object.
#[test]
fn an_empty_answer_is_empty() {
    let engine = plain_engine();
    for listener in [PLAIN, SHORT, PROTOBUF] {
        let mut player = Player::ready(address(&engine, listener), false);
        let answer = player.ask(1, "slow.room.empty", b"7");
        assert_eq!((answer.flag, &answer.body[..]), (RESPONSE, &b""[..]));
    }
    let mut client = support::Client::ready(address(&engine, POMELO));
    assert_eq!(client.ask(1, "slow.room.empty", "7"), "{}");
}

#[test]
fn the_server_sends_heartbeats_and_echoes_none() {
    let engine = engine(|builder| builder.heartbeat(INTERVAL));
    for is_websocket in [false, true] {
        let mut player = Player::ready(address(&engine, SHORT), is_websocket);
        let start = Instant::now();
        for _ in 0..10 {
            player.send(&support::heartbeat());
        }
        for beat in 1..=3 {
            assert_eq!(player.read(), Some((PackageType::Heartbeat, Vec::new())));
            assert!(start.elapsed() > (INTERVAL * beat).mul_f64(0.8), "one came too early");
            player.send(&support::heartbeat());
        }
    }
}

#[test]
fn whoever_says_nothing_at_all_is_closed() {
    let engine = engine(|builder| builder.heartbeat(INTERVAL));
    let mut player = Player::ready(address(&engine, PLAIN), false);
    // Any package counts, so that this is well beyond where it was closed without.
    for id in 0..8 {
        player.send(&request(id + 1, RouteRef::Code(1), b"7", false));
        std::thread::sleep(INTERVAL / 2);
    }
    let start = Instant::now();
    let before = player.until_end();
    assert!(before.iter().filter(|(kind, _)| *kind == PackageType::Data).count() == 8);
    assert!(start.elapsed() > INTERVAL && start.elapsed() < 5 * INTERVAL + PATIENCE / 5);
    eventually("it is counted", || engine.handle().counters().closed_heartbeat_timeout == 1);
}

/// Pitaya looks at silence when it sends a heartbeat, so a client is closed by the third one since
/// it was heard: 6.0 s at an interval of 2 s (docs/protocol/pitaya.md, "Client
/// dialect").
#[test]
fn silence_ends_with_the_third_heartbeat() {
    let engine = engine(|builder| builder.heartbeat(INTERVAL));
    let mut player = Player::ready(address(&engine, PLAIN), false);
    let start = Instant::now();
    let heartbeat = (PackageType::Heartbeat, Vec::new());
    assert_eq!(player.until_end(), [heartbeat.clone(), heartbeat.clone()]);
    assert!(start.elapsed() > (3 * INTERVAL).mul_f64(0.9), "{:?}", start.elapsed());
    // Whatever comes begins the silence anew.
    let mut player = Player::ready(address(&engine, PLAIN), false);
    assert_eq!(player.read(), Some(heartbeat.clone()));
    player.send(&support::heartbeat());
    assert_eq!(player.until_end(), [heartbeat.clone(), heartbeat]);
}

/// As by Pitaya, at any time.
#[test]
fn a_second_handshake_is_answered() {
    let engine = plain_engine();
    for (listener, is_websocket) in [(PLAIN, false), (SHORT, true)] {
        let mut player = Player::connect(address(&engine, listener), is_websocket);
        for _ in 0..2 {
            assert_eq!(player.greet(b"{}").0["code"], 200, "before the acknowledgement");
        }
        player.send(&support::ack());
        for id in 0..100 {
            assert_eq!(player.ask(id + 1, ECHO, b"7").body, b"7");
            let (answer, _) = player.greet(b"{}");
            assert_eq!((&answer["code"], &answer["sys"]["dict"][ECHO]), (&json!(200), &json!(1)));
        }
        // All at once, which takes a turn of the shard for each.
        let many: Vec<u8> = (0..100).flat_map(|_| support::handshake()).collect();
        if !is_websocket {
            player.send(&many);
            (0..100).for_each(|_| assert_eq!(player.read().unwrap().0, PackageType::Handshake));
        }
        assert_eq!(player.ask(1, ECHO, b"7").body, b"7");
        assert_eq!(player.greet(b"no JSON").0["code"], 400);
        assert_eq!(player.until_end(), []);
    }
    let mut player = Player::ready(address(&engine, PLAIN), false);
    player.send(&package(PackageType::Handshake, &vec![b' '; 16 * 1024 + 1]));
    assert_eq!(player.until_end(), [], "it may not be longer than the first");
}

/// A request, compressed or not, with an id of up to 64 bits.
fn wide_request(id: u64, route: &str, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    append_id(id, &mut message);
    message.push(route.len() as u8);
    package(PackageType::Data, &[&message, route.as_bytes(), body].concat())
}

fn append_id(mut id: u64, out: &mut Vec<u8>) {
    while id >= 0x80 {
        out.push(id as u8 | 0x80);
        id >>= 7;
    }
    out.push(id as u8);
}

#[test]
fn ids_of_64_bits_are_answered() {
    let engine = plain_engine();
    let mut player = Player::ready(address(&engine, PLAIN), false);
    for id in [1, u64::from(u32::MAX), 1 << 32, 1 << 53, (1 << 53) + 1, u64::MAX] {
        for (route, failed) in [(ECHO, 0), ("slow.room.echo", 0), (FAIL, ERROR), (LATE, ERROR)] {
            player.send(&wide_request(id, route, b"\"7\""));
            let mut head = vec![RESPONSE | failed];
            append_id(id, &mut head);
            let (kind, body) = player.read().unwrap();
            assert_eq!(kind, PackageType::Data);
            assert_eq!(body[..head.len()], head, "{id} {route}");
        }
    }
    // One that is not a number at all closes, as ever.
    player.send(&package(PackageType::Data, &[&[0][..], &[0xff; 20]].concat()));
    assert_eq!(player.until_end(), []);
}

/// As by Pitaya, whose frontends read no further while they are busy. Pomelo's clients get 500.
#[test]
fn ten_thousand_pipelined_requests_are_all_answered() {
    const REQUESTS: u32 = 10_000;
    for is_filtered in [false, true] {
        let engine = engine(|builder| {
            let limits = Limits { in_flight_per_session_max: 100, ..Limits::default() };
            let builder = builder.limits(limits);
            if is_filtered { builder.global_filter(shaddock::Serial::default) } else { builder }
        });
        let mut player = Player::ready(address(&engine, PLAIN), false);
        let route = RouteRef::Text(b"slow.room.soon");
        let all: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, route, b"7", false)).collect();
        let Carrier::Tcp(stream) = &player.carrier else { unreachable!() };
        let mut writer = stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(&all).unwrap());
        for id in 1..=REQUESTS {
            let answer = player.answer();
            assert_eq!((answer.id, answer.flag, &answer.body[..]), (id, RESPONSE, &b"7"[..]));
        }
        sender.join().unwrap();
        let counters = engine.handle().counters();
        assert_eq!(counters.session_in_flight_rejects, 0);
        assert!(counters.in_flight_pauses > 0);
    }
}

#[test]
fn data_before_the_handshake_is_done_closes() {
    let engine = plain_engine();
    for is_websocket in [false, true] {
        let mut player = Player::connect(address(&engine, PLAIN), is_websocket);
        player.send(&request(1, RouteRef::Code(1), b"7", false));
        assert_eq!(player.until_end(), []);
        let mut player = Player::connect(address(&engine, PLAIN), is_websocket);
        player.greet(b"{}");
        player.send(&request(1, RouteRef::Code(1), b"7", false));
        assert_eq!(player.until_end(), []);
    }
    assert_eq!(engine.handle().counters().requests, 0);
    let mut client = support::Client::connect(address(&engine, POMELO));
    client.send(&request(1, RouteRef::Code(1), b"7", false));
    client.send(&support::handshake());
    assert!(matches!(client.next(), Event::Handshake(_)), "Pomelo ignores it");
}

#[test]
fn a_bomb_closes_its_client_and_nobody_else() {
    let engine = plain_engine();
    let mut witness = Player::ready(address(&engine, SHORT), false);
    let counters = || engine.handle().counters();
    for (is_websocket, count) in [(false, 1), (true, 2)] {
        let bomb = deflate(&vec![b'7'; 32 << 20]);
        assert!(bomb.len() < PACKAGE_BYTES_MAX);
        let mut player = Player::ready(address(&engine, SHORT), is_websocket);
        player.send(&request(1, RouteRef::Code(1), &bomb, true));
        assert_eq!(player.until_end(), []);
        assert_eq!(counters().package_too_long, count);
        assert_eq!(witness.ask_json(ECHO, "7"), (RESPONSE, json!(7)));
    }
    // One byte below the bound is the largest that a package could have brought.
    let body = vec![b'7'; PACKAGE_BYTES_MAX - 1];
    witness.send(&request(1, RouteRef::Code(1), &deflate(&body), true));
    assert_eq!(witness.answer().body, body);

    for body in [&b"{}"[..], &deflate(b"cut off")[..8]] {
        let mut player = Player::ready(address(&engine, SHORT), false);
        player.send(&request(1, RouteRef::Code(1), body, true));
        assert_eq!(player.until_end(), []);
    }
    assert_eq!(counters().bad_compression, 2);
    assert_eq!(witness.ask_json(ECHO, "7"), (RESPONSE, json!(7)));
}

/// Answers that go out in one send are still one package in each WebSocket message, which
/// [`Player::read`] checks.
#[test]
fn pipelined_answers_are_messages_of_their_own() {
    let engine = plain_engine();
    for (listener, body) in [(PLAIN, b"7".to_vec()), (SHORT, long_body())] {
        let mut player = Player::ready(address(&engine, listener), true);
        let Carrier::WebSocket(socket) = &mut player.carrier else { unreachable!() };
        for id in 1..=50 {
            let request = request(id, RouteRef::Code(1), &body, false);
            socket.write(tungstenite::Message::binary(request)).unwrap();
        }
        socket.flush().unwrap();
        for id in 1..=50 {
            let answer = player.answer();
            assert_eq!((answer.id, answer.body), (id, body.clone()));
        }
    }
}

#[test]
fn a_broadcast_reaches_everybody_in_their_own_dialect() {
    let engine = plain_engine();
    let mut pomelo = support::Client::ready(address(&engine, POMELO));
    let players =
        [PLAIN, SHORT].into_iter().flat_map(|listener| [(listener, false), (listener, true)]);
    let mut players: Vec<(usize, Player)> = players
        .map(|(listener, is_websocket)| {
            (listener, Player::ready(address(&engine, listener), is_websocket))
        })
        .collect();
    // Their ACKs have been read once they are answered.
    for (_, player) in &mut players {
        player.ask(1, ECHO, b"7");
    }
    pomelo.ask(1, ECHO, "7");
    let handle = engine.handle();
    let push = |route: &str, body: &[u8]| handle.broadcast(route, body, Audience::all()).unwrap();
    for (route, body) in [(PUSH, long_body()), ("onOther", long_body()), (PUSH, b"7".to_vec())] {
        push(route, &body);
        let coded = route == PUSH;
        let event = loop {
            match pomelo.next() {
                Event::Heartbeat => {}
                event => break event,
            }
        };
        match event {
            Event::CodedPush { code: 2, body: got } if coded => assert_eq!(got, body),
            Event::Push { route: got, body: text } if !coded => {
                assert_eq!((got.as_str(), text), (route, body.clone()));
            }
            other => panic!("{other:?}"),
        }
        for (listener, player) in &mut players {
            let (message, got, flag) = player.read_message();
            let text = RouteRef::Text(route.as_bytes());
            assert_eq!(message.route, Some(if coded { RouteRef::Code(2) } else { text }));
            assert_eq!((message.kind, &got), (MessageType::Push, &body));
            let is_short = *listener == SHORT && body.len() >= COMPRESS_BYTES_MIN;
            assert_eq!(flag & COMPRESSED != 0, is_short);
        }
    }
}

#[test]
fn a_push_to_a_uid_and_a_kick_reach_players() {
    let engine = plain_engine();
    let handle = engine.handle();
    for (is_websocket, uid) in [(false, "one"), (true, "two")] {
        let mut player = Player::ready(address(&engine, SHORT), is_websocket);
        assert_eq!(player.ask_json(BIND, &json!(uid).to_string()), (RESPONSE, json!({})));
        handle.push(uid, PUSH, b"7").unwrap();
        assert_eq!(player.read_message().1, b"7");
        handle.kick(uid, None).unwrap();
        assert_eq!(player.until_end(), [(PackageType::Kick, Vec::new())]);
        // A handler's kick, with a reason that Pitaya has no place for.
        let mut player = Player::ready(address(&engine, PLAIN), is_websocket);
        player.send(&request(1, RouteRef::Text(KICK.as_bytes()), b"{}", false));
        let end = player.until_end();
        assert_eq!(end.last(), Some(&(PackageType::Kick, Vec::new())), "{end:?}");
    }
}

/// A client that is kicked gives up; one that is closed connects again.
#[test]
fn a_shutdown_closes_without_a_kick() {
    let engine = plain_engine();
    let mut player = Player::ready(address(&engine, PLAIN), false);
    player.ask(1, ECHO, b"7");
    engine.shutdown(Drain::within(PATIENCE));
    assert_eq!(player.until_end(), []);
}
