//! The connections of one ring of the load client, and what is measured on them.

#![allow(unsafe_code)] // Passes buffers to the ring; each block says what keeps them alive.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::client::{Client, Piece, Seen, State};
use super::disconnects::{DisconnectCounts, DisconnectReason};
use super::script::Script;
use super::{LoadOptions, histogram};
use crate::io::{Completion, Io, ReceiveBuffers as _, RingSize, SendIndex, Token};
use crate::shard::SocketIndex;

pub(super) const RING: RingSize = RingSize { submissions: 2048, completions: 16_384 };
const RECEIVE_BUFFERS: u16 = 1024;
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;

/// One ring, and the connections on it. Each has the socket of its own index.
pub(super) struct Sockets<I: Io> {
    io: I,
    /// After the ring, so that it is dropped after it.
    buffers: I::Buffers,
    /// So is this, as the ring sends from it.
    script: Script,
    /// So are these; boxed, as the kernel reads them.
    addresses: Box<[SockAddr]>,
    connections: Vec<Connection>,
    batch: Vec<Completion>,
    start: Instant,
    /// Connections with something to send.
    dirty: Vec<SocketIndex>,
    /// The reaction to answers.
    pub(super) follow_up: FollowUp,
    /// Connections that are to be opened.
    to_open: VecDeque<SocketIndex>,
    /// Those that are being opened, and how many may be at a time.
    opening: u32,
    opening_max: u32,
    /// The time when all connections were dropped, while they are opened again.
    storm_ns: Option<u64>,
    working: u32,
    pub(super) figures: Figures,
}

/// The figures of all connections.
pub(super) struct Figures {
    pub(super) messages: u64,
    pub(super) latency: Histogram<u64>,
    pub(super) handshake: Histogram<u64>,
    pub(super) wrong: u64,
    pub(super) disconnects: DisconnectCounts,
    pub(super) pushes: u64,
}

/// The reaction of a connection to answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FollowUp {
    Nothing,
    /// It fills its slots with new requests, as a closed loop does.
    NewRequests,
    /// It sends the requests that were due and had no slot, as an open loop does.
    OverdueRequests,
}

/// One connection with its socket.
struct Connection {
    client: Client,
    socket: SocketState,
    is_receiving: bool,
    /// Cancellations under way.
    cancels: u8,
    is_dirty: bool,
    /// The piece that is being sent, and how many bytes of it have been.
    sending: Option<(Piece, usize)>,
    /// In an open loop: when the requests that wait for a slot were due.
    overdue: VecDeque<u64>,
    began_ns: u64,
}

/// The states of a connection's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketState {
    /// There is none.
    Down,
    Opening,
    Connecting,
    Up,
    /// It is closed once nothing is under way on it.
    Draining,
    Closing,
}

/// Answers to what was asked at one time. They mostly come together, and are counted so.
#[derive(Default)]
struct AnswerRun {
    at_ns: u64,
    answers: u64,
}

impl AnswerRun {
    /// Records the latency of its answers, and counts them.
    fn record(&self, now_ns: u64, latency: &mut Histogram<u64>) -> u64 {
        if self.answers > 0 {
            let took_ns = now_ns.saturating_sub(self.at_ns).max(1);
            latency.saturating_record_n(took_ns, self.answers);
        }
        self.answers
    }
}

impl Figures {
    fn new() -> Self {
        Self {
            messages: 0,
            latency: histogram(),
            handshake: histogram(),
            wrong: 0,
            disconnects: DisconnectCounts::default(),
            pushes: 0,
        }
    }

    /// Begins anew what is counted while messages are measured.
    pub(super) fn reset(&mut self) {
        (self.messages, self.wrong, self.pushes) = (0, 0, 0);
        self.latency.reset();
    }
}

impl Connection {
    fn new(client: Client) -> Self {
        Self {
            client,
            socket: SocketState::Down,
            is_receiving: false,
            cancels: 0,
            is_dirty: false,
            sending: None,
            overdue: VecDeque::new(),
            began_ns: 0,
        }
    }

    fn is_working(&self) -> bool {
        self.socket == SocketState::Up && self.client.state == State::Working
    }
}

