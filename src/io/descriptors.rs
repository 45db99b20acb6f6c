//! The bounds of descriptors: the process's, and those of a ring's table of sockets.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open descriptors (`ulimit -n`) to the most that the process may ask for, as
/// Node does; gives what is in force then, none if there is no limit. To be called at the start of
/// a program, before [`Builder::start`](crate::Builder::start): a shard's table of sockets can't be
/// larger than the limit.
///
/// The soft limit is 1,024 in most places, for the sake of programs that use `select`, which can't
/// name a greater descriptor. It is the program's limit, not the engine's, and is handed on to what
/// the program starts, so an engine does not do this by itself.
///
/// ```no_run
/// // At the start of `main`:
/// match shaddock::raise_descriptor_limit() {
///     Some(limit) => println!("{limit} descriptors at the most"),
///     None => println!("as many descriptors as there is memory for"),
/// }
/// ```
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of descriptors can't be raised");
            limit.current
        }
    }
}

/// Sockets that one ring may hold: its table of direct descriptors can't be larger than this.
pub(crate) fn sockets_max() -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(limit).unwrap_or(u32::MAX).min(SOCKET_TABLE_MAX)
}

/// Descriptors that the process has open; 0 where the system does not tell.
pub(crate) fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64
}

/// The kernel's own bound of a table of direct descriptors.
const SOCKET_TABLE_MAX: u32 = 1 << 20;
