//! A frontend whose shard and NATS are played by the test.

mod window;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};

use super::forwards::NO_RESPONDERS;
use super::messages::{BindMsg, KickMsg, Msg, Push, Request, Response, Session};
use super::subjects::Subject;
use super::*;
use crate::dispatch::BindError;
use crate::forward::mail::{Forward, ForwardRoute, Mail, Others, Outcome, ReplyTo};
use crate::forward::{Endpoint, Party};
use crate::metrics::Counters;
use crate::session::{Generation, SessionData, SessionId, ShardIndex, Slot, Uid};

const ROUTE: &str = "room.room.echo";
const TIMEOUT_US: u64 = 5_000_000;

struct Rig {
    member: Member,
    shard: Endpoint,
    counters: Arc<Counters>,
    now_us: u64,
}

/// The answer to a request, by its token.
type Answered = (u64, Value, bool);

impl Rig {
    /// A frontend that is connected and knows one server.
    fn new(change: impl FnOnce(PitayaCluster) -> PitayaCluster) -> Self {
        let cluster = PitayaCluster::new(["n:1"], ["e:1"]).server_type("room");
        let cluster = change(cluster.request_timeout(Duration::from_micros(TIMEOUT_US)));
        let (mut member, shard, counters) = Member::bare(&cluster);
        member.handle_servers(Change::Put(PitayaCluster::name("room", "r-1")));
        Self { member, shard, counters, now_us: 0 }
    }

    fn send(&mut self, mail: Mail) {
        self.shard.send(Party(1), mail);
        self.shard.flush();
        self.turn();
    }

    fn turn(&mut self) {
        self.member.begin_turn(self.now_us);
        self.member.run();
        while self.member.poll_bell().is_some() {}
    }

    fn request(&mut self, token: u64, id: u32, body: &str) {
        let bytes = Bytes::from([ROUTE, body].concat());
        let route = ForwardRoute::Inline { len: ROUTE.len() as u8 };
        let (session, data) = (session(), data(None));
        self.send(Mail::Forward(Forward { token, session, data, route, id, bytes }));
    }

    /// A message that is to be sent: its subject, that of its answer, and its content.
    fn sent(&mut self) -> (Subject, Option<String>, Bytes) {
        match self.member.poll_command() {
            Some(Command::Publish { subject, payload, call }) => {
                (subject, call.map(|call| self.member.reply_subject(call)), payload)
            }
            other => panic!("nothing is sent, but {other:?}"),
        }
    }

    fn reply_to_sent(&mut self) -> String {
        self.sent().1.expect("an answer is wanted")
    }

    /// The next mail for the shard.
    fn mail(&mut self) -> Option<Mail> {
        self.turn();
        self.shard.receive(Party(1))
    }

    fn answered(&mut self) -> Option<Answered> {
        let Some(Mail::Answer { token, reply }) = self.mail() else { return None };
        let body = serde_json::from_slice(reply.body.bytes().expect("a body")).expect("JSON");
        Some((token, body, reply.has_failed()))
    }

    /// A backend asks something of this frontend.
    fn ask(&mut self, route: &str, data: Vec<u8>) {
        let msg = Msg { route: route.into(), data: data.into(), ..Msg::default() };
        let request = Request { kind: 1, msg: Some(msg), ..Request::default() };
        self.member.handle_request(Some("reply".into()), request.encode_to_vec().into());
    }

    /// The answer that the backend gets.
    fn told(&mut self) -> Response {
        let (subject, _, payload) = self.sent();
        assert_eq!(&*subject, "reply");
        Response::decode(payload).expect("an answer")
    }

    fn login(&mut self, number: u64, uid: &str) {
        let data = Arc::new(SessionData { number, ..(*data(Some(uid))).clone() });
        let session = SessionId::new(ShardIndex(0), Slot(number as u32), Generation::FIRST);
        self.send(Mail::Login { session, data });
    }
}

fn session() -> SessionId {
    SessionId::new(ShardIndex(0), Slot(7), Generation::FIRST)
}

