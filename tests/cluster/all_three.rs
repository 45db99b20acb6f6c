//! One engine with all three kinds of backends at once, and clients that use all of them: `chat`
//! on workers of this process, `room` in a Pitaya cluster over a real nats-server and etcd, `area`
//! on a Pomelo server that the test plays. Without nats-server and etcd nothing is tried, and says
//! so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shaddock::{ClosedArg, Engine, Handlers, Limits, PomeloCluster, Reply, Router, Uid, Workers};
use support::pomelo::{Packet, Peer, Server, free_address};
use support::{Client, Event, builder, eventually, request};

use crate::nats_and_etcd::{Cluster, Process};

const LOCAL: &str = "connector.entry.local";
/// An echo of each kind: on the shard, on a worker, on Pitaya, on Pomelo.
const ECHOES: [&str; 4] = [LOCAL, "chat.chat.echo", "room.room.echo", "area.area.echo"];
/// What each kind of backend sees of the session.
const SESSIONS: [&str; 3] = ["chat.chat.session", "room.room.session", "area.area.session"];
/// How long the two clusters may take.
const TIMEOUT: Duration = Duration::from_millis(2_400);

/// The backend in this process.
fn chat(handlers: &mut Handlers) {
    handlers
        .handler("chat.chat.echo", |request, _| Reply::borrowed(request.body()))
        .handler("chat.chat.session", |_, session| {
            let room = session.get("room");
            Reply::json(&json!({"id": session.number(), "uid": session.uid(), "room": room}))
        })
        .async_handler("chat.chat.bind", |request, mut session| async move {
            let uid = Uid::try_from(&request.value()).unwrap();
            Reply::json(&[session.bind(uid).await.is_ok()])
        })
        .async_handler("chat.chat.set", |request, mut session| async move {
            session.set("room", request.value());
            Reply::json(&session.push("room").await)
        })
        .async_handler("chat.chat.push", |request, session| async move {
            let uids = vec![Uid::try_from(&request.value()).unwrap()];
            let fails = session.context().push(uids, "onChat", b"1").unwrap().await;
            Reply::json(&fails)
        })
        .async_handler("chat.chat.kick", |request, session| async move {
            let uid = Uid::try_from(&request.value()).unwrap();
            Reply::json(&[session.context().kick_uid(uid, Some("chat")).await])
        });
}

/// The backend on Pomelo: a thread that answers what is forwarded to it.
struct Area {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
    /// What it was told of sessions that have ended.
    closed: std::sync::mpsc::Receiver<Value>,
}

const RUNS: u8 = 0;
/// It reads nothing, as a process that got SIGSTOP.
const STOPPED: u8 = 1;
const ENDS: u8 = 2;

impl Area {
    fn start_at(address: SocketAddr) -> Self {
        let server = Server::start_at(address);
        let state = Arc::new(AtomicU8::new(RUNS));
        let (told, closed) = std::sync::mpsc::channel();
        let seen = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let mut peer: Option<Peer> = None;
            while seen.load(Ordering::Acquire) != ENDS {
                if seen.load(Ordering::Acquire) == STOPPED {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                peer = match peer.take() {
                    None => server.accept_within(Duration::from_millis(5)),
                    Some(peer) => serve(peer, &told),
                };
            }
        });
        Self { address, state, thread: Some(thread), closed }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Release);
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        self.set(ENDS);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|result| result.is_ok()) || std::thread::panicking());
    }
}

/// Answers one packet, if there is one; the connection, unless it has ended.
fn serve(mut peer: Peer, told: &std::sync::mpsc::Sender<Value>) -> Option<Peer> {
    let call = match peer.next_within(Duration::from_millis(5)) {
        Some(Packet::Publish { payload, .. }) => payload,
        Some(Packet::Ping) => {
            peer.write(&[0xd0, 0]);
            return Some(peer);
        }
        Some(Packet::End) => return None,
        _ => return Some(peer),
    };
    let id = call["id"].as_u64().unwrap();
    let args = &call["msg"]["args"];
    if call["msg"]["namespace"] == "user" {
        // The test may have ended.
        told.send(args.clone()).ok();
    } else if args[0]["route"] == SESSIONS[2] {
        peer.answer(id, json!([null, args[1], null]));
    } else {
        peer.answer(id, json!([null, args[0]["body"], null]));
    }
    Some(peer)
}

