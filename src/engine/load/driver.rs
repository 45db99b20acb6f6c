//! The loop of the load client.

#![allow(unsafe_code)] // Passes buffers to the ring; each block says what keeps them alive.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::client::{Client, Script, Seen, State};
use super::{LoadOptions, LoadProgress, LoadReport, Mode, Phase, histogram};
use crate::engine::buffers::{Buffers, GROUP};
use crate::engine::ring::{Completion, RAW_ADDRESS_BYTES, RawAddress, Ring, Token};
use crate::shard::SocketIndex;
use crate::wire::message::ROUTE_BYTES_MAX;

/// Connections that are opened at once.
const OPENING_MAX: u32 = 128;
const SUBMISSIONS: u32 = 2048;
const COMPLETIONS: u32 = 16_384;
const RECEIVE_BUFFERS: u16 = 1024;
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;
/// How long connecting, and the answers outstanding at the end, may take without progress.
const PATIENCE: Duration = Duration::from_secs(20);
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// In an open loop a request due sooner than this is waited for without sleeping.
const SPIN_NS: u64 = 200_000;

/// Loads a server as described, and tells `progress` from time to time.
///
/// # Errors
/// No ring, no connection, or a server that stops answering.
pub fn run(
    options: &LoadOptions,
    mut progress: impl FnMut(LoadProgress),
) -> io::Result<LoadReport> {
    if options.connections == 0 || options.pipeline == 0 || options.body_bytes < 16 {
        let text = "connections and pipeline must be 1 at least, body_bytes 16";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if options.route.len() > ROUTE_BYTES_MAX {
        let text = "a route has at most 255 bytes";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut driver = Driver::new(options)?;
    let start = Instant::now();
    driver.connect_all(&mut progress)?;
    let connecting = start.elapsed();
    driver.begin();
    driver.load(Phase::Warmup, options.warmup, &mut progress)?;
    driver.reset();
    let (start, cpu) = (Instant::now(), thread_cpu());
    driver.load(Phase::Measure, options.measure, &mut progress)?;
    Ok(LoadReport {
        connections: driver.working,
        connecting,
        elapsed: start.elapsed(),
        messages: driver.messages,
        latency: driver.latency,
        wrong: driver.wrong,
        closed: driver.closed,
        pushes: driver.pushes,
        client_cpu: thread_cpu().saturating_sub(cpu),
    })
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

struct Connection {
    client: Client,
    socket: Option<SocketIndex>,
    /// The buffer in flight, and how much of it has been sent.
    sending: Option<(Vec<u8>, usize)>,
    is_dirty: bool,
    /// In an open loop: when the requests that wait for a slot were due.
    overdue: VecDeque<u64>,
}

struct Driver {
    ring: Ring,
    /// After the ring, so that it is dropped after it.
    buffers: Buffers,
    script: Script,
    options: LoadOptions,
    /// Boxed, as the kernel reads it.
    address: Box<RawAddress>,
    connections: Vec<Connection>,
    /// The connection of each socket.
    by_socket: Vec<u32>,
    batch: Vec<Completion>,
    dirty: Vec<u32>,
    spare: Vec<Vec<u8>>,
    start: Instant,
    next_heartbeat: Instant,
    next_due: f64,
    next_connection: usize,
    /// Whether all connections are up, so that answers are followed by new requests.
    is_loading: bool,

    opened: u32,
    working: u32,
    messages: u64,
    latency: Histogram<u64>,
    wrong: u64,
    closed: u64,
    pushes: u64,
}

impl Driver {
    fn new(options: &LoadOptions) -> io::Result<Self> {
        let ring = Ring::new(SUBMISSIONS, COMPLETIONS)?;
        ring.register_sockets(options.connections)?;
        let buffers = Buffers::new(&ring, RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;
        let script = Script::new(options);
        let connections = (0..options.connections)
            .map(|number| Connection {
                client: Client::new(&script, number),
                socket: None,
                sending: None,
                is_dirty: false,
                overdue: VecDeque::new(),
            })
            .collect();
        let now = Instant::now();
        Ok(Self {
            ring,
            buffers,
            script,
            options: options.clone(),
            address: Box::new(raw_address(options.address)),
            connections,
            by_socket: vec![0; options.connections as usize],
            batch: Vec::with_capacity(COMPLETIONS as usize),
            dirty: Vec::new(),
            spare: Vec::new(),
            start: now,
            next_heartbeat: now + options.heartbeat,
            next_due: 0.0,
            next_connection: 0,
            is_loading: false,
            opened: 0,
            working: 0,
            messages: 0,
            latency: histogram(),
            wrong: 0,
            closed: 0,
            pushes: 0,
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn connect_all(&mut self, progress: &mut impl FnMut(LoadProgress)) -> io::Result<()> {
        let total = self.options.connections;
        let mut told = Instant::now();
        let mut last = (0, Instant::now());
        while self.working < total {
            while self.opened < total
                && u64::from(self.opened - self.working) < u64::from(OPENING_MAX) + self.closed
            {
                let domain =
                    i32::from(u16::from_ne_bytes([self.address.bytes[0], self.address.bytes[1]]));
                self.ring.open(domain, self.opened);
                self.opened += 1;
            }
            self.turn(Duration::from_millis(100))?;
            if self.closed > 0 {
                let text = "the server closes or refuses connections";
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, text));
            }
            if self.working > last.0 {
                last = (self.working, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                let text = format!("only {} of {total} connections came up", self.working);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                let share = f64::from(self.working) / f64::from(total);
                progress(self.progress(Phase::Connect, share));
            }
        }
        Ok(())
    }

    fn progress(&self, phase: Phase, share: f64) -> LoadProgress {
        LoadProgress { phase, share, messages: self.messages, connections: self.working }
    }

    /// Fills every slot, or starts the clock of an open loop.
    fn begin(&mut self) {
        self.is_loading = true;
        self.next_due = self.now_ns() as f64;
        if self.options.mode == Mode::Idle || self.options.rate.is_some() {
            return;
        }
        let now_ns = self.now_ns();
        for place in 0..self.connections.len() as u32 {
            let client = &mut self.connections[place as usize].client;
            while client.ask(&self.script, now_ns) {}
            self.mark_dirty(place);
        }
    }

    fn reset(&mut self) {
        self.messages = 0;
        self.wrong = 0;
        self.pushes = 0;
        self.latency.reset();
    }

    fn load(
        &mut self,
        phase: Phase,
        length: Duration,
        progress: &mut impl FnMut(LoadProgress),
    ) -> io::Result<()> {
        let start = Instant::now();
        progress(self.progress(phase, 0.0));
        let mut told = start;
        let mut last = (self.messages, start);
        loop {
            let passed = start.elapsed();
            if passed >= length {
                return Ok(());
            }
            let patience = self.ask_due().min(length.saturating_sub(passed));
            self.turn(patience)?;
            if self.messages > last.0 || self.options.mode == Mode::Idle {
                last = (self.messages, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                let text = "the server has stopped answering";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                let share = passed.as_secs_f64() / length.as_secs_f64();
                progress(self.progress(phase, share.min(1.0)));
            }
        }
    }

    /// Sends what is due in an open loop; how long to wait for the next.
    fn ask_due(&mut self) -> Duration {
        let Some(rate) = self.options.rate else { return Duration::from_millis(50) };
        let interval_ns = 1e9 / rate;
        let now_ns = self.now_ns();
        while self.next_due <= now_ns as f64 {
            let due_ns = self.next_due as u64;
            self.next_due += interval_ns;
            let place = self.next_connection;
            self.next_connection = (place + 1) % self.connections.len();
            let connection = &mut self.connections[place];
            if !connection.client.ask(&self.script, due_ns) {
                connection.overdue.push_back(due_ns);
            }
            self.mark_dirty(place as u32);
        }
        match (self.next_due as u64).saturating_sub(now_ns) {
            0..SPIN_NS => Duration::ZERO,
            wait_ns => Duration::from_nanos(wait_ns - SPIN_NS / 2),
        }
    }

    fn mark_dirty(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(place);
        }
    }

    fn turn(&mut self, patience: Duration) -> io::Result<()> {
        if Instant::now() >= self.next_heartbeat {
            self.next_heartbeat += self.options.heartbeat;
            for place in 0..self.connections.len() as u32 {
                let client = &mut self.connections[place as usize].client;
                if client.state == State::Working {
                    client.heartbeat(&self.script);
                    self.mark_dirty(place);
                }
            }
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            self.connections[place as usize].is_dirty = false;
            self.send(place);
        }
        self.dirty = dirty;
        self.buffers.publish();
        if patience.is_zero() {
            self.ring.submit()?;
        } else {
            self.ring.submit_and_wait(patience)?;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.ring.reap(&mut batch);
        let now_ns = self.now_ns();
        for completion in batch.drain(..) {
            self.handle(completion, now_ns);
        }
        self.batch = batch;
        Ok(())
    }

    fn handle(&mut self, completion: Completion, now_ns: u64) {
        match completion.token {
            Token::Opened(place) if completion.result >= 0 => {
                let socket = SocketIndex(completion.result as u32);
                self.connections[place as usize].socket = Some(socket);
                self.by_socket[socket.0 as usize] = place;
                // SAFETY: the address is boxed and lives as long as `self`.
                unsafe { self.ring.connect(socket, place, &raw const *self.address) };
            }
            Token::Connected(place) if completion.result >= 0 => {
                let connection = &mut self.connections[place as usize];
                let Some(socket) = connection.socket else { return };
                connection.client.connected(&self.script);
                self.ring.receive_multishot(socket, GROUP);
                self.mark_dirty(place);
            }
            Token::Opened(_) | Token::Connected(_) => self.closed += 1,
            Token::Receive(socket) => self.handle_receive(completion, socket, now_ns),
            Token::Send(place) => self.handle_sent(completion, place),
            _ => {}
        }
    }

    fn handle_receive(&mut self, completion: Completion, socket: SocketIndex, now_ns: u64) {
        const NO_BUFFERS: i32 = -105;
        let place = self.by_socket[socket.0 as usize];
        if let Some(buffer) = completion.buffer() {
            let len = usize::try_from(completion.result).unwrap_or_default();
            let connection = &mut self.connections[place as usize];
            let (latency, answers) = (&mut self.latency, &mut self.messages);
            let each = self.script.messages_per_answer();
            let input = self.buffers.filled(buffer, len);
            let seen = connection.client.receive(&self.script, input, |at_ns| {
                latency.saturating_record(now_ns.saturating_sub(at_ns).max(1));
                *answers += each;
            });
            self.buffers.give_back(buffer);
            self.after_input(place, &seen, now_ns);
        }
        if !completion.has_more() {
            match completion.result {
                1.. | NO_BUFFERS => {
                    self.buffers.publish();
                    self.ring.receive_multishot(socket, GROUP);
                }
                _ => self.closed += 1,
            }
        }
    }

    fn after_input(&mut self, place: u32, seen: &Seen, now_ns: u64) {
        self.wrong += seen.wrong;
        self.pushes += seen.pushes;
        self.working += u32::from(seen.is_ready);
        self.closed += u64::from(seen.is_over);
        let connection = &mut self.connections[place as usize];
        if self.is_loading && connection.client.state == State::Working {
            match (self.options.mode, self.options.rate) {
                (Mode::Idle, _) => {}
                (_, None) => while connection.client.ask(&self.script, now_ns) {},
                (_, Some(_)) => {
                    while let Some(due_ns) = connection.overdue.front()
                        && connection.client.ask(&self.script, *due_ns)
                    {
                        connection.overdue.pop_front();
                    }
                }
            }
        }
        self.mark_dirty(place);
    }

    fn send(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        let Some(socket) = connection.socket else { return };
        if connection.client.out.is_empty() || connection.sending.is_some() {
            return;
        }
        let spare = self.spare.pop().unwrap_or_default();
        let bytes = std::mem::replace(&mut connection.client.out, spare);
        let (bytes, _) = connection.sending.insert((bytes, 0));
        // SAFETY: the bytes are on the heap and stay there, unchanged, until the completion takes
        // them out of `sending`.
        unsafe { self.ring.send(socket, place, bytes) };
    }

    fn handle_sent(&mut self, completion: Completion, place: u32) {
        let connection = &mut self.connections[place as usize];
        let (Some((bytes, sent)), Some(socket)) = (&mut connection.sending, connection.socket)
        else {
            return;
        };
        if completion.result > 0 {
            *sent += completion.result as usize;
            if *sent < bytes.len() {
                // SAFETY: as in `send`; the rest is part of the same buffer.
                unsafe { self.ring.send(socket, place, &bytes[*sent..]) };
                return;
            }
        }
        if let Some((mut bytes, _)) = connection.sending.take() {
            bytes.clear();
            self.spare.push(bytes);
        }
        if completion.result > 0 && !connection.client.out.is_empty() {
            self.mark_dirty(place);
        }
    }
}

/// Writes `sockaddr_in` or `sockaddr_in6`.
fn raw_address(address: SocketAddr) -> RawAddress {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let mut raw = RawAddress { bytes: [0; RAW_ADDRESS_BYTES], len: 16 };
    raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            raw.bytes[..2].copy_from_slice(&AF_INET.to_ne_bytes());
            raw.bytes[4..8].copy_from_slice(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            raw.bytes[..2].copy_from_slice(&AF_INET6.to_ne_bytes());
            raw.bytes[8..24].copy_from_slice(&address.ip().octets());
            raw.bytes[24..].copy_from_slice(&address.scope_id().to_ne_bytes());
            raw.len = RAW_ADDRESS_BYTES as u32;
        }
    }
    raw
}
