//! A push to one session: it arrives from wherever it is sent, bound or not, and a session that has
//! ended gets nothing.
//!
//! With two shards the kernel spreads the connections, so that some of the pairs below are on
//! different ones.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shaddock::{Engine, HandleError, Handlers, Reply, SessionId, Workers};
use support::{Client, Event, builder, eventually, request};

/// The sessions that have asked for their number, in that order.
type Known = Arc<Mutex<Vec<SessionId>>>;

fn known(sessions: &Known) -> Vec<SessionId> {
    sessions.lock().unwrap().clone()
}

/// The same handlers on a shard (`connector.s.*`) and on a worker (`room.s.*`): `hello` makes a
/// session known by its place, `self` pushes to the own session, `other` to the one of a place.
fn handlers(
    server_type: &'static str,
    sessions: &Known,
) -> impl Fn(&mut Handlers) + Send + Sync + 'static {
    let sessions = Arc::clone(sessions);
    move |handlers| {
        let route = |method: &str| format!("{server_type}.s.{method}");
        let (knows, to) = (Arc::clone(&sessions), Arc::clone(&sessions));
        handlers
            .handler(&route("hello"), move |_, session| {
                knows.lock().unwrap().push(session.id());
                Reply::json(&session.id().shard().index())
            })
            .async_handler(&route("self"), |_, session| async move {
                session.send("onSelf", b"1").unwrap();
                session.context().sleep(Duration::from_millis(1)).await;
                Reply::json(&session.send("onSelf", b"null").is_err())
            })
            .handler(&route("other"), move |request, session| {
                let place = request.value().as_u64().unwrap() as usize;
                let other = to.lock().unwrap()[place];
                session.context().send(other, "onOther", b"[2]").unwrap();
                Reply::json(&true)
            });
    }
}

fn start(shards: u16) -> (Engine, Known) {
    let sessions = Known::default();
    let engine = builder(shards)
        .register(handlers("connector", &sessions))
        .forward("room", Workers::new(2, handlers("room", &sessions)))
        .start()
        .unwrap();
    (engine, sessions)
}

/// Clients on all shards, each known by its place.
fn clients(engine: &Engine, shards: usize) -> Vec<Client> {
    let (mut clients, mut seen) = (Vec::new(), HashSet::new());
    while seen.len() < shards || clients.len() < 4 {
        assert!(clients.len() < 200, "the kernel leaves a shard without connections");
        let mut client = Client::ready(engine.local_addr());
        seen.insert(client.ask(1, "connector.s.hello", "{}"));
        clients.push(client);
    }
    clients
}

fn pushed(route: &str, body: &str) -> Event {
    Event::Push { route: route.into(), body: body.into() }
}

#[test]
fn a_session_is_pushed_to_by_its_own_handler() {
    for shards in [1, 2] {
        let (engine, _) = start(shards);
        for server_type in ["connector", "room"] {
            let mut client = Client::ready(engine.local_addr());
            client.send(&request(7, &format!("{server_type}.s.self"), "{}"));
            assert_eq!(client.next(), pushed("onSelf", "1"));
            assert_eq!(client.answer(7), "true", "an empty push is none");
        }
    }
}

#[test]
fn an_unbound_session_is_pushed_to_from_shards_workers_and_the_host() {
    for shards in [1, 2] {
        let (engine, sessions) = start(shards);
        let mut clients = clients(&engine, usize::from(shards));
        let places = clients.len();
        for place in 0..places {
            let from = (place + 1) % places;
            for server_type in ["connector", "room"] {
                let route = format!("{server_type}.s.other");
                assert_eq!(clients[from].ask(2, &route, &place.to_string()), "true");
                assert_eq!(clients[place].next(), pushed("onOther", "[2]"));
            }
            engine.handle().send(known(&sessions)[place], "onHost", "{}").unwrap();
            assert_eq!(clients[place].next(), pushed("onHost", "{}"));
        }
        assert_eq!(engine.handle().metrics().unwrap().uids, 0);
    }
}

#[test]
fn a_stale_id_finds_nobody() {
    let (engine, sessions) = start(1);
    let mut first = Client::ready(engine.local_addr());
    first.ask(1, "connector.s.hello", "{}");
    drop(first);
    let handle = engine.handle();
    eventually("it has gone", || handle.metrics().unwrap().connections == 0);
    let mut second = Client::ready(engine.local_addr());
    second.ask(1, "connector.s.hello", "{}");
    handle.send(known(&sessions)[0], "onHost", "{}").unwrap();
    assert_eq!(second.ask(2, "connector.s.other", "0"), "true");
    handle.send(known(&sessions)[1], "onHost", "[1]").unwrap();
    assert_eq!(second.next(), pushed("onHost", "[1]"));
    assert!(matches!(handle.send(known(&sessions)[1], "", "{}"), Err(HandleError::Push(_))));
    let stale = known(&sessions)[1];
    drop(engine);
    assert_eq!(handle.send(stale, "onHost", "{}"), Err(HandleError::Stopped));
}

/// A client that does not read is closed at the bound of its outbox by these pushes as by others.
#[test]
fn pushes_to_a_session_are_bounded_by_its_outbox() {
    let (engine, sessions) = start(1);
    let mut client = Client::ready(engine.local_addr());
    client.ask(1, "connector.s.hello", "{}");
    let (handle, session) = (engine.handle(), known(&sessions)[0]);
    let body = json!("x".repeat(1 << 20)).to_string();
    eventually("it is closed", || {
        handle.send(session, "onMuch", &body).ok();
        handle.counters().closed_slow_consumer == 1
    });
}
