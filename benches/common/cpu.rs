//! The CPU time of a server.

use std::io;
use std::sync::Once;
use std::time::Duration;

use perf_event::events::Software;
use perf_event::{Builder, Counter};
use shaddock::load::{CpuTime, ProcessCpu};

/// Measures a process's CPU time from its creation on.
///
/// The measure is the time that its threads are on a core, by perf's task clock. The scheduler's
/// own accounting (`schedstat`, which `top` shows) charges more to a thread that shares its core: a
/// thread that is woken during another's system call is charged from then on, although it gets the
/// core only at the end of that call (`docs/benchmarks.md`, "How").
pub(crate) struct CpuMeter {
    pid: u32,
    charged: ProcessCpu,
    /// `None` if perf's events are not available.
    on_core: Option<Vec<Counter>>,
}

/// The CPU time of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// The time that its threads were on a core; the scheduler's account where that is unknown.
    pub(crate) on_core: Duration,
    pub(crate) charged: CpuTime,
}

impl CpuMeter {
    /// Starts measuring all threads that a process has now.
    pub(crate) fn start(pid: u32) -> io::Result<Self> {
        static TELLS: Once = Once::new();
        let tell = |error| {
            TELLS.call_once(|| {
                eprintln!("no perf events ({error}): CPU is what the scheduler charged");
            });
        };
        let on_core = task_clocks(pid).map_err(tell).ok();
        Ok(Self { pid, charged: ProcessCpu::of(pid)?, on_core })
    }

    pub(crate) fn stop(self) -> io::Result<Cpu> {
        let charged = ProcessCpu::of(self.pid)?.since(self.charged);
        let on_core = match self.on_core {
            None => charged.total,
            Some(mut clocks) => {
                let times: io::Result<Vec<u64>> = clocks.iter_mut().map(Counter::read).collect();
                Duration::from_nanos(times?.iter().sum())
            }
        };
        Ok(Cpu { on_core, charged })
    }
}

fn task_clocks(pid: u32) -> io::Result<Vec<Counter>> {
    let clock = |task: io::Result<std::fs::DirEntry>| {
        let thread = task?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
        let builder = Builder::new().kind(Software::TASK_CLOCK);
        let mut clock = builder.observe_pid(thread).any_cpu().build()?;
        clock.enable()?;
        Ok(clock)
    };
    std::fs::read_dir(format!("/proc/{pid}/task"))?.map(clock).collect()
}
