//! WebSocket clients: a real one, tungstenite, for what is right, and raw bytes for what is wrong.
//! A witness is served on the same shard all the time and must notice nothing.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::{Value, json};
use shaddock::wire::message;
use shaddock::wire::package::{self as wire, BODY_BYTES_MAX, PackageType, Status};
use shaddock::{Builder, Engine, Limits, Listener, Shards};
use support::witness::{ECHO, Reasons, Trial};
use support::{PATIENCE, ack, builder, handshake, package, request};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tungstenite::{Message, WebSocket};

const HANDSHAKE_BYTES_MAX: usize = 4096;
const PACKAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
const HEAD_BYTES_MAX: usize = 2048;
const KICK_ME: &str = "connector.entryHandler.kickme";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn trial() -> Trial {
    let limits = Limits {
        handshake_package_bytes_max: HANDSHAKE_BYTES_MAX,
        package_bytes_max: PACKAGE_BYTES_MAX,
        http_head_bytes_max: HEAD_BYTES_MAX,
        ..Limits::default()
    };
    Trial::start(with_kick(builder(1).limits(limits)))
}

fn with_kick(builder: Builder) -> Builder {
    builder.handler(KICK_ME, |_, session| {
        session.kick(Some("bye"));
        shaddock::Reply::empty()
    })
}

type Client = WebSocket<Patient>;

/// A socket whose calls start again when a signal interrupts them.
struct Patient(TcpStream);

fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        patiently(|| self.0.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        patiently(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn connect_tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn connect(address: SocketAddr) -> Client {
    tungstenite::client(format!("ws://{address}/"), Patient(connect_tcp(address))).unwrap().0
}

/// A client whose session works.
fn ready(address: SocketAddr) -> Client {
    let mut client = connect(address);
    client.send(Message::binary(handshake())).unwrap();
    let (kind, body) = read_package(&mut client);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((kind, &answer["code"]), (PackageType::Handshake, &json!(200)));
    client.send(Message::binary(ack())).unwrap();
    client
}

/// The one package of the next message, which is binary.
fn read_package(client: &mut Client) -> (PackageType, Vec<u8>) {
    match client.read().unwrap() {
        Message::Binary(bytes) => one_package(&bytes),
        other => panic!("no server sends {other:?}"),
    }
}

fn one_package(bytes: &[u8]) -> (PackageType, Vec<u8>) {
    let Ok(Status::Complete { value, consumed }) = wire::decode(bytes, BODY_BYTES_MAX) else {
        panic!("no package: {bytes:x?}");
    };
    assert_eq!(consumed, bytes.len());
    (value.kind, value.body.to_vec())
}

fn read_answer(client: &mut Client) -> (u32, Vec<u8>) {
    let (kind, body) = read_package(client);
    assert_eq!(kind, PackageType::Data);
    let message = message::decode(&body).unwrap();
    (message.id, message.body.to_vec())
}

fn asks_well(client: &mut Client) {
    client.send(Message::binary(request(9, ECHO, "\"well\""))).unwrap();
    assert_eq!(read_answer(client), (9, b"\"well\"".to_vec()));
}

fn fragment(kind: Data, is_last: bool, payload: &[u8]) -> Message {
    Message::Frame(Frame::message(payload.to_vec(), OpCode::Data(kind), is_last))
}

#[test]
fn text_and_binary_messages_are_packages() {
    let trial = trial();
    let mut client = connect(trial.address());
    let text = |bytes: Vec<u8>| Message::text(String::from_utf8(bytes).unwrap());
    client.send(text(handshake())).unwrap();
    assert_eq!(read_package(&mut client).0, PackageType::Handshake);
    client.send(text(ack())).unwrap();
    // An empty text is nothing, as in the original.
    client.send(Message::text("")).unwrap();
    client.send(text(request(1, ECHO, "\"é\""))).unwrap();
    assert_eq!(read_answer(&mut client), (1, "\"é\"".into()));
    asks_well(&mut client);
    trial.finish();
}

#[test]
fn pings_are_answered_in_every_state() {
    let trial = trial();
    let mut client = connect(trial.address());
    for payload in [&b""[..], b"ping", &[0xff; 125]] {
        client.send(Message::Ping(payload.to_vec().into())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong(payload.to_vec().into()));
    }
    client.send(Message::Pong(b"nobody asked".to_vec().into())).unwrap();
    client.send(Message::binary(handshake())).unwrap();
    assert_eq!(read_package(&mut client).0, PackageType::Handshake);
    client.send(Message::Ping(b"a".to_vec().into())).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong(b"a".to_vec().into()));
    client.send(Message::binary(ack())).unwrap();
    asks_well(&mut client);
    trial.finish();
}

#[test]
fn a_message_may_come_in_fragments_with_pings_between() {
    let trial = trial();
    let mut client = ready(trial.address());
    let whole = request(1, ECHO, "\"é\"");
    // One cut is inside of the character.
    for cut in 0..=whole.len() {
        for kind in [Data::Text, Data::Binary] {
            client.send(fragment(kind, false, &whole[..cut])).unwrap();
            client.send(Message::Ping(b"between".to_vec().into())).unwrap();
            client.send(fragment(Data::Continue, false, b"")).unwrap();
            client.send(fragment(Data::Continue, true, &whole[cut..])).unwrap();
            assert_eq!(client.read().unwrap(), Message::Pong(b"between".to_vec().into()));
            assert_eq!(read_answer(&mut client), (1, "\"é\"".into()), "cut at {cut}");
        }
    }
    let (last, first) = whole.split_last().unwrap();
    client.send(fragment(Data::Binary, false, b"")).unwrap();
    for byte in first {
        client.send(fragment(Data::Continue, false, &[*byte])).unwrap();
    }
    client.send(fragment(Data::Continue, true, &[*last])).unwrap();
    assert_eq!(read_answer(&mut client).0, 1);
    trial.finish();
}

#[test]
fn a_message_may_hold_several_packages() {
    let trial = trial();
    let mut client = connect(trial.address());
    let all = [handshake(), ack(), request(1, ECHO, "1"), request(2, ECHO, "2")].concat();
    client.send(Message::binary(all)).unwrap();
    assert_eq!(read_package(&mut client).0, PackageType::Handshake);
    assert_eq!(read_answer(&mut client), (1, b"1".to_vec()));
    assert_eq!(read_answer(&mut client), (2, b"2".to_vec()));
    trial.finish();
}

#[test]
fn a_message_of_a_mebibyte_is_answered_by_one() {
    let trial = trial();
    let mut client = ready(trial.address());
    let body = format!("\"{}\"", "x".repeat(1 << 20));
    for id in 1..4 {
        client.send(Message::binary(request(id, ECHO, &body))).unwrap();
        assert!(read_answer(&mut client) == (id, body.clone().into_bytes()));
    }
    // The lengths at which the frame's header changes.
    let head = request(1, ECHO, "").len();
    for len in [125, 126, 127, 65_535, 65_536, 65_537] {
        let body = "7".repeat(len - head);
        client.send(Message::binary(request(1, ECHO, &body))).unwrap();
        assert!(read_answer(&mut client) == (1, body.into_bytes()), "{len}");
    }
    trial.finish();
}

#[test]
fn the_client_says_goodbye_and_gets_its_code_back() {
    let trial = trial();
    for code in [None, Some(1000), Some(1001), Some(3000), Some(4999)] {
        let counted = trial.counted("goodbye", || {
            let mut client = ready(trial.address());
            let frame = code.map(|code: u16| CloseFrame {
                code: CloseCode::from(code),
                reason: "going".into(),
            });
            client.close(frame).unwrap();
            let Message::Close(answer) = client.read().unwrap() else { panic!("no close") };
            let answer = answer.map(|frame| u16::from(frame.code));
            assert_eq!(answer, Some(code.unwrap_or(1000)));
            assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));
        });
        assert_eq!(counted, Reasons::from([("closed_by_peer", 1)]));
    }
    trial.finish();
}

