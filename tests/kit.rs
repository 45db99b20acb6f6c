//! The test kit as an embedder uses it, by the public API alone: a chat game with rooms on workers,
//! logins, filters and futures of all kinds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::route::Dictionary;
use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{
    Audience, Builder, Context, Dialect, Drain, Engine, Filter, Handlers, LaneFull, Limits,
    Listener, PitayaCluster, PomeloCluster, Reply, Request, Responder, Router, Session, Shards,
    SlowConsumer, Timeout, Uid, Verdict, Workers, testing,
};

const TICK: Duration = Duration::from_millis(50);

/// The members of each room, and what they have said since the last tick.
#[derive(Default)]
struct Rooms {
    members: BTreeMap<u64, Vec<Uid>>,
    said: BTreeMap<u64, Vec<Value>>,
}

type SharedRooms = Rc<RefCell<Rooms>>;

/// Tells each room of what was said in it, at each tick.
async fn tick(context: Context, rooms: SharedRooms) {
    loop {
        context.sleep(TICK).await;
        let said = std::mem::take(&mut rooms.borrow_mut().said);
        for (room, said) in said {
            let members = rooms.borrow().members.get(&room).cloned().unwrap_or_default();
            let body = json!({ "room": room, "said": said }).to_string();
            drop(context.push(members, "onChat", body.as_bytes()));
        }
    }
}

fn room_of(session: &Session) -> u64 {
    session.get("room").and_then(Value::as_u64).unwrap_or_default()
}

fn rooms(handlers: &mut Handlers) {
    let rooms = SharedRooms::default();
    handlers.context().spawn(tick(handlers.context().clone(), Rc::clone(&rooms)));
    let shared = Rc::clone(&rooms);
    handlers.handler("room.chat.enter", move |_, session| {
        let Some(uid) = session.uid().cloned() else { return Reply::error() };
        let room = room_of(session);
        shared.borrow_mut().members.entry(room).or_default().push(uid);
        let server = session.context().server_id().to_owned();
        Reply::json(&json!({ "code": 200, "room": room, "server": server }))
    });
    let shared = Rc::clone(&rooms);
    handlers.handler("room.chat.say", move |request, session| {
        let said = json!({ "from": session.uid(), "text": request.value()["text"] });
        shared.borrow_mut().said.entry(room_of(session)).or_default().push(said);
        Reply::empty()
    });
    handlers.on_session_closed(move |session, _| {
        for members in rooms.borrow_mut().members.values_mut() {
            members.retain(|uid| Some(uid) != session.uid());
        }
    });
}

/// Lets only those in who are logged in, but for the login itself.
struct LoggedIn;

impl Filter for LoggedIn {
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        match session.uid() {
            None if !request.route().starts_with("connector.") => {
                Verdict::Refuse(Reply::error_json(&json!({ "code": 401 })))
            }
            _ => Verdict::Continue,
        }
    }
}

fn game() -> Builder {
    Engine::builder()
        .global_filter(|| LoggedIn)
        .async_handler("connector.entry.login", async |request, mut session| {
            let value = request.value();
            let name = value["name"].as_str().unwrap_or_default();
            session.set("room", value["room"].clone());
            session.push_all().await;
            match session.bind(name).await {
                Ok(()) => Reply::json(&json!({ "code": 200 })),
                Err(error) => Reply::error_json(&json!({ "code": 409, "text": error.to_string() })),
            }
        })
        .forward("room", Workers::new(2, rooms))
        .route("room", |session, servers| {
            Some(session.setting("room")?.as_u64()? as usize % servers.len())
        })
}

fn log_in(t: &testing::Engine, name: &str, room: u64) -> testing::Client {
    let client = t.connect();
    let answer = client.request("connector.entry.login", json!({ "name": name, "room": room }));
    assert_eq!(answer, json!({ "code": 200 }));
    assert_eq!(client.request("room.chat.enter", json!({}))["room"], room);
    client
}

