//! The machine's limits and its current load.

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

/// Memory of the kernel's own objects, sockets among them, in bytes.
pub(crate) fn kernel_bytes() -> f64 {
    number_after("/proc/meminfo", "Slab:").map_or(0.0, |kib| kib as f64 * 1024.0)
}

/// Waits until the previous run's sockets are gone: the kernel takes rings apart after their owners
/// have ended.
pub(crate) fn settle() {
    let start = Instant::now();
    while start.elapsed() < SETTLE_MAX {
        let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let tcp = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
        let in_use = tcp.split(' ').nth(2).and_then(|word| word.parse::<u64>().ok());
        if in_use.is_none_or(|in_use| in_use <= SOCKETS_IDLE) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("\rthe sockets of the run before are still there: the figures mean less");
}

fn number_after(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
