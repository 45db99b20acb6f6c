//! The machine's limits and its current load.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// The kernel's memory for one connection over loopback, both ends, with a margin.
const KERNEL_BYTES_PER_CONNECTION: u64 = 12 * 1024;
/// The usable share of an address's ports; those of connections that have just ended are not free
/// at once.
const PORTS_SHARE: f64 = 0.7;
/// The most time for the previous run's sockets to disappear.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// The number of sockets that may exist for other reasons.
const SOCKETS_IDLE: u64 = 64;

/// The number of ports by which one address can be reached at a time.
pub(crate) fn ports_per_address() -> u32 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = range.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
    match (words.next(), words.next()) {
        (Some(first), Some(last)) => last.saturating_sub(first) + 1,
        _ => 28_232,
    }
}

/// The number of addresses that so many connections need.
pub(crate) fn ports_needed(connections: u32) -> u16 {
    let per_address = (f64::from(ports_per_address()) * PORTS_SHARE) as u32;
    connections.div_ceil(per_address.max(1)).max(1) as u16
}

/// The number of rings that so many connections need on the server's side. The kernel distributes
/// connections at random, so not quite evenly.
pub(crate) fn rings_needed(connections: u32) -> u16 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let per_ring = (limit.unwrap_or(u64::MAX).min(1 << 20) as f64 * 0.8) as u32;
    connections.div_ceil(per_ring.max(1)).max(1) as u16
}

/// The reason why so many connections are not possible, with advice.
pub(crate) fn obstacle(connections: u32) -> Option<String> {
    // A server listens on at most 64 ports.
    if ports_needed(connections) > 64 {
        return Some(format!(
            "net.ipv4.ip_local_port_range has {} ports only: widen it",
            ports_per_address()
        ));
    }
    let available = number_after("/proc/meminfo", "MemAvailable:").map(|kib| kib * 1024);
    let needed = u64::from(connections) * KERNEL_BYTES_PER_CONNECTION;
    if let Some(available) = available.filter(|available| *available < needed) {
        let (available, needed) = (available >> 20, needed >> 20);
        return Some(format!("{needed} MiB of memory are needed, {available} are available"));
    }
    let tracked = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok();
    let tracked = tracked.and_then(|text| text.trim().parse::<u32>().ok());
    match tracked {
        Some(max) if max < connections + connections / 4 => Some(format!(
            "net.netfilter.nf_conntrack_max is {max}, which drops what comes above: raise it"
        )),
        _ => None,
    }
}

/// A warning if the queue of connections waiting to be accepted is shortened.
pub(crate) fn short_backlog(wanted: i32) -> Option<String> {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    let max: i32 = text.trim().parse().ok()?;
    (max < wanted).then(|| {
        format!("net.core.somaxconn is {max}, below {wanted}: a storm finds a shorter queue")
    })
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> std::io::Result<f64> {
    number_after(&format!("/proc/{pid}/status"), "VmRSS:")
        .map(|kib| kib as f64 * 1024.0)
        .ok_or_else(|| std::io::Error::other("a server's memory can't be read"))
}

/// The kernel's two entries for a port in use, which a client's sockets keep for a minute after
/// they have ended.
const PORT_BYTES: f64 = 256.0;

/// Memory of the kernel's own objects, sockets among them, in bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct KernelMemory {
    pub(crate) bytes: f64,
    /// By kind of object, without those that have nothing to do with connections that are up; none
    /// if this user may not see them, and `bytes` is all of the kernel's objects.
    pub(crate) caches: BTreeMap<String, f64>,
}

impl KernelMemory {
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
        let mut caches: BTreeMap<String, f64> = text.lines().filter_map(cache).collect();
        if let Some(bytes) = cache_of_ports(&caches).and_then(|name| caches.get_mut(&name)) {
            *bytes -= sockets("tw").unwrap_or_default() as f64 * PORT_BYTES;
        }
        let all = || number_after("/proc/meminfo", "Slab:").map(|kib| kib as f64 * 1024.0);
        let bytes = match caches.is_empty() {
            true => all().unwrap_or_default(),
            false => caches.values().sum(),
        };
        Self { bytes, caches }
    }

    /// The growth since an earlier look; caches that have not changed are left out.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let grown = |(name, bytes): (&String, &f64)| {
            let grown = bytes - before.caches.get(name).copied().unwrap_or_default();
            (grown != 0.0).then(|| (name.clone(), grown))
        };
        let caches = self.caches.iter().filter_map(grown).collect();
        Self { bytes: self.bytes - before.bytes, caches }
    }
}

/// The name of a cache, and the bytes of its objects in use, with their part of what a slab wastes.
/// Slabs themselves also hold what is free since a run before.
///
/// The columns are the name, objects in use, objects, bytes of each, objects per slab, pages per
/// slab, and further ones.
fn cache(line: &str) -> Option<(String, f64)> {
    let mut columns = line.split_whitespace();
    let name = columns.next().filter(|name| is_for_connections(name))?;
    let mut number = |skipped| columns.nth(skipped)?.parse::<f64>().ok();
    let (used, per_slab, pages) = (number(0)?, number(2)?, number(0)?);
    Some((name.to_owned(), used * pages * rustix::param::page_size() as f64 / per_slab))
}

/// The cache of the entries for ports, which the kernel may have merged with others of that size,
/// and then calls by another name.
fn cache_of_ports(caches: &BTreeMap<String, f64>) -> Option<String> {
    let memory = |name: &str| fs::read_link(format!("/sys/kernel/slab/{name}")).ok();
    let wanted = memory("tcp_bind_bucket")?;
    caches.keys().find(|name| memory(name).as_ref() == Some(&wanted)).cloned()
}

/// False for files, which anything else on the machine may open meanwhile, and for sockets that
/// have ended, which wait a minute for packets that come late.
fn is_for_connections(cache: &str) -> bool {
    let is_inode = cache.contains("inode") && cache != "sock_inode_cache";
    !is_inode && !matches!(cache, "buffer_head" | "radix_tree_node" | "tw_sock_TCP")
}

/// Waits until the previous run's sockets are gone: the kernel takes rings apart after their owners
/// have ended.
pub(crate) fn settle() {
    let start = Instant::now();
    while start.elapsed() < SETTLE_MAX {
        if sockets("inuse").is_none_or(|in_use| in_use <= SOCKETS_IDLE) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("\rthe sockets of the run before are still there: the figures mean less");
}

/// The number of TCP sockets in a state, by the kernel's name for it.
fn sockets(state: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").ok()?;
    let mut words = text.lines().find(|line| line.starts_with("TCP:"))?.split(' ');
    words.find(|word| *word == state)?;
    words.next()?.parse().ok()
}

fn number_after(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