/// An engine and all that it forwards to.
struct Three {
    // First, as it goes first: who answers to an engine that has gone fails.
    area: Area,
    engine: Engine,
    /// A server of Pomelo's that calls the engine.
    caller: Peer,
    room: Process,
    cluster: Cluster,
}

impl Three {
    /// Starts all, unless something is not here.
    fn start() -> Option<Self> {
        let cluster = Cluster::start()?;
        let room = cluster.backend("room", "room-1");
        let area = Area::start_at(free_address());
        let rpc = free_address();
        let pomelo = PomeloCluster::fixed()
            .server("area-1", "area", area.address.to_string())
            .listen(rpc.to_string())
            .server_type("area", Router::Default)
            .call_timeout(TIMEOUT)
            .on_closed("area.areaRemote.leave", [ClosedArg::Uid, ClosedArg::FrontendId]);
        let limits = Limits { in_flight_per_session_max: 8_192, ..Limits::default() };
        let engine = builder(2)
            .limits(limits)
            .handler(LOCAL, |request, _| Reply::borrowed(request.body()))
            .forward("chat", Workers::new(2, chat))
            .pitaya(cluster.description().request_timeout(TIMEOUT))
            .pomelo(pomelo)
            .start()
            .unwrap();
        let three = Self { engine, caller: Peer::connect(rpc), area, room, cluster };
        let mut client = three.client();
        for route in ECHOES {
            wait_until_served(&mut client, route);
        }
        Some(three)
    }

    fn client(&self) -> Client {
        Client::ready(self.engine.local_addr())
    }

    /// Calls the engine as a server of Pomelo's does.
    fn call(&mut self, remote: &str, args: Value) -> Value {
        self.caller.call(remote, args)
    }
}

fn wait_until_served(client: &mut Client, route: &str) {
    eventually(route, || client.ask(1, route, "\"ready\"") == "\"ready\"");
}

fn push(route: &str, body: &str) -> Event {
    Event::Push { route: route.into(), body: body.into() }
}

/// A request to the backend on Pitaya, and that it is done.
fn have_room_do(client: &mut Client, method: &str, body: &str) {
    let answer = client.ask(900, &format!("room.room.{method}"), body);
    assert!(!answer.contains("PIT-"), "{method}: {answer}");
}

/// Has all three push to a user, by way of somebody else.
fn push_from_all(three: &mut Three, by: &mut Client, uid: &str) {
    assert_eq!(by.ask(901, "chat.chat.push", &json!(uid).to_string()), "[]");
    let wanted = json!({"uid": uid, "route": "onRoom", "data": 2}).to_string();
    have_room_do(by, "push", &wanted);
    let args = json!(["onArea", 3, [uid], {}]);
    assert_eq!(three.call("channelRemote.pushMessage", args), json!([null, []]));
}

/// The next pushes, by route: those of different backends come in any order.
fn pushes(client: &mut Client, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = (0..count).map(|_| client.next()).collect();
    events.sort_by_key(|event| match event {
        Event::Push { route, .. } => route.clone(),
        other => panic!("no push: {other:?}"),
    });
    events
}

