//! A server at half of its capacity for a long time, while clients connect, disconnect and
//! misbehave.
//!
//! ```text
//! cargo bench --bench isolation -- --soak 30                  # minutes
//! cargo bench --bench isolation -- --soak 30 --seed 7 --rate 20000
//! ```
//!
//! The bench runs one server with one shard, under three kinds of load. An open loop has 500
//! connections, which are renewed with each report, at half the rate that a closed loop reached at
//! the start, or at `--rate` if that is less. Healthy clients send an echo every millisecond. One
//! trouble follows another, each kind once in random order before any is repeated. Reports come
//! once a minute, or three times in a shorter run. The results go to `target/soak.json` and
//! `target/soak.md`.
//!
//! The run ends with an error unless no healthy connection was closed, every answer was correct,
//! every trouble had its expected outcome, the resident memory of the last third of the time was at
//! most 5 % above that of the first third, there are as many descriptors and threads at the end as
//! at the start, and no connection is left when all clients have disconnected.

mod random;
mod report;
mod troubles;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use shaddock::Limits;
use shaddock::load::{self, LoadOptions, LoadReport, Phase};

use crate::End;
use crate::common::set_nice;
use crate::common::{OTHER_CORE, pin};
use crate::healthy::Healthy;
use crate::server::{self, FORWARD_TIMEOUT, Process, Setting};
use crate::soak::random::Random;
use crate::troubles::{Stage, yield_to_others};

/// The name by which the child process knows its task.
pub(crate) const NAME: &str = "soak";

/// The options of a run.
pub(crate) struct Options {
    minutes: f64,
    pub(crate) seed: u64,
    pub(crate) rate_max: f64,
}

/// The outbox bound: half a megabyte is more than ever waits for a client that reads.
const OUTBOX_BYTES_MAX: usize = 512 * 1024;
const LARGE_BYTES: usize = OUTBOX_BYTES_MAX / 2;
const CONNECTIONS: u32 = 500;
/// The most messages that may be late on one connection.
const LATE_MAX: u32 = 64;
/// The bound on the growth of memory from the first third to the last.
const GROWTH_MAX: f64 = 0.05;
/// The fewest reports from which a run judges the growth of memory.
const REPORTS_MIN: usize = 9;
/// The interval at which memory is read.
const GLANCE: Duration = Duration::from_millis(100);
/// The time within which the server must notice that all have disconnected: more than a handshake
/// may take.
const GONE_WITHIN: Duration = Duration::from_secs(15);

/// The figures of one interval.
#[derive(Serialize)]
struct Row {
    seconds: f64,
    requests_per_second: f64,
    load_p50_us: f64,
    load_p99_us: f64,
    healthy_p50_us: f64,
    healthy_p99_us: f64,
    resident_max_bytes: u64,
    resident_bytes: u64,
    descriptors: usize,
    threads: usize,
    connections: u64,
    /// Connections closed and refused, by counter.
    closes: BTreeMap<String, u64>,
    troubles: BTreeMap<&'static str, u64>,
}

/// The results of a run.
#[derive(Serialize)]
struct Results {
    machine: String,
    minutes: f64,
    seed: u64,
    capacity: f64,
    rate: f64,
    descriptors_before: usize,
    threads_before: usize,
    descriptors_after: usize,
    threads_after: usize,
    connections_after: u64,
    first_third_max_bytes: u64,
    last_third_max_bytes: u64,
    rows: Vec<Row>,
    /// The conditions that were not met.
    failures: Vec<String>,
}

/// The state that a run's threads share.
struct Shared<'a> {
    process: &'a Process,
    ends: AtomicBool,
    healthy: Mutex<Histogram<u64>>,
    resident_max: AtomicU64,
    troubles: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<String>>,
}

impl Options {
    /// A soak; without a seed it takes one from the clock.
    pub(crate) fn new(minutes: f64, seed: Option<u64>, rate_max: Option<u32>) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = seed.unwrap_or_else(|| now.map_or(1, |time| time.as_secs()));
        Self { minutes, seed, rate_max: rate_max.map_or(f64::INFINITY, f64::from) }
    }

    /// The number of reports, and the time of each.
    fn intervals(&self) -> (usize, Duration) {
        let count = (self.minutes.round() as usize).max(3);
        (count, Duration::from_secs_f64(self.minutes * 60.0 / count as f64))
    }

    fn is_short(&self) -> bool {
        self.intervals().0 < REPORTS_MIN
    }
}

/// Limits under which every trouble comes to its end.
pub(crate) fn setting() -> Setting {
    let limits = Limits {
        package_bytes_max: LARGE_BYTES,
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        forward_timeout: FORWARD_TIMEOUT,
        ..Limits::default()
    };
    Setting { shards: 1, limits, signs: false }
}

