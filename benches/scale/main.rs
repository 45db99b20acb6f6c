//! Many connections, next to the ceiling: a bare ring, or several.
//!
//! ```text
//! cargo bench --bench scale                                # all parts, some ten minutes
//! cargo bench --bench scale -- --quick                     # few connections, under a minute
//! cargo bench --bench scale -- --parts count --rounds 5    # memory, set-up, storm, push, count
//! cargo bench --bench scale -- --parts count --counts 1000,100000 --rate 30000
//! ```
//!
//! Each run is a fresh server process, pinned to the first core, and the load client on the second
//! one. A ring's table of sockets can't be larger than the process's descriptor limit, so many
//! connections are spread over several rings, on both sides: the server has several shards on its
//! core. In the part `count` there are as many of them for 1,000 connections as for 100,000, so
//! that nothing differs but the number. Servers take turns within a round; ratios are taken round
//! by round. Writes `target/scale.json` and `target/scale.html`.

#[path = "../common/mod.rs"]
mod common;
mod measure;
mod report;
mod servers;
mod system;

use std::process::ExitCode;
use std::time::Duration;

use common::BACKLOG;
use common::{OTHER_CORE, pin};
use measure::Shape;
use report::Results;
use servers::{Server, Setting};

/// What was asked for on the command line.
struct Arguments {
    rounds: usize,
    parts: Vec<Part>,
    shape: Shape,
    /// Idle connections whose memory is weighed.
    memory: Vec<u32>,
    /// Connections of a set-up, a storm, a push to all.
    sessions: u32,
    heartbeat_s: u64,
    /// Connections over which messages come at the same rate.
    counts: Vec<u32>,
    rate: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Memory,
    SetUp,
    Storm,
    Push,
    Count,
}

impl Part {
    const ALL: [(&'static str, Self); 5] = [
        ("memory", Self::Memory),
        ("set-up", Self::SetUp),
        ("storm", Self::Storm),
        ("push", Self::Push),
        ("count", Self::Count),
    ];
}

const PUSH_BODY_BYTES: [usize; 2] = [64, 1024];
/// Idle connections are only looked at.
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
    let arguments = match Arguments::parse(&words) {
        Ok(arguments) => arguments,
        Err(word) => {
            eprintln!("unknown: {word}; see the top of benches/scale/main.rs");
            return ExitCode::FAILURE;
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut arguments = Self {
            rounds: 3,
            parts: Part::ALL.map(|(_, part)| part).to_vec(),
            shape: shape(1000, 3000),
            memory: vec![1_000, 18_000],
            sessions: 10_000,
            heartbeat_s: 3,
            counts: vec![1_000, 10_000, 50_000, 100_000],
            rate: 50_000.0,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().map(String::as_str).unwrap_or_default();
            let mut is_known = true;
            match word.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--quick" | "--test" => arguments.shorten(),
                "--rounds" => is_known = set(&mut arguments.rounds, value().parse().ok()),
                "--rate" => is_known = set(&mut arguments.rate, value().parse().ok()),
                "--sessions" => is_known = set(&mut arguments.sessions, value().parse().ok()),
                "--counts" => {
                    let list = value().split(',').map(|word| word.parse().ok()).collect();
                    is_known = set(&mut arguments.counts, list);
                }
                "--parts" => {
                    let find = |word| Part::ALL.into_iter().find(|(name, _)| *name == word);
                    let list = value().split(',').map(|word| Some(find(word)?.1)).collect();
                    is_known = set(&mut arguments.parts, list);
                }
                _ => is_known = false,
            }
            if !is_known {
                return Err(word.clone());
            }
        }
        Ok(arguments)
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
    }
}

fn set<T>(place: &mut T, value: Option<T>) -> bool {
    let is_known = value.is_some();
    if let Some(value) = value {
        *place = value;
    }
    is_known
}

fn run(arguments: &Arguments) -> std::io::Result<()> {
    pin(&[OTHER_CORE]);
    if let Some(warning) = system::short_backlog(BACKLOG) {
        eprintln!("{warning}");
    }
    let mut results = Results::new();
    let measured = measure_all(arguments, &mut results);
    eprintln!("\r{:<60}", "");
    // What was measured before an error still counts.
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
            }
        }
    }
    Ok(())
}

fn memory(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for connections in arguments.memory.iter().copied().filter(|n| is_possible(*n)) {
        for server in Server::ALL {
            results.memory.push(measure::memory(server, connections, BRIEF)?);
            system::settle();
        }
    }
    Ok(())
}

fn set_up(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for server in Server::ALL {
        results.set_up.push(measure::set_up(server, arguments.sessions, BRIEF)?);
        system::settle();
    }
    Ok(())
}

fn storm(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for server in [Server::Shaddock, Server::ShaddockWebSocket] {
        let storm = measure::storm(server, arguments.sessions, arguments.heartbeat_s)?;
        results.storm.push(storm);
        system::settle();
    }
    Ok(())
}

fn push(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for body_bytes in PUSH_BODY_BYTES {
        for server in Server::ALL {
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
        for server in [Server::Ceiling, Server::Shaddock] {
            eprint!("{connections} ");
            let sample =
                measure::count(server, connections, arguments.rate, setting, arguments.shape)?;
            results.count.push(sample);
            system::settle();
        }
    }
    Ok(())
}

/// Whether the machine can hold so many connections; says why if it can't.
fn is_possible(connections: u32) -> bool {
    match system::obstacle(connections) {
        None => true,
        Some(why) => {
            eprintln!("\rno {connections} connections here: {why}");
            false
        }
    }
}
