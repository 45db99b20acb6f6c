//! The thread that serves the sockets of all clients of the process.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use rustc_hash::FxHashMap;

use super::connection::{Connection, Next};

/// The token of the thread's own waker.
const WAKE: Token = Token(0);
const EVENTS_MAX: usize = 1024;
/// The buffer that all connections read into, one after the other.
const BUFFER_BYTES: usize = 64 * 1024;

/// The thread, as clients see it. It begins with the first client of the process, and ends behind
/// the last.
#[derive(Debug)]
pub(super) struct Reactor {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    /// The token of the next connection.
    next_token: AtomicUsize,
    thread: JoinHandle<()>,
}

/// A client's wish, for the thread to fulfil.
enum Command {
    Open(Token, Box<Connection>),
    /// The host's name has been looked up.
    Connect(Token, VecDeque<SocketAddr>),
    /// There is something to do for this connection.
    Turn(Token),
    /// The last client is gone.
    Stop,
}

impl Reactor {
    /// The thread of this process; begins it if there is none.
    pub(super) fn current() -> io::Result<Arc<Self>> {
        static CURRENT: Mutex<Weak<Reactor>> = Mutex::new(Weak::new());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reactor) = current.upgrade().filter(|reactor| !reactor.thread.is_finished()) {
            return Ok(reactor);
        }
        let reactor = Arc::new(Self::start()?);
        *current = Arc::downgrade(&reactor);
        Ok(reactor)
    }

    fn start() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (commands, received) = mpsc::channel();
        let run = {
            let waker = Arc::clone(&waker);
            move || Thread::new(poll, waker, received).run()
        };
        let thread = thread::Builder::new().name("shaddock-client".to_owned()).spawn(run)?;
        Ok(Self { commands, waker, next_token: AtomicUsize::new(WAKE.0 + 1), thread })
    }

    /// Hands a connection over. It gets addresses by [`Self::connect`].
    pub(super) fn open(&self, connection: Connection) -> Token {
        let token = Token(self.next_token.fetch_add(1, Ordering::Relaxed));
        self.tell(Command::Open(token, Box::new(connection)));
        token
    }

    pub(super) fn connect(&self, token: Token, addresses: VecDeque<SocketAddr>) {
        self.tell(Command::Connect(token, addresses));
    }

    pub(super) fn turn(&self, token: Token) {
        self.tell(Command::Turn(token));
    }

    fn tell(&self, command: Command) {
        // A thread that is gone has closed its connections, and those that are sent to it are
        // dropped here, and closed by that.
        if self.commands.send(command).is_ok() {
            // It fails only if the kernel has no memory, and then the thread comes by its time.
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.tell(Command::Stop);
    }
}

/// The thread's side.
struct Thread {
    poll: Poll,
    /// Kept until the thread ends: a waker that is dropped takes a wake-up with it that the kernel
    /// has not told yet, the one for [`Command::Stop`] above all.
    _waker: Arc<Waker>,
    commands: Receiver<Command>,
    connections: FxHashMap<Token, Box<Connection>>,
    /// The time of each connection that has one. It may be too early, never too late.
    times: BTreeSet<(Instant, Token)>,
    /// Connections that have more to read.
    again: Vec<Token>,
    buffer: Box<[u8]>,
    is_stopping: bool,
}

impl Thread {
    fn new(poll: Poll, waker: Arc<Waker>, commands: Receiver<Command>) -> Self {
        Self {
            poll,
            _waker: waker,
            commands,
            connections: FxHashMap::default(),
            times: BTreeSet::new(),
            again: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into(),
            is_stopping: false,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !(self.is_stopping && self.connections.is_empty()) {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Connections are closed as they are dropped.
                Err(_) => return,
            }
            let now = Instant::now();
            for token in std::mem::take(&mut self.again) {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.is_again = false;
                    self.turn(token, now);
                }
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                let is_over = event.is_error() || event.is_read_closed();
                let can_write = event.is_writable() || event.is_error();
                if let Some(connection) = self.connections.get_mut(&event.token()) {
                    connection.ready(event.is_readable() || is_over, can_write);
                    self.turn(event.token(), now);
                }
            }
            self.obey(now);
            while let Some(&(time, token)) = self.times.first()
                && time <= now
            {
                self.times.pop_first();
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.noted = None;
                    self.turn(token, now);
                }
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let &(time, _) = self.times.first()?;
        Some(time.saturating_duration_since(Instant::now()))
    }

    fn obey(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Open(token, connection) => {
                    self.connections.insert(token, connection);
                    self.turn(token, now);
                }
                Command::Connect(token, addresses) => {
                    if let Some(connection) = self.connections.get_mut(&token) {
                        connection.connect(addresses, self.poll.registry(), token);
                        self.turn(token, now);
                    }
                }
                Command::Turn(token) => self.turn(token, now),
                Command::Stop => self.is_stopping = true,
            }
        }
    }

    fn turn(&mut self, token: Token, now: Instant) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match connection.turn(now, &mut self.buffer, self.poll.registry(), token) {
            Next::Wait => {}
            Next::Again if connection.is_again => {}
            Next::Again => {
                connection.is_again = true;
                self.again.push(token);
            }
            Next::Drop => {
                if let Some(time) = connection.noted {
                    self.times.remove(&(time, token));
                }
                self.connections.remove(&token);
                return;
            }
        }
        // A time that has become later is found to be so when it comes.
        let time = connection.next_timeout();
        if let Some(time) = time.filter(|&time| connection.noted.is_none_or(|noted| time < noted)) {
            if let Some(noted) = connection.noted.replace(time) {
                self.times.remove(&(noted, token));
            }
            self.times.insert((time, token));
        }
    }
}
