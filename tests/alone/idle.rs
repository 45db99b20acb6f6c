//! A thousand clients that do nothing but send heartbeats are all kept, and cost what is printed.
//!
//! Run it with `--nocapture` to see the share of one core that their shard takes.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::alone::is_alone;
use support::{Client, builder, eventually, heartbeat};

const CLIENTS: usize = 1_000;
/// How often each client sends one.
const INTERVAL: Duration = Duration::from_millis(1_000);
const MEASURED: Duration = Duration::from_secs(3);
/// The clients take turns, so that the beats are spread evenly.
const STEPS: usize = 100;

/// CPU time of the threads of the engine, in the kernel's ticks of 10 ms.
fn shard_ticks() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains("(shaddock-"))
        .map(|stat| {
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let fields: Vec<&str> = fields.split_whitespace().collect();
            // utime and stime, fields 14 and 15 of all.
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        })
        .sum()
}

/// Reads what is there; the bytes, as all of them are heartbeats.
fn drain(stream: &mut TcpStream) -> usize {
    let mut chunk = [0; 1024];
    let mut len = 0;
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => panic!("an idle client was closed"),
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return len,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_thousand_idle_clients_are_kept() {
    if !is_alone("idle::a_thousand_idle_clients_are_kept") {
        return;
    }
    // A machine that is busy with other tests must not make a client late.
    let engine = builder(1).heartbeat(INTERVAL).heartbeat_timeout(20 * INTERVAL).start().unwrap();
    let mut streams: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let client = Client::ready(engine.local_addr());
            client.stream.set_nonblocking(true).unwrap();
            client.stream
        })
        .collect();
    eventually("all work", || engine.handle().metrics().unwrap().connections == CLIENTS);

    let beat = heartbeat();
    let (start, ticks) = (Instant::now(), shard_ticks());
    let (mut sent, mut received) = (0, 0);
    for step in 0.. {
        if start.elapsed() >= MEASURED {
            break;
        }
        for stream in streams.iter_mut().skip(step % STEPS).step_by(STEPS) {
            received += drain(stream);
            stream.write_all(&beat).unwrap();
            sent += 1;
        }
        let next = start + INTERVAL / STEPS as u32 * (step as u32 + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let (elapsed, ticks) = (start.elapsed(), shard_ticks() - ticks);
    let share = ticks as f64 * 0.01 / elapsed.as_secs_f64() * 100.0;
    println!(
        "{CLIENTS} idle clients, {:.0} heartbeats/s: the shard takes {share:.1} % of a core",
        f64::from(sent) / elapsed.as_secs_f64()
    );

    // One answer each, and one for each ACK.
    let expected = (sent as usize + CLIENTS) * beat.len();
    eventually("all are answered", || {
        received += streams.iter_mut().map(drain).sum::<usize>();
        received >= expected
    });
    assert_eq!(received, expected);
    let counters = engine.handle().counters();
    assert_eq!(counters.connections_closed, 0);
    assert_eq!(counters.heartbeats, u64::from(sent as u32));
}
