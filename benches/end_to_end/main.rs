//! Whole servers under the same load, next to the ceiling, a bare io_uring server, and next to the
//! servers that people would pick instead.
//!
//! ```text
//! benches/run end_to_end                             # all of it, after Bun is installed
//! cargo bench --bench end_to_end                     # 7 rounds, some half an hour
//! cargo bench --bench end_to_end -- --quick          # 1 short round, two minutes
//! cargo bench --bench end_to_end -- --servers shaddock,ceiling --points 100x16 --rounds 15
//! cargo bench --bench end_to_end -- --servers ceiling,no-sqarray,ring-fd,bundle,incremental
//! cargo bench --bench end_to_end -- --servers ceiling,shaddock --points 50x1 --open-loop 60
//! cargo bench --bench end_to_end -- --points 50x1,100x16 \
//!     --servers ceiling,shaddock,shaddock-by-hand,shaddock-typed,shaddock-borrowed
//! cargo bench --bench end_to_end -- --parts rates --rates 30000x50 --base shaddock-ws \
//!     --servers shaddock-ws,fastwebsockets,tungstenite,bun
//! cargo bench --bench end_to_end -- --parts points,handshakes --points 50x1 \
//!     --servers shaddock-tls,tokio-tls
//! ```
//!
//! The parts are `points`: closed loops; `half-rate`: latency in an open loop at half the ceiling's
//! rate; `rates`: CPU, turns and system calls in open loops at fixed rates, where a core is idle
//! for most of the time; `handshakes`: TLS connections made anew. The real Pomelo is a column once
//! `.ci/oracle` has installed it, and Bun where `benches/bun` has, or the variable `BUN` names it.
//! Servers that speak TLS have the parts `points`, at 50x1 if no others are named, and
//! `handshakes`.
//!
//! Each run is a fresh server process, pinned to the first core, with the load client on the
//! second. All servers are measured at one point before the next point, and all points before the
//! next round, so that a drift of the machine's speed affects them alike. Ratios are to the
//! ceiling, or to the first server if the ceiling is not measured, within each round; a table of
//! its own has Shaddock's to those of its peers. The bench writes `target/end_to_end.json`,
//! `target/end_to_end.html`, and README.md's tables as `target/end_to_end.md`.

mod allocations;
mod certificate;
#[path = "../common/mod.rs"]
mod common;
mod measure;
mod peers;
mod process;
mod report;
mod servers;
mod tls;
mod work;

use std::process::ExitCode;
use std::sync::Once;
use std::time::Duration;

use certificate::Certificate;
use clap::{Parser as _, ValueEnum as _};
use report::{OpenLoop, Results};
use servers::Server;
use work::{LATE_MAX, Point, Rate, Shape, Work};

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
    /// Parts to measure
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Servers, by the names that the table has; by name only: shaddock-by-hand, shaddock-typed,
    /// shaddock-borrowed, and variants of the ceiling
    #[arg(long, value_delimiter = ',', value_parser = server)]
    servers: Vec<Server>,
    /// The server to which ratios are, if it is not the ceiling
    #[arg(long, value_parser = server)]
    base: Option<Server>,
    /// Connections × messages in flight, as 100x16
    #[arg(long, value_delimiter = ',', value_parser = point)]
    points: Vec<Point>,
    /// Messages a second × connections, as 30000x50
    #[arg(long, value_delimiter = ',', value_parser = rate)]
    rates: Vec<Rate>,
    /// Seconds of each run that count
    #[arg(long)]
    seconds: Option<f64>,
    /// Bytes of a message's body
    #[arg(long)]
    body_bytes: Option<usize>,
    /// Rounds of the part half-rate, if not as many as of the others
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

fn rate(name: &str) -> Result<Rate, String> {
    let numbers = name.split_once('x').and_then(|(rate, connections)| {
        Some(Rate { per_second: rate.parse().ok()?, connections: connections.parse().ok()? })
    });
    let rate = numbers.filter(|rate| rate.per_second > 0 && rate.connections > 0);
    rate.ok_or_else(|| "expected messages a second × connections, as 30000x50".into())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Points,
    HalfRate,
    Rates,
    Handshakes,
}

