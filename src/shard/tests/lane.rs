//! Messages that find the lane to their worker full.

use bytes::Bytes;

use super::*;
use crate::dispatch::{Filter, Request, Session};
use crate::forward::mail::{Forward, Mail, WorkerBody, WorkerReply};
use crate::forward::message_batch::MessageBatch;
use crate::forward::{Carrier, LaneFull, ServerType, WorkerIndex};
use crate::metrics::ForwardEnd;
use crate::wire::answer;

pub(super) const CHAT: &str = "chat.chatHandler.echo";
const LANE: usize = 2;

/// A shard with one worker, which reads when it is told to.
pub(super) struct Chat {
    pub(super) rig: Rig,
    pub(super) worker: Endpoint,
}

impl Chat {
    fn new(lane_full: LaneFull, limits: Limits) -> Self {
        Self::with(lane_full, limits, handlers)
    }

    fn with(
        lane_full: LaneFull,
        limits: Limits,
        register: impl Fn(&mut Handlers) + Send + Sync + 'static,
    ) -> Self {
        Self::start(lane_full, limits, register, false)
    }

    fn start(
        lane_full: LaneFull,
        limits: Limits,
        register: impl Fn(&mut Handlers) + Send + Sync + 'static,
        in_batches: bool,
    ) -> Self {
        let limits = Limits { lane_len: LANE, ..limits };
        let limits = if in_batches { limits } else { one_by_one(limits) };
        Self::within(lane_full, limits, register)
    }

    /// A lane as long as the limits say.
    pub(super) fn within(
        lane_full: LaneFull,
        limits: Limits,
        register: impl Fn(&mut Handlers) + Send + Sync + 'static,
    ) -> Self {
        let lane_len = limits.lane_len;
        let hub = Hub::new(1, 1, HubLimits { lane_len, inbox_len: 16 });
        let routes = RouteTable::new([ECHO, CHAT].map(str::to_owned), None, None);
        let servers = ["chat-1".into()].into();
        let carrier = Carrier::Workers { servers, first_worker: WorkerIndex(0), route: None };
        let config = ShardConfig {
            limits,
            server_types: vec![ServerType { name: "chat".into(), carrier, lane_full }],
            ..ShardConfig::bare(routes, None, Arc::new(register))
        };
        let worker = Endpoint::new(Arc::clone(&hub), Party(1), 16);
        Self { rig: Rig::of(config, &hub), worker }
    }

    fn paused() -> Self {
        Self::new(LaneFull::Pause, Limits::default())
    }

    /// The worker answers so many messages, with their own bodies; the ids that it has seen.
    pub(super) fn answer(&mut self, count: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        self.worker.waiting(Party(0));
        for _ in 0..count {
            let Some(mail) = self.worker.receive(Party(0)) else { break };
            let Forward { token, id, bytes, .. } = match mail {
                Mail::Forward(forward) => forward,
                Mail::Batch(batch) => {
                    ids.extend(self.answer_batch(batch));
                    continue;
                }
                _ => continue,
            };
            ids.push(id);
            self.worker.add_handled(Party(0), bytes.len());
            if token != 0 {
                let reply = WorkerReply {
                    body: WorkerBody::Bytes(bytes),
                    end: ForwardEnd::Answered,
                    data: None,
                };
                self.worker.send(Party(0), Mail::Answer { token, reply });
            }
        }
        while self.worker.poll_bell().is_some() {}
        self.rig.turn(|_| ());
        ids
    }

    /// Answers all messages of a batch.
    fn answer_batch(&mut self, mut batch: Box<MessageBatch>) -> Vec<u32> {
        let messages = batch.messages.iter().enumerate();
        for (at, (head, body)) in messages.filter(|(_, (head, _))| head.id != 0) {
            answer::encode(false, head.id, body, &mut batch.answers);
            batch.answered |= 1 << at;
        }
        let ids = batch.messages.iter().map(|(head, _)| head.id).collect();
        self.worker.add_handled(Party(0), batch.messages.bytes());
        self.worker.send(Party(0), Mail::Batch(batch));
        ids
    }

    /// Asserts that nothing is left of any message.
    pub(super) fn expect_rest(&self) {
        let shard = &self.rig.shard;
        assert_eq!(
            (shard.forwarder().lane_waits().len(), shard.connections().budgets().held_bytes()),
            (0, 0)
        );
        assert_eq!((shard.forwarder().pending_len(), shard.connections().kept_bytes()), (0, 0));
        assert!(!shard.has_more);
        assert!(
            shard.connections().iter().all(|(_, connection)| connection.session.in_flight == 0)
        );
    }
}

fn ask(ids: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    ids.flat_map(|id| request(id, CHAT, "1")).collect()
}

