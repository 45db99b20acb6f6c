//! What the benches of whole servers share.

#![allow(dead_code)] // Each of them uses its own part of it.

pub(crate) mod ceiling;
pub(crate) mod child;
pub(crate) mod pomelo;
pub(crate) mod report;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Where servers run, and where what loads them does.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const OTHER_CORE: usize = 1;

/// Pins the calling thread, and those it starts, to some cores, as far as they are there.
pub(crate) fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("cores {cores:?} can't be had ({error}): the figures mean less");
    }
}
