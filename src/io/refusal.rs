//! The reason why there is no ring, and what would allow one.

use std::io;

use io_uring::IoUring;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{IoUringBlock, StartError};

/// Says what the failure of our ring means, in view of a plain one. `failed` tells of one that
/// lacks memory, or whatever else.
pub(crate) fn explain(
    error: io::Error,
    failed: impl FnOnce(io::Error) -> StartError,
) -> StartError {
    explain_beside(error, check_plain_ring(), failed)
}

/// A ring without any of our flags: tells a kernel that is too old from one that refuses.
fn check_plain_ring() -> io::Result<()> {
    IoUring::new(8).map(drop)
}

/// Says who refuses io_uring, if somebody does.
pub(crate) fn who_refuses() -> Option<StartError> {
    let failed = |error| StartError::System { what: "an io_uring", error };
    let explained = explain_refusal(check_plain_ring().err()?, "everything (ENOSYS)", failed);
    matches!(explained, StartError::IoUringBlocked { .. }).then_some(explained)
}

fn explain_beside(
    error: io::Error,
    plain: io::Result<()>,
    failed: impl FnOnce(io::Error) -> StartError,
) -> StartError {
    // Its registrations may be refused where the ring itself is not.
    let is_refused = match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => true,
        Some(Errno::NOSYS) => Signs::seen().has_filter,
        _ => false,
    };
    if is_refused {
        return explain_refusal(error, "everything (ENOSYS)", failed);
    }
    match plain {
        Ok(()) if Errno::from_io_error(&error) == Some(Errno::NOMEM) => failed(error),
        Ok(()) => StartError::KernelTooOld { missing: "SINGLE_ISSUER and DEFER_TASKRUN" },
        Err(plain) => explain_refusal(plain, "everything (ENOSYS)", failed),
    }
}

/// Says what the refusal of something means that a kernel of the right age has.
pub(crate) fn explain_refusal(
    error: io::Error,
    missing: &'static str,
    failed: impl FnOnce(io::Error) -> StartError,
) -> StartError {
    match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            StartError::IoUringBlocked { by: blocked_by(&Signs::seen()), error }
        }
        // Filters say so, too, of what they do not know.
        Some(Errno::NOSYS) if Signs::seen().has_filter => {
            StartError::IoUringBlocked { by: IoUringBlock::Seccomp, error }
        }
        Some(Errno::NOSYS | Errno::INVAL) => StartError::KernelTooOld { missing },
        _ => failed(error),
    }
}

/// Says what the failure of a ring means that is one of several, which take so many bytes.
pub(crate) fn ring_failed(what: &'static str, error: io::Error, bytes_min: u64) -> StartError {
    if Errno::from_io_error(&error) != Some(Errno::NOMEM) {
        return StartError::System { what, error };
    }
    let limit = getrlimit(Resource::Memlock).current;
    StartError::RingMemory { what, bytes_min, limit }
}

/// The signs of who refuses io_uring.
#[derive(Debug, Clone, Copy)]
struct Signs {
    /// `kernel.io_uring_disabled`, 0 where there is no such thing.
    io_uring_disabled: u8,
    /// `kernel.io_uring_group`; none where it is -1.
    io_uring_group: Option<u32>,
    has_filter: bool,
}

impl Signs {
    fn seen() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let disabled = read("/proc/sys/kernel/io_uring_disabled");
        let group = read("/proc/sys/kernel/io_uring_group");
        Self {
            io_uring_disabled: disabled.trim().parse().unwrap_or(0),
            io_uring_group: group.trim().parse().ok(),
            has_filter: read("/proc/thread-self/status").lines().any(is_filter),
        }
    }
}

/// True if a line of `/proc/thread-self/status` shows a seccomp filter.
fn is_filter(line: &str) -> bool {
    line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")
}

/// The sysctl is asked by the kernel behind the filter, but where it forbids, it forbids.
fn blocked_by(signs: &Signs) -> IoUringBlock {
    match signs {
        Signs { io_uring_disabled: disabled @ 1.., io_uring_group: group, .. } => {
            IoUringBlock::Sysctl { disabled: *disabled, group: *group }
        }
        Signs { has_filter: true, .. } => IoUringBlock::Seccomp,
        _ => IoUringBlock::Unknown,
    }
}

/// Says that a test of the ring is skipped, as the system has none to give.
///
/// # Panics
/// The ring fails for another reason, which is a fault of its own.
#[cfg(test)]
pub(crate) fn skip(error: &StartError) {
    use StartError::{IoUringBlocked, KernelTooOld, MemLock, RingMemory};
    let is_refused = match error {
        IoUringBlocked { .. } | MemLock { .. } | RingMemory { limit: Some(_), .. } => true,
        KernelTooOld { .. } => is_old_kernel(),
        _ => false,
    };
    assert!(is_refused, "a ring that the system does not refuse: {error}");
    println!("skipped: {error}");
}

/// True before Linux 6.1.
#[cfg(test)]
fn is_old_kernel() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap(), numbers.next().unwrap());
    version < (6, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 123_456_789;

    #[test]
    fn a_blocked_io_uring_is_told_from_a_missing_one() {
        let failed = |error| ring_failed("an io_uring", error, BYTES);
        let explain = |errno: Errno, plain| explain_beside(errno.into(), plain, failed);
        let explained = explain(Errno::PERM, Err(Errno::PERM.into()));
        assert!(matches!(explained, StartError::IoUringBlocked { .. }), "{explained}");
        // Of which there may be one where the test runs.
        if !Signs::seen().has_filter {
            let explained = explain(Errno::NOSYS, Err(Errno::NOSYS.into()));
            assert!(matches!(explained, StartError::KernelTooOld { .. }), "{explained}");
        }
        let explained = explain(Errno::INVAL, Ok(()));
        assert!(matches!(explained, StartError::KernelTooOld { .. }), "{explained}");
        for plain in [Ok(()), Err(Errno::NOMEM.into())] {
            let text = explain(Errno::NOMEM, plain).to_string();
            assert!(text.contains("`ulimit -l`") && text.contains("123456789"), "{text}");
        }
    }

    #[test]
    fn what_blocks_io_uring_is_told_with_what_to_do() {
        let by = |io_uring_disabled, has_filter| {
            let io_uring_group = Some(1001);
            blocked_by(&Signs { io_uring_disabled, io_uring_group, has_filter }).to_string()
        };
        assert!(by(2, true).contains("kernel.io_uring_disabled, which is 2; set it to 0"));
        assert!(by(1, false).contains("the group 1001, which is kernel.io_uring_group"));
        let signs = Signs { io_uring_disabled: 1, io_uring_group: None, has_filter: false };
        assert!(blocked_by(&signs).to_string().contains("set kernel.io_uring_group"));
        assert!(by(0, true).contains("seccomp") && !by(0, true).contains("io_uring_disabled"));
        assert!(by(0, false).contains("security modules"));
        assert!(is_filter("Seccomp:\t2") && !is_filter("Seccomp:\t0"));
        assert!(!is_filter("Seccomp_filters:\t2"));
    }
}