fn answers(ids: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    ids.flat_map(|id| response(id, "1")).collect()
}

pub(super) const FAILED: &str = r#"{"code":500}"#;
const PAUSED: Command = Command::PauseReading(SocketIndex(0));
const RESUMED: Command = Command::ResumeReading(SocketIndex(0));

#[test]
fn a_full_lane_refuses_where_nothing_else_is_asked_for() {
    let mut chat = Chat::new(LaneFull::Reject, Limits::default());
    let session = chat.rig.ready();
    chat.rig.receive(session, &ask(1..=4));
    assert_eq!(chat.rig.sent[0], [response(3, FAILED), response(4, FAILED)].concat());
    assert_eq!((chat.rig.counters().forward_rejects, chat.rig.commands.len()), (2, 0));
    assert_eq!(chat.answer(9), [1, 2]);
    chat.expect_rest();
}

#[test]
fn a_full_lane_pauses_its_session_and_no_other() {
    let mut chat = Chat::paused();
    let (session, other) = (chat.rig.ready(), chat.rig.ready());
    chat.rig.receive(session, &[ask(1..=5), request(6, ECHO, "1")].concat());
    assert_eq!((&chat.rig.sent[0][..], &chat.rig.commands[..]), (&b""[..], &[PAUSED][..]));
    assert_eq!(chat.rig.counters().lane_pauses, 1);
    assert_eq!(
        chat.rig.shard.forwarder().lane_waits().len(),
        1,
        "one message, however many follow it"
    );
    // What the kernel had under way.
    chat.rig.receive(session, &request(7, ECHO, "1"));
    chat.rig.receive(other, &request(1, ECHO, "1"));
    assert_eq!(chat.rig.sent[1], response(1, "1"));
    assert!(!chat.rig.shard.has_work(), "nothing to do before the worker has read");
    assert!(chat.rig.shard.next_deadline_us().is_some(), "nobody may tell of that");

    for seen in 1..=5 {
        assert_eq!(chat.answer(1), [seen]);
    }
    assert!(chat.answer(9).is_empty());
    // The shard's own answers are not behind those of its worker.
    let own = [6, 7].map(|id| response(id, "1")).concat();
    let sent = &chat.rig.sent[0];
    assert!(sent.windows(own.len()).any(|window| window == own));
    assert_eq!(sent.len(), answers(1..=7).len());
    assert_eq!(chat.rig.commands.last(), Some(&RESUMED));
    let counters = chat.rig.counters();
    assert_eq!((counters.forwards, counters.forward_rejects), (5, 0));
    chat.expect_rest();
}

#[test]
fn no_cut_matters_to_what_waits() {
    let stream = ask(1..=9);
    for cut in cases(97, 1..stream.len()) {
        let mut chat = Chat::paused();
        let session = chat.rig.ready();
        chat.rig.turn(|shard| {
            for piece in stream.chunks(cut) {
                shard.handle_receive(session, &mut piece.to_vec());
            }
        });
        for seen in 1..=9 {
            assert_eq!(chat.answer(1), [seen], "cut at {cut}");
        }
        assert!(chat.rig.sent[0] == answers(1..=9), "cut at {cut}");
        chat.expect_rest();
    }
}

#[test]
fn the_rest_of_a_websocket_message_waits_too() {
    let mut chat = Chat::paused();
    let session = chat.rig.accept().unwrap();
    let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    chat.rig.receive(session, upgrade);
    chat.rig.receive(session, &frame(0x82, &[handshake(), ack()].concat()));
    let frames = [frame(0x82, &ask(1..=4)), frame(0x02, &ask(5..=6)), frame(0x80, &ask(7..=7))];
    chat.rig.receive(session, &frames.concat());
    for seen in 1..=7 {
        assert_eq!(chat.answer(1), [seen]);
    }
    assert_eq!(chat.rig.counters().answers, 7);
    chat.expect_rest();
}

