//! The lanes between all shards and workers, and each one's post office.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::doorbell::Doorbell;
use super::mail::Mail;
use crate::session::ShardIndex;

/// A shard or a worker: the shards come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Party(pub(crate) u16);

impl Party {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<ShardIndex> for Party {
    fn from(shard: ShardIndex) -> Self {
        Self(shard.0)
    }
}

/// Everything that shards and workers share. Lock-free; lives as long as the engine.
pub(crate) struct Hub {
    shards: u16,
    workers: u16,
    /// From each party to each, row by row; none between workers, nor to oneself.
    lanes: Vec<Option<ArrayQueue<Mail>>>,
    /// From the host's threads to each shard.
    inboxes: Vec<ArrayQueue<Mail>>,
    bells: Vec<Arc<Doorbell>>,
}

/// The part of a lane that is a ring of fixed size. What a lane holds above that waits with its
/// writer, in memory that is taken only when it is needed.
const LANE_RING_LEN_MAX: usize = 1024;

/// How long the lanes of a hub are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HubLimits {
    pub(crate) lane_len: usize,
    pub(crate) inbox_len: usize,
}

impl Hub {
    pub(crate) fn new(shards: u16, workers: u16, limits: HubLimits) -> Arc<Self> {
        let parties = shards + workers;
        let lane = |from: u16, to: u16| {
            let len = match (from < shards, to < shards) {
                _ if from == to => return None,
                (false, false) => return None,
                (true, true) => limits.inbox_len,
                _ => limits.lane_len.min(LANE_RING_LEN_MAX),
            };
            Some(ArrayQueue::new(len))
        };
        let lanes = (0..parties).flat_map(|from| (0..parties).map(move |to| lane(from, to)));
        Arc::new(Self {
            shards,
            workers,
            lanes: lanes.collect(),
            inboxes: (0..shards).map(|_| ArrayQueue::new(limits.inbox_len)).collect(),
            bells: (0..parties).map(|_| Arc::default()).collect(),
        })
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    pub(crate) fn parties(&self) -> u16 {
        self.shards + self.workers
    }

    pub(crate) fn worker(&self, index: u16) -> Party {
        debug_assert!(index < self.workers);
        Party(self.shards + index)
    }

    pub(crate) fn bell(&self, party: Party) -> &Arc<Doorbell> {
        &self.bells[party.index()]
    }

    fn lane(&self, from: Party, to: Party) -> Option<&ArrayQueue<Mail>> {
        self.lanes[from.index() * usize::from(self.parties()) + to.index()].as_ref()
    }

    /// Mail of a thread outside the engine; gives it back when the inbox is full.
    pub(crate) fn send_from_host(&self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        use crate::dispatch::tasks::Ring as _;
        self.inboxes[to.index()].push(mail)?;
        self.bell(to.into()).ring();
        Ok(())
    }
}

/// One party's side of the hub.
pub(crate) struct Post {
    hub: Arc<Hub>,
    me: Party,
    /// Mail that did not fit into its lane, by receiver. While there is some, all mail to that
    /// receiver goes behind it, so that order holds.
    backlogs: Vec<VecDeque<Mail>>,
    backlog_len: usize,
    backlog_len_max: usize,
    /// Who has got mail since the bells were looked at.
    touched: Vec<bool>,
}

impl Post {
    pub(crate) fn new(hub: Arc<Hub>, me: Party, backlog_len_max: usize) -> Self {
        let parties = usize::from(hub.parties());
        Self {
            hub,
            me,
            backlogs: std::iter::repeat_with(VecDeque::new).take(parties).collect(),
            backlog_len: 0,
            backlog_len_max,
            touched: vec![false; parties],
        }
    }