#[test]
fn requests_to_all_come_back_complete_and_each_kinds_in_order() {
    const ROUNDS: u32 = 2_000;
    let Some(mut three) = Three::start() else { return };
    let mut client = three.client();
    let mut other = three.client();
    assert_eq!(client.ask(1, "chat.chat.bind", "\"amy\""), "[true]");
    // One after the other to each of the three, all on one session; what comes back says whose.
    let all: Vec<u8> = (0..ROUNDS * 3)
        .flat_map(|at| request(at + 10, ECHOES[1 + at as usize % 3], &format!("[{at}]")))
        .collect();
    let started = Instant::now();
    client.send(&all);
    push_from_all(&mut three, &mut other, "amy");
    let mut next: [u32; 3] = [0, 1, 2];
    let mut pushed = Vec::new();
    while next.iter().any(|at| *at < ROUNDS * 3) {
        match client.next() {
            Event::Response { id, body } => {
                let at = id - 10;
                assert_eq!(body, format!("[{at}]").into_bytes());
                let wanted = &mut next[at as usize % 3];
                assert_eq!(at, *wanted, "of {}", ECHOES[1 + at as usize % 3]);
                *wanted += 3;
            }
            Event::Push { route, .. } => pushed.push(route),
            other => panic!("{other:?}"),
        }
    }
    assert!(started.elapsed() < support::PATIENCE);
    while pushed.len() < 3 {
        let Event::Push { route, .. } = client.next() else { panic!("no push") };
        pushed.push(route);
    }
    pushed.sort();
    assert_eq!(pushed, ["onArea", "onChat", "onRoom"]);
    let counters = three.engine.handle().counters();
    assert_eq!((counters.forward_timeouts, counters.forward_rejects), (0, 0));
}

/// What each of the three says of a session: its number, its uid, and the setting `room`.
fn seen(client: &mut Client) -> [(Value, Value, Value); 3] {
    SESSIONS.map(|route| {
        let session = client.ask_json(910, route, "");
        let room = match route {
            "chat.chat.session" => session["room"].clone(),
            "room.room.session" => session["data"]["room"].clone(),
            _ => session["settings"]["room"].clone(),
        };
        (session["id"].clone(), session["uid"].clone(), room)
    })
}

#[test]
fn what_one_makes_of_a_session_the_others_see() {
    let Some(mut three) = Three::start() else { return };
    let mut by = three.client();
    let mut clients: Vec<Client> = (0..3).map(|_| three.client()).collect();
    // A server may call a session by its number once it, or another of its kind, has been told it.
    let number = |client: &mut Client| client.ask_json(1, SESSIONS[2], "")["id"].clone();
    let numbers: Vec<Value> = clients.iter_mut().map(number).collect();
    // Not bound: each says so in its way.
    let (id, null) = (&numbers[0], &Value::Null);
    let unbound = [null, &json!(""), null].map(|uid| (id.clone(), uid.clone(), Value::Null));
    assert_eq!(seen(&mut clients[0]), unbound);

    // Bound by a worker, by the backend on Pitaya, by the one on Pomelo (there a number, which is
    // text to Pitaya).
    assert_eq!(clients[0].ask(2, "chat.chat.bind", "\"amy\""), "[true]");
    have_room_do(&mut clients[1], "bind", "bob");
    assert_eq!(three.call("sessionRemote.bind", json!([numbers[2], 42])), json!([]));
    // Written by each to another's.
    let settings = json!({"room": "by area"});
    let resp = three.call("sessionRemote.pushAll", json!([numbers[0], settings]));
    assert_eq!(resp, json!([]));
    assert_eq!(clients[1].ask(3, "chat.chat.set", "\"by chat\""), "true");
    have_room_do(&mut clients[2], "pushsession", "{\"room\":\"by room\"}");
    for (client, id, uid, room) in [
        (0, &numbers[0], json!("amy"), "by area"),
        (1, &numbers[1], json!("bob"), "by chat"),
        (2, &numbers[2], json!(42), "by room"),
    ] {
        let text = uid.as_str().map_or_else(|| uid.to_string(), str::to_owned);
        let [chat, area] = [(); 2].map(|()| (id.clone(), uid.clone(), json!(room)));
        assert_eq!(
            seen(&mut clients[client]),
            [chat, (id.clone(), json!(text), json!(room)), area]
        );
        push_from_all(&mut three, &mut by, &text);
        let events = pushes(&mut clients[client], 3);
        assert_eq!(events, [push("onArea", "3"), push("onChat", "1"), push("onRoom", "2")]);
    }
    // Who is bound already is refused by the others.
    let other = three.call("sessionRemote.bind", json!([numbers[0], "eve"]));
    let text = other[0]["stack"].as_str().unwrap();
    assert!(text.contains("session has already bind with amy"), "{text}");
    let other = clients[2].ask_json(4, "room.room.bind", "eve");
    assert_eq!(other["msg"], "session is already bound to an uid");
    assert_eq!(clients[1].ask(5, "chat.chat.bind", "\"eve\""), "[false]");
}

