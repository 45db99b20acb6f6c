//! One io_uring: submissions that never fail for want of room, completions in batches.

#![allow(unsafe_code)] // Buffers that the kernel works on; each block says who keeps them alive.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
#[cfg(feature = "load")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use smallvec::SmallVec;
#[cfg(feature = "load")]
use socket2::SockAddr;

use super::address::PeerAddress;
use super::completion::{AcceptIndex, Completion, SendIndex, Token};
use super::faults;
#[cfg(test)]
use super::refusal;
use super::restrictions::restrict_and_enable;
use super::ring_buffers::RingBuffers;
use super::size::RingSize;
use super::traits::{Io, ReceiveBuffers as _};
use crate::forward::Party;
use crate::shard::SocketIndex;

/// A ring of one thread.
pub(crate) struct Ring {
    uring: IoUring,
    /// For an enter that waits.
    wait_flags: EnterFlags,
    /// Entries that the kernel has yet to make room for, in order.
    ///
    /// INVARIANT: as long as there are any the submission queue is full, so nothing overtakes them.
    waiting: VecDeque<squeue::Entry>,
    /// Sends without a completion, in order.
    at_once: VecDeque<AtOnce>,
    /// Those of them, from the first, that the kernel has taken.
    taken_at_once: usize,
    /// Those of these whose completion would have come by now, so that they are done.
    done_at_once: usize,
    /// Entries that were ever pushed, and completions that were ever reaped.
    pushed: u64,
    reaped: u64,
    tick: Option<Tick>,
    /// The time since which the kernel has taken nothing.
    refused_since: Option<Instant>,
    /// An error between two submissions.
    failure: Option<io::Error>,
}

/// One timer for all waits, instead of one that is set and taken back in each of them.
struct Tick {
    every: Duration,
    /// The same, as the kernel reads it.
    timespec: Box<Timespec>,
    is_running: bool,
}

/// The wait of an enter.
#[derive(Debug, Clone, Copy)]
enum Wait {
    No,
    AtMost(Duration),
    /// For a completion, of which the tick is one.
    ForTick,
}

/// A send that completes only if the kernel does not do it at once.
struct AtOnce {
    send: SendIndex,
    len: u32,
    /// The number of its entry, from 1.
    entry: u64,
    /// The completions that there were, reaped or not, when the kernel had taken it: its own is
    /// among these if there is one. Set once it is taken.
    completions: u64,
}

/// The time for which the kernel may refuse everything before the ring counts as failed. Clients
/// that wait for an answer have given up by then.
const REFUSED_MAX: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 10_000 });
/// The pause before it is asked again.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// All of a send's bytes, and no signal where the peer has gone.
const SEND_FLAGS: i32 = (RecvFlags::WAITALL.bits() | SendFlags::NOSIGNAL.bits()) as i32;
/// As much of it as the socket takes at once: a send that fails for that is not tried again.
const SEND_AT_ONCE_FLAGS: i32 = SEND_FLAGS | SendFlags::DONTWAIT.bits() as i32;
const READABLE: u32 = PollFlags::IN.bits() as u32;
/// The group of receive buffers; a ring has one.
const BUFFER_GROUP: u16 = 0;

