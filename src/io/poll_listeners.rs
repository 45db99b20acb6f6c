//! A poller's listening sockets, each with the accepts and the watch that wait at it.

#![allow(unsafe_code)] // Descriptors that others keep open are named by their numbers.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SocketFlags;

use super::completion::AcceptIndex;
use super::epoll::{self, Epoll, Interest, ListenerSlot, Source};

/// The listening sockets of a poller. There are few of them.
#[derive(Default)]
pub(super) struct PollListeners {
    listeners: Vec<PollListener>,
    /// The peers of accepts that have completed.
    peers: Vec<SocketAddr>,
}

/// One listening socket.
pub(super) struct PollListener {
    /// None once everything has been cancelled. INVARIANT: open until then.
    fd: Option<RawFd>,
    accepts: VecDeque<AcceptIndex>,
    watch: Option<AcceptIndex>,
    /// A connection may be in its backlog.
    is_readable: bool,
    /// Connections are told.
    is_told: bool,
    /// It is among those that are ready.
    pub(super) is_queued: bool,
}

/// The requests of a listening socket that have been cancelled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cancelled {
    pub(super) accepts: VecDeque<AcceptIndex>,
    pub(super) watch: Option<AcceptIndex>,
}

impl PollListeners {
    /// The slot of a listening socket, made if there is none.
    pub(super) fn slot_of(&mut self, fd: RawFd) -> ListenerSlot {
        let slot = self.listeners.iter().position(|listener| listener.fd == Some(fd));
        let slot = slot.unwrap_or_else(|| {
            self.listeners.push(PollListener::new(fd));
            self.listeners.len() - 1
        });
        ListenerSlot(slot as u32)
    }

    pub(super) fn at(&mut self, slot: ListenerSlot) -> &mut PollListener {
        &mut self.listeners[slot.0 as usize]
    }

    /// Notes the peer of an accept.
    pub(super) fn put_peer(&mut self, accept: AcceptIndex, peer: SocketAddr) {
        let index = accept.0 as usize;
        if self.peers.len() <= index {
            self.peers.resize(index + 1, unknown_peer());
        }
        self.peers[index] = peer;
    }

    /// The peer of an accept; 0.0.0.0:0 if there is none.
    pub(super) fn take_peer(&mut self, accept: AcceptIndex) -> SocketAddr {
        let peer = self.peers.get_mut(accept.0 as usize);
        peer.map_or_else(unknown_peer, |peer| std::mem::replace(peer, unknown_peer()))
    }
}

fn unknown_peer() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
}

impl PollListener {
    fn new(fd: RawFd) -> Self {
        Self {
            fd: Some(fd),
            accepts: VecDeque::new(),
            watch: None,
            is_readable: false,
            is_told: false,
            is_queued: false,
        }
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        // SAFETY: by the invariant it is open.
        self.fd.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }).ok_or(Errno::BADF)
    }

    fn is_wanted(&self) -> bool {
        !self.accepts.is_empty() || self.watch.is_some()
    }

    /// True if a request may be able to go on.
    pub(super) fn is_ready(&self) -> bool {
        self.is_readable && self.is_wanted()
    }

    /// The kernel tells of a connection.
    pub(super) fn changed(&mut self, epoll: &Epoll) {
        self.is_readable = true;
        // Each connection that another thread accepts would wake this one.
        if !self.is_wanted() && self.fd().and_then(|fd| epoll.remove(fd)).is_ok() {
            (self.is_told, self.is_readable) = (false, false);
        }
    }

    /// Has connections told. There may be one already.
    fn tell(&mut self, slot: ListenerSlot, epoll: &Epoll) -> Result<(), Errno> {
        if !self.is_told {
            // An accept must not wait, since another thread may take the connection before it.
            rustix::io::ioctl_fionbio(self.fd()?, true)?;
            epoll.add(self.fd()?, Source::Listener(slot), Interest::Read)?;
            (self.is_told, self.is_readable) = (true, true);
        }
        Ok(())
    }

    /// Begins to accept one connection.
    pub(super) fn accept(
        &mut self,
        slot: ListenerSlot,
        accept: AcceptIndex,
        epoll: &Epoll,
    ) -> Result<(), Errno> {
        self.tell(slot, epoll)?;
        self.accepts.push_back(accept);
        Ok(())
    }

    /// Begins to watch. True if there is a connection already.
    pub(super) fn watch(
        &mut self,
        slot: ListenerSlot,
        accept: AcceptIndex,
        epoll: &Epoll,
    ) -> Result<bool, Errno> {
        self.tell(slot, epoll)?;
        // What was told before may have been accepted by another thread since.
        self.is_readable = epoll::is_readable_now(self.fd()?);
        if !self.is_readable {
            self.watch = Some(accept);
        }
        Ok(self.is_readable)
    }

    /// Ends the watch, if there is a connection.
    pub(super) fn take_watch(&mut self) -> Option<AcceptIndex> {
        self.watch.take_if(|_| self.is_readable)
    }

    /// Accepts a connection for the accept that has waited longest. `None` if there is none, or
    /// nobody waits.
    pub(super) fn take_one(&mut self) -> Option<(AcceptIndex, Result<Taken, Errno>)> {
        let accept = *self.accepts.front().filter(|_| self.is_readable)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let taken = retry_on_intr(|| rustix::net::acceptfrom_with(self.fd()?, flags));
        if taken.as_ref().err() == Some(&Errno::AGAIN) {
            self.is_readable = false;
            return None;
        }
        self.accepts.pop_front();
        let taken = taken.map(|(fd, address)| {
            let peer = address.and_then(|address| SocketAddr::try_from(address).ok());
            Taken { fd, peer: peer.unwrap_or_else(unknown_peer) }
        });
        Some((accept, taken))
    }

    /// Ends an accept. True if it was waiting.
    pub(super) fn cancel(&mut self, accept: AcceptIndex) -> bool {
        let place = self.accepts.iter().position(|other| *other == accept);
        place.and_then(|place| self.accepts.remove(place)).is_some()
    }

    /// Ends everything, for good: the descriptor may be closed then.
    pub(super) fn cancel_all(&mut self, epoll: &Epoll) -> Cancelled {
        if std::mem::take(&mut self.is_told) {
            self.fd().and_then(|fd| epoll.remove(fd)).ok();
        }
        self.fd = None;
        Cancelled { accepts: std::mem::take(&mut self.accepts), watch: self.watch.take() }
    }
}

/// A connection that was accepted.
pub(super) struct Taken {
    pub(super) fd: OwnedFd,
    pub(super) peer: SocketAddr,
}
