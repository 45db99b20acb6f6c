//! The latency of healthy clients while others cause trouble.
//!
//! ```text
//! cargo bench --bench isolation                          # 5 rounds, some eight minutes
//! cargo bench --bench isolation -- --quick               # 1 short round, under a minute
//! cargo bench --bench isolation -- --troubles flood,storm --rounds 15
//! cargo bench --bench isolation -- --soak 30             # 30 minutes, see `soak`
//! ```
//!
//! Each trouble and round has a fresh server, pinned to the first core, where its nice value puts
//! it before everything else on the machine. Healthy clients on the second core send an echo every
//! millisecond. Their latency is measured first without the trouble, then with it. The trouble's
//! own threads run at the lowest priority. The bench prints a table, and writes
//! `target/isolation.json`.
//!
//! Latency is the server's share: from the time a request was due until the kernel has its answer
//! for the client, as a client on a core of its own would measure it. The healthy clients share the
//! second core with those that cause the trouble, and that delay is not the server's: the kernel
//! cleans up behind thousands of sockets that they close, for a millisecond at a time. The p99 as
//! the clients' thread measured it, with all of that, stands beside it (`seen`).
//!
//! The figures depend on the machine, so they are shown without a verdict. Promises that hold on
//! any machine are checked, and end the run with an error: no healthy session is closed, each
//! answer is correct, every request is answered, and every offender that has to be closed is
//! closed.

#[path = "../common/mod.rs"]
mod common;
mod healthy;
mod server;
mod soak;
mod troubles;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser as _;
use common::report::Spread;
use common::{OTHER_CORE, pin, set_nice};
use healthy::Healthy;
use serde::Serialize;
use server::Process;
use troubles::{Stage, Trouble};

/// The command line.
#[derive(clap::Parser)]
#[command(about = "What a healthy client notices of others' troubles")]
struct Options {
    /// Rounds of each trouble
    #[arg(long)]
    rounds: Option<usize>,
    /// One short round
    #[arg(long, alias = "test")]
    quick: bool,
    /// Troubles, by the names that the table has
    #[arg(long, value_delimiter = ',', value_parser = trouble)]
    troubles: Vec<&'static Trouble>,
    /// Minutes of everything at once, instead of one trouble after the other
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    soak: Option<f64>,
    /// Seed of the soak
    #[arg(long, requires = "soak")]
    seed: Option<u64>,
    /// Messages in a second of the soak, at most
    #[arg(long, requires = "soak")]
    rate: Option<u32>,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
    /// Serves one of the troubles, or the soak.
    #[arg(long, hide = true)]
    serve: Option<String>,
}

fn trouble(name: &str) -> Result<&'static Trouble, String> {
    let names = || troubles::ALL.each_ref().map(|trouble| trouble.name).join(", ");
    Trouble::find(name).ok_or_else(|| format!("expected one of {}", names()))
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.1..=1e5).contains(minutes));
    minutes.ok_or_else(|| "expected 0.1 to 100000".into())
}

/// The figures of one round. Latencies are in microseconds.
#[derive(Serialize)]
struct Sample {
    p50_us: f64,
    p99_us: f64,
    p50_in_trouble_us: f64,
    p99_in_trouble_us: f64,
    /// The same as the clients' thread measured it, which shares its core.
    p99_seen_us: f64,
    p99_seen_in_trouble_us: f64,
    /// The server's resident memory before the trouble, at its end, and some time after it.
    before_bytes: u64,
    during_bytes: u64,
    after_bytes: u64,
    /// The same after a request to the allocator for its free memory, which the program makes when
    /// it is idle.
    trimmed_bytes: u64,
    /// The slowest answer while the trouble ended, however long that took.
    slowest_ending_us: u64,
    /// The outcome for the clients that caused it.
    outcome: String,
}

#[derive(Serialize)]
struct Row {
    trouble: &'static str,
    samples: Vec<Sample>,
}

