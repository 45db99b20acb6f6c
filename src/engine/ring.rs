//! One io_uring: submissions that never fail for want of room, completions in batches.

#![allow(unsafe_code)] // Buffers that the kernel works on; each block says who keeps them alive.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use crate::shard::SocketIndex;

/// A ring of one thread.
pub(super) struct Ring {
    uring: IoUring,
}

/// What a completion is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// An accept, by the place that the peer's address goes to.
    Accept(u32),
    Receive(SocketIndex),
    /// By the place of its buffer.
    Send(u32),
    FinishWriting(SocketIndex),
    Cancel(SocketIndex),
    Close(SocketIndex),
    /// The doorbell's eventfd.
    Bell,
    /// Another thread's ring has woken this one.
    Woken,
    /// A party could not be woken by its ring.
    WakeFailed(u32),
    /// The accept has been cancelled.
    AcceptCancelled,
    /// A socket of the load client has been made, for the client of that place.
    Opened(u32),
    /// The client of that place has connected.
    Connected(u32),
}

/// One completion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) token: Token,
    /// The result, or the negated error number.
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot operation goes on.
    pub(super) fn has_more(self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The provided buffer that was filled.
    pub(super) fn buffer(self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

const KIND_SHIFT: u32 = 56;

impl Token {
    fn encode(self) -> u64 {
        let (kind, value) = match self {
            Self::Accept(place) => (1, place),
            Self::Receive(socket) => (2, socket.0),
            Self::Send(place) => (3, place),
            Self::FinishWriting(socket) => (4, socket.0),
            Self::Cancel(socket) => (5, socket.0),
            Self::Close(socket) => (6, socket.0),
            Self::Bell => (7, 0),
            Self::Woken => (8, 0),
            Self::WakeFailed(party) => (9, party),
            Self::AcceptCancelled => (10, 0),
            Self::Opened(place) => (11, place),
            Self::Connected(place) => (12, place),
        };
        u64::from(value) | kind << KIND_SHIFT
    }

    fn decode(word: u64) -> Option<Self> {
        let value = word as u32;
        Some(match word >> KIND_SHIFT {
            1 => Self::Accept(value),
            2 => Self::Receive(SocketIndex(value)),
            3 => Self::Send(value),
            4 => Self::FinishWriting(SocketIndex(value)),
            5 => Self::Cancel(SocketIndex(value)),
            6 => Self::Close(SocketIndex(value)),
            7 => Self::Bell,
            8 => Self::Woken,
            9 => Self::WakeFailed(value),
            10 => Self::AcceptCancelled,
            11 => Self::Opened(value),
            12 => Self::Connected(value),
            _ => return None,
        })
    }
}

/// The address of a peer, as the kernel writes it: room for IPv6.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(4))]
pub(super) struct RawAddress {
    pub(super) bytes: [u8; RAW_ADDRESS_BYTES],
    pub(super) len: u32,
}

pub(super) const RAW_ADDRESS_BYTES: usize = 28;

const SOCK_STREAM: i32 = 1;
const SHUT_WR: i32 = 1;
const MSG_WAITALL: i32 = 0x100;
const MSG_NOSIGNAL: i32 = 0x4000;
const POLL_IN: u32 = 1;

impl Ring {
    /// A ring for the thread that calls this, and no other.
    pub(super) fn new(submissions: u32, completions: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(completions)
            .build(submissions)?;
        Ok(Self { uring })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Makes the table of direct descriptors.
    pub(super) fn register_sockets(&self, count: u32) -> io::Result<()> {
        self.uring.submitter().register_files_sparse(count)
    }

    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every caller below passes an entry whose memory outlives its completion, as
            // its own comment says, or one without memory.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: the kernel takes all entries, so there is room afterwards.
            if let Err(error) = self.uring.submit()
                && !is_passing(&error)
            {
                panic!("io_uring refuses submissions: {error}");
            }
        }
    }

    /// Accepts one connection; tells its peer's address.
    ///
    /// # Safety
    /// `address` stays where it is until the completion of `Token::Accept(place)`.
    pub(super) unsafe fn accept(&mut self, listener: RawFd, place: u32, address: *mut RawAddress) {
        // SAFETY: the caller keeps the address alive; these are its fields.
        let (bytes, len) = unsafe { (&raw mut (*address).bytes, &raw mut (*address).len) };
        let slot = io_uring::types::DestinationSlot::auto_target();
        let entry = opcode::Accept::new(Fd(listener), bytes.cast(), len.cast())
            .file_index(Some(slot))
            .build();
        self.push(&entry.user_data(Token::Accept(place).encode()));
    }

    pub(super) fn cancel_accepts(&mut self, listener: RawFd) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(listener)).all()).build();
        self.push(&entry.user_data(Token::AcceptCancelled.encode()));
    }

    /// Makes a TCP socket of the given domain as a direct descriptor.
    pub(super) fn open(&mut self, domain: i32, place: u32) {
        let slot = io_uring::types::DestinationSlot::auto_target();
        let entry = opcode::Socket::new(domain, SOCK_STREAM, 0).file_index(Some(slot)).build();
        self.push(&entry.user_data(Token::Opened(place).encode()));
    }

    /// Connects a socket.
    ///
    /// # Safety
    /// `address` stays where it is until the completion of `Token::Connected(place)`.
    pub(super) unsafe fn connect(
        &mut self,
        socket: SocketIndex,
        place: u32,
        address: *const RawAddress,
    ) {
        // SAFETY: the caller keeps the address alive; these are its fields.
        let (bytes, len) = unsafe { (&raw const (*address).bytes, (*address).len) };
        let entry = opcode::Connect::new(Fixed(socket.0), bytes.cast(), len).build();
        self.push(&entry.user_data(Token::Connected(place).encode()));
    }

    /// Receives for as long as there are buffers in the group.
    pub(super) fn receive_multishot(&mut self, socket: SocketIndex, group: u16) {
        let entry = opcode::RecvMulti::new(Fixed(socket.0), group).build();
        self.push(&entry.user_data(Token::Receive(socket).encode()));
    }

    /// Sends all of `bytes`.
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until the completion of `Token::Send(place)`.
    pub(super) unsafe fn send(&mut self, socket: SocketIndex, place: u32, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fixed(socket.0), bytes.as_ptr(), len)
            .flags(MSG_WAITALL | MSG_NOSIGNAL)
            .build();
        self.push(&entry.user_data(Token::Send(place).encode()));
    }

    pub(super) fn finish_writing(&mut self, socket: SocketIndex) {
        let entry = opcode::Shutdown::new(Fixed(socket.0), SHUT_WR).build();
        self.push(&entry.user_data(Token::FinishWriting(socket).encode()));
    }

    /// Cancels the receive of a socket. The kernel finds it by its token, whereas for
    /// [`Self::cancel`] it looks at everything that the ring waits for.
    pub(super) fn cancel_receive(&mut self, socket: SocketIndex) {
        let entry = opcode::AsyncCancel::new(Token::Receive(socket).encode()).build();
        self.push(&entry.user_data(Token::Cancel(socket).encode()));
    }

    /// Cancels the send of the buffer in a place; found by its token, too.
    pub(super) fn cancel_send(&mut self, socket: SocketIndex, place: u32) {
        let entry = opcode::AsyncCancel::new(Token::Send(place).encode()).build();
        self.push(&entry.user_data(Token::Cancel(socket).encode()));
    }

    /// Cancels all that is under way on a socket.
    pub(super) fn cancel(&mut self, socket: SocketIndex) {
        let builder = CancelBuilder::fd(Fixed(socket.0)).all();
        let entry = opcode::AsyncCancel2::new(builder).build();
        self.push(&entry.user_data(Token::Cancel(socket).encode()));
    }

    pub(super) fn close(&mut self, socket: SocketIndex) {
        let entry = opcode::Close::new(Fixed(socket.0)).build();
        self.push(&entry.user_data(Token::Close(socket).encode()));
    }

    /// Watches an eventfd.
    pub(super) fn watch(&mut self, eventfd: RawFd) {
        let entry = opcode::PollAdd::new(Fd(eventfd), POLL_IN).multi(true).build();
        self.push(&entry.user_data(Token::Bell.encode()));
    }

    /// Wakes the thread of another ring; completes only if that fails.
    pub(super) fn wake(&mut self, ring: RawFd, party: u32) {
        let entry = opcode::MsgRingData::new(Fd(ring), 0, Token::Woken.encode(), None).build();
        let entry = entry.user_data(Token::WakeFailed(party).encode());
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Submits, and lets the kernel finish what it has ready. No system call if there is neither.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        match self.uring.submit() {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether there is a completion to take, or would be after a system call.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    /// Submits, and waits for a completion.
    pub(super) fn submit_and_wait(&mut self, patience: Duration) -> io::Result<()> {
        let timespec = Timespec::from(patience);
        let args = SubmitArgs::new().timespec(&timespec);
        match self.uring.submitter().submit_with_args(1, &args) {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes the completions that are there, as far as `batch` has room without growing.
    pub(super) fn reap(&mut self, batch: &mut Vec<Completion>) {
        debug_assert!(batch.is_empty());
        let room = batch.capacity();
        for entry in self.uring.completion().take(room) {
            let Some(token) = Token::decode(entry.user_data()) else { continue };
            batch.push(Completion { token, result: entry.result(), flags: entry.flags() });
        }
    }
}

/// The wait has timed out, a signal came, or completions have to be taken first.
fn is_passing(error: &io::Error) -> bool {
    // ETIME, EINTR, EBUSY, EAGAIN.
    matches!(error.raw_os_error(), Some(62 | 4 | 16 | 11))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel keeps what the queue has no room for, and hands it over as there is room.
    #[test]
    fn completions_beyond_the_room_for_them_come_later() {
        const ROOM: u32 = 8;
        let mut ring = Ring::new(ROOM, ROOM).unwrap();
        // There are no such sockets, so each close fails at once.
        let sockets = 0..ROOM * 20;
        sockets.clone().for_each(|socket| ring.close(SocketIndex(socket)));
        ring.submit().unwrap();
        assert!(ring.uring.submission().cq_overflow());
        let (mut batch, mut closed) = (Vec::with_capacity(4), Vec::new());
        while closed.len() < sockets.len() {
            ring.reap(&mut batch);
            assert!(!batch.is_empty(), "{} have come", closed.len());
            closed.extend(batch.drain(..).map(|completion| completion.token));
            ring.submit().unwrap();
        }
        assert!(closed.into_iter().eq(sockets.map(|socket| Token::Close(SocketIndex(socket)))));
    }

    #[test]
    fn tokens_come_back() {
        let socket = SocketIndex(u32::MAX);
        for token in [
            Token::Accept(6),
            Token::Receive(socket),
            Token::Send(9),
            Token::FinishWriting(socket),
            Token::Cancel(socket),
            Token::Close(socket),
            Token::Bell,
            Token::Woken,
            Token::WakeFailed(3),
            Token::AcceptCancelled,
            Token::Opened(1),
            Token::Connected(2),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
