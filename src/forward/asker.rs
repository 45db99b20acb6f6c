//! The questions of a party to shards: what a shard, a worker or a network forwarder asks of
//! sessions, wherever they live.
//!
//! To *ask* is to send mail whose outcome comes back ([`Mail::Result`]), to *tell* is to send mail
//! of which nothing more is heard. Each question is kept in [`PendingAsks`] until all its outcomes
//! are there.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::hub::Hub;
use super::mail::{Mail, Others, Outcome, ReplyTo};
use super::party::Party;
use super::scatter::by_home;
use crate::dispatch::context::SessionOp;
use crate::dispatch::pending::Completion;
use crate::dispatch::{Audience, BindError};
use crate::metrics::Counters;
use crate::route::push::Push;
use crate::session::{Directory, SessionId, ShardIndex, Table, Uid, place_of, token_of};

/// Counts mail that is refused because of `backlog_len_max`, and logs it.
#[cold]
pub(crate) fn tell_refused(counters: &Counters) {
    counters.mail_rejects.one();
    crate::log::seldom!(warn, "a shard's lane is full: a push, a kick or a look-up was refused");
}

/// A party that asks shards.
///
/// An implementor says how mail is sent; all else follows. No method holds on to anything of the
/// party while it sends, so a shard may handle mail to itself at once, and be asked the next
/// question by that.
pub(crate) trait Asker {
    /// Whoever waits for the outcome of a question.
    type Caller;

    fn asks_mut(&mut self) -> &mut PendingAsks<Self::Caller>;

    /// Sends mail that a shard may refuse, which gives it back.
    fn try_mail(&mut self, to: ShardIndex, mail: Mail) -> Result<(), Mail>;

    /// True if shards may end before they have answered.
    fn outlives_shards(&self) -> bool {
        false
    }

    /// Counts a question that is not even asked, as too many wait for their outcomes.
    fn note_refused(&mut self) {}

    /// Keeps a question and asks it: of the shard `to`, by the mail that `mail` makes.
    ///
    /// # Errors
    /// The caller, where it is not even asked, as too much waits already.
    fn ask(
        &mut self,
        to: ShardIndex,
        caller: Self::Caller,
        mail: impl FnOnce(ReplyTo) -> Mail,
    ) -> Result<(), Self::Caller> {
        if self.asks_mut().table.is_full() {
            self.note_refused();
        }
        let reply_to = self.asks_mut().add(1, caller)?;
        match self.try_mail(to, mail(reply_to)) {
            Ok(()) => Ok(()),
            // What is refused is not handled, so its question is still there.
            Err(_) => self.asks_mut().take(reply_to.token).map_or(Ok(()), Err),
        }
    }

    /// Binds a session to a uid: [`Outcome::Bound`].
    fn ask_bind(
        &mut self,
        session: SessionId,
        uid: Uid,
        caller: Self::Caller,
    ) -> Result<(), Self::Caller> {
        self.ask(session.shard(), caller, |reply_to| Mail::Bind { session, uid, reply_to })
    }

    /// Unbinds a session from its uid: [`Outcome::Bound`].
    fn ask_unbind(
        &mut self,
        session: SessionId,
        uid: Uid,
        caller: Self::Caller,
    ) -> Result<(), Self::Caller> {
        self.ask(session.shard(), caller, |reply_to| Mail::Unbind { session, uid, reply_to })
    }

    /// Overwrites settings of a session: [`Outcome::Set`].
    fn ask_set(
        &mut self,
        session: SessionId,
        settings: Map<String, Value>,
        others: Others,
        caller: Self::Caller,
    ) -> Result<(), Self::Caller> {
        let settings = Box::new(settings);
        self.ask(session.shard(), caller, |reply_to| Mail::Set {
            session,
            settings,
            others,
            reply_to,
        })
    }

