//! A game: two players at a time steer a dot each round an arena and race for coins.
//!
//! - `game.rs` describes the engine: all that a test needs to run the game in virtual time.
//! - `login.rs` admits players: their tokens are looked up at an account service, in the handshake.
//! - `queue.rs` pairs players on a worker, and has rooms opened for them by mail.
//! - `rooms.rs` has the rooms, on workers of their own, with a tick every 50 ms.
//! - `accounts.rs` is the account service as the game sees it, behind a trait, and `stand_in.rs` a
//!   small one so that the example runs by itself.
//! - `tests.rs` plays the game without a socket; a plain `cargo test` runs it.
//! - `web/index.html` is the page to play on, in two windows.
//!
//! `docs/embedding.md` builds it step by step.
//!
//! ```text
//! cargo run --release --example arena
//! ```
//!
//! SIGINT, SIGTERM and the admin server's `/drain` end it, with all scores saved.

mod accounts;
mod game;
mod http;
mod login;
mod queue;
mod rooms;
mod stand_in;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Parser;
use shaddock::{AdminOptions, Drain};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use accounts::HttpAccounts;

/// Two players at a time race for coins.
#[derive(Parser)]
struct Options {
    /// The address for clients.
    #[arg(long, default_value = "127.0.0.1:3010")]
    listen: String,
    /// The address of the page to play on.
    #[arg(long, default_value = "127.0.0.1:8080")]
    page: String,
    /// The address for Prometheus and operators.
    #[arg(long, default_value = "127.0.0.1:3011")]
    admin: String,
    /// The address of the account service; without it the example has one of its own.
    #[arg(long)]
    accounts: Option<String>,
}

/// The page, which needs nothing besides.
const PAGE: &str = include_str!("web/index.html");
/// The time that a stop may take, scores and all.
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let accounts = match options.accounts {
        Some(address) => address,
        None => stand_in::start("127.0.0.1:0")?.to_string(),
    };
    // Calls of other services run on a thread of tokio's, as `docs/runtimes.md` tells.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let accounts = HttpAccounts::new(accounts, runtime.handle().clone());
    thread::Builder::new()
        .name("tokio".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;

    let (stop, stopped) = mpsc::channel();
    let drained = stop.clone();
    let admin = AdminOptions::new()
        .listen(options.admin)
        .on_drain(Drain::within(DRAIN), move || _ = drained.send(()));
    let engine = game::game(Arc::new(accounts))?.listen(options.listen).admin(admin).start()?;
    let address = engine.local_addr();
    let page = http::serve(&options.page, |asked| match asked.path.split('?').next() {
        Some("/") => http::Answer::html(PAGE),
        _ => http::Answer::code(404),
    })?;
    println!("clients connect to {address}");
    if let Some(admin) = engine.admin_addr() {
        println!("metrics are at http://{admin}/metrics");
    }
    println!("play in two windows at http://{page}/?server={address}");

    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        signals.forever().for_each(|_| _ = stop.send(()));
    })?;
    stopped.recv()?;
    let report = engine.shutdown(Drain::within(DRAIN));
    println!("stopped in {:.1?}; {} saves were lost", report.took, report.futures_lost);
    Ok(())
}
