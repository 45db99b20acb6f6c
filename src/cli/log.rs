//! The log, and what else goes to stderr while clients are served.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::panic::{self, Location, PanicHookInfo};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use super::lines::{self, LogLine};
use super::log_form::{self, Form, LogFormat};

/// The crate whose lines may be as detailed as they were asked for.
const OWN: &str = "shaddock";
/// The most detail in lines of libraries: below, they may tell of what they send.
const LIBRARIES_MAX: LevelFilter = LevelFilter::INFO;
/// Logs nothing: any client can have it say as many lines as it likes. What it says is also the
/// error that it gives, which is counted, and told where the connection is to a backend.
const SILENT: &str = "rustls";

/// The level without the option and the key.
const LEVEL: LevelFilter = LevelFilter::WARN;
/// The names of the levels.
pub(super) const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Logs on stderr from now on, panics included, as the command line says. What it gives waits, when
/// it is dropped, until the last lines are written.
#[must_use]
pub(super) fn start(level: Option<LevelFilter>, format: Option<LogFormat>) -> Flush {
    COMMAND_LINE.set((level.is_some(), format.is_some())).ok();
    log_form::set_format(format.unwrap_or(LogFormat::Text));
    // Its thread and its descriptor are to be had now, and later perhaps not.
    lines::stderr();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| LogLine)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(Form::new())
        // By default it prints what goes wrong with the log on stderr, and panics where that fails.
        .log_internal_errors(false);
    let (targets, changes) = reload::Layer::new(targets(level.unwrap_or(LEVEL)));
    tracing_subscriber::registry().with(targets).with(lines).init();
    CHANGES.set(changes).ok();
    panic::set_hook(Box::new(tell_panic));
    Flush
}

/// The way to change the level while the process runs.
static CHANGES: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// True for level and format if the command line has said them.
static COMMAND_LINE: OnceLock<(bool, bool)> = OnceLock::new();

/// Logs as the file says from now on, but for what the command line has said.
pub(super) fn take_settings(level: LevelFilter, format: LogFormat) {
    let (has_level, has_format) = COMMAND_LINE.get().copied().unwrap_or_default();
    if !has_format {
        log_form::set_format(format);
    }
    if !has_level && let Some(changes) = CHANGES.get() {
        // It fails only without a log.
        changes.reload(targets(level)).ok();
    }
}

/// Logs at another level from now on.
///
/// # Errors
/// The names of the levels, where it is none.
pub(super) fn set_level(name: &str) -> Result<(), String> {
    if !LEVELS.contains(&name) {
        return Err(format!("a level is one of {}", LEVELS.join(", ")));
    }
    let level: LevelFilter = name.parse().map_err(|_| "this is no level".to_owned())?;
    let changes = CHANGES.get().ok_or("there is no log")?;
    changes.reload(targets(level)).map_err(|error| error.to_string())
}

fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_target(OWN, level)
        .with_target(SILENT, LevelFilter::OFF)
        .with_default(level.min(LIBRARIES_MAX))
}

/// Writes what is left, also when a panic ends the main thread.
#[derive(Debug)]
pub(super) struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        lines::flush();
    }
}

/// The time after which a thread tells again of a panic in the same place: clients may be able to
/// repeat it.
const PANIC_EVERY: Duration = Duration::from_secs(1);

/// Says what the hook of the standard library says, which would wait for whoever reads stderr.
fn tell_panic(info: &PanicHookInfo<'_>) {
    thread_local! {
        static LAST: Cell<Option<(Place, Instant)>> = const { Cell::new(None) };
    }
    let place = info.location().map(Place::of);
    let now = Instant::now();
    // A thread that is about to end has none of its own any more.
    let last = LAST.try_with(|last| last.replace(place.map(|place| (place, now)))).ok().flatten();
    match last {
        Some((last, at)) if Some(last) == place && now < at + PANIC_EVERY => {
            LAST.try_with(|kept| kept.set(Some((last, at)))).ok();
        }
        _ => lines::tell(&log_form::line("ERROR", &text_of(info))),
    }
}

/// A place in the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The address of the file's name in memory; names are part of the program.
    file: usize,
    line: u32,
}

impl Place {
    fn of(location: &Location<'_>) -> Self {
        Self { file: location.file().as_ptr() as usize, line: location.line() }
    }
}

fn text_of(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let why = info.payload_as_str().unwrap_or("a value that is no text");
    let mut text = format!("thread '{name}' panicked");
    if let Some(place) = info.location() {
        write!(text, " at {place}").ok();
    }
    writeln!(text, ":\n{why}").ok();
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        writeln!(text, "{backtrace}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    /// Such lines have had passwords in them.
    #[test]
    fn libraries_are_never_asked_for_details() {
        let targets = targets(LevelFilter::TRACE);
        assert!(targets.would_enable("shaddock::shard", &Level::TRACE));
        assert!(targets.would_enable("tonic::transport", &Level::INFO));
        for library in ["tonic::transport", "rustls", "h2", "glommio", ""] {
            assert!(!targets.would_enable(library, &Level::DEBUG), "{library}");
        }
        let targets = super::targets(LevelFilter::WARN);
        assert!(!targets.would_enable("tonic", &Level::INFO));
        assert!(targets.would_enable("shaddock", &Level::WARN));
        assert!(!targets.would_enable("rustls::check", &Level::ERROR));
    }
}