#[test]
fn the_server_says_goodbye_behind_what_it_had_to_say() {
    let trial = trial();
    let counted = trial.counted("kick", || {
        let mut client = ready(trial.address());
        client.send(Message::binary(request(1, KICK_ME, "{}"))).unwrap();
        let (kind, body) = read_package(&mut client);
        assert_eq!((kind, &*body), (PackageType::Kick, &br#"{"reason":"bye"}"#[..]));
        let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close") };
        assert_eq!(u16::from(frame.code), 1000);
        assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));
    });
    assert_eq!(counted, Reasons::from([("closed_by_kick", 1)]));

    let counted = trial.counted("a refused handshake", || {
        let mut client = connect(trial.address());
        client.send(Message::binary(package(PackageType::Handshake, b"{}"))).unwrap();
        let (kind, body) = read_package(&mut client);
        assert_eq!((kind, &*body), (PackageType::Handshake, &br#"{"code":500}"#[..]));
        let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close") };
        assert_eq!(u16::from(frame.code), 1000);
    });
    assert_eq!(counted, Reasons::from([("refused_handshake", 1)]));
    trial.finish();
}

/// RFC 6455 section 7.4.1: 1001 is for "a server going down". Behind 1000 clients take the end for
/// meant.
#[test]
fn a_server_that_stops_says_that_it_goes_away() {
    for reason in [None, Some("maintenance")] {
        let builder = with_kick(builder(1));
        let engine = match reason {
            Some(reason) => builder.shutdown_kick(reason),
            None => builder,
        };
        let engine = engine.start().unwrap();
        let mut client = ready(engine.local_addr());
        let mut shaking = connect(engine.local_addr());
        let stopped = std::thread::spawn(|| engine.shutdown(shaddock::Drain::within(PATIENCE)));
        if reason.is_some() {
            let (kind, body) = read_package(&mut client);
            assert_eq!((kind, &*body), (PackageType::Kick, &br#"{"reason":"maintenance"}"#[..]));
        }
        for client in [&mut client, &mut shaking] {
            let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close") };
            assert_eq!(u16::from(frame.code), 1001);
        }
        drop((client, shaking));
        stopped.join().unwrap();
    }
}

/// Browsers tell where a page is from, and open a WebSocket from any (RFC 6455 section 10.2).
#[test]
fn pages_of_other_origins_are_turned_away_where_some_are_listed() {
    let listener =
        Listener::new("127.0.0.1:0").origins(["https://game.example", "http://localhost:8080"]);
    let builder = Engine::builder().shards(Shards::Count(1)).listen("127.0.0.1:0").listen(listener);
    let engine = builder.start().unwrap();
    let [open, listed] = engine.local_addrs()[..] else { panic!("two listeners") };
    let status = |address: SocketAddr, lines: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    for (lines, expected) in [
        ("Origin: https://game.example\r\n", "101"),
        ("origin: HTTPS://Game.example\r\n", "101"),
        ("Origin: http://localhost:8080\r\n", "101"),
        ("", "101"),
        ("Origin: https://evil.example\r\n", "403"),
        ("Origin: https://game.example.evil.example\r\n", "403"),
        ("Origin: http://game.example\r\n", "403"),
        ("Origin: https://game.example:8443\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Origin: \r\n", "403"),
        ("Origin: https://game.example\r\nOrigin: https://evil.example\r\n", "403"),
    ] {
        assert_eq!(status(listed, lines), expected, "{lines}");
        assert_eq!(status(open, lines), "101", "{lines}");
    }
    assert_eq!(engine.handle().counters().refused_origin, 7);
    for bad in ["https://game.example/", "game.example", "https://", "://a", "https://a b"] {
        let listener = Listener::new("127.0.0.1:0").origins([bad]);
        let error = Engine::builder().listen(listener).check().unwrap_err();
        assert!(error.to_string().contains("`origins`"), "{error}");
    }
}

#[test]
fn the_first_subprotocol_offered_is_echoed() {
    let trial = trial();
    for (offered, echoed) in [(None, None), (Some("pomelo, other"), Some("pomelo"))] {
        let path = format!("ws://{}/any/path?and=query", trial.address());
        let mut head = path.into_client_request().unwrap();
        if let Some(offered) = offered {
            head.headers_mut().insert("Sec-WebSocket-Protocol", offered.parse().unwrap());
        }
        let (mut client, answer) =
            tungstenite::client(head, Patient(connect_tcp(trial.address()))).unwrap();
        let protocol = answer.headers().get("Sec-WebSocket-Protocol");
        assert_eq!(protocol.map(|name| name.to_str().unwrap()), echoed);
        // Nothing else is negotiated, whatever is offered.
        assert!(answer.headers().get("Sec-WebSocket-Extensions").is_none());
        client.close(None).unwrap();
    }
    trial.finish();
}

// From here on, raw bytes.

fn upgrade_head() -> Vec<u8> {
    head("GET / HTTP/1.1", &[("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")])
}

/// A request with those lines and the two that ask for a WebSocket.
fn head(first: &str, lines: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("{first}\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    for (name, value) in lines {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

const MASK: [u8; 4] = [0x11, 0x92, 0x33, 0xf4];

/// A masked frame with that first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(first, payload.len() as u64);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn header(first: u8, len: u64) -> Vec<u8> {
    let mut out = vec![first];
    match len {
        0..=125 => out.push(0x80 | len as u8),
        126..=0xffff => {
            out.push(0xfe);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend(len.to_be_bytes());
        }
    }
    out.extend(MASK);
    out
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(0x82, payload)
}

/// All that comes until the server closes.
fn read_to_end(stream: &mut TcpStream, what: &str) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("{what}: the server does not close; so far {all:x?}")
        }
        // A reset ends it too.
        _ => all,
    }
}

/// The HTTP answer's head, and what follows it.
fn split_head<'a>(answer: &'a [u8], what: &str) -> (&'a str, &'a [u8]) {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{what}: no head in {answer:x?}")) + 4;
    (std::str::from_utf8(&answer[..end]).unwrap(), &answer[end..])
}

/// The server's frames: first byte and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((header, _)) = FrameHeader::parse(&mut io::Cursor::new(bytes)).unwrap() {
        let (start, len) = match bytes[1] {
            len @ 0..=125 => (2, usize::from(len)),
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            _ => panic!("no frame here is so long"),
        };
        assert!(header.is_final && header.mask.is_none());
        frames.push((bytes[0], bytes[start..start + len].to_vec()));
        bytes = &bytes[start + len..];
    }
    assert_eq!(bytes, b"");
    frames
}