fn stage(process: &Process) -> Stage<'_> {
    Stage {
        crowd: troubles::CROWD,
        storm: troubles::STORM,
        large_bytes: LARGE_BYTES,
        ..Stage::new(process)
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    pin(&[OTHER_CORE]);
    let process = Process::start(NAME).map_err(|error| error.to_string())?;
    let (warmup, measure) = (Duration::from_millis(500), Duration::from_secs(3));
    // Each connection has one message in flight, as the open loop mostly has. Many in flight cost
    // less each, so half of that rate would be the whole capacity of these.
    let closed_loop = LoadOptions { pipeline: 1, warmup, measure, ..load_options(&process) };
    let report = load::run(&closed_loop, |_| {}).map_err(|error| error.to_string())?;
    let capacity = report.messages as f64 / report.elapsed.as_secs_f64();
    let rate = (capacity / 2.0).min(options.rate_max);
    println!("seed {}, capacity {capacity:.0}/s, load {rate:.0}/s", options.seed);
    let mut random = Random::new(options.seed);
    // Every kind of allocation is made once, so that it does not count as growth later.
    for (name, make) in troubles::ALL {
        let stage = stage(&process);
        stage.ends.store(true, Ordering::Release);
        make(&stage, &mut random).map_err(|error| format!("{name}: {error}"))?;
    }
    wait_until_gone(&process);
    let before = (process.descriptors(), process.threads());
    let (rows, mut failures) = soak(options, &process, rate, random);
    let connections_after = wait_until_gone(&process);
    let after = (process.descriptors(), process.threads());
    if before != after {
        failures.push(format!("{before:?} descriptors and threads have become {after:?}"));
    }
    if connections_after > 0 {
        failures.push(format!("{connections_after} connections are left"));
    }
    let third = rows.len() / 3;
    let max = |rows: &[Row]| rows.iter().map(|row| row.resident_max_bytes).max().unwrap_or(0);
    let (first, last) = (max(&rows[..third]), max(&rows[rows.len() - third..]));
    if !options.is_short() && last as f64 > first as f64 * (1.0 + GROWTH_MAX) {
        failures.push(format!("memory has grown from {first} to {last} bytes"));
    }
    let results = Results {
        machine: crate::common::report::machine(),
        minutes: options.minutes,
        seed: options.seed,
        capacity,
        rate,
        descriptors_before: before.0,
        threads_before: before.1.len(),
        descriptors_after: after.0,
        threads_after: after.1.len(),
        connections_after,
        first_third_max_bytes: first,
        last_third_max_bytes: last,
        rows,
        failures,
    };
    report::write(&results).map_err(|error| error.to_string())?;
    if results.failures.is_empty() { Ok(()) } else { Err(results.failures.join("; ")) }
}

/// Waits until the server has no connection; returns the number of those left.
fn wait_until_gone(process: &Process) -> u64 {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let left = connections(&process.counters());
        if left == 0 || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(GLANCE);
    }
}

fn connections(counters: &BTreeMap<String, u64>) -> u64 {
    counters["connections_accepted"].saturating_sub(counters["connections_closed"])
}

fn load_options(process: &Process) -> LoadOptions {
    LoadOptions {
        connections: CONNECTIONS,
        route: server::ECHO.into(),
        ..LoadOptions::new(process.address)
    }
}

/// Runs all threads until the time is over or one of them has failed.
fn soak(
    options: &Options,
    process: &Process,
    rate: f64,
    mut random: Random,
) -> (Vec<Row>, Vec<String>) {
    let shared = Shared {
        process,
        ends: AtomicBool::new(false),
        healthy: Mutex::new(histogram()),
        resident_max: AtomicU64::new(0),
        troubles: Mutex::default(),
        failures: Mutex::default(),
    };
    let (count, interval) = options.intervals();
    let longest = if options.is_short() { 1_000 } else { 5_000 };
    let mut rows: Vec<Row> = Vec::new();
    std::thread::scope(|scope| {
        let healthy = scope.spawn(|| shared.stay_healthy());
        scope.spawn(|| shared.make_trouble(&mut random, longest));
        scope.spawn(|| shared.watch_memory());
        let end = End(&shared.ends);
        // This thread makes the load, and shares its core with the healthy clients.
        set_nice(19);
        report::head();
        let start = Instant::now();
        let mut counters = process.counters();
        while rows.len() < count && !healthy.is_finished() {
            // A late interval shortens the next one.
            let end = interval * (rows.len() as u32 + 1);
            let during = end.saturating_sub(start.elapsed()).max(interval / 2);
            match shared.interval(during, rate, &mut counters) {
                Ok(row) => {
                    report::print(rows.len(), &row);
                    rows.push(row);
                }
                Err(error) => {
                    shared.fail(format!("load: {error}"));
                    break;
                }
            }
        }
        drop(end);
        if healthy.join().is_err() {
            shared.fail("a healthy client was closed, or got a wrong answer or none".into());
        }
    });
    (rows, shared.failures.into_inner().expect("nobody panics with it"))
}

