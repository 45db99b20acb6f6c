//! `shaddock load`: loads a server that speaks Pomelo's protocol, and tells how it fared.

mod options;
mod plot;
mod report;

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shaddock::load::{self, LoadProgress, Phase, ProcessCpu};

pub(crate) use options::LoadOptions;

use report::Report;

/// Loads the server, and prints the report.
pub(crate) fn run(options: &LoadOptions) -> anyhow::Result<()> {
    let bar = options.shows_progress().then(bar);
    let pid = options.server_pid;
    let mut begin: Option<(ProcessCpu, u64)> = None;
    let mut end: Option<(ProcessCpu, u64)> = None;
    let report = load::run(&options.to_library(), |progress| {
        if let Some(bar) = &bar {
            draw(bar, progress);
        }
        let sample = || Some((ProcessCpu::of(pid?).ok()?, progress.messages));
        match progress.phase {
            Phase::Measure if begin.is_none() => begin = sample(),
            Phase::Done => end = sample(),
            _ => {}
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report.with_context(|| format!("can't load {}", options.addresses()))?;
    let server_cpu = match (pid, begin.zip(end)) {
        (_, Some(((begin, before), (end, messages)))) => {
            Some((end.since(begin), messages - before))
        }
        (Some(pid), None) => anyhow::bail!("there is no process {pid} to read the CPU time of"),
        (None, None) => None,
    };
    if let Some(path) = &options.plot {
        std::fs::write(path, plot::svg(&report.latency))
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    let report = Report::new(options, &report, server_cpu);
    let text = match options.json {
        true => format!("{}\n", serde_json::to_string_pretty(&report)?),
        false => report.to_string(),
    };
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("can't write to stdout")?;
    match report.faults() {
        0 => Ok(()),
        faults => anyhow::bail!("{faults} answers were wrong or connections lost"),
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix:>9} {wide_bar} {percent:>3}% {msg}");
    bar.with_style(style.expect("the template is valid"))
}

fn draw(bar: &ProgressBar, progress: LoadProgress) {
    bar.set_prefix(match progress.phase {
        Phase::Connect => "connect",
        Phase::Warmup => "warm up",
        Phase::Storm => "reconnect",
        _ => "measure",
    });
    bar.set_position((progress.share * 1000.0) as u64);
    bar.set_message(match progress.phase {
        Phase::Connect | Phase::Storm => format!("{} connections", progress.connections),
        _ => format!("{} messages", progress.messages),
    });
}

impl LoadOptions {
    fn shows_progress(&self) -> bool {
        std::io::stderr().is_terminal()
    }
}
