//! A Pitaya cluster of real nats-server and etcd, whose backends speak its protocol as written
//! down: what is forwarded and answered, what backends ask of sessions, and what happens when one
//! of them is away. Without nats-server and etcd nothing is tried, and says so.

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shaddock::wire::pitaya::Compression;
use shaddock::{
    Builder, Dialect, Drain, Engine, Listener, OnSecondBind, PitayaCluster, PitayaLimits, Reply,
    Uid,
};
use support::{Client, Event, PATIENCE, builder, eventually, notify, request};

use crate::nats_and_etcd::{Cluster, ECHO, nowhere, wait_until_forwarded};

const LOCAL: &str = "connector.entry.local";
const ENTRY: &str = "connector.entry.bind";

/// Threads towards the cluster, of an engine with two shards: one for both, and one for each.
const THREADS: [u16; 2] = [1, 2];

fn start(cluster: PitayaCluster) -> Engine {
    described(cluster).start().unwrap()
}

fn described(cluster: PitayaCluster) -> Builder {
    builder(2)
        .handler(LOCAL, |_, session| Reply::json(&session.number()))
        .async_handler(ENTRY, |request, mut session| async move {
            let uid = Uid::try_from(&request.value()).unwrap();
            Reply::json(&session.bind(uid).await.is_ok())
        })
        .pitaya(cluster)
}

#[test]
fn messages_are_forwarded_and_answered() {
    for threads in THREADS {
        let Some(cluster) = Cluster::start() else { return };
        let _backend = cluster.backend("room", "room-1");
        let engine = start(
            cluster.description().threads(threads).server_id("front-1").metadata("region", "eu"),
        );
        let mut client = Client::ready(engine.local_addr());
        wait_until_forwarded(&mut client);
        // Backends look for it there.
        let known = cluster.servers("connector");
        assert_eq!(known.len(), 1);
        assert_eq!((&known[0]["id"], &known[0]["frontend"]), (&json!("front-1"), &json!(true)));
        assert_eq!(known[0]["metadata"], json!({"region": "eu"}));

        assert_eq!(client.ask(7, ECHO, " {\"a\" : [1.0, \"中\"]}"), " {\"a\" : [1.0, \"中\"]}");
        let number = client.ask_json(8, LOCAL, "");
        let told = client.ask_json(9, "room.room.session", "");
        assert_eq!(told["id"], number);
        assert_eq!((&told["uid"], &told["data"]), (&json!(""), &json!({"ipversion": "ipv4"})));
        assert_eq!((&told["frontend"], &told["mid"]), (&json!("front-1"), &json!(9)));
        assert_eq!((&told["type"], &told["route"]), (&json!(0), &json!("room.room.session")));
        let metadata = &told["metadata"];
        assert_eq!(metadata["peer.id"], "front-1");
        assert_eq!(metadata["peer.service"], "connector");
        assert_eq!(metadata["req-route"], "room.room.session");
        assert_eq!(metadata["reqTimeout"], "5s");
        assert_eq!(metadata["request.id"].as_str().unwrap().len(), 22);
        let age_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let started_ns = metadata["req-start-time"].as_u64().unwrap();
        assert!(age_ns.as_nanos().abs_diff(u128::from(started_ns)) < 5_000_000_000);

        let wanted =
            json!({"code": "PIT-404", "msg": "boom", "metadata": {"route": "room.room.error"}});
        assert_eq!(client.ask_json(10, "room.room.error", "boom"), wanted);

        let before = client.ask_json(11, "room.room.count", "").as_u64().unwrap();
        client.send(&notify(ECHO, "5"));
        let after = client.ask_json(12, "room.room.count", "").as_u64().unwrap();
        assert_eq!(after, before + 2, "the notify has come, and nothing else");

        engine.shutdown(Drain::within(Duration::from_secs(1)));
        assert_eq!(cluster.servers("connector"), [Value::Null; 0]);
    }
}

/// An error of the cluster's, as a client gets it.
fn error(code: &str, msg: &str) -> Value {
    json!({"code": code, "msg": msg})
}

fn push(route: &str, body: &str) -> Event {
    Event::Push { route: route.into(), body: body.into() }
}

