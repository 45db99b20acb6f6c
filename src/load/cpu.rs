//! The CPU time of the server that is loaded.

use std::io;
use std::time::Duration;

/// CPU time of all threads of a process, at one moment.
///
/// ```
/// use shaddock::load::ProcessCpu;
///
/// let begin = ProcessCpu::of(std::process::id())?;
/// let used = ProcessCpu::of(std::process::id())?.since(begin);
/// println!("{:?}, {:?} of it in the kernel", used.total, used.system());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ProcessCpu {
    total_ns: f64,
    /// In ticks of the clock, which are coarse: only their ratio is used.
    user_ticks: f64,
    system_ticks: f64,
}

/// CPU time that passed between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuTime {
    /// All of it.
    pub total: Duration,
    /// The part spent outside the kernel, to about a hundredth of a second.
    pub user: Duration,
}

impl ProcessCpu {
    /// The time that a process has used so far.
    ///
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut cpu = Self { total_ns: 0.0, user_ticks: 0.0, system_ticks: 0.0 };
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            let read = |name| std::fs::read_to_string(path.join(name));
            // A thread may end while it is looked at.
            let (Ok(schedstat), Ok(stat)) = (read("schedstat"), read("stat")) else { continue };
            cpu.total_ns += number(schedstat.split(' ').next());
            // The name in brackets may hold spaces; the 14th and 15th field of all stand behind it.
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            cpu.user_ticks += number(fields.nth(11));
            cpu.system_ticks += number(fields.next());
        }
        Ok(cpu)
    }

    /// The time that it has used since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> CpuTime {
        let total_ns = (self.total_ns - earlier.total_ns).max(0.0);
        let user_ticks = (self.user_ticks - earlier.user_ticks).max(0.0);
        let system_ticks = (self.system_ticks - earlier.system_ticks).max(0.0);
        let user_share = user_ticks / (user_ticks + system_ticks).max(1.0);
        CpuTime {
            total: Duration::from_nanos(total_ns as u64),
            user: Duration::from_nanos((total_ns * user_share) as u64),
        }
    }
}

impl CpuTime {
    /// The part spent in the kernel.
    ///
    /// ```
    /// # fn print(used: shaddock::load::CpuTime, messages: u32) {
    /// println!("{:?} in the kernel for each message", used.system() / messages);
    /// # }
    /// ```
    #[must_use]
    pub fn system(self) -> Duration {
        self.total.saturating_sub(self.user)
    }
}

fn number(text: Option<&str>) -> f64 {
    text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_a_process_is_read() {
        let begin = ProcessCpu::of(std::process::id()).unwrap();
        assert!(begin.total_ns > 0.0);
        let end = ProcessCpu {
            total_ns: begin.total_ns + 2e6,
            user_ticks: begin.user_ticks + 1.0,
            system_ticks: begin.system_ticks + 3.0,
        };
        let time = end.since(begin);
        assert_eq!(time.total, Duration::from_millis(2));
        assert_eq!((time.user, time.system()), (time.total / 4, time.total / 4 * 3));
        assert!(ProcessCpu::of(u32::MAX).is_err());
    }
}
