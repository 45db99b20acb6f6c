//! Messages under way at a server and those that wait, while all that can go wrong does.

use super::*;
use crate::pitaya::window::MESSAGE_BYTES;

const WINDOW: usize = 3;

fn rig(change: impl FnOnce(&mut PitayaLimits)) -> Rig {
    let mut limits = PitayaLimits { window: WINDOW, ..PitayaLimits::default() };
    change(&mut limits);
    Rig::new(|cluster| cluster.limits(limits))
}

impl Rig {
    /// The bodies of all that is to be sent now, and where their answers go.
    fn sent_now(&mut self) -> Vec<(String, String)> {
        let commands: Vec<_> = std::iter::from_fn(|| self.member.poll_command()).collect();
        let sent = commands.into_iter().map(|command| match command {
            Command::Publish { call: Some(call), payload, .. } => {
                let body = Request::decode(payload).unwrap().msg.unwrap().data;
                (String::from_utf8(body.to_vec()).unwrap(), self.member.reply_subject(call))
            }
            other => panic!("nothing but requests is sent: {other:?}"),
        });
        sent.collect()
    }

    fn requests(&mut self, tokens: std::ops::RangeInclusive<u64>) {
        tokens.for_each(|token| self.request(token, token as u32, &token.to_string()));
    }

    /// Nothing is left of any message.
    fn is_idle(&self) -> bool {
        let member = &self.member;
        let under_way = |server: &crate::pitaya::servers::Server| server.window.len();
        let keys = member.forwards.servers.keys();
        let servers = keys.iter().filter_map(|key| member.forwards.servers.table.at(key.0));
        member.forwards.has_nothing() && servers.map(under_way).sum::<usize>() == 0
    }
}

fn bodies(sent: &[(String, String)]) -> Vec<&str> {
    sent.iter().map(|(body, _)| &**body).collect()
}

#[test]
fn no_more_than_a_window_is_under_way_and_the_rest_follows_in_order() {
    let mut rig = rig(|_| {});
    rig.requests(1..=5);
    // A notify has a place as a request has, until it is acknowledged.
    rig.request(0, 0, "notify");
    rig.request(6, 6, "6");
    let first = rig.sent_now();
    assert_eq!(bodies(&first), ["1", "2", "3"]);
    assert_eq!(rig.counters.snapshot().cluster_waits, 4);
    rig.member.handle_answer(&first[1].1, None, response("2"));
    assert_eq!(rig.answered(), Some((2, json!(2), false)));
    let next = rig.sent_now();
    assert_eq!(bodies(&next), ["4"]);
    for reply in [&first[0].1, &first[2].1, &next[0].1] {
        rig.member.handle_answer(reply, None, response("7"));
        assert!(rig.answered().is_some());
    }
    let last = rig.sent_now();
    assert_eq!(bodies(&last), ["5", "notify", "6"]);
    // One that comes later goes at once, when there is room again.
    rig.member.handle_answer(&last[1].1, None, response("\"ack\""));
    assert_eq!(rig.answered(), None, "nobody waits for that");
    rig.requests(7..=7);
    let again = rig.sent_now();
    assert_eq!(bodies(&again), ["7"]);
    for reply in [&last[0].1, &last[2].1, &again[0].1] {
        rig.member.handle_answer(reply, None, response("7"));
        assert!(rig.answered().is_some());
    }
    assert!(rig.is_idle());
}

#[test]
fn what_waits_is_bounded_in_bytes_for_each_server_and_in_all() {
    const BODY: usize = 1_000;
    let body = "x".repeat(BODY);
    for (queue, all) in [(3 * (BODY + 2 * MESSAGE_BYTES), usize::MAX), (usize::MAX, 9_000)] {
        let mut rig = rig(|limits| {
            (limits.queue_bytes_max, limits.bytes_max) = (queue, all);
        });
        let mut refused = 0;
        for token in 1..=100 {
            rig.request(token, 1, &body);
            refused += u64::from(rig.answered().is_some());
            // What is under way may have grown by what is said of each message.
            assert!(rig.member.forwards.bytes() <= all.saturating_add(WINDOW * 500));
        }
        assert!((90..=95).contains(&refused), "{refused}");
        assert_eq!(rig.counters.snapshot().forward_rejects, refused);
        let sent = rig.sent_now();
        assert_eq!(sent.len(), WINDOW);
        // With the last answer nothing is kept any more.
        let mut sent = sent;
        while !sent.is_empty() {
            for (_, reply) in &sent {
                rig.member.handle_answer(reply, None, response("1"));
            }
            sent = rig.sent_now();
        }
        while rig.answered().is_some() {}
        assert!(rig.is_idle());
    }
}

