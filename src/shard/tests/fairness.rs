//! Sessions that send more than their share of a turn.

use super::*;
use crate::limits::turn::HELD_PER_TURN;

const MESSAGES: u32 = 10;

fn limits() -> Limits {
    Limits { messages_per_turn_max: MESSAGES, ..Limits::default() }
}

fn requests(count: u32) -> Vec<u8> {
    (1..=count).flat_map(|id| request(id, ECHO, "1")).collect()
}

pub(super) fn responses(ids: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    ids.flat_map(|id| response(id, "1")).collect()
}

/// One turn as the shell has it: the mail and what is held are looked at once.
pub(super) fn one_turn(rig: &mut Rig, input: &[(SessionId, &[u8])]) {
    rig.now_us += 100;
    rig.shard.begin_turn(rig.now_us);
    rig.shard.do_work();
    finish(&mut rig.shard, std::mem::take(&mut rig.held), SendEnd::Sent);
    for (session, bytes) in input {
        rig.shard.handle_receive(*session, &mut bytes.to_vec());
    }
    rig.shard.run();
    while let Some(transmit) = rig.shard.poll_transmit() {
        rig.sent[transmit.socket.0 as usize].extend(transmit.segment.as_slice());
        rig.held.push(transmit);
    }
    while let Some(command) = rig.shard.poll_command() {
        rig.commands.push(command);
    }
    rig.shard.end_turn(rig.now_us);
}

#[test]
fn a_flood_is_read_a_share_in_each_turn_and_others_come_in_between() {
    let mut rig = Rig::new(None, limits());
    let (flooding, other) = (rig.ready(), rig.ready());
    rig.sent.iter_mut().for_each(Vec::clear);
    let flood = requests(35);
    let (first, second) = flood.split_at(flood.len() / 2);
    // Two buffers in one turn are of one share.
    one_turn(&mut rig, &[(flooding, first), (flooding, second), (other, &requests(1))]);
    assert_eq!(rig.sent[0], responses(1..=MESSAGES));
    assert_eq!(rig.sent[1], responses(1..=1), "who comes after it is served in the same turn");
    assert_eq!(rig.commands, [Command::PauseReading(SocketIndex(0))]);
    for turn in 1..=3 {
        assert!(rig.shard.has_more, "the next turn follows at once");
        one_turn(&mut rig, &[(other, &requests(1))]);
        assert_eq!(rig.sent[0], responses(1..=(MESSAGES * (turn + 1)).min(35)));
        assert_eq!(rig.sent[1].len(), (turn as usize + 1) * responses(1..=1).len());
    }
    assert!(!rig.shard.has_more);
    assert_eq!(rig.commands.last(), Some(&Command::ResumeReading(SocketIndex(0))));
    assert!(rig.counters().reading_pauses > 0);
    one_turn(&mut rig, &[(flooding, &request(36, ECHO, "1"))]);
    assert_eq!(rig.sent[0], responses(1..=36));
}

/// Of many who send more than their share, a few have another one in each turn.
#[test]
fn a_turn_reads_on_a_few_of_those_above_their_share() {
    const SESSIONS: usize = 20;
    let mut rig = Rig::new(None, limits());
    let sessions: Vec<SessionId> = (0..SESSIONS).map(|_| rig.ready()).collect();
    let flood = requests(3 * MESSAGES);
    let input: Vec<(SessionId, &[u8])> = sessions.iter().map(|it| (*it, &*flood)).collect();
    rig.sent.iter_mut().for_each(Vec::clear);
    one_turn(&mut rig, &input);
    let mut turns = 0;
    while rig.shard.has_more {
        let before = rig.counters().answers;
        one_turn(&mut rig, &[]);
        let answers = rig.counters().answers - before;
        assert!(answers <= HELD_PER_TURN as u64 * u64::from(MESSAGES), "{answers} in one turn");
        turns += 1;
    }
    assert!(turns >= 2 * SESSIONS / HELD_PER_TURN, "{turns} turns");
    assert!(rig.sent.iter().all(|sent| *sent == responses(1..=3 * MESSAGES)));
}

