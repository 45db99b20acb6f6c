//! A Pomelo cluster whose other servers are played by the test: what is forwarded and answered,
//! what backends ask of sessions, and what happens when they are away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shaddock::{
    Builder, ClosedArg, Drain, Engine, Limits, OnSecondBind, PomeloCluster, PomeloLimits, Reply,
    Router, StartError, Uid,
};
use support::pomelo::{Packet, Peer, Server, call, free_address};
use support::{Client, Event, builder, eventually, notify, request};

pub(crate) const ECHO: &str = "chat.chatHandler.echo";
pub(crate) const LOCAL: &str = "connector.entryHandler.local";
const ENTRY: &str = "connector.entryHandler.entry";

/// An engine in front of one fixed backend, and where backends call it.
fn engine(backend: &str, change: impl Fn(PomeloCluster) -> PomeloCluster) -> (Engine, SocketAddr) {
    let rpc = free_address();
    let cluster = PomeloCluster::fixed()
        .server("chat-1", "chat", backend)
        .listen(rpc.to_string())
        .server_type("chat", Router::Default);
    (start(change(cluster)), rpc)
}

pub(crate) fn start(cluster: PomeloCluster) -> Engine {
    described(cluster).start().unwrap()
}

fn described(cluster: PomeloCluster) -> Builder {
    builder(2)
        .handler(LOCAL, |_, session| Reply::json(&session.number()))
        .async_handler(ENTRY, |request, mut session| async move {
            let uid = Uid::try_from(&request.value()).unwrap();
            Reply::json(&session.bind(uid).await.is_ok())
        })
        .pomelo(cluster)
}

/// The code of an answer.
pub(crate) fn code(text: &str) -> Value {
    serde_json::from_str::<Value>(text).unwrap()["code"].clone()
}

#[test]
fn a_request_is_forwarded_and_answered() {
    let backend = Server::start();
    let (engine, _) = engine(&backend.address(), |cluster| cluster);
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(7, ECHO, " {\"a\" : [1.0, \"中\"]}"));
    let (id, message, session) = peer.forwarded();
    assert_eq!(
        message,
        json!({"id": 7, "type": 0, "compressRoute": 0, "route": ECHO,
               "body": {"a": [1.0, "中"]}, "compressGzip": 0})
    );
    let number = session["id"].clone();
    let wanted = json!({"id": number, "frontendId": "connector-1", "uid": null, "settings": {}});
    assert_eq!(session, wanted);
    // An answer's own text goes through: 1.0 does not become 1.
    peer.publish("rpc", &format!("{{\"id\":{id},\"resp\":[null,{{\"b\": 1.0}},null]}}"));
    assert_eq!(client.answer(7), "{\"b\": 1.0}");

    client.send(&request(8, ECHO, "{\"broken"));
    let (id, message, _) = peer.forwarded();
    assert_eq!(message["body"], json!({}));
    peer.answer(id, json!([{"stack": "Error: boom"}, {"a": 1}, null]));
    assert_eq!(client.answer(8), "{\"a\":1,\"code\":500}");
    client.send(&request(9, ECHO, "{}"));
    let (id, ..) = peer.forwarded();
    peer.answer(id, json!([]));
    assert_eq!(client.answer(9), "{}");

    client.send(&notify(ECHO, "5"));
    let (id, message, _) = peer.forwarded();
    assert_eq!(
        (&message["type"], &message["id"], &message["body"]),
        (&json!(1), &json!(0), &json!(5))
    );
    peer.answer(id, json!([null, {"code": 200}, null]));
    assert_eq!(client.ask(10, LOCAL, ""), number.to_string());
}

/// A session's settings are all that a backend is told of it beside its uid (`sessionService.js` of
/// pomelo 2.2.7, `export`); games put the address there themselves.
#[test]
fn backends_learn_the_clients_address_if_they_are_to() {
    let backend = Server::start();
    let cluster = PomeloCluster::fixed()
        .server("chat-1", "chat", backend.address())
        .server_type("chat", Router::Default);
    let engine = builder(1).address_setting("ip").pomelo(cluster).start().unwrap();
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, ECHO, "{}"));
    let (_, _, session) = peer.forwarded();
    assert_eq!(session["settings"], json!({"ip": "127.0.0.1"}));
}

