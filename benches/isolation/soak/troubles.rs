//! The troubles of a soak: those that the bench measures, of a size that leaves room for others,
//! and some that need no figures.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::server::{ECHO, ENTER};
use crate::soak::random::Random;
use crate::troubles::{self, Outcome, Stage, expect};
use support::{Client, PATIENCE, heartbeat, request};

/// A name and a function that causes the trouble.
pub(super) type Trouble = (&'static str, fn(&Stage<'_>, &mut Random) -> Outcome);

pub(super) const ALL: [Trouble; 9] = [
    ("worker", |stage, _| troubles::stopped_worker(stage)),
    ("unread", clients_that_never_read),
    ("half-open", |stage, _| troubles::half_open_handshakes(stage)),
    ("dripping", |stage, _| troubles::clients_that_drip(stage)),
    ("flood", flood),
    ("large", |stage, _| troubles::large_packages(stage)),
    ("storm", |stage, _| troubles::reconnects(stage)),
    ("garbage", garbage),
    ("resets", resets),
];

/// Clients of the first four troubles.
pub(super) const CROWD: usize = 200;
pub(super) const STORM: usize = 2_000;
const UNREAD: usize = 100;
/// A counter that makes each uid unique.
static UIDS: AtomicU64 = AtomicU64::new(0);

/// Pushes to clients that never read, until the last of them has been closed.
fn clients_that_never_read(stage: &Stage<'_>, _: &mut Random) -> Outcome {
    let mut clients = stage.gather(UNREAD);
    for client in &mut clients {
        let uid = format!("\"{}\"", UIDS.fetch_add(1, Ordering::Relaxed));
        expect(client.ask(1, ENTER, &uid) == uid, || "a client can't enter".into())?;
        SockRef::from(&client.stream).set_recv_buffer_size(4096).map_err(|e| e.to_string())?;
    }
    let closed = || stage.process.counter("closed_slow_consumer") as usize;
    let (began, before) = (Instant::now(), closed());
    stage.begin();
    while closed() < before + UNREAD {
        let closed = closed() - before;
        expect(began.elapsed() < 3 * PATIENCE, || format!("{closed} of {UNREAD} were closed"))?;
        stage.process.order("push-bound");
        std::thread::sleep(Duration::from_millis(25));
    }
    Ok(format!("{UNREAD} closed"))
}

/// A client that sends requests at full speed. If it does not read its answers in time it is
/// closed, and another one continues.
fn flood(stage: &Stage<'_>, _: &mut Random) -> Outcome {
    let block = request(7, ECHO, &"x".repeat(64)).repeat(500);
    stage.begin();
    let mut clients = 0;
    while stage.goes_on() {
        let client = stage.client();
        clients += 1;
        let stream = &client.stream;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        std::thread::scope(|scope| {
            scope.spawn(|| read_on(stream));
            let mut writer: &TcpStream = stream;
            while stage.goes_on() && writer.write_all(&block).is_ok() {}
            // The server may have ended it already.
            stream.shutdown(Shutdown::Write).ok();
        });
    }
    Ok(format!("{clients} clients"))
}

fn read_on(mut stream: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).is_ok_and(|len| len > 0) {}
}

/// Clients that send bytes that are not a package, before the handshake or after it.
fn garbage(stage: &Stage<'_>, random: &mut Random) -> Outcome {
    stage.begin();
    let mut clients = 0;
    while stage.goes_on() {
        let mut client = if random.below(2) == 0 {
            stage.client()
        } else {
            Client::connect(stage.process.address)
        };
        let len = 1 + random.below(2_000) as usize;
        let mut bytes: Vec<u8> =
            std::iter::repeat_with(|| random.below(256) as u8).take(len).collect();
        if random.below(2) == 0 {
            // The header of a valid package.
            bytes.splice(0..0, [1 + random.below(5) as u8, 0, 0, random.below(64) as u8]);
        }
        // The server may close as soon as it has seen enough.
        client.stream.write_all(&bytes).ok();
        client.stream.shutdown(Shutdown::Write).ok();
        client.stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        read_on(&client.stream);
        clients += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(format!("{clients} clients"))
}

/// Clients that reset their connection at any point.
fn resets(stage: &Stage<'_>, random: &mut Random) -> Outcome {
    stage.begin();
    let mut clients = 0;
    while stage.goes_on() {
        let mut crowd = stage.gather(20);
        for client in &mut crowd {
            let bytes = [heartbeat(), request(1, ECHO, "1"), request(2, ECHO, "2")].concat();
            let len = random.below(bytes.len() as u64 + 1) as usize;
            client.send(&bytes[..len]);
            SockRef::from(&client.stream)
                .set_linger(Some(Duration::ZERO))
                .map_err(|error| error.to_string())?;
        }
        clients += crowd.len();
        drop(crowd);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(format!("{clients} resets"))
}
