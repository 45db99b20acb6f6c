//! The lanes between all shards and workers, and each party's endpoint.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::doorbell::Doorbell;
use super::lane_bytes::{HandledBytes, SentBytes, lane_bytes};
use super::mail::Mail;
use super::party::Party;
use super::workers::{Carrier, ServerType, WorkerIndex};
use crate::dispatch::mail::{MailQueue, Post};
use crate::session::{Directory, ShardIndex, Uid};
use crate::sync::{ArrayQueue, AtomicBool, Consumer, Ordering, Producer, RingBuffer, fence};

/// Everything that shards and workers share. Lock-free; lives as long as the engine.
pub(crate) struct Hub {
    shards: u16,
    workers: u16,
    /// Each party's ends of its lanes, until its thread has come for them.
    ends: Vec<Mutex<Option<LaneEnds>>>,
    /// From the host's threads to each shard.
    inboxes: Vec<Inbox>,
    bells: Vec<Arc<Doorbell>>,
    /// From all threads to each worker: the embedder's own messages.
    mail_queues: Vec<Arc<MailQueue>>,
}

/// The mail from the host's threads to a shard.
struct Inbox {
    mail: ArrayQueue<Mail>,
    /// The shard has ended.
    is_closed: AtomicBool,
}

impl Inbox {
    fn new(len: usize) -> Self {
        Self { mail: ArrayQueue::new(len), is_closed: AtomicBool::new(false) }
    }

    /// Drops what nobody will read, which tells those who wait for an answer to it.
    fn clear_if_closed(&self) {
        // Between the push and this look, as between the mark and the look at what was pushed: not
        // both can miss.
        fence(Ordering::SeqCst);
        if self.is_closed.load(Ordering::Relaxed) {
            while self.mail.pop().is_some() {}
        }
    }
}

/// One party's ends of its lanes, by the party at the other end. There is no lane between two
/// workers, nor to oneself.
struct LaneEnds {
    writers: Vec<Option<Producer<Mail>>>,
    readers: Vec<Option<Consumer<Mail>>>,
    /// Bytes of clients' messages in the lanes from shards to workers.
    sent: Vec<Option<SentBytes>>,
    handled: Vec<Option<HandledBytes>>,
}

/// The part of a lane that is a ring of fixed size. What a lane holds above that waits with its
/// writer, in memory that is taken only when it is needed.
const LANE_RING_LEN_MAX: usize = 1024;
/// Mail that is moved into the lanes at once: enough to share the cost, few enough for the
/// reader to begin while the writer goes on.
const PUBLISH_LEN: usize = 32;

/// The time after which a full lane is tried again.
pub(crate) const BACKLOG_RETRY_US: u64 = 1_000;