    pub(crate) fn me(&self) -> Party {
        self.me
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Sends what must arrive: answers, and what follows from a session's life, which bounds it.
    pub(crate) fn send(&mut self, to: Party, mail: Mail) {
        if let Err(mail) = self.push(to, mail) {
            self.backlogs[to.index()].push_back(mail);
            self.backlog_len += 1;
        }
    }

    /// Sends what may be refused; gives it back when too much waits already.
    pub(crate) fn try_send(&mut self, to: Party, mail: Mail) -> Result<(), Mail> {
        match self.push(to, mail) {
            Err(mail) if self.backlog_len >= self.backlog_len_max => Err(mail),
            Err(mail) => {
                self.backlogs[to.index()].push_back(mail);
                self.backlog_len += 1;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sends what the lane has room for: `lane_len` mails that the receiver has not read.
    #[inline]
    pub(crate) fn send_within(
        &mut self,
        to: Party,
        mail: Mail,
        lane_len: usize,
    ) -> Result<(), Mail> {
        let Err(mail) = self.push(to, mail) else { return Ok(()) };
        let backlog = &mut self.backlogs[to.index()];
        if backlog.len() + LANE_RING_LEN_MAX >= lane_len {
            return Err(mail);
        }
        backlog.push_back(mail);
        self.backlog_len += 1;
        Ok(())
    }

    /// Sends only what fits into the lane's ring now.
    #[inline]
    fn push(&mut self, to: Party, mail: Mail) -> Result<(), Mail> {
        if !self.backlogs[to.index()].is_empty() {
            return Err(mail);
        }
        self.hub
            .lane(self.me, to)
            .expect("nobody mails itself, nor a worker another")
            .push(mail)?;
        self.touched[to.index()] = true;
        Ok(())
    }

    /// Whether a receiver has not taken what it has got; a worker stops reading from it then.
    pub(crate) fn is_backed_up(&self, to: Party) -> bool {
        !self.backlogs[to.index()].is_empty()
    }

    /// Moves what waits into lanes that have room again.
    pub(crate) fn flush(&mut self) {
        if self.backlog_len == 0 {
            return;
        }
        for to in 0..self.hub.parties() {
            while let Some(mail) = self.backlogs[usize::from(to)].pop_front() {
                let lane = self.hub.lane(self.me, Party(to)).expect("it has been sent to before");
                if let Err(mail) = lane.push(mail) {
                    self.backlogs[usize::from(to)].push_front(mail);
                    break;
                }
                self.backlog_len -= 1;
                self.touched[usize::from(to)] = true;
            }
        }
    }

    /// A party that has got mail and sleeps: it has to be woken.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        for to in 0..self.hub.parties() {
            if std::mem::take(&mut self.touched[usize::from(to)]) && self.hub.bell(Party(to)).take()
            {
                return Some(Party(to));
            }
        }
        None
    }

    /// The next mail from a party.
    #[inline]
    pub(crate) fn receive(&self, from: Party) -> Option<Mail> {
        self.hub.lane(from, self.me)?.pop()
    }

    /// How much mail a party has sent that has not been read. If that fills its lane, the party
    /// may wait for room, and is woken once there is some.
    pub(crate) fn waiting(&mut self, from: Party) -> usize {
        let Some(lane) = self.hub.lane(from, self.me) else { return 0 };
        let waiting = lane.len();
        self.touched[from.index()] |= waiting == lane.capacity();
        waiting
    }

    /// The next mail from the host's threads; only shards get any.
    pub(crate) fn receive_from_host(&self) -> Option<Mail> {
        self.hub.inboxes.get(self.me.index())?.pop()
    }

    /// Whether there is anything to receive, or to flush into a lane that has room. A worker does
    /// not read from a shard that does not take its answers.
    pub(crate) fn has_work(&self) -> bool {
        let parties = || (0..self.hub.parties()).map(Party);
        let reads = |from| self.me.0 < self.hub.shards || !self.is_backed_up(from);
        parties().any(|from| {
            reads(from) && self.hub.lane(from, self.me).is_some_and(|lane| !lane.is_empty())
        }) || self.hub.inboxes.get(self.me.index()).is_some_and(|inbox| !inbox.is_empty())
            || (self.backlog_len > 0
                && parties().any(|to| {
                    self.is_backed_up(to)
                        && self.hub.lane(self.me, to).is_some_and(|lane| !lane.is_full())
                }))
    }

    /// Whether mail waits for room in a lane; nobody rings when there is some.
    pub(crate) fn has_backlog(&self) -> bool {
        self.backlog_len > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionId;
    use crate::session::{Generation, Slot};

    fn mail(slot: u32) -> Mail {
        let session = SessionId::new(ShardIndex(0), Slot(slot), Generation::FIRST);
        Mail::Kick { session, reason: None }
    }

    fn slot(mail: &Mail) -> u32 {
        let Mail::Kick { session, .. } = mail else { panic!("not what was sent") };
        session.slot().0
    }

    fn pair() -> (Post, Post) {
        let hub = Hub::new(2, 0, HubLimits { lane_len: 2, inbox_len: 2 });
        (Post::new(Arc::clone(&hub), Party(0), 1), Post::new(hub, Party(1), 1))
    }

    #[test]
    fn order_holds_over_a_full_lane() {
        let (mut a, b) = pair();
        for n in 0..4 {
            a.send(Party(1), mail(n));
        }
        assert!(a.is_backed_up(Party(1)));
        let mut got = Vec::new();
        while let Some(mail) = b.receive(Party(0)) {
            got.push(slot(&mail));
            a.flush();
        }
        assert_eq!(got, [0, 1, 2, 3]);
        assert!(!a.has_backlog());
    }

    #[test]
    fn what_may_be_refused_is_refused_at_the_bound() {
        let (mut a, _b) = pair();
        for n in 0..3 {
            assert!(a.try_send(Party(1), mail(n)).is_ok());
        }
        assert!(a.try_send(Party(1), mail(3)).is_err());
        assert!(a.send_within(Party(1), mail(3), 2).is_err());
    }

    #[test]
    fn a_sleeper_is_woken_once() {
        let (mut a, b) = pair();
        a.send(Party(1), mail(0));
        assert_eq!(a.poll_bell(), None, "the reader is awake");
        b.hub().bell(Party(1)).arm();
        assert!(b.has_work(), "the second look sees what came before");
        a.send(Party(1), mail(1));
        assert_eq!(a.poll_bell(), Some(Party(1)));
        assert_eq!(a.poll_bell(), None);
    }
}
