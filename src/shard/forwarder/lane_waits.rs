//! Messages that wait for room in the lanes to their workers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::dispatch::context::{ClientCall, HeldRequest};
use crate::forward::mail::ForwardRoute;
use crate::forward::{ServerTypeIndex, WorkerIndex};
use crate::session::{SessionData, SessionId};

/// A message for a worker, as long as it is not in the lane.
pub(in crate::shard) struct ForwardMessage {
    pub(in crate::shard) client: ClientCall,
    pub(in crate::shard) destination: Destination,
    pub(in crate::shard) data: Arc<SessionData>,
    pub(in crate::shard) held: Option<Box<HeldRequest>>,
    pub(in crate::shard) route: ForwardRoute,
    pub(in crate::shard) bytes: Bytes,
}

/// The destination of a message.
#[derive(Debug, Clone, Copy)]
pub(in crate::shard) struct Destination {
    pub(in crate::shard) server_type: ServerTypeIndex,
    pub(in crate::shard) worker: WorkerIndex,
}

/// A worker, and how many messages have come before.
pub(super) type WaitKey = (WorkerIndex, u64);

/// The messages that wait for room in lanes.
#[derive(Default)]
pub(in crate::shard) struct LaneWaits {
    waiting: BTreeMap<WaitKey, Waiting>,
    /// The messages that have waited so far.
    count: u64,
    /// Those of each session, in order. INVARIANT: none is empty, and each session is paused.
    sessions: FxHashMap<SessionId, VecDeque<WaitKey>>,
    /// Workers for whose lanes something has waited in vain, and which have had no room since for
    /// as many bytes.
    stuck: Vec<(WorkerIndex, usize)>,
    /// Messages that have waited in vain, and are yet to be answered.
    rejected: VecDeque<ForwardMessage>,
}

/// A message that waits.
pub(super) struct Waiting {
    pub(super) message: ForwardMessage,
    pub(super) deadline_us: u64,
    /// The bytes that it counts for, against `held_bytes_max`.
    pub(super) bytes: usize,
}

/// Bytes that a message that waits counts for besides its body, against `held_bytes_max`.
pub(super) const WAITING_BYTES: usize = 256;
const _: () = assert!(size_of::<Waiting>() + size_of::<WaitKey>() <= WAITING_BYTES);

impl LaneWaits {
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True if nothing waits of a session.
    pub(super) fn has_forgotten(&self, session: SessionId) -> bool {
        !self.sessions.contains_key(&session)
    }

    /// True if something has waited in vain for a worker's lane, which has had no room since.
    pub(super) fn is_stuck(&self, worker: WorkerIndex) -> bool {
        self.stuck.iter().any(|(stuck, _)| *stuck == worker)
    }

    /// True if there is nothing to look at in a turn.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.stuck.is_empty()
    }

    /// Messages that wait.
    #[cfg(any(test, feature = "internals"))]
    pub(in crate::shard) fn len(&self) -> usize {
        debug_assert_eq!(
            self.waiting.len(),
            self.sessions.values().map(VecDeque::len).sum::<usize>()
        );
        self.waiting.len()
    }

    /// The first for a worker, or for the next one that any waits for.
    pub(super) fn first_from(&self, worker: WorkerIndex) -> Option<(WaitKey, &Waiting)> {
        self.waiting.range((worker, 0)..).next().map(|(key, waiting)| (*key, waiting))
    }

    pub(super) fn first_of(&self, worker: WorkerIndex) -> Option<(WaitKey, &Waiting)> {
        self.first_from(worker).filter(|((other, _), _)| *other == worker)
    }

    pub(super) fn add(&mut self, waiting: Waiting) {
        let key = (waiting.message.destination.worker, self.count);
        self.count += 1;
        let session = waiting.message.client.session;
        self.sessions.entry(session).or_default().push_back(key);
        self.waiting.insert(key, waiting);
    }

    /// Takes a message out; true if it was the last of its session.
    pub(super) fn take(&mut self, key: WaitKey) -> Option<(Waiting, bool)> {
        let waiting = self.waiting.remove(&key)?;
        let session = waiting.message.client.session;
        let keys = self.sessions.get_mut(&session).expect("a session knows what waits of it");
        keys.retain(|other| *other != key);
        let is_last = keys.is_empty();
        if is_last {
            self.sessions.remove(&session);
        }
        Some((waiting, is_last))
    }

    /// Takes out all that waits of a session.
    pub(super) fn take_all_of(&mut self, session: SessionId) -> Vec<Waiting> {
        if self.sessions.is_empty() {
            return Vec::new();
        }
        let keys = self.sessions.remove(&session).into_iter().flatten();
        keys.filter_map(|key| self.waiting.remove(&key)).collect()
    }

    /// Remembers that a lane had no room for so many bytes.
    pub(super) fn mark_stuck(&mut self, worker: WorkerIndex, bytes: usize) {
        if !self.is_stuck(worker) {
            self.stuck.push((worker, bytes));
        }
    }

    /// Takes the lanes that had no room, to look at them again.
    pub(super) fn take_stuck(&mut self) -> Vec<(WorkerIndex, usize)> {
        std::mem::take(&mut self.stuck)
    }

    /// Leaves a message that has waited in vain to be answered.
    pub(super) fn reject(&mut self, message: ForwardMessage) {
        self.rejected.push_back(message);
    }

    #[inline]
    pub(super) fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }

    pub(super) fn take_rejected(&mut self) -> Option<ForwardMessage> {
        self.rejected.pop_front()
    }

    /// The first that waits for each worker.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (WorkerIndex, &Waiting)> {
        std::iter::successors(self.first_from(WorkerIndex(0)), |((worker, _), _)| {
            self.first_from(WorkerIndex(worker.0.checked_add(1)?))
        })
        .map(|((worker, _), waiting)| (worker, waiting))
    }
}
