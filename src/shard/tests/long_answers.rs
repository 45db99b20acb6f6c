//! Sessions that ask for long answers, beside one that asks for short ones.

use super::fairness::{one_turn, responses};
use super::lane::{CHAT, Chat};
use super::*;
use crate::forward::LaneFull;
use crate::forward::mail::{Mail, WorkerBody, WorkerReply};
use crate::limits::turn::{ANSWER_BYTES_PER_TURN, ANSWER_BYTES_PER_TURN_MAX};
use crate::metrics::ForwardEnd;

const LONG: &str = "connector.entryHandler.long";
const LATER: &str = "connector.entryHandler.later";
/// Answers later as well, with something short.
const SOON: &str = "connector.entryHandler.soon";
/// Pushes what the others answer.
const PUSHES: &str = "connector.entryHandler.pushes";
/// A turn has room for one, whose request is some bytes.
const BYTES: usize = ANSWER_BYTES_PER_TURN + 1024;
const SESSIONS: usize = 20;
/// Requests of each.
const REQUESTS: u32 = 3;

fn text() -> String {
    format!("\"{}\"", "x".repeat(BYTES))
}

fn rig() -> Rig {
    let register = |it: &mut Handlers| {
        handlers(it);
        it.handler(LONG, |_, _| Reply::bytes(text()))
            .handler(LATER, |_, _| Reply::later(async { Reply::bytes(text()) }))
            .handler(SOON, |_, _| Reply::later(async { Reply::json(&1) }))
            .handler(PUSHES, |_, session| {
                session.send("onLong", text()).unwrap();
                Reply::empty()
            });
    };
    let routes = [ECHO, LONG, LATER, SOON, PUSHES].map(str::to_owned);
    Rig::with_handlers(None, Limits::default(), &[], routes, Arc::new(register))
}

/// Runs turns, in each of which the first session asks for something short, until all is answered;
/// the most bytes of answers that one has taken.
fn most_in_a_turn(rig: &mut Rig, first: SessionId, others: &[SessionId], asked: &[u8]) -> usize {
    let (mut most, mut turns) = (0, 0);
    let short = request(7, ECHO, "1");
    let mut input: Vec<(SessionId, &[u8])> = others.iter().map(|it| (*it, asked)).collect();
    while turns == 0 || rig.shard.has_more {
        let before: usize = rig.sent.iter().map(Vec::len).sum();
        input.push((first, &short));
        one_turn(rig, &input);
        input.clear();
        most = most.max(rig.sent.iter().map(Vec::len).sum::<usize>() - before);
        turns += 1;
        assert_eq!(rig.sent[0].len(), turns * response(7, "1").len(), "{turns} turns");
    }
    assert!(turns >= SESSIONS * REQUESTS as usize / 3, "{turns} turns");
    for sent in &rig.sent[1..=SESSIONS] {
        let answers = sent.windows(2).filter(|pair| pair == b"\"x").count();
        assert_eq!(answers, REQUESTS as usize);
    }
    most
}

/// A session that gets short answers, and others, in the order of their sockets.
fn sessions(rig: &mut Rig) -> (SessionId, Vec<SessionId>) {
    let first = rig.ready();
    (1..=20).for_each(|id| rig.receive(first, &request(id, ECHO, "1")));
    rig.sent[0].clear();
    (first, (0..SESSIONS).map(|_| rig.ready()).collect())
}

/// One of those that have just come, and one behind.
const MOST: usize = 2 * BYTES + BYTES / 2;

#[test]
fn new_sessions_get_long_answers_one_after_the_other() {
    for route in [LONG, LATER, PUSHES] {
        let mut rig = rig();
        let (first, others) = sessions(&mut rig);
        let asked: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, route, "")).collect();
        let most = most_in_a_turn(&mut rig, first, &others, &asked);
        assert!(most <= MOST, "{route}: {most} bytes in one turn");
        assert!(rig.counters().reading_pauses > 0);
    }
}

/// However short the answers were that they have got for a while.
#[test]
fn who_has_got_a_long_answer_comes_behind() {
    let mut rig = rig();
    let (first, others) = sessions(&mut rig);
    for session in &others {
        rig.receive(*session, &request(1, LONG, ""));
        (1..=20).for_each(|id| rig.receive(*session, &request(id, ECHO, "1")));
    }
    rig.sent.iter_mut().for_each(Vec::clear);
    let asked: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, LONG, "")).collect();
    let most = most_in_a_turn(&mut rig, first, &others, &asked);
    assert!(most <= MOST, "{most} bytes in one turn");
}