/// The time within which memory must return.
const RETURN_WITHIN: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(name) = &options.serve {
        let setting = if name == soak::NAME {
            soak::setting()
        } else {
            let Some(trouble) = Trouble::find(name) else { return ExitCode::FAILURE };
            // The bench looks for the effects of clients on each other, not of the rest of the
            // machine.
            set_nice(-20);
            if trouble.is_bare {
                server::serve_bare();
                return ExitCode::SUCCESS;
            }
            trouble.setting()
        };
        server::serve(setting);
        return ExitCode::SUCCESS;
    }
    let result = match options.soak {
        Some(minutes) => soak::run(&soak::Options::new(minutes, options.seed, options.rate)),
        None => run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nfailed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    pin(&[OTHER_CORE]);
    let (rounds, during) = match options.quick {
        true => (1, Duration::from_secs(1)),
        false => (5, Duration::from_secs(3)),
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let troubles = match &options.troubles[..] {
        [] => troubles::ALL.iter().collect(),
        some => some.to_vec(),
    };
    let mut rows = Vec::new();
    println!(
        "{:<10} {:>7} {:>7} {:>9} {:>9}  {:<18} {:>7} {:>9} {:>7} {:>8} {:>8}  outcome",
        "trouble",
        "p50",
        "p99",
        "p50 then",
        "p99 then",
        "p99 ÷ own p99",
        "seen",
        "seen then",
        "memory",
        "trimmed",
        "ending"
    );
    for trouble in troubles {
        let mut row = Row { trouble: trouble.name, samples: Vec::new() };
        for round in 0..rounds {
            eprint!("\r{} {}/{rounds}   ", trouble.name, round + 1);
            let sample = measure(trouble, during);
            row.samples.push(sample.map_err(|error| format!("{}: {error}", trouble.name))?);
        }
        eprint!("\r{:30}\r", "");
        row.print();
        rows.push(row);
    }
    let json = serde_json::to_string_pretty(&rows).map_err(|error| error.to_string())?;
    let file = "target/isolation.json";
    std::fs::write(file, json).map_err(|error| format!("{file}: {error}"))
}

/// Ends the trouble when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn measure(trouble: &'static Trouble, during: Duration) -> Result<Sample, String> {
    let process = Process::start(trouble.name).map_err(|error| error.to_string())?;
    let stage = Stage::new(&process);
    drop(stage.gather(trouble.crowd));
    let mut healthy = Healthy::connect(process.address, trouble.shards, trouble.signs);
    healthy.run(during / 4);
    let quiet = healthy.run(during);
    let before_bytes = process.resident_bytes();
    let stage = Stage::new(&process);
    let (troubled, during_bytes, slowest_ending_us, outcome) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            troubles::yield_to_others();
            (trouble.make)(&stage)
        });
        while !stage.is_on.load(Ordering::Acquire) && !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Also if a healthy client fails, so that the thread ends.
        let end = End(&stage.ends);
        let troubled = healthy.run(during);
        let during_bytes = process.resident_bytes();
        drop(end);
        let mut slowest_us = 0;
        while !thread.is_finished() {
            let ending = healthy.run(Duration::from_millis(10)).served;
            slowest_us = slowest_us.max(ending.max() / 1_000);
        }
        let outcome = thread.join().map_err(|_| "its clients have failed".to_owned());
        (troubled, during_bytes, slowest_us, outcome)
    });
    let outcome = outcome??;
    let deadline = Instant::now() + RETURN_WITHIN;
    let mut after_bytes = process.resident_bytes();
    while after_bytes > before_bytes + before_bytes / 20 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        after_bytes = after_bytes.min(process.resident_bytes());
    }
    process.order("trim");
    let trimmed_bytes = process.resident_bytes();
    // The healthy clients still are.
    healthy.run(Duration::from_millis(100));
    let quantile = |latency: &hdrhistogram::Histogram<u64>, share| {
        latency.value_at_quantile(share) as f64 / 1e3
    };
    Ok(Sample {
        p50_us: quantile(&quiet.served, 0.5),
        p99_us: quantile(&quiet.served, 0.99),
        p50_in_trouble_us: quantile(&troubled.served, 0.5),
        p99_in_trouble_us: quantile(&troubled.served, 0.99),
        p99_seen_us: quantile(&quiet.seen, 0.99),
        p99_seen_in_trouble_us: quantile(&troubled.seen, 0.99),
        before_bytes,
        during_bytes,
        after_bytes,
        trimmed_bytes,
        slowest_ending_us,
        outcome,
    })
}

impl Row {
    fn print(&self) {
        let spread = |value: fn(&Sample) -> f64| Spread::of(self.samples.iter().map(value));
        let median = |value| spread(value).map_or(f64::NAN, |spread| spread.median);
        let ratio = spread(|sample| sample.p99_in_trouble_us / sample.p99_us);
        let grown = |bytes: fn(&Sample) -> u64| {
            let grown = self.samples.iter().map(|s| bytes(s) as f64 / s.before_bytes as f64 - 1.0);
            let median = Spread::of(grown).map_or(f64::NAN, |spread| spread.median);
            format!("{:+.1} %", median * 100.0)
        };
        println!(
            "{:<10} {:>7.0} {:>7.0} {:>9.0} {:>9.0}  {:<18} {:>7.0} {:>9.0} {:>7} {:>8} {:>8.0}  {}",
            self.trouble,
            median(|sample| sample.p50_us),
            median(|sample| sample.p99_us),
            median(|sample| sample.p50_in_trouble_us),
            median(|sample| sample.p99_in_trouble_us),
            ratio.map_or_else(common::report::unknown, |ratio| ratio.text(2)),
            median(|sample| sample.p99_seen_us),
            median(|sample| sample.p99_seen_in_trouble_us),
            grown(|sample| sample.after_bytes),
            grown(|sample| sample.trimmed_bytes),
            median(|sample| sample.slowest_ending_us as f64),
            self.samples.last().map_or("", |sample| &sample.outcome),
        );
    }
}
