//! The load of shards when some clients send far more than others, with new connections spread by
//! the kernel's hash, and by how busy the shards are.
//!
//! ```text
//! cargo bench --bench balance                             # four minutes
//! cargo bench --bench balance -- --quick                  # one short round, half a minute
//! cargo bench --bench balance -- --connections 50 --rounds 5 --share 50
//! ```
//!
//! An engine of four shards serves clients who stay for some seconds and then connect anew. One in
//! four sends ten times as much as each of the others. The figure is the time on a core of the
//! busiest shard's thread, divided by the mean of all: 1 if all are as busy. Threads may share
//! cores, as it is their own time that is compared. The handler's work is a fixed number of
//! instructions.

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser as _;
use shaddock::{Engine, Reply, Shards};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The command line.
#[derive(clap::Parser)]
#[command(about = "The busiest of four shards and their mean, with and without balancing")]
struct Options {
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_values_t = [16, 100, 1000])]
    connections: Vec<u32>,
    /// Rounds, in each of which both are measured at each number
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// The share of a core, in percent, that the handlers of an average shard take
    #[arg(long, default_value_t = 25)]
    share: u32,
    /// Seconds that are measured, behind half as many
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// One short round
    #[arg(long, alias = "test")]
    quick: bool,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
}

const SHARDS: u16 = 4;
const ROUTE: &str = "connector.entryHandler.work";
/// The time that the handler's work takes.
const WORK: Duration = Duration::from_micros(150);
/// Of so many clients one sends that many times as much as another.
const BUSY_EVERY: u32 = 4;
const BUSY_TIMES: u32 = 10;
/// Seconds that a client stays.
const STAY_S: [f64; 2] = [1.5, 4.5];

fn main() -> io::Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds) = (1, 4);
        options.connections.truncate(2);
    }
    let steps = steps_of(WORK);
    println!("| connections | busiest ÷ mean, by the hash | by load |\n|---|---|---|");
    for &connections in &options.connections {
        let mut ratios = [Vec::new(), Vec::new()];
        for round in 0..options.rounds {
            for (balance, ratios) in [false, true].into_iter().zip(&mut ratios) {
                ratios.push(busiest_by_mean(&options, connections, balance, steps, round)?);
            }
        }
        let [by_hash, by_load] = ratios.map(text);
        println!("| {connections} | {by_hash} | {by_load} |");
    }
    Ok(())
}

/// The median, with the least and the greatest.
fn text(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    format!("{:.2} ({least:.2}–{most:.2})", ratios[ratios.len() / 2])
}

/// One run: the time of the busiest shard's thread, divided by the mean.
fn busiest_by_mean(
    options: &Options,
    connections: u32,
    balance: bool,
    steps: u64,
    round: u64,
) -> io::Result<f64> {
    let engine = Engine::builder()
        .listen("127.0.0.1:0")
        .shards(Shards::Count(SHARDS))
        .balance(balance)
        .handler(ROUTE, move |_, _| {
            work(steps);
            Reply::borrowed(b"{}")
        })
        .start()
        .map_err(io::Error::other)?;
    let (address, handle) = (engine.local_addr(), engine.handle());
    let times = || -> io::Result<Vec<Duration>> {
        let metrics = handle.metrics().map_err(io::Error::other)?;
        let cpu = metrics.shards.iter().map(|shard| shard.cpu);
        cpu.collect::<Option<_>>().ok_or_else(|| io::Error::other("no time of a thread"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ran: Vec<Duration> = runtime.block_on(async {
        let _clients = clients(address, options.share, connections, round);
        tokio::time::sleep(Duration::from_secs(options.seconds) / 2).await;
        let before = times()?;
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        let ran = times()?.into_iter().zip(before).map(|(now, before)| now.saturating_sub(before));
        io::Result::Ok(ran.collect())
    })?;
    let mean = ran.iter().sum::<Duration>() / ran.len() as u32;
    let busiest = ran.iter().max().expect("there are shards");
    Ok(busiest.as_secs_f64() / mean.as_secs_f64())
}

/// Starts the clients; they go when this is dropped.
fn clients(address: SocketAddr, share: u32, connections: u32, round: u64) -> JoinSet<()> {
    let busy = connections.div_ceil(BUSY_EVERY);
    let parts = connections - busy + busy * BUSY_TIMES;
    // All of them together take this share of the shards.
    let per_second = f64::from(SHARDS) * f64::from(share) / 100.0 / WORK.as_secs_f64();
    let mut clients = JoinSet::new();
    for number in 0..connections {
        let times = if number % BUSY_EVERY == 0 { BUSY_TIMES } else { 1 };
        let rate = per_second * f64::from(times) / f64::from(parts);
        let random = Random(round << 32 | u64::from(number));
        clients.spawn(client(address, Duration::from_secs_f64(1.0 / rate), random));
    }
    clients
}

/// A client that comes and goes. It connects again where it is refused.
async fn client(address: SocketAddr, period: Duration, mut random: Random) {
    // They do not come all at once.
    tokio::time::sleep(Duration::from_secs_f64(random.part() * STAY_S[1] / 2.0)).await;
    loop {
        let stay = STAY_S[0] + random.part() * (STAY_S[1] - STAY_S[0]);
        timeout(Duration::from_secs_f64(stay), visit(address, period)).await.ok();
    }
}

/// Asks in each period, until it is dropped.
async fn visit(address: SocketAddr, period: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&package(1, br#"{"sys":{"type":"bench","version":"0"}}"#)).await?;
    read_package(&mut stream).await?;
    stream.write_all(&package(2, b"")).await?;
    let request = [&[0, 1, ROUTE.len() as u8], ROUTE.as_bytes(), b"{}"].concat();
    let request = package(4, &request);
    let mut due = interval(period);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        stream.write_all(&request).await?;
        read_package(&mut stream).await?;
    }
}

async fn read_package(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let len = u32::from_be_bytes([0, head[1], head[2], head[3]]);
    stream.read_exact(&mut vec![0; len as usize]).await.map(drop)
}

fn package(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    [&[kind, a, b, c], body].concat()
}

/// Work without memory.
fn work(steps: u64) {
    let mut random = Random(steps);
    for _ in 0..steps {
        black_box(random.next());
    }
}

/// The steps of work that take so long.
fn steps_of(time: Duration) -> u64 {
    const TRIED: u64 = 1_000_000;
    let tries = (0..5).map(|_| {
        let start = Instant::now();
        work(TRIED);
        start.elapsed()
    });
    let least = tries.min().expect("it is tried");
    (TRIED as f64 * time.as_secs_f64() / least.as_secs_f64()) as u64
}

/// Numbers by SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A part of 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
