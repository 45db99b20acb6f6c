//! Recordings of single sessions, and the sessions that have ended, asked of the admin server.
//!
//! Proved: a recording has all of its session in both directions and in order, over TCP, WebSocket
//! and TLS, and nothing of others; nothing secret is in it, and no body unless it was asked for; it
//! is bounded in bytes and in number; each end of a session has its reason.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::wire::package::{self, PackageType};
use shaddock::{AdminOptions, Builder, Engine, Limits, Reply};
use support::{
    Client, Event, PATIENCE, ack, builder, eventually, handshake, package as encode, request,
};
use tungstenite::{Message, WebSocket};

const ECHO: &str = "connector.play.echo";
const BIND: &str = "connector.play.bind";
const TOKEN: &str = "0123456789abcdef";

fn game(shards: u16) -> Builder {
    builder(shards)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(BIND, |request, session| {
            // It is bound behind the answer.
            drop(session.bind(String::from_utf8_lossy(request.body()).as_ref()));
            Reply::json(&"bound")
        })
        .admin(AdminOptions::new().listen("127.0.0.1:0").token(TOKEN).redact(["nick-name"]))
}

fn ask(engine: &Engine, method: &str, path: &str) -> (u16, Vec<u8>) {
    let address = engine.admin_addr().unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines = format!("Host: {address}\r\nAuthorization: Bearer {TOKEN}\r\n");
    write!(socket, "{method} {path} HTTP/1.1\r\n{lines}\r\n").unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, bytes[end..].to_vec())
}