    /// Closes all sessions of a uid, with a KICK package if there is a reason:
    /// [`Outcome::Kicked`].
    fn ask_kick_uid(
        &mut self,
        uid: Uid,
        reason: Option<Arc<str>>,
        caller: Self::Caller,
    ) -> Result<(), Self::Caller> {
        let home = Directory::home(uid.text(), self.asks_mut().shards);
        self.ask(home, caller, |to| Mail::HomeKick { uid, reason, reply_to: Some(to) })
    }

    /// Pushes to all sessions of some uids, one at least: [`Outcome::Pushed`].
    fn ask_push(
        &mut self,
        uids: Vec<Uid>,
        push: &Arc<Push>,
        caller: Self::Caller,
    ) -> Result<(), Self::Caller> {
        debug_assert!(!uids.is_empty());
        let parts = by_home(uids, self.asks_mut().shards);
        let reply_to = self.asks_mut().add(parts.len(), caller)?;
        for (home, uids) in parts {
            let mail = Mail::HomePush { uids, push: Arc::clone(push), reply_to: Some(reply_to) };
            if let Err(Mail::HomePush { uids, .. }) = self.try_mail(home, mail) {
                self.handle_refused_push(reply_to.token, uids)?;
            }
        }
        Ok(())
    }

    /// A home shard has refused its part of a push, that for `uids`.
    ///
    /// # Errors
    /// The caller, where the whole push counts as refused by that.
    fn handle_refused_push(&mut self, token: u64, uids: Vec<Uid>) -> Result<(), Self::Caller>;

    /// Closes a session, with a KICK package if there is a reason.
    fn tell_kick(&mut self, session: SessionId, reason: Option<Arc<str>>) -> Result<(), Busy> {
        self.try_mail(session.shard(), Mail::Kick { session, reason }).map_err(|_| Busy)
    }

    /// Pushes to one session.
    fn tell_send(&mut self, session: SessionId, push: Arc<Push>) -> Result<(), Busy> {
        let mail = Mail::Deliver { sessions: vec![session], push };
        self.try_mail(session.shard(), mail).map_err(|_| Busy)
    }

    /// Pushes to all sessions of an audience. A shard that refuses it keeps it from no other.
    fn tell_broadcast(&mut self, push: &Arc<Push>, audience: &Audience) -> Result<(), Busy> {
        let mut told = Ok(());
        for shard in (0..self.asks_mut().shards).map(ShardIndex) {
            let mail = Mail::Broadcast { push: Arc::clone(push), audience: audience.clone() };
            told = self.try_mail(shard, mail).map_err(|_| Busy).and(told);
        }
        told
    }
}

/// A shard takes no more mail; see [`Limits::backlog_len_max`](crate::limits::Limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// The questions of a party that are under way, by the token that their outcomes carry.
pub(crate) struct PendingAsks<C> {
    me: Party,
    shards: u16,
    table: Table<PendingAsk<C>>,
}

/// One question.
struct PendingAsk<C> {
    caller: C,
    /// The outcomes that are still to come: of a push, one from each home shard.
    left: usize,
    /// Those that have come, as one.
    outcome: Option<Outcome>,
}

impl<C> PendingAsks<C> {
    pub(crate) fn new(hub: &Hub, me: Party, len_max: usize) -> Self {
        Self { me, shards: hub.shards(), table: Table::new(len_max) }
    }

    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Keeps a question that `left` outcomes answer; gives its caller back when too many are under
    /// way.
    fn add(&mut self, left: usize, caller: C) -> Result<ReplyTo, C> {
        if self.table.is_full() {
            return Err(caller);
        }
        let place = self.table.insert(PendingAsk { caller, left, outcome: None });
        let token = token_of(place.expect("the table is not full"));
        Ok(ReplyTo { party: self.me, token })
    }

    /// Takes back a question that could not be asked.
    pub(crate) fn take(&mut self, token: u64) -> Option<C> {
        let (slot, generation) = place_of(token);
        self.table.get(slot, generation)?;
        self.table.remove(slot).map(|ask| ask.caller)
    }