#[test]
fn bytes_have_a_share_too_and_no_cut_matters() {
    let body = "x".repeat(300);
    let stream: Vec<u8> = (1..=40).flat_map(|id| request(id, ECHO, &body)).collect();
    let expected: Vec<u8> = (1..=40).flat_map(|id| response(id, &body)).collect();
    let shares = [(1, 1_000), (100, 1), (1_000, 1_000), (5_000, 3), (1 << 20, 7)];
    let cuts = [stream.len(), 5_000, 400, 299, 1];
    let all = shares.into_iter().flat_map(|share| cuts.map(|cut| (share, cut)));
    for ((bytes, messages), cut) in cases(11, all) {
        let limits = Limits {
            bytes_per_turn_max: bytes,
            messages_per_turn_max: messages,
            ..Limits::default()
        };
        let mut rig = Rig::new(None, limits);
        let session = rig.accept().unwrap();
        for piece in [handshake(), ack()] {
            rig.receive(session, &piece);
        }
        rig.sent[0].clear();
        rig.turn(|shard| {
            for piece in stream.chunks(cut) {
                shard.handle_receive(session, &mut piece.to_vec());
            }
        });
        assert!(rig.sent[0] == expected, "{bytes} bytes, {messages} messages, cut {cut}");
        assert_eq!(rig.shard.counters.requests.value(), 40);
    }
}

#[test]
fn frames_are_held_whole_and_in_order() {
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let frames = |count: u32| (1..=count).flat_map(|id| frame(0x82, &request(id, ECHO, "1")));
    let hello = [&upgrade[..], &frame(0x82, &handshake()), &frame(0x82, &ack())].concat();
    let stream: Vec<u8> = hello.into_iter().chain(frames(30)).collect();
    let sent = |messages_per_turn_max: u32, cut: usize| {
        let mut rig = Rig::new(None, Limits { messages_per_turn_max, ..Limits::default() });
        let session = rig.accept().unwrap();
        rig.turn(|shard| {
            for piece in stream.chunks(cut) {
                shard.handle_receive(session, &mut piece.to_vec());
            }
        });
        assert_eq!(rig.counters().requests, 30);
        rig.sent.remove(0)
    };
    let expected = sent(1_000, stream.len());
    let cuts = [stream.len(), 100, 7, 1];
    let all = cuts.into_iter().flat_map(|cut| [1, 2, 10].map(|messages| (messages, cut)));
    for (messages, cut) in cases(4, all) {
        assert!(sent(messages, cut) == expected, "{messages} messages, cut {cut}");
    }
}

#[test]
fn a_websocket_message_holds_no_more_packages_than_a_turn_may_bring() {
    let mut rig = Rig::new(None, limits());
    let session = rig.accept().unwrap();
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    rig.receive(session, upgrade);
    rig.receive(session, &frame(0x82, &heartbeat().repeat(MESSAGES as usize)));
    assert_eq!(rig.counters().bad_websocket_message, 0);
    rig.receive(session, &frame(0x82, &heartbeat().repeat(MESSAGES as usize + 1)));
    assert_eq!(rig.counters().bad_websocket_message, 1);
    assert_eq!(rig.counters().ignored_packages, 2 * u64::from(MESSAGES));
}

#[test]
fn an_end_comes_after_what_was_held() {
    let mut rig = Rig::new(None, limits());
    let session = rig.ready();
    rig.turn(|shard| {
        shard.handle_receive(session, &mut requests(35));
        shard.handle_receive_end(session, ReceiveEnd::Eof);
    });
    assert_eq!(rig.sent[0], responses(1..=35));
    assert_eq!(rig.counters().closed_by_peer, 1);
}

/// A session is read on where no more may be held; nothing is lost or grows.
#[test]
fn what_finds_no_room_is_read_at_once() {
    let mut rig = Rig::new(None, Limits { held_bytes_max: 0, ..limits() });
    let session = rig.ready();
    one_turn(&mut rig, &[(session, &requests(35))]);
    assert_eq!(rig.sent[0], responses(1..=35));
    assert_eq!((rig.commands.len(), rig.counters().hold_overflows), (0, 3));
}

