//! One connection: a request, its answer, and the end.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::bounds::{REQUEST_TIME_MAX, SILENCE_MAX, STREAM_BYTES_MAX, STREAM_SILENCE_MAX};
use super::guard::From;
use super::http::{Method, Parsed, Request, Response};
use super::walk::Walk;

/// Bytes read at once.
const READ_BYTES: usize = 4 * 1024;
/// Reads of one connection before the others are looked at.
const READS_MAX: usize = 8;
/// The time in which a client takes note of the end.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a client that are read, and not looked at, behind its answer: to close a socket with
/// something unread would take the answer from it.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// A client of the admin server.
pub(super) struct Connection {
    socket: Socket,
    pub(super) from: From,
    state: State,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The part of the output that is sent.
    sent: usize,
    began: Instant,
    deadline: Instant,
    method: Method,
    /// The time at which the server was done with it but for its reader.
    answered: Instant,
    /// True if the answer counts among those that are large.
    is_large: bool,
    /// Its place among those that have asked for a look at sessions.
    pub(super) ticket: u64,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

enum State {
    Reading,
    /// Shards are asked for sessions.
    Walking(Box<Walk>),
    Writing,
    /// Events come for as long as the client takes them.
    Streaming,
    /// All is sent; the client has yet to close.
    Lingering {
        read: usize,
    },
    Done,
}

/// The progress of a connection.
pub(super) enum Step {
    /// Nothing to be done.
    Idle,
    /// A request is there.
    Asked(Request),
    /// That is no request; the answer says why.
    Bad(Response),
}

impl Connection {
    pub(super) fn unix(socket: UnixStream, now: Instant) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::new(Socket::Unix(socket), From::Unix, now))
    }

    pub(super) fn tcp(socket: TcpStream, now: Instant) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let from = From::Tcp(socket.local_addr()?);
        Ok(Self::new(Socket::Tcp(socket), from, now))
    }

    fn new(socket: Socket, from: From, now: Instant) -> Self {
        Self {
            socket,
            from,
            state: State::Reading,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            began: now,
            deadline: now + REQUEST_TIME_MAX,
            method: Method::Get,
            answered: now,
            is_large: false,
            ticket: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        }
    }

    /// The events that it waits for.
    pub(super) fn interest(&self) -> PollFlags {
        match self.state {
            State::Reading | State::Lingering { .. } => PollFlags::IN,
            State::Walking(_) | State::Done => PollFlags::empty(),
            State::Writing => PollFlags::OUT,
            State::Streaming if self.is_sending() => PollFlags::IN | PollFlags::OUT,
            State::Streaming => PollFlags::IN,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming)
    }

    /// True if its request is not there after a time in which all who mean it have sent it.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        matches!(self.state, State::Reading) && now >= self.began + SILENCE_MAX
    }

    /// Since when it waits for nothing but its reader, who has had time to read.
    pub(super) fn waits_for_reader(&self, now: Instant) -> Option<Instant> {
        let waits = matches!(self.state, State::Writing | State::Lingering { .. });
        Some(self.answered).filter(|since| waits && now >= *since + SILENCE_MAX)
    }

    /// Bytes of a large answer that its reader has not taken.
    pub(super) fn large_bytes(&self) -> usize {
        if self.is_large { self.output.len() } else { 0 }
    }

    pub(super) fn is_walking(&self) -> bool {
        matches!(self.state, State::Walking(_))
    }

    pub(super) fn walking(&self) -> Option<&Walk> {
        match &self.state {
            State::Walking(walk) => Some(walk),
            _ => None,
        }
    }

    pub(super) fn walk(&mut self) -> Option<&mut Walk> {
        match &mut self.state {
            State::Walking(walk) => Some(walk),
            _ => None,
        }
    }

    /// Ends it.
    pub(super) fn close(&mut self) {
        self.state = State::Done;
    }

    /// The socket is ready for something.
    pub(super) fn handle_ready(&mut self, flags: PollFlags, now: Instant) -> Step {
        if flags.intersects(PollFlags::ERR | PollFlags::NVAL) {
            self.close();
            return Step::Idle;
        }
        match self.state {
            State::Reading => return self.read(),
            State::Walking(_) if flags.contains(PollFlags::HUP) => self.close(),
            State::Writing => self.write(now),
            State::Streaming => {
                if flags.intersects(PollFlags::IN | PollFlags::HUP) {
                    self.skip();
                }
                if flags.contains(PollFlags::OUT) {
                    self.write(now);
                }
            }
            State::Lingering { .. } => self.skip(),
            State::Walking(_) | State::Done => {}
        }
        Step::Idle
    }

    fn read(&mut self) -> Step {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_MAX {
            match self.receive(&mut buffer) {
                Ok(0) => {
                    self.close();
                    return Step::Idle;
                }
                Ok(len) => {
                    self.input.extend_from_slice(&buffer[..len]);
                    match Request::parse(&self.input) {
                        Parsed::Partial => {}
                        Parsed::Complete(request) => {
                            self.method = request.method;
                            self.input = Vec::new();
                            return Step::Asked(request);
                        }
                        Parsed::Bad(response) => {
                            self.input = Vec::new();
                            return Step::Bad(response);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.close();
                    break;
                }
            }
        }
        Step::Idle
    }

    /// Reads what nobody is interested in, up to its end.
    fn skip(&mut self) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_MAX {
            match self.receive(&mut buffer) {
                Ok(0) => return self.close(),
                Ok(len) => {
                    let State::Lingering { read } = &mut self.state else { continue };
                    *read += len;
                    if *read > LINGER_BYTES_MAX {
                        return self.close();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(),
            }
        }
    }

    fn write(&mut self, now: Instant) {
        while self.is_sending() {
            let rest = &self.output[self.sent..];
            let written = match &mut self.socket {
                Socket::Unix(socket) => socket.write(rest),
                Socket::Tcp(socket) => socket.write(rest),
            };
            match written {
                Ok(0) => return self.close(),
                Ok(len) => {
                    self.sent += len;
                    if self.is_streaming() {
                        self.deadline = now + STREAM_SILENCE_MAX;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close(),
            }
        }
        self.output.clear();
        if self.is_large {
            self.output = Vec::new();
        }
        self.sent = 0;
        if matches!(self.state, State::Writing) {
            self.linger(now);
        }
    }

    fn linger(&mut self, now: Instant) {
        let shut = match &self.socket {
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
        };
        if shut.is_err() {
            return self.close();
        }
        self.state = State::Lingering { read: 0 };
        self.deadline = now + LINGER;
    }

    fn is_sending(&self) -> bool {
        self.sent < self.output.len()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Unix(socket) => socket.read(buffer),
            Socket::Tcp(socket) => socket.read(buffer),
        }
    }

    /// Answers its request.
    pub(super) fn answer(&mut self, response: &Response, now: Instant) {
        self.output = response.encode(self.method);
        self.is_large = response.is_large;
        self.answered = now;
        self.state = State::Writing;
        self.write(now);
    }

    /// Answers a request whose time is over.
    pub(super) fn answer_late(&mut self, response: &Response, now: Instant) {
        self.deadline = now + LINGER;
        self.answer(response, now);
    }

    /// Has its request wait for a look at sessions.
    pub(super) fn wait(&mut self, walk: Walk, ticket: u64) {
        self.state = State::Walking(Box::new(walk));
        self.ticket = ticket;
    }

    /// Begins to stream events.
    pub(super) fn stream(&mut self, head: &Response, now: Instant) {
        if self.method == Method::Head {
            return self.answer(head, now);
        }
        self.output = head.encode_stream();
        self.state = State::Streaming;
        self.deadline = now + STREAM_SILENCE_MAX;
        self.write(now);
    }

    /// Sends events; false if the client has too many before it.
    pub(super) fn push(&mut self, events: &[u8], now: Instant) -> bool {
        if self.output.len() - self.sent + events.len() > STREAM_BYTES_MAX {
            return false;
        }
        self.output.drain(..self.sent);
        self.sent = 0;
        self.output.extend_from_slice(events);
        self.write(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_events_gets_no_more_than_fit_and_has_its_time() {
        let (socket, mut reader) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let mut connection = Connection::unix(socket, start).unwrap();
        connection.stream(&Response::text(200, ""), start);
        let event = vec![b'x'; 4 * 1024];
        let pushed = (0..1_000).filter(|_| connection.push(&event, start)).count();
        assert!(pushed < 1_000 && connection.output.len() <= STREAM_BYTES_MAX, "{pushed}");
        assert!(!connection.push(&event, start + Duration::from_secs(1)));
        assert_eq!(connection.deadline(), start + STREAM_SILENCE_MAX, "it is closed then");
        // Once something is taken it goes on.
        let mut buffer = vec![0; 1024 * 1024];
        reader.set_nonblocking(true).unwrap();
        while reader.read(&mut buffer).is_ok() {
            connection.write(start + Duration::from_secs(2));
        }
        assert!(connection.push(&event, start + Duration::from_secs(2)));
        assert_eq!(connection.deadline(), start + Duration::from_secs(2) + STREAM_SILENCE_MAX);
    }
}
