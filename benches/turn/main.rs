//! The instructions of one message on the real driver: one client has one request in flight, so
//! that each message takes a turn, and its wait, by itself.
//!
//! ```text
//! cargo bench --profile lines --no-default-features --features engine --bench turn
//! cargo bench --profile lines --no-default-features --features engine --bench turn -- --lines
//! ```
//!
//! The server runs in callgrind (`apt install valgrind`), by a ring and by epoll, and beside it a
//! bare ring that knows one message by heart, once with some thousand messages and once with more;
//! the difference, by message, is printed by function, each with what is inlined into it, and with
//! `--lines` by source line. So are the cache lines of code that a message needs, which are cold
//! where messages are far apart. It counts the process's own
//! instructions and not the kernel's, and comes out the same on a busy machine. Within callgrind a
//! clock read is a system call, so its instructions (some 50, in the kernel's page) are missing:
//! clock reads are counted as calls.

#[path = "../common/mod.rs"]
mod common;
mod profile;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::{Parser as _, ValueEnum};
use common::ceiling::{self, Variant};
use profile::Profile;
use shaddock::{Driver, Engine, Reply, Shards};

/// The command line.
#[derive(clap::Parser)]
#[command(about = "Instructions of one message on the real driver, by callgrind")]
struct Options {
    /// A table by line, too
    #[arg(long)]
    lines: bool,
    /// Few messages, to show that it runs, as `cargo bench -- --test`
    #[arg(long, alias = "test")]
    quick: bool,
    /// The server that the bench starts in callgrind
    #[arg(long, hide = true)]
    serve: Option<Server>,
    #[arg(long, hide = true, default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    /// The engine by a ring
    Ring,
    /// The engine by epoll
    Poll,
    /// A bare ring that knows one message by heart
    Ceiling,
}

const ECHO: &str = "connector.entryHandler.echo";
/// Connections of the bare ring.
const CEILING_SOCKETS: u32 = 16;
/// The pause before a server is looked for again.
const PAUSE: Duration = Duration::from_millis(5);
const BODY: [u8; 64] = [b'x'; 64];
/// Messages of the first run, at least, which fills what is filled once, as recent routes; and
/// those that the second one has besides.
const MESSAGES: [u64; 2] = [3_000, 10_000];
const MESSAGES_QUICK: [u64; 2] = [500, 1_000];
/// A table's least row, in instructions a message.
const SHOWN_MIN: f64 = 0.5;

/// One run of the server.
struct Run {
    profile: Profile,
    /// Requests that were answered.
    requests: u64,
    turns: u64,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if let Some(server) = options.serve {
        return serve(server, options.address);
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: valgrind can't be run");
        return Ok(());
    }
    let messages = if options.quick { MESSAGES_QUICK } else { MESSAGES };
    for server in Server::value_variants() {
        let few = run(*server, messages[0])?;
        let many = run(*server, few.requests + messages[1])?;
        let requests = many.requests - few.requests;
        let per_message = |count: u64| count as f64 / requests as f64;
        let profile = many.profile.since(&few.profile);
        println!(
            "## {}: {:.0} instructions a message\n",
            name(*server),
            per_message(profile.sum())
        );
        let turns = per_message(many.turns.saturating_sub(few.turns));
        let clock_reads = per_message(profile.clock_reads());
        let cache_lines = profile.cache_lines(requests.div_ceil(2));
        println!(
            "{turns:.2} turns, {clock_reads:.2} clock reads and {cache_lines} cache lines of code a \
             message\n"
        );
        if options.lines && !profile.has_lines() {
            println!("No lines are known: `--profile lines` has them.\n");
        }
        print_table(&profile.by_function(), per_message);
        if options.lines {
            print_table(&profile.by_line(), per_message);
        }
    }
    Ok(())
}

fn print_table(rows: &[(String, u64)], per_message: impl Fn(u64) -> f64) {
    println!("| instructions | where |\n|---|---|");
    for (place, count) in rows.iter().filter(|(_, count)| per_message(*count) >= SHOWN_MIN) {
        println!("| {:.1} | {place} |", per_message(*count));
    }
    println!();
}

