//! Messages from NATS and etcd to a frontend of a Pitaya cluster, among its clients' requests.

use std::collections::{BTreeMap, BTreeSet};

use shaddock::internals::cluster::{Effect, Frontend, TIMEOUT_US, forwarded, pushed_to};

/// In any order of events, each client's request is answered once; each backend's request is
/// answered at most once, and exactly once if it can be read while there is a connection. A
/// forwarded message is unchanged, a push reaches only its user, and the subscriptions are those of
/// the users who are logged in.
pub fn check(input: &[u8]) {
    let mut run = Run::new();
    let mut rest = input;
    for _ in 0..OPERATIONS_MAX {
        let [kind, len, after @ ..] = rest else { break };
        let (payload, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        run.step(*kind, payload);
        run.look();
    }
    run.finish();
}

struct Run {
    frontend: Frontend,
    inbox: String,
    is_connected: bool,
    /// Requests of clients that wait: route and body, by token.
    waiting: BTreeMap<u64, (String, Vec<u8>)>,
    /// The reply subjects of forwarded requests, in the order of sending.
    replies: Vec<String>,
    /// The reply subjects of backends' requests without an answer.
    questions: BTreeSet<String>,
    asked: u64,
    tokens: u64,
    /// The user of the last push.
    pushed_to: Option<String>,
}

impl Run {
    fn new() -> Self {
        let frontend = Frontend::new(SESSIONS);
        let inbox = frontend.inbox();
        Self {
            frontend,
            inbox,
            is_connected: true,
            waiting: BTreeMap::new(),
            replies: Vec::new(),
            questions: BTreeSet::new(),
            asked: 0,
            tokens: 0,
            pushed_to: None,
        }
    }

    fn step(&mut self, kind: u8, payload: &[u8]) {
        let (detail, bad) = (usize::from(kind >> 4), self.frontend.bad());
        match kind & 0xf {
            0 => {
                let subject = match self.replies.len() {
                    0 => self.inbox.clone() + "0",
                    len => self.replies[detail % len].clone(),
                };
                self.frontend.handle_answer(&subject, None, payload);
            }
            1 => {
                let subject = String::from_utf8_lossy(payload).into_owned();
                let status = (detail % 2 == 1).then_some(503);
                self.frontend.handle_answer(&(self.inbox.clone() + &subject), status, payload);
                self.frontend.handle_answer(&subject, status, payload);
            }
            2 => self.ask(payload),
            3 => {
                self.pushed_to = pushed_to(payload);
                self.frontend.handle_push(payload);
            }
            4 => self.frontend.handle_kick(payload),
            5 => self.frontend.handle_binding(payload),
            6 => self.frontend.handle_etcd(payload, detail % 2 == 1),
            7 => self.forward(detail % SESSIONS, "room.room.echo", payload),
            8 => {
                let route = String::from_utf8_lossy(&payload[..payload.len().min(60)]);
                self.forward(detail % SESSIONS, &format!("room.{route}"), payload);
            }
            9 => self.frontend.forward(detail % SESSIONS, 0, "room.room.note", payload),
            10 => self.frontend.turn(TIMEOUT_US / 4 * detail as u64),
            11 => {
                self.is_connected = !self.is_connected;
                self.frontend.set_connected(self.is_connected);
                // Requests on their way to the backends are lost.
                self.questions.clear();
            }
            _ => {}
        }
        let counted = self.frontend.bad() - bad;
        assert!(counted <= 2, "{counted} bad messages in one");
    }

    /// Sends a backend's request. More requests than the queue has room for may go unanswered, so
    /// each is answered before the next one.
    fn ask(&mut self, payload: &[u8]) {
        self.asked += 1;
        let reply = format!("reply.{}", self.asked);
        if self.frontend.handle_request(&reply, payload) && self.is_connected {
            self.questions.insert(reply);
        }
    }

    fn forward(&mut self, session: usize, route: &str, body: &[u8]) {
        self.tokens += 1;
        self.waiting.insert(self.tokens, (route.to_owned(), body.to_vec()));
        self.frontend.forward(session, self.tokens, route, body);
    }

    /// Runs everything that is due, and checks the effects.
    fn look(&mut self) {
        // A request goes to the shard, its answer returns, and is sent.
        for _ in 0..3 {
            self.frontend.turn(0);
        }
        while let Some(effect) = self.frontend.poll_effect() {
            match effect {
                Effect::Answered { token } => {
                    assert!(self.waiting.remove(&token).is_some(), "{token} is answered twice");
                }
                Effect::Delivered { session, uid } => {
                    assert!(uid.is_some(), "session {session} got a push, and nobody is in");
                    assert_eq!(uid, self.pushed_to);
                }
                Effect::Published { subject, reply, payload } => {
                    assert!(self.is_connected, "sent to nobody");
                    self.look_at_sent(&subject, reply, &payload);
                }
            }
        }
        assert!(self.questions.is_empty(), "unanswered: {:?}", self.questions);
        if self.is_connected {
            let (listening, users) = self.frontend.listening();
            assert_eq!(listening, users);
        }
    }

    fn look_at_sent(&mut self, subject: &str, reply: Option<String>, payload: &[u8]) {
        // A wildcard token matches any token; within a name these are ordinary characters.
        let is_wild = |token: &str| matches!(token, "" | "*" | ">");
        let is_one_subject = !subject.contains([' ', '\t', '\r', '\n']);
        assert!(is_one_subject && !subject.split('.').any(is_wild), "{subject:?}");
        if subject.starts_with("reply.") {
            assert!(self.questions.remove(subject), "{subject} is answered twice");
        } else if subject.starts_with("pitaya/servers/room/") {
            let (route, body) = forwarded(payload).expect("a request of ours");
            let reply = reply.expect("somewhere for the answer");
            assert!(reply.starts_with(&self.inbox));
            if route != "room.room.note" {
                let is_it = |(sent, bytes): &(String, Vec<u8>)| *sent == route && *bytes == body;
                assert!(self.waiting.values().any(is_it), "nobody has sent {route}");
                self.replies.push(reply);
            }
        } else {
            assert_eq!((subject, reply), ("pitaya/connector/bindings", None));
        }
    }

    /// Advances the time until everything is answered.
    fn finish(&mut self) {
        self.frontend.turn(TIMEOUT_US);
        self.look();
        assert!(self.waiting.is_empty(), "unanswered: {:?}", self.waiting.keys());
    }
}

const SESSIONS: usize = 4;
const OPERATIONS_MAX: usize = 64;