impl<I: Io> Sockets<I> {
    /// A ring with room for all connections, the first of which has that number in the whole run.
    pub(super) fn new(options: &LoadOptions, first: u32) -> io::Result<Self> {
        let mut io = I::open(RING)?;
        io.register_sockets(options.connections)?;
        let buffers = io.make_buffers(RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;
        let script = Script::new(options);
        let clients = (first..first + options.connections).map(|n| Client::new(&script, n));
        Ok(Self {
            connections: clients.map(Connection::new).collect(),
            io,
            buffers,
            script,
            addresses: options.addresses.iter().map(|address| SockAddr::from(*address)).collect(),
            batch: Vec::with_capacity(RING.completions as usize),
            start: Instant::now(),
            dirty: Vec::new(),
            follow_up: FollowUp::Nothing,
            to_open: (0..options.connections).map(SocketIndex).collect(),
            opening: 0,
            opening_max: options.opening,
            storm_ns: None,
            working: 0,
            figures: Figures::new(),
        })
    }

    /// The number of connections that work.
    pub(super) fn working(&self) -> u32 {
        self.working
    }

    /// Nanoseconds since it was made.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Drops all connections, to be opened again.
    pub(super) fn begin_storm(&mut self) {
        self.storm_ns = Some(self.now_ns());
        self.figures.handshake.reset();
        (0..self.connections.len() as u32).for_each(|index| self.disconnect(SocketIndex(index)));
    }

    pub(super) fn end_storm(&mut self) {
        self.storm_ns = None;
    }

    /// Sends as many requests on each connection as it has slots.
    pub(super) fn ask_all(&mut self) {
        let now_ns = self.now_ns();
        for index in 0..self.connections.len() as u32 {
            self.connections[index as usize].client.ask(&self.script, now_ns, u32::MAX);
            self.mark_dirty(SocketIndex(index));
        }
    }

    /// Sends a request that is due on a connection, now or once it has a slot. On a connection that
    /// is lost, which is counted, there is none.
    pub(super) fn ask_due(&mut self, socket: SocketIndex, due_ns: u64) {
        let connection = &mut self.connections[socket.0 as usize];
        if connection.client.state != State::Working {
            return;
        }
        if connection.client.ask(&self.script, due_ns, 1) == 0 {
            connection.overdue.push_back(due_ns);
        }
        self.mark_dirty(socket);
    }

    /// Sends a heartbeat on a connection that works.
    pub(super) fn heartbeat(&mut self, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        if connection.is_working() {
            connection.client.heartbeat(&self.script);
            self.mark_dirty(socket);
        }
    }

    fn mark_dirty(&mut self, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(socket);
        }
    }

    /// Opens connections that are down, as many at a time as is allowed.
    pub(super) fn open_more(&mut self) {
        while self.opening < self.opening_max
            && let Some(socket) = self.to_open.pop_front()
        {
            self.opening += 1;
            let began_ns = self.storm_ns.unwrap_or_else(|| self.now_ns());
            let connection = &mut self.connections[socket.0 as usize];
            debug_assert_eq!(connection.socket, SocketState::Down);
            connection.socket = SocketState::Opening;
            connection.began_ns = began_ns;
            let number = connection.client.number as usize;
            let address = &self.addresses[number % self.addresses.len()];
            if let Err(error) = open(&mut self.io, socket, address.domain()) {
                // It may be tried again, but not before something else has happened.
                let number = error.raw_os_error().unwrap_or_default();
                return self.lose(socket, DisconnectReason::Open(number));
            }
            connection.socket = SocketState::Connecting;
            // SAFETY: the address is boxed and lives longer than the ring.
            unsafe { self.io.connect(socket, address) };
        }
    }