/// Has a backend bind the session; its push comes first. Gives the answer.
fn bind(client: &mut Client, uid: &str) -> String {
    client.send(&request(2, "room.room.bind", uid));
    assert_eq!(client.next(), push("onBound", "{\"bound\":true}"));
    client.answer(2)
}

#[test]
fn backends_bind_write_push_and_kick() {
    for threads in THREADS {
        let Some(cluster) = Cluster::start() else { return };
        let _backend = cluster.backend("room", "room-1");
        let engine = start(cluster.description().threads(threads));
        let mut amy = Client::ready(engine.local_addr());
        let mut bob = Client::ready(engine.local_addr());
        wait_until_forwarded(&mut amy);

        // The push follows the bind at once, and is not lost.
        assert_eq!(bind(&mut amy, "amy"), "\"0a0361636b\"");
        assert_eq!(amy.ask_json(3, "room.room.session", "")["uid"], "amy");
        let again = error("PIT-000", "session is already bound to an uid");
        assert_eq!(amy.ask_json(4, "room.room.bind", "amy"), again);
        assert_eq!(amy.ask_json(5, "room.room.bind", "eve"), again);
        for bad in ["a b", "a.*.b", "a.>.b", "a..b"] {
            let illegal = error("PIT-000", "illegal uid");
            assert_eq!(bob.ask_json(6, "room.room.bind", bad), illegal, "{bad}");
        }

        assert_eq!(amy.ask(7, "room.room.pushsession", "{\"a\":{\"b\":[1]}}"), "\"0a0361636b\"");
        let told = amy.ask_json(8, "room.room.session", "");
        assert_eq!(told["data"], json!({"a": {"b": [1]}, "ipversion": "ipv4"}));
        amy.ask(9, "room.room.pushsession", "{\"c\":null}");
        let told = amy.ask_json(10, "room.room.session", "");
        assert_eq!(told["data"], json!({"c": null, "ipversion": "ipv4"}), "it is replaced");
        let bad = amy.ask_json(11, "room.room.pushsession", "[1]");
        assert_eq!(bad, error("PIT-000", "the session's data is no JSON object"));

        let wanted = json!({"uid": "amy", "route": "onChat", "data": {"m": "中"}}).to_string();
        assert_eq!(bob.ask(12, "room.room.push", &wanted), "\"ok\"");
        assert_eq!(amy.next(), push("onChat", "{\"m\":\"中\"}"));
        // Sessions that nobody has, and routes that nobody serves.
        let gone = error("PIT-000", "session not found");
        assert_eq!(bob.ask_json(13, "room.room.kick", "nobody"), gone);
        let call = |route: &str, data: &str| json!({"route": route, "data": data}).to_string();
        assert_eq!(
            bob.ask_json(14, "room.room.call", &call("sys.bindsession", "08ff7f120161")),
            gone
        );
        assert_eq!(bob.ask_json(15, "room.room.call", &call("sys.pushsession", "08ff7f")), gone);
        let nobody = bob.ask_json(15, "room.room.call", &call("sys.bindsession", "0802"));
        assert_eq!(nobody, error("PIT-000", "illegal uid"));
        let route =
            json!({"code": "PIT-404", "msg": "route not found", "metadata": {"route": "a.b"}});
        assert_eq!(bob.ask_json(16, "room.room.call", &call("a.b", "")), route);

        assert_eq!(bob.ask(17, "room.room.kick", "amy"), "\"0801\"");
        assert_eq!(amy.until_end(), [Event::Kick(json!({"reason": "kick"}))]);
        bind(&mut bob, "bob");
        bob.send(&request(19, "room.room.kickuser", "bob"));
        let events = bob.until_end();
        assert_eq!(events.last(), Some(&Event::Kick(json!({"reason": "kick"}))), "{events:?}");
    }
}

