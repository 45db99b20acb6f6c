//! The load client against an engine: what it counts is what happened.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use shaddock::load::{self, DisconnectReason, LoadOptions, LoadReport, Mode, Phase, Transport};
use shaddock::{Audience, Engine, Reply};
use support::{builder, eventually};

const ECHO: &str = "connector.entryHandler.echo";
const TO_ALL: &str = "connector.entryHandler.toAll";

fn engine(shards: u16) -> Engine {
    builder(shards)
        .listen("127.0.0.1:0")
        .heartbeat(Duration::from_secs(1))
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(TO_ALL, |request, session| {
            session.context().broadcast("onAll", request.body(), Audience::all()).unwrap();
            Reply::borrowed(request.body())
        })
        .start()
        .unwrap()
}

fn options(addresses: &[SocketAddr]) -> LoadOptions {
    LoadOptions {
        addresses: addresses.to_vec(),
        connections: 50,
        warmup: Duration::from_millis(20),
        measure: Duration::from_millis(200),
        heartbeat: Duration::from_millis(200),
        ..LoadOptions::new(addresses[0])
    }
}

fn run(options: &LoadOptions) -> LoadReport {
    load::run(options, |_| {}).unwrap()
}

#[test]
fn several_rings_count_together() {
    let engine = engine(2);
    let options = LoadOptions { rings: 3, ..options(engine.local_addrs()) };
    let mut phases = Vec::new();
    let report = load::run(&options, |progress| {
        if phases.last() != Some(&progress.phase) {
            phases.push(progress.phase);
        }
        if progress.phase == Phase::Done {
            assert_eq!(progress.connections, 50);
        }
    })
    .unwrap();
    assert_eq!(phases[phases.len() - 3..], [Phase::Warmup, Phase::Measure, Phase::Done]);
    assert_eq!((report.connections, report.wrong, report.disconnects.total()), (50, 0, 0));
    assert!(report.messages > 50);
    assert_eq!(report.latency.len(), report.messages);
    assert_eq!(report.handshake.len(), 50);
}

#[test]
fn an_open_loop_keeps_its_rate_over_several_rings() {
    let engine = engine(1);
    let rate = Some(2000.0);
    let keeps_rate = || {
        let report = run(&LoadOptions { rings: 2, rate, ..options(engine.local_addrs()) });
        let per_second = report.messages as f64 / report.elapsed.as_secs_f64();
        assert!(per_second < 2400.0, "{per_second}");
        per_second > 1600.0
    };
    // A machine that is busy with something else for most of a run leaves it behind.
    eventually("a run keeps its rate", keeps_rate);
}

#[test]
fn all_come_back_after_a_storm_and_stay() {
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let engine = engine(2);
        let report = run(&LoadOptions {
            transport,
            mode: Mode::Storm,
            rings: 2,
            opening: 50,
            // Longer than the server waits for a heartbeat.
            measure: Duration::from_millis(2500),
            ..options(engine.local_addrs())
        });
        assert_eq!(
            (report.connections, report.disconnects.total()),
            (50, 0),
            "{}",
            report.disconnects
        );
        assert_eq!(report.handshake.len(), 50);
        assert!(report.reconnecting.unwrap() < Duration::from_secs(5));
        let counters = engine.handle().counters();
        assert_eq!((counters.handshakes, counters.closed_heartbeat_timeout), (100, 0));
    }
}

#[test]
fn pushes_are_counted() {
    let engine = engine(1);
    let report = run(&LoadOptions {
        route: TO_ALL.into(),
        rate: Some(100.0),
        ..options(engine.local_addrs())
    });
    assert!(report.messages > 0);
    assert!(report.pushes >= 50, "{}", report.pushes);
}

/// A client that sends no heartbeat is closed, and counted once for it.
#[test]
fn a_lost_connection_is_counted_once_with_its_reason() {
    let engine = engine(1);
    let report = run(&LoadOptions {
        mode: Mode::Idle,
        heartbeat: Duration::from_secs(600),
        measure: Duration::from_secs(8),
        ..options(engine.local_addrs())
    });
    assert_eq!(report.connections, 0);
    assert_eq!(report.disconnects.iter().collect::<Vec<_>>(), [(DisconnectReason::Ended, 50)]);
}

#[test]
fn a_refused_connection_is_told_with_its_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = load::run(&options(&[address]), |_| {}).unwrap_err();
    assert!(error.to_string().contains("Connection refused"), "{error}");
}
