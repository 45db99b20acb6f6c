//! A load client for TLS, which the one of `shaddock load` does not speak: tasks on one thread.
//!
//! It takes more CPU for a message than that one, so it limits the rate where many messages share a
//! record. The servers' CPU per message is compared, not their rate.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use shaddock::load::Phase;
use shaddock::load::hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate::{self, Certificate};
use crate::work::{Outcome, Point, Shape};

/// A server that speaks TLS.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) is_websocket: bool,
    config: Arc<ClientConfig>,
}

/// State shared by the tasks of a run.
struct Run {
    target: Target,
    /// Connections that work.
    up: Cell<u32>,
    messages: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    fault: RefCell<Option<io::Error>>,
}

/// The longest time for all connections to be made.
const CONNECTING_MAX: Duration = Duration::from_secs(30);
const HANDSHAKE: &[u8] = b"\x01\x00\x00\x26{\"sys\":{\"type\":\"bench\",\"version\":\"1\"}}";
const ACK: &[u8] = b"\x02\x00\x00\x00";
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

impl Target {
    pub(crate) fn new(address: SocketAddr, is_websocket: bool) -> io::Result<Self> {
        Ok(Self { address, is_websocket, config: Certificate::open().client()? })
    }

    /// Connects, with a full handshake, and a stream on which Pomelo's is done, too.
    async fn connect(&self) -> io::Result<Conversation> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(certificate::NAME).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await?;
        let is_websocket = self.is_websocket;
        let mut conversation = Conversation { stream, is_websocket, input: Vec::new() };
        if is_websocket {
            conversation.send(UPGRADE).await?;
            conversation.skip_head().await?;
        }
        conversation.send(&self.framed(HANDSHAKE)).await?;
        let answer = conversation.next_package().await?;
        match answer.starts_with(b"\x01") {
            true => Ok(conversation),
            false => Err(io::Error::other("a server does not shake hands")),
        }
    }

    /// A package as it is sent. The mask is of zeros, as in `shaddock load`.
    fn framed(&self, package: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        if self.is_websocket {
            framed.push(0x82);
            match package.len() {
                len @ ..126 => framed.push(0x80 | len as u8),
                len => {
                    framed.push(0x80 | 127);
                    framed.extend_from_slice(&(len as u64).to_be_bytes());
                }
            }
            framed.extend_from_slice(&[0; 4]);
        }
        framed.extend_from_slice(package);
        framed
    }
}

/// One connection.
struct Conversation {
    stream: TlsStream<TcpStream>,
    is_websocket: bool,
    input: Vec<u8>,
}

impl Conversation {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.input.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads the answer to the request to speak WebSocket.
    async fn skip_head(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = self.input.windows(4).position(|end| end == b"\r\n\r\n") {
                self.input.drain(..end + 4);
                return Ok(());
            }
            self.receive().await?;
        }
    }

    async fn next_package(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some((start, end)) = package(&self.input, self.is_websocket) {
                let package = self.input[start..end].to_vec();
                self.input.drain(..end);
                return Ok(package);
            }
            self.receive().await?;
        }
    }

    /// Keeps as many requests in flight, for ever.
    async fn echo(mut self, run: &Run, script: &Script, pipeline: u32) -> io::Result<()> {
        let mut out = run.target.framed(ACK);
        let (mut sent, mut id) = (VecDeque::new(), 0);
        for _ in 0..pipeline {
            sent.push_back((id, Instant::now()));
            script.request(id, &mut out);
            id = (id + 1) % IDS;
        }
        run.up.set(run.up.get() + 1);
        loop {
            self.send(&out).await?;
            out.clear();
            self.receive().await?;
            let (now, mut at) = (Instant::now(), 0);
            while let Some((start, end)) = package(&self.input[at..], self.is_websocket) {
                let answer = &self.input[at + start..at + end];
                at += end;
                if answer[0] != DATA {
                    continue;
                }
                let (asked, since) = sent.pop_front().ok_or_else(wrong)?;
                if !script.is_answer(asked, answer) {
                    return Err(wrong());
                }
                run.one(now - since);
                sent.push_back((id, now));
                script.request(id, &mut out);
                id = (id + 1) % IDS;
            }
            self.input.drain(..at);
        }
    }
}

fn wrong() -> io::Error {
    io::Error::other("an answer was wrong")
}

/// The begin and end of the first package in the input, once it is there as a whole.
fn package(input: &[u8], is_websocket: bool) -> Option<(usize, usize)> {
    let start = match (is_websocket, input.get(1)) {
        (false, _) => 0,
        (true, None) => return None,
        (true, Some(126)) => 4,
        (true, Some(127)) => 10,
        (true, Some(_)) => 2,
    };
    let [_, a, b, c] = *input.get(start..)?.first_chunk()?;
    let end = start + 4 + u32::from_be_bytes([0, a, b, c]) as usize;
    (end <= input.len()).then_some((start, end))
}