impl Shared<'_> {
    fn fail(&self, what: String) {
        eprintln!("{what}");
        self.failures.lock().expect("nobody panics with it").push(what);
    }

    fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Acquire)
    }

    fn stay_healthy(&self) {
        let mut healthy = Healthy::connect(self.process.address, 1, false);
        while self.goes_on() {
            let latency = healthy.run(GLANCE);
            let mut all = self.healthy.lock().expect("nobody panics with it");
            all.add(&latency.served).expect("it grows");
        }
    }

    fn watch_memory(&self) {
        while self.goes_on() {
            self.resident_max.fetch_max(self.process.resident_bytes(), Ordering::Relaxed);
            std::thread::sleep(GLANCE);
        }
    }

    /// Runs one trouble after another, each kind once before any is repeated.
    fn make_trouble(&self, random: &mut Random, longest_ms: u64) {
        yield_to_others();
        let mut all = troubles::ALL;
        while self.goes_on() {
            random.shuffle(&mut all);
            for (name, make) in all {
                if !self.goes_on() {
                    return;
                }
                let millis = longest_ms / 5 + random.below(longest_ms * 4 / 5);
                if let Err(error) = self.one_trouble(make, millis, random) {
                    self.fail(format!("{name}: {error}"));
                }
                *self.troubles.lock().expect("nobody panics with it").entry(name).or_default() += 1;
                std::thread::sleep(Duration::from_millis(random.below(longest_ms / 5)));
            }
        }
    }

    fn one_trouble(
        &self,
        make: fn(&Stage<'_>, &mut Random) -> Result<String, String>,
        millis: u64,
        random: &mut Random,
    ) -> Result<String, String> {
        let stage = stage(self.process);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| make(&stage, random));
            let mut on_since = None;
            while !thread.is_finished() {
                if stage.is_on.load(Ordering::Acquire) {
                    let since = *on_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > Duration::from_millis(millis) {
                        stage.ends.store(true, Ordering::Release);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            thread.join().map_err(|_| "its clients have failed".to_owned()).and_then(|done| done)
        })
    }

    /// The load of one interval, and the other figures of that time.
    fn interval(
        &self,
        during: Duration,
        rate: f64,
        counters: &mut BTreeMap<String, u64>,
    ) -> Result<Row, String> {
        let start = Instant::now();
        let warmup = during / 20;
        let options = LoadOptions {
            pipeline: LATE_MAX,
            rate: Some(rate),
            warmup,
            measure: during - 2 * warmup,
            ..load_options(self.process)
        };
        let mut now = None;
        let report: LoadReport = load::run(&options, |progress| {
            if progress.phase == Phase::Done {
                now = Some(self.process.counters());
            }
        })
        .map_err(|error| error.to_string())?;
        if report.wrong > 0 || report.disconnects.total() > 0 {
            self.fail(format!(
                "load: {} wrong answers; lost: {}",
                report.wrong, report.disconnects
            ));
        }
        let now = now.ok_or("the load was too short")?;
        let closes = now.iter().filter(|(name, _)| {
            ["closed_", "bad_", "refused_", "package_"].iter().any(|start| name.starts_with(start))
        });
        let closes = closes
            .map(|(name, value)| (name.clone(), value - counters[name]))
            .filter(|(_, value)| *value > 0)
            .collect();
        let lock = || self.healthy.lock().expect("nobody panics with it");
        let healthy = std::mem::replace(&mut *lock(), histogram());
        let troubles = std::mem::take(&mut *self.troubles.lock().expect("nobody panics with it"));
        let micros = |all: &Histogram<u64>, share| all.value_at_quantile(share) as f64 / 1e3;
        let resident_bytes = self.process.resident_bytes();
        let row = Row {
            seconds: start.elapsed().as_secs_f64(),
            requests_per_second: report.messages as f64 / report.elapsed.as_secs_f64(),
            load_p50_us: micros(&report.latency, 0.5),
            load_p99_us: micros(&report.latency, 0.99),
            healthy_p50_us: micros(&healthy, 0.5),
            healthy_p99_us: micros(&healthy, 0.99),
            resident_max_bytes: self.resident_max.swap(0, Ordering::Relaxed).max(resident_bytes),
            resident_bytes,
            descriptors: self.process.descriptors(),
            threads: self.process.threads().len(),
            connections: connections(&now),
            closes,
            troubles,
        };
        *counters = now;
        Ok(row)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("the digits are in range")
}