    /// Waits for more outcomes of a question that waits.
    #[cfg(any(feature = "pitaya", feature = "pomelo"))]
    pub(crate) fn extend(&mut self, token: u64, more: usize) {
        let (slot, generation) = place_of(token);
        if let Some(ask) = self.table.get_mut(slot, generation) {
            ask.left += more;
        }
    }

    /// Takes an outcome; gives it with all that came before it, and who waits, once it was the
    /// last one. One that nobody waits for any more is dropped.
    pub(crate) fn finish(&mut self, token: u64, outcome: Outcome) -> Option<(C, Outcome)> {
        let (slot, generation) = place_of(token);
        let ask = self.table.get_mut(slot, generation)?;
        let outcome = match ask.outcome.take() {
            Some(before) => before.and(outcome),
            None => outcome,
        };
        ask.left -= 1;
        if ask.left > 0 {
            ask.outcome = Some(outcome);
            return None;
        }
        self.table.remove(slot).map(|ask| (ask.caller, outcome))
    }
}

impl PendingAsks<AskCompletion> {
    /// Answers all questions that wait, as nobody else will.
    pub(crate) fn refuse_all(&mut self) {
        for slot in self.table.slots() {
            if let Some(ask) = self.table.remove(slot) {
                ask.caller.complete_gone();
            }
        }
    }

    /// Takes an outcome for code on this thread.
    pub(crate) fn complete(&mut self, token: u64, outcome: Outcome) {
        if let Some((caller, outcome)) = self.finish(token, outcome) {
            caller.complete(outcome);
        }
    }
}

/// Code on a shard or worker that waits for the outcome of a question.
pub(crate) enum AskCompletion {
    Bind(Completion<Result<(), BindError>>),
    Set(Completion<bool>),
    Kick(Completion<usize>),
    /// With the uids where the shards may end before they answer.
    Push(Completion<Vec<Uid>>, Vec<Uid>),
}

impl AskCompletion {
    fn complete(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Bind(done), Outcome::Bound(result)) => done.complete(result),
            (Self::Set(done), Outcome::Set(was_there)) => done.complete(was_there),
            (Self::Kick(done), Outcome::Kicked(sessions)) => done.complete(sessions),
            (Self::Push(done, _), Outcome::Pushed(fails)) => done.complete(fails),
            _ => debug_assert!(false, "an outcome answers another question"),
        }
    }

    /// Says that there are no sessions any more.
    fn complete_gone(self) {
        match self {
            Self::Bind(done) => done.complete(Err(BindError::Gone { number: 0 })),
            other => other.refuse(),
        }
    }

    /// Says that it was not even asked.
    fn refuse(self) {
        match self {
            Self::Bind(done) => done.complete(Err(BindError::Busy)),
            Self::Set(done) => done.complete(false),
            Self::Kick(done) => done.complete(0),
            Self::Push(done, uids) => done.complete(uids),
        }
    }
}

/// Answers what code on a shard or worker asks of sessions that are gone.
pub(crate) fn refuse(op: SessionOp) {
    match op {
        SessionOp::Bind { done, .. } | SessionOp::Unbind { done, .. } => {
            AskCompletion::Bind(done).complete_gone();
        }
        SessionOp::Set { done, .. } => AskCompletion::Set(done).complete_gone(),
        SessionOp::KickUid { done, .. } => AskCompletion::Kick(done).complete_gone(),
        SessionOp::Push { uids, done, .. } => done.complete(uids),
        SessionOp::Kick { .. } | SessionOp::Send { .. } | SessionOp::Broadcast { .. } => {}
    }
}