#[test]
fn what_is_said_in_a_room_reaches_the_room_at_its_tick() {
    let t = testing::Engine::new(game());
    let [amy, bob, eve] = [("amy", 1), ("bob", 1), ("eve", 2)].map(|(n, room)| log_in(&t, n, room));
    amy.notify("room.chat.say", json!({ "text": "hello" }));
    bob.request("room.chat.say", json!({ "text": "hi" }));
    assert!(amy.pushes().is_empty() && bob.pushes().is_empty());
    t.advance(TICK);
    for member in [&amy, &bob] {
        let pushes = member.pushes();
        assert_eq!((pushes.len(), &*pushes[0].route), (1, "onChat"));
        let said = json!([{ "from": "amy", "text": "hello" }, { "from": "bob", "text": "hi" }]);
        assert_eq!(pushes[0].body, json!({ "room": 1, "said": said }));
    }
    assert!(eve.pushes().is_empty());

    bob.close();
    amy.notify("room.chat.say", json!({ "text": "gone?" }));
    t.advance(TICK);
    assert_eq!(amy.pushes().len(), 1);
    assert!(bob.is_closed() && !amy.is_closed());
    assert_eq!(t.now(), 2 * TICK);
}

#[test]
fn filters_and_routers_are_those_of_the_description() {
    let t = testing::Engine::new(game());
    let stranger = t.connect();
    assert_eq!(stranger.request("room.chat.enter", json!({})), json!({ "code": 401 }));
    let amy = t.client().uid("amy").setting("room", 4).connect();
    let answer = amy.request("room.chat.enter", json!({}));
    assert_eq!(answer, json!({ "code": 200, "room": 4, "server": "room-1" }));
    assert_eq!(amy.session().uid(), Some(&Uid::from("amy")));
    assert_eq!(amy.session().get("room"), Some(&json!(4)));
    assert_eq!(t.counters().requests, 2);
}

#[test]
fn a_worker_is_tested_without_a_connector() {
    let t = testing::Engine::workers("room", Workers::new(1, rooms));
    let amy = t.client().uid("amy").setting("room", 7).connect();
    assert_eq!(amy.request("room.chat.enter", json!({}))["room"], 7);
    amy.notify("room.chat.say", json!({ "text": "hello" }));
    t.advance(TICK);
    assert_eq!(amy.pushes()[0].body["said"][0]["text"], "hello");
}

#[test]
fn all_happens_in_the_order_of_its_time() {
    let sleeps = async |request: shaddock::OwnedRequest, session: Session| {
        let ms = request.value()["ms"].as_u64().unwrap_or_default();
        session.context().sleep(Duration::from_millis(ms)).await;
        let context = session.context();
        let body = ms.to_string();
        context.broadcast("onEnd", body.as_bytes(), Audience::all()).unwrap();
        Reply::json(&ms)
    };
    let t = testing::Engine::new(Engine::builder().async_handler("connector.a.sleep", sleeps));
    let (amy, bob) = (t.connect(), t.connect());
    let answers = [30, 10, 20].map(|ms| amy.send_request("connector.a.sleep", json!({ "ms": ms })));
    t.advance(Duration::from_millis(25));
    assert_eq!(answers.each_ref().map(testing::Response::is_there), [false, true, true]);
    let [last, ..] = answers;
    assert_eq!(last.within(Duration::from_secs(1)), 30);
    assert_eq!(t.now(), Duration::from_millis(30), "no more time passes than it takes");
    let ends: Vec<Value> = bob.pushes().into_iter().map(|push| push.body).collect();
    assert_eq!(ends, [10, 20, 30]);
    // A sleep of no length needs no time to pass; 0 is nothing to Pomelo's clients.
    assert_eq!(amy.request("connector.a.sleep", json!({ "ms": 0 })), json!({}));
}

/// Two clients meet: the first is answered when the second comes.
#[test]
fn an_answer_may_wait_for_another_client() {
    let workers = Workers::new(1, |handlers| {
        let waiting: RefCell<Option<Responder>> = RefCell::default();
        handlers.handler("match.queue.join", move |_, session| match waiting.take() {
            Some(first) => {
                first.answer(Reply::json(&json!({ "side": 0 })));
                Reply::json(&json!({ "side": 1 }))
            }
            None => session.defer(|responder| drop(waiting.replace(Some(responder)))),
        });
    });
    let t = testing::Engine::workers("match", workers);
    let first = t.connect().send_request("match.queue.join", json!({}));
    assert!(!first.is_there());
    assert_eq!(t.connect().request("match.queue.join", json!({}))["side"], 1);
    assert_eq!(first.value()["side"], 0);
}

