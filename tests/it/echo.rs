//! The shortest way through every layer: one engine, one client, one request.

use shaddock::{Drain, Reply};
use support::{Client, Event, builder, handshake, request};

const ECHO: &str = "connector.entryHandler.echo";

#[test]
fn a_request_is_answered() {
    let engine =
        builder(1).handler(ECHO, |request, _| Reply::borrowed(request.body())).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, r#"{"a":1}"#), r#"{"a":1}"#);
    assert_eq!(client.ask(2, ECHO, ""), "{}");
    assert_eq!(client.ask(3, "connector.entryHandler.nope", "{}"), r#"{"code":500}"#);
    drop(client);
    let report = engine.shutdown(Drain::within(std::time::Duration::from_secs(5)));
    assert_eq!(report.counters.connections_accepted, 1);
    assert_eq!(report.counters.connections_closed, 1);
    assert_eq!(report.counters.requests, 3);
    assert_eq!(report.counters.answers, 3);
}

/// What stock Pomelo loses: everything behind the handshake in the same write.
#[test]
fn what_is_pipelined_behind_the_handshake_counts() {
    let engine =
        builder(1).handler(ECHO, |request, _| Reply::borrowed(request.body())).start().unwrap();
    let mut client = Client::connect(engine.local_addr());
    client.send(&[handshake(), support::ack(), request(1, ECHO, "7")].concat());
    assert!(matches!(client.next(), Event::Handshake(_)));
    assert_eq!(client.answer(1), "7");
}
