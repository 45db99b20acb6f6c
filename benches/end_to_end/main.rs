//! Whole servers under the same load, next to the ceiling: a bare io_uring server.
//!
//! ```text
//! cargo bench --bench end_to_end                     # 7 rounds, some five minutes
//! cargo bench --bench end_to_end -- --quick          # 1 short round, under a minute
//! cargo bench --bench end_to_end -- --servers shaddock,ceiling --points 100x16 --rounds 15
//! cargo bench --bench end_to_end -- --servers ceiling,no-sqarray,ring-fd,bundle,incremental
//! cargo bench --bench end_to_end -- --servers ceiling,shaddock --points 50x1 --open-loop 60
//! cargo bench --bench end_to_end -- --points 50x1,100x16 \
//!     --servers ceiling,shaddock,shaddock-by-hand,shaddock-typed,shaddock-borrowed
//! ```
//!
//! The real Pomelo is a column once `.ci/oracle` has installed it.
//!
//! Each run is a fresh server process, pinned to the first core, with the load client on the
//! second. All servers are measured at one point before the next point, and all points before the
//! next round, so that a drift of the machine's speed affects them alike. The ratios to the ceiling
//! are computed within each round. The bench writes `target/end_to_end.json` and
//! `target/end_to_end.html`.

mod allocations;
#[path = "../common/mod.rs"]
mod common;
mod measure;
mod process;
mod report;
mod servers;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use measure::{Point, Sample, Shape};
use report::{OpenLoop, Results};
use servers::Server;

/// The command line.
#[derive(clap::Parser)]
#[command(about = "Whole servers under the same load, next to a bare io_uring server")]
struct Options {
    /// Rounds, in each of which every server is measured at every point
    #[arg(long)]
    rounds: Option<usize>,
    /// One short round
    #[arg(long)]
    quick: bool,
    /// Servers, by the names that the table has
    #[arg(long, value_delimiter = ',', value_parser = server)]
    servers: Vec<Server>,
    /// Connections × messages in flight, as 100x16
    #[arg(long, value_delimiter = ',', value_parser = point)]
    points: Vec<Point>,
    /// Bytes of a message's body
    #[arg(long)]
    body_bytes: Option<usize>,
    /// Rounds of the open loop, if not as many as of the others
    #[arg(long)]
    open_loop: Option<usize>,
    /// Shows that it runs, as `cargo bench -- --test`
    #[arg(long, hide = true)]
    test: bool,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
    /// Serves as one of the servers.
    #[arg(long, hide = true, value_parser = server)]
    serve: Option<Server>,
}

fn server(name: &str) -> Result<Server, String> {
    Server::from_name(name).ok_or_else(|| "no server has this name".into())
}

fn point(name: &str) -> Result<Point, String> {
    let names = || Point::ALL.map(Point::name).join(", ");
    let point = Point::ALL.into_iter().find(|point| point.name() == name);
    point.ok_or_else(|| format!("expected one of {}", names()))
}

/// The work to be done.
struct Arguments {
    rounds: usize,
    shape: Shape,
    servers: Vec<Server>,
    points: Vec<Point>,
    /// Rounds of the open loop, if they differ from the others.
    open_loop: Option<usize>,
    /// True if system calls are counted, in runs of their own.
    system_calls: bool,
}

const BODY_BYTES: usize = 64;
const FULL: Shape = shape(300, 1200);
const QUICK: Shape = shape(100, 500);
/// Rounds of the original, which takes seconds to start.
const POMELO_ROUNDS: usize = 3;
const SMOKE: Shape = shape(20, 100);
/// The point whose rate the open loop halves. Each connection has one message in flight, as in an
/// open loop: if many shared a send, no client could keep up with messages that come singly.
const OPEN_LOOP: Point = Point { connections: 50, pipeline: 1 };
/// The most messages that may be late on one connection of the open loop.
const OPEN_LOOP_LATE_MAX: u32 = 64;

const fn shape(warmup_ms: u64, measure_ms: u64) -> Shape {
    Shape {
        warmup: Duration::from_millis(warmup_ms),
        measure: Duration::from_millis(measure_ms),
        body_bytes: BODY_BYTES,
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(server) = options.serve {
        servers::serve(server);
        return ExitCode::SUCCESS;
    }
    match run(&options.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

impl From<Options> for Arguments {
    fn from(options: Options) -> Self {
        let pomelo = process::has_pomelo().then_some(Server::Pomelo);
        let mut arguments = Self {
            rounds: 7,
            shape: FULL,
            servers: Server::ALL.into_iter().chain(pomelo).collect(),
            points: Point::ALL.to_vec(),
            open_loop: options.open_loop,
            system_calls: !options.test,
        };
        if options.test {
            (arguments.rounds, arguments.shape) = (1, SMOKE);
            arguments.points = vec![OPEN_LOOP, Point::ALL[3]];
            arguments.servers = Server::ALL.into_iter().chain(Server::TYPED).collect();
        } else if options.quick {
            (arguments.rounds, arguments.shape) = (1, QUICK);
        }
        arguments.rounds = options.rounds.unwrap_or(arguments.rounds);
        arguments.shape.body_bytes = options.body_bytes.unwrap_or(BODY_BYTES);
        if !options.servers.is_empty() {
            arguments.servers = options.servers;
        }
        if !options.points.is_empty() {
            arguments.points = options.points;
        }
        arguments
    }
}

fn run(arguments: &Arguments) -> std::io::Result<()> {
    servers::pin_client();
    let mut results = Results::new(&arguments.servers, &arguments.points);
    for round in 0..arguments.rounds {
        for point in &arguments.points {
            for server in &arguments.servers {
                if *server == Server::Pomelo && round >= POMELO_ROUNDS {
                    continue;
                }
                eprint!(
                    "\rround {} of {}: {:<8} {:<18}",
                    round + 1,
                    arguments.rounds,
                    point.name(),
                    server.name()
                );
                let sample = measure::measure(*server, *point, arguments.shape, None)?;
                results.add(*server, *point, sample);
            }
        }
    }
    for point in arguments.points.iter().filter(|_| arguments.system_calls) {
        for server in &arguments.servers {
            eprint!("\rsystem calls: {:<8} {:<24}", point.name(), server.name());
            let shape = Shape { measure: Duration::from_secs(1), ..arguments.shape };
            let calls = measure::system_calls(*server, *point, shape);
            results.set_system_calls(*server, *point, calls);
        }
    }
    if arguments.points.contains(&OPEN_LOOP) {
        open_loop(arguments, &mut results)?;
    }
    eprintln!("\r{:<60}", "");
    results.print();
    results.write()
}

/// Latency at half the ceiling's rate, counted from the due time of each request.
fn open_loop(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    let Some(rate) = results.rate(Server::CEILING, OPEN_LOOP) else { return Ok(()) };
    let rate = rate / 2.0;
    let point = Point { pipeline: OPEN_LOOP_LATE_MAX, ..OPEN_LOOP };
    // The original does not come near that rate.
    let servers = arguments.servers.iter().filter(|server| **server != Server::Pomelo);
    let mut servers: Vec<&Server> = servers.collect();
    for round in 0..arguments.open_loop.unwrap_or(arguments.rounds) {
        // The order alternates, so that no server always follows the same one.
        servers.reverse();
        for server in &servers {
            eprint!("\ropen loop, round {}: {:<24}", round + 1, server.name());
            let sample: Sample = measure::measure(**server, point, arguments.shape, Some(rate))?;
            results.add_open_loop(OpenLoop { server: server.name(), rate, sample });
        }
    }
    Ok(())
}