#[test]
fn a_session_that_ends_leaves_nothing_held() {
    let mut rig = Rig::new(None, limits());
    let session = rig.ready();
    let flood = [request(1, KICK, ""), requests(35)].concat();
    one_turn(&mut rig, &[(session, &requests(35)), (session, &flood)]);
    rig.turn(|shard| shard.outbound_mut().kick(session.slot(), None, CloseReason::Kick));
    assert!(!rig.shard.connections().budgets().is_held(session));
    assert_eq!(rig.counters().closed_by_kick, 1);
}

/// A client whose sending waits for the shard can't send heartbeats.
#[test]
fn a_held_session_is_not_silent() {
    const SHARE: u32 = if cfg!(miri) { 1 } else { MESSAGES };
    let interval = Duration::from_secs(1);
    let limits = Limits { messages_per_turn_max: SHARE, ..Limits::default() };
    let mut rig = Rig::new(Some(interval), limits);
    let session = rig.ready();
    one_turn(&mut rig, &[(session, &requests(SHARE * 60))]);
    for _ in 0..50 {
        rig.now_us += STEP_MS * 1_000;
        one_turn(&mut rig, &[]);
    }
    assert!(rig.shard.connections_mut().find(session).is_some());
    assert_eq!(rig.counters().closed_heartbeat_timeout, 0);
    rig.expect_silence_to_close(&interval);
}

/// Thousands come back at once: each turn answers a few of them, in the order they came, and serves
/// those who are in.
#[test]
fn a_storm_of_handshakes_keeps_nobody_waiting() {
    const CLIENTS: usize = if cfg!(miri) { 60 } else { 500 };
    let mut rig = Rig::new(None, Limits::default());
    let working = rig.ready();
    let clients: Vec<SessionId> = (0..CLIENTS).map(|_| rig.accept().unwrap()).collect();
    rig.commands.clear();
    let hello = handshake();
    let mut input: Vec<(SessionId, &[u8])> =
        clients.iter().map(|client| (*client, &*hello)).collect();
    let asked = request(1, ECHO, "1");
    input.push((working, &asked));
    let answered = |rig: &Rig| rig.sent[1..].iter().filter(|sent| !sent.is_empty()).count();
    let mut turns = 0;
    while answered(&rig) < CLIENTS {
        let before = answered(&rig);
        one_turn(&mut rig, &input);
        input = vec![(working, &asked)];
        turns += 1;
        assert_eq!(rig.sent[0].len(), turns * response(1, "1").len());
        let after = answered(&rig);
        assert!((1..=ANSWERED_MAX).contains(&(after - before)), "{before}, then {after}");
        assert!(rig.sent[1..=after].iter().all(|sent| !sent.is_empty()), "not in order");
    }
    assert!(turns >= CLIENTS / ANSWERED_MAX, "{turns}");
    assert_eq!(rig.counters().handshakes as usize, CLIENTS + 1);
    assert!(rig.counters().handshake_waits as usize >= CLIENTS - ANSWERED_MAX);
    assert_eq!(rig.commands, [], "who sends no more need not be stopped");
    assert!(!rig.shard.has_more);
}

