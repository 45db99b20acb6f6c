//! I/O by readiness: what does not wait is done at once, the rest when the kernel says that it will
//! not wait any more.

#![allow(unsafe_code)] // Bytes that the requester keeps in place are sent from.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
#[cfg(feature = "load")]
use std::os::fd::OwnedFd;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::Shutdown;
#[cfg(feature = "load")]
use socket2::SockAddr;

use super::address::PeerAddress;
use super::completion::{AcceptIndex, Completion, SendIndex, Token};
use super::epoll::{Epoll, Interest, ListenerSlot, Source};
use super::poll_buffers::PollBuffers;
use super::poll_listeners::{Cancelled, PollListeners};
use super::poll_sockets::PollSockets;
use super::size::RingSize;
use super::traits::Io;
use crate::forward::Party;
use crate::shard::SocketIndex;

/// One thread's I/O, where there is no io_uring.
///
/// Sends are tried at once. Receives and accepts are performed in [`reap`](Io::reap), one buffer of
/// each socket in a turn, so that a client that sends without end is served as often as others.
pub(crate) struct Poller {
    epoll: Epoll,
    sockets: PollSockets,
    listeners: PollListeners,
    /// Those whose requests may go on, each once.
    ready: VecDeque<Source>,
    /// Completions that have yet to be taken. INVARIANT: one for each request at most.
    done: VecDeque<Completion>,
    /// The kernel was asked since completions were taken last.
    is_fresh: bool,
}

/// Completions that a socket may give in one turn: a connect, a send and a receive.
const COMPLETIONS_PER_SOCKET: usize = 3;

impl Poller {
    /// Notes that a socket or a listening socket may be ready.
    fn queue_socket(&mut self, place: SocketIndex) {
        let socket = self.sockets.place(place);
        if socket.is_ready() && !std::mem::replace(&mut socket.is_queued, true) {
            self.ready.push_back(Source::Socket(place));
        }
    }

    fn queue_listener(&mut self, slot: ListenerSlot) {
        let listener = self.listeners.at(slot);
        if listener.is_ready() && !std::mem::replace(&mut listener.is_queued, true) {
            self.ready.push_back(Source::Listener(slot));
        }
    }

    fn complete(&mut self, token: Token, result: Result<u32, Errno>) {
        self.done.push_back(Completion::new(token, result));
    }

    /// Asks the kernel for changes, and waits for one as long as that.
    fn ask(&mut self, timeout: Duration) -> io::Result<()> {
        self.is_fresh = true;
        let Self { epoll, sockets, listeners, ready, done, .. } = self;
        epoll.wait(timeout, |epoll, source, change| {
            let (is_ready, is_queued) = match source {
                Source::Socket(place) => {
                    let socket = sockets.place(place);
                    socket.changed(place, change, epoll);
                    (socket.is_ready(), &mut socket.is_queued)
                }
                Source::Listener(slot) => {
                    let listener = listeners.at(slot);
                    listener.changed(epoll);
                    (listener.is_ready(), &mut listener.is_queued)
                }
                // Edge-triggered, an eventfd tells of every ring, whether the one before it has
                // been taken or not. So nothing has to be read.
                Source::Bell => return done.push_back(Completion::new(Token::Woken, Ok(0))),
            };
            if is_ready && !std::mem::replace(is_queued, true) {
                ready.push_back(source);
            }
        })
    }

    fn receive(&mut self, place: SocketIndex, has_more: bool) {
        self.sockets.place(place).receive(place, has_more, &self.epoll);
        self.queue_socket(place);
    }

    fn go_on(&mut self, source: Source, batch: &mut Vec<Completion>, buffers: &mut PollBuffers) {
        match source {
            Source::Socket(place) => {
                let socket = self.sockets.place(place);
                socket.is_queued = false;
                socket.go_on(place, &self.epoll, buffers, batch);
                self.queue_socket(place);
            }
            Source::Listener(slot) => {
                self.listeners.at(slot).is_queued = false;
                self.go_on_accepting(slot, batch);
                self.queue_listener(slot);
            }
            Source::Bell => {}
        }
    }

