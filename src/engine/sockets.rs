//! One shard's sockets: completions become calls of the core, its wishes become submissions.

#![allow(unsafe_code)] // Passes buffers to the ring; each block says what keeps them alive.

use std::collections::VecDeque;
use std::net::SocketAddr;

use rustix::io::Errno;

use super::accepts::{Accepts, Listeners};
use super::churn::ChurnLimiter;
use crate::io::{AcceptIndex, Completion, Io, ReceiveBuffers as _, SendIndex, Token};
use crate::limits::turn::ENDS_PER_TURN;
use crate::session::{CAPACITY_MAX, Segment, SessionId};
use crate::shard::{Command, ListenerIndex, ReceiveEnd, SendEnd, Shard, SocketIndex, Transmit};

/// The sockets of one shard.
pub(super) struct Sockets {
    accepts: Accepts,
    churn: ChurnLimiter,

    sockets: Vec<Socket>,
    /// Sessions whose clients have ended their streams, which the core has not heard yet.
    ended: VecDeque<(SessionId, ReceiveEnd)>,
    sends: Vec<Option<Send>>,
    free_sends: Vec<SendIndex>,
}

/// One direct descriptor.
#[derive(Debug, Default, Clone, Copy)]
struct Socket {
    session: Option<SessionId>,
    is_receiving: bool,
    /// The core wants no more for now.
    is_paused: bool,
    /// Above 0 the core has had to pause it: it is read a buffer in a turn, until so many in a row
    /// were not filled. Otherwise the kernel reads whatever there is, which from a client that
    /// sends faster than it is read is half a megabyte and more, and other clients' messages wait
    /// for all of it.
    eager: u8,
    is_sending: bool,
    /// Which of the sends is under way, if one is.
    send: SendIndex,
    /// Shutdowns and cancels whose completions are to come.
    others: u8,
    /// It is to be closed once nothing is under way.
    is_closing: bool,
    is_close_submitted: bool,
}

/// A buffer in flight.
struct Send {
    transmit: Transmit,
    sent: usize,
}

/// Receives in a row that a client who was paused must not fill, to be read as others are: one that
/// sends without end does not fill each of them either, as it has to wait for its core.
const EAGER_RECEIVES: u8 = 64;

impl Sockets {
    /// The sockets of a shard, as many as its ring has room for.
    pub(super) fn new(listeners: Listeners, sockets_max: u32) -> Self {
        Self {
            accepts: Accepts::new(listeners, sockets_max),
            churn: ChurnLimiter::default(),
            sockets: Vec::with_capacity(CAPACITY_MAX.min(sockets_max as usize)),
            ended: VecDeque::new(),
            sends: Vec::new(),
            free_sends: Vec::new(),
        }
    }

    /// Begins to accept.
    pub(super) fn start(&mut self, io: &mut impl Io) {
        self.accepts.begin(io, &mut self.churn);
    }

    /// Stops accepting, for good.
    pub(super) fn stop_accepting(&mut self, io: &mut impl Io) {
        self.accepts.stop(io);
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now_us: u64, shard: &Shard) {
        self.churn.begin_turn(now_us, shard.messages_handled());
        // Those behind proxies are refused after they have been accepted.
        self.churn.refuse(shard.connections_refused());
    }

    /// Begins to accept again after a pause, or for another shard that is full.
    pub(super) fn resume_accepting(&mut self, io: &mut impl Io, now_us: u64) {
        self.accepts.resume(io, &mut self.churn, now_us);
    }

    /// Tells once that this shard has become full, so that the others are to be woken.
    pub(super) fn take_has_become_full(&mut self) -> bool {
        self.accepts.take_has_become_full()
    }

    /// Handles a completion of a socket. `false` where it is none of a socket's.
    pub(super) fn handle<I: Io>(
        &mut self,
        completion: Completion,
        io: &mut I,
        buffers: &mut I::Buffers,
        shard: &mut Shard,
        now_us: u64,
    ) -> bool {
        match completion.token {
            Token::Accept(accept) => self.handle_accept(completion, accept, io, shard, now_us),
            Token::Waiting(accept) => {
                self.accepts.handle_waiting(accept);
                self.accepts.begin(io, &mut self.churn);
            }
            Token::Receive(socket) => {
                self.handle_receive(completion, socket, io, buffers, shard);
            }
            Token::Send(send) => self.handle_send(completion, send, io, shard),
            Token::FinishWriting(socket) => self.handle_other(socket, io),
            Token::Cancel(socket) => self.handle_other(socket, io),
            Token::Close(socket) => self.handle_closed(socket, io, shard),
            Token::AcceptCancelled
            | Token::Bell
            | Token::Woken
            | Token::WakeFailed(_)
            | Token::SentInPart(_)
            | Token::Tick => {
                return false;
            }
            #[cfg(feature = "load")]
            Token::Connected(_) => return false,
        }
        true
    }

