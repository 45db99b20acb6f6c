//! The checks before the first thread starts, so that the errors are ours: a runtime that finds
//! io_uring blocked panics with a text that leads nowhere.

use io_uring::{Probe, opcode};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::ring_memory::{MEMLOCK_BYTES_MIN, SHARD_RING, ring_bytes, ring_failed};
use super::threads::ThreadCounts;
use crate::error::{EngineOption, StartError};
use crate::io::{
    self, Chosen, Driver, Io as _, Ring, explain, explain_refusal, open_descriptors, who_refuses,
};

/// Descriptors that a program needs besides those of each thread.
const DESCRIPTORS_BASE: u64 = 64;
/// Descriptors that are not open yet, for files and connections to backends.
const DESCRIPTORS_SPARE: u64 = 32;
/// Rings, eventfds and files of one thread, the runtime's included. Where it polls, a few clients
/// have what is left of them.
const DESCRIPTORS_PER_THREAD: u64 = 24;
/// An epoll, an eventfd and a few listening sockets of a thread that polls.
const DESCRIPTORS_PER_POLLER: u64 = 8;

/// Picks the driver, and checks that the kernel and the limits will do for it.
///
/// # Errors
/// There is no ring where it is asked for, or a limit that neither driver can do with.
pub(super) fn choose(driver: Driver, threads: ThreadCounts) -> Result<Chosen, StartError> {
    let count = u64::from(threads.shards + threads.workers);
    let limit_min = descriptors_base() + count * DESCRIPTORS_PER_THREAD;
    check_descriptors(getrlimit(Resource::Nofile).current, limit_min)?;
    let misnamed = |expected| StartError::Option { option: EngineOption::Driver, expected };
    driver.choose(|| check_ring(threads), misnamed)
}

/// The sockets that each shard may hold. All that an engine listens on is open.
///
/// Those of a poller are descriptors of the process, so that there are no more than all shards
/// together have left.
pub(super) fn sockets_max(chosen: Chosen, threads: ThreadCounts) -> u32 {
    match chosen {
        Chosen::Ring => io::sockets_max(),
        Chosen::Poll => {
            let used = descriptors_base() + DESCRIPTORS_PER_POLLER * u64::from(threads.parties());
            let left = u64::from(io::sockets_max()).saturating_sub(used);
            u32::try_from(left / u64::from(threads.shards)).unwrap_or(u32::MAX).max(1)
        }
    }
}

/// Descriptors that the program has open besides what the engine opens, or will have.
fn descriptors_base() -> u64 {
    // Unless the embedder has more open than that.
    DESCRIPTORS_BASE.max(open_descriptors() + DESCRIPTORS_SPARE)
}

/// Checks that the kernel and the limits will do for rings.
///
/// On a thread of its own: when a ring is closed, the kernel interrupts the thread that used it,
/// whose system calls then fail with `EINTR` where the embedder expects none.
fn check_ring(threads: ThreadCounts) -> Result<(), StartError> {
    let checked = std::thread::Builder::new()
        .name("shaddock-preflight".into())
        .spawn(move || check_ring_here(threads))
        .map_err(|error| StartError::System { what: "a thread", error })?
        .join();
    checked.unwrap_or_else(|_| {
        let error = std::io::Error::other("it panicked");
        Err(StartError::System { what: "a test of io_uring", error })
    })
}

fn check_ring_here(threads: ThreadCounts) -> Result<(), StartError> {
    // The runtime asks for its part even where the kernel counts nothing.
    let is_counted = !has_capability(CapabilitySet::IPC_LOCK);
    let locked = if is_counted { ring_bytes(threads) } else { 0 };
    // Where both are short, the refusal is told: no limit would help.
    check_memlock(getrlimit(Resource::Memlock).current, locked.max(MEMLOCK_BYTES_MIN))
        .map_err(|short| who_refuses().unwrap_or(short))?;
    let failed = |error| ring_failed(RING, error, threads);
    let mut ring = Ring::new(SHARD_RING).map_err(|error| explain(error, failed))?;
    let refused = |missing| move |error| explain_refusal(error, missing, failed);
    ring.uring().submitter().submit().map_err(refused("submissions"))?;
    check_opcodes(&ring, refused("a probe of its operations"))?;
    ring.register_sockets(1).map_err(refused("a sparse table of direct descriptors"))
}

fn check_memlock(limit: Option<u64>, bytes_min: u64) -> Result<(), StartError> {
    match limit {
        Some(bytes) if bytes < bytes_min => Err(StartError::MemLock { bytes, bytes_min }),
        _ => Ok(()),
    }
}

/// True if the process has a capability; false where the system does not tell.
fn has_capability(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

fn check_descriptors(limit: Option<u64>, limit_min: u64) -> Result<(), StartError> {
    match limit {
        Some(limit) if limit < limit_min => Err(StartError::Descriptors { limit, limit_min }),
        _ => Ok(()),
    }
}

const RING: &str = "an io_uring";

fn check_opcodes(
    ring: &Ring,
    refused: impl FnOnce(std::io::Error) -> StartError,
) -> Result<(), StartError> {
    let mut probe = Probe::new();
    ring.uring().submitter().register_probe(&mut probe).map_err(refused)?;
    let needed = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::Shutdown::CODE, "shutdown"),
        (opcode::Close::CODE, "close"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::MsgRingData::CODE, "MSG_RING"),
        // Without these the runtime ends the process.
        (opcode::Readv::CODE, "readv"),
        (opcode::Writev::CODE, "writev"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::ReadFixed::CODE, "read into fixed buffers"),
        (opcode::WriteFixed::CODE, "write from fixed buffers"),
        (opcode::PollRemove::CODE, "the removal of a poll"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::RecvMsg::CODE, "recvmsg"),
        (opcode::Timeout::CODE, "timeout"),
        (opcode::TimeoutRemove::CODE, "the removal of a timeout"),
        (opcode::LinkTimeout::CODE, "linked timeouts"),
        (opcode::Connect::CODE, "connect"),
        (opcode::Fallocate::CODE, "fallocate"),
        (opcode::OpenAt::CODE, "openat"),
        (opcode::Statx::CODE, "statx"),
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, missing)) => Err(StartError::KernelTooOld { missing }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: ThreadCounts = ThreadCounts { shards: 2, workers: 2, networks: 0 };

    #[test]
    fn this_machine_will_do() {
        let chosen = choose(Driver::Auto, THREADS).unwrap();
        assert!(sockets_max(chosen, THREADS) > 0);
        assert_eq!(choose(Driver::Poll, THREADS).unwrap(), Chosen::Poll);
        let (one, two) = (ThreadCounts { shards: 1, ..THREADS }, THREADS);
        assert!(sockets_max(Chosen::Poll, one) > sockets_max(Chosen::Poll, two));
    }

    #[test]
    fn low_limits_are_told_with_what_is_needed() {
        let error = check_memlock(Some(64 * 1024), MEMLOCK_BYTES_MIN).unwrap_err();
        assert!(error.to_string().contains("524288"), "{error}");
        // As many shards as a limit of 8 MiB has no room for.
        let many = ring_bytes(ThreadCounts { shards: 20, workers: 0, networks: 0 });
        assert!(check_memlock(Some(8 << 20), many).is_err());
        let few = ring_bytes(ThreadCounts { shards: 16, workers: 4, networks: 0 });
        assert!(check_memlock(Some(8 << 20), few).is_ok());
        let error = check_descriptors(Some(10), 64).unwrap_err();
        assert!(error.to_string().contains("64"), "{error}");
        assert!(check_memlock(None, MEMLOCK_BYTES_MIN).is_ok());
    }
}