fn name(server: Server) -> String {
    server.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Serves an echo until standard input ends; then prints the number of turns.
fn serve(server: Server, address: SocketAddr) -> io::Result<()> {
    let driver = match server {
        Server::Ring => Driver::Ring,
        Server::Poll => Driver::Poll,
        Server::Ceiling => return serve_ceiling(address),
    };
    let engine = Engine::builder()
        .listen(address.to_string())
        .shards(Shards::Count(1))
        .driver(driver)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .start()
        .map_err(io::Error::other)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    let metrics = engine.handle().metrics().map_err(io::Error::other)?;
    let turns = metrics.shards[0].turns.requests();
    println!("{turns}");
    // Without the work of a shutdown.
    std::process::exit(0);
}

/// The same by a bare ring. Each request takes a turn to receive it and one to send the answer.
fn serve_ceiling(address: SocketAddr) -> io::Result<()> {
    let listener = common::listen(address)?;
    std::thread::spawn(move || ceiling::serve(&[listener], Variant::Plain, CEILING_SOCKETS));
    io::stdin().read_to_end(&mut Vec::new())?;
    println!("{}", ceiling::turns());
    std::process::exit(0);
}

/// Runs the server in callgrind for so many messages at least.
fn run(server: Server, messages: u64) -> io::Result<Run> {
    let out = out_file(server, messages);
    // Callgrind runs one thread at a time, and does not know that to enter a ring may take long: a
    // shard that idles there keeps the server's other thread from running. So a client asks from
    // the moment on at which there is a port to connect to, to the end.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut process = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no", "-q"])
        .arg("--dump-instr=yes")
        .arg("--fair-sched=try")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--serve", &name(server), "--address", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let asked = ask(&mut process, server, address, messages);
    if asked.is_err() {
        process.kill()?;
    }
    let mut turns = String::new();
    process.stdout.take().expect("it is piped").read_to_string(&mut turns)?;
    process.wait()?;
    let requests = asked?;
    let turns = turns.trim().parse().map_err(io::Error::other)?;
    let profile = Profile::read(&out, Path::new(env!("CARGO_MANIFEST_DIR")));
    std::fs::remove_file(&out)?;
    Ok(Run { profile: profile?, requests, turns })
}

fn out_file(server: Server, messages: u64) -> PathBuf {
    let (process, server) = (std::process::id(), name(server));
    std::env::temp_dir().join(format!("shaddock-turn-{process}-{server}-{messages}"))
}

/// A client that waits for each answer before it asks again: so many times, and then until the
/// server has heard that it is to end. Gives the number of answers.
fn ask(process: &mut Child, server: Server, address: SocketAddr, messages: u64) -> io::Result<u64> {
    let mut client = connect(process, address)?;
    client.set_nodelay(true)?;
    client.write_all(&package(1, br#"{"sys":{"type":"bench","version":"0"}}"#))?;
    let mut head = [0; 4];
    client.read_exact(&mut head)?;
    let len = u32::from_be_bytes([0, head[1], head[2], head[3]]);
    client.read_exact(&mut vec![0; len as usize])?;
    client.write_all(&package(2, b""))?;
    if server == Server::Ceiling {
        // It answers that with a heartbeat.
        client.read_exact(&mut head)?;
    }
    // A request: its flags, its id, its route and its body; the answer has no route.
    let request = [&[0, 1, ECHO.len() as u8], ECHO.as_bytes(), &BODY].concat();
    let request = package(4, &request);
    let expected = package(4, &[&[4, 1][..], &BODY].concat());
    let mut answer = vec![0; expected.len()];
    let mut answers = 0;
    loop {
        if answers == messages {
            drop(process.stdin.take());
        }
        let asked = client.write_all(&request).and_then(|()| client.read_exact(&mut answer));
        match asked {
            Err(_) if answers >= messages => return Ok(answers),
            asked => asked?,
        }
        if answer != expected {
            // With an error the server is ended, too.
            return Err(io::Error::other("the server answers something else"));
        }
        answers += 1;
    }
}

/// Connects as soon as the server listens.
fn connect(server: &mut Child, address: SocketAddr) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(address) {
            Err(_) if server.try_wait()?.is_none() => std::thread::sleep(PAUSE),
            connected => return connected,
        }
    }
}

fn package(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    [&[kind, a, b, c], body].concat()
}
