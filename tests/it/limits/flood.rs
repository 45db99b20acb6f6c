//! A client that sends as fast as it can is read a share in each turn: it gets all its answers, and
//! others get theirs in between.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use shaddock::{Limits, Reply};
use support::{Client, builder, request};

const ECHO: &str = "connector.play.echo";

#[test]
fn a_flooding_client_is_paused_and_gets_all_its_answers() {
    let limits =
        Limits { bytes_per_turn_max: 20_000, messages_per_turn_max: 50, ..Limits::default() };
    let engine = builder(1)
        .limits(limits)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .start()
        .unwrap();
    let mut witness = Client::ready(engine.local_addr());
    let mut flooding = Client::ready(engine.local_addr());
    const REQUESTS: u32 = 10_000;
    let bytes: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, ECHO, "\"flood\"")).collect();
    let mut stream = flooding.stream.try_clone().unwrap();
    let writer = thread::spawn(move || stream.write_all(&bytes).unwrap());
    for id in 1..=REQUESTS {
        assert_eq!(flooding.answer(id), "\"flood\"");
        if id % 1_000 == 0 {
            assert_eq!(witness.ask(id, ECHO, "1"), "1");
        }
    }
    writer.join().unwrap();
    let counters = engine.handle().counters();
    assert!(counters.reading_pauses > 0, "it was never paused");
    assert_eq!(counters.requests, u64::from(REQUESTS + REQUESTS / 1_000));
    assert_eq!(flooding.ask(1, ECHO, "1"), "1", "it is read again");
}

/// A turn is as long as the share of the one that floods, however much it sends.
#[test]
fn others_wait_for_no_more_than_a_share() {
    const BURN: std::time::Duration = std::time::Duration::from_micros(100);
    let limits = Limits { messages_per_turn_max: 10, ..Limits::default() };
    let engine = builder(1)
        .limits(limits)
        .handler("connector.play.burn", |_, _| {
            let start = Instant::now();
            while start.elapsed() < BURN {}
            Reply::empty()
        })
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .start()
        .unwrap();
    let mut witness = Client::ready(engine.local_addr());
    let flooding = Client::ready(engine.local_addr());
    let stop = Arc::new(AtomicBool::new(false));
    let (mut writing, mut reading) = (flooding.stream.try_clone().unwrap(), flooding.stream);
    let stopped = Arc::clone(&stop);
    let writer = thread::spawn(move || {
        let bytes: Vec<u8> =
            (1..=500).flat_map(|id| request(id, "connector.play.burn", "1")).collect();
        while !stopped.load(Ordering::Relaxed) && writing.write_all(&bytes).is_ok() {}
        writing.shutdown(std::net::Shutdown::Both).ok();
    });
    let reader = thread::spawn(move || {
        let mut buffer = [0; 65536];
        while reading.read(&mut buffer).is_ok_and(|len| len > 0) {}
    });
    thread::sleep(std::time::Duration::from_millis(50));
    let mut took: Vec<_> = (1..=200)
        .map(|id| {
            let start = Instant::now();
            assert_eq!(witness.ask(id, ECHO, "1"), "1");
            start.elapsed()
        })
        .collect();
    took.sort();
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    reader.join().unwrap();
    // A filling of the buffers would be 60,000 messages, or six seconds; a share is a millisecond.
    // A busy machine lets each thread wait for some more.
    let median = took[took.len() / 2];
    assert!(median < std::time::Duration::from_millis(200), "{median:?}");
    assert!(engine.handle().counters().reading_pauses > 0);
}