/// Real threads answer, while ticks and timeouts of virtual time stand still.
#[test]
fn other_threads_are_waited_for_and_cost_no_virtual_time() {
    let (jobs, queue) = mpsc::channel::<Responder>();
    let thread = std::thread::spawn(move || {
        for responder in queue {
            std::thread::sleep(Duration::from_millis(20));
            responder.answer(Reply::json(&json!({ "code": 200 })));
        }
    });
    let limits = Limits { forward_timeout: Duration::from_millis(5), ..Limits::default() };
    let (jobs, done) = (std::sync::Mutex::new(jobs), std::sync::Arc::new(std::sync::Mutex::new(0)));
    let count = std::sync::Arc::clone(&done);
    let workers = Workers::new(1, move |handlers| {
        let jobs = jobs.lock().unwrap().clone();
        handlers.handler("db.row.read", move |_, session| {
            session.defer(|responder| jobs.send(responder).unwrap())
        });
        let count = std::sync::Arc::clone(&count);
        handlers.handler("db.row.write", move |_, _| {
            let count = std::sync::Arc::clone(&count);
            std::thread::spawn(move || *count.lock().unwrap() += 1);
            Reply::empty()
        });
    });
    let builder = Engine::builder().limits(limits).forward("db", workers);
    let t = testing::Engine::new(builder);
    let amy = t.connect();
    assert_eq!(amy.request("db.row.read", json!({}))["code"], 200);
    amy.notify("db.row.write", json!({}));
    t.run_until(|| *done.lock().unwrap() == 1);
    assert_eq!(t.now(), Duration::ZERO);
    drop((t, amy));
    thread.join().unwrap();
}

#[test]
fn clients_live_as_long_as_their_heartbeats() {
    let t = testing::Engine::new(Engine::builder().heartbeat(Duration::from_secs(10)));
    let (amy, bob) = (t.connect(), t.connect());
    bob.stop_heartbeats();
    t.advance(Duration::from_secs(19));
    assert!(!amy.is_closed() && !bob.is_closed());
    t.advance(Duration::from_secs(600));
    assert!(!amy.is_closed() && bob.is_closed());
    assert_eq!(t.counters().closed_heartbeat_timeout, 1);
    // Without the option a client still says something from time to time.
    let t = testing::Engine::new(Engine::builder());
    let (amy, bob) = (t.connect(), t.connect());
    bob.stop_heartbeats();
    t.advance(Duration::from_secs(3600));
    assert!(!amy.is_closed() && bob.is_closed());
}

#[test]
fn dictionary_and_protobuf_are_packed_and_unpacked() {
    let client = json!({ "connector.a.move": { "required sInt32 x": 1 } });
    let server = json!({
        "connector.a.move": { "required uInt32 code": 1 },
        "onMove": { "required sInt32 x": 1 },
    });
    let protos = |schemas: &Value| Protos::parse(schemas).unwrap();
    let dictionary = Dictionary::new(["connector.a.move"], ["onMove"]).unwrap();
    let builder = Engine::builder()
        .dictionary(dictionary)
        .protos(ProtoTable::new(protos(&client), protos(&server)))
        .push_policy("onMove", SlowConsumer::KeepLatest)
        .handler("connector.a.move", |request, session| {
            let body = request.value().to_string();
            let context = session.context();
            context.broadcast("onMove", body.as_bytes(), Audience::all()).unwrap();
            Reply::json(&json!({ "code": 200 }))
        });
    let t = testing::Engine::new(builder);
    let amy = t.connect();
    assert_eq!(amy.handshake()["sys"]["dict"]["onMove"], 2);
    assert_eq!(amy.request("connector.a.move", json!({ "x": -5 })), json!({ "code": 200 }));
    let pushes = amy.pushes();
    assert_eq!((&*pushes[0].route, &pushes[0].body), ("onMove", &json!({ "x": -5 })));
}

