//! Bounds in bytes on what a shard keeps for its sessions.

use super::lane::{CHAT, Chat, FAILED};
use super::*;
use crate::dispatch::Reply;
use crate::forward::LaneFull;

const WAIT: &str = "connector.entryHandler.wait";
const BODY: usize = 1_000;

/// Eight messages go into a lane, or into a session's share, and sixteen into the shard.
fn limits() -> Limits {
    Limits {
        package_bytes_max: 2 * BODY,
        handshake_package_bytes_max: 2 * BODY,
        lane_bytes_max: 8 * BODY,
        in_flight_bytes_per_session_max: 8 * BODY,
        outbox_bytes_max: 8 * BODY,
        shard_bytes_max: 16 * BODY,
        ..Limits::default()
    }
}

/// Registers a handler that never answers, beside the usual ones.
fn waiting(registered: &mut Handlers) {
    handlers(registered);
    registered.handler(WAIT, |_, _| Reply::later(std::future::pending()));
}

fn chat(lane_full: LaneFull, limits: Limits) -> Chat {
    Chat::within(lane_full, limits, waiting)
}

fn body() -> String {
    "x".repeat(BODY)
}

fn notify(route: &str) -> Vec<u8> {
    let (kind, route, body) = (MessageType::Notify, RouteRef::Text(route.as_bytes()), body());
    let message = Message { id: 0, kind, route: Some(route), body: body.as_bytes(), gzip: false };
    let mut out = Vec::new();
    message::encode(&message, &mut out).unwrap();
    package(PackageType::Data, &out)
}

fn many(count: usize, message: &[u8]) -> Vec<u8> {
    message.repeat(count)
}

/// A worker that does not read: requests and notifies alike are refused above the lane's bytes,
/// and one session leaves as much to others as it has.
#[test]
fn a_lane_is_bounded_in_bytes() {
    for message in [notify(CHAT), request(7, CHAT, &body())] {
        let mut chat = chat(LaneFull::Reject, limits());
        let [greedy, other, small] = [(); 3].map(|()| chat.rig.ready());
        chat.rig.receive(greedy, &many(50, &message));
        let counters = chat.rig.counters();
        assert_eq!((counters.forwards, counters.forward_rejects), (4, 46), "half of the lane");
        chat.rig.receive(other, &many(50, &message));
        let counters = chat.rig.counters();
        assert_eq!(counters.forwards, 6, "half of what was left");
        chat.rig.receive(small, &request(9, CHAT, "1"));
        assert_eq!(chat.rig.counters().forwards, 7, "a little always finds room");
        assert!(chat.rig.shard.connections().kept_bytes() <= 8 * BODY + 1);
        chat.answer(99);
        chat.expect_rest();
        chat.rig.receive(greedy, &message);
        assert_eq!(chat.rig.counters().forwards, 8);
        chat.answer(1);
        chat.expect_rest();
    }
}

/// A message that nobody waits for any more stays in the lane as long as its worker stands.
#[test]
fn a_deadline_gives_no_lane_back() {
    let mut chat = chat(LaneFull::Reject, limits());
    let session = chat.rig.ready();
    for _ in 0..10 {
        chat.rig.receive(session, &many(50, &notify(CHAT)));
        chat.rig.pass(Limits::default().forward_timeout.as_millis() as u64 + STEP_MS);
    }
    assert!(chat.rig.counters().forwards <= 8, "{:?}", chat.rig.counters());
    chat.answer(99);
    chat.expect_rest();
}

#[test]
fn a_message_waits_for_bytes_where_the_lane_pauses() {
    let mut chat = chat(LaneFull::Pause, limits());
    let session = chat.rig.ready();
    let ids = 1..=20;
    let requests: Vec<u8> = ids.clone().flat_map(|id| request(id, CHAT, &body())).collect();
    chat.rig.receive(session, &requests);
    assert_eq!(chat.rig.shard.forwarder().lane_waits().len(), 1);
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let more = chat.answer(2);
        assert!(!more.is_empty(), "{seen:?}");
        seen.extend(more);
    }
    assert_eq!(seen, ids.collect::<Vec<_>>());
    assert_eq!(chat.rig.counters().forward_rejects, 0);
    chat.expect_rest();
}

