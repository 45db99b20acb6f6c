//! The side of a network forwarder that faces the engine, the same for every cluster protocol.
//!
//! A forwarder is one party of the hub, like a worker, and stands for all servers of a cluster.
//! Shards send it what clients send ([`Received::Forward`]) and which sessions have ended
//! ([`Received::Closed`]); it answers with [`Remote::answer`]. What the cluster's servers ask of
//! sessions goes through the methods here to the shards that own them, and comes back as
//! [`Received::Done`], with whatever the forwarder has given as `caller` to know its question by.
//!
//! It does no I/O. Its thread, in this order and over again: [`Remote::begin_turn`],
//! [`Remote::receive`] until it gives nothing, its own sockets, [`Remote::poll_bell`] until it
//! gives nothing; then it sleeps until [`Remote::backlog_retry_us`] at the latest, unless
//! [`Remote::has_work`] says otherwise once the doorbell is armed.
//!
//! # Sessions by number
//! A cluster's servers call sessions by the number that they have been told, so the forwarder has
//! to know whose it is. It keeps those it has told of, and no others: every number that a server
//! can know has gone through here, with a message ([`Remote::export`]) or with an answer to
//! [`Remote::find_uid`]. The shard notes each of these, and says when the session ends, so there
//! are never more entries than sessions that live. No lock and no table of the shards' is needed.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use super::asker::{Asker, Busy, PendingAsks};
use super::hub::{Endpoint, Hub};
use super::mail::{Forward, Mail, Others, Outcome, ReplyTo, WorkerReply};
use super::party::Party;
use super::scatter::ByShard;
use crate::dispatch::{Audience, BindError};
use crate::limits::Limits;
use crate::limits::turn::MESSAGES_PER_SHARD;
use crate::route::PushError;
use crate::route::edition::Edition;
use crate::route::push::Push;
use crate::route::table::RouteTable;
use crate::session::{SessionData, SessionId, ShardIndex, Uid};
use crate::span::SpanContext;

/// A forwarder's place in the engine. `C` is how it knows its questions by; `E` is the form in
/// which its servers are told of a session.
pub(crate) struct Remote<C, E> {
    endpoint: Endpoint,
    asks: PendingAsks<Caller<C>>,
    routes: Arc<RouteTable>,
    edition: Arc<Edition>,
    /// The sessions that servers know, by number.
    sessions: FxHashMap<u64, Known<E>>,
    /// Mail of each shard that is still to be read this turn.
    unread: Vec<usize>,
}

/// The settings of a forwarder.
pub(crate) struct RemoteConfig<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) edition: Arc<Edition>,
}

/// A session that servers know.
struct Known<E> {
    id: SessionId,
    /// Held, so that whoever changes the session makes a copy: the same pointer means the same
    /// content.
    data: Arc<SessionData>,
    export: Option<E>,
}

/// Whoever waits for the outcome of a question.
pub(crate) struct Caller<C> {
    caller: C,
    /// The session that the question names, if it names one: an outcome does not.
    number: Option<u64>,
}

/// Something that has come from the engine.
pub(crate) enum Received<C> {
    /// A client's message. A request has a token, by which [`Remote::answer`] answers it. Of one
    /// that is sampled the server is told by which span it came.
    Forward { forward: Forward, span: Option<Box<SpanContext>> },
    /// A session has got a uid; may be called by its number from here on. It stands in front of
    /// the answer to whoever has asked for that.
    Login { data: Arc<SessionData> },
    /// A session has lost its uid; it had this one.
    Logout { data: Arc<SessionData> },
    /// A session has ended. It is unknown from here on.
    Closed { session: SessionId, data: Arc<SessionData> },
    /// A question is answered.
    Done { caller: C, result: Done },
}

/// The answer to a question.
pub(crate) enum Done {
    Bound(Result<(), BindError>),
    /// True where the session was still there.
    Set(bool),
    /// So many sessions of the uid, which are all, are unbound and about to close.
    Kicked(usize),
    /// The uids that have no session.
    Pushed(Vec<Uid>),
    /// The sessions as they are.
    Found(Vec<Arc<SessionData>>),
}

/// A question that is not even asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No session of that number lives.
    Gone { number: u64 },
    /// Too much waits for the shards; see [`Limits::backlog_len_max`].
    Busy,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Gone { number } => BindError::Gone { number }.fmt(f),
            Self::Busy => f.write_str("the shards have too much to do; try again later"),
        }
    }
}

