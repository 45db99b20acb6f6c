//! Handshakes that wait for the embedder's future.

use super::*;
use crate::dispatch::handshake::{Handshake, HandshakeCheck};
use crate::dispatch::verdict::{Admitted, Refusal, Welcome};

/// A handshake's future takes that long.
const TAKES_MS: u64 = 300;

/// Futures that are alive.
type Alive = Arc<()>;

/// A shard whose handshakes take [`TAKES_MS`]; `user` says what they come to.
fn rig(limits: Limits) -> (Rig, Alive) {
    async fn check(handshake: Handshake, alive: Alive) -> Admitted {
        let takes = match handshake.user().and_then(|user| user.as_str()) {
            Some("at once") => None,
            Some("never") => Some(Duration::from_secs(1_000_000)),
            _ => Some(Duration::from_millis(TAKES_MS)),
        };
        if let Some(takes) = takes {
            handshake.context().sleep(takes).await;
        }
        drop(alive);
        match handshake.user().and_then(|user| user.as_str()) {
            Some("refuse") => Err(Refusal::code(401).text("no")),
            Some("panic") => panic!("on purpose"),
            _ => Ok(Welcome::user(7).setting("name", "amy")),
        }
    }
    let alive = Alive::default();
    let held = Arc::clone(&alive);
    let later = move |handshake| -> std::pin::Pin<Box<dyn Future<Output = Admitted>>> {
        Box::pin(check(handshake, Arc::clone(&held)))
    };
    let routes = RouteTable::new([ECHO, NAME].map(str::to_owned), None, None);
    let register: Register = Arc::new(|all| {
        handlers(all);
        all.handler(NAME, |_, session| Reply::json(&session.get("name")));
        all.on_session_opened(|session, context| {
            assert_eq!(session.setting("name").unwrap(), "amy");
            context.send(session.id, "onOpen", "1").unwrap();
        });
    });
    let config = ShardConfig {
        limits,
        handshake: Some(HandshakeCheck::Later(Arc::new(later))),
        ..ShardConfig::bare(routes, None, register)
    };
    (Rig::of(config, &Hub::new(1, 0, HubLimits { lane_len: 16, inbox_len: 16 })), alive)
}

const NAME: &str = "connector.entryHandler.name";

