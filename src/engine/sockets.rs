//! One shard's sockets: completions become calls of the core, its wishes become submissions.

#![allow(unsafe_code)] // Passes buffers to the ring; each block says what keeps them alive.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::accepts::{Accepts, Listeners};
use super::churn::ChurnLimiter;
use crate::session::{CAPACITY_MAX, Segment, SessionId};
use crate::shard::{Command, ListenerIndex, ReceiveEnd, SendEnd, Shard, SocketIndex, Transmit};
use crate::uring::{Buffers, Completion, GROUP, RawAddress, Ring, Token};

/// The sockets of one shard.
pub(super) struct Sockets {
    accepts: Accepts,
    churn: ChurnLimiter,

    sockets: Vec<Socket>,
    /// Sessions whose clients have ended their streams, which the core has not heard yet.
    ended: VecDeque<(SessionId, ReceiveEnd)>,
    sends: Vec<Option<Send>>,
    free_sends: Vec<u32>,
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
    /// sends faster than it is read is half a megabyte and more, and whoever else has sent
    /// something waits for all of it.
    eager: u8,
    is_sending: bool,
    /// The place of the buffer that is being sent.
    send_place: u32,
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

/// Streams whose end a turn takes note of, so that those who are in are heard between thousands
/// that end at once: most of a connection's end is work.
const ENDS_PER_TURN: usize = 4;
/// Receives in a row that a client who was paused must not fill, to be read as others are: one that
/// sends without end does not fill each of them either, as it has to wait for its core.
const EAGER_RECEIVES: u8 = 64;

const NO_BUFFERS: i32 = -105; // ENOBUFS
const CANCELED: i32 = -125; // ECANCELED

impl Sockets {
    /// The sockets of a shard, as many as its ring has places for.
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
    pub(super) fn start(&mut self, ring: &mut Ring) {
        self.accepts.begin(ring, &mut self.churn);
    }

    /// Stops accepting, for good.
    pub(super) fn stop_accepting(&mut self, ring: &mut Ring) {
        self.accepts.stop(ring);
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now_us: u64, shard: &Shard) {
        self.churn.begin_turn(now_us, shard.messages_handled());
        // Those behind proxies are turned away after they have come in.
        self.churn.refuse(shard.connections_refused());
    }

    /// Begins to accept again after a pause, or for another shard that is full.
    pub(super) fn resume_accepting(&mut self, ring: &mut Ring, now_us: u64) {
        self.accepts.resume(ring, &mut self.churn, now_us);
    }

    /// Whether the other shards are to be woken, to accept for this one.
    pub(super) fn calls_others(&mut self) -> bool {
        self.accepts.calls()
    }

