//! Bounds on how often something may happen hold for each client by itself, and are told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use shaddock::metrics::CounterSnapshot;
use shaddock::wire::proxy;
use shaddock::{Builder, Engine, Limits, Listener, Reply, Shards};
use support::{Client, Event, PATIENCE, ack, builder, handshake, notify, request};

const ECHO: &str = "connector.play.echo";
const REFUSED: &str = r#"{"code":500}"#;

fn with_echo(builder: Builder) -> Builder {
    builder.handler(ECHO, |request, _| Reply::borrowed(request.body()))
}

fn counters(engine: &Engine) -> CounterSnapshot {
    engine.handle().counters()
}

#[test]
fn messages_above_the_rate_are_refused_and_the_others_are_not() {
    const BURST: u32 = 20;
    const RATE: u32 = 5;
    let limits = Limits { messages_per_second: RATE, messages_burst: BURST, ..Limits::default() };
    let engine = with_echo(builder(1)).limits(limits).start().unwrap();
    let start = Instant::now();
    let mut flooding = Client::ready(engine.local_addr());
    let mut witness = Client::ready(engine.local_addr());
    let mut bytes = Vec::new();
    for id in 1..=200 {
        bytes.extend(request(id, ECHO, "1"));
        bytes.extend(notify(ECHO, "1"));
    }
    flooding.send(&bytes);
    let answers: Vec<String> = (1..=200).map(|id| flooding.answer(id)).collect();
    let served = answers.iter().filter(|answer| *answer == "1").count();
    let first = answers.iter().take_while(|answer| *answer == "1").count();
    assert_eq!(first as u32, BURST / 2, "the burst, of which the other half are notifies");
    assert!(answers[first..].iter().all(|answer| answer == "1" || answer == REFUSED));
    // Each second brings a few more.
    let more = 1 + start.elapsed().as_secs() as u32 * RATE + RATE;
    assert!(served as u32 <= BURST / 2 + more, "{served} in {:?}", start.elapsed());
    assert_eq!(witness.ask(1, ECHO, "1"), "1", "another session has its own rate");
    assert!(counters(&engine).message_rate_rejects >= u64::from(400 - BURST - more));
    std::thread::sleep(Duration::from_secs(1) / RATE * 2);
    assert_eq!(flooding.ask(201, ECHO, "1"), "1", "time brings it back");
}

#[test]
fn without_a_rate_nothing_is_refused() {
    let engine = with_echo(builder(1)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let bytes: Vec<u8> = (1..=2_000).flat_map(|id| request(id, ECHO, "1")).collect();
    client.send(&bytes);
    assert!((1..=2_000).all(|id| client.answer(id) == "1"));
    assert_eq!(counters(&engine).message_rate_rejects, 0);
}

/// A rate that lets nobody in again while the test runs.
fn accept_limits(burst: u32) -> Limits {
    Limits { accepts_per_ip_per_second: 1, accepts_per_ip_burst: burst, ..Limits::default() }
}

/// True if a client that sends these bytes first is served.
fn is_let_in(address: SocketAddr, first: &[u8]) -> bool {
    let mut client = Client::connect(address);
    // It may be closed before it has sent anything.
    let hello = [first, &handshake(), &ack(), &request(1, ECHO, "1")].concat();
    client.stream.write_all(&hello).ok();
    matches!(client.next(), Event::Handshake(answer) if answer["code"] == 200)
}

fn let_in(times: usize, address: SocketAddr, first: &[u8]) -> usize {
    (0..times).filter(|_| is_let_in(address, first)).count()
}

#[test]
fn an_address_that_connects_too_often_is_turned_away() {
    const BURST: u32 = 10;
    let engine = with_echo(builder(1)).limits(accept_limits(BURST)).start().unwrap();
    let start = Instant::now();
    let mut inside = Client::ready(engine.local_addr());
    let served = 1 + let_in(50, engine.local_addr(), b"");
    let more = 1 + start.elapsed().as_secs() as usize;
    assert!((BURST as usize..=BURST as usize + more).contains(&served), "{served} were let in");
    assert_eq!(inside.ask(1, ECHO, "1"), "1", "who is in stays in");
    let refused = 51 - served as u64;
    let counted = counters(&engine);
    assert_eq!(
        (counted.refused_accept_rate, counted.connections_accepted),
        (refused, served as u64)
    );
}

/// Behind proxies, clients count by their own addresses, and the proxies for nobody.
#[test]
fn behind_proxies_the_clients_own_address_counts() {
    const BURST: u32 = 5;
    let listener =
        || Listener::new("127.0.0.1:0").trusted_proxies(["127.0.0.0/8".parse().unwrap()]);
    let start = |listener: Listener| {
        let builder = Engine::builder().listen(listener).shards(Shards::Count(1));
        with_echo(builder).limits(accept_limits(BURST)).start().unwrap()
    };
    let engine = start(listener().proxy_protocol());
    for source in ["203.0.113.7:1", "203.0.113.8:1", "[2001:db8::1]:1"] {
        let mut header = Vec::new();
        let destination = engine.local_addr();
        proxy::encode(source.parse().unwrap(), destination, &mut header);
        let served = let_in(20, engine.local_addr(), &header);
        assert!((BURST as usize..20).contains(&served), "{served} of {source} were let in");
    }
    assert!(counters(&engine).refused_accept_rate > 0);

    let engine = start(listener().real_ip_header("X-Real-IP"));
    for source in ["203.0.113.7", "203.0.113.8"] {
        let answers: Vec<String> = (0..20).map(|_| upgrade(engine.local_addr(), source)).collect();
        let accepted = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 101")).count();
        let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429")).count();
        assert!((BURST as usize..20).contains(&accepted), "{accepted} of {source} were let in");
        assert_eq!(accepted + refused, 20);
    }
}

/// The first line of the answer to an upgrade that a proxy passes on.
fn upgrade(address: SocketAddr, source: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Real-IP: {source}\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}