/// The JSON of a handshake takes time for its length.
#[test]
fn long_handshakes_are_answered_fewer_at_a_time() {
    const CLIENTS: usize = 40;
    let mut rig = Rig::new(None, Limits::default());
    let clients: Vec<SessionId> = (0..CLIENTS).map(|_| rig.accept().unwrap()).collect();
    let body = format!(r#"{{"sys":{{}},"user":[{}0]}}"#, "0,".repeat(8_000));
    let hello = package(PackageType::Handshake, body.as_bytes());
    let mut input: Vec<(SessionId, &[u8])> =
        clients.iter().map(|client| (*client, &*hello)).collect();
    let answered = |rig: &Rig| rig.counters().handshakes as usize;
    while answered(&rig) < CLIENTS {
        let before = answered(&rig);
        one_turn(&mut rig, &input);
        input.clear();
        assert!(answered(&rig) - before <= 2 * 16 / 4, "{before}, then {}", answered(&rig));
    }
}

/// A client whose handshake waits for the shard is not late, however long that takes.
#[test]
fn nobody_is_closed_for_having_to_wait_for_the_answer() {
    const CLIENTS: usize = if cfg!(miri) { 40 } else { 200 };
    let handshake_timeout = Duration::from_millis(300);
    let mut rig = Rig::new(None, Limits { handshake_timeout, ..Limits::default() });
    let clients: Vec<SessionId> = (0..CLIENTS).map(|_| rig.accept().unwrap()).collect();
    let hello = handshake();
    let input: Vec<(SessionId, &[u8])> = clients.iter().map(|client| (*client, &*hello)).collect();
    one_turn(&mut rig, &input);
    for _ in 0..CLIENTS {
        rig.now_us += PATIENCE_US;
        one_turn(&mut rig, &[]);
    }
    assert_eq!(rig.counters().handshakes as usize, CLIENTS);
    assert!(rig.sent.iter().all(|sent| !sent.is_empty()));
    // None of them has acknowledged it.
    assert_eq!(rig.counters().closed_handshake_timeout as usize, CLIENTS);
}

/// More than a turn's steps would allow, as each handshake takes two.
const ANSWERED_MAX: usize = 25;

#[test]
fn who_goes_on_sending_while_waiting_to_be_answered_is_stopped_and_heard_later() {
    const CLIENTS: usize = if cfg!(miri) { 60 } else { 100 };
    const LAST: usize = CLIENTS - 1;
    let mut rig = Rig::new(None, Limits::default());
    let clients: Vec<SessionId> = (0..CLIENTS).map(|_| rig.accept().unwrap()).collect();
    rig.commands.clear();
    let (hello, rest) = (handshake(), [ack(), requests(3)].concat());
    let mut input: Vec<(SessionId, &[u8])> =
        clients.iter().map(|client| (*client, &*hello)).collect();
    one_turn(&mut rig, &input);
    let last = clients[LAST];
    input = vec![(last, &rest)];
    one_turn(&mut rig, &input);
    assert_eq!(rig.commands, [Command::PauseReading(SocketIndex(LAST as u32))]);
    rig.turn(|shard| shard.handle_receive_end(last, ReceiveEnd::Eof));
    assert!(rig.sent[LAST].ends_with(&responses(1..=3)));
    assert_eq!(rig.counters().handshakes as usize, CLIENTS);
    assert_eq!(rig.counters().closed_by_peer, 1);
}

impl Rig {
    fn expect_silence_to_close(&mut self, interval: &Duration) {
        self.commands.clear();
        self.pass(interval.as_millis() as u64 * 4);
        assert_eq!(self.counters().closed_heartbeat_timeout, 1);
    }
}

/// The ends that the ring tells of come late where many come at once: by then the session may be
/// gone, cut after its linger, and its place another's.
#[test]
fn a_late_end_does_not_reach_the_next_session_of_its_place() {
    for end in [ReceiveEnd::Eof, ReceiveEnd::Error] {
        let mut rig = Rig::new(None, limits());
        let gone = rig.ready();
        rig.turn(|shard| shard.outbound_mut().kick(gone.slot(), None, CloseReason::Kick));
        rig.turn(|shard| shard.handle_socket_closed(gone));
        let session = rig.ready();
        assert_eq!(session.slot(), gone.slot());
        one_turn(&mut rig, &[(session, &requests(15))]);
        rig.shard.handle_receive_end(gone, end);
        for _ in 0..5 {
            one_turn(&mut rig, &[]);
        }
        one_turn(&mut rig, &[(session, &request(16, ECHO, "1"))]);
        assert_eq!(rig.sent[1], responses(1..=16), "{end:?}");
        let socket = SocketIndex(1);
        let commands = [Command::PauseReading(socket), Command::ResumeReading(socket)];
        assert_eq!(rig.commands[1..], commands, "{end:?}");
        assert_eq!(rig.counters().closed_by_peer, 0, "{end:?}");
    }
}

/// The share that a session has used, and the turns that are set for it, end with it.
#[test]
fn the_next_session_of_a_place_starts_anew() {
    let mut rig = Rig::new(None, limits());
    let gone = rig.ready();
    // It has used up its share, and waits for the next one.
    rig.shard.begin_turn(rig.now_us);
    rig.shard.handle_receive(gone, &mut requests(30));
    rig.shard.handle_receive_end(gone, ReceiveEnd::Error);
    rig.shard.handle_socket_closed(gone);
    let session = rig.shard.handle_accept(SocketIndex(1), "127.0.0.1:9".parse().unwrap()).unwrap();
    rig.sockets += 1;
    rig.sent.push(Vec::new());
    assert_eq!(session.slot(), gone.slot());
    rig.shard.handle_receive(session, &mut [handshake(), ack(), requests(5)].concat());
    assert_eq!(rig.shard.connections().budgets().held_bytes(), 0, "all of it is read in this turn");
    rig.rest_of_turn();
    assert!(rig.sent[1].ends_with(&responses(1..=5)));
}

/// Input does not put off the end of its client's handshake: not what no handshake needs, sent
/// as much at once as a turn would not answer, nor a little now and then while others are answered.
#[test]
fn what_an_unauthenticated_client_sends_does_not_put_off_its_deadline() {
    const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    const ROUND_MS: u64 = 1_000;
    let kinds: [(&str, Vec<u8>, Vec<u8>); 5] = [
        ("heartbeats", Vec::new(), heartbeat().repeat(40)),
        ("heartbeats behind a handshake", handshake(), heartbeat().repeat(40)),
        ("pings", UPGRADE.to_vec(), frame(0x89, b"").repeat(40)),
        ("a head", b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".to_vec()),
        ("a package", vec![1, 0, 4, 0], b" ".to_vec()),
    ];
    for (what, first, again) in kinds {
        let mut rig = Rig::new(None, Limits::default());
        let client = rig.accept().unwrap();
        rig.receive(client, &first);
        for _ in 0..9 {
            rig.pass(ROUND_MS);
            // A small crowd comes in at that moment.
            let crowd: Vec<SessionId> = (0..20).map(|_| rig.accept().unwrap()).collect();
            let hello = [handshake(), ack()].concat();
            let mut input: Vec<(SessionId, &[u8])> =
                crowd.iter().map(|session| (*session, &*hello)).collect();
            input.push((client, &again));
            one_turn(&mut rig, &input);
            // What makes no step whole is kept and not looked at.
            let waits = rig.shard.connections().budgets().is_held(client);
            assert!(waits || ["a head", "a package"].contains(&what), "{what}: it has to wait");
            rig.turn(|_| ());
        }
        rig.commands.clear();
        assert_eq!(rig.counters().closed_handshake_timeout, 0, "{what}");
        rig.pass(ROUND_MS + LATE_MS);
        assert_eq!(rig.counters().closed_handshake_timeout, 1, "{what}");
        assert_eq!(rig.commands, [Command::Close(SocketIndex(0))], "{what}");
    }
}

/// One that always has something unread that no handshake needs is not held back by the shard.
#[test]
fn an_unauthenticated_client_that_floods_is_late_in_time() {
    let handshake_timeout = Duration::from_secs(1);
    let mut rig = Rig::new(None, Limits { handshake_timeout, ..Limits::default() });
    let client = rig.accept().unwrap();
    let flood = heartbeat().repeat(400);
    for _ in 0..(1_000 + LATE_MS) / STEP_MS {
        rig.now_us += STEP_MS * 1_000;
        one_turn(&mut rig, &[(client, &flood)]);
    }
    assert_eq!(rig.counters().closed_handshake_timeout, 1);
}
