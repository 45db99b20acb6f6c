//! One hostile client in front of backends that have stopped: what it forwards is bounded in bytes,
//! and others are served meanwhile.

use shaddock::{PomeloCluster, PomeloLimits, Reply, Router};
use support::alone::{is_alone, resident_bytes};
use support::pomelo::{Peer, Server, free_address};
use support::{Client, builder, notify};

const MIB: usize = 1024 * 1024;
const BACKENDS: usize = 24;
const TOTAL_BYTES_MAX: usize = 16 * MIB;
/// Above what is bounded: a few messages on their way through the engine, and what the allocator
/// keeps. Without the bound there would be BACKENDS * 8 MiB.
const REST_BYTES: usize = 48 * MIB;
/// A server type without a server.
const NOBODYS: &str = "area";
const LOCAL: &str = "connector.entryHandler.local";

/// A stopped process (SIGSTOP) keeps its connections: the kernel accepts and takes what its buffers
/// have room for. A backend that does not read stands for it.
#[test]
fn a_hostile_client_takes_no_more_memory_than_is_said() {
    if !is_alone("pomelo_memory::a_hostile_client_takes_no_more_memory_than_is_said") {
        return;
    }
    let backends: Vec<Server> = (0..BACKENDS).map(|_| Server::start()).collect();
    let limits = PomeloLimits {
        output_total_bytes_max: TOTAL_BYTES_MAX,
        output_bytes_max: 8 * MIB,
        ..PomeloLimits::default()
    };
    let mut cluster = PomeloCluster::fixed()
        .listen(free_address().to_string())
        .server_type("chat", Router::RoundRobin)
        .server_type(NOBODYS, Router::RoundRobin)
        .limits(limits);
    for (place, backend) in backends.iter().enumerate() {
        cluster = cluster.server(format!("chat-{place}"), "chat", backend.address());
    }
    let engine = builder(1).handler(LOCAL, |_, _| Reply::json(&1)).pomelo(cluster).start().unwrap();
    let _stopped: Vec<Peer> = backends.iter().map(Server::accept).collect();

    let mut hostile = Client::ready(engine.local_addr());
    let mut other = Client::ready(engine.local_addr());
    let before = resident_bytes();
    let message = notify("chat.chatHandler.send", &format!("\"{}\"", "x".repeat(MIB)));
    let mut peak = 0;
    // The kernel's buffers take some, then the engine's do, then all is refused. For a type without
    // servers the cluster's thread answers, behind the message: so none wait in the lane to it.
    let rejects = || engine.handle().counters().forward_rejects;
    for id in 1..=2_000 {
        hostile.send(&message);
        hostile.ask(id, &format!("{NOBODYS}.handler.none"), "");
        peak = peak.max(resident_bytes());
        if rejects() >= 50 {
            break;
        }
    }
    assert!(rejects() >= 50, "not all of it can be sent");
    other.ask(1, LOCAL, "");
    let more = peak.saturating_sub(before);
    assert!(more < TOTAL_BYTES_MAX + REST_BYTES, "{} MiB", more / MIB);
}
