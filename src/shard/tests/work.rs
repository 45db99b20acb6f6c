//! Bodies that are far longer than what was sent of them, and signatures.

use super::fairness::one_turn;
use super::*;
use crate::limits::turn::DEFLATED_PER_TURN;
use crate::wire::pitaya::Deflater;
use crate::wire::protobuf::{ProtoTable, Protos};

const ROUTE: &str = "connector.entryHandler.len";
const MIB: usize = 1024 * 1024;
const LARGE: usize = 2 * MIB;

fn answer_len(handlers: &mut Handlers) {
    handlers.handler(ROUTE, |request, _| Reply::json(&request.body().len()));
}

fn config(limits: Limits) -> ShardConfig {
    let routes = RouteTable::new([ROUTE.to_owned()], None, None);
    ShardConfig { limits, ..ShardConfig::bare(routes, None, Arc::new(answer_len)) }
}

/// A listener for clients of Pitaya.
fn pitaya(limits: Limits) -> Rig {
    let listener = ListenerConfig { dialect: Dialect::Pitaya, ..ListenerConfig::default() };
    let config = ShardConfig { listeners: vec![listener], ..config(limits) };
    Rig::of(config, &Hub::new(1, 0, HubLimits { lane_len: 16, inbox_len: 16 }))
}

fn data(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message::encode(message, &mut out).unwrap();
    package(PackageType::Data, &out)
}

/// A request whose body comes to so many bytes.
fn compressed(id: u32, len: usize) -> Vec<u8> {
    let mut body = Vec::new();
    assert!(Deflater::default().deflate(&vec![b'a'; len], &mut body));
    let (kind, route) = (MessageType::Request, Some(RouteRef::Text(ROUTE.as_bytes())));
    data(&Message { id, kind, route, body: &body, gzip: true })
}

fn plain(id: u32) -> Vec<u8> {
    request(id, ROUTE, "1")
}

fn answer(id: u32, len: usize) -> Vec<u8> {
    response(id, &len.to_string())
}

/// Turns until all answers are there.
fn turns_until(rig: &mut Rig, socket: usize, expected: &[u8]) -> usize {
    let mut turns = 0;
    while rig.sent[socket].len() < expected.len() {
        assert!(rig.shard.has_more, "the next turn follows at once");
        one_turn(rig, &[]);
        turns += 1;
        assert!(turns < 10_000);
    }
    assert_eq!(rig.sent[socket], expected);
    turns
}

#[test]
fn a_large_body_is_inflated_a_share_in_each_turn_and_what_follows_it_comes_behind_it() {
    let mut rig = pitaya(Limits::default());
    let (large, other) = (rig.ready(), rig.ready());
    rig.sent[0].clear();
    let flood = [compressed(1, LARGE), plain(2), compressed(3, LARGE), plain(4)].concat();
    one_turn(&mut rig, &[(large, &flood), (other, &plain(1))]);
    assert_eq!((rig.sent[0].len(), &rig.sent[1]), (0, &answer(1, 1)), "others come first");
    let expected = [answer(1, LARGE), answer(2, 1), answer(3, LARGE), answer(4, 1)].concat();
    let turns = turns_until(&mut rig, 0, &expected);
    let Limits { bytes_per_turn_max, work_per_turn_max, .. } = Limits::default();
    let least = 2 * LARGE / bytes_per_turn_max.min(work_per_turn_max);
    assert!((least..2 * least).contains(&turns), "{turns} turns");
    assert_eq!((rig.counters().work_waits, rig.shard.dispatcher().work_waits()), (2, 0));
    assert_eq!(rig.shard.connections().budgets().held_bytes(), 0);
    assert_eq!(rig.commands.last(), Some(&Command::ResumeReading(SocketIndex(0))));
    assert_eq!(rig.shard.dispatcher().work_bytes(), 0, "the memory went back with the last one");
}

#[test]
fn a_turn_inflates_no_more_for_all_than_its_bound_and_everybody_gets_their_turn() {
    const SESSIONS: usize = 16;
    const BODY: usize = 40_000;
    const ROUNDS: usize = 3;
    let mut rig = pitaya(Limits::default());
    let sessions: Vec<SessionId> = (0..SESSIONS).map(|_| rig.ready()).collect();
    rig.sent.iter_mut().for_each(Vec::clear);
    let flood: Vec<u8> = (1..=ROUNDS).flat_map(|id| compressed(id as u32, BODY)).collect();
    let mut input: Vec<(SessionId, &[u8])> =
        sessions.iter().map(|session| (*session, &*flood)).collect();
    let per_turn = 2 + Limits::default().work_per_turn_max / BODY;
    let one = answer(1, BODY).len();
    let count = |rig: &Rig| rig.sent.iter().map(|sent| sent.len() / one).sum::<usize>();
    let mut turns = 0;
    while count(&rig) < SESSIONS * ROUNDS {
        let before = count(&rig);
        one_turn(&mut rig, &input);
        input.clear();
        let after = count(&rig);
        assert!(after - before <= per_turn, "{before}, then {after}");
        let least = rig.sent.iter().map(Vec::len).min().unwrap() / one;
        let most = rig.sent.iter().map(Vec::len).max().unwrap() / one;
        assert!(most - least <= 2, "{least} to {most} answers");
        turns += 1;
        assert!(turns < 1_000);
    }
    assert!(turns >= SESSIONS * ROUNDS / per_turn, "{turns}");
    assert!(rig.counters().work_waits > 0);
}