fn asks(user: &str) -> Vec<u8> {
    package(PackageType::Handshake, format!(r#"{{"sys":{{}},"user":"{user}"}}"#).as_bytes())
}

fn alive(alive: &Alive) -> usize {
    // The one that asks, and the callback.
    Arc::strong_count(alive) - 2
}

fn push(route: &str, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let route = Some(RouteRef::Text(route.as_bytes()));
    let (kind, body) = (MessageType::Push, body.as_bytes());
    message::encode(&Message { id: 0, kind, route, body, gzip: false }, &mut out).unwrap();
    package(PackageType::Data, &out)
}

fn text(rig: &Rig, socket: usize) -> String {
    String::from_utf8_lossy(&rig.sent[socket]).into_owned()
}

fn kept(rig: &Rig) -> (usize, usize) {
    let dispatcher = rig.shard.dispatcher();
    (dispatcher.admissions_len(), rig.shard.connections().budgets().held_bytes())
}

#[test]
fn what_is_pipelined_behind_a_handshake_waits_for_its_future() {
    for user in ["later", "at once"] {
        let (mut rig, futures) = rig(Limits::default());
        let session = rig.accept().unwrap();
        let stream = [asks(user), ack(), request(1, NAME, ""), request(2, ECHO, "2")].concat();
        for piece in [&stream[..], &request(3, ECHO, "3")] {
            rig.receive(session, piece);
        }
        if user == "later" {
            assert_eq!((rig.sent[0].len(), alive(&futures), kept(&rig).0), (0, 1, 1));
            rig.pass(TAKES_MS - STEP_MS);
            assert!(rig.sent[0].is_empty());
            rig.pass(STEP_MS);
        }
        let answer = package(PackageType::Handshake, br#"{"code":200,"sys":{},"user":7}"#);
        let rest =
            [push("onOpen", "1"), response(1, "\"amy\""), response(2, "2"), response(3, "3")];
        assert_eq!(text(&rig, 0), String::from_utf8_lossy(&[answer, rest.concat()].concat()));
        assert_eq!((alive(&futures), kept(&rig)), (0, (0, 0)));
        assert_eq!(rig.counters().handshakes, 1);
    }
}

#[test]
fn a_future_refuses_with_a_code_and_a_text_or_by_a_panic() {
    for (user, body) in [("refuse", r#"{"code":401,"msg":"no"}"#), ("panic", r#"{"code":500}"#)] {
        let (mut rig, futures) = rig(Limits::default());
        let session = rig.accept().unwrap();
        rig.receive(session, &[asks(user), ack()].concat());
        rig.pass(TAKES_MS);
        assert_eq!(rig.sent[0], package(PackageType::Handshake, body.as_bytes()));
        assert_eq!(rig.commands.last(), Some(&Command::FinishWriting(SocketIndex(0))));
        assert_eq!((alive(&futures), kept(&rig)), (0, (0, 0)));
        assert_eq!((rig.counters().refused_handshake, rig.counters().handshakes), (1, 0));
    }
}

/// Its socket is read on while nothing comes, so the end shows; what it has sent does not keep it.
#[test]
fn the_future_of_a_client_that_leaves_is_dropped() {
    for (more, end) in [
        (Vec::new(), ReceiveEnd::Eof),
        (Vec::new(), ReceiveEnd::Error),
        ([ack(), request(1, ECHO, "1")].concat(), ReceiveEnd::Eof),
    ] {
        let (mut rig, futures) = rig(Limits::default());
        let session = rig.accept().unwrap();
        rig.receive(session, &asks("never"));
        rig.receive(session, &more);
        assert_eq!(rig.commands, [], "it is read on");
        assert_eq!((alive(&futures), kept(&rig).0), (1, 1));
        rig.turn(|shard| shard.handle_receive_end(session, end));
        assert_eq!((alive(&futures), kept(&rig)), (0, (0, 0)));
        assert_eq!(rig.shard.tasks_alive(), 0);
        assert!(rig.sent[0].is_empty());
        assert_eq!(rig.counters().closed_by_peer, 1);
    }
}

#[test]
fn the_deadline_of_a_handshake_counts_while_its_future_runs() {
    for more in [Vec::new(), ack(), vec![ack(); 2_000].concat()] {
        let limits = Limits { handshake_timeout: Duration::from_secs(2), ..Limits::default() };
        let (mut rig, futures) = rig(limits);
        let session = rig.accept().unwrap();
        rig.pass(1_000);
        rig.receive(session, &asks("never"));
        rig.receive(session, &more);
        rig.pass(1_000 - STEP_MS);
        assert_eq!(alive(&futures), 1);
        rig.pass(STEP_MS + LATE_MS);
        assert_eq!((alive(&futures), kept(&rig)), (0, (0, 0)));
        assert_eq!(rig.counters().closed_handshake_timeout, 1);
        assert_eq!(rig.commands.last(), Some(&Command::Close(SocketIndex(0))));
    }
}

/// Input of a client that waits is bounded: its socket is stopped.
#[test]
fn a_client_that_floods_while_it_waits_is_not_read_further() {
    let (mut rig, _futures) = rig(Limits::default());
    let session = rig.accept().unwrap();
    rig.receive(session, &asks("later"));
    let piece = request(1, ECHO, &"1".repeat(1_000));
    for _ in 0..3 {
        rig.receive(session, &piece);
        assert_eq!(rig.commands, []);
    }
    for _ in 0..3 {
        rig.receive(session, &piece);
        assert_eq!(rig.commands, [Command::PauseReading(SocketIndex(0))]);
    }
    rig.pass(TAKES_MS);
    assert_eq!(rig.commands[1..], [Command::ResumeReading(SocketIndex(0))]);
    assert_eq!(rig.counters().ignored_packages, 6, "the client has yet to acknowledge");
}

#[test]
fn handshakes_that_wait_are_bounded_in_bytes() {
    const ROOM: usize = 10;
    let limits = Limits { handshakes_waiting_bytes_max: ROOM * 1024, ..Limits::default() };
    let (mut rig, futures) = rig(limits);
    let sessions: Vec<SessionId> = (0..ROOM).map(|_| rig.accept().unwrap()).collect();
    for session in &sessions {
        rig.receive(*session, &asks("later"));
    }
    let more = rig.accept().unwrap();
    rig.receive(more, &asks("later"));
    assert_eq!(text(&rig, ROOM)[4..], *r#"{"code":500}"#);
    let counters = rig.counters();
    assert_eq!((counters.handshake_rejects, counters.refused_handshake), (1, 1));
    assert_eq!(alive(&futures), ROOM);
    rig.pass(TAKES_MS);
    assert_eq!(rig.counters().handshakes, ROOM as u64);
    assert_eq!((alive(&futures), kept(&rig)), (0, (0, 0)));
    // A long one counts for its bytes.
    let long = rig.accept().unwrap();
    rig.receive(long, &asks(&"x".repeat(ROOM * 1024)));
    assert_eq!(rig.counters().handshake_rejects, 2);
}

#[test]
fn a_shutdown_drops_the_futures() {
    let (mut rig, futures) = rig(Limits::default());
    let session = rig.accept().unwrap();
    rig.receive(session, &asks("never"));
    rig.turn(|shard| shard.drain(AT_ONCE));
    assert_eq!((alive(&futures), kept(&rig)), (0, (0, 0)));
    assert_eq!(rig.counters().closed_shutdown, 1);
}

/// The callback makes its future on the shard, too.
#[test]
fn a_callback_that_panics_before_its_future_refuses() {
    let later = |_: Handshake| -> std::pin::Pin<Box<dyn Future<Output = Admitted>>> {
        panic!("on purpose")
    };
    let config = ShardConfig {
        handshake: Some(HandshakeCheck::Later(Arc::new(later))),
        ..ShardConfig::bare(RouteTable::default(), None, Arc::new(handlers))
    };
    let mut rig = Rig::of(config, &Hub::new(1, 0, HubLimits { lane_len: 16, inbox_len: 16 }));
    let session = rig.accept().unwrap();
    rig.receive(session, &handshake());
    assert_eq!(text(&rig, 0)[4..], *r#"{"code":500}"#);
}
