//! The connection to NATS: the subjects that are subscribed to, and the messages that are sent.
//!
//! It is driven by the cluster's thread alone, so that a message takes no queue and no task of its
//! own on its way between socket and member.

mod dial;
mod link;
mod stream;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustc_hash::{FxHashMap, FxHashSet};

use self::dial::Dialer;
use self::link::Link;
use crate::limits::turn::CLUSTER_MESSAGES_PER_TURN;
use crate::pitaya::nats::{Delivery, Frame, Outgoing, ServerInfo};
use crate::pitaya::subjects::{self, Subject};
use crate::pitaya::{Command, Member, PitayaCluster};

/// The connection, and who is listened to on it.
pub(super) struct Nats {
    dialer: Dialer,
    subjects: Subjects,
    state: State,
    /// Connections that there have been, the present one included.
    connections: u64,
    /// The numbers of the users' subscriptions, by uid: pushes have this one, kicks the next.
    users: FxHashMap<Arc<str>, u64>,
    next_sid: u64,
    /// Messages that the last connection has not begun to send.
    unsent: Outgoing,
    /// True if the server is about to stop.
    is_lame: bool,
    /// There while another connection is the one that is listened to.
    muted: Option<Muted>,
}

/// The subjects that are always subscribed to.
#[derive(Clone)]
struct Subjects {
    frontend_type: Arc<str>,
    /// The beginning of the subjects of answers.
    inbox: Arc<str>,
    requests: Subject,
    /// Logins at frontends of this type, if they matter.
    bindings: Option<Subject>,
}

enum State {
    Connecting(BoxFuture<'static, (Dialer, Link)>),
    Connected(Box<Link>),
    /// It has ended, and is not tried for again.
    Left,
}

/// All that another connection listens to as well.
struct Muted {
    users: FxHashSet<Arc<str>>,
    /// The subscriptions of these users, by their even numbers.
    sids: FxHashSet<u64>,
    /// Answers, which wait, as they would overtake pushes that the other connection gets.
    answers: Vec<Delivery>,
    answer_bytes: usize,
}

/// A ping on a connection, by the connection's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settling {
    connection: u64,
    ping: u64,
}

/// The numbers of the subscriptions. Those of users are never used twice, so that what was sent
/// before the end of a subscription reaches nobody else.
mod sid {
    pub(super) const INBOX: u64 = 1;
    pub(super) const REQUESTS: u64 = 2;
    pub(super) const BINDINGS: u64 = 3;
    pub(super) const FIRST_USER: u64 = 4;
}