/// Unless it is told otherwise, as Pitaya's module for unique sessions is on by default
/// (docs/protocol/pitaya.md, "Calls a frontend serves").
#[test]
fn a_uid_has_one_session() {
    for threads in THREADS {
        let Some(cluster) = Cluster::start() else { return };
        let _backend = cluster.backend("room", "room-1");
        let engines = ["front-1", "front-2"]
            .map(|id| start(cluster.description().threads(threads).server_id(id)));
        let mut clients = [0, 0, 1, 1].map(|at| Client::ready(engines[at].local_addr()));
        let [old, new, elsewhere, other] = &mut clients;
        for client in [&mut *old, &mut *elsewhere] {
            wait_until_forwarded(client);
        }
        bind(old, "amy");
        bind(other, "bob");
        // The older one at the same frontend is kicked.
        bind(new, "amy");
        assert_eq!(old.until_end(), [Event::Kick(json!({"reason": "kick"}))]);
        // One at another frontend is kicked, whoever binds it.
        assert_eq!(elsewhere.ask(3, ENTRY, "\"amy\""), "true");
        assert_eq!(new.until_end(), [Event::Kick(json!({"reason": "kick"}))]);
        // What was bound by a handler here is pushed to as the rest.
        let wanted = json!({"uid": "amy", "route": "onChat", "data": 1}).to_string();
        assert_eq!(other.ask(4, "room.room.push", &wanted), "\"ok\"");
        assert_eq!(elsewhere.next(), push("onChat", "1"));
        assert_eq!(other.ask(5, LOCAL, ""), other.ask(6, LOCAL, ""));
    }
}

/// With the engine's own reason, whoever binds; by itself nobody is kicked.
#[test]
fn the_newest_login_wins_whoever_binds() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = described(cluster.description())
        .single_session(OnSecondBind::KickFirst("elsewhere".into()))
        .start()
        .unwrap();
    let [mut first, mut second, mut third] = [0; 3].map(|_| Client::ready(engine.local_addr()));
    wait_until_forwarded(&mut first);
    let kicked = [Event::Kick(json!({"reason": "elsewhere"}))];
    bind(&mut first, "amy");
    bind(&mut second, "amy");
    assert_eq!(first.until_end(), kicked);
    assert_eq!(third.ask(3, ENTRY, "\"amy\""), "true");
    assert_eq!(second.until_end(), kicked);
    assert_eq!(third.ask(4, ENTRY, "\"amy\""), "true");
    assert_eq!(third.ask(5, LOCAL, ""), third.ask(6, LOCAL, ""));
    assert_eq!(engine.handle().counters().sessions_replaced, 2);
}

#[test]
fn where_uids_are_not_unique_an_older_session_closes_without_a_kick() {
    for threads in THREADS {
        let Some(cluster) = Cluster::start() else { return };
        let _backend = cluster.backend("room", "room-1");
        let engine = start(cluster.description().threads(threads).unique_session(false));
        let [mut old, mut new] = [0; 2].map(|_| Client::ready(engine.local_addr()));
        wait_until_forwarded(&mut old);
        for client in [&mut old, &mut new] {
            client.send(&request(2, "room.room.bind", "amy"));
            assert_eq!(client.next(), push("onBound", "{\"bound\":true}"));
        }
        assert!(old.until_end().iter().all(|event| !matches!(event, Event::Kick(_))));
    }
}

