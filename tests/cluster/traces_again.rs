//! Spans that are sent again: to a collector that refuses them for a while or can't be reached,
//! within the time that is set, and no faster than it asks for.

use std::time::{Duration, Instant};

use shaddock::Traces;
use support::{Client, eventually, free_port};

use crate::collector::{Collector, Does};
use crate::traces::{ECHO, lost, spans, stop, workers};

const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
const LATER: &str = "HTTP/1.1 429 Later\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n";
const FOR_LONG: &str = "HTTP/1.1 503 Away\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";

fn traces(collector: &Collector) -> Traces {
    Traces::new().endpoint(collector.endpoint()).sample(1)
}

#[test]
fn a_collector_that_is_busy_gets_the_spans_later_and_once() {
    let mut collector = Collector::start(Does::TakeAfter(2, BUSY));
    let engine = workers(traces(&collector));
    let mut client = Client::ready(engine.local_addr());
    let began = Instant::now();
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    eventually("it is taken", || spans(&engine).sent == 1);
    // Half of the first pause and of the second, at least.
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert_eq!(lost(&engine, "collector"), 0);
    stop(engine);
    let same: Vec<String> = collector.rest().into_iter().map(|span| span.context).collect();
    assert_eq!(same.len(), 3);
    assert!(same.iter().all(|context| *context == same[0]), "{same:?}");
}

#[test]
fn a_collector_is_left_alone_as_long_as_it_asks() {
    let collector = Collector::start(Does::TakeAfter(1, LATER));
    let engine = workers(traces(&collector));
    let mut client = Client::ready(engine.local_addr());
    let began = Instant::now();
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    eventually("it is taken", || spans(&engine).sent == 1);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    stop(engine);

    // What does not fit into the time is lost at once; the next spans wait in their queue all the
    // same, and an engine that stops waits for nobody.
    let collector = Collector::start(Does::TakeAfter(1, FOR_LONG));
    let engine = workers(traces(&collector));
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    eventually("it is lost", || lost(&engine, "collector") == 1);
    collector.post();
    assert_eq!(client.ask(2, ECHO, "1"), "1");
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    stop(engine);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    collector.nothing();
}

#[test]
fn spans_are_given_up_when_their_time_is_over() {
    const REQUESTS: u32 = 6_000;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let endless = Collector::start(Does::Refuse(503));
    for endpoint in [nobody, endless.endpoint()] {
        let traces = Traces::new().endpoint(endpoint).sample(1);
        let engine = workers(traces.retry_within(Duration::from_secs(2)));
        let mut client = Client::ready(engine.local_addr());
        let began = Instant::now();
        assert_eq!(client.ask(1, ECHO, "1"), "1");
        std::thread::sleep(Duration::from_millis(400));
        // One batch waits with the thread, the others in their queue, as many as that holds.
        let all: Vec<u8> = (2..=REQUESTS).flat_map(|id| support::request(id, ECHO, "1")).collect();
        client.send(&all);
        for id in 2..=REQUESTS {
            assert_eq!(client.answer(id), "1");
        }
        assert!(lost(&engine, "queue") > 1_000, "{:?}", spans(&engine));
        eventually("it is given up", || lost(&engine, "collector") >= 1);
        assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
        assert_eq!(spans(&engine).sent, 0);
        stop(engine);
    }
}

#[test]
fn an_answer_that_is_final_ends_it() {
    for status in [400, 401, 404, 500] {
        let collector = Collector::start(Does::Refuse(status));
        let engine = workers(traces(&collector));
        let mut client = Client::ready(engine.local_addr());
        assert_eq!(client.ask(1, ECHO, "1"), "1");
        eventually("it is lost", || lost(&engine, "collector") == 1);
        collector.post();
        collector.nothing();
        stop(engine);
    }
}