    fn handle_accept(
        &mut self,
        completion: Completion,
        accept: AcceptIndex,
        io: &mut impl Io,
        shard: &mut Shard,
        now_us: u64,
    ) {
        let accepted = completion.result();
        if let Err(error) = self.accepts.handle_end(accept, accepted.map(drop), now_us) {
            shard.counters().accept_failures.one();
            crate::log::seldom!(warn, %error, "accepting pauses");
        }
        if let Ok(index) = accepted {
            let (socket, peer) = (SocketIndex(index), self.accepts.take_peer(io, accept));
            self.opened(socket, self.accepts.listener(accept), peer, io, shard);
        }
        self.accepts.begin(io, &mut self.churn);
    }

    fn opened(
        &mut self,
        socket: SocketIndex,
        listener: ListenerIndex,
        peer: SocketAddr,
        io: &mut impl Io,
        shard: &mut Shard,
    ) {
        match shard.handle_accept_at(listener, socket, peer) {
            None => {
                self.churn.refuse(shard.connections_refused());
                self.closing(socket, io);
            }
            Some(session) => {
                let state = self.socket(socket);
                debug_assert!(state.session.is_none());
                *state = Socket { session: Some(session), is_receiving: true, ..Socket::default() };
                io.receive_multishot(socket);
            }
        }
    }

    fn socket(&mut self, socket: SocketIndex) -> &mut Socket {
        let index = socket.0 as usize;
        if self.sockets.len() <= index {
            self.sockets.resize(index + 1, Socket::default());
        }
        &mut self.sockets[index]
    }

    fn handle_receive<I: Io>(
        &mut self,
        completion: Completion,
        socket: SocketIndex,
        io: &mut I,
        buffers: &mut I::Buffers,
        shard: &mut Shard,
    ) {
        let state = self.socket(socket);
        let (session, is_closing) = (state.session, state.is_closing);
        let received = completion.result();
        state.is_receiving = completion.has_more();
        if let Some(buffer) = completion.buffer() {
            if let (Ok(len @ 1..), Some(session), false) = (received, session, is_closing) {
                let len = len as usize;
                shard.handle_receive(session, buffers.filled(buffer, len));
                let state = self.socket(socket);
                if state.eager > 0 {
                    let is_filled = len == buffers.buffer_bytes();
                    state.eager = if is_filled { EAGER_RECEIVES } else { state.eager - 1 };
                }
            }
            buffers.give_back(buffer);
        }
        if completion.has_more() {
            return;
        }
        let Some(session) = session.filter(|_| !is_closing) else {
            return self.close_if_idle(socket, io);
        };
        let is_paused = self.socket(socket).is_paused;
        match received {
            // Of a pause that may be over by now.
            Ok(1..) | Err(Errno::NOBUFS | Errno::CANCELED) if is_paused => {}
            Err(Errno::CANCELED) => self.receive(socket, io),
            // A multishot may end though all is well; the kernel gets buffers in every turn.
            Ok(1..) | Err(Errno::NOBUFS) => {
                if received == Err(Errno::NOBUFS) && buffers.ran_dry() {
                    shard.counters().receive_buffers_empty.one();
                }
                self.receive(socket, io);
            }
            Ok(0) => self.ended.push_back((session, ReceiveEnd::Eof)),
            Err(_) => self.ended.push_back((session, ReceiveEnd::Error)),
        }
    }

    /// Tells the core of a few streams that have ended. `true` if the next turn may tell of more.
    pub(super) fn end_some(&mut self, shard: &mut Shard) -> bool {
        for _ in 0..ENDS_PER_TURN {
            if self.ended.is_empty() || !self.churn.try_end() {
                return false;
            }
            let Some((session, end)) = self.ended.pop_front() else { break };
            shard.handle_receive_end(session, end);
        }
        !self.ended.is_empty()
    }