/// Each of the two threads serves the sessions of one shard; to the cluster they are one server.
#[test]
fn sessions_at_two_threads_are_those_of_one_frontend() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = start(cluster.description().threads(2));
    let mut first = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut first);
    assert_eq!(cluster.servers("connector").len(), 1);
    eventually("both threads have joined", || engine.handle().unready().is_empty());
    let metrics = engine.handle().metrics().unwrap();
    assert_eq!(metrics.clusters.len(), 1);
    let mut coordinators = metrics.clusters[0].coordinators.clone();
    coordinators.sort_unstable();
    assert_eq!(coordinators, [("etcd", true), ("nats", true)]);
    assert_eq!(cluster.nats_connections().len(), 2);

    // Two at each shard, which a session's number tells.
    let mut at: [Vec<Client>; 2] = Default::default();
    while at.iter().any(|clients| clients.len() < 2) {
        let mut client = Client::ready(engine.local_addr());
        let number = client.ask_json(1, LOCAL, "").as_u64().unwrap();
        at[(number % 2) as usize].push(client);
    }
    for (shard, clients) in at.iter_mut().enumerate() {
        wait_until_forwarded(&mut clients[0]);
        assert_eq!(bind(&mut clients[0], &format!("user-{shard}")), "\"0a0361636b\"");
    }
    let [here, there] = &mut at;
    let wanted = |uid: &str| json!({"uid": uid, "route": "onChat", "data": 1}).to_string();
    for (uid, clients) in [("user-0", &mut *here), ("user-1", &mut *there)] {
        assert_eq!(first.ask(3, "room.room.push", &wanted(uid)), "\"ok\"");
        assert_eq!(clients[0].next(), push("onChat", "1"));
    }
    // A user logs in again at the other thread, and is pushed to there alone.
    bind(&mut there[1], "user-0");
    assert_eq!(here[0].until_end(), [Event::Kick(json!({"reason": "kick"}))]);
    assert_eq!(first.ask(4, "room.room.push", &wanted("user-0")), "\"ok\"");
    assert_eq!(there[1].next(), push("onChat", "1"));
    assert_eq!(there[1].ask(5, LOCAL, ""), there[1].ask(6, LOCAL, ""));
    for (uid, client) in [("user-1", 0), ("user-0", 1)] {
        assert_eq!(first.ask(7, "room.room.kick", uid), "\"0801\"");
        assert_eq!(there[client].until_end(), [Event::Kick(json!({"reason": "kick"}))]);
    }
    // What no session is meant by, and sessions that nobody has, are answered once.
    let call = |route: &str, data: &str| json!({"route": route, "data": data}).to_string();
    let gone = error("PIT-000", "session not found");
    for (id, data) in [(8, "08feff3f120161"), (9, "08ffff3f120161")] {
        assert_eq!(first.ask_json(id, "room.room.call", &call("sys.bindsession", data)), gone);
    }
    assert_eq!(first.ask_json(10, "room.room.call", &call("a.b", ""))["code"], "PIT-404");
    engine.shutdown(Drain::within(Duration::from_secs(1)));
    assert_eq!(cluster.servers("connector"), [Value::Null; 0]);
}

#[test]
fn no_more_threads_start_than_there_are_shards() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = builder(1).pitaya(cluster.description().threads(3)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    assert_eq!(cluster.nats_connections().len(), 1);
}

/// Only a token of a subject that is exactly `*` or `>` is a wildcard (docs/protocol/pitaya.md,
/// "NATS subjects").
#[test]
fn stars_in_a_uid_reach_nobody_else() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = start(cluster.description());
    let uids = ["amy*room1", "*", "amyXroom1"];
    let mut clients = uids.map(|_| Client::ready(engine.local_addr()));
    wait_until_forwarded(&mut clients[0]);
    for (client, uid) in clients.iter_mut().zip(uids) {
        bind(client, uid);
    }
    let mut other = Client::ready(engine.local_addr());
    for (client, uid) in clients.iter_mut().zip(uids) {
        let wanted = json!({"uid": uid, "route": "onChat", "data": uid}).to_string();
        assert_eq!(other.ask(3, "room.room.push", &wanted), "\"ok\"");
        assert_eq!(client.next(), push("onChat", &json!(uid).to_string()));
    }
    for client in &mut clients {
        assert_eq!(client.next_within(Duration::from_millis(50)), None);
    }
}

#[test]
fn thousands_of_pipelined_requests_come_back_in_order() {
    for threads in THREADS {
        const REQUESTS: u32 = 2_000;
        let Some(cluster) = Cluster::start() else { return };
        let _backend = cluster.backend("room", "room-1");
        let engine = start(cluster.description().threads(threads));
        let mut clients: Vec<Client> = (0..3).map(|_| Client::ready(engine.local_addr())).collect();
        wait_until_forwarded(&mut clients[0]);
        for client in &mut clients {
            let all: Vec<u8> =
                (1..=REQUESTS).flat_map(|id| request(id, ECHO, &id.to_string())).collect();
            client.send(&all);
        }
        for client in &mut clients {
            for id in 1..=REQUESTS {
                let event = client.next();
                assert_eq!(event, Event::Response { id, body: id.to_string().into_bytes() });
            }
        }
    }
}

