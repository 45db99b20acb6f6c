//! Connections are accepted, and an engine ends well whose ring is refused.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;

use super::{Drain, Engine, Shards};
use crate::dispatch::{Handlers, Reply};
use crate::error::HandleError;
use crate::forward::Workers;
use crate::io::{self, Driver};

const WHOAMI: &str = "connector.entryHandler.whoami";
const CLIENTS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that has said all that is needed to be answered.
fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello()).unwrap();
    stream
}

/// Handshake, ACK and request 1, in one write.
fn hello() -> Vec<u8> {
    let mut out = b"\x01\x00\x00\x0a{\"sys\":{}}\x02\x00\x00\x00".to_vec();
    let len = 3 + WHOAMI.len() as u8;
    out.extend_from_slice(&[4, 0, 0, len, 0, 1, WHOAMI.len() as u8]);
    out.extend_from_slice(WHOAMI.as_bytes());
    out
}

/// Reads until the answer has come; it is a JSON string at the end.
fn answer(stream: &mut TcpStream) -> String {
    let mut input = Vec::new();
    while !input.ends_with(b"\"") {
        let mut chunk = [0; 256];
        let len = stream.read(&mut chunk).expect("the server answers");
        assert_ne!(len, 0, "the server closes");
        input.extend_from_slice(&chunk[..len]);
    }
    let text = String::from_utf8_lossy(&input).into_owned();
    text.rsplit('"').nth(1).unwrap_or_default().to_owned()
}

/// Many clients at once, more than there are accepts under way, each told who it is.
#[test]
fn peers_are_told_apart() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let engine = Engine::builder()
            .listen(address)
            .shards(Shards::Count(1))
            .handler(WHOAMI, |_, session| Reply::json(&session.peer().to_string()))
            .start()
            .unwrap();
        let mut streams: Vec<TcpStream> =
            (0..CLIENTS).map(|_| connect(engine.local_addr())).collect();
        for stream in &mut streams {
            assert_eq!(answer(stream), stream.local_addr().unwrap().to_string());
        }
        let report = engine.shutdown(Drain::within(PATIENCE));
        assert_eq!(report.counters.connections_accepted, CLIENTS as u64);
        assert_eq!(report.counters.connections_closed, CLIENTS as u64);
    }
}

/// Every shard accepts from every listener, whichever family it has.
#[test]
fn several_listeners_are_served() {
    let listeners = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0", "[::1]:0", "[::1]:0"];
    let builder = Engine::builder().shards(Shards::Count(2));
    let engine = listeners
        .into_iter()
        .fold(builder, super::Builder::listen)
        .handler(WHOAMI, |_, session| Reply::json(&session.peer().to_string()))
        .start()
        .unwrap();
    assert_eq!(engine.local_addrs().len(), listeners.len());
    assert_eq!(engine.local_addrs()[0], engine.local_addr());
    let mut streams: Vec<TcpStream> =
        (0..50).flat_map(|_| engine.local_addrs()).map(|address| connect(*address)).collect();
    for stream in &mut streams {
        assert_eq!(answer(stream), stream.local_addr().unwrap().to_string());
    }
    let addresses = engine.local_addrs().to_vec();
    let report = engine.shutdown(Drain::now());
    assert_eq!(report.counters.connections_accepted, streams.len() as u64);
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} is still listened on");
    }
}

const BREAK: &str = "connector.entryHandler.break";
const BREAK_WORKER: &str = "room.roomHandler.break";

/// An engine whose handlers make the kernel refuse what their thread's ring submits next. None
/// where there is no ring.
fn fragile(shards: u16, faults: &'static [(Errno, usize)]) -> Option<Engine> {
    let started = Engine::builder()
        .driver(Driver::Ring)
        .listen("127.0.0.1:0")
        .shards(Shards::Count(shards))
        .handler(WHOAMI, |_, session| Reply::json(&session.peer().to_string()))
        .handler(BREAK, move |_, _| {
            io::fail(faults);
            Reply::json(&"broken")
        })
        .forward(
            "room",
            Workers::new(1, move |handlers: &mut Handlers| {
                handlers.handler(BREAK_WORKER, move |_, _| {
                    io::fail(faults);
                    Reply::json(&"broken")
                });
            }),
        )
        .start();
    started.map_err(|error| io::skip(&error)).ok()
}

