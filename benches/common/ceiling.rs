//! The ceiling: a bare io_uring server with the best known settings.
//!
//! It uses multishot accept into direct descriptors, multishot receive from one ring of provided
//! buffers, one send per connection and batch, `SINGLE_ISSUER | DEFER_TASKRUN`, and one system call
//! per batch. Its cost is the kernel's cost of moving the bytes.

#![allow(unsafe_code)] // The ring is programmed by hand, with memory shared with the kernel.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use io_uring::types::{BufRingEntry, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::pomelo::{self, Conversation};

const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 16 * 1024;
const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const CLOSE: u64 = 4 << 32;
const PUSH: u64 = 5 << 32;
const MSG_WAITALL: i32 = 0x100;

/// Kernel features beyond the ceiling's settings, tried one at a time to see if one makes a better
/// ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Plain,
    /// Submissions without the indirection array (Linux 6.6).
    NoSqArray,
    /// The ring's own descriptor registered, which saves a look-up per system call.
    RingFd,
    /// A receive that fills several small buffers (Linux 6.10).
    Bundle,
    /// Large buffers that several receives fill in turn (Linux 6.12).
    Incremental,
    /// A wait that lasts a moment longer for further completions (Linux 6.12).
    MinWait,
    /// Sends from the server's own pages.
    ZeroCopy,
    /// Busy polling without sleep.
    BusyPoll,
    /// The plain server, which also sends a request's body to all connections as a push, if asked.
    PushToAll,
}

impl Variant {
    pub(crate) const ALL: [Self; 8] = [
        Self::Plain,
        Self::NoSqArray,
        Self::RingFd,
        Self::Bundle,
        Self::Incremental,
        Self::MinWait,
        Self::ZeroCopy,
        Self::BusyPoll,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "ceiling",
            Self::NoSqArray => "no-sqarray",
            Self::RingFd => "ring-fd",
            Self::Bundle => "bundle",
            Self::Incremental => "incremental",
            Self::MinWait => "min-wait",
            Self::ZeroCopy => "send-zc",
            Self::BusyPoll => "busy-poll",
            Self::PushToAll => "push-to-all",
        }
    }

    /// The number and size of the provided buffers, which take 4 MiB in all.
    fn buffers(self) -> (u16, usize) {
        match self {
            Self::Bundle => (2048, 2 * 1024),
            Self::Incremental => (32, 128 * 1024),
            _ => (BUFFERS, BUFFER_BYTES),
        }
    }
}

/// The number of completions that a wait asks for; its time limit follows.
const MIN_WAIT_COMPLETIONS: usize = 32;
const MIN_WAIT_US: u32 = 20;
/// `IOU_PBUF_RING_INC`.
const INCREMENTAL: u16 = 2;

#[derive(Default)]
struct Connection {
    is_up: bool,
    conversation: Conversation,
    out: Vec<u8>,
    sending: Vec<u8>,
    is_sending: bool,
    is_dirty: bool,
}

struct Server {
    variant: Variant,
    uring: IoUring,
    buffers: u16,
    buffer_bytes: usize,
    /// With bundles: the buffers in the order in which the kernel uses them.
    order: VecDeque<u16>,
    /// With incremental buffers: the filled bytes of each.
    filled: Vec<usize>,
    /// The entries of the buffer ring, page-aligned, and the buffers behind them.
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
    connections: Vec<Connection>,
    dirty: Vec<u32>,
    /// The latest push; it is not changed while sends of it are in flight.
    push: Vec<u8>,
    pushes_under_way: usize,
}

/// The waits of all rings of this process.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// The number of times that a ring of this process has waited for completions, which is also its
/// number of turns.
pub(crate) fn turns() -> u64 {
    TURNS.load(Ordering::Relaxed)
}

/// Serves up to `sockets` connections for ever.
pub(crate) fn serve(
    listeners: &[TcpListener],
    variant: Variant,
    sockets: u32,
) -> std::io::Result<()> {
    let mut server = Server::new(variant, sockets)?;
    for listener in listeners {
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
        server.push(&accept.build().user_data(ACCEPT));
    }
    let mut batch = Vec::with_capacity(8192);
    loop {
        server.wait()?;
        TURNS.fetch_add(1, Ordering::Relaxed);
        batch.extend(server.uring.completion().map(|c| (c.user_data(), c.result(), c.flags())));
        for (token, result, flags) in batch.drain(..) {
            server.handle(token, result, flags);
        }
        while let Some(place) = server.dirty.pop() {
            server.send(place);
        }
        server.publish();
    }
}