#[test]
fn a_stopped_backend_holds_nobody_up() {
    const REQUESTS: u32 = 1_000;
    const TIMEOUT: Duration = Duration::from_millis(1_500);
    let Some(cluster) = Cluster::start() else { return };
    let stuck = cluster.backend("room", "room-1");
    let _other = cluster.backend("area", "area-1");
    let engine = start(
        cluster.description().server_id("front-1").server_type("area").request_timeout(TIMEOUT),
    );
    let mut client = Client::ready(engine.local_addr());
    let mut healthy = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    stuck.signal("STOP");
    let all: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, ECHO, "1")).collect();
    let sent = Instant::now();
    client.send(&all);
    let mut slowest = Duration::ZERO;
    for id in 1..=100 {
        let asked = Instant::now();
        healthy.ask(id, LOCAL, "");
        assert_eq!(healthy.ask(id, "area.area.echo", "2"), "2");
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < TIMEOUT / 3, "a healthy client has waited {slowest:?}");
    let mut timeout = error("PIT-408", "rpc client: request timeout");
    timeout["metadata"] = json!({"route": ECHO, "timeout": "1500ms", "peer.id": "room-1",
                                 "server": "front-1"});
    for id in 1..=REQUESTS {
        let answer: Value = serde_json::from_str(&client.answer(id)).unwrap();
        assert_eq!(answer, timeout);
    }
    assert!(sent.elapsed() >= TIMEOUT, "nothing is answered before its deadline");
    assert_eq!(engine.handle().counters().forward_timeouts, u64::from(REQUESTS));
    stuck.signal("CONT");
    wait_until_forwarded(&mut client);
    // Late answers have gone nowhere.
    assert_eq!(client.next_within(Duration::from_millis(100)), None);

    // A killed one is still in the list; nobody waits for it.
    drop(stuck);
    eventually("it is known that nobody listens", || {
        let asked = Instant::now();
        let answer = client.ask_json(2, ECHO, "1");
        assert!(asked.elapsed() < TIMEOUT || answer["code"] == "PIT-408", "{answer}");
        answer == error("PIT-000", "nats: no responders available for request")
    });
    let _again = cluster.backend("room", "room-1");
    wait_until_forwarded(&mut client);
}

#[test]
fn nats_may_come_and_go() {
    for threads in THREADS {
        let Some(mut cluster) = Cluster::start() else { return };
        let _backend = cluster.backend("room", "room-1");
        // The backend connects again in its own time, on a busy machine in seconds.
        let engine = start(cluster.description().threads(threads).request_timeout(PATIENCE));
        let mut client = Client::ready(engine.local_addr());
        wait_until_forwarded(&mut client);
        client.ask(2, "room.room.bind", "amy");
        let mut patient = Client::ready(engine.local_addr());
        wait_until_forwarded(&mut patient);
        patient.send(&request(3, "room.room.slow", "2500"));
        // The one before it has come there then.
        patient.ask(4, ECHO, "1");
        cluster.stop_nats();
        // What comes before that is noticed counts as sent; what comes later is refused at once.
        std::thread::sleep(Duration::from_millis(500));
        let lost = error("PIT-500", "no connection to the cluster");
        let asked = Instant::now();
        assert_eq!(client.ask_json(5, ECHO, "1"), lost);
        assert!(asked.elapsed() < Duration::from_secs(1));
        client.ask(6, LOCAL, "");
        // A bind meanwhile is heard of later.
        let mut bob = Client::ready(engine.local_addr());
        assert_eq!(bob.ask(1, ENTRY, "\"bob\""), "true");
        cluster.restart_nats();
        // What was sent before is answered all the same.
        assert_eq!(patient.answer(3), "\"slow\"");
        assert!(asked.elapsed() > Duration::from_secs(1), "NATS was away meanwhile");
        wait_until_forwarded(&mut client);
        for (uid, receiver) in [("amy", 0), ("bob", 1)] {
            let wanted = json!({"uid": uid, "route": "onChat", "data": 1}).to_string();
            client.send(&request(7, "room.room.push", &wanted));
            let receiver = if receiver == 0 { &mut client } else { &mut bob };
            let mut next = || receiver.next();
            let first = next();
            assert!(first == push("onChat", "1") || next() == push("onChat", "1"), "{uid}");
        }
    }
}