fn ask(stream: &mut TcpStream, route: &str) {
    let len = 3 + route.len() as u8;
    let head = [4, 0, 0, len, 0, 2, route.len() as u8];
    stream.write_all(&[&head[..], route.as_bytes()].concat()).unwrap();
}

/// Every answer still comes, though the kernel takes nothing for a while, again and again.
#[test]
fn a_ring_that_is_refused_for_a_while_loses_nothing() {
    const FOR_A_WHILE: [(Errno, usize); 4] =
        [(Errno::AGAIN, 7), (Errno::BUSY, 9), (Errno::NOMEM, 11), (Errno::AGAIN, 1)];
    let Some(engine) = fragile(1, &FOR_A_WHILE) else { return };
    let mut streams: Vec<TcpStream> = (0..50).map(|_| connect(engine.local_addr())).collect();
    for stream in &mut streams {
        assert_eq!(answer(stream), stream.local_addr().unwrap().to_string());
    }
    for round in 0..5 {
        ask(&mut streams[round], BREAK);
        ask(&mut streams[round + 5], BREAK_WORKER);
        streams[10..].iter_mut().for_each(|stream| ask(stream, WHOAMI));
        for stream in &mut streams[10..] {
            assert_eq!(answer(stream), stream.local_addr().unwrap().to_string());
        }
        assert_eq!(answer(&mut streams[round]), "broken");
        assert_eq!(answer(&mut streams[round + 5]), "broken");
    }
    assert_eq!(engine.handle().failure(), None);
    let report = engine.shutdown(Drain::within(PATIENCE));
    assert!(report.took < PATIENCE, "{report:?}");
    assert_eq!(report.counters.connections_closed, streams.len() as u64);
}

/// All clients, also of the other shards, are closed, and the handle tells what has failed.
#[test]
fn a_ring_that_fails_ends_the_engine_and_says_so() {
    const FOR_GOOD: [(Errno, usize); 1] = [(Errno::BADF, 1)];
    const TOO_LONG: [(Errno, usize); 1] = [(Errno::NOMEM, usize::MAX)];
    let cases = [
        (BREAK, &FOR_GOOD, "of shard", "(os error 9)"),
        (BREAK, &TOO_LONG, "of shard", "(os error 12)"),
        (BREAK_WORKER, &FOR_GOOD, "of worker", "(os error 9)"),
        (BREAK_WORKER, &TOO_LONG, "of worker", "(os error 12)"),
    ];
    for (route, faults, whose, error) in cases {
        let Some(engine) = fragile(2, faults) else { return };
        let handle = engine.handle();
        let mut streams: Vec<TcpStream> = (0..20).map(|_| connect(engine.local_addr())).collect();
        streams.iter_mut().for_each(|stream| drop(answer(stream)));
        ask(&mut streams[0], route);
        for stream in &mut streams {
            // To its end, or to an error that is no time-out.
            let ended = stream.read_to_end(&mut Vec::new());
            let is_late = ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!is_late, "{route}: a client is not closed");
        }
        let failure = handle.failure().expect("it has failed");
        assert!(failure.contains(whose) && failure.ends_with(error), "{failure}");
        assert_eq!(handle.push("amy", "on", "{}"), Err(HandleError::Stopped));
        assert!(TcpStream::connect(engine.local_addr()).is_err(), "it listens");
        let report = engine.shutdown(Drain::within(PATIENCE));
        assert!(report.took < PATIENCE / 2, "{report:?}");
    }
}
