//! How much of the processor a server takes.

use std::io;
use std::sync::Once;
use std::time::Duration;

use perf_event::events::Software;
use perf_event::{Builder, Counter};
use shaddock::load::{CpuTime, ProcessCpu};

/// Counts a process's CPU from its making on.
///
/// What counts is for how long its threads are on a core, by perf's task clock. What the scheduler
/// charges them with (`schedstat`, which `top` shows) is more for a thread that shares its core:
/// one that is woken while another is in a system call is charged from then on, though it gets the
/// core at that call's end only (`docs/benchmarks.md`, "How").
pub(crate) struct CpuMeter {
    pid: u32,
    charged: ProcessCpu,
    /// `None` where perf's events are not to be had.
    on_core: Option<Vec<Counter>>,
}

/// What a process took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// For how long its threads were on a core; what they were charged with, where that is not
    /// known.
    pub(crate) on_core: Duration,
    pub(crate) charged: CpuTime,
}

impl CpuMeter {
    /// Counts for all threads that a process has now.
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
