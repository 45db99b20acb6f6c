//! Clients behind balancers and reverse proxies: one listener expects the PROXY protocol, another
//! takes a header of the WebSocket's request. Everybody connects from the loopback, so a listener
//! trusts either that or somebody else.
//!
//! Proved: what sessions, statistics and the host filter see is the client's address if a trusted
//! peer tells it, and the peer's own otherwise; what is no PROXY header ends the connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use shaddock::wire::proxy;
use shaddock::{
    Drain, Engine, HostFilter, HostRule, Limits, Listener, Reply, Request, Session, Shards,
};
use support::{Client, Event, PATIENCE, ack, builder, eventually, handshake, request};
use tungstenite::client::IntoClientRequest;

const WHERE: &str = "connector.entryHandler.where";
const CLIENT: &str = "203.0.113.7:56324";
const DENIED: &str = "198.51.100.9:1";

fn rules<const N: usize>(rules: [&str; N]) -> [HostRule; N] {
    rules.map(|rule| rule.parse().unwrap())
}

fn listener() -> Listener {
    Listener::new("127.0.0.1:0").trusted_proxies(rules(["127.0.0.0/8", "10.0.0.0/8"]))
}

fn start(listener: Listener) -> Engine {
    Engine::builder()
        .listen(listener)
        .shards(Shards::Count(1))
        .host_filter(HostFilter::deny(["198.51.100.0/24"]).unwrap())
        .limits(Limits { handshake_timeout: Duration::from_millis(400), ..Limits::default() })
        .handler(WHERE, |_: &Request<'_>, session: &mut Session| {
            Reply::json(&session.peer().to_string())
        })
        .start()
        .unwrap()
}

fn v2(source: &str) -> Vec<u8> {
    let mut header = Vec::new();
    proxy::encode(source.parse().unwrap(), "127.0.0.1:3010".parse().unwrap(), &mut header);
    header
}

/// A client that sends these bytes first, then works.
fn ready_behind(address: SocketAddr, header: &[u8]) -> Client {
    let mut client = Client::connect(address);
    client.send(&[header, &handshake(), &ack()].concat());
    assert!(matches!(client.next(), Event::Handshake(answer) if answer["code"] == 200));
    client
}

fn is_closed(address: SocketAddr, bytes: &[u8]) -> bool {
    let mut client = Client::connect(address);
    // It may be closed before it has sent anything.
    client.stream.write_all(bytes).ok();
    client.until_end().is_empty()
}

#[test]
fn both_versions_tell_the_clients_address() {
    let engine = start(listener().proxy_protocol());
    let address = engine.local_addr();
    let v1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 3010\r\n";
    for header in [&v1[..], &v2(CLIENT)] {
        let mut client = ready_behind(address, header);
        assert_eq!(client.ask_json(1, WHERE, "{}"), CLIENT);
    }
    for (header, expected) in [
        ("PROXY TCP6 2001:db8::1 ::1 9 3010\r\n", "[2001:db8::1]:9"),
        ("PROXY TCP6 ::ffff:203.0.113.7 ::1 9 3010\r\n", "203.0.113.7:9"),
    ] {
        let mut client = ready_behind(address, header.as_bytes());
        assert_eq!(client.ask_json(1, WHERE, "{}"), expected);
    }
    assert_eq!(engine.shutdown(Drain::now()).counters.bad_proxy, 0);
}

#[test]
fn a_header_may_come_in_any_pieces() {
    let engine = start(listener().proxy_protocol());
    let stream = [&v2(CLIENT)[..], &handshake(), &ack(), &request(1, WHERE, "{}")].concat();
    for cut in 1..stream.len() {
        let mut client = Client::connect(engine.local_addr());
        client.send(&stream[..cut]);
        if cut <= 29 {
            // Long enough for the server to see the pieces as such, mostly.
            std::thread::sleep(Duration::from_millis(1));
        }
        client.send(&stream[cut..]);
        assert_eq!(client.answer(1), format!("\"{CLIENT}\""), "cut at {cut}");
    }
    let mut client = Client::connect(engine.local_addr());
    for byte in &stream {
        client.send(std::slice::from_ref(byte));
    }
    assert_eq!(client.answer(1), format!("\"{CLIENT}\""));
}

#[test]
fn a_balancer_may_speak_for_itself() {
    let engine = start(listener().proxy_protocol());
    let local = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[0x20, 0, 0, 0]].concat();
    for header in [&local[..], b"PROXY UNKNOWN\r\n"] {
        let mut client = ready_behind(engine.local_addr(), header);
        let own = client.stream.local_addr().unwrap().to_string();
        assert_eq!(client.ask_json(1, WHERE, "{}"), own);
    }
}

#[test]
fn a_websocket_comes_behind_a_header_too() {
    let engine = start(listener().proxy_protocol());
    let mut stream = TcpStream::connect(engine.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&v2(CLIENT)).unwrap();
    assert_eq!(where_over_websocket(stream, &[]), CLIENT);
}

#[test]
fn the_host_filter_looks_at_the_client_and_not_at_the_balancer() {
    let engine = start(listener().proxy_protocol());
    let address = engine.local_addr();
    engine.handle().deny_hosts(&rules(["127.0.0.0/8"])).unwrap();
    // The rule is in force once a shard has read its mail, which any report comes behind.
    engine.handle().statistics().unwrap();
    assert!(is_closed(address, &[v2(DENIED), handshake()].concat()));
    let mut client = ready_behind(address, &v2(CLIENT));
    assert_eq!(client.ask_json(1, WHERE, "{}"), CLIENT);
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!((counters.refused_host, counters.refused_proxy), (1, 0));
}