/// Answers, and bytes of them, that wait while another connection is listened to; more are dropped,
/// which the other one gets, too.
const MUTED_ANSWERS_MAX: usize = 65_536;
const MUTED_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Nats {
    /// Begins to connect. Answers come on subjects that begin with `inbox`.
    pub(super) fn start(
        cluster: &PitayaCluster,
        frontend_type: &Arc<str>,
        id: &str,
        inbox: &Arc<str>,
        random: u64,
    ) -> Self {
        let subjects = Subjects {
            frontend_type: Arc::clone(frontend_type),
            inbox: Arc::clone(inbox),
            requests: subjects::server(frontend_type, id),
            bindings: cluster.unique_session.then(|| subjects::bindings(frontend_type)),
        };
        let dialer = Dialer::new(cluster, random);
        Self::new(dialer.clone(), subjects, State::Connecting(dialer.connect().boxed()))
    }

    fn new(dialer: Dialer, subjects: Subjects, state: State) -> Self {
        Self {
            dialer,
            subjects,
            state,
            connections: 0,
            users: FxHashMap::default(),
            next_sid: sid::FIRST_USER,
            unsent: Outgoing::default(),
            is_lame: false,
            muted: None,
        }
    }

    /// Another connection, to any server that takes one.
    pub(super) fn another(&self) -> BoxFuture<'static, Self> {
        let (dialer, subjects) = (self.dialer.clone(), self.subjects.clone());
        async move {
            let (dialer, link) = dialer.connect().await;
            let mut nats = Self::new(dialer, subjects, State::Left);
            nats.enter(link);
            nats
        }
        .boxed()
    }

    /// A connection is there.
    fn enter(&mut self, mut link: Link) {
        self.connections += 1;
        self.is_lame = link.info.is_lame;
        self.dialer.handle_info(&link.info);
        let Subjects { inbox, requests, bindings, .. } = &self.subjects;
        link.outgoing.subscribe(sid::INBOX, &format!("{inbox}*"));
        link.outgoing.subscribe(sid::REQUESTS, requests);
        if let Some(bindings) = bindings {
            link.outgoing.subscribe(sid::BINDINGS, bindings);
        }
        link.outgoing.append(&mut self.unsent);
        self.state = State::Connected(Box::new(link));
    }

    /// Asks for a sign that the server has done all that it was sent.
    pub(super) fn settle(&mut self) -> Option<Settling> {
        let State::Connected(link) = &mut self.state else { return None };
        Some(Settling { connection: self.connections, ping: link.ping() })
    }

    /// True if the sign has come; `None` if it never will, as the connection has ended.
    pub(super) fn is_settled(&self, settling: Settling) -> Option<bool> {
        match &self.state {
            State::Connected(link) if settling.connection == self.connections => {
                Some(link.has_answered(settling.ping))
            }
            _ => None,
        }
    }

    /// True if the server has said that it is about to stop.
    pub(super) fn is_lame(&self) -> bool {
        self.is_lame
    }

    /// Leaves alone what an older connection gets.
    pub(super) fn mute(&mut self, older: &Self) {
        self.muted = Some(Muted {
            users: older.users.keys().map(Arc::clone).collect(),
            sids: FxHashSet::default(),
            answers: Vec::new(),
            answer_bytes: 0,
        });
    }

    /// Takes everything from here on. An answer that has come on both is taken once.
    pub(super) fn unmute(&mut self, member: &mut Member) {
        for answer in self.muted.take().into_iter().flat_map(|muted| muted.answers) {
            handle_answer(member, &answer);
        }
    }

    /// Sends what it was given, and ends.
    pub(super) fn leave(self) {
        let State::Connected(mut link) = self.state else { return };
        tokio::spawn(async move {
            // Whatever fails here has ended already.
            drop(tokio::time::timeout(super::STOP_WITHIN, link.finish()).await);
        });
    }

    /// Hands in what has come. `true` if anything has.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, member: &mut Member) -> bool {
        let mut has_come = false;
        if let State::Connecting(connecting) = &mut self.state
            && let Poll::Ready((dialer, link)) = connecting.poll_unpin(cx)
        {
            self.dialer = dialer;
            self.enter(link);
            member.handle_connected();
            has_come = true;
        }
        match self.poll_received(cx, member) {
            Ok(has_received) => has_come |= has_received,
            Err(error) => {
                crate::log::seldom!(warn, %error, "the connection to NATS has ended");
                self.handle_lost();
                member.handle_lost();
                // It is to be polled before this thread sleeps.
                has_come = true;
            }
        }
        has_come | (self.has_room() && member.has_commands())
    }

    fn handle_lost(&mut self) {
        if let State::Connected(link) = &mut self.state {
            self.dialer.handle_end(link.since.elapsed());
            self.unsent = std::mem::take(&mut link.outgoing);
            self.unsent.keep_messages();
        }
        self.users.clear();
        self.is_lame = false;
        self.state = State::Connecting(self.dialer.clone().connect().boxed());
    }

    /// The same of messages alone, as far as one turn goes.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn poll_received(
        &mut self,
        cx: &mut Context<'_>,
        member: &mut Member,
    ) -> io::Result<bool> {
        let mut taken = 0;
        while taken < CLUSTER_MESSAGES_PER_TURN {
            let State::Connected(link) = &mut self.state else { break };
            let Poll::Ready(frame) = link.poll_frame(cx) else { break };
            self.handle_frame(frame?, member);
            taken += 1;
        }
        if let State::Connected(link) = &mut self.state {
            // What is left is sent when the socket takes it, of which this task is told.
            let _ = link.poll_send(cx);
        }
        Ok(taken > 0)
    }

    fn handle_frame(&mut self, frame: Frame, member: &mut Member) {
        match frame {
            Frame::Message(delivery) => self.handle_delivery(delivery, member),
            Frame::Info(json) => self.handle_info(&json),
            Frame::Error(words) => crate::log::seldom!(warn, error = words, "NATS"),
            // Those of the connection itself are answered there.
            Frame::Ping | Frame::Pong | Frame::Ok => {}
        }
    }

    fn handle_info(&mut self, json: &[u8]) {
        match ServerInfo::parse(json) {
            Ok(info) => {
                self.is_lame |= info.is_lame;
                self.dialer.handle_info(&info);
                if let State::Connected(link) = &mut self.state {
                    link.info = info;
                }
            }
            Err(error) => crate::log::seldom!(warn, %error, "NATS tells of itself what none does"),
        }
    }

    fn handle_delivery(&mut self, delivery: Delivery, member: &mut Member) {
        match (delivery.sid, &mut self.muted) {
            (sid::INBOX, None) => handle_answer(member, &delivery),
            (sid::INBOX, Some(muted)) => muted.keep_answer(delivery),
            (sid::REQUESTS, None) => {
                let reply = delivery.reply.as_deref().map(text).map(Arc::from);
                member.handle_request(reply, delivery.payload);
            }
            (sid::BINDINGS, None) => member.handle_binding(delivery.payload),
            (sid::REQUESTS | sid::BINDINGS, Some(_)) => {}
            (sid, Some(muted)) if muted.sids.contains(&(sid & !1)) => {}
            (sid, _) if sid & 1 == 0 => member.handle_push(delivery.payload),
            _ => member.handle_kick(delivery.payload),
        }
    }

    fn has_room(&self) -> bool {
        matches!(&self.state, State::Connected(link) if link.has_room())
    }

    /// Sends what waits, as far as there is room for it.
    pub(super) fn send(&mut self, member: &mut Member) {
        // The task is told of room by `poll`, which comes before it sleeps.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let State::Connected(link) = &mut self.state else { return };
            if !link.has_room() && (link.poll_send(&mut cx).is_pending() || !link.has_room()) {
                return;
            }
            let Some(command) = member.poll_command() else { break };
            self.handle_command(command, member);
        }
        if let State::Connected(link) = &mut self.state {
            let _ = link.poll_send(&mut cx);
        }
    }

    fn handle_command(&mut self, command: Command, member: &mut Member) {
        let State::Connected(link) = &mut self.state else { return };
        match command {
            Command::Publish { payload, call, .. } if payload.len() > link.info.max_payload => {
                tracing::debug!(bytes = payload.len(), "a message is too long for NATS");
                if let Some(call) = call {
                    member.handle_unsent(call);
                }
            }
            Command::Publish { subject, payload, call } => {
                let reply = call.map(|call| (&*self.subjects.inbox, call));
                link.outgoing.publish(&subject, reply, &payload);
            }
            Command::Subscribe { uid } => self.listen(&uid),
            Command::Unsubscribe { uid } => {
                if let Some(sid) = self.users.remove(&uid) {
                    unsubscribe(link, sid);
                }
            }
            Command::Review => self.users.retain(|uid, sid| {
                let stays = member.has_user(uid);
                if !stays {
                    unsubscribe(link, *sid);
                }
                stays
            }),
        }
    }

    /// Listens to a user.
    fn listen(&mut self, uid: &Arc<str>) {
        let State::Connected(link) = &mut self.state else { return };
        if self.users.contains_key(uid) {
            return;
        }
        let sid = self.next_sid;
        self.next_sid += 2;
        let frontend_type = &self.subjects.frontend_type;
        link.outgoing.subscribe(sid, &subjects::push(frontend_type, uid));
        link.outgoing.subscribe(sid + 1, &subjects::kick(frontend_type, uid));
        self.users.insert(Arc::clone(uid), sid);
        if let Some(muted) = &mut self.muted
            && muted.users.contains(uid)
        {
            muted.sids.insert(sid);
        }
    }

    /// Waits until the server has done all that it was sent.
    pub(super) async fn finish(&mut self) {
        if let State::Connected(link) = &mut self.state
            && let Err(error) = link.finish().await
        {
            crate::log::seldom!(warn, %error, "NATS has not taken all messages: some are lost");
        }
    }
}

impl Muted {
    fn keep_answer(&mut self, answer: Delivery) {
        let bytes = self.answer_bytes + answer.payload.len();
        if self.answers.len() < MUTED_ANSWERS_MAX && bytes <= MUTED_ANSWER_BYTES_MAX {
            self.answer_bytes = bytes;
            self.answers.push(answer);
        }
    }
}

/// Ends both subscriptions of a user.
fn unsubscribe(link: &mut Link, sid: u64) {
    link.outgoing.unsubscribe(sid);
    link.outgoing.unsubscribe(sid + 1);
}

fn handle_answer(member: &mut Member, answer: &Delivery) {
    member.handle_answer(text(&answer.subject), answer.status, answer.payload.clone());
}

/// A subject's text. One that is no text is nobody's.
fn text(subject: &[u8]) -> &str {
    std::str::from_utf8(subject).unwrap_or_default()
}