/// Whatever is short is not kept waiting by what is long.
#[test]
fn short_answers_of_futures_come_in_the_turn_of_their_requests() {
    let mut rig = rig();
    let (first, others) = sessions(&mut rig);
    let long = request(1, LATER, "");
    let soon: Vec<u8> = (1..=10).flat_map(|id| request(id, SOON, "")).collect();
    let mut input: Vec<(SessionId, &[u8])> = others.iter().map(|it| (*it, &*long)).collect();
    input.push((first, &soon));
    one_turn(&mut rig, &input);
    assert_eq!(rig.sent[0], responses(1..=10));
    assert_eq!(rig.counters().answers, 20 + 10 + 1, "and one of the long ones");
}

/// Sessions that nobody knows for long answers may all get them at once: a turn has a bound for
/// these as well, and goes on with them in the next.
#[test]
fn first_long_answers_have_a_bound_of_their_own() {
    let mut rig = rig();
    let known: Vec<SessionId> = (0..2 * ANSWER_BYTES_PER_TURN_MAX / BYTES)
        .map(|_| {
            let session = rig.ready();
            (1..=20).for_each(|id| rig.receive(session, &request(id, ECHO, "1")));
            session
        })
        .collect();
    rig.sent.iter_mut().for_each(Vec::clear);
    let asked = request(1, LONG, "");
    let input: Vec<(SessionId, &[u8])> = known.iter().map(|it| (*it, &*asked)).collect();
    one_turn(&mut rig, &input);
    let first: usize = rig.sent.iter().map(Vec::len).sum();
    assert!(first <= ANSWER_BYTES_PER_TURN_MAX + 2 * BYTES, "{first}");
    while rig.shard.has_more {
        let before = rig.counters().answers;
        one_turn(&mut rig, &[]);
        assert!(rig.counters().answers - before <= 1);
    }
    assert!(rig.sent.iter().all(|sent| sent.len() > BYTES));
}

/// One comes first in a turn behind one that had none, whatever the others do.
#[test]
fn short_answers_are_sent_before_long_ones() {
    let mut rig = rig();
    let (first, others) = sessions(&mut rig);
    let mut turn = |session: SessionId, route: &str, sends: usize| {
        rig.shard.begin_turn(rig.now_us);
        finish(&mut rig.shard, std::mem::take(&mut rig.held), SendEnd::Sent);
        rig.shard.handle_receive(session, &mut request(1, route, "1"));
        rig.shard.run();
        rig.held.extend((0..sends).filter_map(|_| rig.shard.poll_transmit()));
        rig.shard.end_turn(rig.now_us);
        rig.held.iter().map(|transmit| transmit.session).collect::<Vec<_>>()
    };
    for session in &others {
        turn(*session, LONG, 0);
    }
    assert_eq!(turn(first, ECHO, 2), [others[0], first]);
    assert_eq!(turn(first, ECHO, 1), [first]);
    assert_eq!(turn(first, ECHO, 1), [others[1]]);
    assert_eq!(turn(first, ECHO, 3), [first, others[2], others[3]]);
}

/// A turn takes so many of a worker's answers; the others wait in its lane.
#[test]
fn long_answers_of_a_worker_wait_in_its_lane() {
    let limits = Limits { lane_len: 64, ..one_by_one(Limits::default()) };
    let mut chat = Chat::within(LaneFull::Reject, limits, handlers);
    let session = chat.rig.ready();
    let asked: Vec<u8> = (1..=8).flat_map(|id| request(id, CHAT, "1")).collect();
    chat.rig.receive(session, &asked);
    for _ in 0..chat.worker.waiting(Party(0)) {
        let Some(mail) = chat.worker.receive(Party(0)) else { break };
        let Mail::Forward(forward) = mail else { continue };
        let body = WorkerBody::Bytes(vec![b'x'; BYTES].into());
        let reply = WorkerReply { body, end: ForwardEnd::Answered, data: None };
        chat.worker.send(Party(0), Mail::Answer { token: forward.token, reply });
    }
    while chat.worker.poll_bell().is_some() {}
    for answers in 1..=8 {
        let before = chat.rig.counters().answers;
        one_turn(&mut chat.rig, &[]);
        assert_eq!(chat.rig.counters().answers - before, 1, "{answers}");
        assert_eq!(chat.rig.shard.has_more, answers < 8);
    }
}
