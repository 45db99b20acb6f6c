//! The figures of this process, as the kernel tells them.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Figures that every exporter of Prometheus gives of its process. What the kernel does not tell is
/// missing.
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    /// Seconds since 1970.
    pub(super) start_time: Option<f64>,
}

/// Ticks in a second of the times in `/proc`; the same on all machines that Linux runs on.
const TICKS: f64 = 100.0;

impl Process {
    pub(super) fn look() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: line_of("/proc/self/status", "VmRSS:").map(|kib| kib * 1024),
            open_fds,
            max_fds: getrlimit(Resource::Nofile).current,
            start_time: start_time(),
        }
    }
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may have anything in it, the 22nd is the 20th.
    let ticks: f64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    Some(line_of("/proc/stat", "btime")? as f64 + ticks / TICKS)
}

/// The number behind the first word of a line.
fn line_of(file: &str, word: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(word))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_kernel_tells_all_of_it() {
        let process = Process::look();
        assert!(process.cpu_seconds > 0.0);
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.open_fds.unwrap() >= 3);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = process.start_time.unwrap();
        assert!(started < now + 2.0 && started > now - 86_400.0, "{started} {now}");
    }
}
