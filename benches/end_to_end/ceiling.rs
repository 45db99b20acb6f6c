//! The ceiling: a bare io_uring server with the best settings known, and nothing else.
//!
//! Multishot accept into direct descriptors, multishot receive from one ring of provided buffers,
//! one send for each connection and batch, `SINGLE_ISSUER | DEFER_TASKRUN`, one system call for
//! each batch. What it costs is what the kernel charges for moving the bytes.

#![allow(unsafe_code)] // A ring by hand, with the memory that the kernel works on.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::pomelo::Conversation;

const SOCKETS: u32 = 16_384;
const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 16 * 1024;
const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const CLOSE: u64 = 4 << 32;
const MSG_WAITALL: i32 = 0x100;

#[derive(Default)]
struct Connection {
    conversation: Conversation,
    out: Vec<u8>,
    sending: Vec<u8>,
    is_sending: bool,
    is_dirty: bool,
}

struct Server {
    uring: IoUring,
    /// The entries of the buffer ring, page-aligned, and the buffers behind them.
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
    connections: Vec<Connection>,
    dirty: Vec<u32>,
}

/// Serves for ever.
pub(crate) fn serve(listener: &TcpListener) -> std::io::Result<()> {
    let mut server = Server::new()?;
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
    server.push(&accept.build().user_data(ACCEPT));
    let mut batch = Vec::with_capacity(8192);
    loop {
        server.uring.submit_and_wait(1)?;
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
    fn new() -> std::io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(8192)
            .build(1024)?;
        uring.submitter().register_files_sparse(SOCKETS)?;
        let entries = zeroed(usize::from(BUFFERS) * size_of::<BufRingEntry>());
        let memory = zeroed(usize::from(BUFFERS) * BUFFER_BYTES);
        // SAFETY: zeroed memory of the right size that is never freed.
        unsafe {
            let address = entries as u64;
            uring.submitter().register_buf_ring_with_flags(address, BUFFERS, 0, 0)?;
        }
        let connections = std::iter::repeat_with(Connection::default);
        let connections = connections.take(SOCKETS as usize).collect();
        let entries = entries.cast();
        let mut server = Self { uring, entries, memory, tail: 0, connections, dirty: Vec::new() };
        (0..BUFFERS).for_each(|buffer| server.give_back(buffer));
        server.publish();
        Ok(server)
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the buffers named here live until their completions: in `connections`, in
        // `memory`, or nowhere.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit().expect("submissions are taken");
        }
    }

    fn give_back(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: the place is within the ring, past the tail that the kernel has seen.
        unsafe {
            let entry = &mut *self.entries.add(place);
            entry.set_addr(self.memory.add(usize::from(buffer) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
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
            ACCEPT if result >= 0 => self.receive(result as u32),
            RECEIVE => {
                if let Some(buffer) = cqueue::buffer_select(flags) {
                    // SAFETY: the completion has handed this buffer over.
                    let input = unsafe {
                        let start = self.memory.add(usize::from(buffer) * BUFFER_BYTES);
                        std::slice::from_raw_parts(start, result.max(0) as usize)
                    };
                    let connection = &mut self.connections[place as usize];
                    connection.conversation.handle(input, &mut connection.out);
                    self.mark_dirty(place);
                    self.give_back(buffer);
                }
                if !cqueue::more(flags) {
                    if result == 0 || (result < 0 && result != -105) {
                        let close = opcode::Close::new(Fixed(place)).build();
                        self.push(&close.user_data(CLOSE | u64::from(place)));
                    } else {
                        self.publish();
                        self.receive(place);
                    }
                }
            }
            SEND => {
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
        let receive = opcode::RecvMulti::new(Fixed(place), 0).build();
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
        let send = opcode::Send::new(Fixed(place), bytes, len).flags(MSG_WAITALL).build();
        self.push(&send.user_data(SEND | u64::from(place)));
    }
}

fn zeroed(bytes: usize) -> *mut u8 {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a few MiB");
    // SAFETY: the size is not zero.
    unsafe { std::alloc::alloc_zeroed(layout) }
}