/// A NATS server that is about to stop says so ("lame duck"), and Pitaya's servers move to another
/// one: nothing is lost, and the end of the first is not noticed.
#[test]
fn a_nats_server_that_stops_is_left_in_time() {
    for threads in THREADS {
        let Some(mut cluster) = Cluster::start_with_two_nats() else { return };
        let _backend = cluster.backend("room", "room-1");
        let engine = start(cluster.description().threads(threads));
        let mut amy = Client::ready(engine.local_addr());
        let mut bob = Client::ready(engine.local_addr());
        wait_until_forwarded(&mut amy);
        bind(&mut amy, "amy");
        let mut count = 0;
        // Requests and pushes without a pause, and users who come and go meanwhile.
        let mut run_for = |time: Duration, amy: &mut Client, count: &mut u32| {
            let until = Instant::now() + time;
            while Instant::now() < until {
                *count += 1;
                let wanted = json!({"uid": "amy", "route": "onChat", "data": *count}).to_string();
                assert_eq!(bob.ask(1, "room.room.push", &wanted), "\"ok\"");
                // What comes twice comes at once, and has been read with those before it.
                let this = push("onChat", &count.to_string());
                let mut next = amy.next();
                while next != this {
                    let is_older = matches!(&next, Event::Push { body, .. }
                    if serde_json::from_slice::<u32>(body).is_ok_and(|old| old < *count));
                    assert!(is_older, "{next:?} instead of {count}");
                    next = amy.next();
                }
                if count.is_multiple_of(20) {
                    let (mut guest, uid) =
                        (Client::ready(engine.local_addr()), format!("u{count}"));
                    guest.send(&request(2, "room.room.bind", &uid));
                    // Between two NATS servers its first push may come late, or before they know of
                    // it.
                    while !matches!(guest.next(), Event::Response { id: 2, .. }) {}
                }
            }
        };
        let lost = engine.handle().counters().forward_lost;
        run_for(Duration::from_millis(300), &mut amy, &mut count);
        cluster.signal_nats("USR2");
        run_for(Duration::from_millis(1_500), &mut amy, &mut count);
        cluster.stop_nats();
        run_for(Duration::from_millis(1_000), &mut amy, &mut count);
        let counters = engine.handle().counters();
        assert_eq!((counters.forward_lost, counters.forward_timeouts), (lost, 0));
    }
}

