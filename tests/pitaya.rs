//! A Pitaya cluster of real nats-server and etcd, whose backends speak its protocol as written
//! down: what is forwarded and answered, what backends ask of sessions, and what happens when one
//! of them is away. Without nats-server and etcd nothing is tried, and says so.

#![cfg(feature = "pitaya")]

#[path = "../examples/pitaya_backend.rs"]
#[allow(dead_code, unreachable_pub)] // Its `main` is the example's.
mod backend;
#[path = "common/pitaya.rs"]
#[allow(dead_code, unreachable_pub)] // Not all of it yet.
mod cluster;
mod common;

use std::time::Duration;

use cluster::{BACKEND, Cluster};
use common::{Client, builder, eventually, notify};
use serde_json::{Value, json};
use shaddock::{Drain, Engine, PitayaCluster, Reply, Uid};

const ECHO: &str = "room.room.echo";
const LOCAL: &str = "connector.entry.local";
const ENTRY: &str = "connector.entry.bind";

fn start(cluster: PitayaCluster) -> Engine {
    builder(2)
        .handler(LOCAL, |_, session| Reply::json(&session.number()))
        .async_handler(ENTRY, |request, mut session| async move {
            let uid = Uid::try_from(&request.value()).unwrap();
            Reply::json(&session.bind(uid).await.is_ok())
        })
        .pitaya(cluster)
        .start()
        .unwrap()
}

/// Waits until requests are answered by a backend.
fn wait_until_forwarded(client: &mut Client) {
    eventually("requests are answered", || client.ask(1, ECHO, "\"ready\"") == "\"ready\"");
}

/// The backend, when this is its process.
#[test]
fn the_backends_process() {
    if let Ok(words) = std::env::var(BACKEND) {
        let words = words.split(' ').map(str::to_owned);
        backend::run(backend::Options::parse(words).unwrap());
    }
}

#[test]
fn messages_are_forwarded_and_answered() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = start(cluster.description().server_id("front-1").metadata("region", "eu"));
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);

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

    let known = cluster.servers("connector");
    assert_eq!(known.len(), 1);
    assert_eq!((&known[0]["id"], &known[0]["frontend"]), (&json!("front-1"), &json!(true)));
    assert_eq!(known[0]["metadata"], json!({"region": "eu"}));
    engine.shutdown(Drain::within(Duration::from_secs(1)));
    assert_eq!(cluster.servers("connector"), [Value::Null; 0]);
}