#[test]
fn the_handle_and_kicks_reach_clients_of_all_shards() {
    let t = testing::Engine::new(Engine::builder().shards(Shards::Count(3)));
    let clients: Vec<_> = (0..9).map(|_| t.client().uid("amy").connect()).collect();
    t.handle().push("amy", "onMail", b"{}").unwrap();
    assert!(clients.iter().all(|client| client.pushes().len() == 1));
    let shards = clients.iter().map(|client| client.session().id().shard().index());
    assert_eq!(shards.collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    let context = clients[4].session().context();
    assert_eq!(t.block_on(context.kick_uid("amy".into(), Some("elsewhere"))), 9);
    for client in &clients {
        assert_eq!(client.kicked().as_deref(), Some("elsewhere"));
        assert!(client.is_closed());
    }
    t.handle().kick("amy", None).unwrap();
}

#[test]
fn a_drain_answers_what_is_pending_within_its_time() {
    let builder = Engine::builder().async_handler("connector.a.sleep", async |request, session| {
        let ms = request.value()["ms"].as_u64().unwrap_or_default();
        session.context().sleep(Duration::from_millis(ms)).await;
        Reply::json(&ms)
    });
    let t = testing::Engine::new(builder);
    let (amy, bob) = (t.connect(), t.connect());
    let soon = amy.send_request("connector.a.sleep", json!({ "ms": 3_000 }));
    let late = bob.send_request("connector.a.sleep", json!({ "ms": 60_000 }));
    let took = t.drain(Duration::from_secs(10));
    assert!(took > Duration::from_secs(8) && took <= Duration::from_secs(10), "{took:?}");
    assert!(amy.is_closed() && bob.is_closed());
    assert_eq!(soon.value(), 3_000);
    assert!(!late.is_there());
    assert_eq!(t.handle().kick("amy", None), Err(shaddock::HandleError::Stopped));
}

#[test]
fn a_backend_stands_in_for_a_cluster() {
    let cluster = PomeloCluster::new("127.0.0.1:3005").server_type("chat", Router::Default);
    let builder = Engine::builder().server_id("connector-server-1").pomelo(cluster);
    let t = testing::Setup::new(builder)
        .backend("chat", |request, session| {
            session.set("seen", true);
            drop(session.push("seen"));
            Reply::json(&json!([request.route(), session.uid(), request.value()]))
        })
        .start();
    let amy = t.client().uid("amy").connect();
    let answer = amy.request("chat.any.thing", json!({ "a": 1 }));
    assert_eq!(answer, json!(["chat.any.thing", "amy", { "a": 1 }]));
    assert_eq!(amy.session().get("seen"), Some(&json!(true)));
}

/// A uid has one session where the engine is a frontend of Pitaya's, in a test as in its cluster.
#[test]
fn what_a_cluster_wants_of_sessions_holds_in_a_test() {
    for is_unique in [true, false] {
        let cluster = PitayaCluster::new(["nats://127.0.0.1:4222"], ["127.0.0.1:2379"])
            .server_type("room")
            .unique_session(is_unique);
        let t = testing::Setup::new(Engine::builder().pitaya(cluster))
            .backend("room", |_, _| Reply::json(&1))
            .start();
        let [old, new] = [0; 2].map(|_| t.client().uid("amy").connect());
        assert!(old.is_closed() && !new.is_closed());
        assert_eq!(old.kicked().as_deref(), is_unique.then_some("kick"));
    }
}

/// The kit's clients speak plain Pomelo, whoever connects to the description's listeners.
#[test]
fn listeners_and_signatures_are_left_out() {
    let proxied = Listener::new("127.0.0.1:1")
        .proxy_protocol()
        .trusted_proxies(["10.0.0.0/8".parse().unwrap()]);
    let pitaya = Listener::new("127.0.0.1:2").dialect(Dialect::Pitaya);
    let game = || {
        Engine::builder().handler("connector.a.echo", |request, _| Reply::borrowed(request.body()))
    };
    let builders = [
        game().listen(proxied.clone()),
        game().listen(pitaya.clone()),
        game().listen(pitaya).listen(proxied.clone()),
        #[cfg(feature = "crypto")]
        game().listen(proxied).use_crypto(),
    ];
    for builder in builders {
        let amy = testing::Engine::new(builder).connect();
        assert_eq!(amy.request("connector.a.echo", json!([1])), json!([1]));
        assert_eq!(amy.request_bytes("connector.a.echo", "no JSON"), b"no JSON");
    }
}

/// The text with which a test fails.
fn failure(test: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).unwrap_err();
    *panic.downcast::<String>().unwrap()
}

