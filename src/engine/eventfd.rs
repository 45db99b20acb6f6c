//! The eventfd by which threads without a ring wake a shard, worker or cluster.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::dispatch::tasks::WakeThread;

/// One party's eventfd.
#[derive(Clone)]
pub(super) struct Eventfd {
    fd: Arc<OwnedFd>,
}

impl Eventfd {
    pub(super) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    #[cfg(feature = "pomelo")]
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    /// Takes the rings that have come.
    pub(super) fn clear(&self) {
        // Nothing to read means that it has been taken already.
        rustix::io::read(&*self.fd, &mut [0; 8]).ok();
    }
}

impl AsRawFd for Eventfd {
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}

impl WakeThread for Eventfd {
    fn wake(&self) {
        // It can only fail when 2^64 - 2 rings wait to be taken, and then the sleeper is awake.
        rustix::io::write(&*self.fd, &1_u64.to_ne_bytes()).ok();
    }
}
