//! What is checked before the first thread starts, so that the errors are ours: a runtime that
//! finds io_uring blocked panics with a text that leads nowhere.

use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, getrlimit};

use super::ring::Ring;
use crate::error::StartError;

/// Locked memory that the runtime asks for.
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Descriptors that an engine needs besides those of each thread.
const DESCRIPTORS_BASE: u64 = 64;
/// Rings, eventfds and files of one thread, the runtime's included.
const DESCRIPTORS_PER_THREAD: u64 = 24;

/// Whether the kernel and the limits will do.
///
/// On a thread of its own: when a ring is closed, the kernel interrupts the thread that used it,
/// whose system calls then fail with `EINTR` where the embedder expects none.
pub(super) fn check(threads: u64) -> Result<(), StartError> {
    let checked = std::thread::Builder::new()
        .name("shaddock-preflight".into())
        .spawn(move || check_here(threads))
        .map_err(|error| StartError::System { what: "a thread", error })?
        .join();
    checked.unwrap_or_else(|_| {
        let error = io::Error::other("it panicked");
        Err(StartError::System { what: "a test of io_uring", error })
    })
}

fn check_here(threads: u64) -> Result<(), StartError> {
    check_memlock(getrlimit(Resource::Memlock).current)?;
    let limit_min = DESCRIPTORS_BASE + threads * DESCRIPTORS_PER_THREAD;
    check_descriptors(getrlimit(Resource::Nofile).current, limit_min)?;
    let ring = Ring::new(8, 16).map_err(|error| explain(error, check_plain_ring()))?;
    check_opcodes(&ring)?;
    check_socket_table(&ring)
}

/// Direct descriptors that one ring may hold: a table can't be larger than this.
pub(super) fn descriptors_max() -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(limit).unwrap_or(u32::MAX).min(SOCKET_TABLE_MAX)
}

/// The kernel's own bound of a table of direct descriptors.
const SOCKET_TABLE_MAX: u32 = 1 << 20;

fn check_memlock(limit: Option<u64>) -> Result<(), StartError> {
    match limit {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => {
            Err(StartError::MemLock { bytes, bytes_min: MEMLOCK_BYTES_MIN })
        }
        _ => Ok(()),
    }
}

fn check_descriptors(limit: Option<u64>, limit_min: u64) -> Result<(), StartError> {
    match limit {
        Some(limit) if limit < limit_min => Err(StartError::Descriptors { limit, limit_min }),
        _ => Ok(()),
    }
}

/// A ring without any of our flags: tells a kernel that is too old from one that refuses.
fn check_plain_ring() -> io::Result<()> {
    IoUring::new(8).map(drop)
}

/// What the failure of our ring means, in view of a plain one.
fn explain(error: io::Error, plain: io::Result<()>) -> StartError {
    const ENOSYS: i32 = 38;
    match plain.err().map(|plain| (plain.raw_os_error(), plain)) {
        None => StartError::KernelTooOld { missing: "SINGLE_ISSUER and DEFER_TASKRUN" },
        Some((Some(ENOSYS), _)) => StartError::KernelTooOld { missing: "everything (ENOSYS)" },
        Some((_, plain)) if plain.kind() == io::ErrorKind::PermissionDenied => {
            StartError::IoUringBlocked(plain)
        }
        Some(_) => StartError::System { what: "an io_uring", error },
    }
}

fn check_opcodes(ring: &Ring) -> Result<(), StartError> {
    let mut probe = Probe::new();
    ring.uring()
        .submitter()
        .register_probe(&mut probe)
        .map_err(|_| StartError::KernelTooOld { missing: "a probe of its operations" })?;
    let needed = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::Shutdown::CODE, "shutdown"),
        (opcode::Close::CODE, "close"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::MsgRingData::CODE, "MSG_RING"),
    ];
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, missing)) => Err(StartError::KernelTooOld { missing }),
        None => Ok(()),
    }
}

fn check_socket_table(ring: &Ring) -> Result<(), StartError> {
    ring.register_sockets(1)
        .map_err(|_| StartError::KernelTooOld { missing: "a sparse table of direct descriptors" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_will_do() {
        check(4).unwrap();
    }

    #[test]
    fn low_limits_are_told_with_what_is_needed() {
        let error = check_memlock(Some(64 * 1024)).unwrap_err();
        assert!(error.to_string().contains("524288"), "{error}");
        let error = check_descriptors(Some(10), 64).unwrap_err();
        assert!(error.to_string().contains("64"), "{error}");
        assert!(check_memlock(None).is_ok());
    }

    #[test]
    fn a_blocked_io_uring_is_told_from_a_missing_one() {
        let error = |number| io::Error::from_raw_os_error(number);
        let (perm, nosys, inval, nomem) = (1, 38, 22, 12);
        let explained = explain(error(perm), Err(error(perm)));
        assert!(matches!(explained, StartError::IoUringBlocked(_)), "{explained}");
        let explained = explain(error(nosys), Err(error(nosys)));
        assert!(matches!(explained, StartError::KernelTooOld { .. }), "{explained}");
        let explained = explain(error(inval), Ok(()));
        assert!(matches!(explained, StartError::KernelTooOld { .. }), "{explained}");
        let explained = explain(error(nomem), Err(error(nomem)));
        assert!(matches!(explained, StartError::System { .. }), "{explained}");
    }
}