fn json(engine: &Engine, method: &str, path: &str) -> Value {
    let (status, body) = ask(engine, method, path);
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// Arms a recording, and waits until the shards have heard of it: they read their mail in order.
fn arm(engine: &Engine, path: &str) -> u64 {
    let armed = json(engine, "POST", path);
    json(engine, "GET", "/sessions");
    armed["recordings"][0]["id"].as_u64().unwrap()
}

fn recording(engine: &Engine, id: u64) -> Value {
    json(engine, "GET", &format!("/recordings/{id}"))
}

fn text(engine: &Engine, id: u64) -> String {
    let (status, body) = ask(engine, "GET", &format!("/recordings/{id}.txt"));
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

/// The lines of a recording without their times.
fn lines(engine: &Engine, id: u64) -> Vec<String> {
    let text = text(engine, id);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once("  ").unwrap().1.to_owned()).collect()
}

/// The lines of messages alone.
fn messages(engine: &Engine, id: u64) -> Vec<String> {
    let is_message = |line: &String| line.contains("request") || line.contains("response");
    lines(engine, id).into_iter().filter(is_message).collect()
}

fn session_id(engine: &Engine, uid: &str) -> String {
    let mut id = None;
    eventually("the session is bound", || {
        let list = json(engine, "GET", &format!("/sessions?uid={uid}"));
        id = list["sessions"][0]["id"].as_str().map(str::to_owned);
        id.is_some()
    });
    id.unwrap()
}

/// The messages of echoes, as a recording with bodies tells them.
fn echoes(bodies: impl IntoIterator<Item = (u32, String)>) -> Vec<String> {
    let both = |(id, body): (u32, String)| {
        let of = |way, kind| format!("{way}  {kind} {id} {ECHO}  {} bytes  {body}", body.len());
        [of(">", "request"), of("<", "response")]
    };
    bodies.into_iter().flat_map(both).collect()
}

#[test]
fn a_session_is_recorded_by_its_id_and_nobody_else_is() {
    let engine = game(2).start().unwrap();
    let mut amy = Client::ready(engine.local_addr());
    amy.ask(1, BIND, "amy");
    let mut bob = Client::ready(engine.local_addr());
    let id = session_id(&engine, "amy");
    // The start of a package that comes before the recording belongs to it.
    let first = request(2, ECHO, "{\"of\":\"amy\",\"n\":2}");
    amy.send(&first[..9]);
    eventually("it has come", || engine.handle().counters().bytes_in >= first.len() as u64);
    let recorded = arm(&engine, &format!("/sessions/{id}/record?bodies=on"));
    std::thread::sleep(Duration::from_millis(20));
    amy.send(&first[9..]);
    let mut expected = vec![(2, "{\"of\":\"amy\",\"n\":2}".to_owned())];
    assert_eq!(amy.answer(2), expected[0].1);
    for n in 3..=40 {
        let body = json!({"of": "amy", "n": n}).to_string();
        assert_eq!(amy.ask(n, ECHO, &body), body);
        let of_bob = json!({"of": "bob", "n": n}).to_string();
        assert_eq!(bob.ask(n, ECHO, &of_bob), of_bob);
        expected.push((n, body));
    }
    assert_eq!(messages(&engine, recorded), echoes(expected));
    assert!(!text(&engine, recorded).contains("bob"));
    let shown = recording(&engine, recorded);
    assert_eq!((&shown["state"], &shown["session"]["uid"]), (&json!("recording"), &json!("amy")));
    // What is stopped stays, and gets no more.
    json(&engine, "POST", &format!("/recordings/{recorded}/stop"));
    let before = lines(&engine, recorded);
    json(&engine, "GET", "/sessions");
    amy.ask(99, ECHO, "{}");
    assert_eq!(lines(&engine, recorded), before);
    assert_eq!(recording(&engine, recorded)["over"], "stopped");
    // It can be recorded again, to its end.
    let again = arm(&engine, &format!("/sessions/{id}/record"));
    amy.ask(100, ECHO, "{}");
    drop(amy);
    eventually("it is over", || recording(&engine, again)["state"] == "over");
    assert_eq!(recording(&engine, again)["over"], "peer");
    assert_eq!(messages(&engine, again).len(), 2);
    assert_eq!(ask(&engine, "POST", &format!("/sessions/{id}/record")).0, 404);
    assert_eq!(ask(&engine, "DELETE", &format!("/recordings/{again}")).0, 200);
    assert_eq!(ask(&engine, "GET", &format!("/recordings/{again}.txt")).0, 404);
}

#[test]
fn a_uid_is_recorded_now_or_by_its_next_login() {
    let engine = game(2).start().unwrap();
    let waiting = arm(&engine, "/uids/amy/record");
    assert_eq!(recording(&engine, waiting)["state"], "waiting");
    let mut bob = Client::ready(engine.local_addr());
    bob.ask(1, BIND, "bob");
    let mut amy = Client::ready(engine.local_addr());
    amy.ask(1, BIND, "amy");
    eventually("she is recorded", || recording(&engine, waiting)["state"] == "recording");
    amy.ask(2, ECHO, "{}");
    let found = messages(&engine, waiting);
    assert!(found.iter().any(|line| line.starts_with(&format!(">  request 2 {ECHO}"))));
    assert!(found.iter().any(|line| line.starts_with(&format!("<  response 2 {ECHO}"))));
    assert_eq!(recording(&engine, waiting)["session"]["uid"], "amy");
    // One who is there already.
    session_id(&engine, "bob");
    let now = arm(&engine, "/uids/bob/record");
    bob.ask(2, ECHO, "{}");
    assert_eq!(messages(&engine, now).len(), 2);
    // The next, though one is there.
    let next = arm(&engine, "/uids/bob/record?next=true");
    bob.ask(3, ECHO, "{}");
    assert_eq!(recording(&engine, next)["state"], "waiting");
    let mut second = Client::ready(engine.local_addr());
    second.ask(1, BIND, "bob");
    eventually("it is recorded", || recording(&engine, next)["state"] == "recording");
    second.ask(9, ECHO, "{}");
    assert!(text(&engine, next).contains("request 9"));
    assert!(!text(&engine, next).contains("request 3"));
}

#[test]
fn no_body_is_kept_by_default_and_no_secret_ever() {
    let engine = game(1).start().unwrap();
    let hello = json!({"sys": {"type": "js", "version": "1"}, "user": {"name": "hunter1"}});
    let body = json!({"password": "hunter2", "nickName": "hunter3", "text": "seen"}).to_string();
    for (query, is_seen) in [("next=true", false), ("next=true&bodies=on", true)] {
        let recorded = arm(&engine, &format!("/peers/127.0.0.1/record?{query}"));
        let mut client = Client::connect(engine.local_addr());
        client.send(&encode(PackageType::Handshake, hello.to_string().as_bytes()));
        assert!(matches!(client.next(), Event::Handshake(_)));
        client.send(&ack());
        assert_eq!(client.ask(1, ECHO, &body), body);
        let text = text(&engine, recorded);
        let (_, file) = ask(&engine, "GET", &format!("/recordings/{recorded}.pcapng"));
        let file = String::from_utf8_lossy(&file);
        assert!(file.contains("pomelo") && file.contains(ECHO));
        for output in [&*text, &file] {
            assert!(!output.contains("hunter"), "{output}");
            assert_eq!(output.contains("seen"), is_seen, "{output}");
        }
        let kinds: Vec<_> = lines(&engine, recorded)
            .iter()
            .map(|line| line.split("  ").take(2).collect::<Vec<_>>().join(" "))
            .filter(|line| !line.contains("heartbeat"))
            .collect();
        let expected = [
            "> handshake".to_owned(),
            "< handshake".to_owned(),
            "> ack".to_owned(),
            format!("> request 1 {ECHO}"),
            format!("< response 1 {ECHO}"),
        ];
        assert_eq!(kinds, expected);
    }
}

fn read_package(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = vec![0; package::HEADER_BYTES];
    stream.read_exact(&mut bytes).unwrap();
    let len = usize::from(bytes[1]) << 16 | usize::from(bytes[2]) << 8 | usize::from(bytes[3]);
    bytes.resize(package::HEADER_BYTES + len, 0);
    stream.read_exact(&mut bytes[package::HEADER_BYTES..]).unwrap();
    bytes
}

/// Echoes, pipelined, by whatever carries packages.
fn play(mut send: impl FnMut(&[u8]), mut read: impl FnMut() -> Vec<u8>) -> Vec<String> {
    let bodies: Vec<_> = (1..=30).map(|id| (id, json!({"n": id}).to_string())).collect();
    send(&handshake());
    read();
    send(&ack());
    for (id, body) in &bodies {
        send(&request(*id, ECHO, body));
        while read()[0] != PackageType::Data as u8 {}
    }
    echoes(bodies)
}

fn websocket(address: SocketAddr) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tungstenite::client(format!("ws://{address}/"), stream).unwrap().0
}