/// Sends frames on a new connection, and gives the frames that come back until its end.
fn frames_for(trial: &Trial, what: &str, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut stream = connect_tcp(trial.address());
    stream.write_all(&[upgrade_head(), bytes.to_vec()].concat()).unwrap();
    let answer = read_to_end(&mut stream, what);
    let (head, rest) = split_head(&answer, what);
    assert!(head.starts_with("HTTP/1.1 101 "), "{what}: {head}");
    frames(rest)
}

#[test]
fn frames_against_the_rules_are_told_why_and_closed() {
    let trial = trial();
    let mut cases: Vec<(String, Vec<u8>, u16, &str)> = Vec::new();
    let mut case = |name: &str, bytes: Vec<u8>, code, counted| {
        cases.push((name.to_owned(), bytes, code, counted));
    };
    let bad = "bad_websocket";
    case("unmasked", [&[0x82, 4][..], &ack()].concat(), 1002, bad);
    case("unmasked, no payload", vec![0x82, 0], 1002, bad);
    case("unmasked ping", vec![0x89, 0], 1002, bad);
    for (name, bit) in [("rsv1", 0x40), ("rsv2", 0x20), ("rsv3", 0x10), ("rsv1 to 3", 0x70)] {
        case(name, frame(0x82 | bit, &ack()), 1002, bad);
        case(name, frame(0x89 | bit, b""), 1002, bad);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        case(&format!("opcode {opcode}"), frame(0x80 | opcode, b""), 1002, bad);
    }
    for opcode in [8, 9, 10] {
        case(&format!("control {opcode} in fragments"), frame(opcode, b""), 1002, bad);
        let long = frame(0x80 | opcode, &[b'a'; 126]);
        case(&format!("control {opcode} too long"), long, 1002, bad);
    }
    case("continuation of nothing", frame(0x80, b"a"), 1002, bad);
    case("first fragment of nothing", frame(0x00, b"a"), 1002, bad);
    let first = frame(0x02, &ack()[..2]);
    case("text in a message", [first.clone(), frame(0x81, b"")].concat(), 1002, bad);
    case("binary in a message", [first, binary(b"")].concat(), 1002, bad);
    case("negative length", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002, bad);
    case("text that is no UTF-8", frame(0x81, b"\x04\0\0\x01\xff"), 1007, bad);
    let halves = [frame(0x01, b"\x04\0\0\x02\xc3"), frame(0x80, b"\xff")].concat();
    case("text in fragments that is no UTF-8", halves, 1007, bad);
    case("close with half a code", frame(0x88, b"\x03"), 1002, bad);
    case("close with a code not to be sent", frame(0x88, b"\x03\xed"), 1002, bad);
    case("close with a code of nobody", frame(0x88, b"\x00\x01"), 1002, bad);
    case("close with a reason that is no UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007, bad);
    for (name, bytes, code, counted) in cases {
        let seen = trial.counted(&name, || {
            let close = vec![(0x88, code.to_be_bytes().to_vec())];
            assert_eq!(frames_for(&trial, &name, &bytes), close, "{name}");
        });
        let expected = Reasons::from([(counted, 1), ("closed_protocol", 1)]);
        assert_eq!(seen, expected, "{name}");
    }
    trial.finish();
}

#[test]
fn messages_that_are_no_packages_are_closed() {
    let trial = trial();
    let hello = handshake();
    let bad = "bad_websocket_message";
    let cut_over_two = [binary(&hello[..9]), binary(&hello[9..])].concat();
    for (name, bytes, code, counted) in [
        ("an empty message", binary(b""), 1002, bad),
        ("half a header", binary(&hello[..3]), 1002, bad),
        ("half a body", binary(&hello[..hello.len() - 1]), 1002, bad),
        ("half a text", frame(0x81, &hello[..9]), 1002, bad),
        ("a package over two messages", cut_over_two, 1002, bad),
        ("an unknown type", binary(b"\x09\0\0\0"), 1000, "bad_package_type"),
        ("a kick", binary(b"\x05\0\0\0"), 1000, "bad_package_type"),
        ("a JSON text", frame(0x81, b"{\"a\":1}"), 1000, "bad_package_type"),
    ] {
        let seen = trial.counted(name, || {
            let close = vec![(0x88, u16::to_be_bytes(code).to_vec())];
            assert_eq!(frames_for(&trial, name, &bytes), close, "{name}");
        });
        assert_eq!(seen, Reasons::from([(counted, 1), ("closed_protocol", 1)]), "{name}");
    }

    // What stands before the bad part counts, what stands behind it does not.
    for (name, tail, code, counted) in [
        ("trailing byte", &b"\x04"[..], 1002, bad),
        ("trailing zeros", b"\0\0\0\0", 1000, "bad_package_type"),
        ("an empty DATA", b"\x04\0\0\0", 1000, "bad_message"),
    ] {
        let seen = trial.counted(name, || {
            let message = [&hello[..], &ack(), tail].concat();
            let bytes = [binary(&message), binary(&request(1, ECHO, "1"))].concat();
            let frames = frames_for(&trial, name, &bytes);
            let (first, last) = (&frames[0], &frames[1]);
            assert_eq!(one_package(&first.1).0, PackageType::Handshake, "{name}");
            assert_eq!(*last, (0x88, u16::to_be_bytes(code).to_vec()), "{name}");
            assert_eq!(frames.len(), 2, "{name}");
        });
        assert_eq!(seen, Reasons::from([(counted, 1), ("closed_protocol", 1)]), "{name}");
    }
    trial.finish();
}

#[test]
fn too_long_frames_messages_and_packages_are_closed_before_they_are_there() {
    let trial = trial();
    let message_max = 2 * (4 + HANDSHAKE_BYTES_MAX);
    let working_max = 2 * (4 + PACKAGE_BYTES_MAX) as u64;
    let start = binary(&[handshake(), ack()].concat());
    let long = package(PackageType::HandshakeAck, &[0; HANDSHAKE_BYTES_MAX + 1]);
    let fragments =
        [frame(0x02, &vec![0; message_max]), frame(0x00, b""), frame(0x80, b"a")].concat();
    for (name, bytes, code, frames_before) in [
        ("a frame", header(0x82, message_max as u64 + 1), 1009, 0),
        ("a huge frame", header(0x82, u64::MAX >> 1), 1009, 0),
        ("fragments", fragments, 1009, 0),
        ("a working frame", [start.clone(), header(0x82, working_max + 1)].concat(), 1009, 1),
        // The frame is not too long, the package is.
        ("a package", binary(&long), 1000, 0),
        ("a working package", [start, binary(b"\x04\xff\xff\xff")].concat(), 1000, 1),
    ] {
        let seen = trial.counted(name, || {
            let mut frames = frames_for(&trial, name, &bytes);
            let close = frames.pop();
            assert_eq!(close, Some((0x88, u16::to_be_bytes(code).to_vec())), "{name}");
            assert_eq!(frames.len(), frames_before, "{name}");
        });
        let expected = Reasons::from([("package_too_long", 1), ("closed_protocol", 1)]);
        assert_eq!(seen, expected, "{name}");
    }

    // Packages of exactly the limit, and a message of them.
    let seen = trial.counted("at the limit", || {
        let most = package(PackageType::Heartbeat, &[0; HANDSHAKE_BYTES_MAX]);
        let mut client = connect(trial.address());
        client.send(Message::binary([most.clone(), most].concat())).unwrap();
        client.send(Message::binary([handshake(), ack()].concat())).unwrap();
        assert_eq!(read_package(&mut client).0, PackageType::Handshake);
        asks_well(&mut client);
    });
    let expected = Reasons::from([("ignored_packages", 2), ("closed_by_peer", 1)]);
    assert_eq!(seen, expected);
    trial.finish();
}

fn frame_stream() -> Vec<u8> {
    let fragments = [frame(0x02, &request(1, ECHO, "1")[..9]), frame(0x89, b"p")].concat();
    let rest = frame(0x80, &request(1, ECHO, "1")[9..]);
    [binary(&handshake()), frame(0x81, &ack()), fragments, rest].concat()
}

/// What comes back until the server closes; the client says goodbye behind its bytes.
fn until_closed(trial: &Trial, bytes: &[u8], what: &str) -> Vec<u8> {
    let mut stream = connect_tcp(trial.address());
    stream.write_all(bytes).unwrap();
    // The server may have closed already.
    stream.shutdown(Shutdown::Write).ok();
    read_to_end(&mut stream, what)
}

#[test]
fn a_stream_of_frames_cut_or_damaged_anywhere_hangs_nobody() {
    let trial = trial();
    let head = upgrade_head();
    let stream = [head.clone(), frame_stream()].concat();
    let whole = until_closed(&trial, &stream, "whole");
    let counted = trial.counted("cut streams", || {
        for cut in head.len()..=stream.len() {
            let answer = until_closed(&trial, &stream[..cut], "cut");
            // What could be answered so far, and no goodbye.
            let (_, rest) = split_head(&answer, "cut");
            let (answers, all) = (frames(rest), frames(split_head(&whole, "whole").1));
            let ends = [binary(&handshake()).len(), stream.len() - head.len()];
            let is_answered = ends.map(|end| head.len() + end <= cut);
            assert_eq!(answers.first() == all.first(), is_answered[0], "cut at {cut}");
            assert_eq!(answers == all, is_answered[1], "cut at {cut}");
            assert_eq!(answers, all[..answers.len()], "cut at {cut}");
        }
    });
    let connections = (stream.len() - head.len() + 1) as u64;
    assert_eq!(counted, Reasons::from([("closed_by_peer", connections)]));

    let mut connections = 0;
    let counted = trial.counted("damaged streams", || {
        for place in head.len()..stream.len() {
            for bits in [0x01, 0x10, 0x80, 0xff] {
                let mut bytes = stream.clone();
                bytes[place] ^= bits;
                let what = format!("{place} ^ {bits:#x}");
                let answer = until_closed(&trial, &bytes, &what);
                frames(split_head(&answer, &what).1);
                connections += 1;
            }
        }
    });
    let ends = ["closed_by_peer", "closed_protocol", "refused_handshake"];
    let ended: u64 = ends.iter().filter_map(|end| counted.get(end)).sum();
    assert_eq!(ended, connections, "{counted:?}");
    trial.finish();
}

#[test]
fn frames_in_single_bytes_are_the_same_frames() {
    let trial = trial();
    let stream = [upgrade_head(), frame_stream(), frame(0x88, b"\x0f\xa0")].concat();
    let whole = until_closed(&trial, &stream, "whole");
    // The handshake's answer, a pong, the echo, a goodbye.
    assert_eq!(frames(split_head(&whole, "whole").1).len(), 4);
    let mut client = connect_tcp(trial.address());
    for byte in &stream {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_to_end(&mut client, "single bytes"), whole);
    trial.finish();
}

#[test]
fn requests_that_are_no_upgrade_are_answered_and_closed() {
    let trial = trial();
    let key = ("Sec-WebSocket-Key", KEY);
    let version = ("Sec-WebSocket-Version", "13");
    let get = "GET / HTTP/1.1";
    let long = "x".repeat(HEAD_BYTES_MAX);
    let many = vec![("A", "b"); 70];
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("a plain GET", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 426),
        ("bare line feeds", b"GET / HTTP/1.1\nHost: x\n\n".to_vec(), 426),
        ("mixed line ends", b"GET / HTTP/1.1\nHost: x\n\r\n".to_vec(), 426),
        ("an old version", head(get, &[key, ("Sec-WebSocket-Version", "8")]), 426),
        ("no version", head(get, &[key]), 426),
        ("no key", head(get, &[version]), 400),
        ("an empty key", head(get, &[("Sec-WebSocket-Key", ""), version]), 400),
        ("a short key", head(get, &[("Sec-WebSocket-Key", "YQ=="), version]), 400),
        (
            "a key that is no base64",
            head(get, &[("Sec-WebSocket-Key", &KEY.replace('d', "?")), version]),
            400,
        ),
        ("two keys", head(get, &[key, key, version]), 400),
        ("POST", head("POST / HTTP/1.1", &[key, version]), 405),
        ("OPTIONS", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 426),
        ("DELETE", b"DELETE / HTTP/1.1\r\n\r\n".to_vec(), 426),
        ("no HTTP", b"hello there\r\n\r\n".to_vec(), 400),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 400),
        ("a bad header", b"GET / HTTP/1.1\r\nHost x\r\n\r\n".to_vec(), 400),
        ("a zero byte", b"GET / HTTP/1.1\r\nHost: \0\r\n\r\n".to_vec(), 400),
        ("a long head", head(get, &[key, version, ("X", &long)]), 431),
        ("a long head without an end", format!("GET /{long}").into_bytes(), 431),
        ("many headers", head(get, &many), 431),
    ];
    for (name, bytes, status) in &cases {
        let seen = trial.counted(name, || {
            let mut stream = connect_tcp(trial.address());
            stream.write_all(bytes).unwrap();
            let answer = read_to_end(&mut stream, name);
            let (head, rest) = split_head(&answer, name);
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {head}");
            assert!(head.contains("close") && rest.is_empty(), "{name}: {head}");
        });
        assert_eq!(seen, Reasons::from([("refused_http", 1)]), "{name}");
    }
    trial.finish();
}

