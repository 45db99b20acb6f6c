//! A poller's own table of sockets, each with what is asked of it.

#![allow(unsafe_code)] // Bytes that the requester keeps in place are sent from.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags};

use super::completion::{BufferIndex, Completion, SendIndex, Token};
use super::epoll::{Epoll, Interest, Readiness, Source};
use super::poll_buffers::PollBuffers;
use super::traits::ReceiveBuffers as _;
use crate::shard::SocketIndex;

/// The sockets of a poller.
#[derive(Default)]
pub(super) struct PollSockets {
    sockets: Vec<PollSocket>,
    /// Places of sockets that have been closed.
    free: Vec<SocketIndex>,
    count_max: u32,
}

/// One place of the table.
pub(super) struct PollSocket {
    fd: Option<OwnedFd>,
    ready: Readiness,
    receive: Receive,
    send: Option<Send>,
    is_connecting: bool,
    /// Room to write is told.
    tells_writes: bool,
    /// Input is not told of, as it has come while no receive was under way.
    is_muted: bool,
    /// It is among those that are ready.
    pub(super) is_queued: bool,
}

/// The receive under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receive {
    None,
    Once,
    Multishot,
}

/// A send under way, of which the kernel has taken a part.
struct Send {
    index: SendIndex,
    /// INVARIANT: `len` bytes there stay as they are until the send completes.
    start: *const u8,
    len: usize,
    sent: usize,
}

impl PollSockets {
    /// Sets the number of places.
    pub(super) fn set_count_max(&mut self, count: u32) {
        self.count_max = count;
    }

    pub(super) fn count_max(&self) -> u32 {
        self.count_max
    }

    /// Takes in a connected socket at a free place.
    pub(super) fn accept(&mut self, fd: OwnedFd, epoll: &Epoll) -> Result<SocketIndex, Errno> {
        let place = self.free.pop().or_else(|| {
            let next = self.sockets.len() as u32;
            (next < self.count_max).then_some(SocketIndex(next))
        });
        let place = place.ok_or(Errno::NFILE)?;
        if let Err(error) = epoll.add(&fd, Source::Socket(place), Interest::Read) {
            self.free_again(place);
            return Err(error);
        }
        let socket = self.place(place);
        socket.open(fd);
        // Mostly it may be written to: who finds that it may not is told later.
        socket.ready.is_writable = true;
        Ok(place)
    }

    fn free_again(&mut self, place: SocketIndex) {
        self.place(place);
        self.free.push(place);
    }

    /// Takes in a socket that is not connected, at that place.
    #[cfg(feature = "load")]
    pub(super) fn install(
        &mut self,
        fd: OwnedFd,
        place: SocketIndex,
        epoll: &Epoll,
    ) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        epoll.add(&fd, Source::Socket(place), Interest::ReadAndWrite)?;
        let socket = self.place(place);
        socket.open(fd);
        socket.tells_writes = true;
        Ok(())
    }

    /// A place of the table, made if there is none.
    pub(super) fn place(&mut self, place: SocketIndex) -> &mut PollSocket {
        let index = place.0 as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, PollSocket::empty);
        }
        &mut self.sockets[index]
    }

    /// Closes a socket. Its place may be taken again.
    pub(super) fn close(&mut self, place: SocketIndex) -> Result<u32, Errno> {
        let socket = self.place(place);
        let is_queued = socket.is_queued;
        let closed = std::mem::replace(socket, PollSocket { is_queued, ..PollSocket::empty() });
        closed.fd.ok_or(Errno::BADF)?;
        self.free.push(place);
        Ok(0)
    }
}

impl PollSocket {
    fn empty() -> Self {
        Self {
            fd: None,
            ready: Readiness::NONE,
            receive: Receive::None,
            send: None,
            is_connecting: false,
            tells_writes: false,
            is_muted: false,
            is_queued: false,
        }
    }

