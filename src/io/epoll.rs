//! One epoll: which descriptors it watches, and what it has told.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::shard::SocketIndex;

/// A descriptor that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Socket(SocketIndex),
    Listener(ListenerSlot),
    /// The doorbell's eventfd.
    Bell,
}

/// One of a poller's listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListenerSlot(pub(super) u32);

/// The changes of a descriptor that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// There is something to read, or to accept.
    Read,
    /// There is room to write.
    Write,
    ReadAndWrite,
}

/// The changes that a descriptor has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    /// The peer sends no more, or the connection is over: a read that leaves room in its buffer has
    /// not come to the end of what there is.
    has_ended: bool,
}

/// The epoll of one thread.
///
/// Edge-triggered: a descriptor is told of once for each change, so that it is registered once, and
/// whoever is told tries until the kernel has no more.
pub(super) struct Epoll {
    fd: OwnedFd,
    /// Room for what a wait tells.
    events: Vec<Event>,
}

/// Descriptors that one wait tells of, at most; the next tells of the others.
const EVENTS_MAX: usize = 1_024;
const MILLISECOND: Duration = Duration::from_millis(1);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { fd, events: Vec::with_capacity(EVENTS_MAX) })
    }

    pub(super) fn add(&self, fd: impl AsFd, of: Source, interest: Interest) -> Result<(), Errno> {
        epoll::add(&self.fd, fd, EventData::new_u64(of.encode()), interest.flags())
    }

    /// Changes what is told of a descriptor. What it is ready for is told again.
    pub(super) fn change(
        &self,
        fd: impl AsFd,
        of: Source,
        interest: Interest,
    ) -> Result<(), Errno> {
        epoll::modify(&self.fd, fd, EventData::new_u64(of.encode()), interest.flags())
    }

    pub(super) fn remove(&self, fd: impl AsFd) -> Result<(), Errno> {
        epoll::delete(&self.fd, fd)
    }

    /// Waits until a watched descriptor changes, and tells of all that have.
    pub(super) fn wait(
        &mut self,
        timeout: Duration,
        mut tell: impl FnMut(&Self, Source, Readiness),
    ) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let waited = self.wait_into(&mut events, timeout);
        for event in &events {
            let (flags, data) = (event.flags, event.data);
            if let Some(source) = Source::decode(data.u64()) {
                tell(self, source, Readiness::of(flags));
            }
        }
        self.events = events;
        match waited {
            // A signal.
            Err(Errno::INTR) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The kernel's own time-out has milliseconds (that in nanoseconds came with Linux 5.11), so a
    /// shorter one is waited for by ppoll(2).
    fn wait_into(&self, events: &mut Vec<Event>, timeout: Duration) -> Result<(), Errno> {
        let mut timeout = timeout;
        if timeout > Duration::ZERO && timeout < MILLISECOND {
            let fds = &mut [PollFd::new(&self.fd, PollFlags::IN)];
            if rustix::event::poll(fds, Some(&timespec(timeout)))? == 0 {
                return Ok(());
            }
            timeout = Duration::ZERO;
        }
        let whole = timeout - Duration::from_nanos(u64::from(timeout.subsec_nanos() % 1_000_000));
        epoll::wait(&self.fd, spare_capacity(events), Some(&timespec(whole))).map(drop)
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// True if a descriptor can be read from now.
pub(super) fn is_readable_now(fd: BorrowedFd<'_>) -> bool {
    let fds = &mut [PollFd::new(&fd, PollFlags::IN)];
    let ready = rustix::event::poll(fds, Some(&timespec(Duration::ZERO)));
    ready.is_ok_and(|count| count > 0)
}

impl Source {
    const KIND_SHIFT: u32 = 32;

    fn encode(self) -> u64 {
        let (kind, value) = match self {
            Self::Socket(socket) => (1, socket.0),
            Self::Listener(listener) => (2, listener.0),
            Self::Bell => (3, 0),
        };
        u64::from(value) | kind << Self::KIND_SHIFT
    }

    fn decode(word: u64) -> Option<Self> {
        let value = word as u32;
        match word >> Self::KIND_SHIFT {
            1 => Some(Self::Socket(SocketIndex(value))),
            2 => Some(Self::Listener(ListenerSlot(value))),
            3 => Some(Self::Bell),
            _ => None,
        }
    }
}

impl Interest {
    fn flags(self) -> EventFlags {
        let read = EventFlags::IN | EventFlags::RDHUP;
        let interest = match self {
            Self::Read => read,
            Self::Write => EventFlags::OUT,
            Self::ReadAndWrite => read | EventFlags::OUT,
        };
        interest | EventFlags::ET
    }
}

impl Readiness {
    pub(super) const NONE: Self = Self { is_readable: false, is_writable: false, has_ended: false };

    fn of(flags: EventFlags) -> Self {
        let over = EventFlags::ERR | EventFlags::HUP;
        let has_ended = flags.intersects(over | EventFlags::RDHUP);
        Self {
            is_readable: has_ended || flags.contains(EventFlags::IN),
            is_writable: flags.intersects(over | EventFlags::OUT),
            has_ended,
        }
    }

    /// Adds a later change.
    pub(super) fn add(&mut self, later: Self) {
        self.is_readable |= later.is_readable;
        self.is_writable |= later.is_writable;
        self.has_ended |= later.has_ended;
    }

    /// A read has left room in its buffer, so that there was no more at that time; what comes later
    /// is told. An end that was told before may have come behind what was read.
    pub(super) fn read_all(&mut self) {
        self.is_readable = self.has_ended;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Instant;

    use super::*;

    #[test]
    fn sources_come_back() {
        for source in
            [Source::Socket(SocketIndex(u32::MAX)), Source::Listener(ListenerSlot(7)), Source::Bell]
        {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(0), None);
    }

    #[test]
    fn a_change_is_told_once() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut epoll = Epoll::new().unwrap();
        epoll.add(&reader, Source::Bell, Interest::Read).unwrap();
        let mut told = |timeout| {
            let mut told = Vec::new();
            epoll.wait(timeout, |_, source, ready| told.push((source, ready))).unwrap();
            told
        };
        let readable = Readiness { is_readable: true, ..Readiness::NONE };
        assert_eq!(told(Duration::ZERO), []);
        for _ in 0..2 {
            writer.write_all(b"x").unwrap();
            assert_eq!(told(Duration::from_secs(10)), [(Source::Bell, readable)]);
            assert_eq!(told(Duration::ZERO), []);
        }
        drop(writer);
        let mut ended = told(Duration::from_secs(10)).pop().unwrap().1;
        assert!(ended.has_ended && ended.is_readable);
        ended.read_all();
        assert!(ended.is_readable, "the end is still to be read");
    }

    #[test]
    fn a_wait_is_as_long_as_it_should_be() {
        let mut epoll = Epoll::new().unwrap();
        for micros in [0, 300, 2_500] {
            let begun = Instant::now();
            epoll.wait(Duration::from_micros(micros), |_, _, _| panic!("nothing changes")).unwrap();
            // Whole milliseconds at first, so that the caller comes again for the rest.
            assert!(begun.elapsed() >= Duration::from_micros(micros.min(2_000)));
        }
    }
}