/// A stream of blocks that make nothing takes time for its input.
#[test]
fn a_body_that_comes_to_nothing_has_its_share_too() {
    let mut body = [&[0x78, 0x9c][..], &[0, 0, 0, 0xff, 0xff].repeat(60_000)].concat();
    body.extend([3, 0, 0, 0, 0, 1]);
    let (kind, route) = (MessageType::Request, Some(RouteRef::Text(ROUTE.as_bytes())));
    let request = data(&Message { id: 1, kind, route, body: &body, gzip: true });
    let mut rig = pitaya(Limits::default());
    let session = rig.ready();
    // It comes in many turns itself, and is looked at once it is whole.
    for piece in request.chunks(16 * 1024) {
        one_turn(&mut rig, &[(session, piece)]);
    }
    let turns = turns_until(&mut rig, 0, &answer(1, 2));
    assert!(turns >= 30, "{turns} turns");
}

#[test]
fn the_rate_of_messages_is_looked_at_before_any_is_inflated() {
    let limits = Limits { messages_per_second: 1, messages_burst: 1, ..Limits::default() };
    let mut rig = pitaya(limits);
    let session = rig.ready();
    let (kind, route) = (MessageType::Request, Some(RouteRef::Text(ROUTE.as_bytes())));
    // Who looks at this body closes its client.
    let bad = data(&Message { id: 2, kind, route, body: b"no zlib", gzip: true });
    rig.receive(session, &[compressed(1, 1_000), bad].concat());
    assert_eq!(rig.counters().message_rate_rejects, 1);
    assert_eq!((rig.counters().bad_compression, rig.counters().closed_protocol), (0, 0));
}

#[test]
fn a_session_that_ends_while_its_body_is_inflated_leaves_nothing() {
    let mut rig = pitaya(Limits::default());
    let (first, second) = (rig.ready(), rig.ready());
    one_turn(&mut rig, &[(first, &compressed(1, LARGE)), (second, &compressed(1, LARGE))]);
    one_turn(&mut rig, &[]);
    assert_eq!(rig.shard.dispatcher().work_waits(), 2);
    rig.turn(|shard| {
        shard.outbound_mut().kick(first.slot(), None, CloseReason::Kick);
        shard.outbound_mut().kick(second.slot(), None, CloseReason::Kick);
    });
    assert_eq!(
        (rig.shard.dispatcher().work_waits(), rig.shard.connections().budgets().held_bytes()),
        (0, 0)
    );
    assert_eq!(rig.counters().closed_by_kick, 2);
}

#[test]
fn an_end_comes_after_a_message_that_waits() {
    let mut rig = pitaya(Limits::default());
    let session = rig.ready();
    rig.sent[0].clear();
    rig.turn(|shard| {
        shard.handle_receive(session, &mut [compressed(1, LARGE), plain(2)].concat());
        shard.handle_receive_end(session, ReceiveEnd::Eof);
    });
    assert_eq!(rig.sent[0], [answer(1, LARGE), answer(2, 1)].concat());
    assert_eq!(rig.counters().closed_by_peer, 1);
}

#[test]
fn a_message_that_has_to_wait_where_nothing_more_may_be_held_is_refused() {
    let mut rig = pitaya(Limits { held_bytes_max: 0, ..Limits::default() });
    let session = rig.ready();
    one_turn(&mut rig, &[(session, &[compressed(1, LARGE), plain(2)].concat())]);
    assert_eq!((rig.counters().work_rejects, rig.shard.dispatcher().work_waits()), (1, 0));
    assert!(rig.sent[0].ends_with(&answer(2, 1)));
}

#[test]
fn packages_of_one_websocket_message_have_the_share_of_one_session() {
    let mut rig = pitaya(Limits::default());
    let session = rig.accept().unwrap();
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let long = |payload: &[u8]| {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [&[0x82, 0x80 | 126][..], &len, &[0; 4], payload].concat()
    };
    rig.receive(session, &[upgrade, &long(&handshake())[..], &long(&ack())].concat());
    let packages: Vec<u8> = (1..=20).flat_map(|id| compressed(id, 50_000)).collect();
    let before = rig.counters().answers;
    let mut turns = 0;
    one_turn(&mut rig, &[(session, &long(&packages))]);
    while rig.counters().answers < before + 20 {
        let answers = rig.counters().answers;
        one_turn(&mut rig, &[]);
        assert!(rig.counters().answers - answers <= 3, "in one turn");
        turns += 1;
        assert!(turns < 1_000);
    }
    assert!(turns >= 6, "{turns}");
    assert_eq!(rig.counters().closed_protocol, 0);
}