#[test]
fn failures_say_what_was_waited_for() {
    let cluster = PomeloCluster::new("127.0.0.1:3005").server_type("chat", Router::Default);
    let builder = Engine::builder().server_id("connector-server-1").pomelo(cluster);
    let text = failure(|| drop(testing::Engine::new(builder)));
    assert!(text.contains("testing::Setup::backend(\"chat\""), "{text}");
    let builder = Engine::builder().shards(Shards::Count(0));
    let text = failure(|| drop(testing::Engine::new(builder)));
    assert!(text.contains("option `shards` must be at least 1"), "{text}");

    let builder = Engine::builder()
        .handler("connector.a.kick", |_, session| {
            session.kick(Some("rude"));
            Reply::later(std::future::pending())
        })
        .async_handler("connector.a.sleep", async |_, session| {
            session.context().sleep(Duration::from_secs(1)).await;
            Reply::empty()
        });
    let t = testing::Setup::new(builder).patience(Duration::ZERO).start();
    let amy = t.connect();
    let text = failure(|| drop(amy.request("connector.a.sleep", json!({}))));
    assert!(text.contains("`connector.a.sleep` was not answered: time stands still"), "{text}");
    let text = failure(|| drop(amy.request("connector.a.kick", json!({}))));
    assert!(text.contains("kicked, with the reason \"rude\""), "{text}");
    let text = failure(|| amy.notify("connector.a.kick", json!({})));
    assert!(text.contains("can't be sent: the client has been kicked"), "{text}");
    let text = failure(|| t.run_until(|| false));
    assert!(text.contains("not true after 0ns"), "{text}");
    let text = failure(|| t.block_on(std::future::pending()));
    assert!(text.contains("a future waits for longer than 0ns"), "{text}");
}

#[test]
fn timeouts_and_full_lanes_are_those_of_the_description() {
    let limits =
        Limits { lane_len: 1, forward_timeout: Duration::from_secs(3), ..Limits::default() };
    let workers = Workers::new(1, |handlers| {
        let seen = Rc::new(RefCell::new(0));
        let count = Rc::clone(&seen);
        handlers.handler("chat.a.add", move |_, _| {
            *count.borrow_mut() += 1;
            Reply::json(&*count.borrow())
        });
        handlers.handler("chat.a.never", |_, _| Reply::later(std::future::pending()));
    });
    let builder = Engine::builder()
        .limits(limits)
        .global_filter(|| Timeout::new(Duration::from_secs(1), 3))
        .forward("chat", workers)
        .lane_full("chat", LaneFull::Pause);
    let t = testing::Engine::new(builder);
    let amy = t.connect();
    for _ in 0..200 {
        amy.notify("chat.a.add", json!({}));
    }
    assert_eq!(amy.request("chat.a.add", json!({})), 201);
    let never = amy.send_request("chat.a.never", json!({}));
    assert_eq!(never.within(Duration::from_secs(60)), json!({ "code": 500 }));
    assert_eq!(t.now(), Duration::from_secs(3));
    assert_eq!(t.counters().forward_timeouts, 1);
}

/// The same test twice gives the same, to the byte and the microsecond.
#[test]
fn a_test_does_the_same_each_time() {
    let run = || {
        let t = testing::Engine::new(game());
        let clients: Vec<_> = (0..20).map(|n| log_in(&t, &format!("player{n}"), n % 3)).collect();
        let mut seen = Vec::new();
        for step in 0..200_usize {
            clients[step * 7 % 20].notify("room.chat.say", json!({ "text": step }));
            t.advance(Duration::from_millis(step as u64 % 30));
            seen.extend(clients.iter().flat_map(testing::Client::pushes));
        }
        (seen, t.now(), t.counters())
    };
    assert_eq!(run(), run());
}