#[test]
fn each_may_kick_and_all_are_told() {
    let Some(mut three) = Three::start() else { return };
    let mut by = three.client();
    let uids = ["amy", "bob", "eve"];
    let mut clients = uids.map(|uid| {
        let mut client = three.client();
        have_room_do(&mut client, "bind", uid);
        client
    });
    assert_eq!(by.ask(1, "chat.chat.kick", "\"amy\""), "[1]");
    have_room_do(&mut by, "kick", "bob");
    assert_eq!(three.call("sessionRemote.kickByUid", json!(["eve", "area"])), json!([]));
    for (client, reason) in clients.iter_mut().zip(["chat", "kick", "area"]) {
        let events = client.until_end();
        assert_eq!(events.last(), Some(&Event::Kick(json!({"reason": reason}))), "{events:?}");
    }
    let mut told: Vec<Value> =
        uids.iter().map(|_| three.area.closed.recv_timeout(support::PATIENCE).unwrap()).collect();
    told.sort_by_key(Value::to_string);
    assert_eq!(told, uids.map(|uid| json!([uid, "connector-1"])));
    // Where Pitaya is one of the three, a uid has one session here: the older one is kicked.
    let [mut old, mut new] = [three.client(), three.client()];
    assert_eq!(old.ask(1, "chat.chat.bind", "\"ann\""), "[true]");
    let number = new.ask_json(1, SESSIONS[2], "")["id"].clone();
    assert_eq!(three.call("sessionRemote.bind", json!([number, "ann"])), json!([]));
    assert_eq!(old.until_end(), [Event::Kick(json!({"reason": "kick"}))]);
    let found = three.call("sessionRemote.getBackendSessionsByUid", json!(["ann"]));
    assert_eq!(found[1][0]["id"], number);
    // Nobody finds them any more.
    for uid in uids {
        assert_eq!(by.ask(2, "chat.chat.kick", &json!(uid).to_string()), "[0]");
        let gone = by.ask_json(3, "room.room.kick", uid);
        assert_eq!(gone["msg"], "session not found");
        let found = three.call("sessionRemote.getBackendSessionsByUid", json!([uid]));
        assert_eq!(found, json!([]));
    }
}

/// Asks all kinds but one, over and over for a while; the slowest answer.
fn others_are_served(client: &mut Client, missing: &str, during: Duration) -> Duration {
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < during {
        for route in ECHOES.iter().filter(|route| **route != missing) {
            let asked = Instant::now();
            assert_eq!(client.ask(920, route, "[1]"), "[1]", "{route}");
            slowest = slowest.max(asked.elapsed());
        }
    }
    slowest
}

/// What half of the local requests take at most, one after the other for a while. The slow ones are
/// a matter of the machine and what else it does; `benches/isolation` measures them.
fn local_median(client: &mut Client, during: Duration) -> Duration {
    let started = Instant::now();
    let mut all = Vec::new();
    while started.elapsed() < during {
        let asked = Instant::now();
        assert_eq!(client.ask(930, LOCAL, "[1]"), "[1]");
        all.push(asked.elapsed());
    }
    all.sort();
    all[all.len() / 2]
}