impl<C: Copy, E> Remote<C, E> {
    pub(crate) fn new(hub: &Arc<Hub>, me: Party, config: RemoteConfig<'_>) -> Self {
        let RemoteConfig { limits, routes, edition } = config;
        Self {
            routes,
            edition,
            endpoint: Endpoint::new(Arc::clone(hub), me, limits.backlog_len_max),
            asks: PendingAsks::new(hub, me, limits.backlog_len_max),
            sessions: FxHashMap::default(),
            unread: vec![0; usize::from(hub.shards())],
        }
    }

    /// Moves what waited for room, and sets how much is read in this turn.
    pub(crate) fn begin_turn(&mut self) {
        self.endpoint.flush();
        for (shard, unread) in (0..).map(Party).zip(&mut self.unread) {
            *unread = self.endpoint.waiting(shard).min(MESSAGES_PER_SHARD);
        }
    }

    /// The next thing that came, within this turn's bounds. A shard that does not take its
    /// answers is not read from.
    pub(crate) fn receive(&mut self) -> Option<Received<C>> {
        for shard in 0..self.unread.len() {
            let party = Party(shard as u16);
            while self.unread[shard] > 0 && !self.endpoint.is_backed_up(party) {
                self.unread[shard] -= 1;
                let Some(mail) = self.endpoint.receive(party) else { break };
                if let Some(received) = self.handle_mail(mail) {
                    return Some(received);
                }
            }
        }
        None
    }

    fn handle_mail(&mut self, mail: Mail) -> Option<Received<C>> {
        match mail {
            Mail::Forward(forward) => Some(self.handle_forward(forward, None)),
            Mail::Traced(forward, span) => Some(self.handle_forward(*forward, Some(span))),
            Mail::Closed { session, data } => {
                self.sessions.remove(&data.number);
                Some(Received::Closed { session, data })
            }
            Mail::Login { session, data } => {
                let known = self.sessions.entry(data.number);
                known.or_insert_with(|| Known {
                    id: session,
                    data: Arc::clone(&data),
                    export: None,
                });
                Some(Received::Login { data })
            }
            Mail::Logout { data } => Some(Received::Logout { data }),
            Mail::Edition(edition) => {
                self.edition = edition;
                None
            }
            Mail::Result { token, outcome } => {
                let (caller, result) = self.finish(token, outcome)?;
                Some(Received::Done { caller, result })
            }
            _ => {
                debug_assert!(false, "mail for a shard reached a forwarder");
                None
            }
        }
    }

    fn handle_forward(&mut self, forward: Forward, span: Option<Box<SpanContext>>) -> Received<C> {
        // From here on it counts for the cluster's own bounds.
        self.endpoint.add_handled(forward.session.shard().into(), forward.bytes.len());
        Received::Forward { forward, span }
    }

    /// Answers a request. A token of 0 is a notify's, which gets none.
    pub(crate) fn answer(&mut self, shard: ShardIndex, token: u64, reply: WorkerReply) {
        if token != 0 {
            self.endpoint.send(shard.into(), Mail::Answer { token, reply });
        }
    }

    /// A session as servers are told of it, kept until it changes. From here on they may call it by
    /// its number.
    pub(crate) fn export(
        &mut self,
        id: SessionId,
        data: &Arc<SessionData>,
        make: impl FnOnce(&SessionData) -> E,
    ) -> &E {
        let known = self.sessions.entry(data.number).or_insert_with(|| Known {
            id,
            data: Arc::clone(data),
            export: None,
        });
        if !Arc::ptr_eq(&known.data, data) {
            known.data = Arc::clone(data);
            known.export = None;
        }
        known.export.get_or_insert_with(|| make(data))
    }

    /// Sessions that servers may call by number.
    #[cfg(test)]
    pub(crate) fn sessions_known(&self) -> usize {
        self.sessions.len()
    }

    /// Binds a session to a uid: [`Done::Bound`].
    pub(crate) fn bind(&mut self, number: u64, uid: Uid, caller: C) -> Result<(), Refused> {
        let session = self.session(number)?;
        asked(self.ask_bind(session, uid, Caller { caller, number: Some(number) }))
    }

    /// Unbinds a session from its uid: [`Done::Bound`].
    pub(crate) fn unbind(&mut self, number: u64, uid: Uid, caller: C) -> Result<(), Refused> {
        let session = self.session(number)?;
        asked(self.ask_unbind(session, uid, Caller { caller, number: Some(number) }))
    }

    /// Overwrites settings of a session: [`Done::Set`].
    pub(crate) fn set(
        &mut self,
        number: u64,
        settings: Map<String, Value>,
        others: Others,
        caller: C,
    ) -> Result<(), Refused> {
        let session = self.session(number)?;
        let caller = Caller { caller, number: Some(number) };
        asked(self.ask_set(session, settings, others, caller))
    }