impl Server {
    fn new(variant: Variant, sockets: u32) -> std::io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
        // Room for all completions of a push to many.
        builder.setup_cqsize(if variant == Variant::PushToAll { 32_768 } else { 8192 });
        if variant == Variant::NoSqArray {
            builder.setup_no_sqarray();
        }
        let uring = builder.build(1024)?;
        if variant == Variant::RingFd {
            uring.submitter().register_ring_fd()?;
        }
        uring.submitter().register_files_sparse(sockets)?;
        let (buffers, buffer_bytes) = variant.buffers();
        let entries = zeroed(usize::from(buffers) * size_of::<BufRingEntry>());
        let memory = zeroed(usize::from(buffers) * buffer_bytes);
        let flags = if variant == Variant::Incremental { INCREMENTAL } else { 0 };
        // SAFETY: zeroed memory of the right size that is never freed.
        unsafe {
            let address = entries as u64;
            uring.submitter().register_buf_ring_with_flags(address, buffers, 0, flags)?;
        }
        let mut server = Self {
            variant,
            uring,
            buffers,
            buffer_bytes,
            order: VecDeque::new(),
            filled: vec![0; buffers.into()],
            entries: entries.cast(),
            memory,
            tail: 0,
            connections: Vec::new(),
            dirty: Vec::new(),
            push: Vec::new(),
            pushes_under_way: 0,
        };
        (0..buffers).for_each(|buffer| server.give_back(buffer));
        server.publish();
        Ok(server)
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let (now, soon) = (Timespec::new(), Timespec::new().nsec(20_000_000));
        let submitter = self.uring.submitter();
        let waited = match self.variant {
            Variant::MinWait => {
                let args = SubmitArgs::new().timespec(&soon).min_wait_usec(MIN_WAIT_US);
                submitter.submit_with_args(MIN_WAIT_COMPLETIONS, &args)
            }
            Variant::BusyPoll => submitter.submit_with_args(1, &SubmitArgs::new().timespec(&now)),
            _ => submitter.submit_and_wait(1),
        };
        match waited {
            // ETIME: fewer completions arrived than asked for, or none.
            Err(error) if error.raw_os_error() != Some(62) => Err(error),
            _ => Ok(()),
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the buffers named here live until their completions: in `connections`, in
        // `memory`, or nowhere.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit().expect("submissions are taken");
        }
    }

    fn give_back(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (self.buffers - 1));
        // SAFETY: the index is within the ring, past the tail that the kernel has seen.
        unsafe {
            let entry = &mut *self.entries.add(place);
            entry.set_addr(self.memory.add(usize::from(buffer) * self.buffer_bytes) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        if self.variant == Variant::Bundle {
            self.order.push_back(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Answers the bytes that a receive has put into its buffers, and returns the buffers that are
    /// used up.
    fn take(&mut self, place: u32, buffer: u16, len: usize, flags: u32) {
        match self.variant {
            Variant::Bundle => {
                let mut left = len;
                loop {
                    let buffer = self.order.pop_front().expect("the kernel took it from here");
                    let part = left.min(self.buffer_bytes);
                    self.answer(place, buffer, 0, part);
                    self.give_back(buffer);
                    left -= part;
                    if left == 0 {
                        break;
                    }
                }
            }
            Variant::Incremental => {
                let start = self.filled[usize::from(buffer)];
                self.answer(place, buffer, start, len);
                self.filled[usize::from(buffer)] = start + len;
                if !cqueue::buffer_more(flags) {
                    self.filled[usize::from(buffer)] = 0;
                    self.give_back(buffer);
                }
            }
            _ => {
                self.answer(place, buffer, 0, len);
                self.give_back(buffer);
            }
        }
        self.mark_dirty(place);
    }

    fn answer(&mut self, place: u32, buffer: u16, start: usize, len: usize) {
        assert!(buffer < self.buffers && start + len <= self.buffer_bytes);
        // SAFETY: the completion has handed this part of the buffer over.
        let input = unsafe {
            let at = self.memory.add(usize::from(buffer) * self.buffer_bytes + start);
            std::slice::from_raw_parts(at, len)
        };
        let connection = &mut self.connections[place as usize];
        connection.conversation.handle(input, &mut connection.out);
        if self.variant == Variant::PushToAll
            && self.pushes_under_way == 0
            && pomelo::push_of(input, &mut self.push)
        {
            self.push_to_all();
        }
    }

    /// Sends the same bytes to all connections without a copy. A connection with another send in
    /// flight gets them behind it.
    fn push_to_all(&mut self) {
        for place in 0..self.connections.len() as u32 {
            let connection = &mut self.connections[place as usize];
            if !connection.is_up {
                continue;
            }
            if connection.is_sending {
                connection.out.extend_from_slice(&self.push);
                self.mark_dirty(place);
                continue;
            }
            connection.is_sending = true;
            self.pushes_under_way += 1;
            let (bytes, len) = (self.push.as_ptr(), self.push.len() as u32);
            let send = opcode::Send::new(Fixed(place), bytes, len).flags(MSG_WAITALL).build();
            self.push(&send.user_data(PUSH | u64::from(place)));
        }
    }

    fn publish(&self) {
        // SAFETY: the tail is an aligned u16 within the first entry.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    fn handle(&mut self, token: u64, result: i32, flags: u32) {
        let place = token as u32;
        match token & !0xffff_ffff {
            ACCEPT if result >= 0 => {
                let place = result as usize;
                if self.connections.len() <= place {
                    self.connections.resize_with(place + 1, Connection::default);
                }
                self.connections[place].is_up = true;
                self.receive(result as u32);
            }
            RECEIVE => {
                if let Some(buffer) = cqueue::buffer_select(flags) {
                    self.take(place, buffer, result.max(0) as usize, flags);
                }
                if !cqueue::more(flags) {
                    if result == 0 || (result < 0 && result != -105) {
                        self.connections[place as usize].is_up = false;
                        let close = opcode::Close::new(Fixed(place)).build();
                        self.push(&close.user_data(CLOSE | u64::from(place)));
                    } else {
                        self.publish();
                        self.receive(place);
                    }
                }
            }
            // A zero-copy send completes twice; its bytes are needed until the second completion.
            SEND if self.variant == Variant::ZeroCopy && cqueue::more(flags) => {}
            SEND | PUSH => {
                self.pushes_under_way -= usize::from(token & !0xffff_ffff == PUSH);
                let connection = &mut self.connections[place as usize];
                connection.is_sending = false;
                connection.sending.clear();
                self.mark_dirty(place);
            }
            CLOSE => self.connections[place as usize] = Connection::default(),
            _ => {}
        }
    }

    fn receive(&mut self, place: u32) {
        let receive = match self.variant {
            Variant::Bundle => opcode::RecvMultiBundle::new(Fixed(place), 0).build(),
            _ => opcode::RecvMulti::new(Fixed(place), 0).build(),
        };
        self.push(&receive.user_data(RECEIVE | u64::from(place)));
    }

    fn mark_dirty(&mut self, place: u32) {
        if !std::mem::replace(&mut self.connections[place as usize].is_dirty, true) {
            self.dirty.push(place);
        }
    }

    fn send(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        connection.is_dirty = false;
        if connection.is_sending || connection.out.is_empty() {
            return;
        }
        connection.is_sending = true;
        std::mem::swap(&mut connection.out, &mut connection.sending);
        let (bytes, len) = (connection.sending.as_ptr(), connection.sending.len() as u32);
        let target = Fixed(place);
        let send = match self.variant {
            Variant::ZeroCopy => opcode::SendZc::new(target, bytes, len).flags(MSG_WAITALL).build(),
            _ => opcode::Send::new(target, bytes, len).flags(MSG_WAITALL).build(),
        };
        self.push(&send.user_data(SEND | u64::from(place)));
    }
}

fn zeroed(bytes: usize) -> *mut u8 {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a few MiB");
    // SAFETY: the size is not zero.
    unsafe { std::alloc::alloc_zeroed(layout) }
}