    fn go_on_accepting(&mut self, slot: ListenerSlot, batch: &mut Vec<Completion>) {
        let listener = self.listeners.at(slot);
        if let Some(accept) = listener.take_watch() {
            batch.push(Completion::new(Token::Waiting(accept), Ok(0)));
        }
        while batch.len() < batch.capacity()
            && let Some(completion) = self.accept_one(slot)
        {
            batch.push(completion);
            if completion.result().is_err() {
                // The others would fail as well; they come next turn.
                return;
            }
        }
    }

    /// Accepts a connection, if there is one and somebody waits for it.
    fn accept_one(&mut self, slot: ListenerSlot) -> Option<Completion> {
        let (accept, taken) = self.listeners.at(slot).take_one()?;
        let accepted = taken.and_then(|taken| {
            self.listeners.put_peer(accept, taken.peer);
            self.sockets.accept(taken.fd, &self.epoll)
        });
        Some(Completion::new(Token::Accept(accept), accepted.map(|place| place.0)))
    }
}

impl Io for Poller {
    const NAME: &'static str = "the epoll";
    type Buffers = PollBuffers;

    fn open(_: RingSize) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            sockets: PollSockets::default(),
            listeners: PollListeners::default(),
            ready: VecDeque::new(),
            done: VecDeque::new(),
            is_fresh: false,
        })
    }

    fn ring_fd(&self) -> Option<RawFd> {
        None
    }

    fn register_sockets(&mut self, count: u32) -> io::Result<()> {
        self.sockets.set_count_max(count);
        Ok(())
    }

    fn make_buffers(&mut self, count: u16, buffer_bytes: u32) -> io::Result<PollBuffers> {
        Ok(PollBuffers::new(count, buffer_bytes))
    }

    #[cfg(feature = "load")]
    fn install(&mut self, socket: OwnedFd, index: SocketIndex) -> io::Result<()> {
        Ok(self.sockets.install(socket, index, &self.epoll)?)
    }

    unsafe fn accept(&mut self, listener: RawFd, accept: AcceptIndex, _: *mut PeerAddress) {
        let slot = self.listeners.slot_of(listener);
        match self.listeners.at(slot).accept(slot, accept, &self.epoll) {
            // At once, if a connection may be there: one that waits must not lose its accept to
            // one that waits elsewhere, and that one to it in turn.
            Ok(()) => {
                let accepted = self.accept_one(slot);
                self.done.extend(accepted);
            }
            Err(error) => self.complete(Token::Accept(accept), Err(error)),
        }
    }

    fn take_peer(&mut self, accept: AcceptIndex, _: &mut PeerAddress) -> SocketAddr {
        self.listeners.take_peer(accept)
    }

    fn watch_listener(&mut self, listener: RawFd, accept: AcceptIndex) {
        let slot = self.listeners.slot_of(listener);
        match self.listeners.at(slot).watch(slot, accept, &self.epoll) {
            Ok(false) => {}
            // Who accepts finds out what is wrong.
            Ok(true) | Err(_) => self.complete(Token::Waiting(accept), Ok(0)),
        }
    }

    fn cancel_accept(&mut self, listener: RawFd, accept: AcceptIndex) {
        let slot = self.listeners.slot_of(listener);
        if self.listeners.at(slot).cancel(accept) {
            self.complete(Token::Accept(accept), Err(Errno::CANCELED));
        }
        self.complete(Token::AcceptCancelled, Ok(0));
    }

    fn cancel_all(&mut self, listener: RawFd) {
        let slot = self.listeners.slot_of(listener);
        let Cancelled { accepts, watch } = self.listeners.at(slot).cancel_all(&self.epoll);
        for accept in accepts {
            self.complete(Token::Accept(accept), Err(Errno::CANCELED));
        }
        if let Some(accept) = watch {
            self.complete(Token::Waiting(accept), Err(Errno::CANCELED));
        }
        self.complete(Token::AcceptCancelled, Ok(0));
    }

    #[cfg(feature = "load")]
    unsafe fn connect(&mut self, socket: SocketIndex, address: &SockAddr) {
        match address.as_socket() {
            Some(address) => {
                let connected = self.sockets.place(socket).connect(socket, address);
                self.done.extend(connected);
            }
            None => self.complete(Token::Connected(socket), Err(Errno::AFNOSUPPORT)),
        }
    }

    fn receive_multishot(&mut self, socket: SocketIndex) {
        self.receive(socket, true);
    }

    fn receive_once(&mut self, socket: SocketIndex) {
        self.receive(socket, false);
    }

    unsafe fn send(&mut self, socket: SocketIndex, send: SendIndex, bytes: &[u8]) {
        let place = self.sockets.place(socket);
        // SAFETY: the caller keeps the bytes until the send completes.
        let sent = unsafe { place.send(socket, send, bytes, &self.epoll) };
        self.done.extend(sent);
    }

    unsafe fn send_at_once(&mut self, socket: SocketIndex, send: SendIndex, bytes: &[u8]) {
        // SAFETY: the caller keeps the bytes until the send completes.
        unsafe { self.send(socket, send, bytes) };
    }

    fn finish_writing(&mut self, socket: SocketIndex) {
        let place = self.sockets.place(socket);
        let finished = place.fd().and_then(|fd| rustix::net::shutdown(fd, Shutdown::Write));
        self.complete(Token::FinishWriting(socket), finished.map(|()| 0));
    }

    fn cancel_receive(&mut self, socket: SocketIndex) {
        if self.sockets.place(socket).cancel_receive() {
            self.complete(Token::Receive(socket), Err(Errno::CANCELED));
        }
        self.complete(Token::Cancel(socket), Ok(0));
    }

    fn cancel_send(&mut self, socket: SocketIndex, send: SendIndex) {
        let sent = self.sockets.place(socket).cancel_send(send);
        self.done.extend(sent);
        self.complete(Token::Cancel(socket), Ok(0));
    }

    fn close(&mut self, socket: SocketIndex) {
        let closed = self.sockets.close(socket);
        self.complete(Token::Close(socket), closed);
    }

    fn watch(&mut self, eventfd: RawFd) {
        // SAFETY: the caller keeps the eventfd open.
        let fd = unsafe { BorrowedFd::borrow_raw(eventfd) };
        if let Err(error) = self.epoll.add(fd, Source::Bell, Interest::Read) {
            // It sleeps for a few milliseconds at most, so that it serves, if a little late.
            tracing::error!(%error, "a thread can't be woken: it looks every few milliseconds");
        }
    }

    /// There is no way from here to another's ring, so that whoever asks uses its eventfd.
    fn wake_ring(&mut self, _: RawFd, party: Party) {
        self.complete(Token::WakeFailed(party), Err(Errno::OPNOTSUPP));
    }

    /// The kernel is asked once in a turn.
    fn submit(&mut self) -> io::Result<()> {
        // A thread without sockets has its bell only, for which it looks before it sleeps.
        if self.is_fresh || self.sockets.count_max() == 0 {
            return Ok(());
        }
        self.ask(Duration::ZERO)
    }

    fn submit_again(&mut self) -> io::Result<()> {
        self.is_fresh = false;
        self.submit()
    }

    fn has_completions(&mut self) -> bool {
        !self.done.is_empty() || !self.ready.is_empty()
    }

    /// Each wait names its time anyway.
    fn tick(&mut self, _: Duration) {}

    fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()> {
        if self.has_completions() {
            return self.submit();
        }
        self.ask(timeout)
    }

    fn reap(&mut self, batch: &mut Vec<Completion>, buffers: &mut PollBuffers) {
        self.reap_wakes(batch);
        // Those that are ready again have another turn.
        for _ in 0..self.ready.len() {
            if batch.len() + COMPLETIONS_PER_SOCKET > batch.capacity() {
                return;
            }
            let Some(source) = self.ready.pop_front() else { return };
            self.go_on(source, batch, buffers);
        }
    }

    fn done_len(&self) -> usize {
        self.done.len()
    }

    fn next_done(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn reap_wakes(&mut self, batch: &mut Vec<Completion>) {
        debug_assert!(batch.is_empty());
        self.is_fresh = false;
        let room = batch.capacity().min(self.done.len());
        batch.extend(self.done.drain(..room));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use super::super::completion::BufferIndex;
    use super::super::traits::ReceiveBuffers as _;
    use super::*;

    const BUFFER_BYTES: usize = 64;
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A poller with a listening socket and two buffers.
    struct Rig {
        poller: Poller,
        buffers: PollBuffers,
        listener: TcpListener,
        came: VecDeque<Completion>,
    }

    impl Rig {
        fn new(sockets: u32) -> Self {
            let mut poller = Poller::open(RingSize { submissions: 1, completions: 1 }).unwrap();
            poller.register_sockets(sockets).unwrap();
            let buffers = poller.make_buffers(2, BUFFER_BYTES as u32).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Self { poller, buffers, listener, came: VecDeque::new() }
        }

        fn accept(&mut self, accept: u32) {
            let (fd, accept) = (self.listener.as_raw_fd(), AcceptIndex(accept));
            // SAFETY: a poller has no use for the address, and the listener outlives it.
            unsafe { self.poller.accept(fd, accept, std::ptr::null_mut()) };
        }

        fn connect(&mut self) -> (SocketIndex, TcpStream) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            self.accept(0);
            let accepted = self.next();
            assert_eq!(accepted.token, Token::Accept(AcceptIndex(0)));
            let peer = self.poller.take_peer(AcceptIndex(0), &mut PeerAddress::empty());
            assert_eq!(peer, client.local_addr().unwrap());
            (SocketIndex(accepted.result().unwrap()), client)
        }

        fn turn(&mut self, timeout: Duration) {
            self.poller.submit_and_wait(timeout).unwrap();
            let mut batch = Vec::with_capacity(16);
            self.poller.reap(&mut batch, &mut self.buffers);
            self.came.extend(batch);
        }

        fn next(&mut self) -> Completion {
            while self.came.is_empty() {
                self.turn(PATIENCE);
            }
            self.came.pop_front().unwrap()
        }

        fn assert_quiet(&mut self) {
            self.turn(Duration::ZERO);
            self.turn(Duration::ZERO);
            assert!(self.came.is_empty(), "{:?}", self.came);
        }

        /// The bytes of a receive, whose buffer is given back.
        fn received(&mut self, completion: Completion) -> Vec<u8> {
            let (buffer, len) = (completion.buffer().unwrap(), completion.result().unwrap());
            let bytes = self.buffers.filled(buffer, len as usize).to_vec();
            self.buffers.give_back(buffer);
            bytes
        }
    }

    #[test]
    fn a_client_is_received_from_a_buffer_at_a_time_until_it_ends() {
        let mut rig = Rig::new(1);
        let (socket, mut client) = rig.connect();
        rig.poller.receive_multishot(socket);
        rig.assert_quiet();
        let sent: Vec<u8> = (0..BUFFER_BYTES as u8 * 2 + 9).collect();
        client.write_all(&sent).unwrap();
        drop(client);
        let mut received = Vec::new();
        while received.len() < sent.len() {
            rig.turn(PATIENCE);
            assert!(rig.came.len() <= 1, "one buffer in a turn");
            let Some(completion) = rig.came.pop_front() else { continue };
            assert_eq!((completion.token, completion.has_more()), (Token::Receive(socket), true));
            received.extend(rig.received(completion));
        }
        assert_eq!(received, sent);
        let ended = rig.next();
        assert_eq!((ended.result(), ended.has_more(), ended.buffer()), (Ok(0), false, None));
        // Its place is free again, and not before.
        let (fd, index) = (TcpStream::connect(rig.listener.local_addr().unwrap()), 1);
        rig.accept(index);
        assert_eq!(rig.next().result(), Err(Errno::NFILE));
        rig.poller.close(socket);
        assert_eq!(rig.next().token, Token::Close(socket));
        drop(fd);
        assert_eq!(rig.connect().0, socket);
    }

    #[test]
    fn one_that_is_not_received_from_is_told_of_later() {
        let mut rig = Rig::new(1);
        let (socket, mut client) = rig.connect();
        for _ in 0..5 {
            client.write_all(b"hello").unwrap();
            rig.assert_quiet();
        }
        rig.poller.receive_once(socket);
        let first = rig.next();
        assert!(!first.has_more());
        assert_eq!(rig.received(first), b"hello".repeat(5));
        client.write_all(b"again").unwrap();
        rig.assert_quiet();
        rig.poller.receive_multishot(socket);
        let second = rig.next();
        assert_eq!(rig.received(second), b"again");
        // And by whom it is cancelled.
        rig.poller.cancel_receive(socket);
        let cancelled = rig.next();
        assert_eq!((cancelled.result(), cancelled.has_more()), (Err(Errno::CANCELED), false));
        assert_eq!(rig.next().token, Token::Cancel(socket));
        rig.poller.cancel_receive(socket);
        assert_eq!(rig.next().token, Token::Cancel(socket), "there was none");
    }

    #[test]
    fn without_a_buffer_a_receive_ends() {
        let mut rig = Rig::new(1);
        let (socket, mut client) = rig.connect();
        let taken: Vec<BufferIndex> = (0..2).map(|_| rig.buffers.take().unwrap()).collect();
        rig.poller.receive_multishot(socket);
        client.write_all(b"hello").unwrap();
        let dry = rig.next();
        assert_eq!((dry.result(), dry.has_more()), (Err(Errno::NOBUFS), false));
        assert!(rig.buffers.ran_dry());
        taken.into_iter().for_each(|buffer| rig.buffers.give_back(buffer));
        rig.poller.receive_multishot(socket);
        let received = rig.next();
        assert_eq!(rig.received(received), b"hello");
    }

    #[test]
    fn a_send_ends_when_all_of_it_is_taken_or_it_is_cancelled() {
        let mut rig = Rig::new(1);
        let (socket, mut client) = rig.connect();
        let bytes = vec![7; 16 << 20];
        // SAFETY: the bytes live until the end of the test.
        unsafe { rig.poller.send(socket, SendIndex(3), &bytes) };
        rig.assert_quiet();
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; 16 << 20];
            client.read_exact(&mut read).unwrap();
            assert!(read.iter().all(|byte| *byte == 7));
            client
        });
        let sent = rig.next();
        assert_eq!((sent.token, sent.result()), (Token::Send(SendIndex(3)), Ok(16 << 20)));
        let client = reader.join().unwrap();
        // SAFETY: as above.
        unsafe { rig.poller.send(socket, SendIndex(4), &bytes) };
        rig.poller.cancel_send(socket, SendIndex(3));
        assert_eq!(rig.next().token, Token::Cancel(socket), "another send goes on");
        rig.poller.cancel_send(socket, SendIndex(4));
        let cut = rig.next();
        assert_eq!(cut.token, Token::Send(SendIndex(4)));
        assert!((1..16 << 20).contains(&cut.result().unwrap()), "what was taken is told");
        assert_eq!(rig.next().token, Token::Cancel(socket));
        // SAFETY: as above.
        unsafe { rig.poller.send(socket, SendIndex(5), &bytes) };
        drop(client);
        assert!(rig.next().result().is_err(), "the peer has gone");
    }

    #[test]
    fn accepts_are_cancelled_and_watched() {
        let mut rig = Rig::new(4);
        let fd = rig.listener.as_raw_fd();
        (0..3).for_each(|accept| rig.accept(accept));
        rig.assert_quiet();
        rig.poller.cancel_accept(fd, AcceptIndex(1));
        let cancelled = rig.next();
        assert_eq!(cancelled.token, Token::Accept(AcceptIndex(1)));
        assert_eq!(cancelled.result(), Err(Errno::CANCELED));
        assert_eq!(rig.next().token, Token::AcceptCancelled);
        rig.poller.watch_listener(fd, AcceptIndex(9));
        rig.assert_quiet();
        let client = TcpStream::connect(rig.listener.local_addr().unwrap()).unwrap();
        assert_eq!(rig.next().token, Token::Waiting(AcceptIndex(9)));
        assert_eq!(rig.next().token, Token::Accept(AcceptIndex(0)), "in order");
        rig.poller.cancel_all(fd);
        assert_eq!(rig.next().token, Token::Accept(AcceptIndex(2)));
        assert_eq!(rig.next().token, Token::AcceptCancelled);
        drop(client);
        rig.assert_quiet();
    }

    #[test]
    fn every_ring_of_a_bell_is_heard() {
        use rustix::event::{EventfdFlags, eventfd};
        let mut rig = Rig::new(1);
        let bell = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        rig.poller.watch(bell.as_raw_fd());
        for _ in 0..3 {
            rig.assert_quiet();
            rustix::io::write(&bell, &1_u64.to_ne_bytes()).unwrap();
            assert_eq!(rig.next().token, Token::Woken);
        }
        rig.poller.wake_ring(-1, Party(5));
        assert_eq!(rig.next().token, Token::WakeFailed(Party(5)));
    }
}