impl Ring {
    /// A ring for the thread that calls this, and no other, which takes the requests below only.
    pub(crate) fn new(size: RingSize) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(size.completions)
            .build(size.submissions)?;
        restrict_and_enable(&uring)?;
        let params = uring.params();
        let wait_flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS;
        let wait_flags = match params.is_feature_no_iowait() {
            // A thread that sleeps in its ring is idle, and is not to look busy with a disk.
            true => wait_flags | EnterFlags::NO_IOWAIT,
            false => wait_flags,
        };
        Ok(Self {
            uring,
            wait_flags,
            waiting: VecDeque::new(),
            at_once: VecDeque::new(),
            taken_at_once: 0,
            done_at_once: 0,
            pushed: 0,
            reaped: 0,
            tick: None,
            refused_since: None,
            failure: None,
        })
    }

    pub(crate) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// A ring for a test; none where the system has none to give, which is said.
    ///
    /// # Panics
    /// It fails for another reason.
    #[cfg(test)]
    pub(super) fn or_skip(size: RingSize) -> Option<Self> {
        let failed = |error| refusal::ring_failed("a ring", error, size.bytes());
        Self::new(size).map_err(|error| refusal::skip(&refusal::explain(error, failed))).ok()
    }

    #[cfg(test)]
    pub(super) fn uring_mut(&mut self) -> &mut IoUring {
        &mut self.uring
    }

    fn push(&mut self, entry: &squeue::Entry) {
        self.pushed += 1;
        // SAFETY: every caller below passes an entry whose memory outlives its completion, as
        // its own comment says, or one without memory.
        if unsafe { self.uring.submission().push(entry) }.is_err() {
            self.push_to_full(entry);
        }
    }

    /// The queue is full. The kernel takes all entries, so there is room afterwards; what it
    /// refuses for now waits behind them.
    #[cold]
    fn push_to_full(&mut self, entry: &squeue::Entry) {
        self.waiting.push_back(entry.clone());
        if let Err(error) = self.enter(Wait::No) {
            // Told by the next submission, which is to come before the thread sleeps.
            self.failure.get_or_insert(error);
        }
    }

    /// Puts what has waited into the queue, as far as there is room.
    fn refill(&mut self) {
        while let Some(entry) = self.waiting.front() {
            // SAFETY: as in `push`; the entry's memory still outlives its completion.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Lets the kernel take what is in the queue, and waits for a completion if it is to.
    ///
    /// # Errors
    /// It refuses for good, or has refused for [`REFUSED_MAX`].
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let entered = match (faults::next(), wait) {
            (Some(error), _) => Err(error),
            (None, Wait::No) => self.uring.submit(),
            (None, Wait::ForTick) => self.enter_and_wait(&SubmitArgs::new()),
            (None, Wait::AtMost(timeout)) => {
                self.enter_and_wait(&SubmitArgs::new().timespec(&Timespec::from(timeout)))
            }
        };
        if self.taken_at_once < self.at_once.len() {
            self.note_taken();
        }
        self.refill();
        match entered.map_err(|error| (refusal(&error), error)) {
            Ok(_) | Err((Refusal::None, _)) => {
                self.refused_since = None;
                Ok(())
            }
            Err((Refusal::ForNow, error)) => self.handle_refusal(error),
            Err((Refusal::ForGood, error)) => Err(error),
        }
    }

    fn enter_and_wait(&mut self, args: &SubmitArgs<'_, '_>) -> io::Result<usize> {
        let entries = self.uring.submission().len() as u32;
        let flags = self.wait_flags.bits();
        // SAFETY: the arguments are those that the flag EXT_ARG promises.
        unsafe { self.uring.submitter().enter(entries, 1, flags, Some(args)) }
    }

    /// The way to wait for so long: by the tick, which is set going, or by a timer.
    fn wait_for(&mut self, timeout: Duration) -> Wait {
        match &mut self.tick {
            Some(tick) if timeout >= tick.every => {
                if !std::mem::replace(&mut tick.is_running, true) {
                    self.begin_tick();
                }
                Wait::ForTick
            }
            _ => Wait::AtMost(timeout),
        }
    }

    #[cold]
    fn begin_tick(&mut self) {
        let Some(tick) = &self.tick else { return };
        let entry = opcode::Timeout::new(&raw const *tick.timespec).flags(TimeoutFlags::MULTISHOT);
        self.push(&entry.build().user_data(Token::Tick.encode()));
    }

    /// The tick has come, and goes on unless this was the last one.
    #[cold]
    fn handle_tick(&mut self, completion: Completion) {
        match (completion.result(), &mut self.tick) {
            _ if completion.has_more() => {}
            (Err(Errno::TIME | Errno::CANCELED), Some(tick)) => tick.is_running = false,
            // Linux before 6.4 has none that goes on: each wait has its timer.
            _ => self.tick = None,
        }
    }

    /// Takes note of the sends without a completion that the kernel has taken. They are done, but
    /// for those that have a completion all the same, which is there by now.
    fn note_taken(&mut self) {
        let queue = self.uring.submission();
        let left = queue.len() + self.waiting.len();
        // A completion that finds no room is not seen yet.
        if queue.cq_overflow() {
            return;
        }
        drop(queue);
        let taken = self.pushed - left as u64;
        let completions = self.reaped + self.uring.completion().len() as u64;
        for at_once in self.at_once.iter_mut().skip(self.taken_at_once) {
            if at_once.entry > taken {
                return;
            }
            at_once.completions = completions;
            self.taken_at_once += 1;
        }
    }

    /// Takes note of those that are done, once completions were reaped.
    fn note_done(&mut self) {
        let taken = self.at_once.iter().take(self.taken_at_once).skip(self.done_at_once);
        let reaped = self.reaped;
        self.done_at_once += taken.take_while(|it| it.completions <= reaped).count();
    }

    /// A send was not done at once, so it completes as others do.
    #[cold]
    fn take_from_at_once(&mut self, send: SendIndex) {
        if let Some(index) = self.at_once.iter().position(|at_once| at_once.send == send) {
            self.at_once.remove(index);
            self.taken_at_once -= usize::from(index < self.taken_at_once);
            debug_assert!(index >= self.done_at_once, "its completion has come in time");
        }
    }

    /// The kernel can't take anything for now, mostly for want of memory: it is asked again in the
    /// next turn, which may come a little later if there is nothing else to do.
    #[cold]
    fn handle_refusal(&mut self, error: io::Error) -> io::Result<()> {
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() > REFUSED_MAX {
            return Err(error);
        }
        if self.uring.completion().is_empty() {
            std::thread::sleep(REFUSED_PAUSE);
        }
        Ok(())
    }
}