    /// The time of the next thing to do that no completion tells of.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        let ends_us = (!self.ended.is_empty()).then(|| self.churn.again_us());
        self.accepts.next_deadline_us().into_iter().chain(ends_us).min()
    }

    fn receive(&mut self, socket: SocketIndex, io: &mut impl Io) {
        let state = self.socket(socket);
        state.is_receiving = true;
        if state.eager > 0 {
            io.receive_once(socket);
        } else {
            io.receive_multishot(socket);
        }
    }

    fn pause_reading(&mut self, socket: SocketIndex, io: &mut impl Io) {
        let state = self.socket(socket);
        if state.is_paused || state.is_closing {
            return;
        }
        (state.is_paused, state.eager) = (true, EAGER_RECEIVES);
        if state.is_receiving {
            state.others += 1;
            io.cancel_receive(socket);
        }
    }

    fn resume_reading(&mut self, socket: SocketIndex, io: &mut impl Io) {
        let state = self.socket(socket);
        state.is_paused = false;
        // One that is being cancelled begins again when it has ended.
        if !state.is_receiving && !state.is_closing {
            self.receive(socket, io);
        }
    }

    /// Sends a buffer of the core's.
    pub(super) fn send(&mut self, transmit: Transmit, io: &mut impl Io) {
        let index = self.free_sends.pop().unwrap_or_else(|| {
            self.sends.push(None);
            SendIndex(self.sends.len() as u32 - 1)
        });
        let state = self.socket(transmit.socket);
        (state.is_sending, state.send) = (true, index);
        let send = self.sends[index.0 as usize].insert(Send { transmit, sent: 0 });
        // SAFETY: the segment's bytes are on the heap and stay there, unchanged, until it is
        // taken out of `sends` at its completion.
        unsafe {
            let bytes = send.transmit.segment.as_slice();
            match send.transmit.is_last {
                true => io.send_at_once(send.transmit.socket, index, bytes),
                false => io.send(send.transmit.socket, index, bytes),
            }
        }
    }

    fn handle_send(
        &mut self,
        completion: Completion,
        index: SendIndex,
        io: &mut impl Io,
        shard: &mut Shard,
    ) {
        let Some(send) = &mut self.sends[index.0 as usize] else { return };
        let socket = send.transmit.socket;
        let mut end = SendEnd::Error;
        // Of a send that was to be done at once, and could not be.
        let sent = match completion.result() {
            Err(Errno::AGAIN) => Some(0),
            result => result.ok().filter(|len| *len > 0),
        };
        if let Some(len) = sent {
            send.sent += len as usize;
            let is_closing = self.sockets[socket.0 as usize].is_closing;
            let rest = &send.transmit.segment.as_slice()[send.sent..];
            if !rest.is_empty() && !is_closing {
                // SAFETY: as in `send`; the rest is part of the same segment.
                unsafe { io.send(socket, index, rest) };
                return;
            }
            end = SendEnd::Sent;
        }
        let Some(Send { transmit, .. }) = self.sends[index.0 as usize].take() else { return };
        self.free_sends.push(index);
        self.socket(socket).is_sending = false;
        let Transmit { session, segment, .. } = transmit;
        shard.handle_sent(session, segment, end);
        self.close_if_idle(socket, io);
    }

    /// Does what else the core asks for.
    pub(super) fn command(&mut self, command: Command, io: &mut impl Io) {
        match command {
            Command::Close(socket) => self.closing(socket, io),
            Command::PauseReading(socket) => self.pause_reading(socket, io),
            Command::ResumeReading(socket) => self.resume_reading(socket, io),
            Command::FinishWriting(socket) => {
                self.socket(socket).others += 1;
                io.finish_writing(socket);
            }
        }
    }

    fn handle_other(&mut self, socket: SocketIndex, io: &mut impl Io) {
        self.socket(socket).others -= 1;
        self.close_if_idle(socket, io);
    }

    /// Closes a socket: cancels what is under way, and waits for it.
    fn closing(&mut self, socket: SocketIndex, io: &mut impl Io) {
        let state = self.socket(socket);
        if state.is_closing {
            return;
        }
        state.is_closing = true;
        if state.is_receiving {
            state.others += 1;
            io.cancel_receive(socket);
        }
        if state.is_sending {
            state.others += 1;
            io.cancel_send(socket, state.send);
        }
        self.close_if_idle(socket, io);
    }

    /// A descriptor is used again only after its last completion, so it is closed after that too.
    fn close_if_idle(&mut self, socket: SocketIndex, io: &mut impl Io) {
        let state = self.socket(socket);
        let is_busy = state.is_receiving || state.is_sending || state.others > 0;
        if state.is_closing && !is_busy && !state.is_close_submitted {
            state.is_close_submitted = true;
            io.close(socket);
        }
    }

    fn handle_closed(&mut self, socket: SocketIndex, io: &mut impl Io, shard: &mut Shard) {
        let state = std::mem::take(self.socket(socket));
        if let Some(session) = state.session {
            shard.handle_socket_closed(session);
        }
        self.accepts.handle_closed();
        self.accepts.begin(io, &mut self.churn);
    }

    /// Buffers in flight; the ring must not be dropped before they are back.
    pub(super) fn is_sending(&self) -> bool {
        self.sends.len() > self.free_sends.len()
    }
}

/// The buffers that are in flight must outlive the kernel's use of them.
impl Drop for Sockets {
    fn drop(&mut self) {
        for send in self.sends.drain(..).flatten() {
            // Only after a failure of the ring itself: the kernel may still read them.
            let segment: Segment = send.transmit.segment;
            std::mem::forget(segment);
        }
    }
}