fn data(uid: Option<&str>) -> Arc<SessionData> {
    let mut data = SessionData::new(7, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    data.uid = uid.map(Uid::from);
    Arc::new(data)
}

fn response(data: &'static str) -> Bytes {
    Response { data: Bytes::from_static(data.as_bytes()), error: None }.encode_to_vec().into()
}

fn code(answered: Option<Answered>) -> (u64, String) {
    let (token, body, failed) = answered.expect("an answer");
    assert!(failed);
    (token, body["code"].as_str().expect("a code").to_owned())
}

fn subscribe(uid: &str) -> Option<Command> {
    Some(Command::Subscribe { uid: uid.into() })
}

fn unsubscribe(uid: &str) -> Option<Command> {
    Some(Command::Unsubscribe { uid: uid.into() })
}

#[test]
fn a_request_has_all_that_a_backend_needs() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.now_us = 5;
    rig.request(1, 9, "\"hi\"");
    let (subject, reply, payload) = rig.sent();
    assert_eq!(&*subject, "pitaya/servers/room/r-1");
    assert!(reply.is_some_and(|reply| reply.starts_with("_INBOX.")));
    let request = Request::decode(payload).unwrap();
    let session = request.session.unwrap();
    assert_eq!(
        (session.id, &*session.uid, &*session.data),
        (7, "", &b"{\"ipversion\":\"ipv4\"}"[..])
    );
    let msg = request.msg.unwrap();
    assert_eq!((msg.id, &*msg.route, &*msg.data, msg.kind), (9, ROUTE, &b"\"hi\""[..], 0));
    assert_eq!(request.frontend_id, "c-1");
    let metadata: Value = serde_json::from_slice(&request.metadata).unwrap();
    let wanted = json!({"peer.id": "c-1", "peer.service": "connector", "reqTimeout": "5s",
        "req-route": ROUTE, "req-start-time": 1_000_005_000,
        "request.id": "0000000000100000000001"});
    assert_eq!(metadata, wanted);
}

#[test]
fn answers_find_their_requests_once() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.request(1, 1, "");
    rig.request(2, 2, "");
    let (first, second) = (rig.reply_to_sent(), rig.reply_to_sent());
    rig.member.handle_answer(&second, None, response("2"));
    rig.member.handle_answer(&second, None, response("3"));
    let error = b"\x12\x0b\x0a\x07PIT-404\x12\x00".as_slice();
    rig.member.handle_answer(&first, None, Bytes::from_static(error));
    for strange in ["_INBOX.x", "_INBOX.", "", "n"] {
        rig.member.handle_answer(strange, None, response("4"));
    }
    assert_eq!(rig.answered(), Some((2, json!(2), false)));
    assert_eq!(rig.answered(), Some((1, json!({"code": "PIT-404"}), true)));
    assert_eq!(rig.answered(), None);
}

#[test]
fn what_gets_no_answer_is_answered_for() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.request(1, 1, "");
    let reply = rig.reply_to_sent();
    rig.member.handle_answer(&reply, Some(NO_RESPONDERS), Bytes::new());
    assert_eq!(code(rig.answered()), (1, "PIT-000".into()));
    rig.request(2, 1, "");
    let reply = rig.reply_to_sent();
    rig.member.handle_answer(&reply, None, Bytes::from_static(b"\x0a\xff"));
    assert_eq!(code(rig.answered()), (2, "PIT-500".into()));
    rig.request(3, 1, "");
    let reply = rig.reply_to_sent();
    rig.now_us = TIMEOUT_US - 1;
    assert_eq!(rig.answered(), None);
    rig.now_us = TIMEOUT_US;
    assert_eq!(rig.member.next_deadline_us(), Some(TIMEOUT_US));
    let (token, body, failed) = rig.answered().unwrap();
    let metadata = json!({"peer.id": "r-1", "route": ROUTE, "server": "c-1", "timeout": "5s"});
    let msg = "rpc client: request timeout";
    assert_eq!((token, failed), (3, true));
    assert_eq!(body, json!({"code": "PIT-408", "msg": msg, "metadata": metadata}));
    rig.member.handle_answer(&reply, None, response("5"));
    assert_eq!(rig.answered(), None, "it comes too late");
    rig.member.handle_lost();
    rig.request(5, 1, "");
    assert_eq!(code(rig.answered()), (5, "PIT-500".into()), "it can't be sent");
    rig.member.handle_connected();
    rig.member.handle_servers(Change::Replace(Vec::new()));
    rig.request(6, 1, "");
    assert_eq!(code(rig.answered()), (6, "PIT-500".into()));
    let counts = rig.counters.snapshot();
    assert_eq!((counts.forward_lost, counts.forward_timeouts), (3, 1));
    assert_eq!((counts.cluster_bad_packets, counts.forward_rejects), (1, 0));
}

