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

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;
    const DRIVERS: &str = include_str!("../../docs/drivers.md");
    const DEPLOYING: &str = include_str!("../../docs/deploying.md");
    const README: &str = include_str!("../../README.md");

    fn of(shards: u16, workers: u16) -> u64 {
        ring_bytes(ThreadCounts { shards, workers, networks: 0 })
    }

    /// The numbers that operators read, in KiB and rounded up.
    #[test]
    fn documents_have_the_sums() {
        let (none, one) = (of(0, 0), of(1, 0));
        let (shard, worker) = ((one - none).div_ceil(KIB), (of(0, 1) - none).div_ceil(KIB));
        let (tried, least) = (none.div_ceil(KIB), one.max(MEMLOCK_BYTES_MIN).div_ceil(KIB));
        let most = (1..).take_while(|&shards| of(shards, 0) <= 8192 * KIB).count();
        let each = format!("{shard} KiB of lockable memory for each shard");
        let sum = format!("{worker} KiB for each worker and {tried} KiB besides");
        for (name, document, texts) in [
            ("docs/drivers.md", DRIVERS, vec![each.clone(), sum, format!("{least} KiB at least")]),
            ("README.md", README, vec![each, format!("{least} KiB at least")]),
            (
                "docs/deploying.md",
                DEPLOYING,
                vec![
                    format!("each shard locks {shard} KiB for its rings, each worker {worker} KiB"),
                    format!("at 8 MiB a pod may have {most} shards"),
                ],
            ),
        ] {
            let document = document.split_whitespace().collect::<Vec<_>>().join(" ");
            for text in texts {
                assert!(document.contains(&text), "{name} does not say: {text}");
            }
        }
    }
}