impl Io for Ring {
    const NAME: &'static str = "the ring";
    type Buffers = RingBuffers;

    fn open(size: RingSize) -> io::Result<Self> {
        Self::new(size)
    }

    fn ring_fd(&self) -> Option<RawFd> {
        Some(self.uring.as_raw_fd())
    }

    /// Makes the table of direct descriptors.
    fn register_sockets(&mut self, count: u32) -> io::Result<()> {
        self.uring.submitter().register_files_sparse(count)
    }

    fn make_buffers(&mut self, count: u16, buffer_bytes: u32) -> io::Result<RingBuffers> {
        let mut buffers = RingBuffers::new(count, buffer_bytes);
        let (address, submitter) = (buffers.entries_address(), self.uring.submitter());
        // SAFETY: the address is that of as many entries, which live until the buffers are dropped;
        // that is after the ring.
        unsafe { submitter.register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0)? };
        buffers.publish();
        Ok(buffers)
    }

    #[cfg(feature = "load")]
    fn install(&mut self, socket: OwnedFd, index: SocketIndex) -> io::Result<()> {
        let update = &[socket.as_raw_fd()];
        self.uring.submitter().register_files_update(index.0, update).map(drop)
    }

    unsafe fn accept(&mut self, listener: RawFd, accept: AcceptIndex, address: *mut PeerAddress) {
        // SAFETY: the caller keeps the address alive; these are its fields.
        let (storage, len) = unsafe { (&raw mut (*address).storage, &raw mut (*address).len) };
        let slot = io_uring::types::DestinationSlot::auto_target();
        let entry =
            opcode::Accept::new(Fd(listener), storage.cast(), len).file_index(Some(slot)).build();
        self.push(&entry.user_data(Token::Accept(accept).encode()));
    }

    fn take_peer(&mut self, _: AcceptIndex, address: &mut PeerAddress) -> SocketAddr {
        address.take()
    }

    fn watch_listener(&mut self, listener: RawFd, accept: AcceptIndex) {
        let entry = opcode::PollAdd::new(Fd(listener), READABLE).build();
        self.push(&entry.user_data(Token::Waiting(accept).encode()));
    }

    fn cancel_accept(&mut self, _: RawFd, accept: AcceptIndex) {
        let entry = opcode::AsyncCancel::new(Token::Accept(accept).encode()).build();
        self.push(&entry.user_data(Token::AcceptCancelled.encode()));
    }

    fn cancel_all(&mut self, listener: RawFd) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(listener)).all()).build();
        self.push(&entry.user_data(Token::AcceptCancelled.encode()));
    }

    #[cfg(feature = "load")]
    unsafe fn connect(&mut self, socket: SocketIndex, address: &SockAddr) {
        let entry =
            opcode::Connect::new(Fixed(socket.0), address.as_ptr().cast(), address.len()).build();
        self.push(&entry.user_data(Token::Connected(socket).encode()));
    }

    fn receive_multishot(&mut self, socket: SocketIndex) {
        let entry = opcode::RecvMulti::new(Fixed(socket.0), BUFFER_GROUP).build();
        self.push(&entry.user_data(Token::Receive(socket).encode()));
    }

    fn receive_once(&mut self, socket: SocketIndex) {
        let entry = opcode::Recv::new(Fixed(socket.0), std::ptr::null_mut(), 0)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(&entry.user_data(Token::Receive(socket).encode()));
    }

    unsafe fn send(&mut self, socket: SocketIndex, send: SendIndex, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry =
            opcode::Send::new(Fixed(socket.0), bytes.as_ptr(), len).flags(SEND_FLAGS).build();
        self.push(&entry.user_data(Token::Send(send).encode()));
    }

    unsafe fn send_at_once(&mut self, socket: SocketIndex, send: SendIndex, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fixed(socket.0), bytes.as_ptr(), len);
        let entry = entry.flags(SEND_AT_ONCE_FLAGS).build().flags(squeue::Flags::SKIP_SUCCESS);
        let entry = entry.user_data(Token::SentInPart(send).encode());
        // In front: to push may let the kernel take it.
        let number = self.pushed + 1;
        self.at_once.push_back(AtOnce { send, len, entry: number, completions: u64::MAX });
        self.push(&entry);
    }

    fn finish_writing(&mut self, socket: SocketIndex) {
        let entry = opcode::Shutdown::new(Fixed(socket.0), Shutdown::Write as i32).build();
        self.push(&entry.user_data(Token::FinishWriting(socket).encode()));
    }

    /// The kernel finds it by its token; by its socket it would look at everything that the ring
    /// waits for.
    fn cancel_receive(&mut self, socket: SocketIndex) {
        let entry = opcode::AsyncCancel::new(Token::Receive(socket).encode()).build();
        self.push(&entry.user_data(Token::Cancel(socket).encode()));
    }

    fn cancel_send(&mut self, socket: SocketIndex, send: SendIndex) {
        let entry = opcode::AsyncCancel::new(Token::Send(send).encode()).build();
        self.push(&entry.user_data(Token::Cancel(socket).encode()));
    }

    fn close(&mut self, socket: SocketIndex) {
        let entry = opcode::Close::new(Fixed(socket.0)).build();
        self.push(&entry.user_data(Token::Close(socket).encode()));
    }

    fn watch(&mut self, eventfd: RawFd) {
        let entry = opcode::PollAdd::new(Fd(eventfd), READABLE).multi(true).build();
        self.push(&entry.user_data(Token::Bell.encode()));
    }

    fn wake_ring(&mut self, ring: RawFd, party: Party) {
        let entry = opcode::MsgRingData::new(Fd(ring), 0, Token::Woken.encode(), None).build();
        let entry = entry.user_data(Token::WakeFailed(party).encode());
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS));
    }

    fn tick(&mut self, every: Duration) {
        let timespec = Box::new(Timespec::from(every));
        self.tick = Some(Tick { every, timespec, is_running: false });
    }

    /// Submits, and lets the kernel finish what it has ready. No system call if there is neither.
    fn submit(&mut self) -> io::Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let queue = self.uring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        self.enter(Wait::No)
    }

    fn submit_again(&mut self) -> io::Result<()> {
        self.submit()
    }

    fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let wait = self.wait_for(timeout);
        self.enter(wait)
    }

    fn reap(&mut self, batch: &mut Vec<Completion>, _: &mut RingBuffers) {
        self.reap_wakes(batch);
    }

    #[inline]
    fn done_len(&self) -> usize {
        self.done_at_once
    }

    #[inline]
    fn next_done(&mut self) -> Option<Completion> {
        self.done_at_once = self.done_at_once.checked_sub(1)?;
        self.taken_at_once -= 1;
        let AtOnce { send, len, .. } = self.at_once.pop_front()?;
        Some(Completion::new(Token::Send(send), Ok(len)))
    }

    fn reap_wakes(&mut self, batch: &mut Vec<Completion>) {
        debug_assert!(batch.is_empty());
        let room = batch.capacity();
        let mut unknown = 0;
        let (mut in_part, mut tick) = (SmallVec::<[SendIndex; 4]>::new(), None);
        for entry in self.uring.completion().take(room) {
            let Some(mut completion) = Completion::decode(&entry) else {
                unknown += 1;
                continue;
            };
            match completion.token {
                Token::SentInPart(send) => {
                    completion.token = Token::Send(send);
                    in_part.push(send);
                }
                Token::Tick => tick = Some(completion),
                _ => {}
            }
            batch.push(completion);
        }
        if let Some(completion) = tick {
            self.handle_tick(completion);
        }
        self.reaped += (batch.len() + unknown) as u64;
        in_part.into_iter().for_each(|send| self.take_from_at_once(send));
        if self.done_at_once < self.taken_at_once {
            self.note_done();
        }
    }
}