/// As by Pitaya: a call whose answer comes after NATS was away is answered
/// (docs/protocol/pitaya.md, "NATS subjects").
#[test]
fn what_was_sent_is_answered_though_nats_was_away() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.login(1, "amy");
    assert_eq!(rig.member.poll_command(), subscribe("amy"));
    rig.sent();
    rig.request(1, 1, "");
    let reply = rig.reply_to_sent();
    // What NATS's client has not taken yet is sent later, behind what is listened to.
    rig.request(2, 2, "");
    rig.ask("sys.unknown", Vec::new());
    rig.member.handle_lost();
    assert_eq!(rig.answered(), None);
    rig.login(2, "bob");
    rig.member.handle_connected();
    rig.member.handle_answer(&reply, None, response("1"));
    assert_eq!(rig.answered(), Some((1, json!(1), false)));
    assert_eq!(rig.member.poll_command(), Some(Command::Review));
    let listened = [rig.member.poll_command(), rig.member.poll_command()];
    assert!(listened.contains(&subscribe("amy")) && listened.contains(&subscribe("bob")));
    let later = rig.reply_to_sent();
    assert_eq!(rig.told().error.unwrap().code, "PIT-404");
    rig.member.handle_answer(&later, None, response("2"));
    assert_eq!(rig.answered(), Some((2, json!(2), false)));
    // Of one that has waited for too long there is nothing left to send.
    rig.request(3, 3, "");
    rig.member.handle_lost();
    rig.now_us = TIMEOUT_US;
    assert_eq!(code(rig.answered()), (3, "PIT-408".into()));
    rig.member.handle_connected();
    while let Some(command) = rig.member.poll_command() {
        assert!(!matches!(command, Command::Publish { .. }), "{command:?}");
    }
}

#[test]
fn everything_is_bounded() {
    for limits in [
        PitayaLimits { calls_max: 2, ..PitayaLimits::default() },
        PitayaLimits { calls_per_server_max: 2, ..PitayaLimits::default() },
        PitayaLimits { queue_len_max: 2, ..PitayaLimits::default() },
    ] {
        let mut rig = Rig::new(|cluster| cluster.limits(limits.clone()));
        (1..=3).for_each(|token| rig.request(token, 1, ""));
        assert_eq!(code(rig.answered()), (3, "PIT-500".into()), "{limits:?}");
        assert_eq!(rig.counters.snapshot().forward_rejects, 1);
        let reply = rig.reply_to_sent();
        rig.member.handle_answer(&reply, None, response("1"));
        assert_eq!(rig.answered(), Some((1, json!(1), false)));
        rig.request(4, 1, "");
        assert_eq!(rig.answered(), None, "there is room again");
    }
    let limits = PitayaLimits { callers_max: 1, ..PitayaLimits::default() };
    let mut rig = Rig::new(|cluster| cluster.limits(limits));
    for uid in ["amy", "bob"] {
        rig.ask("sys.kick", KickMsg { user_id: uid.into() }.encode_to_vec());
    }
    assert_eq!(rig.told().error.unwrap().code, "PIT-500");
}

#[test]
fn one_that_is_too_long_fails_alone() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.request(1, 1, "");
    let Some(Command::Publish { call: Some(call), .. }) = rig.member.poll_command() else {
        panic!("nothing is sent")
    };
    rig.member.handle_unsent(call);
    assert_eq!(code(rig.answered()), (1, "PIT-400".into()));
}

#[test]
fn a_notify_waits_for_nothing() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.request(0, 0, "1");
    let (_, reply, payload) = rig.sent();
    assert_eq!(Request::decode(payload).unwrap().msg.unwrap().kind, 1);
    rig.member.handle_answer(&reply.unwrap(), None, response("1"));
    assert_eq!((rig.answered(), rig.member.next_deadline_us()), (None, None));
    rig.request(0, 0, "1");
    let reply = rig.reply_to_sent();
    rig.member.handle_answer(&reply, Some(NO_RESPONDERS), Bytes::new());
    assert_eq!((rig.answered(), rig.member.next_deadline_us()), (None, None));
    assert_eq!(rig.counters.snapshot().forward_lost, 1);
}

