//! Clients that do not read: the policy of each route says what is dropped for them, answers never
//! are, time disconnects those that are owed something, and nobody else notices.

use std::io::Write as _;
use std::time::{Duration, Instant};

use shaddock::metrics::CounterSnapshot;
use shaddock::{Audience, Builder, Engine, Limits, Reply, SlowConsumer};
use support::{Client, Event, PATIENCE, builder, eventually, request};

const ECHO: &str = "connector.play.echo";
/// The kernel's own buffers take a few megabytes first.
const PUSH_BYTES: usize = 64 * 1024;
const PUSHES: usize = 400;

fn with_policies() -> Builder {
    builder(1)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .push_policy("onTick", SlowConsumer::KeepLatest)
        .push_policy("onEffect", SlowConsumer::DropOldest)
}

/// A client that the engine has heard of as working.
fn answered(engine: &Engine) -> Client {
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    client
}

fn counters(engine: &Engine) -> CounterSnapshot {
    engine.handle().counters()
}

/// Pushes to everyone. `witness` has read it in the end: it is never slow and loses nothing, so
/// what is counted as lost is another's.
fn broadcast(engine: &Engine, witness: &mut Client, route: &str, number: usize) {
    let body = format!("\"{number}:{}\"", "x".repeat(PUSH_BYTES));
    engine.handle().broadcast(route, &body, Audience::all()).unwrap();
    let Event::Push { body: got, .. } = witness.next() else { panic!("no push") };
    assert_eq!(got, body.as_bytes());
    assert_eq!(witness.ask(1, ECHO, "1"), "1");
}

/// The numbers of the pushes that come until the answer to a last request.
fn numbers(slow: &mut Client, route: &str) -> Vec<usize> {
    slow.send(&request(9, ECHO, "last"));
    let mut numbers = Vec::new();
    loop {
        match slow.next() {
            Event::Response { id: 9, body } => {
                assert_eq!(body, b"last");
                return numbers;
            }
            Event::Push { route: got, body } if got == route => {
                let body = String::from_utf8(body).unwrap();
                let (number, _) = body[1..].split_once(':').unwrap();
                assert_eq!(body.len(), number.len() + PUSH_BYTES + 3);
                numbers.push(number.parse().unwrap());
            }
            other => panic!("not asked for: {other:?}"),
        }
    }
}

#[test]
fn the_latest_push_reaches_a_client_that_reads_again() {
    let engine = with_policies().start().unwrap();
    let mut witness = answered(&engine);
    let mut slow = answered(&engine);
    for number in 0..PUSHES {
        broadcast(&engine, &mut witness, "onTick", number);
    }
    let replaced = counters(&engine).pushes_replaced as usize;
    assert!(replaced > 0, "{PUSHES} pushes of {PUSH_BYTES} bytes fit into the kernel");
    let numbers = numbers(&mut slow, "onTick");
    assert!(numbers.is_sorted() && numbers.last() == Some(&(PUSHES - 1)));
    assert_eq!(numbers.len() + replaced, PUSHES);
    let counters = counters(&engine);
    assert_eq!((counters.pushes_dropped, counters.closed_slow_consumer), (0, 0));
}

#[test]
fn the_oldest_pushes_go_and_the_newest_stay() {
    let limits =
        Limits { package_bytes_max: 128 * 1024, outbox_bytes_max: 512 * 1024, ..Limits::default() };
    let engine = with_policies().limits(limits).start().unwrap();
    let mut witness = answered(&engine);
    let mut slow = answered(&engine);
    for number in 0..PUSHES {
        broadcast(&engine, &mut witness, "onEffect", number);
    }
    let dropped = counters(&engine).pushes_dropped as usize;
    assert!(dropped > 0, "{PUSHES} pushes of {PUSH_BYTES} bytes fit into the kernel");
    let numbers = numbers(&mut slow, "onEffect");
    assert!(numbers.is_sorted() && numbers.last() == Some(&(PUSHES - 1)));
    assert_eq!(numbers.len() + dropped, PUSHES);
    assert_eq!(counters(&engine).closed_slow_consumer, 0);
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_disconnected() {
    const AGE: Duration = Duration::from_millis(400);
    let engine = with_policies().limits(Limits { outbox_age_max: AGE, ..Limits::default() });
    let engine = engine.start().unwrap();
    let mut witness = answered(&engine);
    let mut slow = answered(&engine);
    let start = Instant::now();
    // Its own answers are more than the kernel takes, and less than the outbox may hold.
    let body = "x".repeat(1_000_000);
    for id in 1..=6 {
        slow.send(&request(id, ECHO, &body));
    }
    while counters(&engine).closed_outbox_age == 0 {
        assert!(start.elapsed() < PATIENCE, "it was never disconnected");
        assert_eq!(witness.ask(1, ECHO, "1"), "1");
    }
    assert!(start.elapsed() >= AGE);
    eventually("it is gone", || engine.handle().metrics().unwrap().connections == 1);
    assert_eq!(witness.ask(1, ECHO, "1"), "1");
    let counters = counters(&engine);
    assert_eq!((counters.closed_outbox_age, counters.closed_slow_consumer), (1, 0));
}

/// A client may ask for far more than its outbox holds before it reads: its requests wait.
#[test]
fn a_client_that_asks_for_much_before_it_reads_gets_all_of_it() {
    const REQUESTS: u32 = 30_000;
    let limits =
        Limits { package_bytes_max: 64 * 1024, outbox_bytes_max: 512 * 1024, ..Limits::default() };
    let engine = builder(1)
        .limits(limits)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler("connector.play.much", |_, _| Reply::bytes(vec![b'7'; 1_000]))
        .start()
        .unwrap();
    let mut witness = answered(&engine);
    let mut asking = answered(&engine);
    let mut stream = asking.stream.try_clone().unwrap();
    let requests = (1..=REQUESTS).flat_map(|id| request(id, "connector.play.much", ""));
    let requests: Vec<u8> = requests.collect();
    let writer = std::thread::spawn(move || stream.write_all(&requests).unwrap());
    // The kernel's buffers take what comes of many pauses first.
    let mut read = 0;
    eventually("it is not read any more", || {
        std::thread::sleep(Duration::from_millis(200));
        let counters = counters(&engine);
        counters.outbox_pauses > 0 && std::mem::replace(&mut read, counters.requests) == read
    });
    assert!(read < u64::from(REQUESTS));
    for id in 1..=100 {
        assert_eq!(witness.ask(id, ECHO, "1"), "1");
    }
    assert_eq!(counters(&engine).requests, read + 100, "it has read nothing");
    for id in 1..=REQUESTS {
        assert_eq!(asking.answer(id).len(), 1_000);
        if id == REQUESTS / 3 {
            eventually("it is paused again", || counters(&engine).outbox_pauses > 1);
        }
    }
    writer.join().unwrap();
    assert_eq!(asking.ask(1, ECHO, "1"), "1");
    let counters = counters(&engine);
    assert_eq!((counters.closed_slow_consumer, counters.closed_outbox_age), (0, 0));
}
