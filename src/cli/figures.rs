//! The live figures: one line that is redrawn on a terminal, a line now and then elsewhere.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use shaddock::metrics::{CounterSnapshot, Latency};
use shaddock::{Drain, Handle, Limits, Metrics};

use super::lines;
use super::signals::{Asked, Stop};
use super::terminal::Terminal;

/// The time between two drawings of the line on a terminal.
const REDRAW_EVERY: Duration = Duration::from_millis(500);
/// The time between two lines where it can't be redrawn, if anything has changed.
const PRINT_EVERY: Duration = Duration::from_secs(10);

/// The counters of bounds that are no [`Limits`].
const OTHER_BOUNDS: [&str; 3] = ["accept_failures", "compression_skips", "handshake_waits"];

/// Shows the figures until the engine closes its sessions, or is gone: by a drain that the admin
/// server began, or `drain` once a stop is asked for. In between it calls `reload` when that is
/// asked for.
pub(crate) fn show(handle: &Handle, stop: &Stop, drain: Drain, mut reload: impl FnMut()) {
    let terminal = io::stdout().is_terminal();
    let every = if terminal { REDRAW_EVERY } else { PRINT_EVERY };
    let bar = terminal.then(spinner);
    let mut last = Seen::default();
    let mut last_latency = Latency::default();
    let mut last_at = Instant::now();
    let mut crowd = Crowd::default();
    loop {
        match wait(handle, stop, drain, every) {
            Some(Asked::Stop) => break,
            Some(Asked::Reload) => {
                match &bar {
                    Some(bar) => bar.suspend(&mut reload),
                    None => reload(),
                }
                continue;
            }
            None => {}
        }
        let metrics = match handle.metrics() {
            Ok(metrics) => metrics,
            // The next look may find the shards less busy; if the engine has ended, the stop comes.
            Err(error) => {
                tracing::debug!(%error, "no figures");
                continue;
            }
        };
        let seen = Seen::from(&metrics);
        let latency = metrics.latency.since(&last_latency);
        let quantile = |share| (latency.requests() > 0).then(|| latency.quantile(share));
        let line = Line {
            connections: metrics.connections,
            uids: metrics.uids,
            rates: Rates::between(&last, &seen, last_at.elapsed()),
            p50: quantile(0.5),
            p99: quantile(0.99),
            at_bounds: at_bounds(&metrics.counters).chain(lines_lost()).collect(),
        };
        match &bar {
            Some(bar) => {
                bar.set_message(line.to_string());
                bar.tick();
            }
            // Whoever read the figures may have gone; the engine goes on.
            None if !seen.is_like(&last) => lines::stdout().write(format!("{line}\n").as_bytes()),
            None => {}
        }
        if crowd.has_left(&last, &seen, Instant::now()) {
            shaddock::return_free_memory();
        }
        (last, last_at, last_latency) = (seen, Instant::now(), metrics.latency);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Waits until sessions are closed, as a stop, something else is asked for, or that time is over.
fn wait(handle: &Handle, stop: &Stop, drain: Drain, every: Duration) -> Option<Asked> {
    let deadline = Instant::now() + every;
    loop {
        // Also where the engine has failed.
        if handle.is_closing() {
            return Some(Asked::Stop);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match stop.wait(left.min(REDRAW_EVERY)) {
            Some(Asked::Stop) => {
                stop.set_stopping(true);
                if handle.drain(drain).is_err() {
                    return Some(Asked::Stop);
                }
            }
            // It was called off: the next signal is a first one again.
            None if !handle.is_draining() => {
                stop.set_stopping(false);
                if left.is_zero() {
                    return None;
                }
            }
            None if !left.is_zero() => {}
            asked => return asked,
        }
    }
}

fn spinner() -> ProgressBar {
    let target = ProgressDrawTarget::term_like(Box::new(Terminal::default()));
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("{spinner} {wide_msg}");
    bar.with_style(style.expect("the template is valid"))
}

/// The memory of a crowd, which is given back once the crowd has left.
#[derive(Debug, Default)]
struct Crowd {
    /// The most connections since the last time.
    connections_max: usize,
    returned: Option<Instant>,
}

/// The least time between two times that memory is given back.
const RETURN_EVERY: Duration = Duration::from_secs(60);

impl Crowd {
    /// True if half of those who were there have gone, nobody says anything, and it is not
    /// too soon to ask the allocator again.
    fn has_left(&mut self, last: &Seen, seen: &Seen, now: Instant) -> bool {
        self.connections_max = self.connections_max.max(seen.connections);
        let is_soon = self.returned.is_some_and(|returned| now < returned + RETURN_EVERY);
        let is_quiet = seen.messages_in == last.messages_in;
        let has_left = is_quiet && !is_soon && seen.connections < self.connections_max.div_ceil(2);
        if has_left {
            (self.connections_max, self.returned) = (seen.connections, Some(now));
        }
        has_left
    }
}

/// The figures of one look at the metrics, for the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    connections: usize,
    uids: usize,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// All that has happened at bounds.
    at_bounds: u64,
}

impl From<&Metrics> for Seen {
    fn from(metrics: &Metrics) -> Self {
        Self::new(metrics.connections, metrics.uids, &metrics.counters)
    }
}

impl Seen {
    fn new(connections: usize, uids: usize, counters: &CounterSnapshot) -> Self {
        Self {
            connections,
            uids,
            messages_in: counters.requests + counters.notifies,
            messages_out: counters.answers + counters.pushes,
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            at_bounds: at_bounds(counters).map(|(_, count)| count).sum(),
        }
    }

    /// True if nothing has happened since but heartbeats.
    fn is_like(&self, last: &Self) -> bool {
        Self { bytes_in: last.bytes_in, bytes_out: last.bytes_out, ..*self } == *last
    }
}

/// The counters of bounds that have counted anything since the start.
fn at_bounds(counters: &CounterSnapshot) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    counters.iter().filter(|(name, count)| *count > 0 && is_of_bound(name))
}

/// True if a counter counts what happens at a bound (`docs/limits.md`).
fn is_of_bound(name: &str) -> bool {
    OTHER_BOUNDS.contains(&name)
        || Limits::table().iter().any(|limit| limit.counters.contains(&name))
}

/// Lines of the log that nobody could be made to take, if there are any.
fn lines_lost() -> Option<(&'static str, u64)> {
    let lost = lines::stderr().lost();
    (lost > 0).then_some(("log_lines_lost", lost))
}

/// Messages and bytes of one second.
#[derive(Debug, PartialEq, Eq)]
struct Rates {
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Rates {
    fn between(last: &Seen, seen: &Seen, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        let rate = |last: u64, seen: u64| (seen.saturating_sub(last) as f64 / seconds) as u64;
        Self {
            messages_in: rate(last.messages_in, seen.messages_in),
            messages_out: rate(last.messages_out, seen.messages_out),
            bytes_in: rate(last.bytes_in, seen.bytes_in),
            bytes_out: rate(last.bytes_out, seen.bytes_out),
        }
    }
}

/// The figures as they are shown.
#[derive(Debug)]
struct Line {
    connections: usize,
    uids: usize,
    rates: Rates,
    p50: Option<Duration>,
    p99: Option<Duration>,
    at_bounds: Vec<(&'static str, u64)>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rates { messages_in, messages_out, bytes_in, bytes_out } = self.rates;
        write!(
            f,
            "{} connections, {} logged in | messages/s {} in, {} out | p50 {}, p99 {} \
             | {}/s in, {}/s out",
            HumanCount(self.connections as u64),
            HumanCount(self.uids as u64),
            HumanCount(messages_in),
            HumanCount(messages_out),
            LatencyText(self.p50),
            LatencyText(self.p99),
            HumanBytes(bytes_in),
            HumanBytes(bytes_out),
        )?;
        for (place, (name, count)) in self.at_bounds.iter().enumerate() {
            let between = if place == 0 { " | so far" } else { "," };
            write!(f, "{between} {name} {}", HumanCount(*count))?;
        }
        Ok(())
    }
}

/// A duration in the unit that suits it; a dash if there was no request.
struct LatencyText(Option<Duration>);

impl fmt::Display for LatencyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.map(|duration| duration.as_micros()) {
            None => f.write_str("-"),
            Some(micros @ ..1_000) => write!(f, "{micros} µs"),
            Some(micros @ ..1_000_000) => write!(f, "{:.1} ms", micros as f64 / 1e3),
            Some(micros) => write!(f, "{:.1} s", micros as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(requests: u64, bytes_in: u64) -> Seen {
        let mut counters = CounterSnapshot::default();
        (counters.requests, counters.answers) = (requests, requests);
        counters.bytes_in = bytes_in;
        Seen::new(1, 1, &counters)
    }

    #[test]
    fn rates_are_of_a_second() {
        let rates = Rates::between(&seen(10, 0), &seen(30, 4_096), Duration::from_millis(500));
        assert_eq!((rates.messages_in, rates.messages_out, rates.bytes_in), (40, 40, 8_192));
    }

    #[test]
    fn heartbeats_alone_are_no_news() {
        assert!(seen(10, 8).is_like(&seen(10, 4)));
        assert!(!seen(11, 8).is_like(&seen(10, 4)));
    }

    /// The counters that `docs/limits.md` names are shown, and no others.
    #[test]
    fn every_counter_of_a_bound_is_shown() {
        let text = include_str!("../../docs/limits.md");
        for (name, _) in CounterSnapshot::default().iter() {
            let is_told = text.contains(&format!("`{name}`"));
            assert_eq!(is_of_bound(name), is_told, "{name}");
        }
        let mut counters = CounterSnapshot::default();
        (counters.lane_pauses, counters.requests) = (2, 5);
        assert_eq!(at_bounds(&counters).collect::<Vec<_>>(), [("lane_pauses", 2)]);
        counters.forward_rejects = 1;
        let (seen, last) =
            (Seen::new(1, 1, &counters), Seen::new(1, 1, &CounterSnapshot::default()));
        assert_eq!((seen.at_bounds, seen.is_like(&last)), (3, false));
    }

    #[test]
    fn the_line_is_for_people() {
        let rates = Rates::between(&seen(0, 0), &seen(1_500, 2_048), Duration::from_secs(1));
        let p99 = Some(Duration::from_micros(1_250));
        let p50 = Some(Duration::from_micros(80));
        let at_bounds = vec![("lane_pauses", 3), ("forward_rejects", 1_200)];
        let mut line = Line { connections: 1_000, uids: 0, rates, p50, p99, at_bounds };
        let usual = "1,000 connections, 0 logged in | messages/s 1,500 in, 1,500 out \
                     | p50 80 µs, p99 1.2 ms | 2.00 KiB/s in, 0 B/s out";
        let expected = format!("{usual} | so far lane_pauses 3, forward_rejects 1,200");
        assert_eq!(line.to_string(), expected);
        line.at_bounds.clear();
        assert_eq!(line.to_string(), usual);
        assert_eq!(LatencyText(None).to_string(), "-");
    }

    #[test]
    fn memory_is_given_back_once_a_crowd_has_left_and_it_is_quiet() {
        let mut crowd = Crowd::default();
        let seen = |connections, messages_in| Seen { connections, messages_in, ..Seen::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!crowd.has_left(&seen(0, 0), &seen(0, 0), at(0)), "nobody was there");
        assert!(!crowd.has_left(&seen(0, 0), &seen(100, 9), at(1)));
        assert!(!crowd.has_left(&seen(100, 9), &seen(10, 10), at(2)), "they talk");
        assert!(!crowd.has_left(&seen(10, 10), &seen(51, 10), at(3)), "most are there");
        assert!(crowd.has_left(&seen(51, 10), &seen(10, 10), at(4)));
        assert!(!crowd.has_left(&seen(10, 10), &seen(10, 10), at(5)), "it is done");
        assert!(!crowd.has_left(&seen(100, 10), &seen(100, 10), at(6)));
        assert!(!crowd.has_left(&seen(100, 10), &seen(0, 10), at(63)), "too soon");
        assert!(crowd.has_left(&seen(0, 10), &seen(0, 10), at(64)));
    }
}