#[test]
fn a_user_is_listened_to_before_the_bind_is_acknowledged() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.request(1, 1, "");
    rig.sent();
    let asked = Session { id: 7, uid: "amy".into(), ..Session::default() };
    rig.ask("connector.sys.bindsession", asked.encode_to_vec());
    let Some(Mail::Bind { reply_to: ReplyTo { token, .. }, uid, .. }) = rig.mail() else {
        panic!("the shard is not asked")
    };
    assert_eq!(uid, Uid::from("amy"));
    rig.send(Mail::Login { session: session(), data: data(Some("amy")) });
    rig.send(Mail::Result { token, outcome: Outcome::Bound(Ok(())) });
    assert_eq!(rig.member.poll_command(), subscribe("amy"));
    let (subject, _, payload) = rig.sent();
    assert_eq!(&*subject, "pitaya/connector/bindings");
    let wanted = BindMsg { uid: "amy".into(), fid: "c-1".into() };
    assert_eq!(BindMsg::decode(payload), Ok(wanted));
    assert_eq!(rig.told().data, &b"\x0a\x03ack"[..]);

    rig.ask("sys.bindsession", asked.encode_to_vec());
    assert_eq!(rig.told().error.unwrap().msg, "session is already bound to an uid");
    rig.send(Mail::Logout { data: data(Some("amy")) });
    assert_eq!(rig.member.poll_command(), unsubscribe("amy"));
}

#[test]
fn what_shards_refuse_is_told() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.request(1, 1, "");
    rig.sent();
    let asked = Session { id: 7, uid: "amy".into(), ..Session::default() }.encode_to_vec();
    for (outcome, msg) in [
        (BindError::Gone { number: 0 }, "session not found"),
        (BindError::BoundToOther(Uid::from("b")), "session is already bound to an uid"),
    ] {
        rig.ask("sys.bindsession", asked.clone());
        let Some(Mail::Bind { reply_to, .. }) = rig.mail() else { panic!("it is not asked") };
        let outcome = Outcome::Bound(Err(outcome));
        rig.send(Mail::Result { token: reply_to.token, outcome });
        assert_eq!(rig.told().error.unwrap().msg, msg);
    }
    rig.ask("sys.kick", KickMsg { user_id: "amy".into() }.encode_to_vec());
    let Some(Mail::HomeKick { reply_to: Some(to), .. }) = rig.mail() else { panic!("no kick") };
    rig.send(Mail::Result { token: to.token, outcome: Outcome::Kicked(0) });
    assert_eq!(rig.told().error.unwrap().msg, "session not found");
    for id in [8, -1] {
        rig.ask("sys.pushsession", Session { id, ..Session::default() }.encode_to_vec());
        assert_eq!(rig.told().error.unwrap().msg, "session not found");
    }
}

#[test]
fn all_of_a_sessions_data_is_replaced() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.request(1, 1, "");
    rig.sent();
    let data = Bytes::from_static(b"{\"a\":[1]}");
    rig.ask("sys.pushsession", Session { id: 7, data, ..Session::default() }.encode_to_vec());
    let Some(Mail::Set { settings, others, reply_to, .. }) = rig.mail() else {
        panic!("the shard is not asked")
    };
    assert_eq!((Value::Object(*settings), others), (json!({"a": [1]}), Others::Remove));
    rig.send(Mail::Result { token: reply_to.token, outcome: Outcome::Set(true) });
    assert_eq!(rig.told().data, &b"\x0a\x03ack"[..]);
}

#[test]
fn requests_that_make_no_sense_are_answered_or_counted() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.ask("sys.unknown", Vec::new());
    let error = rig.told().error.unwrap();
    assert_eq!((&*error.code, &*error.metadata["route"]), ("PIT-404", "sys.unknown"));
    rig.ask("sys.bindsession", b"\x08".to_vec());
    assert_eq!(rig.told().error.unwrap().code, "PIT-000");
    // A client's message that another frontend has sent here.
    let msg = Some(Msg { route: "connector.sys.kick".into(), ..Msg::default() });
    let request = Request { msg, ..Request::default() }.encode_to_vec();
    rig.member.handle_request(Some("reply".into()), request.into());
    assert_eq!(rig.told().error.unwrap().code, "PIT-404");
    rig.member.handle_request(Some("reply".into()), Bytes::new());
    assert_eq!(rig.told().error.unwrap().code, "PIT-400");
    for garbage in [&b"\xff"[..], b"\x1a\x05abc"] {
        rig.member.handle_request(Some("reply".into()), Bytes::from_static(garbage));
        rig.member.handle_push(Bytes::from_static(garbage));
        rig.member.handle_kick(Bytes::from_static(garbage));
        rig.member.handle_binding(Bytes::from_static(garbage));
    }
    assert_eq!(rig.member.poll_command(), None);
    assert_eq!(rig.counters.snapshot().cluster_bad_packets, 8);
}

