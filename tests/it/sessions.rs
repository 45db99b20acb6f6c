//! Sessions, uids, kicks and pushes mean the same whichever shard a session is on.
//!
//! Each test runs on one shard and on two. With two, the kernel spreads the connections, so
//! [`spread`] connects until each shard has as many clients as a test needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::{
    Audience, Builder, Drain, Engine, HandleError, Handlers, Limits, OnSecondBind, Reply, Session,
    SessionId, SessionView, Uid, Workers,
};
use support::{Client, Event, PATIENCE, ack, builder, eventually, handshake, request};

fn uid_of(value: &Value) -> Uid {
    Uid::try_from(value).unwrap()
}

/// What a bind or unbind came to, and the snapshot's uid after it.
fn outcome(result: &Result<(), shaddock::BindError>, session: &Session) -> Reply<'static> {
    let error = result.as_ref().err().map(ToString::to_string);
    Reply::json(&json!([error, session.uid()]))
}

/// The same handlers on a shard (`connector.play.*`) and on a worker (`room.play.*`).
fn play(server_type: &'static str) -> impl Fn(&mut Handlers) + Send + Sync + 'static {
    move |handlers| {
        let route = |method: &str| format!("{server_type}.play.{method}");
        handlers
            .handler(&route("where"), |_, session| {
                Reply::json(&json!([session.id().shard().index(), session.number()]))
            })
            .handler(&route("uid"), |_, session| Reply::json(&session.uid()))
            .async_handler(&route("bind"), |request, mut session| async move {
                let result = session.bind(uid_of(&request.value())).await;
                outcome(&result, &session)
            })
            .async_handler(&route("unbind"), |request, mut session| async move {
                let result = session.unbind(uid_of(&request.value())).await;
                outcome(&result, &session)
            })
            .async_handler(&route("kickUid"), |request, session| async move {
                let body = request.value();
                let kicked = session.context().kick_uid(uid_of(&body[0]), body[1].as_str()).await;
                Reply::json(&json!([kicked]))
            })
            .handler(&route("kickMe"), |request, session| {
                session.kick(request.value().as_str());
                Reply::json("too late")
            })
            .async_handler(&route("push"), |request, session| async move {
                let body = request.value();
                let uids: Vec<Uid> = body.as_array().unwrap().iter().map(uid_of).collect();
                Reply::json(&session.context().push(uids, "onPush", b"[1]").unwrap().await)
            });
        settings(handlers, server_type);
    }
}

fn settings(handlers: &mut Handlers, server_type: &str) {
    let route = |method: &str| format!("{server_type}.play.{method}");
    let set_all = |session: &mut Session, body: Value| {
        let Value::Object(all) = body else { return };
        all.into_iter().for_each(|(key, value)| session.set(key, value));
    };
    handlers
        .handler(&route("get"), |request, session| {
            let keys = request.value();
            let keys = keys.as_array().unwrap();
            let values = keys.iter().map(|key| session.get(key.as_str().unwrap()));
            Reply::json(&values.collect::<Vec<_>>())
        })
        .handler(&route("set"), move |request, session| {
            set_all(session, request.value());
            Reply::json(&session.get("a"))
        })
        .async_handler(&route("pushA"), move |request, mut session| async move {
            set_all(&mut session, request.value());
            Reply::json(&session.push("a").await)
        })
        .async_handler(&route("pushAll"), move |request, mut session| async move {
            set_all(&mut session, request.value());
            Reply::json(&session.push_all().await)
        });
}

fn engine(shards: u16) -> Builder {
    builder(shards).register(play("connector")).forward("room", Workers::new(1, play("room")))
}

/// Clients, as many on each shard, shard by shard.
fn spread(engine: &Engine, shards: usize, on_each: usize) -> Vec<Client> {
    let mut found: Vec<Vec<Client>> = (0..shards).map(|_| Vec::new()).collect();
    for _ in 0..100 * shards * on_each {
        if found.iter().all(|clients| clients.len() == on_each) {
            let open = shards * on_each;
            eventually("the others are gone", || {
                engine.handle().metrics().unwrap().connections == open
            });
            return found.into_iter().flatten().collect();
        }
        let mut client = Client::ready(engine.local_addr());
        let shard = client.ask_json(1, "connector.play.where", "{}")[0].as_u64().unwrap();
        let clients = &mut found[usize::try_from(shard).unwrap()];
        if clients.len() < on_each {
            clients.push(client);
        }
    }
    panic!("the kernel leaves a shard without connections");
}

fn ask(client: &mut Client, method: &str, body: &Value) -> Value {
    client.ask_json(9, &format!("connector.play.{method}"), &body.to_string())
}

fn kicked(reason: &str) -> Event {
    Event::Kick(json!({ "reason": reason }))
}

fn pushed(route: &str) -> Event {
    Event::Push { route: route.into(), body: b"[1]".to_vec() }
}

/// What a client has got up to the answer of a request that it sends now.
fn received(client: &mut Client) -> Vec<Event> {
    client.send(&request(77, "connector.play.where", "{}"));
    let mut events = Vec::new();
    loop {
        match client.next() {
            Event::Response { id: 77, .. } => return events,
            Event::End => panic!("closed"),
            event => events.push(event),
        }
    }
}

fn uids(engine: &Engine) -> usize {
    engine.handle().metrics().unwrap().uids
}

#[test]
fn binds_follow_the_rules_of_the_original() {
    for (shards, server_type) in [(1, "connector"), (2, "connector"), (1, "room"), (2, "room")] {
        let engine = engine(shards).start().unwrap();
        for mut client in spread(&engine, usize::from(shards), 1) {
            let mut ask = |method: &str, body: Value| {
                let route = format!("{server_type}.play.{method}");
                client.ask_json(9, &route, &body.to_string())
            };
            assert_eq!(ask("unbind", json!(42)), json!(["session has not bind with 42", null]));
            assert_eq!(ask("bind", json!(42)), json!([null, 42]));
            assert_eq!(ask("bind", json!(42)), json!([null, 42]), "the same once more");
            let to_other = json!(["session has already bind with 42", 42]);
            assert_eq!(ask("bind", json!("42")), to_other, "42 is not \"42\"");
            assert_eq!(ask("bind", json!("bob")), to_other);
            assert_eq!(
                ask("unbind", json!("42")),
                json!(["session has not bind with 42", 42]),
                "42 is not \"42\""
            );
            assert_eq!(ask("uid", json!({})), json!(42), "the real session has it");
            assert_eq!(ask("unbind", json!(42)), json!([null, null]));
            assert_eq!(ask("uid", json!({})), json!({}), "nobody");
            assert_eq!(ask("bind", json!("bob")), json!([null, "bob"]), "free for another");
            assert_eq!(ask("unbind", json!("bob")), json!([null, null]));
        }
        eventually("the uids are free", || uids(&engine) == 0);
    }
}

#[test]
fn uids_that_are_nothing_or_too_long_are_refused() {
    let limits = Limits { uid_bytes_max: 8, ..Limits::default() };
    let engine = engine(2).limits(limits).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let bad = json!(["uid is empty or too long", null]);
    assert_eq!(ask(&mut client, "bind", &json!("")), bad);
    assert_eq!(ask(&mut client, "bind", &json!(0)), bad);
    assert_eq!(ask(&mut client, "bind", &json!("123456789")), bad);
    assert_eq!(ask(&mut client, "bind", &json!("12345678")), json!([null, "12345678"]));
}

#[test]
fn a_bind_at_the_bound_of_questions_is_refused() {
    let limits = Limits { backlog_len_max: 0, ..Limits::default() };
    let engine = engine(1).limits(limits).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(ask(&mut client, "bind", &json!("amy")), json!(["too many binds at once", null]));
    assert_eq!(uids(&engine), 0);
}

/// A handler that outlives its session finds it gone.
#[test]
fn a_session_that_has_closed_does_not_exist() {
    for shards in [1, 2] {
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let engine = builder(shards)
            .async_handler("connector.play.outlive", move |_, mut session| {
                let tell = tell.lock().unwrap().clone();
                async move {
                    while session.push("a").await {
                        session.context().sleep(Duration::from_millis(2)).await;
                    }
                    let bound = session.bind("amy").await.unwrap_err().to_string();
                    let unbound = session.unbind("amy").await.unwrap_err().to_string();
                    tell.send((session.number(), bound, unbound)).unwrap();
                    Reply::empty()
                }
            })
            .start()
            .unwrap();
        let mut client = Client::ready(engine.local_addr());
        client.send(&request(1, "connector.play.outlive", "{}"));
        eventually("it is asked", || engine.handle().counters().requests == 1);
        drop(client);
        let (number, bound, unbound) = told.recv_timeout(PATIENCE).unwrap();
        let text = format!("session does not exist, sid: {number}");
        assert_eq!((&bound, &unbound), (&text, &text));
        assert_eq!(uids(&engine), 0);
    }
}

#[test]
fn several_sessions_share_a_uid() {
    for shards in [1, 2] {
        let engine = engine(shards).start().unwrap();
        let mut clients = spread(&engine, usize::from(shards), 2);
        for (client, uid) in clients.iter_mut().zip([json!(42), json!("42")].iter().cycle()) {
            assert_eq!(ask(client, "bind", uid), json!([null, uid]));
        }
        // 42 and "42" are two uids in one place.
        assert_eq!(uids(&engine), 1);
        engine.handle().push(42, "onPush", "[1]").unwrap();
        for client in &mut clients {
            assert_eq!(client.next(), pushed("onPush"));
        }
        drop(clients.pop());
        eventually("one is gone", || {
            engine.handle().metrics().unwrap().connections == clients.len()
        });
        assert_eq!(ask(&mut clients[0], "push", &json!(["42", "eve"])), json!(["eve"]));
        drop(clients);
        eventually("the uid is free", || uids(&engine) == 0);
    }
}

#[test]
fn a_single_session_keeps_its_uid_until_it_ends() {
    for shards in [1, 2] {
        let engine = engine(shards).single_session(OnSecondBind::Refuse).start().unwrap();
        let mut clients = spread(&engine, usize::from(shards), 2);
        let (mut second, mut first) = (clients.pop().unwrap(), clients.remove(0));
        assert_eq!(ask(&mut first, "bind", &json!("amy")), json!([null, "amy"]));
        assert_eq!(ask(&mut first, "bind", &json!("amy")), json!([null, "amy"]));
        let in_use = "singleSession is enabled, and session has already bind with uid: amy";
        assert_eq!(ask(&mut second, "bind", &json!("amy")), json!([in_use, null]));
        assert_eq!(ask(&mut second, "uid", &json!({})), json!({}));
        drop(first);
        eventually("the uid is free", || uids(&engine) == 0);
        assert_eq!(ask(&mut second, "bind", &json!("amy")), json!([null, "amy"]));
    }
}

#[test]
fn settings_reach_the_session_only_when_they_are_pushed() {
    let engine = engine(2).start().unwrap();
    for server_type in ["connector", "room"] {
        let mut client = Client::ready(engine.local_addr());
        let mut ask = |method: &str, body: Value| {
            client.ask_json(9, &format!("{server_type}.play.{method}"), &body.to_string())
        };
        assert_eq!(ask("set", json!({"a": 1})), json!(1), "the snapshot has it");
        assert_eq!(ask("get", json!(["a"])), json!([null]), "the session has not");
        assert_eq!(ask("pushA", json!({"a": 1, "b": 1})), json!(true));
        assert_eq!(ask("get", json!(["a", "b"])), json!([1, null]), "only what was pushed");
        assert_eq!(ask("pushAll", json!({"b": [2], "c": "3"})), json!(true));
        assert_eq!(ask("get", json!(["a", "b", "c"])), json!([1, [2], "3"]));
        assert_eq!(ask("pushA", json!({"a": null})), json!(true));
        assert_eq!(ask("get", json!(["a", "b"])), json!([null, [2]]));
    }
}

/// Both have taken their snapshot before either writes.
#[test]
fn the_last_writer_of_a_setting_wins() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let engine = engine(1)
        .handler("connector.play.late", move |request, session| {
            let body = request.value();
            let (mut session, context) = (session.clone(), session.context());
            session.set("a", body["a"].clone());
            let ms = body["ms"].as_u64().unwrap();
            let tell = tell.lock().unwrap().clone();
            Reply::later(async move {
                tell.send(()).unwrap();
                context.sleep(Duration::from_millis(ms)).await;
                session.push_all().await;
                Reply::empty()
            })
        })
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, "connector.play.late", r#"{"a":"slow","ms":60}"#));
    client.send(&request(2, "connector.play.late", r#"{"a":"quick","ms":1}"#));
    told.recv_timeout(PATIENCE).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    client.answer(2);
    assert_eq!(ask(&mut client, "get", &json!(["a"])), json!(["quick"]));
    client.answer(1);
    assert_eq!(ask(&mut client, "get", &json!(["a"])), json!(["slow"]));
}

#[test]
fn a_kick_by_uid_reaches_every_shard() {
    for shards in [1, 2] {
        let engine = engine(shards).start().unwrap();
        let mut clients = spread(&engine, usize::from(shards), 3);
        let mut bystander = clients.pop().unwrap();
        ask(&mut bystander, "bind", &json!("bob"));
        for client in &mut clients {
            ask(client, "bind", &json!("amy"));
        }
        engine.handle().kick("nobody", Some("no")).unwrap();
        engine.handle().kick("amy", Some("by the host")).unwrap();
        for client in &mut clients {
            assert_eq!(client.until_end(), [kicked("by the host")]);
        }
        eventually("amy is free", || uids(&engine) == 1);

        for (reason, expected) in
            [(json!("again"), vec![kicked("again")]), (json!(null), Vec::new())]
        {
            let mut clients = spread_more(&engine, usize::from(shards));
            let count = clients.len();
            for client in &mut clients {
                ask(client, "bind", &json!("amy"));
            }
            // It overlooks nobody, and by the time it answers the uid is free.
            let count_kicked = ask(&mut bystander, "kickUid", &json!(["amy", reason]));
            assert_eq!((count_kicked, uids(&engine)), (json!([count]), 1));
            for client in &mut clients {
                assert_eq!(client.until_end(), expected);
            }
        }
        assert_eq!(ask(&mut bystander, "kickUid", &json!(["amy", "x"])), json!([0]));
        assert_eq!(received(&mut bystander), []);
    }
}

/// A client on each shard, besides those that are there.
fn spread_more(engine: &Engine, shards: usize) -> Vec<Client> {
    let mut found: HashMap<u64, Client> = HashMap::new();
    while found.len() < shards {
        let mut client = Client::ready(engine.local_addr());
        let shard = client.ask_json(1, "connector.play.where", "{}")[0].as_u64().unwrap();
        found.entry(shard).or_insert(client);
    }
    found.into_values().collect()
}

#[test]
fn a_kick_overtakes_the_answer() {
    for (shards, server_type) in [(1, "connector"), (2, "connector"), (2, "room")] {
        let engine = engine(shards).start().unwrap();
        for (body, expected) in [("\"out\"", vec![kicked("out")]), ("{}", Vec::new())] {
            let mut client = Client::ready(engine.local_addr());
            client.send(&request(1, &format!("{server_type}.play.kickMe"), body));
            let mut events = client.until_end();
            if server_type == "room" {
                // The shard may have the answer in hand before the kick's turn comes.
                events.retain(|event| !matches!(event, Event::Response { .. }));
            }
            assert_eq!(events, expected, "without a reason there is no KICK");
        }
        assert_eq!(engine.handle().counters().closed_by_kick, 2);
    }
}

#[test]
fn a_session_is_kicked_by_its_id_from_anywhere() {
    for shards in [1, 2] {
        let ids: Arc<Mutex<HashMap<u64, SessionId>>> = Arc::default();
        let engine = engine(shards)
            .handler("connector.play.note", {
                let ids = Arc::clone(&ids);
                move |_, session| {
                    ids.lock().unwrap().insert(session.number(), session.id());
                    Reply::json(&session.number())
                }
            })
            .handler("connector.play.kickOther", {
                let ids = Arc::clone(&ids);
                move |request, session| {
                    let other = ids.lock().unwrap()[&request.value().as_u64().unwrap()];
                    session.context().kick(other, Some("by another"));
                    Reply::empty()
                }
            })
            .start()
            .unwrap();
        let mut clients = spread(&engine, usize::from(shards), 2);
        let mut kicker = clients.remove(0);
        for mut client in clients {
            let number = ask(&mut client, "note", &json!({})).as_u64().unwrap();
            ask(&mut kicker, "kickOther", &json!(number));
            assert_eq!(client.until_end(), [kicked("by another")]);
            // A stale id reaches nobody.
            ask(&mut kicker, "kickOther", &json!(number));
        }
        let own = ask(&mut kicker, "note", &json!({})).as_u64().unwrap();
        let own = ids.lock().unwrap()[&own];
        engine.handle().kick_session(own, None).unwrap();
        assert_eq!(kicker.until_end(), []);
    }
}

#[test]
fn the_host_pushes_to_uids_and_audiences() {
    for shards in [1, 2] {
        let engine = engine(shards).start().unwrap();
        let handle = engine.handle();
        let mut clients = spread(&engine, usize::from(shards), 3);
        let names = ["amy", "bob", "nobody"];
        for (client, name) in clients.iter_mut().zip(names.iter().cycle()) {
            if *name != "nobody" {
                ask(client, "bind", &json!(name));
            }
        }
        let mut expect = |route: &str, receivers: &[&str]| {
            let name = |index: usize| names[index % 3];
            for (index, client) in clients.iter_mut().enumerate() {
                let expected = match receivers.iter().filter(|who| **who == name(index)).count() {
                    0 => Vec::new(),
                    copies => vec![pushed(route); copies],
                };
                for event in &expected {
                    assert_eq!(client.next(), *event);
                }
                assert_eq!(received(client), [], "{} and {route}", name(index));
            }
        };
        handle.push("amy", "one", "[1]").unwrap();
        expect("one", &["amy"]);
        handle.push_many(["amy", "bob", "eve"].map(Uid::from), "many", "[1]").unwrap();
        expect("many", &["amy", "bob"]);
        handle.push_many(["amy", "amy"].map(Uid::from), "twice", "[1]").unwrap();
        expect("twice", &["amy", "amy"]);
        handle.push_many([], "none", "[1]").unwrap();
        handle.broadcast("all", "[1]", Audience::all()).unwrap();
        expect("all", &["amy", "bob", "nobody"]);
        handle.broadcast("bound", "[1]", Audience::bound()).unwrap();
        expect("bound", &["amy", "bob"]);
        let is_bob = |view: &SessionView<'_>| view.uid().is_some_and(|uid| uid.text() == "bob");
        handle.broadcast("some", "[1]", Audience::all().filter(is_bob)).unwrap();
        expect("some", &["bob"]);
        handle.broadcast("panic", "[1]", Audience::all().filter(|_| panic!("on purpose"))).unwrap();
        expect("panic", &[]);
        for (route, body) in [("", "[1]"), ("one", ""), ("one", "null")] {
            let error = handle.push("amy", route, body).unwrap_err();
            assert!(matches!(error, HandleError::Push(_)), "{error}");
            assert!(handle.broadcast(route, body, Audience::all()).is_err());
        }
        expect("nothing", &[]);
    }
}

/// Nothing is broadcast to a connection that has not said that it is ready.
#[test]
fn a_broadcast_waits_for_nobody() {
    let engine = engine(1).start().unwrap();
    let mut early = Client::connect(engine.local_addr());
    early.send(&handshake());
    assert!(matches!(early.next(), Event::Handshake(_)));
    engine.handle().broadcast("all", "[1]", Audience::all()).unwrap();
    // The broadcast was in the inbox before this report.
    engine.handle().statistics().unwrap();
    early.send(&ack());
    assert_eq!(received(&mut early), []);
}

#[test]
fn a_push_tells_who_has_no_session() {
    for (shards, server_type) in [(1, "connector"), (2, "connector"), (1, "room"), (2, "room")] {
        let engine = engine(shards).start().unwrap();
        let mut clients = spread(&engine, usize::from(shards), 1);
        for (index, client) in clients.iter_mut().enumerate() {
            ask(client, "bind", &json!(format!("amy-{index}")));
        }
        let all: Vec<String> = (0..8).map(|n| format!("amy-{n}")).collect();
        let route = format!("{server_type}.play.push");
        clients[0].send(&request(5, &route, &json!(all).to_string()));
        let mut fails: Vec<String> = serde_json::from_str(&clients[0].answer(5)).unwrap();
        fails.sort();
        assert_eq!(fails, all[usize::from(shards)..]);
        assert_eq!(clients[0].ask_json(6, &route, "[]"), json!([]));
        for client in clients.iter_mut().skip(1) {
            assert_eq!(client.next(), pushed("onPush"));
        }
    }
}

#[test]
fn a_session_that_closes_during_its_bind_leaves_nothing() {
    for (shards, server_type) in [(1, "connector"), (2, "connector"), (2, "room")] {
        let engine = engine(shards).start().unwrap();
        for n in 0..100 {
            let mut client = Client::connect(engine.local_addr());
            let mut bytes = [handshake(), ack()].concat();
            for _ in 0..2 {
                let uid = json!(format!("amy-{}", n % 10)).to_string();
                bytes.extend(request(1, &format!("{server_type}.play.bind"), &uid));
            }
            client.send(&bytes);
        }
        eventually("all have come and gone", || {
            engine.handle().counters().connections_closed == 100
        });
        eventually("all uids are free", || uids(&engine) == 0);
        let statistics = engine.handle().statistics().unwrap();
        assert_eq!((statistics.connections, statistics.login_count), (0, 0));
    }
}

/// A kick takes effect before what the same handler asks for next.
#[test]
fn a_session_that_is_being_closed_is_neither_bound_nor_unbound() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let engine = engine(1)
        .async_handler("connector.play.leave", move |_, mut session| {
            let tell = tell.lock().unwrap().clone();
            async move {
                session.kick(Some("left"));
                let unbound = session.unbind("amy").await.map_err(|error| error.to_string());
                let bound = session.bind("amy").await.map_err(|error| error.to_string());
                let pushed = session.push("a").await;
                tell.send((session.number(), unbound, bound, pushed)).unwrap();
                Reply::empty()
            }
        })
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    ask(&mut client, "bind", &json!("amy"));
    client.send(&request(1, "connector.play.leave", "{}"));
    assert_eq!(client.until_end(), [kicked("left")]);
    let (number, unbound, bound, pushed) = told.recv_timeout(PATIENCE).unwrap();
    let gone = Err(format!("session does not exist, sid: {number}"));
    assert_eq!((unbound, bound, pushed), (gone.clone(), gone, false));
    assert_eq!(uids(&engine), 0);
}

/// What a close hook is told.
type Told = Arc<Mutex<Vec<(String, u64, Value, Value)>>>;

fn note_closes(handlers: &mut Handlers, told: &Told) {
    let told = Arc::clone(told);
    handlers.on_session_closed(move |view, context| {
        let room = view.setting("a").cloned().unwrap_or_default();
        let entry = (context.server_id().to_owned(), view.number(), json!(view.uid()), room);
        told.lock().unwrap().push(entry);
    });
}

#[test]
fn a_close_is_told_once_to_the_shard_and_to_workers_that_know_the_session() {
    for shards in [1, 2] {
        let told = Told::default();
        let (on_shards, on_workers) = (Arc::clone(&told), Arc::clone(&told));
        let engine = builder(shards)
            .register(move |handlers| {
                play("connector")(handlers);
                note_closes(handlers, &on_shards);
            })
            .forward(
                "room",
                Workers::new(2, move |handlers| {
                    play("room")(handlers);
                    note_closes(handlers, &on_workers);
                }),
            )
            .route("room", |_, _| Some(1))
            .start()
            .unwrap();
        // One that never works is nobody's session.
        drop(Client::connect(engine.local_addr()));
        let mut clients = spread(&engine, usize::from(shards), 1);
        told.lock().unwrap().clear();
        let mut expected = Vec::new();
        for client in &mut clients {
            ask(client, "bind", &json!("amy"));
            ask(client, "pushA", &json!({"a": "attic"}));
            let here = client.ask_json(3, "room.play.where", "{}");
            let number = here[1].as_u64().unwrap();
            for server in ["connector-1", "room-2"] {
                expected.push((server.to_owned(), number, json!("amy"), json!("attic")));
            }
        }
        drop(clients.pop());
        engine.handle().kick("amy", Some("x")).unwrap();
        eventually("all are told", || told.lock().unwrap().len() >= expected.len());
        engine.shutdown(Drain::now());
        told.lock().unwrap().sort_by_key(|entry| (entry.1, entry.0.clone()));
        expected.sort_by_key(|entry| (entry.1, entry.0.clone()));
        assert_eq!(*told.lock().unwrap(), expected);
    }
}

/// Two hundred logins of fifty players from four threads. Whoever comes later kicks who is there.
#[test]
fn of_concurrent_logins_of_a_uid_one_is_left() {
    const PLAYERS: usize = 50;
    for (shards, server_type) in [(1, "connector"), (2, "connector"), (2, "room")] {
        let login = move |handlers: &mut Handlers| {
            handlers.async_handler(
                &format!("{server_type}.login.login"),
                |request, mut session| async move {
                    let uid = uid_of(&request.value());
                    loop {
                        let _ = session.context().kick_uid(uid.clone(), Some("again")).await;
                        match session.bind(uid.clone()).await {
                            Err(shaddock::BindError::InUse(_)) => {}
                            result => return Reply::json(&json!([result.is_ok()])),
                        }
                    }
                },
            );
        };
        let engine = builder(shards).single_session(OnSecondBind::Refuse);
        let engine = match server_type {
            "room" => engine.forward("room", Workers::new(2, login)),
            _ => engine.register(login),
        };
        let engine = engine.start().unwrap();
        let address = engine.local_addr();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let route = format!("{server_type}.login.login");
                    let mut clients: Vec<Client> =
                        (0..PLAYERS).map(|_| Client::ready(address)).collect();
                    for (uid, client) in clients.iter_mut().enumerate() {
                        client.send(&request(1, &route, &format!("\"player-{uid}\"")));
                    }
                    clients
                })
            })
            .collect();
        let mut clients: Vec<Client> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        eventually("one of each is left", || {
            engine.handle().metrics().unwrap().connections == PLAYERS && uids(&engine) == PLAYERS
        });
        let statistics = engine.handle().statistics().unwrap();
        assert_eq!(statistics.login_count, PLAYERS);
        engine.handle().broadcast("onPush", "[1]", Audience::bound()).unwrap();
        let alive = clients.iter_mut().filter_map(|client| {
            let events: Vec<Event> = std::iter::from_fn(|| Some(client.next()))
                .take_while_inclusive(|event| *event != Event::End && *event != pushed("onPush"));
            (events.last() == Some(&pushed("onPush"))).then_some(())
        });
        assert_eq!(alive.count(), PLAYERS);
        drop(clients);
        eventually("nobody is left", || {
            uids(&engine) == 0 && engine.handle().statistics().unwrap().login_count == 0
        });
    }
}

