//! Workers: forwarding, order, sessions from the worker's side, channels, deadlines.

use std::time::Duration;

use serde_json::json;
use shaddock::route::Dictionary;
use shaddock::{Audience, Drain, Handlers, Limits, Reply, Uid, Workers};
use support::{Client, Event, builder, eventually, notify, request};

const ENTRY: &str = "connector.entryHandler.entry";

/// Binds the uid that the body is.
fn with_entry(builder: shaddock::Builder) -> shaddock::Builder {
    builder.async_handler(ENTRY, |request, mut session| async move {
        let uid = Uid::try_from(&request.value()).unwrap();
        match session.bind(uid).await {
            Ok(()) => Reply::json("bound"),
            Err(error) => Reply::error_json(&json!({ "msg": error.to_string() })),
        }
    })
}

fn rooms(handlers: &mut Handlers) {
    handlers
        .handler("room.roomHandler.echo", |request, _| Reply::borrowed(request.body()))
        .handler("room.roomHandler.where", |_, session| {
            let context = session.context();
            Reply::json(&json!({
                "server": context.server_id(),
                "frontend": session.frontend_id(),
                "uid": session.uid(),
                "number": session.number(),
                "room": session.get("room"),
            }))
        })
        .handler("room.roomHandler.fail", |_, _| Reply::error_json(&json!({ "a": 1 })))
        .handler("room.roomHandler.panic", |_, _| panic!("on purpose"))
        .handler("room.roomHandler.never", |_, session| session.defer(std::mem::forget))
        .async_handler("room.roomHandler.sleep", |request, session| async move {
            let ms = request.value().as_u64().unwrap_or(0);
            session.context().sleep(Duration::from_millis(ms)).await;
            Reply::json(&ms)
        })
        .async_handler("room.roomHandler.set", |request, mut session| async move {
            session.set("room", request.value());
            Reply::json(&session.push("room").await)
        })
        .async_handler("room.roomHandler.bind", |request, mut session| async move {
            let result = session.bind(Uid::try_from(&request.value()).unwrap()).await;
            Reply::json(&json!([result.is_ok(), session.uid()]))
        })
        .handler("room.roomHandler.kick", |_, session| {
            session.kick(Some("bye"));
            Reply::empty()
        })
        .async_handler("room.roomHandler.say", |request, session| async move {
            let channel = session.context().channel("all");
            let fails = channel.push("onSay", request.get().body()).unwrap().await;
            Reply::json(&fails)
        })
        .handler("room.roomHandler.join", |_, session| {
            let channel = session.context().channel("all");
            channel.add(session.uid().cloned().unwrap());
            Reply::json(&channel.len())
        })
        .handler("room.roomHandler.broadcast", |_, session| {
            let audience = Audience::bound().filter(|view| view.uid().unwrap().text() != "bob");
            session.context().broadcast("onAll", b"1", audience).unwrap();
            Reply::empty()
        });
}