/// The work to be done.
struct Arguments {
    rounds: usize,
    shape: Shape,
    parts: Vec<Part>,
    servers: Vec<Server>,
    base: Server,
    points: Vec<Point>,
    /// Those of servers that speak TLS.
    tls_points: Vec<Point>,
    rates: Vec<Rate>,
    /// Rounds of the part half-rate, if they differ from the others.
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
/// TLS connections that are made at a time.
const AT_A_TIME: u32 = 16;
/// The time of a run in which system calls are counted, longer than perf takes for it.
const SYSTEM_CALLS_SHAPE: Shape = shape(300, 1000);

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
        return servers::serve(server);
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
            parts: Part::value_variants().to_vec(),
            servers: Server::all().chain(pomelo).collect(),
            base: Server::CEILING,
            points: Point::ALL.to_vec(),
            tls_points: vec![OPEN_LOOP],
            rates: Rate::ALL.to_vec(),
            open_loop: options.open_loop,
            system_calls: !options.test && !options.quick,
        };
        if options.test {
            (arguments.rounds, arguments.shape) = (1, SMOKE);
            arguments.points = vec![OPEN_LOOP, Point::ALL[3]];
            arguments.rates.truncate(1);
            arguments.servers = Server::all().chain(Server::TYPED).collect();
        } else if options.quick {
            (arguments.rounds, arguments.shape) = (1, QUICK);
        }
        arguments.rounds = options.rounds.unwrap_or(arguments.rounds);
        arguments.shape.body_bytes = options.body_bytes.unwrap_or(BODY_BYTES);
        if let Some(seconds) = options.seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
            arguments.shape.measure = seconds;
        }
        if !options.servers.is_empty() {
            arguments.servers = options.servers;
        }
        if !options.parts.is_empty() {
            arguments.parts = options.parts;
        }
        if !options.points.is_empty() {
            arguments.points.clone_from(&options.points);
            arguments.tls_points = options.points;
        }
        if !options.rates.is_empty() {
            arguments.rates = options.rates;
        }
        arguments.servers.retain(|server| is_possible(*server));
        let first = arguments.servers.first().copied().unwrap_or(Server::CEILING);
        let has_ceiling = arguments.servers.contains(&Server::CEILING);
        let base = if has_ceiling { Server::CEILING } else { first };
        arguments.base = options.base.unwrap_or(base);
        arguments
    }
}

impl Arguments {
    /// The servers that are measured at a point.
    fn servers_at(&self, point: Point) -> impl Iterator<Item = Server> {
        let has_tls = self.tls_points.contains(&point);
        self.servers.iter().copied().filter(move |server| has_tls || !server.is_tls())
    }
}

