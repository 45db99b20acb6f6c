//! Workers that are slower than their clients: by the policy of the server type what finds the lane
//! full is refused, or waits while its session is not read. Nobody else notices.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use shaddock::metrics::CounterSnapshot;
use shaddock::{Builder, Engine, EngineOption, LaneFull, Limits, Reply, StartError, Workers};
use support::{Client, Event, PATIENCE, builder, eventually, notify, request};

const ECHO: &str = "connector.play.echo";
const ROOM: &str = "room.roomHandler.echo";
const LANE: usize = 4;

/// One worker, which handles nothing as long as the sender is kept.
fn start(policy: Option<LaneFull>, limits: Limits) -> (Engine, SyncSender<()>) {
    let (gate, closed): (SyncSender<()>, Receiver<()>) = sync_channel(0);
    let closed = Arc::new(Mutex::new(closed));
    let workers = Workers::new(1, move |handlers| {
        let closed = Arc::clone(&closed);
        handlers.handler(ROOM, move |request, _| {
            // Ends with the sender.
            closed.lock().unwrap().recv().unwrap_err();
            Reply::borrowed(request.body())
        });
    });
    let builder = builder(1)
        .limits(Limits { lane_len: LANE, ..limits })
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .forward("room", workers);
    let set = |builder: Builder| match policy {
        Some(policy) => builder.lane_full("room", policy),
        None => builder,
    };
    (set(builder).start().unwrap(), gate)
}

fn counters(engine: &Engine) -> CounterSnapshot {
    engine.handle().counters()
}

fn burst(count: u32) -> Vec<u8> {
    (1..=count).flat_map(|id| request(id, ROOM, &format!("\"{id}\""))).collect()
}

#[test]
fn a_full_lane_refuses_by_default() {
    let (engine, gate) = start(None, Limits::default());
    let mut client = Client::ready(engine.local_addr());
    client.send(&burst(50));
    // What the lane holds, and what the worker has taken already.
    eventually("the lane is full", || counters(&engine).forward_rejects > 50 - 3 * LANE as u64);
    drop(gate);
    let answered = (1..=50).filter(|_| match client.next() {
        Event::Response { body, .. } => body != br#"{"code":500}"#,
        other => panic!("not asked for: {other:?}"),
    });
    let answered = answered.count() as u64;
    assert_eq!(answered + counters(&engine).forward_rejects, 50);
    assert_eq!(counters(&engine).lane_pauses, 0);
}

#[test]
fn a_client_of_a_busy_worker_waits_and_loses_nothing() {
    const REQUESTS: u32 = 5_000;
    let (engine, gate) = start(Some(LaneFull::Pause), Limits::default());
    let mut witness = Client::ready(engine.local_addr());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::ready(engine.local_addr())).collect();
    let writers: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut stream = client.stream.try_clone().unwrap();
            thread::spawn(move || stream.write_all(&burst(REQUESTS)).unwrap())
        })
        .collect();
    eventually("they wait", || counters(&engine).lane_pauses >= 3);
    for id in 1..=100 {
        assert_eq!(witness.ask(id, ECHO, "1"), "1");
    }
    let waiting = counters(&engine);
    assert!(waiting.requests < 200, "they are read on: {}", waiting.requests);
    drop(gate);
    for client in &mut clients {
        for id in 1..=REQUESTS {
            assert_eq!(client.answer(id), format!("\"{id}\""));
        }
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(witness.ask(1, ECHO, "1"), "1");
    let counters = counters(&engine);
    assert_eq!(counters.forwards, u64::from(3 * REQUESTS));
    assert_eq!((counters.forward_rejects, counters.forward_timeouts), (0, 0));
}

#[test]
fn notifies_wait_too_and_arrive_before_the_end() {
    let (engine, gate) = start(Some(LaneFull::Pause), Limits::default());
    let mut client = Client::ready(engine.local_addr());
    client.send(&notify(ROOM, "1").repeat(30));
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    eventually("one waits", || counters(&engine).lane_pauses > 0);
    assert_eq!(counters(&engine).closed_by_peer, 0);
    drop(gate);
    eventually("all have gone on", || counters(&engine).forwards == 30);
    eventually("it is gone", || counters(&engine).connections_closed == 1);
    assert_eq!(counters(&engine).forward_rejects, 0);
}

#[test]
fn a_client_that_leaves_or_waits_for_too_long_is_forgotten() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let limits = Limits { forward_timeout: TIMEOUT, ..Limits::default() };
    let (engine, gate) = start(Some(LaneFull::Pause), limits);
    let mut leaving = Client::ready(engine.local_addr());
    leaving.send(&burst(50));
    eventually("it waits", || counters(&engine).lane_pauses > 0);
    drop(leaving);
    let mut waiting = Client::ready(engine.local_addr());
    waiting.send(&burst(50));
    for _ in 1..=50 {
        let Some(Event::Response { body, .. }) = waiting.next_within(PATIENCE) else {
            panic!("it gets no answer")
        };
        assert_eq!(body, br#"{"code":500}"#);
    }
    eventually("the other one is gone", || engine.handle().metrics().unwrap().connections == 1);
    drop(gate);
    eventually("the worker is back", || waiting.ask(51, ROOM, "1") == "1");
    assert_eq!(waiting.ask(52, ECHO, "1"), "1");
}

#[test]
fn a_policy_is_of_a_type_that_is_forwarded() {
    let error = builder(1).lane_full("area", LaneFull::Pause).start().unwrap_err();
    assert!(matches!(error, StartError::Option { option: EngineOption::LaneFull, .. }), "{error}");
    assert!(error.to_string().contains("`area`"));
}
