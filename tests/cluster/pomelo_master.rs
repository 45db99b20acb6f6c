//! A Pomelo cluster whose master is played by the test: the servers it tells of, its admin console,
//! and what happens when it is away.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::{Engine, PomeloCluster, Router};
use support::pomelo::{Packet, Peer, Server, free_address};
use support::{Client, eventually, request};

use crate::pomelo::{ECHO, LOCAL, code, start};

/// An engine that follows a master, in the order of round robin, and where backends call it.
fn following(master: &Server) -> (Engine, SocketAddr) {
    let rpc = free_address();
    let cluster = PomeloCluster::new(master.address())
        .token("secret")
        .listen(rpc.to_string())
        .env("plain")
        .server_type("chat", Router::RoundRobin);
    (start(cluster), rpc)
}

fn entry(id: &str, server: &Server) -> Value {
    json!({"id": id, "serverType": "chat", "host": "127.0.0.1", "port": server.port()})
}

/// Plays the master until the engine has joined; what the engine has said of itself.
fn join(master: &Server, servers: Value) -> (Peer, Value) {
    let mut peer = master.accept();
    peer.write(&[0x20, 2, 0, 0]);
    let (topic, registration) = peer.heard();
    assert_eq!(topic, "register");
    peer.publish("register", r#"{"code":1,"msg":"ok"}"#);
    let (topic, subscription) = peer.heard();
    assert_eq!(topic, "monitor");
    let body = json!({"action": "subscribe", "id": "connector-1"});
    assert_eq!(subscription, json!({"reqId": 1, "moduleId": "__masterwatcher__", "body": body}));
    peer.say(json!({"respId": 1, "error": null, "body": servers}));
    let (_, record) = peer.heard();
    let body = json!({"action": "record", "id": "connector-1"});
    assert_eq!(record, json!({"moduleId": "__masterwatcher__", "body": body}));
    (peer, registration)
}

/// A request of the master's about servers, and the signal that answers it.
fn asked(peer: &mut Peer, id: u64, body: Value) -> Value {
    peer.say(json!({"reqId": id, "moduleId": "__monitorwatcher__", "body": body}));
    let (_, answer) = peer.heard();
    assert_eq!(answer["respId"], id);
    answer["error"].clone()
}

/// Asks until a server gets the request, which it answers.
fn answered_by(client: &mut Client, servers: &mut [&mut Peer], wanted: usize) {
    let wait = Duration::from_millis(20);
    eventually("the server is used", || {
        client.send(&request(2, ECHO, "{}"));
        let called = (0..servers.len()).cycle().find_map(|at| {
            let packet = servers[at].next_within(wait)?;
            let Packet::Publish { payload, .. } = packet else { panic!("{packet:?}") };
            servers[at].answer(payload["id"].as_u64().unwrap(), json!([null, {"code": 200}]));
            Some(at)
        });
        assert_eq!(code(&client.answer(2)), 200);
        called == Some(wanted)
    });
}

#[test]
fn the_master_says_which_servers_there_are() {
    let (master, first, second) = (Server::start(), Server::start(), Server::start());
    let (engine, rpc) = following(&master);
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(code(&client.ask(1, ECHO, "{}")), 500, "there is no server yet");
    let servers = json!({
        "chat-1": entry("chat-1", &first),
        "area-1": {"id": "area-1", "serverType": "area", "host": "h", "port": 1},
        "connector-1": {"id": "connector-1", "serverType": "connector", "host": "h", "port": 2},
    });
    let (mut peer, registration) = join(&master, servers);
    let info = json!({"id": "connector-1", "serverType": "connector", "host": "127.0.0.1",
        "port": rpc.port(), "clientHost": "127.0.0.1", "clientPort": engine.local_addr().port(),
        "frontend": "true", "env": "plain"});
    let pid = std::process::id();
    assert_eq!(
        registration,
        json!({"id": "connector-1", "type": "monitor", "serverType": "connector", "pid": pid,
               "info": info, "token": "secret"})
    );
    let mut one = first.accept();
    answered_by(&mut client, &mut [&mut one], 0);
    let add = json!({"action": "addServer", "server": entry("chat-2", &second)});
    assert_eq!(asked(&mut peer, 15, add), 1);
    let mut two = second.accept();
    answered_by(&mut client, &mut [&mut one, &mut two], 1);
    assert_eq!(asked(&mut peer, 16, json!({"action": "removeServer", "id": "chat-1"})), 1);
    assert_eq!(one.next(), Packet::End);
    answered_by(&mut client, &mut [&mut two], 0);
    assert_eq!(asked(&mut peer, 17, json!({"action": "startOver"})), 1);
    assert_eq!(asked(&mut peer, 18, json!({"action": "nonsense"})), 0);
    peer.say(json!({"reqId": 19, "moduleId": "systemInfo", "body": {}}));
    assert_eq!(peer.heard().1["error"], "unknown moduleId:systemInfo");
}

/// What the master sends for `pomelo list`, `pomelo stop ID` and `pomelo kill`, and how the modules
/// of a Node server answer: `lib/modules/console.js` of pomelo 2.2.7. Without an answer `pomelo
/// list` itself fails, as it takes every answer apart.
#[test]
fn the_admin_console_lists_and_stops_a_server() {
    let master = Server::start();
    let (stopped, stops) = std::sync::mpsc::channel();
    let cluster = PomeloCluster::new(master.address())
        .server_type("chat", Router::Default)
        .on_stop(move || stopped.send(()).unwrap());
    let _engine = start(cluster);
    let (mut peer, _) = join(&master, json!({}));
    let ask = |peer: &mut Peer, id: u64, signal: &str| {
        peer.say(json!({"reqId": id, "moduleId": "__console__", "body": {"signal": signal}}));
        let (_, answer) = peer.heard();
        assert_eq!(answer["respId"], id);
        answer["error"].clone()
    };
    let listed = ask(&mut peer, 1, "list");
    assert_eq!(listed["serverId"], "connector-1");
    let body = &listed["body"];
    assert_eq!(
        (&body["serverId"], &body["serverType"]),
        (&json!("connector-1"), &json!("connector"))
    );
    assert_eq!(body["pid"], std::process::id());
    let megabytes: f64 = body["rss"].as_str().unwrap().parse().unwrap();
    assert!(megabytes > 1.0);
    assert!(["heapTotal", "heapUsed", "uptime"].iter().all(|key| body[key].is_string()));
    assert_eq!(ask(&mut peer, 2, "restart"), Value::Null);
    assert!(stops.try_recv().is_err());
    // A notify, which has no id.
    peer.publish(
        "monitor",
        &json!({"moduleId": "__console__", "body": {"signal": "stop"}}).to_string(),
    );
    stops.recv_timeout(support::PATIENCE).unwrap();
    assert_eq!(ask(&mut peer, 3, "kill"), "connector-1");
    stops.recv_timeout(support::PATIENCE).unwrap();
}

/// Gates pick a connector with `app.getServersByType` and hand its entry's `clientHost` to players,
/// as the original's example games do; the entry is what the server has registered with.
#[test]
fn a_servers_entry_says_where_players_connect() {
    let master = Server::start();
    let cluster = PomeloCluster::new(master.address())
        .server_type("chat", Router::Default)
        .client_host("play.example")
        .client_port(443)
        .server_info("wsHost", "wss.play.example")
        .server_info("zones", json!([1, {"a": 2}]));
    let _engine = start(cluster);
    let (_, registration) = join(&master, json!({}));
    let info = &registration["info"];
    assert_eq!((&info["host"], &info["frontend"]), (&json!("127.0.0.1"), &json!("true")));
    assert_eq!((&info["clientHost"], &info["clientPort"]), (&json!("play.example"), &json!(443)));
    assert_eq!(
        (&info["wsHost"], &info["zones"]),
        (&json!("wss.play.example"), &json!([1, {"a": 2}]))
    );
}

/// Without a word on it, it is where the clients' listener is and not where backends call.
#[test]
fn an_entry_names_the_listener_of_clients() {
    let master = Server::start();
    let cluster = PomeloCluster::new(master.address())
        .server_type("chat", Router::Default)
        .advertise("10.0.0.5");
    let _engine = start(cluster);
    let (_, registration) = join(&master, json!({}));
    assert_eq!(registration["info"]["host"], "10.0.0.5");
    assert_eq!(registration["info"]["clientHost"], "127.0.0.1");
}

#[test]
fn everything_goes_on_without_the_master_until_it_is_back() {
    let (master, backend) = (Server::start(), Server::start());
    let (engine, _) = following(&master);
    let is_up = |expected: (bool, u64)| {
        let metrics = engine.handle().metrics().unwrap();
        let up = metrics.server_types.iter().map(|kind| kind.up).sum();
        // The cluster's thread has to have begun.
        let coordinators = metrics.clusters.first().map(|cluster| &*cluster.coordinators);
        (coordinators, up) == (Some(&[("master", expected.0)][..]), expected.1)
    };
    eventually("nothing is told to be up", || is_up((false, 0)));
    assert!(!engine.handle().unready().is_empty());
    let (peer, registration) = join(&master, json!({"chat-1": entry("chat-1", &backend)}));
    let mut one = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    eventually("all is told to be up", || is_up((true, 1)));
    assert!(engine.handle().unready().is_empty());
    drop(peer);
    eventually("the master is told to be down", || is_up((false, 1)));
    assert!(engine.handle().unready().is_empty(), "what is known serves on");
    answered_by(&mut client, &mut [&mut one], 0);
    let mut peer = master.accept();
    peer.write(&[0x20, 2, 0, 0]);
    let (topic, again) = peer.heard();
    assert_eq!(topic, "reconnect");
    for key in ["id", "type", "serverType", "info"] {
        assert_eq!(again[key], registration[key]);
    }
    peer.publish("reconnect_ok", r#"{"code":1,"msg":"ok"}"#);
    // It has forgotten chat-1, which has not come back to it yet: that one is kept for a while.
    let replace = json!({"action": "replaceServer", "servers": {"connector-1": again["info"]}});
    assert_eq!(asked(&mut peer, 20, replace), 1);
    answered_by(&mut client, &mut [&mut one], 0);
}

#[test]
fn a_master_that_refuses_is_asked_again() {
    let master = Server::start();
    let engine = start(PomeloCluster::new(master.address()).server_type("chat", Router::Default));
    for _ in 0..2 {
        let mut peer = master.accept();
        peer.write(&[0x20, 2, 0, 0]);
        assert_eq!(peer.heard().0, "register");
        peer.publish("register", r#"{"code":-1,"msg":"server auth failed"}"#);
        assert_eq!(peer.next(), Packet::End);
    }
    let mut client = Client::ready(engine.local_addr());
    client.ask(1, LOCAL, "");
}