    fn open(&mut self, fd: OwnedFd) {
        debug_assert!(self.fd.is_none());
        *self = Self { fd: Some(fd), is_queued: self.is_queued, ..Self::empty() };
    }

    pub(super) fn fd(&self) -> Result<&OwnedFd, Errno> {
        self.fd.as_ref().ok_or(Errno::BADF)
    }

    /// True if a request may be able to go on.
    pub(super) fn is_ready(&self) -> bool {
        let has_to_write = self.send.is_some() || self.is_connecting;
        self.ready.is_readable && self.receive != Receive::None
            || self.ready.is_writable && has_to_write
    }

    /// The kernel tells of a change.
    pub(super) fn changed(&mut self, place: SocketIndex, change: Readiness, epoll: &Epoll) {
        let comes_in_vain = self.receive == Receive::None && self.ready.is_readable;
        self.ready.add(change);
        // Each segment of a client that is not read from would wake the thread.
        if comes_in_vain && change.is_readable && !self.is_muted && !self.is_connecting {
            self.is_muted = true;
            self.tell_what_is_wanted(place, epoll).ok();
        }
    }

    fn tell_what_is_wanted(&self, place: SocketIndex, epoll: &Epoll) -> Result<(), Errno> {
        let interest = match (self.is_muted, self.tells_writes) {
            (true, _) => Interest::Write,
            (false, true) => Interest::ReadAndWrite,
            (false, false) => Interest::Read,
        };
        epoll.change(self.fd()?, Source::Socket(place), interest)
    }

    /// Begins to receive, for as long as there are buffers or once.
    pub(super) fn receive(&mut self, place: SocketIndex, has_more: bool, epoll: &Epoll) {
        self.receive = if has_more { Receive::Multishot } else { Receive::Once };
        if std::mem::take(&mut self.is_muted) && self.tell_what_is_wanted(place, epoll).is_err() {
            // The read says what is wrong.
            self.ready.is_readable = true;
        }
    }

    /// Ends the receive. True if there was one.
    pub(super) fn cancel_receive(&mut self) -> bool {
        std::mem::replace(&mut self.receive, Receive::None) != Receive::None
    }

    /// Begins to send. `None` if the rest has to wait.
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until the send completes.
    pub(super) unsafe fn send(
        &mut self,
        place: SocketIndex,
        index: SendIndex,
        bytes: &[u8],
        epoll: &Epoll,
    ) -> Option<Completion> {
        debug_assert!(self.send.is_none());
        self.send = Some(Send { index, start: bytes.as_ptr(), len: bytes.len(), sent: 0 });
        self.go_on_sending(place, epoll)
    }

    fn go_on_sending(&mut self, place: SocketIndex, epoll: &Epoll) -> Option<Completion> {
        if !self.ready.is_writable {
            return None;
        }
        let fd = self.fd.as_ref();
        let send = self.send.as_mut()?;
        // SAFETY: the bytes stay as they are until the send completes, and `sent` is `len` at most.
        let rest =
            unsafe { std::slice::from_raw_parts(send.start.add(send.sent), send.len - send.sent) };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = match fd {
            Some(fd) => retry_on_intr(|| rustix::net::send(fd, rest, flags)),
            None => Err(Errno::BADF),
        };
        let token = Token::Send(send.index);
        let result = match sent {
            Ok(len) => {
                send.sent += len;
                if send.sent < send.len {
                    return self.wait_for_room(place, epoll);
                }
                Ok(send.sent as u32)
            }
            Err(Errno::AGAIN) => return self.wait_for_room(place, epoll),
            // What comes next finds the same error.
            Err(_) if send.sent > 0 => Ok(send.sent as u32),
            Err(error) => Err(error),
        };
        self.send = None;
        Some(Completion::new(token, result))
    }