#[test]
fn only_trusted_peers_may_tell() {
    let untrusting = Listener::new("127.0.0.1:0").trusted_proxies(rules(["10.0.0.0/8"]));
    let engine = start(untrusting.clone().proxy_protocol());
    assert!(is_closed(engine.local_addr(), &[v2(CLIENT), handshake()].concat()));
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!((counters.refused_proxy, counters.connections_accepted), (1, 0));

    let engine = start(untrusting.real_ip_header("X-Forwarded-For"));
    let (seen, own) = real_ip(&engine, &[("X-Forwarded-For", "203.0.113.7")]);
    assert_eq!(seen, own);
}

#[test]
fn what_is_no_header_ends_the_connection() {
    let engine = start(listener().proxy_protocol());
    let inputs = [handshake(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"PROXY TCP4 x\r\n".to_vec()];
    for input in &inputs {
        assert!(is_closed(engine.local_addr(), input), "{input:?}");
    }
    assert!(is_closed(engine.local_addr(), b"PROXY UNK"), "a header that never ends");
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!(counters.bad_proxy, inputs.len() as u64);
    assert_eq!(counters.closed_handshake_timeout, 1);
    assert_eq!(counters.handshakes, 0);
}

#[test]
fn a_listener_without_the_option_takes_no_header() {
    let engine = start(listener());
    assert!(is_closed(engine.local_addr(), &v2(CLIENT)));
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!(counters.bad_package_type, 1);
}

#[test]
fn a_trusted_reverse_proxy_tells_the_clients_address() {
    let engine = start(listener().real_ip_header("X-Forwarded-For"));
    for (headers, expected) in [
        (&[("x-forwarded-for", "203.0.113.7")][..], "203.0.113.7:0"),
        (&[("X-Forwarded-For", "1.1.1.1, 203.0.113.7, 10.1.2.3")], "203.0.113.7:0"),
        (
            &[("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "[2001:db8::1]:9")],
            "[2001:db8::1]:9",
        ),
    ] {
        assert_eq!(real_ip(&engine, headers).0, expected, "{headers:?}");
    }
    for headers in [&[][..], &[("X-Forwarded-For", "unknown")], &[("X-Real-IP", "203.0.113.7")]] {
        let (seen, own) = real_ip(&engine, headers);
        assert_eq!(seen, own, "{headers:?}");
    }
    // A client of raw TCP has no header to be told by.
    let mut client = Client::ready(engine.local_addr());
    let own = client.stream.local_addr().unwrap().to_string();
    assert_eq!(client.ask_json(1, WHERE, "{}"), own);
}

#[test]
fn a_client_that_the_host_filter_denies_is_forbidden() {
    let engine = start(listener().real_ip_header("X-Real-IP"));
    let mut stream = TcpStream::connect(engine.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              X-Real-IP: 198.51.100.9\r\n\r\n",
        )
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    drop(stream);
    eventually("the refusal is counted", || engine.handle().counters().refused_host == 1);
}

#[test]
fn statistics_show_the_clients_address() {
    let engine = Engine::builder()
        .listen(listener().proxy_protocol())
        .shards(Shards::Count(2))
        .async_handler(
            "connector.entryHandler.login",
            async |_, mut session: Session| match session.bind("u1").await {
                Ok(()) => Reply::empty(),
                Err(_) => Reply::error(),
            },
        )
        .start()
        .unwrap();
    let mut client = ready_behind(engine.local_addr(), &v2(CLIENT));
    client.ask(1, "connector.entryHandler.login", "{}");
    let statistics = engine.handle().statistics().unwrap();
    assert_eq!(statistics.logins[0].address.to_string(), CLIENT);
}

#[test]
fn options_that_do_not_fit_are_named() {
    let plain = || Listener::new("127.0.0.1:0");
    let many = vec!["10.0.0.1".parse::<HostRule>().unwrap(); 1025];
    for (listener, option) in [
        (plain().proxy_protocol(), "proxy_protocol"),
        (plain().real_ip_header("X-Real-IP"), "real_ip_header"),
        (listener().real_ip_header("X Real"), "real_ip_header"),
        (listener().real_ip_header(""), "real_ip_header"),
        (plain().trusted_proxies(many), "trusted_proxies"),
    ] {
        let error = builder(1).listen(listener).start().unwrap_err();
        assert!(error.to_string().contains(option), "{error}");
    }
}

/// The address that a WebSocket client's session has, and the client's own.
fn real_ip(engine: &Engine, headers: &[(&'static str, &'static str)]) -> (String, String) {
    let stream = TcpStream::connect(engine.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = stream.local_addr().unwrap().to_string();
    (where_over_websocket(stream, headers), own)
}

fn where_over_websocket(stream: TcpStream, headers: &[(&'static str, &'static str)]) -> String {
    let mut request_head = "ws://127.0.0.1/".into_client_request().unwrap();
    for (name, value) in headers {
        request_head.headers_mut().append(*name, value.parse().unwrap());
    }
    let (mut socket, _) = tungstenite::client(request_head, stream).unwrap();
    for package in [handshake(), ack(), request(1, WHERE, "{}")] {
        socket.send(package.into()).unwrap();
    }
    loop {
        let frame = socket.read().unwrap().into_data();
        // A response: package header, flags, id, then the body.
        if frame[0] == 4 {
            return serde_json::from_slice(&frame[6..]).unwrap();
        }
    }
}