#[test]
fn answers_come_alone_or_in_batches_and_in_any_order() {
    let backend = Server::start();
    let (engine, _) = engine(&backend.address(), |cluster| cluster);
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    for id in 1..=3 {
        client.send(&request(id, ECHO, "{}"));
    }
    let ids: Vec<u64> = (0..3).map(|_| peer.forwarded().0).collect();
    let batch = json!([
        {"id": ids[2], "resp": [null, 3]}, {"id": 999_999, "resp": [null, 0]}, 5,
        {"id": ids[0], "resp": [null, 1]},
    ]);
    peer.publish("rpc", &batch.to_string());
    peer.answer(ids[1], json!([null, 2]));
    let mut got: Vec<(u32, String)> = Vec::new();
    while got.len() < 3 {
        if let Event::Response { id, body } = client.next() {
            got.push((id, String::from_utf8(body).unwrap()));
        }
    }
    assert_eq!(got, [(3, "3".into()), (1, "1".into()), (2, "2".into())]);
    assert_eq!(engine.handle().counters().cluster_bad_packets, 1);
}

#[test]
fn thousands_of_pipelined_requests_come_back_in_order() {
    const REQUESTS: u32 = 2_000;
    let backend = Server::start();
    let (engine, _) = engine(&backend.address(), |cluster| cluster);
    let mut peer = backend.accept();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::ready(engine.local_addr())).collect();
    for client in &mut clients {
        let all: Vec<u8> =
            (1..=REQUESTS).flat_map(|id| request(id, ECHO, &id.to_string())).collect();
        client.send(&all);
    }
    let answering = std::thread::spawn(move || {
        for _ in 0..3 * REQUESTS {
            let (id, message, _) = peer.forwarded();
            peer.answer(id, json!([null, message["body"], null]));
        }
        peer
    });
    for client in &mut clients {
        for id in 1..=REQUESTS {
            let event = client.next();
            assert_eq!(event, Event::Response { id, body: id.to_string().into_bytes() });
        }
    }
    drop(answering.join().unwrap());
}

/// A client whose session the backend knows, and its number.
fn known(engine: &Engine, peer: &mut Peer) -> (Client, u64) {
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, ECHO, "{}"));
    let (id, _, session) = peer.forwarded();
    peer.answer(id, json!([null, {}, null]));
    client.answer(1);
    (client, session["id"].as_u64().unwrap())
}

#[test]
fn backends_bind_and_write_sessions() {
    let backend = Server::start();
    let (engine, rpc) = engine(&backend.address(), |cluster| cluster);
    let mut peer = backend.accept();
    let mut caller = Peer::connect(rpc);
    let (mut client, sid) = known(&engine, &mut peer);
    let stack =
        |resp: &Value| resp[0]["stack"].as_str().unwrap().lines().next().unwrap().to_owned();

    assert_eq!(caller.call("sessionRemote.bind", json!([sid, "amy"])), json!([]));
    assert_eq!(caller.call("sessionRemote.bind", json!([sid, "amy"])), json!([]));
    let resp = caller.call("sessionRemote.bind", json!([sid, 42]));
    assert_eq!(stack(&resp), "Error: session has already bind with amy");
    let resp = caller.call("sessionRemote.bind", json!([sid + 99, "amy"]));
    assert_eq!(stack(&resp), format!("Error: session does not exist, sid: {}", sid + 99));
    let resp = caller.call("sessionRemote.bind", json!([sid, null]));
    assert_eq!(stack(&resp), "Error: uid is empty or too long");

    assert_eq!(caller.call("sessionRemote.push", json!([sid, "room", 7])), json!([]));
    let settings = json!({"b": {"c": [1]}, "x": null});
    assert_eq!(caller.call("sessionRemote.pushAll", json!([sid, settings])), json!([]));
    let session = json!({"id": sid, "frontendId": "connector-1", "uid": "amy",
                         "settings": {"room": 7, "b": {"c": [1]}, "x": null}});
    let by_sid = caller.call("sessionRemote.getBackendSessionBySid", json!([sid]));
    assert_eq!(by_sid, json!([null, session]));
    let by_uid = caller.call("sessionRemote.getBackendSessionsByUid", json!(["amy"]));
    assert_eq!(by_uid, json!([null, [session]]));
    let none = caller.call("sessionRemote.getBackendSessionBySid", json!([sid + 99]));
    assert_eq!(none, json!([]));
    assert_eq!(caller.call("sessionRemote.getBackendSessionsByUid", json!(["bob"])), json!([]));
    // The next message shows what has been written.
    client.send(&request(2, ECHO, "{}"));
    let (id, _, shown) = peer.forwarded();
    assert_eq!(shown, session);
    peer.answer(id, json!([null, {}]));
    client.answer(2);

    let resp = caller.call("sessionRemote.unbind", json!([sid, "bob"]));
    assert_eq!(stack(&resp), "Error: session has not bind with bob");
    assert_eq!(caller.call("sessionRemote.unbind", json!([sid, "amy"])), json!([]));
    let by_sid = caller.call("sessionRemote.getBackendSessionBySid", json!([sid]));
    assert_eq!(by_sid[1]["uid"], Value::Null);

    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    eventually("the session is gone", || engine.handle().statistics().unwrap().connections == 0);
    eventually("the backend is told so", || {
        let resp = caller.call("sessionRemote.push", json!([sid, "room", 8]));
        resp[0]["stack"].as_str().is_some_and(|text| text.contains("does not exist"))
    });
}