/// JSON that grows from few bytes of protobuf is of its session's share of the turn.
#[test]
fn long_json_of_protobuf_has_the_share_of_its_session() {
    const REQUESTS: u32 = 40;
    let name = "n".repeat(200);
    let schemas = format!(
        r#"{{"{ROUTE}":{{"repeated Item items":1}},"message Item":{{"required uInt32 {name}":1}}}}"#
    );
    let protos = ProtoTable::new(Protos::parse_text(&schemas).unwrap(), Protos::default());
    // Four bytes become a member of the length of its name.
    let burst = |items: usize| -> Vec<u8> {
        let body = "\n\u{2}\u{8}\u{1}".repeat(items);
        (1..=REQUESTS).flat_map(|id| request(id, ROUTE, &body)).collect()
    };
    for (items, per_turn) in [(10, REQUESTS), (100, 4)] {
        let config = config(Limits::default());
        let schemas = Schemas::new(EditionId::FIRST, Some(protos.clone()), &config.routes);
        let schemas = Arc::new(schemas);
        let edition = Edition::new(EditionId::FIRST, None, None, schemas, &config.routes);
        let config = ShardConfig { edition: RwLock::new(Arc::new(edition)), ..config };
        let mut rig = Rig::of(config, &Hub::new(1, 0, HubLimits { lane_len: 16, inbox_len: 16 }));
        let session = rig.ready();
        let before = rig.counters().answers;
        one_turn(&mut rig, &[(session, &burst(items))]);
        let mut answers = rig.counters().answers - before;
        assert_eq!(answers, u64::from(per_turn), "{items} items");
        while rig.shard.has_more {
            one_turn(&mut rig, &[]);
            let more = rig.counters().answers - before - answers;
            assert!(more <= u64::from(per_turn), "{more} in one turn");
            answers += more;
        }
        assert_eq!((answers, rig.counters().bad_protobuf), (REQUESTS.into(), 0));
    }
}

#[test]
fn a_turn_compresses_so_much_of_answers_and_sends_the_others_as_they_are() {
    const LEN: usize = DEFLATED_PER_TURN / 2;
    let long = |handlers: &mut Handlers| {
        handlers.handler(ROUTE, |_, _| Reply::json(&"a".repeat(LEN)));
    };
    let routes = RouteTable::new([ROUTE.to_owned()], None, None);
    let listener = ListenerConfig { dialect: Dialect::Pitaya, ..ListenerConfig::default() };
    let config = ShardConfig {
        listeners: vec![listener],
        ..ShardConfig::bare(routes, None, Arc::new(long))
    };
    let mut rig = Rig::of(config, &Hub::new(1, 0, HubLimits { lane_len: 16, inbox_len: 16 }));
    let session = rig.ready();
    let requests: Vec<u8> = (1..=3).flat_map(plain).collect();
    for turns in 1..=2 {
        rig.sent[0].clear();
        one_turn(&mut rig, &[(session, &requests)]);
        one_turn(&mut rig, &[]);
        assert_eq!(rig.counters().compression_skips, turns);
        assert!((LEN..LEN + LEN / 2).contains(&rig.sent[0].len()), "one of three is as it was");
    }
}

/// Eight clients with the longest keys and wrong signatures.
#[cfg(feature = "crypto")]
#[test]
fn signatures_are_checked_a_few_in_each_turn() {
    const SESSIONS: usize = 8;
    const REQUESTS: usize = 10;
    let config = ShardConfig { use_crypto: true, ..config(Limits::default()) };
    let mut rig = Rig::of(config, &Hub::new(1, 0, HubLimits { lane_len: 16, inbox_len: 16 }));
    let rsa = format!(r#"{{"sys":{{"rsa":{{"rsa_n":"{}","rsa_e":65537}}}}}}"#, "d".repeat(512));
    let hello = [package(PackageType::Handshake, rsa.as_bytes()), ack()].concat();
    let sessions: Vec<SessionId> = (0..SESSIONS).map(|_| rig.accept().unwrap()).collect();
    sessions.iter().for_each(|session| rig.receive(*session, &hello));
    let body = format!(r#"{{"__crypto__":"{}"}}"#, "1".repeat(512));
    let flood: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id as u32, ROUTE, &body)).collect();
    let mut input: Vec<(SessionId, &[u8])> =
        sessions.iter().map(|session| (*session, &*flood)).collect();
    let per_turn = 1 + (Limits::default().work_per_turn_max / (8 * 1024)) as u64;
    let mut turns = 0;
    while rig.counters().bad_signature < (SESSIONS * REQUESTS) as u64 {
        let before = rig.counters().bad_signature;
        one_turn(&mut rig, &input);
        input.clear();
        let checked = rig.counters().bad_signature - before;
        assert!(checked <= per_turn, "{checked} in one turn");
        turns += 1;
        assert!(turns < 1_000);
    }
    assert!(turns as u64 >= (SESSIONS * REQUESTS) as u64 / per_turn, "{turns}");
    assert_eq!(rig.counters().answers, (SESSIONS * REQUESTS) as u64);
    assert!(rig.counters().work_waits > 0);
}