#[test]
fn a_worker_answers_as_a_local_handler_does() {
    let engine = builder(1).forward("room", Workers::new(1, rooms)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, "room.roomHandler.echo", r#"{"a":1}"#), r#"{"a":1}"#);
    assert_eq!(client.ask(2, "room.roomHandler.fail", "{}"), r#"{"a":1,"code":500}"#);
    assert_eq!(client.ask(3, "room.roomHandler.nope", "{}"), r#"{"code":500}"#);
    assert_eq!(client.ask(4, "room.roomHandler.panic", "{}"), r#"{"code":500}"#);
    assert_eq!(client.ask(5, "room.roomHandler.sleep", "20"), "20");
    assert_eq!(client.ask(6, "area.areaHandler.echo", "{}"), r#"{"code":500}"#);
    client.send(&notify("room.roomHandler.echo", "{}"));
    let here = client.ask_json(7, "room.roomHandler.where", "{}");
    assert_eq!(
        here,
        json!({"server":"room-1","frontend":"connector-1","uid":null,"number":1,"room":null})
    );
}

#[test]
fn sessions_are_bound_set_and_kicked_from_a_worker() {
    let engine = builder(2).forward("room", Workers::new(2, rooms)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, "room.roomHandler.set", "\"attic\""), "true");
    assert_eq!(client.ask(2, "room.roomHandler.bind", "42"), "[true,42]");
    assert_eq!(client.ask(3, "room.roomHandler.bind", "42"), "[true,42]");
    assert_eq!(client.ask(4, "room.roomHandler.bind", "\"42\""), "[false,42]");
    let here = client.ask_json(5, "room.roomHandler.where", "{}");
    assert_eq!((&here["uid"], &here["room"]), (&json!(42), &json!("attic")));
    let statistics = engine.handle().statistics().unwrap();
    assert_eq!((statistics.connections, statistics.login_count), (1, 1));
    client.send(&request(6, "room.roomHandler.kick", "{}"));
    let events = client.until_end();
    assert!(events.contains(&Event::Kick(json!({"reason": "bye"}))), "{events:?}");
    eventually("the uid is free", || engine.handle().metrics().unwrap().uids == 0);
}

/// Requests of one session to one worker keep their order, and nothing is lost.
#[test]
fn pipelined_requests_are_answered_in_order() {
    const REQUESTS: u32 = 2_000;
    let engine = builder(2).forward("room", Workers::new(2, rooms)).start().unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::ready(engine.local_addr())).collect();
    for client in &mut clients {
        let burst: Vec<u8> = (1..=REQUESTS)
            .flat_map(|id| request(id, "room.roomHandler.echo", &id.to_string()))
            .collect();
        client.send(&burst);
    }
    for client in &mut clients {
        let mut expected = 1;
        while expected <= REQUESTS {
            if let Event::Response { id, body } = client.next() {
                assert_eq!((id, &*body), (expected, expected.to_string().as_bytes()));
                expected += 1;
            }
        }
    }
}

#[test]
fn channels_reach_all_sessions_of_their_members() {
    let engine = with_entry(builder(2)).forward("room", Workers::new(1, rooms)).start().unwrap();
    let mut clients: Vec<Client> = ["amy", "amy", "bob"]
        .into_iter()
        .map(|uid| {
            let mut client = Client::ready(engine.local_addr());
            assert_eq!(client.ask(1, ENTRY, &format!("\"{uid}\"")), "\"bound\"");
            client
        })
        .collect();
    assert_eq!(clients[0].ask(2, "room.roomHandler.join", "{}"), "1");
    assert_eq!(clients[2].ask(2, "room.roomHandler.join", "{}"), "2");
    assert_eq!(clients[2].ask(3, "room.roomHandler.say", "\"hi\""), "[]");
    let said = Event::Push { route: "onSay".into(), body: b"\"hi\"".to_vec() };
    assert_eq!(clients[0].next(), said);
    assert_eq!(clients[1].next(), said);

    drop(clients.remove(2));
    eventually("bob is gone", || engine.handle().statistics().unwrap().login_count == 1);
    assert_eq!(clients[0].ask(4, "room.roomHandler.say", "\"hi\""), "[\"bob\"]");

    clients[0].send(&request(5, "room.roomHandler.broadcast", "{}"));
    let all = Event::Push { route: "onAll".into(), body: b"1".to_vec() };
    for client in &mut clients {
        while client.next() != all {}
    }
}

#[test]
fn a_worker_that_never_answers_is_answered_for() {
    let limits = Limits { forward_timeout: Duration::from_millis(100), ..Limits::default() };
    let engine = builder(1).limits(limits).forward("room", Workers::new(1, rooms)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, "room.roomHandler.never", "{}"));
    assert_eq!(client.ask(2, "room.roomHandler.echo", "2"), "2");
    assert_eq!(client.answer(1), r#"{"code":500}"#);
    assert_eq!(engine.handle().counters().forward_timeouts, 1);
}

#[test]
fn too_many_requests_in_flight_are_refused_at_once() {
    let limits = Limits { in_flight_per_session_max: 2, ..Limits::default() };
    let engine = builder(1).limits(limits).forward("room", Workers::new(1, rooms)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let burst: Vec<u8> =
        (1..=3).flat_map(|id| request(id, "room.roomHandler.sleep", "200")).collect();
    client.send(&burst);
    assert_eq!(client.answer(3), r#"{"code":500}"#);
    assert_eq!(client.answer(1), "200");
    assert_eq!(client.answer(2), "200");
    assert_eq!(engine.handle().counters().session_in_flight_rejects, 1);
}

/// A notify is over for its shard once the worker has begun it; its future still counts.
#[test]
fn notifies_of_one_client_leave_a_worker_futures_for_others() {
    const MAX: u64 = 8;
    let limits = Limits {
        in_flight_per_session_max: MAX as u16,
        tasks_max: 2 * MAX as usize,
        ..Limits::default()
    };
    // Messages of known routes go to a worker many at a time.
    let routes = [("room.roomHandler.echo", 1), ("room.roomHandler.sleep", 2)];
    let builder = builder(1).limits(limits).dictionary(Dictionary::from_map(routes).unwrap());
    let engine = builder.forward("room", Workers::new(1, rooms)).start().unwrap();
    let mut greedy = Client::ready(engine.local_addr());
    for _ in 0..50 {
        greedy.send(&notify("room.roomHandler.sleep", "5000"));
        assert_eq!(greedy.ask(1, "room.roomHandler.echo", "1"), "1", "the worker has begun it");
    }
    let mut other = Client::ready(engine.local_addr());
    assert_eq!(other.ask(1, "room.roomHandler.sleep", "1"), "1");
    assert_eq!(engine.handle().counters().session_in_flight_rejects, 50 - MAX);
}

#[test]
fn a_full_lane_refuses_and_loses_nothing_else() {
    let limits = Limits { lane_len: 4, ..Limits::default() };
    let engine = builder(1).limits(limits).forward("room", Workers::new(1, rooms)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let burst: Vec<u8> =
        (1..=500).flat_map(|id| request(id, "room.roomHandler.echo", &id.to_string())).collect();
    client.send(&burst);
    let mut answers = std::collections::BTreeMap::new();
    while answers.len() < 500 {
        if let Event::Response { id, body } = client.next() {
            assert!(body == id.to_string().as_bytes() || body == br#"{"code":500}"#);
            assert!(answers.insert(id, body).is_none(), "{id} is answered once");
        }
    }
    let counters = engine.handle().counters();
    assert_eq!(counters.forwards + counters.forward_rejects, 500);
    assert!(counters.forward_rejects > 0);
}

#[test]
fn the_default_route_and_a_router_pick_servers() {
    let engine = with_entry(builder(1)).forward("room", Workers::new(3, rooms)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    // Nobody is logged in: the first server.
    assert_eq!(client.ask_json(1, "room.roomHandler.where", "{}")["server"], "room-1");
    client.ask(2, ENTRY, "\"amy\"");
    let expected = shaddock::route::default_route("amy", 3).unwrap() + 1;
    let here = client.ask_json(3, "room.roomHandler.where", "{}");
    assert_eq!(here["server"], format!("room-{expected}"));
    drop(engine);

    let engine = builder(1)
        .forward("room", Workers::new(3, rooms))
        .route("room", |_, servers| servers.iter().position(|server| server.as_str() == "room-2"))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask_json(1, "room.roomHandler.where", "{}")["server"], "room-2");
    drop(engine);

    let engine = builder(1)
        .forward("room", Workers::new(1, rooms))
        .route("room", |_, servers| Some(servers.len()))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, "room.roomHandler.where", "{}"), r#"{"code":500}"#);
}

#[test]
fn a_drain_waits_for_workers_and_tells_the_clients() {
    let engine = builder(2).forward("room", Workers::new(1, rooms)).shutdown_kick("shutdown");
    let engine = engine.start().unwrap();
    let mut busy = Client::ready(engine.local_addr());
    let mut idle = Client::ready(engine.local_addr());
    idle.ask(1, "room.roomHandler.echo", "1");
    busy.send(&request(1, "room.roomHandler.sleep", "300"));
    eventually("it is forwarded", || engine.handle().counters().forwards == 2);
    let handle = engine.handle();
    let stopped = std::thread::spawn(move || engine.shutdown(Drain::within(support::PATIENCE)));
    let kicked = Event::Kick(json!({"reason": "shutdown"}));
    assert_eq!(idle.until_end().last(), Some(&kicked));
    let events = busy.until_end();
    let answer = Event::Response { id: 1, body: b"300".to_vec() };
    assert_eq!(events, [answer, kicked]);
    let report = stopped.join().unwrap();
    assert!(report.took < support::PATIENCE, "{report:?}");
    assert_eq!(report.counters.closed_shutdown, 2);
    assert!(handle.push("amy", "on", "{}").is_err());
}
