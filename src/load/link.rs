//! What happens to the sockets of the load client.

#![allow(unsafe_code)] // Passes buffers to the ring; each block says what keeps them alive.

use std::collections::VecDeque;
use std::io;

use hdrhistogram::Histogram;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::Lost;
use super::client::{Client, Piece, Seen, State};
use super::driver::Driver;
use crate::shard::SocketIndex;
use crate::uring::{Completion, SendIndex, Token};

/// One connection with its socket.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) link: Link,
    is_receiving: bool,
    /// Cancellations under way.
    cancels: u8,
    pub(super) is_dirty: bool,
    /// What is being sent, and how many bytes of it have been.
    sending: Option<(Piece, usize)>,
    /// In an open loop: when the requests that wait for a slot were due.
    pub(super) overdue: VecDeque<u64>,
    began_ns: u64,
}

/// How far a connection's socket has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// There is none.
    Down,
    Opening,
    Connecting,
    Up,
    /// It is closed once nothing is under way on it.
    Leaving,
    Closing,
}

/// Answers to what was asked at one time. They mostly come together, and are counted so.
#[derive(Default)]
struct Run {
    at_ns: u64,
    answers: u64,
}

impl Run {
    /// Records the latency of its answers; how many there are.
    fn record(&self, now_ns: u64, latency: &mut Histogram<u64>) -> u64 {
        if self.answers > 0 {
            let took_ns = now_ns.saturating_sub(self.at_ns).max(1);
            latency.saturating_record_n(took_ns, self.answers);
        }
        self.answers
    }
}

impl Connection {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            link: Link::Down,
            is_receiving: false,
            cancels: 0,
            is_dirty: false,
            sending: None,
            overdue: VecDeque::new(),
            began_ns: 0,
        }
    }
}