/// A session's messages in a long lane, and those in futures, count together.
#[test]
fn a_session_is_bounded_in_bytes() {
    let mut chat = chat(LaneFull::Reject, Limits { lane_bytes_max: 1 << 20, ..limits() });
    let session = chat.rig.ready();
    chat.rig.receive(session, &many(3, &request(1, WAIT, &body())));
    chat.rig.receive(session, &many(50, &notify(CHAT)));
    chat.rig.receive(session, &request(2, WAIT, &body()));
    let counters = chat.rig.counters();
    assert_eq!((counters.forwards, counters.session_in_flight_rejects), (5, 46));
    assert_eq!(chat.rig.sent[0], response(2, FAILED));
    assert_eq!(chat.rig.shard.connections().kept_bytes(), 8 * BODY);
    chat.answer(99);
    assert_eq!(chat.rig.shard.connections().kept_bytes(), 3 * BODY);
}

/// Sixteen bodies are the shard's: a session gets half of them, the next half of the rest.
#[test]
fn the_sessions_of_a_shard_are_bounded_together() {
    let limits = Limits { in_flight_bytes_per_session_max: 1 << 20, ..limits() };
    let mut chat = chat(LaneFull::Reject, limits);
    let sessions: Vec<SessionId> = (0..12).map(|_| chat.rig.ready()).collect();
    for session in &sessions {
        chat.rig.receive(*session, &many(50, &request(1, WAIT, &body())));
        assert!(chat.rig.shard.connections().kept_bytes() <= 16 * BODY);
    }
    let rejects = chat.rig.counters().memory_rejects;
    assert_eq!(rejects, 50 * 12 - 8 - 4 - 2 - 1 - 1, "{:?}", chat.rig.counters());
    // Who leaves gives back nothing before its futures end, but no other is cut off.
    chat.rig.receive(sessions[5], &request(3, ECHO, "1"));
    assert!(chat.rig.sent[5].ends_with(&response(3, "1")));
}

/// Answers that are not read, and packages that never become whole, are closed for.
#[test]
fn input_and_output_count_above_a_floor() {
    const LARGE: usize = 4 * UNCOUNTED_BYTES;
    let limits = Limits {
        package_bytes_max: LARGE,
        lane_bytes_max: LARGE,
        in_flight_bytes_per_session_max: LARGE,
        outbox_bytes_max: 2 * LARGE,
        shard_bytes_max: 4 * LARGE,
        ..Limits::default()
    };
    let mut chat = chat(LaneFull::Reject, limits);
    let large = "x".repeat(LARGE - 100);
    let package = request(1, ECHO, &large);
    let begun = &package[..package.len() - 1];
    let sessions: Vec<SessionId> = (0..8).map(|_| chat.rig.ready()).collect();
    for session in &sessions {
        chat.rig.receive(*session, begun);
    }
    let kept = chat.rig.shard.connections().kept_bytes();
    assert!((LARGE..=4 * LARGE).contains(&kept), "{kept}");
    let closed = chat.rig.counters().closed_memory;
    assert!((4..8).contains(&closed), "{closed}");
    for session in &sessions {
        chat.rig.receive(*session, &package[package.len() - 1..]);
    }
    assert_eq!(chat.rig.counters().answers, 8 - closed);
    chat.expect_rest();

    chat.rig.holds_sends = true;
    for session in &sessions {
        chat.rig.receive(*session, &package);
        chat.rig.receive(*session, &package);
    }
    assert!(chat.rig.shard.connections().kept_bytes() <= 4 * LARGE);
    assert!(chat.rig.counters().closed_memory > closed);
}