#[test]
fn websockets_are_recorded_from_their_request_to_their_close() {
    let engine = game(1).start().unwrap();
    let recorded = arm(&engine, "/peers/127.0.0.1/record?bodies=on&next=true");
    let client = std::cell::RefCell::new(websocket(engine.local_addr()));
    let expected = play(
        |bytes| client.borrow_mut().send(Message::Binary(bytes.to_vec().into())).unwrap(),
        || client.borrow_mut().read().unwrap().into_data().to_vec(),
    );
    assert_eq!(messages(&engine, recorded), expected);
    let all = lines(&engine, recorded);
    assert!(all[0].starts_with(">  http") && all[1].starts_with("<  http"), "{all:?}");
    // One that is there already, in the middle.
    let list = json(&engine, "GET", "/sessions");
    let id = list["sessions"][0]["id"].as_str().unwrap();
    let again = arm(&engine, &format!("/sessions/{id}/record?bodies=on"));
    assert_eq!(recording(&engine, recorded)["over"], "another has begun");
    let mut client = client.into_inner();
    client.send(Message::Binary(request(77, ECHO, "{}").into())).unwrap();
    client.read().unwrap();
    assert_eq!(messages(&engine, again), echoes([(77, "{}".to_owned())]));
    client.close(None).unwrap();
    while client.read().is_ok() {}
    drop(client);
    eventually("it is over", || recording(&engine, again)["state"] == "over");
    let all = lines(&engine, again);
    assert!(all.iter().any(|line| line.starts_with(">  close")), "{all:?}");
    assert!(all.iter().any(|line| line.starts_with("<  close")), "{all:?}");
}

#[cfg(feature = "tls")]
#[test]
fn tls_is_recorded_behind_its_records() {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, StreamOwned, version};
    use support::folder::Folder;

    let folder = Folder::create();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = folder.write("certificate.pem", &made.cert.pem());
    let key = folder.write("key.pem", &made.signing_key.serialize_pem());
    let tls = shaddock::Tls::from_files(certificate, key).unwrap();
    let config = support::tls::client_config_of(made.cert.der(), &[&version::TLS13]);
    let listener = shaddock::Listener::new("127.0.0.1:0").tls(tls);
    let engine = game(1).listen(listener).start().unwrap();
    let address = *engine.local_addrs().last().unwrap();
    let recorded = arm(&engine, "/peers/127.0.0.1/record?bodies=on&next=true");
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let client = StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream);
    let client = std::cell::RefCell::new(client);
    let expected = play(
        |bytes| client.borrow_mut().write_all(bytes).unwrap(),
        || read_package(&mut *client.borrow_mut()),
    );
    assert_eq!(messages(&engine, recorded), expected);
    let shown = recording(&engine, recorded);
    assert_eq!(shown["session"]["tls"], true);
    let id = shown["session"]["id"].as_str().unwrap();
    json(&engine, "POST", &format!("/recordings/{recorded}/stop"));
    assert_eq!(json(&engine, "GET", &format!("/sessions/{id}"))["tls"], true);
    let mut client = client.into_inner();
    client.write_all(&request(99, ECHO, "{}")).unwrap();
    while read_package(&mut client)[0] != PackageType::Data as u8 {}
    assert_eq!(messages(&engine, recorded), expected);
}