impl Driver<'_> {
    /// Opens connections that are down, as many at a time as is allowed.
    pub(super) fn open_more(&mut self) {
        while self.opening < self.options.opening
            && let Some(place) = self.to_open.pop_front()
        {
            self.opening += 1;
            let began_ns = self.storm_ns.unwrap_or_else(|| self.now_ns());
            let connection = &mut self.connections[place as usize];
            debug_assert_eq!(connection.link, Link::Down);
            connection.link = Link::Opening;
            connection.began_ns = began_ns;
            let number = connection.client.number as usize;
            if let Err(error) = self.open(place) {
                // It may be tried again, but not before something else has happened.
                return self.lose(place, Lost::Open(error.raw_os_error().unwrap_or_default()));
            }
            self.connections[place as usize].link = Link::Connecting;
            let address = &self.addresses[number % self.addresses.len()];
            // SAFETY: the address is boxed and lives as long as `self`.
            unsafe { self.ring.connect(SocketIndex(place), address) };
        }
    }

    /// Makes the socket of a connection, which has the connection's place among the ring's.
    fn open(&self, place: u32) -> io::Result<()> {
        let domain = Domain::for_address(self.options.addresses[0]);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // A request goes out when it is due, not when the one before it has been acknowledged.
        socket.set_tcp_nodelay(true)?;
        self.ring.install(&socket, SocketIndex(place))
    }

    pub(super) fn handle(&mut self, completion: Completion, now_ns: u64) {
        match completion.token {
            Token::Connected(SocketIndex(place)) => match completion.result() {
                Ok(_) => {
                    let connection = &mut self.connections[place as usize];
                    connection.link = Link::Up;
                    connection.is_receiving = true;
                    connection.client.connected(&self.script);
                    self.ring.receive_multishot(SocketIndex(place));
                    self.mark_dirty(place);
                }
                Err(error) => self.lose(place, Lost::Connect(error.raw_os_error())),
            },
            Token::Receive(SocketIndex(place)) => self.handle_receive(completion, place, now_ns),
            Token::Send(SendIndex(place)) => self.handle_sent(completion, place),
            Token::Cancel(SocketIndex(place)) => {
                self.connections[place as usize].cancels -= 1;
                self.close_if_idle(place);
            }
            Token::Close(SocketIndex(place)) => self.gone(place),
            _ => {}
        }
    }

    fn handle_receive(&mut self, completion: Completion, place: u32, now_ns: u64) {
        let received = completion.result();
        if let Some(buffer) = completion.buffer() {
            let len = received.unwrap_or_default() as usize;
            let connection = &mut self.connections[place as usize];
            let mut seen = Seen::default();
            let (mut run, mut answers) = (Run::default(), 0);
            if connection.link == Link::Up {
                let input = self.buffers.filled(buffer, len);
                let latency = &mut self.latency;
                seen = connection.client.receive(&self.script, input, |at_ns, count| {
                    if at_ns != run.at_ns {
                        answers += run.record(now_ns, latency);
                        run = Run { at_ns, answers: 0 };
                    }
                    run.answers += u64::from(count);
                });
            }
            answers += run.record(now_ns, &mut self.latency);
            self.messages += answers * self.script.messages_per_answer();
            self.buffers.give_back(buffer);
            self.after_input(place, &seen, now_ns);
        }
        if completion.has_more() {
            return;
        }
        let connection = &mut self.connections[place as usize];
        match received {
            Ok(1..) | Err(Errno::NOBUFS) if connection.link == Link::Up => {
                if received.is_err() {
                    self.buffers.ran_dry();
                }
                self.ring.receive_multishot(SocketIndex(place));
            }
            Ok(_) | Err(_) => {
                connection.is_receiving = false;
                if connection.link == Link::Leaving {
                    return self.close_if_idle(place);
                }
                let why =
                    received.map_or_else(|e| Lost::Receive(e.raw_os_error()), |_| Lost::Ended);
                self.lose(place, why);
            }
        }
    }

    fn after_input(&mut self, place: u32, seen: &Seen, now_ns: u64) {
        self.wrong += seen.wrong;
        self.pushes += seen.pushes;
        let connection = &mut self.connections[place as usize];
        if connection.link != Link::Up {
            return;
        }
        if seen.is_ready {
            self.working += 1;
            self.opening -= 1;
            let took_ns = now_ns.saturating_sub(connection.began_ns);
            self.handshake.saturating_record(took_ns.max(1));
        }
        if let Some(reason) = seen.lost {
            return self.lose(place, reason);
        }
        let is_asking = self.is_loading && !self.options.mode.is_quiet();
        if is_asking && connection.client.state == State::Working {
            match self.options.rate {
                None => _ = connection.client.ask(&self.script, now_ns, u32::MAX),
                Some(_) => {
                    while let Some(due_ns) = connection.overdue.front()
                        && connection.client.ask(&self.script, *due_ns, 1) == 1
                    {
                        connection.overdue.pop_front();
                    }
                }
            }
        }
        self.mark_dirty(place);
    }

    pub(super) fn send(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        if connection.link != Link::Up || connection.sending.is_some() {
            return;
        }
        let Some(piece) = connection.client.take_queued() else { return };
        let (piece, _) = connection.sending.insert((piece, 0));
        // SAFETY: the script's tape never changes and lives longer than the ring; other bytes are
        // on the heap and stay there, unchanged, until the completion takes them out of `sending`.
        unsafe { self.ring.send(SocketIndex(place), SendIndex(place), piece.bytes(&self.script)) };
    }

    fn handle_sent(&mut self, completion: Completion, place: u32) {
        let connection = &mut self.connections[place as usize];
        let Some((piece, sent)) = &mut connection.sending else { return };
        let len = completion.result().unwrap_or_default();
        if len > 0 && connection.link == Link::Up {
            *sent += len as usize;
            if let Some(rest @ [_, ..]) = piece.bytes(&self.script).get(*sent..) {
                // SAFETY: as in `send`; the rest is part of the same piece.
                unsafe { self.ring.send(SocketIndex(place), SendIndex(place), rest) };
                return;
            }
        }
        connection.sending = None;
        match connection.link {
            Link::Up if len > 0 && connection.client.has_queued() => {
                self.mark_dirty(place);
            }
            Link::Leaving => self.close_if_idle(place),
            _ => {}
        }
    }

    /// The server, or the system, has ended a connection. Each is counted once.
    fn lose(&mut self, place: u32, reason: Lost) {
        let link = self.connections[place as usize].link;
        if matches!(link, Link::Opening | Link::Connecting | Link::Up) {
            self.lost.one(reason);
            self.leave(place);
        }
    }

    /// Ends a connection from this side.
    pub(super) fn leave(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        let state = std::mem::replace(&mut connection.client.state, State::Over);
        match (connection.link, state) {
            (Link::Up, State::Working) => self.working -= 1,
            (Link::Opening | Link::Connecting | Link::Up, _) => self.opening -= 1,
            (Link::Down, _) => return self.gone(place),
            (Link::Leaving | Link::Closing, _) => return,
        }
        if connection.link == Link::Opening {
            return self.gone(place);
        }
        connection.link = Link::Leaving;
        if connection.sending.is_some() {
            connection.cancels += 1;
            self.ring.cancel_send(SocketIndex(place), SendIndex(place));
        }
        if connection.is_receiving {
            connection.cancels += 1;
            self.ring.cancel_receive(SocketIndex(place));
        }
        self.close_if_idle(place);
    }

    /// A descriptor is used again only after its last completion, so it is closed after that too.
    fn close_if_idle(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        let is_busy =
            connection.is_receiving || connection.cancels > 0 || connection.sending.is_some();
        if connection.link == Link::Leaving && !is_busy {
            connection.link = Link::Closing;
            self.ring.close(SocketIndex(place));
        }
    }

    /// A connection has no socket any more. In a storm it comes again.
    fn gone(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        connection.link = Link::Down;
        connection.overdue.clear();
        connection.client = Client::new(&self.script, connection.client.number);
        match self.storm_ns {
            Some(_) => self.to_open.push_back(place),
            None => connection.client.state = State::Over,
        }
    }
}