const DATA: u8 = 4;
/// Ids of three bytes, of a session that has asked for some time.
const IDS: u32 = 1 << 13;

/// A request and its answer, as they are but for the id.
struct Script {
    request: Vec<u8>,
    id_at: usize,
    answer: Vec<u8>,
}

impl Script {
    fn new(target: &Target, route: &str, body_bytes: usize) -> Self {
        let body = format!("{{\"msg\":\"{}\"}}", "x".repeat(body_bytes.saturating_sub(10)));
        let package = |flag: u8, rest: &[u8]| {
            let [_, a, b, c] = (4 + rest.len() as u32).to_be_bytes();
            [&[DATA, a, b, c, flag, 0, 0, 0], rest].concat()
        };
        let routed = [&[route.len() as u8], route.as_bytes(), body.as_bytes()].concat();
        let package_bytes = package(0, &routed).len();
        let request = target.framed(&package(0, &routed));
        Self {
            id_at: request.len() - package_bytes + 5,
            request,
            answer: package(4, body.as_bytes()),
        }
    }

    fn id(number: u32) -> [u8; 3] {
        [number as u8 | 0x80, (number >> 7) as u8 | 0x80, 1]
    }

    fn request(&self, number: u32, out: &mut Vec<u8>) {
        let at = out.len() + self.id_at;
        out.extend_from_slice(&self.request);
        out[at..at + 3].copy_from_slice(&Self::id(number));
    }

    fn is_answer(&self, number: u32, package: &[u8]) -> bool {
        package.len() == self.answer.len()
            && package[..5] == self.answer[..5]
            && package[5..8] == Self::id(number)
            && package[8..] == self.answer[8..]
    }
}

impl Run {
    fn new(target: Target) -> Self {
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        let histogram = histogram.expect("the bounds are in order");
        Self {
            target,
            up: Cell::new(0),
            messages: Cell::new(0),
            latency: RefCell::new(histogram),
            fault: RefCell::new(None),
        }
    }

    fn one(&self, time: Duration) {
        self.messages.set(self.messages.get() + 1);
        self.latency.borrow_mut().saturating_record(time.as_nanos() as u64);
    }

    fn check(&self) -> io::Result<()> {
        self.fault.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Waits for all connections, then for the time that counts; the tasks run meanwhile.
    async fn watch(
        &self,
        connections: u32,
        shape: Shape,
        tell: &mut dyn FnMut(Phase, u64),
    ) -> io::Result<Outcome> {
        let start = Instant::now();
        while self.up.get() < connections {
            sleep(Duration::from_millis(1)).await;
            self.check()?;
            if start.elapsed() > CONNECTING_MAX {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        sleep(shape.warmup).await;
        self.messages.set(0);
        self.latency.borrow_mut().reset();
        tell(Phase::Measure, 0);
        let start = Instant::now();
        sleep(shape.measure).await;
        let (messages, elapsed) = (self.messages.get(), start.elapsed());
        tell(Phase::Done, messages);
        self.check()?;
        Ok(Outcome { messages, elapsed, latency: self.latency.borrow().clone() })
    }
}

/// Runs as many tasks, which end by a fault only.
fn run<F>(
    target: Target,
    connections: u32,
    shape: Shape,
    tell: &mut dyn FnMut(Phase, u64),
    task: impl Fn(Rc<Run>) -> F,
) -> io::Result<Outcome>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = Rc::new(Run::new(target));
    let tasks = tokio::task::LocalSet::new();
    for _ in 0..connections {
        let (task, run) = (task(Rc::clone(&run)), Rc::clone(&run));
        tasks.spawn_local(async move {
            if let Err(error) = task.await {
                run.fault.borrow_mut().get_or_insert(error);
            }
        });
    }
    tasks.block_on(&runtime, run.watch(connections, shape, tell))
}

/// Echoes over connections that stay.
pub(crate) fn echo(
    target: Target,
    route: &str,
    point: Point,
    shape: Shape,
    tell: &mut dyn FnMut(Phase, u64),
) -> io::Result<Outcome> {
    let script = Rc::new(Script::new(&target, route, shape.body_bytes));
    run(target, point.connections, shape, tell, |run| {
        let script = Rc::clone(&script);
        async move {
            let conversation = run.target.connect().await?;
            conversation.echo(&run, &script, point.pipeline).await
        }
    })
}

/// Connections made anew, so many at a time, each closed once its handshakes are done: those of
/// TCP, TLS and Pomelo. Each counts as a message, with the time that it took.
pub(crate) fn connect(
    target: Target,
    at_a_time: u32,
    shape: Shape,
    tell: &mut dyn FnMut(Phase, u64),
) -> io::Result<Outcome> {
    run(target, at_a_time, shape, tell, |run| async move {
        run.up.set(run.up.get() + 1);
        loop {
            let start = Instant::now();
            drop(run.target.connect().await?);
            run.one(start.elapsed());
        }
    })
}