    /// Sends what waits, and lets the kernel work; waits for a completion unless
    /// `timeout` is zero.
    pub(super) fn submit(&mut self, timeout: Duration) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for socket in dirty.drain(..) {
            self.connections[socket.0 as usize].is_dirty = false;
            self.send(socket);
        }
        self.dirty = dirty;
        self.handle_done();
        self.buffers.publish();
        match timeout.is_zero() {
            true => self.io.submit(),
            false => self.io.submit_and_wait(timeout),
        }
    }

    /// Handles what was done at once, mostly sends.
    fn handle_done(&mut self) {
        let count = self.io.done_len();
        if count == 0 {
            return;
        }
        let now_ns = self.now_ns();
        for _ in 0..count {
            let Some(completion) = self.io.next_done() else { return };
            self.handle(completion, now_ns);
        }
    }

    /// Handles what has happened.
    pub(super) fn handle_completions(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.io.reap(&mut batch, &mut self.buffers);
        let now_ns = self.now_ns();
        for completion in batch.drain(..) {
            self.handle(completion, now_ns);
        }
        self.batch = batch;
    }

    fn handle(&mut self, completion: Completion, now_ns: u64) {
        match completion.token {
            Token::Connected(socket) => match completion.result() {
                Ok(_) => self.handle_connected(socket),
                Err(error) => self.lose(socket, DisconnectReason::Connect(error.raw_os_error())),
            },
            Token::Receive(socket) => self.handle_receive(completion, socket, now_ns),
            // A connection sends one piece at a time, so its own index names the send.
            Token::Send(SendIndex(index)) => self.handle_sent(completion, SocketIndex(index)),
            Token::Cancel(socket) => {
                self.connections[socket.0 as usize].cancels -= 1;
                self.close_if_idle(socket);
            }
            Token::Close(socket) => self.handle_closed(socket),
            _ => {}
        }
    }

    fn handle_connected(&mut self, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        connection.socket = SocketState::Up;
        connection.is_receiving = true;
        connection.client.connected(&self.script);
        self.io.receive_multishot(socket);
        self.mark_dirty(socket);
    }

    fn handle_receive(&mut self, completion: Completion, socket: SocketIndex, now_ns: u64) {
        let received = completion.result();
        if let Some(buffer) = completion.buffer() {
            let len = received.unwrap_or_default() as usize;
            let connection = &mut self.connections[socket.0 as usize];
            let mut seen = Seen::default();
            let (mut run, mut answers) = (AnswerRun::default(), 0);
            if connection.socket == SocketState::Up {
                let input = self.buffers.filled(buffer, len);
                let latency = &mut self.figures.latency;
                seen = connection.client.receive(&self.script, input, |at_ns, count| {
                    if at_ns != run.at_ns {
                        answers += run.record(now_ns, latency);
                        run = AnswerRun { at_ns, answers: 0 };
                    }
                    run.answers += u64::from(count);
                });
            }
            answers += run.record(now_ns, &mut self.figures.latency);
            self.figures.messages += answers * self.script.messages_per_answer();
            self.buffers.give_back(buffer);
            self.after_input(socket, &seen, now_ns);
        }
        if completion.has_more() {
            return;
        }
        let connection = &mut self.connections[socket.0 as usize];
        match received {
            Ok(1..) | Err(Errno::NOBUFS) if connection.socket == SocketState::Up => {
                if received.is_err() {
                    self.buffers.ran_dry();
                }
                self.io.receive_multishot(socket);
            }
            Ok(_) | Err(_) => {
                connection.is_receiving = false;
                if connection.socket == SocketState::Draining {
                    return self.close_if_idle(socket);
                }
                self.lose(
                    socket,
                    match received {
                        Ok(_) => DisconnectReason::Ended,
                        Err(error) => DisconnectReason::Receive(error.raw_os_error()),
                    },
                );
            }
        }
    }

    fn after_input(&mut self, socket: SocketIndex, seen: &Seen, now_ns: u64) {
        self.figures.wrong += seen.wrong;
        self.figures.pushes += seen.pushes;
        let connection = &mut self.connections[socket.0 as usize];
        if connection.socket != SocketState::Up {
            return;
        }
        if seen.is_ready {
            self.working += 1;
            self.opening -= 1;
            let took_ns = now_ns.saturating_sub(connection.began_ns);
            self.figures.handshake.saturating_record(took_ns.max(1));
        }
        if let Some(reason) = seen.disconnect {
            return self.lose(socket, reason);
        }
        match self.follow_up {
            _ if connection.client.state != State::Working => {}
            FollowUp::Nothing => {}
            FollowUp::NewRequests => _ = connection.client.ask(&self.script, now_ns, u32::MAX),
            FollowUp::OverdueRequests => {
                while let Some(due_ns) = connection.overdue.front()
                    && connection.client.ask(&self.script, *due_ns, 1) == 1
                {
                    connection.overdue.pop_front();
                }
            }
        }
        self.mark_dirty(socket);
    }

    fn send(&mut self, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        if connection.socket != SocketState::Up || connection.sending.is_some() {
            return;
        }
        let Some(piece) = connection.client.take_queued() else { return };
        let (piece, _) = connection.sending.insert((piece, 0));
        // SAFETY: the script's tape never changes and lives longer than the ring; other bytes are
        // on the heap and stay there, unchanged, until the completion takes them out of `sending`.
        unsafe { self.io.send(socket, SendIndex(socket.0), piece.bytes(&self.script)) };
    }

    fn handle_sent(&mut self, completion: Completion, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        let Some((piece, sent)) = &mut connection.sending else { return };
        let len = completion.result().unwrap_or_default();
        if len > 0 && connection.socket == SocketState::Up {
            *sent += len as usize;
            if let Some(rest @ [_, ..]) = piece.bytes(&self.script).get(*sent..) {
                // SAFETY: as in `send`; the rest is part of the same piece.
                unsafe { self.io.send(socket, SendIndex(socket.0), rest) };
                return;
            }
        }
        connection.sending = None;
        match connection.socket {
            SocketState::Up if len > 0 && connection.client.has_queued() => {
                self.mark_dirty(socket);
            }
            SocketState::Draining => self.close_if_idle(socket),
            _ => {}
        }
    }

    /// The server, or the system, has ended a connection. Each is counted once.
    fn lose(&mut self, socket: SocketIndex, reason: DisconnectReason) {
        let state = self.connections[socket.0 as usize].socket;
        if matches!(state, SocketState::Opening | SocketState::Connecting | SocketState::Up) {
            self.figures.disconnects.one(reason);
            self.disconnect(socket);
        }
    }

    /// Ends a connection from this side.
    fn disconnect(&mut self, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        let client = std::mem::replace(&mut connection.client.state, State::Over);
        match (connection.socket, client) {
            (SocketState::Up, State::Working) => self.working -= 1,
            (SocketState::Opening | SocketState::Connecting | SocketState::Up, _) => {
                self.opening -= 1;
            }
            (SocketState::Down, _) => return self.handle_closed(socket),
            (SocketState::Draining | SocketState::Closing, _) => return,
        }
        if connection.socket == SocketState::Opening {
            return self.handle_closed(socket);
        }
        connection.socket = SocketState::Draining;
        if connection.sending.is_some() {
            connection.cancels += 1;
            self.io.cancel_send(socket, SendIndex(socket.0));
        }
        if connection.is_receiving {
            connection.cancels += 1;
            self.io.cancel_receive(socket);
        }
        self.close_if_idle(socket);
    }

    /// A descriptor is used again only after its last completion, so it is closed after that too.
    fn close_if_idle(&mut self, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        let is_busy =
            connection.is_receiving || connection.cancels > 0 || connection.sending.is_some();
        if connection.socket == SocketState::Draining && !is_busy {
            connection.socket = SocketState::Closing;
            self.io.close(socket);
        }
    }

    /// A connection has no socket any more. In a storm it is opened again.
    fn handle_closed(&mut self, socket: SocketIndex) {
        let connection = &mut self.connections[socket.0 as usize];
        connection.socket = SocketState::Down;
        connection.overdue.clear();
        connection.client = Client::new(&self.script, connection.client.number);
        match self.storm_ns {
            Some(_) => self.to_open.push_back(socket),
            None => connection.client.state = State::Over,
        }
    }
}

/// Makes the socket of a connection, at its own index in the table.
fn open(io: &mut impl Io, index: SocketIndex, domain: Domain) -> io::Result<()> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A request goes out when it is due, not when the one before it has been acknowledged.
    socket.set_tcp_nodelay(true)?;
    io.install(socket.into(), index)
}