#[test]
fn sessions_get_room_by_turns() {
    let mut chat = Chat::paused();
    let sessions = [chat.rig.ready(), chat.rig.ready(), chat.rig.ready()];
    for (place, session) in (0..).zip(sessions) {
        chat.rig.receive(session, &ask(100 * place..=100 * place + 9));
    }
    let mut seen = Vec::new();
    while let Some(id) = chat.answer(1).first() {
        seen.push(id / 100);
        // It sends more and more, which gets it nothing.
        chat.rig.receive(sessions[0], &ask(99..=99));
        if seen.len() == 12 {
            break;
        }
    }
    // The first two had come before the lane was full.
    assert_eq!(seen, [0, 0, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn what_waits_in_vain_is_refused_and_what_follows_at_once() {
    let mut chat = Chat::new(
        LaneFull::Pause,
        Limits { forward_timeout: Duration::from_secs(1), ..Limits::default() },
    );
    let session = chat.rig.ready();
    chat.rig.receive(session, &ask(1..=5));
    chat.rig.pass(900);
    assert_eq!(chat.rig.sent[0], b"");
    chat.rig.pass(200);
    // The first two have timed out in the lane.
    let failed = |ids: &[u32]| ids.iter().flat_map(|id| response(*id, FAILED)).collect::<Vec<_>>();
    assert_eq!(chat.rig.sent[0], failed(&[3, 1, 2, 4, 5]));
    let counters = chat.rig.counters();
    assert_eq!((counters.forward_rejects, counters.forward_timeouts), (3, 2));
    assert_eq!(chat.rig.commands, [PAUSED, RESUMED]);
    chat.rig.receive(session, &ask(6..=6));
    assert_eq!(chat.rig.sent[0], failed(&[3, 1, 2, 4, 5, 6]), "there is no room yet");
    chat.expect_rest();

    assert_eq!(chat.answer(1), [1]);
    chat.rig.receive(session, &ask(7..=8));
    assert_eq!(
        chat.rig.shard.forwarder().lane_waits().len(),
        1,
        "there was room: it is waited for again"
    );
    assert_eq!(chat.answer(9), [2, 7]);
    assert_eq!(chat.answer(9), [8]);
    chat.expect_rest();
}

#[test]
fn a_session_that_ends_leaves_nothing_waiting() {
    let mut chat = Chat::paused();
    let (first, second) = (chat.rig.ready(), chat.rig.ready());
    chat.rig.receive(first, &ask(1..=5));
    chat.rig.receive(second, &ask(1..=5));
    assert_eq!(chat.rig.shard.forwarder().lane_waits().len(), 2);
    chat.rig.turn(|shard| shard.handle_receive_end(first, ReceiveEnd::Error));
    assert_eq!(chat.rig.shard.forwarder().lane_waits().len(), 1);
    chat.rig.turn(|shard| shard.outbound_mut().kick(second.slot(), None, CloseReason::Kick));
    assert_eq!(chat.rig.shard.forwarder().lane_waits().len(), 0);
    assert_eq!(chat.answer(9), [1, 2]);
    chat.expect_rest();
}

/// Notes how often it runs after what it has let in.
struct Both(Arc<std::sync::atomic::AtomicI64>);

impl Filter for Both {
    fn before(&self, _: &Request<'_>, _: &mut Session) -> crate::dispatch::Verdict {
        self.0.fetch_add(1, Ordering::Relaxed);
        crate::dispatch::Verdict::Continue
    }

    fn after(&self, _: &Request<'_>, _: &mut Session, _: &mut Reply<'_>) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn filters_hear_of_the_end_of_what_waited_in_a_session_that_has_ended() {
    let open = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let counted = Arc::clone(&open);
    let register = move |handlers: &mut Handlers| {
        handlers.global_filter(Both(Arc::clone(&counted)));
    };
    let mut chat = Chat::with(LaneFull::Pause, Limits::default(), register);
    let session = chat.rig.ready();
    chat.rig.receive(session, &ask(1..=5));
    assert_eq!(open.load(Ordering::Relaxed), 3);
    chat.rig.turn(|shard| shard.handle_receive_end(session, ReceiveEnd::Error));
    assert_eq!(open.load(Ordering::Relaxed), 2);
    assert_eq!(chat.answer(9), [1, 2]);
    assert_eq!(open.load(Ordering::Relaxed), 0);
    chat.expect_rest();
}

#[test]
fn an_end_comes_after_what_waits() {
    let mut chat = Chat::paused();
    let session = chat.rig.ready();
    chat.rig.turn(|shard| {
        shard.handle_receive(session, &mut ask(1..=5));
        shard.handle_receive_end(session, ReceiveEnd::Eof);
    });
    assert_eq!(chat.rig.counters().closed_by_peer, 0);
    for seen in 1..=5 {
        assert_eq!(chat.answer(1), [seen]);
    }
    assert_eq!(chat.rig.counters().closed_by_peer, 1);
    chat.expect_rest();
}

/// A client that is not read can't be heard.
#[test]
fn a_session_that_waits_is_not_silent() {
    let mut chat = Chat::new(
        LaneFull::Pause,
        Limits { idle_timeout: Duration::from_secs(1), ..Limits::default() },
    );
    let (session, silent) = (chat.rig.ready(), chat.rig.ready());
    chat.rig.receive(session, &ask(1..=5));
    chat.rig.pass(3_000);
    assert!(
        chat.rig.shard.connections_mut().find(session).is_some_and(|(_, c)| c.state.is_working())
    );
    assert!(
        chat.rig.shard.connections_mut().find(silent).is_none_or(|(_, c)| !c.state.is_working())
    );
    for _ in 0..5 {
        chat.answer(1);
    }
    assert_eq!(chat.rig.sent[0], answers(1..=5));
}

/// A waiting message counts for what a shard may hold; without room for it, it is refused.
#[test]
fn what_waits_is_bounded() {
    let limits = Limits { held_bytes_max: 2_000, ..Limits::default() };
    let mut chat = Chat::new(LaneFull::Pause, limits);
    let session = chat.rig.ready();
    let large = "x".repeat(2_000);
    chat.rig.receive(session, &[ask(1..=2), request(3, CHAT, &large)].concat());
    assert_eq!(chat.rig.sent[0], response(3, FAILED));
    let others: Vec<SessionId> = (0..20).map(|_| chat.rig.ready()).collect();
    for other in others {
        chat.rig.receive(other, &ask(9..=9));
        assert!(chat.rig.shard.connections().budgets().held_bytes() <= 2_000);
    }
    let counters = chat.rig.counters();
    assert!(counters.lane_pauses > 0 && counters.forward_rejects > 1, "{counters:?}");
    assert_eq!(counters.lane_pauses + counters.forward_rejects, 21);
}

/// A body carved from memory that others share is copied: it may wait for long.
#[test]
fn a_message_that_waits_keeps_no_other_memory() {
    let mut chat = Chat::paused();
    let session = chat.rig.ready();
    chat.rig.receive(session, &ask(1..=3));
    assert_eq!(chat.answer(2), [1, 2]);
    let Some(Mail::Forward(Forward { bytes, .. })) = chat.worker.receive(Party(0)) else {
        panic!("it was not sent")
    };
    assert_eq!(bytes, Bytes::from_static(b"1"));
    assert!(bytes.is_unique());
}

#[test]
fn a_drain_waits_for_what_waits() {
    let mut chat = Chat::paused();
    let session = chat.rig.ready();
    chat.rig.receive(session, &ask(1..=3));
    chat.rig.turn(|shard| shard.drain(AT_ONCE));
    assert_eq!(chat.rig.counters().closed_shutdown, 0);
    for _ in 0..3 {
        chat.answer(1);
    }
    assert_eq!(chat.rig.counters().closed_shutdown, 1);
    assert!(chat.rig.sent[0].starts_with(&answers(1..=3)));
}

#[test]
fn a_batch_is_no_longer_than_its_lane_and_what_does_not_fit_waits() {
    for policy in [LaneFull::Reject, LaneFull::Pause] {
        let mut chat = Chat::start(policy, Limits::default(), handlers, true);
        let session = chat.rig.ready();
        chat.rig.receive(session, &ask(1..=5));
        assert_eq!(chat.answer(1), [1, 2], "as many as the lane takes, in one batch");
        match policy {
            LaneFull::Reject => {
                let failed = (3..=5).flat_map(|id| response(id, FAILED));
                assert_eq!(chat.rig.sent[0], failed.chain(answers(1..=2)).collect::<Vec<_>>());
            }
            LaneFull::Pause => {
                let mut seen = Vec::new();
                while seen.len() < 3 {
                    let more = chat.answer(9);
                    assert!(!more.is_empty(), "{seen:?}");
                    seen.extend(more);
                }
                assert_eq!(seen, [3, 4, 5]);
                assert_eq!(chat.rig.sent[0], answers(1..=5));
            }
        }
        chat.expect_rest();
        assert_eq!(chat.rig.shard.forwarder().away(WorkerIndex(0)), 0);
    }
}

#[test]
fn a_batch_that_is_late_is_answered_for_and_its_notifies_are_not() {
    let mut chat = Chat::start(LaneFull::Reject, Limits::default(), handlers, true);
    let session = chat.rig.ready();
    let notify = {
        let mut out = Vec::new();
        let route = Some(RouteRef::Text(CHAT.as_bytes()));
        let kind = MessageType::Notify;
        message::encode(&Message { id: 0, kind, route, body: b"1", gzip: false }, &mut out)
            .unwrap();
        package(PackageType::Data, &out)
    };
    chat.rig.receive(session, &[ask(1..=1), notify].concat());
    assert_eq!(chat.rig.shard.forwarder().pending_len(), 2);
    chat.rig.pass(Limits::default().forward_timeout.as_millis() as u64 + 2 * STEP_MS);
    assert_eq!(chat.rig.sent[0], response(1, FAILED));
    assert_eq!(chat.rig.counters().forward_timeouts, 1);
    // What comes too late is told to nobody.
    assert_eq!(chat.answer(1), [1, 0]);
    assert_eq!(chat.rig.sent[0], response(1, FAILED));
    chat.expect_rest();
    assert_eq!(chat.rig.shard.forwarder().away(WorkerIndex(0)), 0);
}