    /// Closes a session, with a KICK package if there is a reason. Nobody is told when.
    pub(crate) fn kick(&mut self, number: u64, reason: Option<Arc<str>>) -> Result<(), Refused> {
        let session = self.session(number)?;
        Ok(self.tell_kick(session, reason)?)
    }

    /// Closes all sessions of a uid, with a KICK package if there is a reason: [`Done::Kicked`].
    pub(crate) fn kick_uid(
        &mut self,
        uid: Uid,
        reason: Option<Arc<str>>,
        caller: C,
    ) -> Result<(), Refused> {
        asked(self.ask_kick_uid(uid, reason, Caller { caller, number: None }))
    }

    /// Lays out a push, as clients are to understand it from now on.
    pub(crate) fn encode_push(&self, route: &str, body: &[u8]) -> Result<Arc<Push>, PushError> {
        Push::encode(&self.routes, &self.edition, route, body)
    }

    /// The same where an empty body is one, too.
    #[cfg(feature = "pitaya")]
    pub(crate) fn encode_any_push(&self, route: &str, body: &[u8]) -> Result<Arc<Push>, PushError> {
        Push::encode_any(&self.routes, &self.edition, route, body)
    }

    /// Pushes to all sessions of some uids, one at least: [`Done::Pushed`].
    pub(crate) fn push(
        &mut self,
        uids: Vec<Uid>,
        push: &Arc<Push>,
        caller: C,
    ) -> Result<(), Refused> {
        asked(self.ask_push(uids, push, Caller { caller, number: None }))
    }

    /// Pushes to one session, in order with its answers, as both take the same way. Nobody is told
    /// when.
    pub(crate) fn deliver(&mut self, number: u64, push: &Arc<Push>) -> Result<(), Refused> {
        let session = self.session(number)?;
        let mail = Mail::Deliver { sessions: vec![session], push: Arc::clone(push) };
        self.try_mail(session.shard(), mail).map_err(|_| Refused::Busy)
    }

    /// Pushes to all sessions of an audience.
    pub(crate) fn broadcast(
        &mut self,
        push: &Arc<Push>,
        audience: &Audience,
    ) -> Result<(), Refused> {
        Ok(self.tell_broadcast(push, audience)?)
    }

    /// Looks at a session: [`Done::Found`], with one or none.
    pub(crate) fn find(&mut self, number: u64, caller: C) -> Result<(), Refused> {
        let session = self.session(number)?;
        let caller = Caller { caller, number: Some(number) };
        asked(self.ask(session.shard(), caller, |reply_to| Mail::Export {
            sessions: vec![session],
            reply_to,
        }))
    }

    /// Looks at all sessions of a uid: [`Done::Found`].
    pub(crate) fn find_uid(&mut self, uid: Uid, caller: C) -> Result<(), Refused> {
        let home = self.endpoint.hub().home(&uid);
        let caller = Caller { caller, number: None };
        asked(self.ask(home, caller, |reply_to| Mail::HomeSessions { uid, reply_to }))
    }