/// The meaning of an error of the kernel's for what was to be submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Nothing: the wait has timed out, or a signal came.
    None,
    /// Completions have to be taken first, or there is no memory.
    ForNow,
    ForGood,
}

fn refusal(error: &io::Error) -> Refusal {
    match Errno::from_io_error(error) {
        Some(Errno::TIME | Errno::INTR) => Refusal::None,
        Some(Errno::BUSY | Errno::AGAIN | Errno::NOMEM) => Refusal::ForNow,
        _ => Refusal::ForGood,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel keeps what the queue has no room for, and hands it over as there is room.
    #[test]
    fn completions_beyond_the_room_for_them_come_later() {
        const ROOM: u32 = 8;
        let Some(mut ring) = Ring::or_skip(RingSize { submissions: ROOM, completions: ROOM })
        else {
            return;
        };
        // There are no such sockets, so each close fails at once.
        let sockets = 0..ROOM * 20;
        sockets.clone().for_each(|socket| ring.close(SocketIndex(socket)));
        ring.submit().unwrap();
        assert!(ring.uring.submission().cq_overflow());
        let (mut batch, mut closed) = (Vec::with_capacity(4), Vec::new());
        while closed.len() < sockets.len() {
            ring.reap_wakes(&mut batch);
            assert!(!batch.is_empty(), "{} have come", closed.len());
            closed.extend(batch.drain(..).map(|completion| completion.token));
            ring.submit().unwrap();
        }
        assert!(closed.into_iter().eq(sockets.map(|socket| Token::Close(SocketIndex(socket)))));
    }

    /// Nothing is lost or changes places while the kernel refuses, however much is submitted.
    #[test]
    fn what_the_kernel_refuses_for_now_waits_its_turn() {
        const ROOM: u32 = 8;
        let Some(mut ring) = Ring::or_skip(RingSize { submissions: ROOM, completions: 256 }) else {
            return;
        };
        let sockets = 0..ROOM * 5;
        for refused in [Errno::AGAIN, Errno::BUSY, Errno::NOMEM, Errno::INTR] {
            faults::fail(&[(refused, 70)]);
            sockets.clone().for_each(|socket| ring.close(SocketIndex(socket)));
            assert!(!ring.waiting.is_empty());
            let (mut batch, mut closed) = (Vec::with_capacity(256), Vec::new());
            while closed.len() < sockets.len() {
                ring.submit().unwrap();
                ring.reap_wakes(&mut batch);
                closed.extend(batch.drain(..).map(|completion| completion.token));
            }
            assert!(closed.into_iter().eq(sockets.clone().map(|s| Token::Close(SocketIndex(s)))));
            assert!(ring.waiting.is_empty());
        }
        assert!(faults::next().is_none(), "every fault has come");
    }

    /// Sends at once to sockets with room and to some without, through a ring that is too small for
    /// them and a kernel that refuses from time to time: each completes once, behind its bytes.
    #[test]
    fn sends_at_once_complete_once_each_whether_they_fit_or_not() {
        use std::io::{Read as _, Write as _};
        use std::os::unix::net::UnixStream;

        const SOCKETS: u32 = 40;
        let bytes = vec![7; 300];
        for (size, refused) in [(8, 0), (8, 30), (64, 0), (64, 30)] {
            let size = RingSize { submissions: size, completions: size };
            let Some(mut ring) = Ring::or_skip(size) else { return };
            ring.register_sockets(SOCKETS).unwrap();
            let mut pairs = Vec::new();
            for index in 0..SOCKETS {
                let (own, peer) = UnixStream::pair().unwrap();
                own.set_nonblocking(true).unwrap();
                peer.set_nonblocking(true).unwrap();
                // Every third has no room at all.
                while index % 3 == 0 && (&own).write(&[0; 4_096]).is_ok() {}
                let update = [own.as_raw_fd()];
                ring.uring.submitter().register_files_update(index, &update).unwrap();
                pairs.push((own, peer));
            }
            if refused > 0 {
                faults::fail(&[(Errno::AGAIN, refused)]);
            }
            let mut batch = Vec::with_capacity(5);
            let mut completed = vec![0; SOCKETS as usize];
            for index in 0..SOCKETS {
                // SAFETY: the bytes outlive the ring, which is dropped at the end of the loop.
                unsafe { ring.send_at_once(SocketIndex(index), SendIndex(index), &bytes) };
            }
            while completed.contains(&0) {
                ring.submit().unwrap();
                ring.reap_wakes(&mut batch);
                let done: Vec<_> = std::iter::from_fn(|| ring.next_done()).collect();
                for completion in done.into_iter().chain(batch.drain(..)) {
                    let Token::Send(SendIndex(index)) = completion.token else { panic!() };
                    completed[index as usize] += 1;
                    let mut received = [0; 301];
                    match completion.result() {
                        Err(error) => assert_eq!((error, index % 3), (Errno::AGAIN, 0)),
                        Ok(len) => {
                            assert_eq!((len, index % 3 == 0), (300, false));
                            let peer = &mut pairs[index as usize].1;
                            assert_eq!(peer.read(&mut received).unwrap(), 300);
                        }
                    }
                }
            }
            assert!(completed.iter().all(|count| *count == 1), "{completed:?}");
            assert!(ring.at_once.is_empty() && faults::next().is_none());
        }
    }

    /// Waits end by the tick, however often, and a shorter one by a timer of its own; where the
    /// kernel has no tick, or it has ended, nobody waits for ever.
    #[test]
    fn waits_end_by_the_tick_or_by_their_own_timer() {
        const EVERY: Duration = Duration::from_millis(5);
        let Some(mut ring) = Ring::or_skip(RingSize { submissions: 8, completions: 64 }) else {
            return;
        };
        ring.tick(EVERY);
        let mut batch = Vec::with_capacity(64);
        let mut ticks = 0;
        while ticks < 3 {
            ring.submit_and_wait(EVERY).unwrap();
            ring.reap_wakes(&mut batch);
            ticks += batch.drain(..).filter(|it| it.token == Token::Tick && it.has_more()).count();
            if ring.tick.is_none() {
                return println!("skipped: this kernel has no timeout that goes on");
            }
        }
        // The next tick may come first; it is no reason to wait for another.
        ring.submit_and_wait(EVERY / 5).unwrap();
        ring.reap_wakes(&mut batch);
        batch.clear();
        // As if it had ended: another is begun, and the first one goes on beside it.
        ring.handle_tick(Completion::new(Token::Tick, Err(Errno::CANCELED)));
        assert!(ring.tick.as_ref().is_some_and(|tick| !tick.is_running));
        ring.submit_and_wait(EVERY).unwrap();
        assert!(ring.tick.as_ref().is_some_and(|tick| tick.is_running));
        // As if the kernel had none: each wait has its own timer.
        ring.handle_tick(Completion::new(Token::Tick, Err(Errno::INVAL)));
        assert!(ring.tick.is_none());
        assert!(matches!(ring.wait_for(EVERY), Wait::AtMost(EVERY)));
    }

    #[test]
    fn a_kernel_that_refuses_for_good_is_told() {
        let Some(mut ring) = Ring::or_skip(RingSize { submissions: 8, completions: 64 }) else {
            return;
        };
        faults::fail(&[(Errno::BADF, 1)]);
        ring.close(SocketIndex(1));
        assert_eq!(Errno::from_io_error(&ring.submit().unwrap_err()), Some(Errno::BADF));
        // In the middle of a turn, too.
        faults::fail(&[(Errno::BADF, 1)]);
        (0..9).for_each(|socket| ring.close(SocketIndex(socket)));
        let told = ring.submit_and_wait(Duration::ZERO).unwrap_err();
        assert_eq!(Errno::from_io_error(&told), Some(Errno::BADF));
        // And one that never has any memory.
        faults::fail(&[(Errno::NOMEM, usize::MAX)]);
        let started = Instant::now();
        let told = loop {
            if let Err(error) = ring.submit() {
                break error;
            }
            assert!(started.elapsed() < REFUSED_MAX * 30);
        };
        assert_eq!(Errno::from_io_error(&told), Some(Errno::NOMEM));
    }
}
