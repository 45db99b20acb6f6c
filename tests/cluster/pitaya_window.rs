//! Backends of a Pitaya cluster that read through a channel of 75 messages and drop what does not
//! fit, as Pitaya's own do at their defaults: however much comes at once, nothing is lost. And what
//! waits for them is bounded in bytes, whether they read or not.

use std::io::Write as _;
use std::time::Duration;

use flate2::write::ZlibEncoder;
use shaddock::wire::package::PackageType;
use shaddock::{Dialect, Engine, Listener, PitayaCluster};
use support::alone::{is_alone, resident_bytes};
use support::{Client, Event, builder, eventually, notify, package, request};

use crate::nats_and_etcd::{Cluster, ECHO, wait_until_forwarded};

fn start(cluster: PitayaCluster) -> Engine {
    builder(2).pitaya(cluster).start().unwrap()
}

/// Of 110 in one write a real backend at its defaults loses a third, if they all come at once.
#[test]
fn a_burst_of_one_client_is_answered_whole_and_in_order() {
    const REQUESTS: u32 = 110;
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = start(cluster.description().request_timeout(Duration::from_secs(2)));
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    let all: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, ECHO, &id.to_string())).collect();
    for _ in 0..15 {
        client.send(&all);
        for id in 1..=REQUESTS {
            let event = client.next();
            assert_eq!(event, Event::Response { id, body: id.to_string().into_bytes() });
        }
    }
}

#[test]
fn a_thousand_clients_with_a_request_each_are_all_answered() {
    const CLIENTS: usize = 1_000;
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = start(cluster.description());
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client::ready(engine.local_addr())).collect();
    wait_until_forwarded(&mut clients[0]);
    let one = request(2, ECHO, "2");
    clients.iter_mut().for_each(|client| client.send(&one));
    for client in &mut clients {
        assert_eq!(client.answer(2), "2");
    }
    assert_eq!(engine.handle().counters().forward_timeouts, 0);
}

#[test]
fn a_thousand_notifies_all_arrive() {
    const NOTIFIES: u64 = 1_000;
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let engine = start(cluster.description());
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    let handled = |client: &mut Client| client.ask_json(2, "room.room.count", "").as_u64().unwrap();
    let before = handled(&mut client);
    let all: Vec<u8> = (0..NOTIFIES).flat_map(|_| notify(ECHO, "5")).collect();
    client.send(&all);
    // It waits behind them.
    assert_eq!(handled(&mut client), before + NOTIFIES + 1);
}

/// A notify whose body of a megabyte has a thousand bytes on its way here.
fn bomb() -> Vec<u8> {
    let body = ["{\"a\":\"", &"a".repeat(1_000_000), "\"}"].concat();
    let mut zlib = ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(body.as_bytes()).unwrap();
    let body = zlib.finish().unwrap();
    assert!(body.len() < 1_100);
    let route = "room.room.length";
    let message = [&[0x12, route.len() as u8], route.as_bytes(), &body].concat();
    package(PackageType::Data, &message)
}

/// Floods with bodies of a megabyte, ten in a write; how much memory that has taken at most.
fn flooded_bytes(engine: &Engine) -> usize {
    const TENS: u64 = 20;
    let (before, notifies) = (resident_bytes(), engine.handle().counters().notifies);
    let mut client = Client::ready(engine.local_addrs()[1]);
    let ten = bomb().repeat(10);
    (0..TENS).for_each(|_| client.send(&ten));
    let mut most = 0;
    // Without optimizations it takes its time to inflate them all.
    for tens in 1..=TENS {
        eventually("ten more are read", || {
            most = most.max(resident_bytes());
            engine.handle().counters().notifies >= notifies + 10 * tens
        });
    }
    most.saturating_sub(before)
}

/// What clients of Pitaya's dialect send compressed is bounded by what it becomes, by default: on
/// its way to a backend that reads, in the queue to one that is stopped, and before a NATS that is.
#[test]
fn bodies_of_a_megabyte_wait_within_bounds() {
    if !is_alone("pitaya_window::bodies_of_a_megabyte_wait_within_bounds") {
        return;
    }
    // `bytes_max`, what NATS's client holds, one body in the shard, and what an allocator keeps.
    const BYTES_MAX: usize = 160 << 20;
    let Some(cluster) = Cluster::start() else { return };
    let backend = cluster.backend("room", "room-1");
    let pitaya = Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya);
    let engine = builder(1).listen(pitaya).pitaya(cluster.description()).start().unwrap();
    let mut bystander = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut bystander);
    let healthy = flooded_bytes(&engine);
    backend.signal("STOP");
    let stopped = flooded_bytes(&engine);
    cluster.signal_nats("STOP");
    let stuck = flooded_bytes(&engine);
    let taken = [healthy, stopped, stuck].map(|bytes| bytes >> 20);
    println!("healthy, with a stopped backend, with a stopped NATS: {taken:?} MiB");
    assert!(taken.iter().all(|taken| *taken < BYTES_MAX >> 20), "{taken:?} MiB");
    assert!(engine.handle().counters().forward_rejects > 0);
    cluster.signal_nats("CONT");
    backend.signal("CONT");
    wait_until_forwarded(&mut bystander);
}