/// The lengths of a hub's lanes.
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
            Some(len)
        };
        let ends_of_one = || LaneEnds {
            writers: none(parties),
            readers: none(parties),
            sent: none(parties),
            handled: none(parties),
        };
        let mut ends: Vec<LaneEnds> = (0..parties).map(|_| ends_of_one()).collect();
        for (from, to) in (0..parties).flat_map(|from| (0..parties).map(move |to| (from, to))) {
            let (writer, reader) = lane(from, to).map(RingBuffer::new).unzip();
            ends[usize::from(from)].writers[usize::from(to)] = writer;
            ends[usize::from(to)].readers[usize::from(from)] = reader;
            let is_counted = from < shards && to >= shards;
            let (sent, handled) = is_counted.then(lane_bytes).unzip();
            ends[usize::from(from)].sent[usize::from(to)] = sent;
            ends[usize::from(to)].handled[usize::from(from)] = handled;
        }
        let bells: Vec<Arc<Doorbell>> = (0..parties).map(|_| Arc::default()).collect();
        let of_workers = &bells[usize::from(shards)..];
        let mail_queue = |bell: &Arc<Doorbell>| {
            Arc::new(MailQueue::new(limits.inbox_len, Arc::<Doorbell>::clone(bell)))
        };
        Arc::new(Self {
            shards,
            workers,
            mail_queues: of_workers.iter().map(mail_queue).collect(),
            ends: ends.into_iter().map(|ends| Mutex::new(Some(ends))).collect(),
            inboxes: (0..shards).map(|_| Inbox::new(limits.inbox_len)).collect(),
            bells,
        })
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    pub(crate) fn parties(&self) -> u16 {
        self.shards + self.workers
    }

    /// The shard that knows a uid's sessions.
    pub(crate) fn home(&self, uid: &Uid) -> ShardIndex {
        Directory::home(uid.text(), self.shards)
    }

    pub(crate) fn worker(&self, worker: WorkerIndex) -> Party {
        debug_assert!(worker.0 < self.workers);
        Party(self.shards + worker.0)
    }

    /// All workers and network forwarders.
    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerIndex> + use<> {
        (0..self.workers).map(WorkerIndex)
    }

    /// The worker, or network forwarder, that a party is.
    pub(crate) fn worker_of(&self, party: Party) -> Option<WorkerIndex> {
        party.0.checked_sub(self.shards).map(WorkerIndex)
    }

    pub(crate) fn bell(&self, party: Party) -> &Arc<Doorbell> {
        &self.bells[party.index()]
    }

    /// The embedder's own messages to a worker.
    pub(super) fn mail_queue(&self, worker: WorkerIndex) -> &Arc<MailQueue> {
        &self.mail_queues[worker.index()]
    }

    /// The ways to the workers of these server types.
    pub(crate) fn post(&self, server_types: &[ServerType]) -> Arc<Post> {
        let of_type = |server_type: &ServerType| {
            let Carrier::Workers { servers, first_worker, .. } = &server_type.carrier else {
                return None;
            };
            let queues = self.mail_queues.iter().skip(first_worker.index()).take(servers.len());
            Some((Arc::clone(&server_type.name), queues.map(Arc::clone).collect()))
        };
        Arc::new(Post::new(server_types.iter().filter_map(of_type)))
    }

    fn take_ends(&self, party: Party) -> LaneEnds {
        let mut ends = self.ends[party.index()].lock().unwrap_or_else(PoisonError::into_inner);
        ends.take().expect("a party has one endpoint")
    }

    /// A shard has ended: nobody reads its mail from the host's threads any more.
    pub(crate) fn close_inbox(&self, shard: Party) {
        let inbox = &self.inboxes[shard.index()];
        inbox.is_closed.store(true, Ordering::Relaxed);
        inbox.clear_if_closed();
    }

    /// Mail of a thread outside the engine; gives it back when the inbox is full. Mail about a
    /// session of another engine, which may have more shards, is dropped as that about one that is
    /// gone.
    pub(crate) fn send_from_host(&self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        use crate::dispatch::tasks::WakeThread as _;
        let Some(inbox) = self.inboxes.get(to.index()) else { return Ok(()) };
        inbox.mail.push(mail)?;
        inbox.clear_if_closed();
        self.bell(to.into()).wake();
        Ok(())
    }
}

fn none<T>(len: u16) -> Vec<Option<T>> {
    std::iter::repeat_with(|| None).take(len.into()).collect()
}

/// One party's side of the hub.
pub(crate) struct Endpoint {
    hub: Arc<Hub>,
    me: Party,
    lanes: LaneEnds,
    /// Mail that has not gone into its lane yet, by receiver: it goes many at a time, as a ring
    /// whose two ends are looked at for every single mail moves its cache lines for each.
    outgoing: Vec<VecDeque<Mail>>,
    outgoing_len: usize,
    /// Mail that has come since it was last moved.
    unpublished_len: usize,
    backlog_len_max: usize,
    /// Set while bytes were handled of which no shard has heard.
    has_handled: bool,
    /// The parties that have got mail since the bells were looked at.
    touched: Vec<bool>,
}

