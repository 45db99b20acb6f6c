//! Many connections, next to the ceiling: a bare ring, or several.
//!
//! ```text
//! cargo bench --bench scale                                # all parts, some ten minutes
//! cargo bench --bench scale -- --quick                     # few connections, under a minute
//! cargo bench --bench scale -- --parts memory --servers shaddock,shaddock-poll,tokio
//! cargo bench --bench scale -- --parts count --rounds 5    # memory, set-up, storm, push, count,
//!                                                          # watched
//! cargo bench --bench scale -- --parts watched --rounds 10 --rate 30000
//! cargo bench --bench scale -- --parts count --counts 1000,100000 --rate 30000
//! ```
//!
//! Each run is a fresh server process, pinned to the first core, with the load client on the
//! second. A ring's table of sockets can't be larger than the process's descriptor limit, so many
//! connections are spread over several rings on both sides: the server has several shards on its
//! core. The part `count` has as many shards for 1,000 connections as for 100,000, so that only the
//! number differs. Servers take turns within a round, and ratios are computed within each round.
//! The bench writes `target/scale.json` and `target/scale.html`.

#[path = "../common/mod.rs"]
mod common;
mod measure;
mod report;
mod servers;
mod system;
mod watched;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser as _, ValueEnum as _};
use common::BACKLOG;
use common::{OTHER_CORE, pin};
use measure::Shape;
use report::Results;
use servers::{Server, Setting};

/// The command line.
#[derive(clap::Parser)]
#[command(about = "Many connections, next to a bare ring, or several")]
struct Options {
    /// Rounds of each part
    #[arg(long)]
    rounds: Option<usize>,
    /// Each part once, with few connections
    #[arg(long, alias = "test")]
    quick: bool,
    /// Parts to measure
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Servers, of those that a part has: ceiling, shaddock, shaddock-ws; shaddock-poll and tokio
    /// have part memory only
    #[arg(long, value_delimiter = ',', value_parser = server)]
    servers: Vec<Server>,
    /// Connections of a set-up, a storm, a push to all
    #[arg(long)]
    sessions: Option<u32>,
    /// Idle connections whose memory is measured
    #[arg(long, value_delimiter = ',')]
    idle: Vec<u32>,
    /// Connections over which messages come at the same rate
    #[arg(long, value_delimiter = ',')]
    counts: Vec<u32>,
    /// Messages in a second of the part `count`
    #[arg(long)]
    rate: Option<f64>,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
}

fn server(name: &str) -> Result<Server, String> {
    Server::from_name(name).ok_or_else(|| "no server has this name".into())
}

/// The work to be done.
struct Arguments {
    rounds: usize,
    parts: Vec<Part>,
    /// The servers that are measured, if not all of a part's are.
    servers: Vec<Server>,
    shape: Shape,
    /// Idle connections whose memory is measured.
    memory: Vec<u32>,
    /// Connections of a set-up, a storm, a push to all.
    sessions: u32,
    heartbeat_s: u64,
    /// The numbers of connections over which messages come at the same rate.
    counts: Vec<u32>,
    rate: f64,
    /// The shape of a run that is watched, several seconds.
    watched: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Memory,
    SetUp,
    Storm,
    Push,
    Count,
    Watched,
}

const PUSH_BODY_BYTES: [usize; 2] = [64, 1024];
/// The shape for idle connections, which are only counted.
const BRIEF: Shape = shape(200, 300);

