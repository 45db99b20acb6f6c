//! The cores that the process may run on.

use std::num::NonZeroUsize;

use rustix::thread::CpuSet;

/// The cores that this process may run on; none where the system does not tell.
pub(super) fn cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(error) => {
            tracing::warn!(%error, "the cores of this process can't be read: shards run unpinned");
            Vec::new()
        }
    }
}

/// The number of cores; where the system does not tell them, of threads that run at once.
pub(super) fn count(cores: &[usize]) -> usize {
    match cores.len() {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        count => count,
    }
}

/// Keeps this thread on a core. Without that it serves as well, if not as evenly.
pub(super) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        crate::log::seldom!(warn, %error, core, "a shard runs unpinned");
    }
}
