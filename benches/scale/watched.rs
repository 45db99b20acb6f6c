//! A server that is watched by all means at once, next to one that nobody can watch.
//!
//! Within a round both take turns, in the other order in each other round. Those who watch run on
//! the load client's core; the admin server's own thread runs on the server's, and its CPU time
//! counts.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::measure::{self, Count, Shape};
use crate::servers::{self, ADMIN, Server, Setting, TOKEN};
use crate::system;

/// The cost of messages without anybody who watches, and with all.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Watched {
    pub(crate) sessions: u32,
    pub(crate) without: Count,
    pub(crate) with: Count,
    /// Answers of the admin server.
    pub(crate) looks: u64,
}

/// Those who watch a server, until this is dropped.
struct Watchers {
    is_over: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// The time between two looks of each who watches.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Paths that Prometheus, `shaddock top` and the page ask for.
const ASKED: [&str; 4] = [
    "/metrics",
    "/status",
    "/sessions?sort=in_flight&limit=200",
    "/sessions?sort=number&limit=25&offset=0",
];

/// One round, those who watch first or last.
pub(crate) fn round(
    sessions: u32,
    rate: f64,
    shape: Shape,
    is_watched_first: bool,
) -> io::Result<Watched> {
    let setting = Setting {
        rings: system::rings_needed(sessions),
        ports: system::ports_needed(sessions),
        heartbeat_s: 0,
    };
    let without = || {
        let sample = measure::count(Server::Shaddock, sessions, rate, setting, shape);
        system::settle();
        sample
    };
    let with = || {
        let mut child = servers::start(Server::ShaddockWatched, setting)?;
        let address = child.ask(ADMIN)?.parse().map_err(io::Error::other)?;
        let watchers = Watchers::start(address);
        let sample = measure::count_on(&child, Server::ShaddockWatched, sessions, rate, shape);
        let looks = watchers.looks.load(Ordering::Relaxed);
        drop((watchers, child));
        system::settle();
        let seconds = (shape.warmup + shape.measure).as_secs();
        if looks < seconds * ASKED.len() as u64 / 2 {
            let text = format!("there were {looks} looks in {seconds} s: it was hardly watched");
            return Err(io::Error::other(text));
        }
        Ok((sample?, looks))
    };
    let (without, (with, looks)) = if is_watched_first {
        let with = with()?;
        (without()?, with)
    } else {
        (without()?, with()?)
    };
    Ok(Watched { sessions, without, with, looks })
}

impl Watchers {
    fn start(address: SocketAddr) -> Self {
        let (is_over, looks) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let is_on = |is_over: &Arc<AtomicBool>| {
            let is_over = Arc::clone(is_over);
            move || !is_over.load(Ordering::Relaxed)
        };
        let (asks, counts) = (is_on(&is_over), Arc::clone(&looks));
        let asking = thread::spawn(move || {
            let mut recorded = None;
            while asks() {
                let next = Instant::now() + LOOK_EVERY;
                look(address, &mut recorded, &counts).ok();
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let listens = is_on(&is_over);
        let listening = thread::spawn(move || {
            while listens() {
                listen(address, &listens).ok();
            }
        });
        Self { is_over, looks, threads: vec![asking, listening] }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Asks for all once, and has the first session recorded that there is.
fn look(address: SocketAddr, recorded: &mut Option<String>, looks: &AtomicU64) -> io::Result<()> {
    let mut list = String::new();
    for path in ASKED {
        list = ask(address, "GET", path)?;
        looks.fetch_add(1, Ordering::Relaxed);
    }
    if recorded.is_none()
        && let Some((_, rest)) = list.split_once("\"id\":\"")
        && let Some((id, _)) = rest.split_once('"')
    {
        let path = format!("/sessions/{id}/record?bodies=on&seconds=3600");
        let answer = ask(address, "POST", &path)?;
        if !answer.starts_with("HTTP/1.1 2") {
            return Err(io::Error::other(answer));
        }
        *recorded = Some(id.to_owned());
    }
    if let Some(id) = recorded {
        ask(address, "GET", &format!("/sessions/{id}"))?;
        looks.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Reads the stream of events, as a page does.
fn listen(address: SocketAddr, is_on: &impl Fn() -> bool) -> io::Result<()> {
    let mut socket = send(address, "GET", "/events")?;
    let mut buffer = [0; 16 * 1024];
    while is_on() {
        if socket.read(&mut buffer)? == 0 {
            break;
        }
    }
    Ok(())
}

fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut text = String::new();
    send(address, method, path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn send(address: SocketAddr, method: &str, path: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )?;
    Ok(socket)
}