const fn shape(warmup_ms: u64, measure_ms: u64) -> Shape {
    Shape { warmup: Duration::from_millis(warmup_ms), measure: Duration::from_millis(measure_ms) }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some((flag, words)) = words.split_first()
        && flag == "--serve"
    {
        return servers::serve(words).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match run(&Options::parse().into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

impl From<Options> for Arguments {
    fn from(options: Options) -> Self {
        let mut arguments = Self {
            rounds: 3,
            parts: Part::value_variants().to_vec(),
            servers: options.servers,
            shape: shape(1000, 3000),
            memory: vec![1_000, 18_000],
            sessions: 10_000,
            heartbeat_s: 3,
            counts: vec![1_000, 10_000, 50_000, 100_000],
            rate: 50_000.0,
            watched: shape(2000, 10_000),
        };
        if options.quick {
            arguments.shorten();
        }
        arguments.rounds = options.rounds.unwrap_or(arguments.rounds);
        arguments.sessions = options.sessions.unwrap_or(arguments.sessions);
        arguments.rate = options.rate.unwrap_or(arguments.rate);
        if !options.parts.is_empty() {
            arguments.parts = options.parts;
        }
        if !options.idle.is_empty() {
            arguments.memory = options.idle;
        }
        if !options.counts.is_empty() {
            arguments.counts = options.counts;
        }
        arguments
    }
}

impl Arguments {
    /// Those of a part's servers that are measured.
    fn of(&self, part: &[Server]) -> Vec<Server> {
        let mut servers = part.to_vec();
        servers.retain(|server| self.servers.is_empty() || self.servers.contains(server));
        servers
    }

    /// Each part once, with few connections, to see that it runs.
    fn shorten(&mut self) {
        self.rounds = 1;
        self.shape = shape(200, 800);
        self.memory = vec![1_000];
        self.sessions = 2_000;
        self.heartbeat_s = 1;
        self.counts = vec![500, 3_000];
        self.rate = 10_000.0;
        self.watched = shape(1000, 3000);
    }
}

fn run(arguments: &Arguments) -> std::io::Result<()> {
    pin(&[OTHER_CORE]);
    if let Some(warning) = system::short_backlog(BACKLOG) {
        eprintln!("{warning}");
    }
    let mut results = Results::new();
    let measured = measure_all(arguments, &mut results);
    eprintln!("\r{:<60}", "");
    // Results from before an error still count.
    results.print();
    results.write()?;
    measured
}

fn measure_all(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for part in &arguments.parts {
        for round in 0..arguments.rounds {
            eprint!("\r{part:?}, round {} of {}  ", round + 1, arguments.rounds);
            match part {
                Part::Memory => memory(arguments, results)?,
                Part::SetUp => set_up(arguments, results)?,
                Part::Storm => storm(arguments, results)?,
                Part::Push => push(arguments, results)?,
                Part::Count => count(arguments, results)?,
                Part::Watched => {
                    let Arguments { sessions, rate, watched, .. } = *arguments;
                    let sample = watched::round(sessions, rate, watched, round % 2 == 1)?;
                    results.watched.push(sample);
                }
            }
        }
    }
    Ok(())
}

fn memory(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for connections in arguments.memory.iter().copied().filter(|n| is_possible(*n)) {
        for server in arguments.of(&Server::OF_MEMORY) {
            results.memory.push(measure::memory(server, connections, BRIEF)?);
            system::settle();
        }
    }
    Ok(())
}

fn set_up(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for server in arguments.of(&Server::ALL) {
        results.set_up.push(measure::set_up(server, arguments.sessions, BRIEF)?);
        system::settle();
    }
    Ok(())
}

fn storm(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for server in arguments.of(&[Server::Shaddock, Server::ShaddockWebSocket]) {
        let storm = measure::storm(server, arguments.sessions, arguments.heartbeat_s)?;
        results.storm.push(storm);
        system::settle();
    }
    Ok(())
}

fn push(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for body_bytes in PUSH_BODY_BYTES {
        for server in arguments.of(&Server::ALL) {
            let push = measure::push(server, arguments.sessions, body_bytes, arguments.shape)?;
            results.push.push(push);
            system::settle();
        }
    }
    Ok(())
}

fn count(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    let most = arguments.counts.iter().copied().filter(|n| is_possible(*n)).max();
    let Some(most) = most else { return Ok(()) };
    let setting = Setting {
        rings: system::rings_needed(most),
        ports: system::ports_needed(most),
        heartbeat_s: 0,
    };
    for connections in arguments.counts.iter().copied().filter(|n| *n <= most) {
        for server in arguments.of(&[Server::Ceiling, Server::Shaddock]) {
            eprint!("{connections} ");
            let sample =
                measure::count(server, connections, arguments.rate, setting, arguments.shape)?;
            results.count.push(sample);
            system::settle();
        }
    }
    Ok(())
}

/// True if the machine can hold so many connections; otherwise prints the reason.
fn is_possible(connections: u32) -> bool {
    match system::obstacle(connections) {
        None => true,
        Some(why) => {
            eprintln!("\rno {connections} connections here: {why}");
            false
        }
    }
}