/// What nginx sends by default (`proxy_http_version 1.0`), and the original's library upgrades.
#[test]
fn an_upgrade_by_http_1_0_is_accepted() {
    let engine = builder(1).start().unwrap();
    let mut stream = connect_tcp(engine.local_addr());
    let lines = [("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")];
    stream.write_all(&head("GET / HTTP/1.0", &lines)).unwrap();
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101 Switching Protocols");
}

#[test]
fn a_head_cut_anywhere_waits_for_its_rest() {
    let trial = trial();
    let head = upgrade_head();
    let counted = trial.counted("cut heads", || {
        for cut in 0..head.len() {
            assert_eq!(until_closed(&trial, &head[..cut], "cut"), b"", "cut at {cut}");
        }
    });
    assert_eq!(counted, Reasons::from([("closed_by_peer", head.len() as u64)]));
    for cut in 1..head.len() {
        let mut stream = connect_tcp(trial.address());
        stream.write_all(&head[..cut]).unwrap();
        // Frames behind the head count too.
        stream.write_all(&[&head[cut..], &frame(0x89, b"p")].concat()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = read_to_end(&mut stream, "two halves");
        let (head, rest) = split_head(&answer, "two halves");
        assert!(head.starts_with("HTTP/1.1 101 "), "cut at {cut}: {head}");
        assert_eq!(frames(rest), [(0x8a, b"p".to_vec())]);
    }
    trial.finish();
}

#[test]
fn a_head_damaged_anywhere_hangs_nobody() {
    let trial = trial();
    let head = upgrade_head();
    let mut connections = 0;
    let counted = trial.counted("damaged heads", || {
        for place in 0..head.len() {
            for bits in [0x01, 0x20, 0x80, 0xff] {
                let mut bytes = head.clone();
                bytes[place] ^= bits;
                let answer = until_closed(&trial, &bytes, "damaged");
                let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.1 ");
                assert!(is_http, "{place} ^ {bits:#x}: {answer:x?}");
                connections += 1;
            }
        }
    });
    let ends = ["closed_by_peer", "closed_protocol", "refused_http"];
    let ended: u64 = ends.iter().filter_map(|end| counted.get(end)).sum();
    assert_eq!(ended, connections, "{counted:?}");
    assert!(counted["refused_http"] > 0);
    trial.finish();
}