    /// What has happened on a socket. `false` where the completion is none of a socket's.
    pub(super) fn handle(
        &mut self,
        completion: Completion,
        ring: &mut Ring,
        buffers: &mut Buffers,
        shard: &mut Shard,
        now_us: u64,
    ) -> bool {
        match completion.token {
            Token::Accept(accept) => self.handle_accept(completion, accept, ring, shard, now_us),
            Token::Waiting(accept) => {
                self.accepts.handle_waiting(accept);
                self.accepts.begin(ring, &mut self.churn);
            }
            Token::Receive(socket) => {
                self.handle_receive(completion, socket, ring, buffers, shard);
            }
            Token::Send(place) => self.handle_send(completion, place, ring, shard),
            Token::FinishWriting(socket) => self.handle_other(socket, ring),
            Token::Cancel(socket) => self.handle_other(socket, ring),
            Token::Close(socket) => self.handle_closed(socket, ring, shard),
            Token::AcceptCancelled | Token::Bell | Token::Woken | Token::WakeFailed(_) => {
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
        accept: u32,
        ring: &mut Ring,
        shard: &mut Shard,
        now_us: u64,
    ) {
        if let Err(error) = self.accepts.handle_end(accept, completion.result, now_us) {
            shard.counters().accept_failures.one();
            crate::log::seldom!(warn, error, "accepting pauses");
        }
        if completion.result >= 0 {
            let peer = peer_of(self.accepts.address(accept));
            let socket = SocketIndex(completion.result as u32);
            self.opened(socket, self.accepts.listener(accept), peer, ring, shard);
        }
        self.accepts.begin(ring, &mut self.churn);
    }

    fn opened(
        &mut self,
        socket: SocketIndex,
        listener: usize,
        peer: SocketAddr,
        ring: &mut Ring,
        shard: &mut Shard,
    ) {
        let listener = ListenerIndex(listener as u8);
        match shard.handle_accept_at(listener, socket, peer) {
            None => {
                self.churn.refuse(shard.connections_refused());
                self.closing(socket, ring);
            }
            Some(session) => {
                let state = self.socket(socket);
                debug_assert!(state.session.is_none());
                *state = Socket { session: Some(session), is_receiving: true, ..Socket::default() };
                ring.receive_multishot(socket, GROUP);
            }
        }
    }

    fn socket(&mut self, socket: SocketIndex) -> &mut Socket {
        let place = socket.0 as usize;
        if self.sockets.len() <= place {
            self.sockets.resize(place + 1, Socket::default());
        }
        &mut self.sockets[place]
    }

    fn handle_receive(
        &mut self,
        completion: Completion,
        socket: SocketIndex,
        ring: &mut Ring,
        buffers: &mut Buffers,
        shard: &mut Shard,
    ) {
        let state = self.socket(socket);
        let (session, is_closing) = (state.session, state.is_closing);
        state.is_receiving = completion.has_more();
        if let Some(buffer) = completion.buffer() {
            if let Some(session) = session.filter(|_| completion.result > 0 && !is_closing) {
                let len = completion.result as usize;
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
            return self.close_if_idle(socket, ring);
        };
        let is_paused = self.socket(socket).is_paused;
        match completion.result {
            // Of a pause that may be over by now.
            1.. | NO_BUFFERS | CANCELED if is_paused => {}
            CANCELED => self.receive(socket, ring),
            // A multishot may end though all is well; the kernel gets buffers in every turn.
            1.. | NO_BUFFERS => {
                if completion.result == NO_BUFFERS && buffers.ran_dry() {
                    shard.counters().receive_buffers_empty.one();
                }
                self.receive(socket, ring);
            }
            0 => self.ended.push_back((session, ReceiveEnd::Eof)),
            _ => self.ended.push_back((session, ReceiveEnd::Error)),
        }
    }

    /// Tells the core of a few streams that have ended; whether the next turn may tell of more.
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

    /// When there is something to do that no completion tells of.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        let ends_us = (!self.ended.is_empty()).then(|| self.churn.again_us());
        self.accepts.next_deadline_us().into_iter().chain(ends_us).min()
    }

    fn receive(&mut self, socket: SocketIndex, ring: &mut Ring) {
        let state = self.socket(socket);
        state.is_receiving = true;
        if state.eager > 0 {
            ring.receive_once(socket, GROUP);
        } else {
            ring.receive_multishot(socket, GROUP);
        }
    }

    fn pause_reading(&mut self, socket: SocketIndex, ring: &mut Ring) {
        let state = self.socket(socket);
        if state.is_paused || state.is_closing {
            return;
        }
        (state.is_paused, state.eager) = (true, EAGER_RECEIVES);
        if state.is_receiving {
            state.others += 1;
            ring.cancel_receive(socket);
        }
    }

    fn resume_reading(&mut self, socket: SocketIndex, ring: &mut Ring) {
        let state = self.socket(socket);
        state.is_paused = false;
        // One that is being cancelled begins again when it has ended.
        if !state.is_receiving && !state.is_closing {
            self.receive(socket, ring);
        }
    }

    /// Sends a buffer of the core's.
    pub(super) fn send(&mut self, transmit: Transmit, ring: &mut Ring) {
        let place = self.free_sends.pop().unwrap_or_else(|| {
            self.sends.push(None);
            self.sends.len() as u32 - 1
        });
        let state = self.socket(transmit.socket);
        (state.is_sending, state.send_place) = (true, place);
        let send = self.sends[place as usize].insert(Send { transmit, sent: 0 });
        // SAFETY: the segment's bytes are on the heap and stay there, unchanged, until it is
        // taken out of `sends` at its completion.
        unsafe { ring.send(send.transmit.socket, place, send.transmit.segment.as_slice()) };
    }

    fn handle_send(
        &mut self,
        completion: Completion,
        place: u32,
        ring: &mut Ring,
        shard: &mut Shard,
    ) {
        let Some(send) = &mut self.sends[place as usize] else { return };
        let socket = send.transmit.socket;
        let mut end = SendEnd::Error;
        if completion.result > 0 {
            send.sent += completion.result as usize;
            let is_closing = self.sockets[socket.0 as usize].is_closing;
            let rest = &send.transmit.segment.as_slice()[send.sent..];
            if !rest.is_empty() && !is_closing {
                // SAFETY: as in `send`; the rest is part of the same segment.
                unsafe { ring.send(socket, place, rest) };
                return;
            }
            end = SendEnd::Sent;
        }
        let Some(Send { transmit, .. }) = self.sends[place as usize].take() else { return };
        self.free_sends.push(place);
        self.socket(socket).is_sending = false;
        let Transmit { session, segment, .. } = transmit;
        shard.handle_sent(session, segment, end);
        self.close_if_idle(socket, ring);
    }

    /// Does what else the core asks for.
    pub(super) fn command(&mut self, command: Command, ring: &mut Ring) {
        match command {
            Command::Close(socket) => self.closing(socket, ring),
            Command::PauseReading(socket) => self.pause_reading(socket, ring),
            Command::ResumeReading(socket) => self.resume_reading(socket, ring),
            Command::FinishWriting(socket) => {
                self.socket(socket).others += 1;
                ring.finish_writing(socket);
            }
        }
    }

    fn handle_other(&mut self, socket: SocketIndex, ring: &mut Ring) {
        self.socket(socket).others -= 1;
        self.close_if_idle(socket, ring);
    }

    /// Closes a socket: cancels what is under way, and waits for it.
    fn closing(&mut self, socket: SocketIndex, ring: &mut Ring) {
        let state = self.socket(socket);
        if state.is_closing {
            return;
        }
        state.is_closing = true;
        if state.is_receiving {
            state.others += 1;
            ring.cancel_receive(socket);
        }
        if state.is_sending {
            state.others += 1;
            ring.cancel_send(socket, state.send_place);
        }
        self.close_if_idle(socket, ring);
    }

    /// A descriptor is used again only after its last completion, so it is closed after that too.
    fn close_if_idle(&mut self, socket: SocketIndex, ring: &mut Ring) {
        let state = self.socket(socket);
        let is_busy = state.is_receiving || state.is_sending || state.others > 0;
        if state.is_closing && !is_busy && !state.is_close_submitted {
            state.is_close_submitted = true;
            ring.close(socket);
        }
    }

    fn handle_closed(&mut self, socket: SocketIndex, ring: &mut Ring, shard: &mut Shard) {
        let state = std::mem::take(self.socket(socket));
        if let Some(session) = state.session {
            shard.handle_socket_closed(session);
        }
        self.accepts.handle_closed();
        self.accepts.begin(ring, &mut self.churn);
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

/// Reads `sockaddr_in` or `sockaddr_in6`.
fn peer_of(address: &RawAddress) -> SocketAddr {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let bytes = &address.bytes;
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match u16::from_ne_bytes([bytes[0], bytes[1]]) {
        AF_INET => {
            let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
            SocketAddr::new(ip.into(), port)
        }
        AF_INET6 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&bytes[8..24]);
            let mut scope = [0; 4];
            scope.copy_from_slice(&bytes[24..28]);
            SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, u32::from_ne_bytes(scope)).into()
        }
        _ => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uring::RAW_ADDRESS_BYTES;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let mut raw = RawAddress { bytes: [0; RAW_ADDRESS_BYTES], len: 16 };
        raw.bytes[..2].copy_from_slice(&2_u16.to_ne_bytes());
        raw.bytes[2..8].copy_from_slice(&[0x0b, 0xc2, 127, 0, 0, 1]);
        assert_eq!(peer_of(&raw), "127.0.0.1:3010".parse().unwrap());
        raw.bytes[..2].copy_from_slice(&10_u16.to_ne_bytes());
        raw.bytes[23] = 1;
        assert_eq!(peer_of(&raw).port(), 3010);
        assert!(peer_of(&raw).is_ipv6());
    }
}
