//! A small blocking client, for tests that talk to an engine over loopback. It is a crate of its
//! own, as each of several tests uses its own part of it.

pub mod alone;
pub mod folder;
pub mod pomelo;
pub mod tls;
pub mod witness;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use shaddock::wire::message::{self, Message, MessageType, RouteRef};
use shaddock::wire::package::{self, PackageType, Status};
use shaddock::{Builder, Driver, Engine, Shards, StartError};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An engine on a free port of the loopback, with nothing in it yet.
pub fn builder(shards: u16) -> Builder {
    Engine::builder().listen("127.0.0.1:0").shards(Shards::Count(shards))
}

/// True if there is a ring to be had here. Says so where the system has none to give, as a test of
/// what only a ring has is skipped then.
///
/// # Panics
/// The ring fails for another reason, which is a fault of its own.
pub fn has_ring() -> bool {
    let refused = builder(1).driver(Driver::Ring).start().err();
    refused.is_none_or(|error| {
        assert!(is_refusal(&error), "a ring that the system does not refuse: {error}");
        println!("skipped: {error}");
        false
    })
}

/// True if it is the system that has no ring to give.
fn is_refusal(error: &StartError) -> bool {
    match error {
        StartError::IoUringBlocked { .. } | StartError::MemLock { .. } => true,
        // What other tests have locked at this moment counts, too.
        StartError::RingMemory { limit: Some(_), .. } => true,
        // What our ring asks for is a fault where the kernel has it.
        StartError::KernelTooOld { .. } => kernel_version() < (6, 1),
        _ => false,
    }
}

/// The first two numbers of the kernel's version.
fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A port that nobody listens on, below those that connections get, which may take it before the
/// program does that it is for.
pub fn free_port() -> u16 {
    const FIRST: u32 = 25_000;
    const COUNT: u32 = 7_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(61);
    loop {
        let place = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = (FIRST + place) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What a server sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Handshake(Value),
    Heartbeat,
    Kick(Value),
    Response {
        id: u32,
        body: Vec<u8>,
    },
    Push {
        route: String,
        body: Vec<u8>,
    },
    CodedPush {
        code: u16,
        body: Vec<u8>,
    },
    /// The server has closed the connection.
    End,
}

/// One TCP client.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    events: Vec<Event>,
    is_ended: bool,
}

pub fn package(kind: PackageType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    package::encode(kind, body, &mut out).unwrap();
    out
}

fn message(kind: MessageType, id: u32, route: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let route = Some(RouteRef::Text(route.as_bytes()));
    message::encode(&Message { id, kind, route, body, gzip: false }, &mut out).unwrap();
    package(PackageType::Data, &out)
}

pub fn request(id: u32, route: &str, body: &str) -> Vec<u8> {
    message(MessageType::Request, id, route, body.as_bytes())
}

pub fn notify(route: &str, body: &str) -> Vec<u8> {
    message(MessageType::Notify, 0, route, body.as_bytes())
}

pub fn handshake() -> Vec<u8> {
    package(PackageType::Handshake, br#"{"sys":{"type":"test","version":"1"}}"#)
}

pub fn ack() -> Vec<u8> {
    package(PackageType::HandshakeAck, b"")
}

pub fn heartbeat() -> Vec<u8> {
    package(PackageType::Heartbeat, b"")
}

impl Client {
    /// A connection that has sent nothing yet.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), events: Vec::new(), is_ended: false }
    }

    /// A connection that works.
    pub fn ready(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.send(&handshake());
        let Event::Handshake(answer) = client.next() else { panic!("no handshake") };
        assert_eq!(answer["code"], 200);
        client.send(&ack());
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next event; [`Event::End`] for ever once the server has closed.
    pub fn next(&mut self) -> Event {
        self.next_within(PATIENCE).expect("the server says nothing")
    }

    /// The next event, if there is one in that time.
    pub fn next_within(&mut self, patience: Duration) -> Option<Event> {
        let deadline = Instant::now() + patience;
        loop {
            if !self.events.is_empty() {
                return Some(self.events.remove(0));
            }
            if self.is_ended {
                return Some(Event::End);
            }
            match read_more(&mut self.stream, &mut self.buffer, deadline)? {
                More::Bytes => self.decode(),
                More::End => self.is_ended = true,
            }
        }
    }

    /// Takes what somebody else has read from the stream; none is its end.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.is_ended |= bytes.is_empty();
        self.buffer.extend_from_slice(bytes);
        self.decode();
    }

    fn decode(&mut self) {
        loop {
            let decoded = package::decode(&self.buffer, package::BODY_BYTES_MAX).unwrap();
            let Status::Complete { value, consumed } = decoded else { return };
            self.events.push(event(value.kind, value.body));
            self.buffer.drain(..consumed);
        }
    }

    /// The answer to a request; what comes before it is dropped.
    pub fn answer(&mut self, id: u32) -> String {
        loop {
            match self.next() {
                Event::Response { id: other, body } if other == id => {
                    return String::from_utf8(body).unwrap();
                }
                Event::End => panic!("closed before the answer to {id}"),
                _ => {}
            }
        }
    }

    pub fn ask(&mut self, id: u32, route: &str, body: &str) -> String {
        self.send(&request(id, route, body));
        self.answer(id)
    }

    pub fn ask_json(&mut self, id: u32, route: &str, body: &str) -> Value {
        serde_json::from_str(&self.ask(id, route, body)).unwrap()
    }

    /// Waits for the server to close; gives what came before.
    pub fn until_end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next() {
                Event::End => return events,
                event => events.push(event),
            }
        }
    }
}

/// What a read has brought.
pub enum More {
    Bytes,
    End,
}

/// Reads what there is into `buffer`; `None` if nothing comes until the deadline.
pub fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>, deadline: Instant) -> Option<More> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        stream.set_read_timeout(Some(left)).unwrap();
        let mut chunk = [0; 65536];
        match stream.read(&mut chunk) {
            Ok(0) => return Some(More::End),
            Ok(len) => {
                buffer.extend_from_slice(&chunk[..len]);
                return Some(More::Bytes);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Some(More::End),
            Err(_) => {}
        }
    }
}

fn event(kind: PackageType, body: &[u8]) -> Event {
    match kind {
        PackageType::Handshake => Event::Handshake(serde_json::from_slice(body).unwrap()),
        PackageType::Heartbeat => Event::Heartbeat,
        PackageType::Kick => Event::Kick(serde_json::from_slice(body).unwrap()),
        PackageType::Data => {
            let message = message::decode(body).unwrap();
            let body = message.body.to_vec();
            match (message.kind, message.route) {
                (MessageType::Response, None) => Event::Response { id: message.id, body },
                (MessageType::Push, Some(RouteRef::Code(code))) => Event::CodedPush { code, body },
                (MessageType::Push, Some(RouteRef::Text(route))) => {
                    Event::Push { route: String::from_utf8_lossy(route).into_owned(), body }
                }
                other => panic!("no server sends {other:?}"),
            }
        }
        other => panic!("no server sends {other:?}"),
    }
}

/// Looks again and again until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