#[test]
fn sessions_of_one_uid_are_found_on_all_shards() {
    let backend = Server::start();
    let (engine, rpc) = engine(&backend.address(), |cluster| cluster);
    let mut caller = Peer::connect(rpc);
    let mut clients: Vec<Client> = (0..8).map(|_| Client::ready(engine.local_addr())).collect();
    for client in &mut clients {
        assert_eq!(client.ask(1, ENTRY, "\"amy\""), "true");
    }
    // No backend has ever seen them.
    let found = caller.call("sessionRemote.getBackendSessionsByUid", json!(["amy"]));
    let sids: Vec<&Value> = found[1].as_array().unwrap().iter().map(|s| &s["id"]).collect();
    assert_eq!(sids.len(), 8);
    let sid = sids[5].clone();
    assert_eq!(caller.call("sessionRemote.push", json!([sid, "a", 1])), json!([]));
    let found = caller.call("sessionRemote.getBackendSessionBySid", json!([sid]));
    assert_eq!(found[1]["settings"], json!({"a": 1}));
    let fails =
        caller.call("channelRemote.pushMessage", json!(["onChat", {"m": 1}, ["amy", "bob"], {}]));
    assert_eq!(fails, json!([null, ["bob"]]));
    for client in &mut clients {
        let push = Event::Push { route: "onChat".into(), body: b"{\"m\":1}".to_vec() };
        assert_eq!(client.next(), push);
    }
    assert_eq!(caller.call("sessionRemote.kickByUid", json!(["amy", "bye"])), json!([]));
    for client in &mut clients {
        assert_eq!(client.until_end(), [Event::Kick(json!({"reason": "bye"}))]);
    }
}

#[test]
fn kicks_have_the_originals_reasons() {
    let backend = Server::start();
    let (engine, rpc) = engine(&backend.address(), |cluster| cluster);
    let mut peer = backend.accept();
    let mut caller = Peer::connect(rpc);
    for (rest, events) in [
        (json!([]), vec![Event::Kick(json!({"reason": "kick"}))]),
        (json!(["bye"]), vec![Event::Kick(json!({"reason": "bye"}))]),
        (json!([null]), vec![]),
    ] {
        let (mut client, sid) = known(&engine, &mut peer);
        let mut args = vec![json!(sid)];
        args.extend(rest.as_array().unwrap().iter().cloned());
        assert_eq!(caller.call("sessionRemote.kickBySid", json!(args)), json!([]));
        assert_eq!(client.until_end(), events);
    }
    assert_eq!(caller.call("sessionRemote.kickBySid", json!([12_345])), json!([]));
    assert_eq!(caller.call("sessionRemote.kickByUid", json!(["nobody"])), json!([]));
}

