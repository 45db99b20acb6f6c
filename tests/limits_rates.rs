//! Bounds on how often something may happen hold for each client by itself, and are told.

mod common;

use std::time::{Duration, Instant};

use common::{Client, builder, notify, request};
use shaddock::metrics::Snapshot;
use shaddock::{Builder, Engine, Limits, Reply};

const ECHO: &str = "connector.play.echo";
const REFUSED: &str = r#"{"code":500}"#;

fn with_echo(builder: Builder) -> Builder {
    builder.handler(ECHO, |request, _| Reply::borrowed(request.body()))
}

fn counters(engine: &Engine) -> Snapshot {
    engine.handle().counters()
}

#[test]
fn messages_above_the_rate_are_refused_and_the_others_are_not() {
    const BURST: u32 = 20;
    const RATE: u32 = 5;
    let limits = Limits { messages_per_second: RATE, messages_burst: BURST, ..Limits::default() };
    let engine = with_echo(builder(1)).limits(limits).start().unwrap();
    let start = Instant::now();
    let mut flooding = Client::ready(engine.local_addr());
    let mut witness = Client::ready(engine.local_addr());
    let mut bytes = Vec::new();
    for id in 1..=200 {
        bytes.extend(request(id, ECHO, "1"));
        bytes.extend(notify(ECHO, "1"));
    }
    flooding.send(&bytes);
    let answers: Vec<String> = (1..=200).map(|id| flooding.answer(id)).collect();
    let served = answers.iter().filter(|answer| *answer == "1").count();
    let first = answers.iter().take_while(|answer| *answer == "1").count();
    assert_eq!(first as u32, BURST / 2, "the burst, of which the other half are notifies");
    assert!(answers[first..].iter().all(|answer| answer == "1" || answer == REFUSED));
    // Each second brings a few more.
    let more = 1 + start.elapsed().as_secs() as u32 * RATE + RATE;
    assert!(served as u32 <= BURST / 2 + more, "{served} in {:?}", start.elapsed());
    assert_eq!(witness.ask(1, ECHO, "1"), "1", "another session has its own rate");
    assert!(counters(&engine).message_rate_rejects >= u64::from(400 - BURST - more));
    std::thread::sleep(Duration::from_secs(1) / RATE * 2);
    assert_eq!(flooding.ask(201, ECHO, "1"), "1", "time brings it back");
}

#[test]
fn without_a_rate_nothing_is_refused() {
    let engine = with_echo(builder(1)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let bytes: Vec<u8> = (1..=2_000).flat_map(|id| request(id, ECHO, "1")).collect();
    client.send(&bytes);
    assert!((1..=2_000).all(|id| client.answer(id) == "1"));
    assert_eq!(counters(&engine).message_rate_rejects, 0);
}
