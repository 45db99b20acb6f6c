//! The sizes of the threads' rings, and what they take of the memory that a user may lock.

use std::io;

use super::threads::ThreadCounts;
use crate::error::StartError;
use crate::io::RingSize;

/// Submissions that wait for a system call; completions that the kernel may keep for a busy thread,
/// of which more go to a slower list.
pub(super) const SHARD_RING: RingSize = RingSize { submissions: 1024, completions: 8192 };
/// For wake-ups, and nothing else.
pub(super) const WORKER_RING: RingSize = RingSize { submissions: 64, completions: 512 };
/// The limit of locked memory that the runtime of a shard asks for.
pub(super) const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;
/// Memory that the kernel locks for a shard's runtime: a shard takes 432 KiB with its own ring.
const RUNTIME_BYTES: u64 = 232 * 1024;

/// Memory that the kernel takes for the rings of an engine's threads, with those of the runtime and
/// the one that was tried before, of which it may be a while before it is free.
pub(super) fn ring_bytes(threads: ThreadCounts) -> u64 {
    u64::from(threads.shards) * (RUNTIME_BYTES + SHARD_RING.bytes())
        + u64::from(threads.workers) * WORKER_RING.bytes()
        + SHARD_RING.bytes()
}

/// Says what the failure of a thread's ring means.
pub(super) fn ring_failed(
    what: &'static str,
    error: io::Error,
    threads: ThreadCounts,
) -> StartError {
    crate::io::ring_failed(what, error, ring_bytes(threads))
}