/// The one session that something is asked of.
fn session_of(op: &SessionOp) -> Option<SessionId> {
    match op {
        SessionOp::Bind { session, .. }
        | SessionOp::Unbind { session, .. }
        | SessionOp::Set { session, .. }
        | SessionOp::Kick { session, .. }
        | SessionOp::Send { session, .. } => Some(*session),
        SessionOp::KickUid { .. } | SessionOp::Push { .. } | SessionOp::Broadcast { .. } => None,
    }
}

/// Does what code on a shard or worker asks of sessions.
pub(crate) fn apply(asker: &mut impl Asker<Caller = AskCompletion>, op: SessionOp) {
    // A session of another engine, which has more shards, is none that is here.
    if session_of(&op).is_some_and(|session| session.shard().0 >= asker.asks_mut().shards) {
        return refuse(op);
    }
    let asked = match op {
        SessionOp::Push { uids, done, .. } if asker.asks_mut().table.is_full() => {
            asker.note_refused();
            return done.complete(uids);
        }
        SessionOp::Bind { session, uid, done } => {
            asker.ask_bind(session, uid, AskCompletion::Bind(done))
        }
        SessionOp::Unbind { session, uid, done } => {
            asker.ask_unbind(session, uid, AskCompletion::Bind(done))
        }
        SessionOp::Set { session, settings, done } => {
            asker.ask_set(session, settings, Others::Keep, AskCompletion::Set(done))
        }
        SessionOp::KickUid { uid, reason, done } => {
            asker.ask_kick_uid(uid, reason, AskCompletion::Kick(done))
        }
        SessionOp::Push { uids, push, done } => {
            let kept = if asker.outlives_shards() { uids.clone() } else { Vec::new() };
            asker.ask_push(uids, &push, AskCompletion::Push(done, kept))
        }
        SessionOp::Kick { session, reason } => {
            // Nobody waits: the party has counted what it refuses.
            asker.tell_kick(session, reason).ok();
            Ok(())
        }
        SessionOp::Send { session, push } => {
            // The same.
            asker.tell_send(session, push).ok();
            Ok(())
        }
        SessionOp::Broadcast { push, audience } => {
            // The same.
            asker.tell_broadcast(&push, &audience).ok();
            Ok(())
        }
    };
    if let Err(completion) = asked {
        completion.refuse();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::dispatch::Pending;
    use crate::forward::HubLimits;
    use crate::route::edition::Edition;
    use crate::route::table::RouteTable;

    fn poll<T>(pending: &mut Pending<T>) -> Poll<T> {
        Pin::new(pending).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// One of two shards, which handles mail to itself at once and keeps what is for the other.
    struct Party {
        asks: PendingAsks<AskCompletion>,
        sent: Vec<Mail>,
        sent_max: usize,
        refused: usize,
        outlives_shards: bool,
    }

    impl Party {
        fn new(sent_max: usize) -> Self {
            let hub = Hub::new(2, 0, HubLimits { lane_len: 1, inbox_len: 1 });
            let asks = PendingAsks::new(&hub, super::Party(0), 1);
            Self { asks, sent: Vec::new(), sent_max, refused: 0, outlives_shards: false }
        }

        fn handle_mail(&mut self, mail: Mail) {
            let Mail::HomePush { uids, reply_to: Some(reply_to), .. } = mail else { panic!() };
            self.asks.complete(reply_to.token, Outcome::Pushed(uids));
        }
    }

    impl Asker for Party {
        type Caller = AskCompletion;

        fn asks_mut(&mut self) -> &mut PendingAsks<AskCompletion> {
            &mut self.asks
        }

        fn try_mail(&mut self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
            if to == ShardIndex(0) {
                self.handle_mail(mail);
                return Ok(());
            }
            if self.sent.len() == self.sent_max {
                return Err(mail);
            }
            self.sent.push(mail);
            Ok(())
        }

        fn outlives_shards(&self) -> bool {
            self.outlives_shards
        }

        fn note_refused(&mut self) {
            self.refused += 1;
        }

        fn handle_refused_push(&mut self, token: u64, uids: Vec<Uid>) -> Result<(), AskCompletion> {
            self.asks.complete(token, Outcome::Pushed(uids));
            Ok(())
        }
    }

    fn of_home(shard: u16) -> Uid {
        let names = (0..).map(|number: u32| Uid::from(number.to_string().as_str()));
        let home = |uid: &Uid| Directory::home(uid.text(), 2);
        names.into_iter().find(|uid| home(uid) == ShardIndex(shard)).unwrap()
    }

    fn push(party: &mut Party) -> Pending<Vec<Uid>> {
        let (routes, uids) = (RouteTable::default(), vec![of_home(0), of_home(1)]);
        let push = Push::encode(&routes, &Edition::bare(None, &routes), "onChat", b"1").unwrap();
        let (done, pending) = Pending::new();
        apply(party, SessionOp::Push { uids, push, done });
        pending
    }

    #[test]
    fn a_push_waits_for_all_homes() {
        let mut party = Party::new(1);
        let mut pending = push(&mut party);
        assert!(poll(&mut pending).is_pending(), "one home has answered at once, one has not");
        let (done, mut refused) = Pending::new();
        apply(&mut party, SessionOp::KickUid { uid: of_home(1), reason: None, done });
        assert_eq!(poll(&mut refused), Poll::Ready(0), "the table is full");
        let mail = party.sent.pop().unwrap();
        let Mail::HomePush { reply_to: Some(reply_to), .. } = &mail else { panic!() };
        let token = reply_to.token;
        party.handle_mail(mail);
        assert_eq!(poll(&mut pending), Poll::Ready(vec![of_home(0), of_home(1)]));
        party.asks.complete(token, Outcome::Pushed(Vec::new()));
        assert_eq!(party.asks.len(), 0);
    }

    #[test]
    fn the_uids_of_a_home_that_refuses_count_as_failed() {
        let mut party = Party::new(0);
        let mut pending = push(&mut party);
        assert_eq!(poll(&mut pending), Poll::Ready(vec![of_home(0), of_home(1)]));
    }

    /// Pushes that are not answered have reached nobody, as far as that can be told.
    #[test]
    fn a_push_that_shards_do_not_live_to_answer_names_all_its_uids() {
        let mut party = Party { outlives_shards: true, ..Party::new(2) };
        let mut pending = push(&mut party);
        assert!(poll(&mut pending).is_pending());
        party.asks.refuse_all();
        assert_eq!(poll(&mut pending), Poll::Ready(vec![of_home(0), of_home(1)]));
    }

    #[test]
    fn a_push_that_is_not_even_asked_names_all_its_uids() {
        let mut party = Party::new(1);
        let mut first = push(&mut party);
        assert!(poll(&mut first).is_pending());
        let mut second = push(&mut party);
        assert_eq!(poll(&mut second), Poll::Ready(vec![of_home(0), of_home(1)]));
        assert_eq!((party.sent.len(), party.refused), (1, 1));
    }

    /// As a session of another engine may be.
    #[test]
    fn a_session_of_a_shard_that_is_none_is_gone() {
        let mut party = Party::new(0);
        let session = SessionId::parse("2.0.1").unwrap();
        let (done, mut bound) = Pending::new();
        let uid = of_home(0);
        apply(&mut party, SessionOp::Bind { session, uid, done });
        assert_eq!(poll(&mut bound), Poll::Ready(Err(BindError::Gone { number: 0 })));
        apply(&mut party, SessionOp::Kick { session, reason: None });
        assert_eq!((party.asks.len(), party.refused), (0, 0));
    }

    #[test]
    fn a_refused_question_leaves_nothing() {
        let mut party = Party::new(0);
        let (done, mut pending) = Pending::new();
        apply(&mut party, SessionOp::KickUid { uid: of_home(1), reason: None, done });
        assert_eq!(poll(&mut pending), Poll::Ready(0));
        assert_eq!(party.asks.len(), 0);
    }
}