#[test]
fn broadcasts_reach_all_or_those_that_are_bound() {
    let backend = Server::start();
    let (engine, rpc) = engine(&backend.address(), |cluster| cluster);
    let mut caller = Peer::connect(rpc);
    let mut bound = Client::ready(engine.local_addr());
    assert_eq!(bound.ask(1, ENTRY, "5"), "true");
    let mut unbound = Client::ready(engine.local_addr());
    unbound.ask(1, LOCAL, "");
    let opts = json!({"type": "broadcast", "userOptions": {"binded": true}, "isBroadcast": true,
                      "binded": true});
    assert_eq!(caller.call("channelRemote.broadcast", json!(["onA", 1, opts])), json!([]));
    let opts = json!({"type": "broadcast", "userOptions": {}, "isBroadcast": true});
    assert_eq!(caller.call("channelRemote.broadcast", json!(["onB", 2, opts])), json!([]));
    let push = |route: &str, body: &[u8]| Event::Push { route: route.into(), body: body.to_vec() };
    assert_eq!([bound.next(), bound.next()], [push("onA", b"1"), push("onB", b"2")]);
    assert_eq!(unbound.next(), push("onB", b"2"));
    // A uid that is a number is found by its text, and fails as it came.
    let fails = caller.call("channelRemote.pushMessage", json!(["onC", 3, ["5", 6, "6"], {}]));
    assert_eq!(fails, json!([null, [6, "6"]]));
    assert_eq!(bound.next(), push("onC", b"3"));
    // What can be no uid is named, and the others get it.
    let listed = json!(["5", null, {"a": 1}, "nobody"]);
    let fails = caller.call("channelRemote.pushMessage", json!(["onC", 4, listed, {}]));
    assert_eq!(fails, json!([null, [null, {"a": 1}]]));
    assert_eq!(bound.next(), push("onC", b"4"));
    let resp = caller.call("channelRemote.pushMessage", json!(["onC", null, ["5"], {}]));
    assert!(resp[0]["stack"].as_str().unwrap().starts_with("Error: can not send empty message."));
}