/// The items up to the first that is not wanted, and that one too.
trait TakeWhileInclusive: Iterator + Sized {
    fn take_while_inclusive(self, wanted: impl Fn(&Self::Item) -> bool) -> Vec<Self::Item> {
        let mut items = Vec::new();
        for item in self {
            let is_last = !wanted(&item);
            items.push(item);
            if is_last {
                break;
            }
        }
        items
    }
}

impl<I: Iterator> TakeWhileInclusive for I {}

#[test]
fn statistics_look_as_in_the_original() {
    let engine = engine(2).server_id("connector-7").start().unwrap();
    let before_ms = unix_ms();
    let mut client = Client::ready(engine.local_addr());
    let _idle = Client::ready(engine.local_addr());
    ask(&mut client, "bind", &json!(42));
    eventually("both are counted", || engine.handle().statistics().unwrap().connections == 2);
    let statistics = serde_json::to_value(engine.handle().statistics().unwrap()).unwrap();
    let login_time = statistics["loginedList"][0]["loginTime"].as_u64().unwrap();
    // The engine adds its own clock to the time of its start. It reads the two one after the other,
    // and a busy machine may do something else in between.
    let likely_ms = before_ms.saturating_sub(1_000)..=unix_ms() + 1_000;
    assert!(likely_ms.contains(&login_time), "{login_time} is not in {likely_ms:?}");
    let port = client.stream.local_addr().unwrap().port();
    assert_eq!(
        statistics,
        json!({
            "serverId": "connector-7",
            "totalConnCount": 2,
            "loginedCount": 1,
            "loginedList": [
                {"loginTime": login_time, "uid": 42, "address": format!("127.0.0.1:{port}")}
            ],
        })
    );
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A login that waits for no other shard is done before the next message of the same write.
#[test]
fn what_is_pipelined_behind_a_login_finds_it_done() {
    let engine = builder(1)
        .register(play("connector"))
        .forward("room", Workers::new(1, play("room")))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(
        &[
            request(1, "connector.play.bind", "\"amy\""),
            request(2, "connector.play.uid", "{}"),
            request(3, "room.play.uid", "{}"),
        ]
        .concat(),
    );
    assert_eq!(client.answer(1), "[null,\"amy\"]");
    assert_eq!(client.answer(2), "\"amy\"");
    assert_eq!(client.answer(3), "\"amy\"");
}