/// True if a server can be measured here; otherwise prints the reason.
fn is_possible(server: Server) -> bool {
    match server.obstacle() {
        None => true,
        Some(why) => {
            eprintln!("no {}: {why}", server.name());
            false
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<()> {
    servers::pin_client();
    if arguments.servers.iter().any(|server| server.is_tls()) {
        Certificate::create()?;
    }
    let mut results = Results::new(arguments.base);
    let measured = measure_all(arguments, &mut results);
    eprintln!("\r{:<70}", "");
    // Results from before an error still count.
    results.print();
    results.write()?;
    measured
}

fn measure_all(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    let has = |part| arguments.parts.contains(&part);
    if has(Part::Points) {
        points(arguments, results)?;
    }
    if has(Part::HalfRate) && arguments.points.contains(&OPEN_LOOP) {
        half_rate(arguments, results)?;
    }
    if has(Part::Rates) {
        rates(arguments, results)?;
    }
    if has(Part::Handshakes) {
        handshakes(arguments, results)?;
    }
    Ok(())
}

fn tell(part: &str, round: usize, point: &str, server: Server) {
    eprint!("\r{part}, round {}: {point:<11} {:<24}", round + 1, server.name());
}

/// Closed loops.
fn points(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for round in 0..arguments.rounds {
        for point in &arguments.points {
            for server in arguments.servers_at(*point) {
                if server == Server::Pomelo && round >= POMELO_ROUNDS {
                    continue;
                }
                tell("points", round, &point.name(), server);
                let sample = measure::measure(server, Work::Echo(*point), arguments.shape)?;
                results.points.add(server, *point, sample);
            }
        }
    }
    for point in arguments.points.iter().filter(|_| arguments.system_calls) {
        for server in arguments.servers_at(*point) {
            eprint!("\rsystem calls: {:<8} {:<24}", point.name(), server.name());
            let calls = system_calls(server, Work::Echo(*point), arguments.shape.body_bytes);
            results.points.set_system_calls(server, *point, calls);
        }
    }
    Ok(())
}

/// System calls per message. If they can't be counted, the reason is printed once.
fn system_calls(server: Server, work: Work, body_bytes: usize) -> Option<f64> {
    static TELLS: Once = Once::new();
    let tell = |error: &std::io::Error| {
        TELLS.call_once(|| {
            eprintln!(
                "\rno count of system calls (`perf stat -e raw_syscalls:sys_enter`: {error}); \
                 `strace -c -f -p PID` counts those of a server that runs"
            );
        });
    };
    let shape = Shape { body_bytes, ..SYSTEM_CALLS_SHAPE };
    measure::system_calls(server, work, shape).inspect_err(tell).ok()
}

/// Latency at half the ceiling's rate, counted from the due time of each request.
fn half_rate(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    let Some(rate) = results.points.rate(Server::CEILING, OPEN_LOOP) else { return Ok(()) };
    let rate = rate / 2.0;
    let work = Work::EchoAt(Point { pipeline: LATE_MAX, ..OPEN_LOOP }, rate);
    let mut servers = in_open_loops(&arguments.servers);
    for round in 0..arguments.open_loop.unwrap_or(arguments.rounds) {
        // The order alternates, so that no server always follows the same one.
        servers.reverse();
        for server in &servers {
            tell("half-rate", round, "", *server);
            let sample = measure::measure(*server, work, arguments.shape)?;
            results.add_open_loop(OpenLoop { server: server.name(), rate, sample });
        }
    }
    Ok(())
}

/// The servers that come near such a rate, and are loaded by a client that keeps it.
fn in_open_loops(servers: &[Server]) -> Vec<Server> {
    let mut servers = servers.to_vec();
    servers.retain(|server| *server != Server::Pomelo && !server.is_tls());
    servers
}

/// Open loops at fixed rates.
fn rates(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    let mut servers = in_open_loops(&arguments.servers);
    for round in 0..arguments.rounds {
        for rate in &arguments.rates {
            for server in &servers {
                tell("rates", round, &rate.name(), *server);
                let sample = measure::measure(*server, (*rate).into(), arguments.shape)?;
                results.rates.add(*server, *rate, sample);
            }
        }
        servers.reverse();
    }
    for rate in arguments.rates.iter().filter(|_| arguments.system_calls) {
        for server in &servers {
            eprint!("\rsystem calls: {:<11} {:<24}", rate.name(), server.name());
            let calls = system_calls(*server, (*rate).into(), arguments.shape.body_bytes);
            results.rates.set_system_calls(*server, *rate, calls);
        }
    }
    Ok(())
}

/// TLS connections, each closed when it works.
fn handshakes(arguments: &Arguments, results: &mut Results) -> std::io::Result<()> {
    for round in 0..arguments.rounds {
        for server in arguments.servers.iter().filter(|server| server.is_tls()) {
            tell("handshakes", round, "", *server);
            let work = Work::Connect { at_a_time: AT_A_TIME };
            let sample = measure::measure(*server, work, arguments.shape)?;
            results.handshakes.add(*server, AT_A_TIME, sample);
        }
    }
    Ok(())
}