/// Has a backend stop with requests pending: nobody else waits, each is answered at its deadline,
/// and it is used again when it goes on.
fn stop_and_go_on(three: &Three, missing: &str, is_error: impl Fn(&Value) -> bool) {
    const REQUESTS: u32 = 1_000;
    // What a machine that does other things may add.
    const SLACK: Duration = Duration::from_millis(20);
    let signal = |stop: bool| match (missing, stop) {
        ("room.room.echo", true) => three.room.signal("STOP"),
        ("room.room.echo", false) => three.room.signal("CONT"),
        (_, true) => three.area.set(STOPPED),
        (_, false) => three.area.set(RUNS),
    };
    let (mut client, mut healthy) = (three.client(), three.client());
    let before = local_median(&mut healthy, TIMEOUT / 3);
    signal(true);
    // Longer than the thread that plays the server waits before it looks.
    std::thread::sleep(Duration::from_millis(50));
    let sent = Instant::now();
    client.send(&(1..=REQUESTS).flat_map(|id| request(id, missing, "1")).collect::<Vec<u8>>());
    let then = local_median(&mut healthy, TIMEOUT / 3);
    println!("{missing}: median of local requests {before:?}, with {REQUESTS} pending {then:?}");
    assert!(then <= before * 2 + SLACK, "{then:?} instead of {before:?}");
    let slowest = others_are_served(&mut healthy, missing, TIMEOUT / 4);
    assert!(slowest < TIMEOUT / 2, "somebody has waited {slowest:?}");
    assert!(sent.elapsed() < TIMEOUT, "all that was while they were pending");
    for id in 1..=REQUESTS {
        let answer: Value = serde_json::from_str(&client.answer(id)).unwrap();
        assert!(is_error(&answer), "{answer}");
    }
    let took = sent.elapsed();
    assert!(took >= TIMEOUT && took < TIMEOUT * 4, "answered after {took:?}");
    signal(false);
    wait_until_served(&mut client, missing);
    others_are_served(&mut client, "", Duration::from_millis(10));
}

#[test]
fn a_stopped_backend_of_one_kind_holds_no_other_up() {
    let Some(three) = Three::start() else { return };
    let before = three.engine.handle().counters();
    stop_and_go_on(&three, "room.room.echo", |answer| answer["code"] == "PIT-408");
    stop_and_go_on(&three, "area.area.echo", |answer| answer["code"] == 500);
    let after = three.engine.handle().counters();
    assert_eq!(after.forward_timeouts - before.forward_timeouts, 2_000);
    assert_eq!(after.forward_lost, before.forward_lost);
}

#[test]
fn what_is_away_is_missed_by_nobody_else_and_found_again() {
    let Some(mut three) = Three::start() else { return };
    let mut client = three.client();
    have_room_do(&mut client, "bind", "amy");
    let (room, area) = (ECHOES[2], ECHOES[3]);

    three.cluster.stop_nats();
    let lost = json!({"code": "PIT-500", "msg": "no connection to the cluster"});
    eventually("it is known that NATS is away", || client.ask_json(2, room, "1") == lost);
    let asked = Instant::now();
    assert_eq!(client.ask_json(3, room, "1"), lost);
    others_are_served(&mut client, room, TIMEOUT / 4);
    assert!(asked.elapsed() < TIMEOUT, "at once");
    // Who is bound stays so, for the others.
    assert_eq!(client.ask_json(4, SESSIONS[2], "")["uid"], "amy");

    // Both away at once.
    let address = three.area.address;
    three.area = {
        three.area.set(ENDS);
        three.area.thread.take().unwrap().join().unwrap();
        eventually("it is known that the server is away", || {
            client.ask_json(5, area, "1") == json!({"code": 500})
        });
        let asked = Instant::now();
        assert_eq!(client.ask_json(6, area, "1"), json!({"code": 500}));
        assert!(asked.elapsed() < TIMEOUT, "at once");
        assert_eq!(
            (client.ask(7, LOCAL, "1"), client.ask(8, ECHOES[1], "1")),
            ("1".into(), "1".into())
        );
        Area::start_at(address)
    };
    wait_until_served(&mut client, area);
    three.cluster.restart_nats();
    wait_until_served(&mut client, room);

    // A killed backend on Pitaya: nobody reads what is sent to it.
    three.room.signal("KILL");
    eventually("it is known that nobody listens", || {
        client.ask_json(9, room, "1")["msg"] == "nats: no responders available for request"
    });
    others_are_served(&mut client, room, TIMEOUT / 4);
    three.room = three.cluster.backend("room", "room-1");
    wait_until_served(&mut client, room);
    // All three reach the session that has seen all this.
    let mut by = three.client();
    push_from_all(&mut three, &mut by, "amy");
    let events = pushes(&mut client, 3);
    assert_eq!(events, [push("onArea", "3"), push("onChat", "1"), push("onRoom", "2")]);
}