#[test]
fn what_waits_has_its_deadline_and_what_is_under_way_its_place() {
    let mut rig = rig(|_| {});
    rig.requests(1..=4);
    rig.request(0, 0, "notify");
    let sent = rig.sent_now();
    rig.member.advance(TIMEOUT_US / 2);
    rig.member.handle_answer(&sent[0].1, None, response("1"));
    assert!(rig.answered().is_some());
    // The fourth goes out half-way, and has half of its time left.
    let fourth = rig.sent_now();
    assert_eq!(bodies(&fourth), ["4"]);
    rig.requests(5..=5);
    rig.now_us = TIMEOUT_US;
    let codes: Vec<_> = std::iter::from_fn(|| rig.answered()).map(|(token, ..)| token).collect();
    assert_eq!(codes, [2, 3, 4]);
    assert_eq!(rig.counters.snapshot().forward_timeouts, 4, "the notify, which had waited, too");
    // Two places are free, of those sent first; the fourth keeps its own as long as they did.
    assert_eq!(bodies(&rig.sent_now()), ["5"]);
    rig.requests(6..=9);
    assert_eq!(bodies(&rig.sent_now()), ["6"]);
    rig.now_us = TIMEOUT_US * 3 / 2;
    assert_eq!(code(rig.answered()), (5, "PIT-408".into()));
    assert_eq!(rig.answered(), None);
    assert_eq!(bodies(&rig.sent_now()), ["7"], "the fifth still has its place");
    // A late answer gives a place back, too, and nothing else.
    rig.member.handle_answer(&fourth[0].1, None, response("4"));
    assert_eq!((rig.answered(), rig.sent_now().len()), (None, 0), "the fourth's had gone");
    rig.now_us = TIMEOUT_US * 3;
    while rig.answered().is_some() {}
    rig.now_us = TIMEOUT_US * 5;
    while rig.answered().is_some() {}
    assert!(rig.is_idle());
}

#[test]
fn what_waits_for_a_server_that_goes_finds_another_one() {
    let mut rig = rig(|_| {});
    rig.requests(1..=5);
    let sent = rig.sent_now();
    rig.member.handle_servers(Change::Put(PitayaCluster::name("room", "r-2")));
    rig.member.handle_servers(Change::Delete(PitayaCluster::name("room", "r-1")));
    let moved = rig.sent_now();
    assert_eq!(bodies(&moved), ["4", "5"]);
    // One that leaves still answers what it has got.
    for (_, reply) in sent.iter().chain(&moved) {
        rig.member.handle_answer(reply, None, response("1"));
        assert!(rig.answered().is_some());
    }
    assert!(rig.is_idle());
    rig.requests(6..=9);
    rig.sent_now();
    rig.member.handle_servers(Change::Replace(Vec::new()));
    assert_eq!(code(rig.answered()), (9, "PIT-500".into()), "there is none any more");
    // Another one in the same place has a window of its own.
    rig.member.handle_servers(Change::Put(PitayaCluster::name("room", "r-3")));
    rig.requests(10..=13);
    assert_eq!(bodies(&rig.sent_now()), ["10", "11", "12"]);
    rig.now_us = TIMEOUT_US;
    while rig.answered().is_some() {}
    assert!(rig.is_idle());
}

#[test]
fn a_dead_server_and_a_lost_connection_cost_no_places() {
    let mut rig = rig(|_| {});
    rig.requests(1..=7);
    for expected in [vec!["1", "2", "3"], vec!["4", "5", "6"], vec!["7"]] {
        let sent = rig.sent_now();
        assert_eq!(bodies(&sent), expected);
        for (_, reply) in &sent {
            rig.member.handle_answer(reply, Some(NO_RESPONDERS), Bytes::new());
            assert_eq!(code(rig.answered()).1, "PIT-000");
        }
    }
    assert!(rig.is_idle());
    rig.requests(1..=4);
    let sent = rig.sent_now();
    rig.member.handle_lost();
    rig.member.handle_answer(&sent[0].1, None, response("1"));
    assert!(rig.answered().is_some());
    assert_eq!(rig.sent_now().len(), 0, "nothing is sent to nobody");
    rig.member.handle_connected();
    let last = std::iter::from_fn(|| rig.member.poll_command()).last();
    let Some(Command::Publish { call: Some(call), .. }) = last else { panic!("not sent later") };
    rig.member.handle_unsent(call);
    assert_eq!(code(rig.answered()), (4, "PIT-400".into()));
    rig.now_us = TIMEOUT_US;
    while rig.answered().is_some() {}
    assert!(rig.is_idle());
}

/// Messages that NATS does not take in time are not kept for it.
#[test]
fn a_nats_that_does_not_read_makes_nothing_grow() {
    let mut rig = rig(|limits| limits.queue_len_max = 50);
    for second in 0..100 {
        rig.now_us = second * 1_000_000;
        (0..20).for_each(|_| rig.request(1, 1, &"x".repeat(1_000)));
        while rig.answered().is_some() {}
        assert!(rig.member.forwards.bytes() <= 5 * 20 * 2_000, "{}", rig.member.forwards.bytes());
        assert!(rig.member.commands.len() <= 50 + WINDOW);
    }
    rig.now_us += 2 * TIMEOUT_US;
    while rig.answered().is_some() {}
    assert_eq!(rig.sent_now().len(), 0);
    assert!(rig.is_idle());
}
