//! Bots against a running connector, here the demo app: each logs in and sends echoes at a steady
//! rate for a while, and the latencies of both are printed. The bots are tasks of tokio here, for
//! its timer; any other executor would do, and so would a thread for each.
//!
//! ```text
//! cargo run --release &
//! cargo run --release --features client --example bots -- 500
//! ```
//!
//! The arguments are the number of bots (100), the address (`127.0.0.1:3010`, or a `ws://` one),
//! the echoes that each bot sends in a second (10) and for how many seconds (5).

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shaddock::client::{Client, RequestError};

#[derive(Clone)]
struct Plan {
    address: String,
    interval: Duration,
    seconds: Duration,
}

/// The times that one bot has seen.
#[derive(Default)]
struct Seen {
    login: Duration,
    echoes: Vec<Duration>,
    pushes: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let bots: u32 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3010".into());
    let rate: f64 = arguments.next().map_or(Ok(10.0), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(5.0), |text| text.parse())?;
    let interval = Duration::try_from_secs_f64(1.0 / rate)?;
    let plan = Plan { address, interval, seconds: Duration::try_from_secs_f64(seconds)? };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let tasks: Vec<_> = (0..bots).map(|number| runtime.spawn(play(plan.clone(), number))).collect();
    let mut seen = Vec::new();
    let mut failures = 0;
    for task in tasks {
        match runtime.block_on(task)? {
            Ok(bot) => seen.push(bot),
            Err(error) => {
                failures += 1;
                eprintln!("a bot failed: {error}");
            }
        }
    }
    let logins = seen.iter().map(|bot| bot.login).collect();
    let echoes = seen.iter().flat_map(|bot| &bot.echoes).copied().collect();
    let pushes: usize = seen.iter().map(|bot| bot.pushes).sum();
    println!("{} bots played, {failures} failed, {pushes} pushes came", seen.len());
    print("login", logins);
    print("echo", echoes);
    Ok(())
}

/// The life of one bot.
async fn play(plan: Plan, number: u32) -> Result<Seen, Box<dyn Error + Send + Sync>> {
    let mut seen = Seen::default();
    let start = Instant::now();
    let client = Client::connect(&plan.address).await?;
    let uid = format!("bot-{number}");
    let entry = client.request("connector.entryHandler.entry", &json!({"uid": uid})).await?;
    if entry.json::<Value>()?["code"] != 200 {
        return Err(format!("{uid} can't log in: {entry:?}").into());
    }
    seen.login = start.elapsed();

    let mut beat = tokio::time::interval(plan.interval);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let end = Instant::now() + plan.seconds;
    while Instant::now() < end {
        beat.tick().await;
        seen.echoes.push(echo(&client, seen.echoes.len()).await?);
        seen.pushes += std::iter::from_fn(|| client.try_push()).count();
    }
    Ok(seen)
}

/// The time that an echo takes.
async fn echo(client: &Client, number: usize) -> Result<Duration, RequestError> {
    let sent = Instant::now();
    client.request("connector.entryHandler.echo", &json!({"number": number})).await?;
    Ok(sent.elapsed())
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let quantile = |share: f64| {
        let at = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default()
    };
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(quantile);
    println!("{what}: {} in all, p50 {p50:.1?}, p99 {p99:.1?}, longest {max:.1?}", times.len());
}