    /// A party that has got mail and sleeps: it has to be woken.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.endpoint.poll_bell()
    }

    /// True if something came in since the last turn.
    pub(crate) fn has_work(&self) -> bool {
        self.endpoint.has_work()
    }

    /// True if mail waits for room in a shard's lane.
    pub(crate) fn has_backlog(&self) -> bool {
        self.endpoint.has_backlog()
    }

    /// The time at which a lane without room is tried again, if mail waits for one.
    pub(crate) fn backlog_retry_us(&self, now_us: u64) -> Option<u64> {
        self.endpoint.backlog_retry_us(now_us)
    }

    /// The session of a number that servers may know.
    pub(crate) fn session(&self, number: u64) -> Result<SessionId, Refused> {
        self.sessions.get(&number).map(|known| known.id).ok_or(Refused::Gone { number })
    }

    /// Takes an outcome; what the question came to, if that was all it waited for.
    fn finish(&mut self, token: u64, mut outcome: Outcome) -> Option<(C, Done)> {
        match &mut outcome {
            Outcome::Sessions(sessions) => {
                let sessions = std::mem::take(sessions);
                self.ask_owners(token, sessions);
                outcome = Outcome::Exported(Vec::new());
            }
            // At once: one of them may end before the others are heard of.
            Outcome::Exported(sessions) => sessions.iter().for_each(|(id, data)| {
                let (id, data) = (*id, Arc::clone(data));
                let known = self.sessions.entry(data.number);
                known.or_insert(Known { id, data, export: None });
            }),
            _ => {}
        }
        let (Caller { caller, number }, outcome) = self.asks.finish(token, outcome)?;
        let done = match outcome {
            Outcome::Bound(result) => Done::Bound(result.map_err(|error| match (error, number) {
                // The shard does not know what number a session had.
                (BindError::Gone { .. }, Some(number)) => BindError::Gone { number },
                (error, _) => error,
            })),
            Outcome::Set(was_there) => Done::Set(was_there),
            Outcome::Kicked(sessions) => Done::Kicked(sessions),
            Outcome::Pushed(fails) => Done::Pushed(fails),
            Outcome::Exported(sessions) => {
                Done::Found(sessions.into_iter().map(|(_, data)| data).collect())
            }
            Outcome::Sessions(_) => unreachable!("their owners have been asked for what they hold"),
        };
        Some((caller, done))
    }

    /// The second half of a look at a uid: what its sessions hold, only their owners know.
    fn ask_owners(&mut self, token: u64, sessions: Vec<SessionId>) {
        let reply_to = ReplyTo { party: self.endpoint.me(), token };
        let mut owners = ByShard::new();
        sessions.into_iter().for_each(|session| owners.add(session.shard(), session));
        let mut asked = 0;
        for (owner, sessions) in owners {
            match self.try_mail(owner, Mail::Export { sessions, reply_to }) {
                Ok(()) => asked += 1,
                Err(_) => crate::log::seldom!(
                    warn,
                    "a shard's lane is full: a look-up lacks some sessions"
                ),
            }
        }
        self.asks.extend(token, asked);
    }
}

impl<C, E> Asker for Remote<C, E> {
    type Caller = Caller<C>;

    fn asks_mut(&mut self) -> &mut PendingAsks<Caller<C>> {
        &mut self.asks
    }

    fn try_mail(&mut self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        self.endpoint.try_send(to.into(), mail)
    }

    /// The other homes' outcomes are not waited for: the whole push counts as refused.
    fn handle_refused_push(&mut self, token: u64, _: Vec<Uid>) -> Result<(), Caller<C>> {
        self.asks.take(token).map_or(Ok(()), Err)
    }
}

/// The caller knows itself that its question was refused.
fn asked<C>(asked: Result<(), Caller<C>>) -> Result<(), Refused> {
    asked.map_err(|_| Refused::Busy)
}

impl From<Busy> for Refused {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::forward::{HubLimits, WorkerIndex};
    use crate::session::{Directory, Generation, Slot};

    /// A forwarder of two shards, whose ends of the lanes the test holds.
    fn remote() -> (Remote<u32, String>, Endpoint, Endpoint) {
        let hub = Hub::new(2, 1, HubLimits { lane_len: 64, inbox_len: 64 });
        let limits = Limits { backlog_len_max: 2, ..Limits::default() };
        let endpoint = |party| Endpoint::new(Arc::clone(&hub), Party(party), 64);
        let routes = Arc::new(RouteTable::default());
        let edition = Arc::new(Edition::bare(None, &routes));
        let config = RemoteConfig { limits: &limits, routes, edition };
        (Remote::new(&hub, hub.worker(WorkerIndex(0)), config), endpoint(0), endpoint(1))
    }

    fn id(shard: u16, slot: u32) -> SessionId {
        SessionId::new(ShardIndex(shard), Slot(slot), Generation::FIRST)
    }

    fn data(number: u64) -> Arc<SessionData> {
        Arc::new(SessionData::new(number, SocketAddr::from((Ipv4Addr::LOCALHOST, 9))))
    }

    fn text(data: &SessionData) -> String {
        format!("session {}", data.number)
    }

    /// The next mail that the remote has sent to a shard.
    fn next(remote: &mut Remote<u32, String>, shard: &mut Endpoint) -> Option<Mail> {
        while remote.poll_bell().is_some() {}
        shard.receive(Party(2))
    }

    /// Mail from a shard, on its way at once.
    fn send(shard: &mut Endpoint, mail: Mail) {
        shard.send(Party(2), mail);
        shard.flush();
    }

    fn done(remote: &mut Remote<u32, String>) -> Option<(u32, Done)> {
        remote.begin_turn();
        match remote.receive()? {
            Received::Done { caller, result } => Some((caller, result)),
            _ => panic!("no answer to a question"),
        }
    }

