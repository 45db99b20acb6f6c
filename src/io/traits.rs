//! The requests that a thread makes of its sockets, whoever performs them, and the memory that is
//! received into.

#![allow(unsafe_code)] // Buffers that stay where they are; each method says for how long.

use std::io;
use std::net::SocketAddr;
#[cfg(feature = "load")]
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::time::Duration;

#[cfg(feature = "load")]
use socket2::SockAddr;

use super::address::PeerAddress;
use super::completion::{AcceptIndex, BufferIndex, Completion, SendIndex};
use super::size::RingSize;
use crate::forward::Party;
use crate::shard::SocketIndex;

/// One thread's I/O: requests go in, and each is told by a completion of its token.
///
/// Two implement it: [`Ring`](super::Ring) hands the requests to the kernel, and
/// [`Poller`](super::Poller) performs them when the kernel says that they will not wait. Each type
/// that uses one is generic over it, so that neither costs a call through a pointer.
///
/// The order of a turn: [`reap`](Self::reap) gives completions, the thread makes its requests, and
/// [`submit`](Self::submit) or [`submit_and_wait`](Self::submit_and_wait) ends it.
pub(crate) trait Io: Sized {
    /// Its name in an error.
    const NAME: &'static str;
    /// The memory that it receives into.
    type Buffers: ReceiveBuffers;

    /// One for the thread that calls this, and no other.
    fn open(size: RingSize) -> io::Result<Self>;

    /// The descriptor by which other threads' [`wake_ring`](Self::wake_ring) reaches this thread;
    /// none if they are to use an eventfd.
    fn ring_fd(&self) -> Option<RawFd>;

    /// Makes the table of sockets.
    fn register_sockets(&mut self, count: u32) -> io::Result<()>;

    /// Makes the buffers to receive into.
    ///
    /// The caller drops this before the buffers.
    fn make_buffers(&mut self, count: u16, buffer_bytes: u32) -> io::Result<Self::Buffers>;

    /// Puts a socket into the table. It is open until it is closed there.
    #[cfg(feature = "load")]
    fn install(&mut self, socket: OwnedFd, index: SocketIndex) -> io::Result<()>;

    /// Accepts one connection; its peer's address is taken by [`take_peer`](Self::take_peer).
    ///
    /// # Safety
    /// `address` stays where it is until the completion of `Token::Accept(accept)`, and so does the
    /// descriptor.
    unsafe fn accept(&mut self, listener: RawFd, accept: AcceptIndex, address: *mut PeerAddress);

    /// The peer of an accept that has completed. `address` is what was given to it.
    fn take_peer(&mut self, accept: AcceptIndex, address: &mut PeerAddress) -> SocketAddr;

    /// Watches a listening socket for a connection in its backlog.
    fn watch_listener(&mut self, listener: RawFd, accept: AcceptIndex);

    /// Cancels an accept of that listening socket.
    fn cancel_accept(&mut self, listener: RawFd, accept: AcceptIndex);

    /// Cancels the accepts of a listening socket, and its watch, for good.
    fn cancel_all(&mut self, listener: RawFd);

    /// Connects a socket.
    ///
    /// # Safety
    /// `address` stays where it is until the completion of `Token::Connected(socket)`.
    #[cfg(feature = "load")]
    unsafe fn connect(&mut self, socket: SocketIndex, address: &SockAddr);

    /// Receives for as long as there are buffers.
    fn receive_multishot(&mut self, socket: SocketIndex);

    /// Receives into one buffer.
    fn receive_once(&mut self, socket: SocketIndex);

    /// Sends all of `bytes`.
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until the completion of `Token::Send(send)`.
    unsafe fn send(&mut self, socket: SocketIndex, send: SendIndex, bytes: &[u8]);

    /// The same where nobody waits for the completion of a send that is done at once: it comes by
    /// [`next_done`](Self::next_done), at the earliest after the next [`reap`](Self::reap), and
    /// wakes nobody. What can't be done at once completes as any send does, with the part that was
    /// sent or with `EAGAIN`; the rest is to be sent by [`send`](Self::send).
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until the completion of `Token::Send(send)`.
    unsafe fn send_at_once(&mut self, socket: SocketIndex, send: SendIndex, bytes: &[u8]);

    /// Tells the peer that nothing more will be sent.
    fn finish_writing(&mut self, socket: SocketIndex);

    /// Cancels the receive of a socket.
    fn cancel_receive(&mut self, socket: SocketIndex);

    /// Cancels a send of a socket.
    fn cancel_send(&mut self, socket: SocketIndex, send: SendIndex);

    /// Closes a socket on which nothing is under way.
    fn close(&mut self, socket: SocketIndex);

    /// Watches an eventfd.
    fn watch(&mut self, eventfd: RawFd);

    /// Wakes the thread that has another's [`ring_fd`](Self::ring_fd); completes only if that
    /// fails.
    fn wake_ring(&mut self, ring: RawFd, party: Party);

    /// Wakes the thread so often from now on, where that takes nothing from one time to the next. A
    /// wait that is at least as long has no timer of its own then.
    fn tick(&mut self, every: Duration);

    /// Begins what was asked for, and ends what can be ended at once.
    fn submit(&mut self) -> io::Result<()>;

    /// The same in the middle of a turn that has taken long, for what has come meanwhile.
    fn submit_again(&mut self) -> io::Result<()>;

    /// True if there is a completion to take, or would be after [`submit`](Self::submit).
    fn has_completions(&mut self) -> bool;

    /// Submits, and waits for a completion.
    fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// Takes the completions that are there, as far as `batch` has room without growing.
    fn reap(&mut self, batch: &mut Vec<Completion>, buffers: &mut Self::Buffers);

    /// The same for a thread that has no sockets.
    fn reap_wakes(&mut self, batch: &mut Vec<Completion>);

    /// The number of completions of what was done at once. They need not wait for the next turn:
    /// see [`next_done`](Self::next_done).
    fn done_len(&self) -> usize;

    /// Takes the next of them.
    fn next_done(&mut self) -> Option<Completion>;
}

/// The memory that is received into, in buffers of one size.
pub(crate) trait ReceiveBuffers {
    /// The room of one buffer.
    fn buffer_bytes(&self) -> usize;

    /// The bytes that were received into a buffer, which a completion has just named.
    fn filled(&mut self, buffer: BufferIndex, len: usize) -> &mut [u8];

    /// Takes a buffer back that a completion has named.
    fn give_back(&mut self, buffer: BufferIndex);

    /// A receive has found no buffer. True if all there are were in use.
    fn ran_dry(&mut self) -> bool;

    /// A turn ends: what was given back may be received into again.
    fn publish(&mut self);
}