/// Far more than a test needs, to see that nothing piles up.
#[test]
fn thousands_of_requests_take_no_time_to_speak_of() {
    let t = testing::Engine::new(game());
    let clients: Vec<_> = (0..10).map(|n| log_in(&t, &format!("player{n}"), n)).collect();
    for n in 0..10_000_usize {
        let answer = clients[n % 10].request("room.chat.say", json!({ "text": n }));
        assert_eq!(answer, json!({}));
    }
    assert_eq!(t.counters().requests, 20 + 10_000);
    assert_eq!(t.now(), Duration::ZERO);
}

/// Sessions go one after the other, those first that nobody has logged in by, and one with an
/// answer pending behind it.
#[test]
fn a_drain_closes_sessions_evenly_over_its_time() {
    let alive = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (counted, log) = (Arc::clone(&alive), Arc::clone(&seen));
    let register = move |handlers: &mut Handlers| {
        let alive = Arc::clone(&counted);
        handlers.on_session_closed(move |_, _| {
            alive.fetch_sub(1, Ordering::Relaxed);
        });
        let (alive, log) = (Arc::clone(&counted), Arc::clone(&log));
        handlers.async_handler("connector.a.watch", move |_, session: Session| {
            let (alive, log) = (Arc::clone(&alive), Arc::clone(&log));
            async move {
                for _ in 0..5 {
                    log.lock().unwrap().push(alive.load(Ordering::Relaxed));
                    session.context().sleep(Duration::from_secs(10)).await;
                }
                Reply::json(&"done")
            }
        });
    };
    let t = testing::Engine::new(Engine::builder().shards(Shards::Count(1)).register(register));
    let bound: Vec<_> = (0..20).map(|i| t.client().uid(format!("u{i}")).connect()).collect();
    let unbound: Vec<_> = (0..20).map(|_| t.connect()).collect();
    alive.store(40, Ordering::Relaxed);
    let answer = bound[0].send_request("connector.a.watch", json!({}));
    t.advance(Duration::from_millis(4_500));
    let took = t.drain(Drain::within(Duration::from_secs(60)).over(Duration::from_secs(40)));
    // One a second, seen 5.5, 15.5, ... s behind the first close; the watcher itself stays.
    assert_eq!(*seen.lock().unwrap(), [40, 34, 24, 15, 5]);
    assert_eq!(answer.value(), "done");
    assert!(took >= Duration::from_secs(45) && took < Duration::from_secs(47), "{took:?}");
    assert!(bound.iter().chain(&unbound).all(|client| client.is_closed()));
}

#[test]
fn a_drain_serves_everybody_during_its_delay() {
    let t = testing::Engine::new(Engine::builder());
    let amy = t.connect();
    let seconds = Duration::from_secs;
    let took = t.drain(Drain::within(seconds(5)).delay(seconds(30)));
    assert!(took >= seconds(30) && took < seconds(31), "{took:?}");
    assert!(amy.is_closed() && amy.kicked().is_none());
    assert_eq!(t.counters().closed_heartbeat_timeout, 0);
}

/// What is owed when sessions end is done within the time of the drain, which is virtual.
#[test]
fn a_drain_waits_for_what_is_owed() {
    let saved = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&saved);
    let register = move |handlers: &mut Handlers| {
        let on_closed = Arc::clone(&counted);
        handlers.on_session_closed(move |_, context| {
            let (saved, sleep) =
                (Arc::clone(&on_closed), context.sleep(Duration::from_millis(2500)));
            context.spawn(async move {
                sleep.await;
                saved.fetch_add(1, Ordering::Relaxed);
            });
        });
        let on_shutdown = Arc::clone(&counted);
        handlers.on_shutdown(async move |_| {
            on_shutdown.fetch_add(100, Ordering::Relaxed);
        });
    };
    let t = testing::Engine::new(Engine::builder().shards(Shards::Count(1)).register(register));
    let _amy = t.connect();
    let took = t.drain(Duration::from_secs(6));
    assert_eq!(saved.load(Ordering::Relaxed), 101);
    assert!(took >= Duration::from_millis(2500) && took < Duration::from_secs(6), "{took:?}");
}