impl Endpoint {
    pub(crate) fn new(hub: Arc<Hub>, me: Party, backlog_len_max: usize) -> Self {
        let parties = usize::from(hub.parties());
        let lanes = hub.take_ends(me);
        Self {
            hub,
            me,
            lanes,
            outgoing: std::iter::repeat_with(VecDeque::new).take(parties).collect(),
            outgoing_len: 0,
            unpublished_len: 0,
            backlog_len_max,
            has_handled: false,
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
    #[inline]
    pub(crate) fn send(&mut self, to: Party, mail: Mail) {
        self.outgoing[to.index()].push_back(mail);
        self.outgoing_len += 1;
        self.unpublished_len += 1;
        if self.unpublished_len >= PUBLISH_LEN {
            self.flush();
        }
    }

    /// Sends what may be refused; gives it back when too much waits already.
    pub(crate) fn try_send(&mut self, to: Party, mail: Mail) -> Result<(), Mail> {
        let parties = || (0..self.hub.parties()).map(Party);
        if !self.has_room(to)
            && parties().map(|to| self.backlog_len(to)).sum::<usize>() >= self.backlog_len_max
        {
            return Err(mail);
        }
        self.send(to, mail);
        Ok(())
    }

    /// True if the lane has room for one more mail: for `lane_len` that nobody has read.
    #[inline]
    pub(crate) fn has_room_within(&self, to: Party, lane_len: usize) -> bool {
        self.has_room(to) || self.backlog_len(to) + LANE_RING_LEN_MAX < lane_len
    }

    /// Counts the bytes of a client's message that is sent to a worker.
    pub(crate) fn add_sent(&mut self, to: Party, bytes: usize) {
        let sent = self.lanes.sent[to.index()].as_mut();
        sent.expect("a shard sends to a worker").add(bytes);
    }

    /// Bytes of `lane_bytes_max` that are left in the lane to a worker; fewer only where that
    /// is at least `enough` all the same.
    #[inline]
    pub(crate) fn bytes_left(&self, to: Party, lane_bytes_max: usize, enough: usize) -> usize {
        let Some(sent) = &self.lanes.sent[to.index()] else { return 0 };
        let kept = sent.kept_below(lane_bytes_max.saturating_sub(enough));
        lane_bytes_max.saturating_sub(kept)
    }

    /// Counts the bytes of a client's message that a worker keeps no longer.
    #[inline]
    pub(crate) fn add_handled(&mut self, from: Party, bytes: usize) {
        let handled = self.lanes.handled[from.index()].as_mut();
        handled.expect("a worker receives from a shard").add(bytes);
        self.has_handled = true;
    }

    fn writer(&self, to: Party) -> &Producer<Mail> {
        self.lanes.writers[to.index()].as_ref().expect("nobody mails itself, nor a worker another")
    }

    /// True if one more mail fits into a lane's ring.
    #[inline]
    fn has_room(&self, to: Party) -> bool {
        let (lane, waiting) = (self.writer(to), self.outgoing[to.index()].len());
        // What the reader was last seen to have taken mostly does.
        waiting < lane.cached_slots() || waiting < lane.slots()
    }

    /// Mail in a lane that nobody has taken, and mail that is yet to go into it.
    pub(crate) fn lane_len(&self, to: Party) -> usize {
        let lane = self.writer(to);
        self.outgoing[to.index()].len() + (lane.buffer().capacity() - lane.slots())
    }

    /// Mail that waits for one receiver and does not fit into its lane's ring.
    fn backlog_len(&self, to: Party) -> usize {
        match self.outgoing[to.index()].len() {
            0 => 0,
            waiting => waiting.saturating_sub(self.writer(to).slots()),
        }
    }

    /// True if a receiver has left mail unread; a worker stops reading from it then.
    #[inline]
    pub(crate) fn is_backed_up(&self, to: Party) -> bool {
        let waiting = self.outgoing[to.index()].len();
        waiting > 0 && waiting > self.writer(to).cached_slots() && self.backlog_len(to) > 0
    }

    /// Moves what waits into the lanes that have room: those to shards first, so that what a
    /// worker learns has its causes in the shards' lanes already.
    pub(crate) fn flush(&mut self) {
        self.unpublished_len = 0;
        if std::mem::take(&mut self.has_handled) {
            self.lanes.handled.iter().flatten().for_each(HandledBytes::publish);
        }
        if self.outgoing_len == 0 {
            return;
        }
        for (to, outgoing) in self.outgoing.iter_mut().enumerate() {
            if outgoing.is_empty() {
                continue;
            }
            let lane = self.lanes.writers[to].as_mut().expect("it has been sent to");
            let len = outgoing.len().min(lane.slots());
            let room = lane.write_chunk_uninit(len).expect("there are as many slots");
            room.fill_from_iter(outgoing.drain(..len));
            self.outgoing_len -= len;
            self.touched[to] |= len > 0;
        }
    }

    /// A party that has got mail and sleeps: it has to be woken. To be asked until there is none
    /// before one sleeps oneself, as it also sends off what waits.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.flush();
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
    pub(crate) fn receive(&mut self, from: Party) -> Option<Mail> {
        self.lanes.readers[from.index()].as_mut()?.pop().ok()
    }

    /// Mail that a party has sent and nobody has read. If that fills its lane, the party
    /// may wait for room, and is woken once there is some.
    pub(crate) fn waiting(&mut self, from: Party) -> usize {
        let Some(lane) = &self.lanes.readers[from.index()] else { return 0 };
        let waiting = lane.slots();
        self.touched[from.index()] |= waiting == lane.buffer().capacity();
        waiting
    }

    /// The next mail from the host's threads; only shards get any.
    pub(crate) fn receive_from_host(&self) -> Option<Mail> {
        let inbox = self.hub.inboxes.get(self.me.index())?;
        // In front of `pop`, which has a fence where there is nothing.
        if inbox.mail.is_empty() { None } else { inbox.mail.pop() }
    }

    /// True if there is mail to receive, or to flush into a lane with room. A worker does
    /// not read from a shard that does not take its answers.
    pub(crate) fn has_work(&self) -> bool {
        let is_shard = self.me.0 < self.hub.shards;
        let reads = |from: usize| is_shard || self.outgoing[from].is_empty();
        let has_mail =
            |lane: &Option<Consumer<Mail>>| lane.as_ref().is_some_and(|lane| !lane.is_empty());
        let has_room =
            |lane: &Option<Producer<Mail>>| lane.as_ref().is_some_and(|lane| !lane.is_full());
        let LaneEnds { writers, readers, .. } = &self.lanes;
        readers.iter().enumerate().any(|(from, lane)| reads(from) && has_mail(lane))
            || self.hub.inboxes.get(self.me.index()).is_some_and(|inbox| !inbox.mail.is_empty())
            || (self.outgoing_len > 0
                && writers
                    .iter()
                    .zip(&self.outgoing)
                    .any(|(lane, waiting)| !waiting.is_empty() && has_room(lane)))
    }

    /// Mail that has not gone into the lane to a party.
    #[cfg(feature = "internals")]
    pub(crate) fn outgoing_len(&self, to: Party) -> usize {
        self.outgoing[to.index()].len()
    }

    /// Mail that has not gone into any lane.
    #[cfg(feature = "internals")]
    pub(crate) fn outgoing_len_sum(&self) -> usize {
        debug_assert_eq!(self.outgoing_len, self.outgoing.iter().map(VecDeque::len).sum::<usize>());
        self.outgoing_len
    }

    /// Mail in the lane from a party.
    #[cfg(feature = "internals")]
    pub(crate) fn incoming_len(&self, from: Party) -> usize {
        self.lanes.readers[from.index()].as_ref().map_or(0, Consumer::slots)
    }

    /// Forgets what waits to go into lanes: those who would read it have ended.
    pub(crate) fn discard_outgoing(&mut self) {
        self.outgoing.iter_mut().for_each(VecDeque::clear);
        (self.outgoing_len, self.unpublished_len) = (0, 0);
    }

    /// True if mail waits for room in a lane.
    pub(crate) fn has_backlog(&self) -> bool {
        self.outgoing_len > 0
    }

    /// The time at which a lane without room is tried again, if mail waits for one: nobody rings
    /// when there is some.
    pub(crate) fn backlog_retry_us(&self, now_us: u64) -> Option<u64> {
        self.has_backlog().then_some(now_us + BACKLOG_RETRY_US)
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

    fn pair() -> (Endpoint, Endpoint) {
        let hub = Hub::new(2, 0, HubLimits { lane_len: 2, inbox_len: 2 });
        (Endpoint::new(Arc::clone(&hub), Party(0), 1), Endpoint::new(hub, Party(1), 1))
    }

    #[test]
    fn order_holds_over_a_full_lane() {
        let (mut a, mut b) = pair();
        for n in 0..4 {
            a.send(Party(1), mail(n));
        }
        assert!(a.is_backed_up(Party(1)));
        a.flush();
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
        assert!(!a.has_room_within(Party(1), 2));
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