/// What a backend sends waits with itself, and not in memory here.
#[test]
fn while_a_shard_stands_nothing_more_is_read_from_backends() {
    const CALLS: usize = 1_000;
    let (begun, goes_on) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (has_begun, may_go_on) = (Arc::clone(&begun), Arc::clone(&goes_on));
    let (backend, rpc) = (Server::start(), free_address());
    let cluster = PomeloCluster::fixed().server("chat-1", "chat", backend.address());
    let engine = builder(1)
        .limits(Limits { lane_len: 4, ..Limits::default() })
        .handler(LOCAL, move |_, _| {
            has_begun.store(true, Ordering::SeqCst);
            while !may_go_on.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            Reply::empty()
        })
        .pomelo(cluster.listen(rpc.to_string()).server_type("chat", Router::Default))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, LOCAL, "{}"));
    eventually("the shard stands", || begun.load(Ordering::SeqCst));
    let mut caller = Peer::connect(rpc);
    let sent = Arc::<AtomicUsize>::default();
    let counts = Arc::clone(&sent);
    let calls = std::thread::spawn(move || {
        let body = "x".repeat(64 * 1024);
        for id in 0..CALLS as u64 {
            let args = json!(["onA", body, ["nobody"], {}]);
            caller.publish("rpc", &call(id, "channelRemote.pushMessage", args).to_string());
            counts.fetch_add(1, Ordering::SeqCst);
        }
        caller
    });
    let mut before = 0;
    eventually("the backend has to wait, or has sent all", || {
        std::thread::sleep(Duration::from_millis(500));
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    goes_on.store(true, Ordering::SeqCst);
    assert!(before < CALLS / 2, "{before} calls of 64 KiB were read");
    let mut caller = calls.join().unwrap();
    for _ in 0..CALLS {
        assert_eq!(caller.payload()["resp"], json!([null, ["nobody"]]));
    }
}

#[test]
fn calls_in_batches_and_what_is_no_call_are_answered_one_by_one() {
    let backend = Server::start();
    let (_engine, rpc) = engine(&backend.address(), |cluster| cluster);
    let mut caller = Peer::connect(rpc);
    let batch = json!([
        call(1, "sessionRemote.getBackendSessionBySid", json!([1])),
        {"id": 2, "msg": 5},
        call(3, "sessionRemote.constructor", json!([])),
        call(4, "nosuch.method", json!([1])),
        {"id": 5, "msg": {"namespace": "user", "service": "a", "method": "b", "args": []}},
        "garbage",
    ]);
    caller.publish("rpc", &batch.to_string());
    let mut answers = std::collections::BTreeMap::new();
    for _ in 0..6 {
        let answer = caller.payload();
        let text = answer["resp"][0]["stack"].as_str().unwrap_or("").to_owned();
        answers.insert(answer["id"].as_u64(), text.lines().next().unwrap_or("").to_owned());
    }
    let answers: Vec<_> = answers.into_iter().collect();
    assert_eq!(answers[0].0, None, "garbage has no id");
    assert_eq!(answers[1], (Some(1), String::new()));
    assert_eq!(answers[3], (Some(3), "Error: no such method:constructor".into()));
    assert_eq!(answers[4], (Some(4), "Error: no such service:nosuch".into()));
    assert_eq!(answers[5], (Some(5), "Error: no such namespace:user".into()));
    for garbage in ["", "{", "[", "null", "[[]]", "{\"id\":1e999}"] {
        caller.publish("rpc", garbage);
        let answer = caller.payload();
        assert!(answer["resp"][0]["stack"].is_string(), "{garbage}");
    }
    caller.write(&[0xc0, 0]);
    assert_eq!(caller.next(), Packet::Pong);
    // What is no packet ends that connection, and no other.
    let mut other = Peer::connect(rpc);
    caller.write(&[0x30, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(caller.next(), Packet::End);
    other.write(&[0xc0, 0]);
    assert_eq!(other.next(), Packet::Pong);
}

#[test]
fn a_lost_connection_fails_its_calls_at_once_and_is_made_again() {
    let backend = Server::start();
    let (engine, _) = engine(&backend.address(), |cluster| cluster);
    let mut client = Client::ready(engine.local_addr());
    for garbage in [&[0x30, 0xff, 0xff, 0xff, 0xff][..], &[0x30, 1, 0], &[0xe0, 0], b""] {
        let mut peer = backend.accept();
        client.send(&request(1, ECHO, "{}"));
        client.send(&request(2, ECHO, "{}"));
        peer.forwarded();
        peer.forwarded();
        let start = Instant::now();
        match garbage {
            b"" => drop(peer),
            garbage => peer.write(garbage),
        }
        assert_eq!((code(&client.answer(1)), code(&client.answer(2))), (json!(500), json!(500)));
        assert!(start.elapsed() < Duration::from_secs(5), "long before the deadline");
    }
    let mut peer = backend.accept();
    client.send(&request(3, ECHO, "{}"));
    let (id, ..) = peer.forwarded();
    peer.answer(id, json!([null, {"code": 200}]));
    assert_eq!(code(&client.answer(3)), 200);
    assert_eq!(engine.handle().counters().forward_lost, 8);
}

#[test]
fn a_backend_that_is_away_answers_500_and_is_found_when_it_comes() {
    let address = free_address();
    let (engine, _) = engine(&address.to_string(), |cluster| cluster);
    let mut client = Client::ready(engine.local_addr());
    let start = Instant::now();
    assert_eq!(code(&client.ask(1, ECHO, "{}")), 500);
    assert!(start.elapsed() < Duration::from_secs(5), "nobody waits for who is not there");
    let backend = Server::start_at(address);
    let mut peer = backend.accept();
    client.send(&request(2, ECHO, "{}"));
    let (id, ..) = peer.forwarded();
    peer.answer(id, json!([null, {"code": 200}]));
    assert_eq!(code(&client.answer(2)), 200);
}

#[test]
fn a_backend_that_stops_is_answered_for_and_goes_on_when_it_is_back() {
    let backend = Server::start();
    let timeout = Duration::from_millis(1_500);
    let (engine, _) = engine(&backend.address(), |cluster| cluster.call_timeout(timeout));
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    let mut local = Client::ready(engine.local_addr());
    let start = Instant::now();
    let all: Vec<u8> = (1..=1_000).flat_map(|id| request(id, ECHO, "{}")).collect();
    client.send(&all);
    // The others are served meanwhile.
    for id in 1..=50 {
        local.ask(id, LOCAL, "");
    }
    assert!(start.elapsed() < timeout, "local requests wait for nobody");
    for id in 1..=1_000 {
        assert_eq!(code(&client.answer(id)), 500);
    }
    let took = start.elapsed();
    assert!(took >= timeout && took < timeout * 8, "at the deadline, not after {took:?}");
    assert_eq!(engine.handle().counters().forward_timeouts, 1_000);
    // Late answers reach nobody.
    for _ in 0..1_000 {
        let (id, ..) = peer.forwarded();
        peer.answer(id, json!([null, {"late": true}]));
    }
    client.send(&request(2_000, ECHO, "{}"));
    let (id, ..) = peer.forwarded();
    peer.answer(id, json!([null, {"code": 200}]));
    assert_eq!(client.next(), Event::Response { id: 2_000, body: b"{\"code\":200}".to_vec() });
}

#[test]
fn a_connection_without_a_pulse_is_made_again() {
    let backend = Server::start();
    let keepalive = Duration::from_millis(50);
    let (_engine, _) = engine(&backend.address(), |cluster| cluster.keepalive(keepalive));
    let mut peer = backend.accept();
    for _ in 0..3 {
        assert_eq!(peer.next(), Packet::Ping);
        peer.write(&[0xd0, 0]);
    }
    assert_eq!(peer.next(), Packet::Ping);
    assert_eq!(peer.next(), Packet::End);
    assert_eq!(backend.accept().next(), Packet::Ping);
}

#[test]
fn calls_to_a_server_are_bounded() {
    let backend = Server::start();
    let limits = PomeloLimits { calls_max: 5, ..PomeloLimits::default() };
    let (engine, _) = engine(&backend.address(), |cluster| cluster.limits(limits.clone()));
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    for id in 1..=8 {
        client.send(&request(id, ECHO, "{}"));
    }
    for id in 6..=8 {
        assert_eq!(code(&client.answer(id)), 500);
    }
    for _ in 1..=5 {
        let (id, ..) = peer.forwarded();
        peer.answer(id, json!([null, {"code": 200}]));
    }
    for id in 1..=5 {
        assert_eq!(code(&client.answer(id)), 200);
    }
    assert_eq!(engine.handle().counters().forward_rejects, 3);
}

#[test]
fn a_backend_is_told_of_bound_sessions_that_end() {
    let backend = Server::start();
    let (engine, _) = engine(&backend.address(), |cluster| {
        let args = [
            ClosedArg::Uid,
            ClosedArg::FrontendId,
            ClosedArg::Setting("none".into()),
            ClosedArg::SessionId,
            ClosedArg::Session,
        ];
        cluster.on_closed("chat.chatRemote.drop", args)
    });
    let mut peer = backend.accept();
    let mut unbound = Client::ready(engine.local_addr());
    unbound.ask(1, LOCAL, "");
    drop(unbound);
    let mut bound = Client::ready(engine.local_addr());
    let number: u64 = bound.ask(1, LOCAL, "").parse().unwrap();
    assert_eq!(bound.ask(2, ENTRY, "7"), "true");
    drop(bound);
    let told = peer.payload();
    let session = json!({"id": number, "frontendId": "connector-1", "uid": 7, "settings": {}});
    assert_eq!(
        told["msg"],
        json!({"namespace": "user", "serverType": "chat", "service": "chatRemote",
               "method": "drop", "args": [7, "connector-1", null, number, session]})
    );
    // What is told at the end of the engine still goes out.
    let mut last = Client::ready(engine.local_addr());
    assert_eq!(last.ask(1, ENTRY, "\"amy\""), "true");
    engine.shutdown(Drain::now());
    assert_eq!(peer.payload()["msg"]["args"][0], "amy");
}

/// Pomelo itself tells nobody: its games listen to `bind` of the session in the frontend's code
/// (`sessionService.js` of pomelo 2.2.7), and call a remote from there.
#[test]
fn a_backend_is_told_of_sessions_that_get_a_uid() {
    let backend = Server::start();
    let (engine, rpc) = engine(&backend.address(), |cluster| {
        cluster
            .on_bound("chat.chatRemote.enter", [ClosedArg::Uid, ClosedArg::SessionId])
            .on_closed("chat.chatRemote.leave", [ClosedArg::Uid])
    });
    let mut peer = backend.accept();
    let told = |peer: &mut Peer| {
        let msg = peer.payload()["msg"].clone();
        (msg["method"].clone(), msg["args"].clone())
    };
    // By a handler here, before the backend has heard of the session.
    let mut amy = Client::ready(engine.local_addr());
    let number: u64 = amy.ask(1, LOCAL, "").parse().unwrap();
    assert_eq!(amy.ask(2, ENTRY, "\"amy\""), "true");
    assert_eq!(told(&mut peer), (json!("enter"), json!(["amy", number])));
    drop(amy);
    assert_eq!(told(&mut peer), (json!("leave"), json!(["amy"])));
    // By the backend.
    let (_bob, sid) = known(&engine, &mut peer);
    let mut caller = Peer::connect(rpc);
    assert_eq!(caller.call("sessionRemote.bind", json!([sid, "bob"])), json!([]));
    assert_eq!(told(&mut peer), (json!("enter"), json!(["bob", sid])));
}

#[test]
fn what_can_not_be_is_said_at_the_start() {
    let start = |cluster: PomeloCluster| builder(1).pomelo(cluster).start();
    let cluster = || PomeloCluster::fixed().server_type("chat", Router::Default);
    let text = |error: StartError| error.to_string();
    let error = start(PomeloCluster::fixed()).err().map(text).unwrap();
    assert!(error.contains("option `pomelo.server_type` must be given at least once"), "{error}");
    let error = start(cluster().call_timeout(Duration::from_secs(31))).err().map(text).unwrap();
    assert!(error.contains("1 ms to 30000 ms"), "{error}");
    let error = start(cluster().server_type("connector", Router::Default)).err().map(text);
    assert!(error.unwrap().contains("`connector`, which is taken"));
    let taken = Server::start();
    let error = start(cluster().listen(taken.address())).err().map(text).unwrap();
    assert!(error.contains(&taken.address()), "{error}");
    let error = start(
        PomeloCluster::new("127.0.0.1:3005")
            .listen("0.0.0.0:0")
            .server_type("chat", Router::Default),
    );
    assert!(error.err().map(text).unwrap().contains("option `pomelo.advertise`"));
    let limits = Limits { forward_timeout: Duration::from_secs(60), ..Limits::default() };
    let longer = cluster().call_timeout(Duration::from_secs(45));
    assert!(builder(1).limits(limits).pomelo(longer).start().is_ok());
}

/// By whatever a session is bound, the newest login wins with the engine's own reason.
#[test]
fn the_newest_login_wins_whoever_binds() {
    let backend = Server::start();
    let rpc = free_address();
    let cluster = PomeloCluster::fixed()
        .server("chat-1", "chat", backend.address())
        .listen(rpc.to_string())
        .server_type("chat", Router::Default);
    let engine = described(cluster)
        .single_session(OnSecondBind::KickFirst("elsewhere".into()))
        .start()
        .unwrap();
    let mut peer = backend.accept();
    let mut caller = Peer::connect(rpc);
    let kicked = [Event::Kick(json!({"reason": "elsewhere"}))];
    let [(mut first, first_sid), (mut second, second_sid)] =
        [0; 2].map(|_| known(&engine, &mut peer));
    assert_eq!(caller.call("sessionRemote.bind", json!([first_sid, "amy"])), json!([]));
    assert_eq!(caller.call("sessionRemote.bind", json!([second_sid, "amy"])), json!([]));
    assert_eq!(first.until_end(), kicked);
    // Once more for itself: nobody is kicked by that.
    assert_eq!(caller.call("sessionRemote.bind", json!([second_sid, "amy"])), json!([]));
    let found = caller.call("sessionRemote.getBackendSessionsByUid", json!(["amy"]));
    assert_eq!((found[1][0]["id"].as_u64(), &found[1][1]), (Some(second_sid), &Value::Null));
    let mut third = Client::ready(engine.local_addr());
    assert_eq!(third.ask(1, ENTRY, "\"amy\""), "true");
    assert_eq!(second.until_end(), kicked);
    let (mut fourth, sid) = known(&engine, &mut peer);
    assert_eq!(caller.call("sessionRemote.bind", json!([sid, "amy"])), json!([]));
    assert_eq!(third.until_end(), kicked);
    assert!(fourth.ask(3, LOCAL, "").parse::<u64>().is_ok());
    assert_eq!(engine.handle().counters().sessions_replaced, 3);
}