    #[test]
    fn an_export_is_made_once_for_each_state() {
        let (mut remote, ..) = remote();
        let mut data = data(7);
        assert_eq!(remote.export(id(0, 1), &data, text), "session 7");
        assert_eq!(remote.export(id(0, 1), &data, |_| "again".into()), "session 7");
        Arc::make_mut(&mut data).settings.insert("a".into(), 1.into());
        assert_eq!(remote.export(id(0, 1), &data, |_| "changed".into()), "changed");
        assert_eq!(remote.sessions_known(), 1);
    }

    #[test]
    fn a_session_is_known_until_it_ends() {
        let (mut remote, mut shard, _) = remote();
        assert_eq!(remote.kick(7, None), Err(Refused::Gone { number: 7 }));
        remote.export(id(0, 1), &data(7), text);
        assert_eq!(remote.kick(7, None), Ok(()));
        send(&mut shard, Mail::Closed { session: id(0, 1), data: data(7) });
        remote.begin_turn();
        assert!(
            matches!(remote.receive(), Some(Received::Closed { data, .. }) if data.number == 7)
        );
        assert_eq!(remote.kick(7, None), Err(Refused::Gone { number: 7 }));
        assert_eq!(remote.sessions_known(), 0);
    }

    #[test]
    fn a_bind_that_comes_too_late_names_the_session() {
        let (mut remote, _, mut shard) = remote();
        remote.export(id(1, 3), &data(9), text);
        remote.bind(9, Uid::from("amy"), 5).unwrap();
        let Some(Mail::Bind { reply_to, session, .. }) = next(&mut remote, &mut shard) else {
            panic!("the owner was not asked")
        };
        assert_eq!(session, id(1, 3));
        let outcome = Outcome::Bound(Err(BindError::Gone { number: 0 }));
        send(&mut shard, Mail::Result { token: reply_to.token, outcome });
        let Some((5, Done::Bound(Err(error)))) = done(&mut remote) else { panic!("not bound") };
        assert_eq!(error, BindError::Gone { number: 9 });
    }

    #[test]
    fn sessions_of_a_uid_are_looked_for_at_home_and_then_at_their_owners() {
        let (mut remote, mut zero, mut one) = remote();
        remote.find_uid(Uid::from("amy"), 1).unwrap();
        let home = Directory::home("amy", 2);
        let endpoint = if home == ShardIndex(0) { &mut zero } else { &mut one };
        let Some(Mail::HomeSessions { reply_to, .. }) = next(&mut remote, endpoint) else {
            panic!("the home was not asked")
        };
        let outcome = Outcome::Sessions(vec![id(0, 1), id(1, 1)]);
        send(endpoint, Mail::Result { token: reply_to.token, outcome });
        assert!(done(&mut remote).is_none());
        for (endpoint, shard) in [(&mut zero, 0), (&mut one, 1)] {
            let Some(Mail::Export { sessions, reply_to }) = next(&mut remote, endpoint) else {
                panic!("an owner was not asked")
            };
            assert_eq!(sessions, [id(shard, 1)]);
            let found = vec![(sessions[0], data(u64::from(shard) + 1))];
            let outcome = Outcome::Exported(found);
            send(endpoint, Mail::Result { token: reply_to.token, outcome });
        }
        let Some((1, Done::Found(found))) = done(&mut remote) else { panic!("nothing found") };
        assert_eq!(found.iter().map(|data| data.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(remote.kick(2, None), Ok(()), "what was found may be called by number");
    }

    #[test]
    fn a_uid_without_sessions_is_found_so() {
        let (mut remote, mut zero, mut one) = remote();
        remote.find_uid(Uid::from("amy"), 1).unwrap();
        let mail = next(&mut remote, &mut zero).or_else(|| next(&mut remote, &mut one));
        let Some(Mail::HomeSessions { reply_to, .. }) = mail else { panic!("nobody was asked") };
        let outcome = Outcome::Sessions(Vec::new());
        send(&mut zero, Mail::Result { token: reply_to.token, outcome });
        assert!(matches!(done(&mut remote), Some((1, Done::Found(found))) if found.is_empty()));
    }

    #[test]
    fn questions_are_bounded() {
        let (mut remote, ..) = remote();
        for caller in 0..2 {
            assert_eq!(remote.kick_uid(Uid::from("amy"), None, caller), Ok(()));
        }
        assert_eq!(remote.kick_uid(Uid::from("amy"), None, 2), Err(Refused::Busy));
        let push = remote.encode_push("onChat", b"1").unwrap();
        assert_eq!(remote.push(vec![Uid::from("amy")], &push, 3), Err(Refused::Busy));
    }
}