    /// The kernel has no room for the rest; it tells when it has.
    fn wait_for_room(&mut self, place: SocketIndex, epoll: &Epoll) -> Option<Completion> {
        self.ready.is_writable = false;
        if !std::mem::replace(&mut self.tells_writes, true)
            && let Err(error) = self.tell_what_is_wanted(place, epoll)
        {
            let index = self.send.take()?.index;
            return Some(Completion::new(Token::Send(index), Err(error)));
        }
        None
    }

    /// Ends that send, if it is under way.
    pub(super) fn cancel_send(&mut self, index: SendIndex) -> Option<Completion> {
        let send = self.send.take_if(|send| send.index == index)?;
        let result = match send.sent {
            0 => Err(Errno::CANCELED),
            sent => Ok(sent as u32),
        };
        Some(Completion::new(Token::Send(index), result))
    }

    /// Begins to connect. `None` if that has to wait.
    #[cfg(feature = "load")]
    pub(super) fn connect(
        &mut self,
        place: SocketIndex,
        address: std::net::SocketAddr,
    ) -> Option<Completion> {
        let connected = self.fd().and_then(|fd| rustix::net::connect(fd, &address));
        if matches!(connected, Err(Errno::INPROGRESS | Errno::INTR)) {
            // The kernel may have told of the socket before.
            self.ready = Readiness::NONE;
            self.is_connecting = true;
            return None;
        }
        self.ready.is_writable = connected.is_ok();
        Some(Completion::new(Token::Connected(place), connected.map(|()| 0)))
    }

    /// Goes on with what is under way, as far as the socket is ready: one buffer is received, so
    /// that each has its turn.
    pub(super) fn go_on(
        &mut self,
        place: SocketIndex,
        epoll: &Epoll,
        buffers: &mut PollBuffers,
        batch: &mut Vec<Completion>,
    ) {
        if self.is_connecting && self.ready.is_writable {
            self.is_connecting = false;
            batch.extend(self.connected(place));
        }
        batch.extend(self.go_on_sending(place, epoll));
        if self.receive != Receive::None && self.ready.is_readable {
            batch.extend(self.go_on_receiving(place, buffers));
        }
    }

    #[cfg(feature = "load")]
    fn connected(&self, place: SocketIndex) -> Option<Completion> {
        let failed = self.fd().and_then(rustix::net::sockopt::socket_error);
        Some(Completion::new(Token::Connected(place), failed.and_then(|error| error).map(|()| 0)))
    }

    #[cfg(not(feature = "load"))]
    fn connected(&self, _: SocketIndex) -> Option<Completion> {
        None
    }

    fn go_on_receiving(
        &mut self,
        place: SocketIndex,
        buffers: &mut PollBuffers,
    ) -> Option<Completion> {
        let token = Token::Receive(place);
        let Some(buffer) = buffers.take() else {
            self.receive = Receive::None;
            return Some(Completion::new(token, Err(Errno::NOBUFS)));
        };
        let received = self.fd().and_then(|fd| receive(fd, buffers.room(buffer)));
        match received {
            Ok(len @ 1..) => return Some(self.received(token, buffer, len, buffers)),
            Ok(0) | Err(_) => buffers.give_back(buffer),
        }
        if received == Err(Errno::AGAIN) {
            self.ready.is_readable = false;
            return None;
        }
        self.receive = Receive::None;
        Some(Completion::new(token, received.map(|_| 0)))
    }

    fn received(
        &mut self,
        token: Token,
        buffer: BufferIndex,
        len: usize,
        buffers: &PollBuffers,
    ) -> Completion {
        if len < buffers.buffer_bytes() {
            self.ready.read_all();
        }
        let completion = Completion::new(token, Ok(len as u32)).with_buffer(buffer);
        if self.receive == Receive::Multishot {
            return completion.with_more();
        }
        self.receive = Receive::None;
        completion
    }
}

fn receive(fd: &OwnedFd, room: &mut [u8]) -> Result<usize, Errno> {
    retry_on_intr(|| rustix::net::recv(fd, &mut *room, RecvFlags::DONTWAIT)).map(|(_, len)| len)
}