#[test]
fn pushes_reach_the_session_and_kicks_the_uids_home() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.login(1, "amy");
    let push = Push { route: "onChat".into(), uid: "amy".into(), data: "1".into() };
    rig.member.handle_push(push.encode_to_vec().into());
    let session = SessionId::new(ShardIndex(0), Slot(1), Generation::FIRST);
    assert!(matches!(rig.mail(), Some(Mail::Deliver { sessions, .. }) if sessions == [session]));
    rig.member.handle_kick(KickMsg { user_id: "amy".into() }.encode_to_vec().into());
    assert!(matches!(rig.mail(), Some(Mail::HomeKick { uid, .. }) if uid == Uid::from("amy")));
}

#[test]
fn a_user_has_one_frontend_if_wanted() {
    for is_unique in [false, true] {
        let mut rig = Rig::new(|cluster| cluster.unique_session(is_unique));
        rig.login(1, "amy");
        rig.login(2, "amy");
        assert!(rig.mail().is_none(), "the shards know which of the two is older");
        let told = |fid: &str| BindMsg { uid: "amy".into(), fid: fid.into() }.encode_to_vec();
        rig.member.handle_binding(told("c-1").into());
        assert!(rig.mail().is_none(), "its own announcement");
        rig.member.handle_binding(told("c-2").into());
        assert_eq!(matches!(rig.mail(), Some(Mail::HomeKick { .. })), is_unique);
        // It is listened to until the last one has gone.
        assert_eq!(rig.member.poll_command(), subscribe("amy"));
        rig.sent();
        rig.sent();
        let closed = |number| {
            let data = SessionData { number, ..(*data(Some("amy"))).clone() };
            let session = SessionId::new(ShardIndex(0), Slot(number as u32), Generation::FIRST);
            Mail::Closed { session, data: Arc::new(data) }
        };
        rig.send(closed(1));
        assert_eq!(rig.member.poll_command(), None);
        rig.send(closed(2));
        assert_eq!(rig.member.poll_command(), unsubscribe("amy"));
    }
}

#[test]
fn users_are_looked_at_anew_when_nats_is_back() {
    let mut rig = Rig::new(|cluster| cluster);
    rig.member.handle_lost();
    rig.login(1, "amy");
    rig.login(2, "a b");
    assert_eq!(rig.member.poll_command(), None, "there is nobody to tell");
    rig.member.handle_connected();
    assert_eq!(rig.member.poll_command(), Some(Command::Review));
    assert_eq!(rig.member.poll_command(), subscribe("amy"));
    assert_eq!(rig.member.poll_command(), None);
    assert!(rig.member.has_user("amy") && !rig.member.has_user("a b"));
}

/// The thread of another shard answers, whoever asks for one of its sessions.
#[test]
fn each_thread_of_several_does_what_is_its_own() {
    let cluster = PitayaCluster::new(["n:1"], ["e:1"]).server_type("room");
    for index in [0, 1] {
        let share = Share { index, count: 2, shards: 2 };
        let (member, shard, counters) = Member::bare_with(&cluster, |config| config.share = share);
        let mut rig = Rig { member, shard, counters, now_us: 0 };
        let session = |id| Session { id, uid: "amy".into(), ..Session::default() };
        let mut is_answered = |route: &str, data: Vec<u8>| {
            rig.ask(route, data);
            rig.member.poll_command().is_some()
        };
        // Neither knows any session, so that of the number's shard says so.
        assert_eq!(is_answered("sys.bindsession", session(4).encode_to_vec()), index == 0);
        assert_eq!(is_answered("sys.pushsession", session(5).encode_to_vec()), index == 1);
        // What is about no session is the first one's.
        assert_eq!(is_answered("sys.bindsession", session(-1).encode_to_vec()), index == 0);
        assert_eq!(is_answered("sys.bindsession", vec![0xff]), index == 0);
        assert_eq!(is_answered("a.b", Vec::new()), index == 0);
        rig.member.handle_request(Some("reply".into()), Bytes::from_static(b"\xff"));
        assert_eq!(rig.counters.snapshot().cluster_bad_packets, u64::from(index == 0));
    }
}