#[test]
fn etcd_may_come_and_go() {
    let Some(mut cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let description = cluster.description().server_type("area").server_id("front-1");
    let engine = start(description.heartbeat_ttl(Duration::from_secs(3)));
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    let none = error("PIT-500", "no servers available of this type");
    assert_eq!(client.ask_json(2, "area.area.echo", "1"), none);
    cluster.stop_etcd();
    assert_eq!(client.ask(3, ECHO, "1"), "1");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(client.ask(4, ECHO, "1"), "1");
    cluster.restart_etcd();
    // It is told of what is new, and still knows this server after the lease's time.
    let _new = cluster.backend("area", "area-1");
    eventually("the new server is known", || client.ask(5, "area.area.echo", "1") == "1");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(cluster.servers("connector").len(), 1);
}

/// Backends put themselves into etcd's list again at their next sign of life, which takes a third
/// of their lease's time. Pitaya's frontends go on with the servers that they knew, and NATS tells
/// which of them are dead (docs/protocol/pitaya.md, "Server
/// registration").
#[test]
fn servers_are_known_though_etcd_has_lost_its_data() {
    let Some(mut cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let dead = cluster.backend("room", "room-2");
    let description = cluster.description().server_id("front-1");
    let engine = start(description.heartbeat_ttl(Duration::from_secs(10)));
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    cluster.stop_etcd();
    drop(dead);
    cluster.restart_etcd_empty();
    // Sooner than the backend's sign of life, and beyond it.
    let until = Instant::now() + Duration::from_secs(5);
    let unheard = error("PIT-000", "nats: no responders available for request");
    let mut has_come_back = false;
    while Instant::now() < until {
        let answer = client.ask_json(2, ECHO, "1");
        assert!(answer == json!(1) || answer == unheard, "{answer}");
        has_come_back |= !cluster.servers("connector").is_empty();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(has_come_back, "this server has made itself known again");
    for _ in 0..50 {
        assert_eq!(client.ask(3, ECHO, "1"), "1", "the dead one is called no more");
    }
}

#[test]
fn a_list_of_servers_that_is_too_long_is_not_read() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let limits = PitayaLimits { list_bytes_max: 100, ..PitayaLimits::default() };
    let engine = start(cluster.description().limits(limits));
    let mut client = Client::ready(engine.local_addr());
    eventually("this server is registered", || !cluster.servers("connector").is_empty());
    let none = error("PIT-500", "no servers available of this type");
    eventually("NATS is there", || client.ask_json(1, ECHO, "1") == none);
    for _ in 0..50 {
        assert_eq!(client.ask_json(2, ECHO, "1"), none);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_cluster_that_is_away_stops_nothing() {
    let (nats, etcd) = (nowhere(), nowhere());
    let cluster = PitayaCluster::new([format!("nats://{nats}")], [etcd.to_string()]);
    let engine = start(cluster.server_type("room"));
    let mut client = Client::ready(engine.local_addr());
    client.ask(1, LOCAL, "");
    let away = error("PIT-500", "no connection to the cluster");
    assert_eq!(client.ask_json(2, ECHO, "1"), away);
    assert_eq!(engine.handle().counters().forward_lost, 1);
    let asked = Instant::now();
    engine.shutdown(Drain::within(Duration::from_secs(1)));
    assert!(asked.elapsed() < Duration::from_secs(3), "it stops in time");
}

/// Clients made for Pitaya get a backend's bodies and errors as from Pitaya's own frontend.
#[test]
fn clients_of_pitaya_reach_the_same_backends() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let listener = Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya);
    let engine = builder(1)
        .listen(listener.compression(Compression::Off))
        .pitaya(cluster.description())
        .start()
        .unwrap();
    wait_until_forwarded(&mut Client::ready(engine.local_addr()));
    let mut client = Client::ready(engine.local_addrs()[1]);
    // Requests 2 and 3, and their answers: the second one's flag says that it is an error.
    let error =
        b"{\"code\":\"PIT-404\",\"msg\":\"boom\",\"metadata\":{\"route\":\"room.room.error\"}}";
    let wanted = [
        b"\x04\x00\x00\x07\x04\x02world\x04\x00\x00".as_slice(),
        &[error.len() as u8 + 2, 0x24, 3],
        error,
    ]
    .concat();
    client.send(&[request(2, ECHO, "world"), request(3, "room.room.error", "boom")].concat());
    let mut got = vec![0; wanted.len()];
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.stream.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&wanted));

    // A request without a body has none at the backend, and an answer without one none here; so it
    // is with a push (docs/protocol/pitaya.md, "Client dialect").
    client.send(
        &[
            request(4, "room.room.length", ""),
            request(5, "room.room.length", "{}"),
            request(6, "room.room.empty", ""),
            request(7, "room.room.bind", "amy"),
        ]
        .concat(),
    );
    let mut expect = |wanted: &[u8]| {
        let mut got = vec![0; wanted.len()];
        client.stream.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(wanted));
    };
    expect(b"\x04\x00\x00\x03\x04\x040");
    expect(b"\x04\x00\x00\x03\x04\x052");
    expect(b"\x04\x00\x00\x02\x04\x06");
    expect(b"\x04\x00\x00\x17\x06\x07onBound{\"bound\":true}");
    expect(b"\x04\x00\x00\x0e\x04\x07\"0a0361636b\"");
    let wanted = json!({"uid": "amy", "route": "onTick"}).to_string();
    let mut other = Client::ready(engine.local_addr());
    assert_eq!(other.ask(1, "room.room.nopush", &wanted), "\"ok\"");
    expect(b"\x04\x00\x00\x08\x06\x06onTick");
}