#[test]
fn a_recording_is_bounded_in_bytes_and_all_of_them_in_number() {
    let engine = game(1).start().unwrap();
    let recorded = arm(&engine, "/peers/127.0.0.1/record?bodies=on&bytes=65536&next=true");
    let mut client = Client::ready(engine.local_addr());
    let body = json!({"text": "x".repeat(2000)}).to_string();
    for id in 1..=100 {
        assert_eq!(client.ask(id, ECHO, &body), body);
    }
    let shown = recording(&engine, recorded);
    let bytes = shown["bytes"].as_u64().unwrap();
    assert!(bytes <= 65_536 && bytes > 32_768, "{shown}");
    assert!(shown["lost"].as_u64().unwrap() > 100, "{shown}");
    assert!(messages(&engine, recorded).last().unwrap().starts_with("<  response 100 "));
    for number in 1..16 {
        assert_eq!(ask(&engine, "POST", &format!("/uids/u{number}/record")).0, 200);
    }
    let (status, body) = ask(&engine, "POST", "/uids/one-more/record");
    assert_eq!(status, 503, "{}", String::from_utf8_lossy(&body));
    let (_, metrics) = ask(&engine, "GET", "/metrics");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("shaddock_admin_refused_total{reason=\"recordings\"} 1"));
    assert_eq!(json(&engine, "GET", "/recordings")["recordings"].as_array().unwrap().len(), 16);
    // One that is over makes room.
    json(&engine, "POST", &format!("/recordings/{recorded}/stop"));
    assert_eq!(ask(&engine, "POST", "/uids/one-more/record").0, 200);
    assert_eq!(ask(&engine, "GET", &format!("/recordings/{recorded}")).0, 404);
    client.ask(101, ECHO, "{}");
    for path in ["/uids/a/record?bytes=1", "/uids/a/record?x=1", "/peers/a/record"] {
        assert_eq!(ask(&engine, "POST", path).0, 400, "{path}");
    }
    assert_eq!(ask(&engine, "GET", "/uids/a/record").0, 405);
    assert_eq!(ask(&engine, "GET", "/recordings/1.doc").0, 404);
}

#[test]
fn a_recording_ends_in_time() {
    let engine = game(1).start().unwrap();
    let recorded = arm(&engine, "/peers/127.0.0.1/record?next=true&seconds=1");
    let mut client = Client::ready(engine.local_addr());
    eventually("its time is over", || recording(&engine, recorded)["state"] == "over");
    client.ask(1, ECHO, "{}");
    assert_eq!(messages(&engine, recorded), Vec::<String>::new());
    assert_eq!(recording(&engine, recorded)["over"], "its time is over");
}

#[test]
fn sessions_that_have_ended_are_told_with_their_reasons() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        ..Limits::default()
    };
    let engine = game(2).limits(limits).start().unwrap();
    let address = engine.local_addr();
    let mut amy = Client::ready(address);
    amy.ask(1, BIND, "amy");
    session_id(&engine, "amy");
    drop(amy);
    let mut bob = Client::ready(address);
    bob.ask(1, BIND, "bob");
    let id = session_id(&engine, "bob");
    assert_eq!(ask(&engine, "POST", &format!("/sessions/{id}/kick")).0, 200);
    bob.until_end();
    Client::connect(address).until_end();
    Client::ready(address).until_end();
    for bytes in [&b"\x05\0\0\0"[..], &encode(PackageType::Handshake, b"[")] {
        let mut stranger = Client::connect(address);
        stranger.send(bytes);
        stranger.until_end();
    }
    let expected = ["peer", "kick", "handshake_timeout", "idle", "protocol", "refused"];
    for reason in expected {
        let path = format!("/closed?reason={reason}");
        eventually(reason, || json(&engine, "GET", &path)["matching"] == 1);
        let list = json(&engine, "GET", &path);
        let closed = &list["closed"][0];
        assert_eq!(closed["reason"], reason, "{list}");
        assert!(closed["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{list}");
        assert!(closed["age_ms"].as_u64().unwrap() < 600_000, "{list}");
    }
    let idle = json(&engine, "GET", "/closed?reason=idle");
    assert!(idle["closed"][0]["age_ms"].as_u64().unwrap() >= 500, "{idle}");
    let amy = json(&engine, "GET", "/closed?uid=amy");
    assert_eq!((&amy["matching"], &amy["all"]), (&json!(1), &json!(expected.len())), "{amy}");
    assert_eq!(
        (&amy["closed"][0]["worked"], &amy["closed"][0]["reason"]),
        (&json!(true), &json!("peer"))
    );
    let one = json(&engine, "GET", "/closed?limit=1");
    assert_eq!(one["closed"].as_array().unwrap().len(), 1);
    for path in ["/closed?reason=x", "/closed?limit=1001", "/closed?x=1"] {
        assert_eq!(ask(&engine, "GET", path).0, 400, "{path}");
    }
}
