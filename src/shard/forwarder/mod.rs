//! Messages, questions and mail to other threads, and which sessions each uid has.
//!
//! The third part of a [`Shard`](super::Shard), above its [`Outbound`]. Mail to the own shard waits
//! in [`Forwarder::handle_own_mail`] until the code that has sent it is done.

mod batches;
mod bind;
mod ended;
mod lane;
mod lane_waits;
mod push;
mod send;
mod send_batch;
mod session_mail;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

pub(in crate::shard) use batches::{Alone, BatchBuilder, BatchTarget, Batching, copies};
pub(in crate::shard) use lane::Rejected;
pub(in crate::shard) use lane_waits::{Destination, ForwardMessage};
pub(in crate::shard) use send_batch::AnsweredBatch;

use batches::{ForwardBatches, Room};
use lane_waits::LaneWaits;

use super::config::ShardConfig;
use super::outbound::Outbound;
use crate::dispatch::Logins;
use crate::dispatch::last_call::LastCall;
use crate::forward::asker::{AskCompletion, PendingAsks};
use crate::forward::mail::Mail;
use crate::forward::pending_forwards::{PendingForward, PendingForwards};
use crate::forward::{BACKLOG_RETRY_US, Chunk, Endpoint, Hub, Party, ServerTypeIndex};
use crate::metrics::{Counters, ForwardEnd, ShardFigures};
use crate::session::Directory;
use crate::span::{Sampler, Span};

/// One shard's side of the lanes to all other parties, and its part of the directory of uids.
pub(super) struct Forwarder {
    pub(super) outbound: Outbound,
    config: Arc<ShardConfig>,
    counters: Arc<Counters>,
    figures: Arc<ShardFigures>,
    endpoint: Endpoint,
    /// Mail to this shard from itself, in order.
    own_mail: VecDeque<Mail>,
    /// Questions to other parties that are not answered.
    asks: PendingAsks<AskCompletion>,
    /// The sessions of each uid whose home this shard is.
    directory: Directory,
    /// The bound sessions of this shard.
    logins: Logins,
    /// Messages that are forwarded and not answered.
    pending: PendingForwards,
    batches: ForwardBatches,
    lane_waits: LaneWaits,
    /// The bodies for each worker are carved from memory of its own, so that one that is slow
    /// keeps nothing of what is for others.
    chunks: Vec<Chunk>,
    /// Messages that went to workers in this turn.
    forwarded: usize,
    /// That of the thread, for code of the embedder's that is called here.
    last_call: Rc<LastCall>,
    sampler: Sampler,
}

impl Forwarder {
    pub(super) fn new(
        outbound: Outbound,
        config: &Arc<ShardConfig>,
        hub: &Arc<Hub>,
        last_call: &Rc<LastCall>,
    ) -> Self {
        let limits = &config.limits;
        let me = Party::from(outbound.connections.index());
        let workers = usize::from(hub.parties() - hub.shards());
        Self {
            endpoint: Endpoint::new(Arc::clone(hub), me, limits.backlog_len_max),
            own_mail: VecDeque::new(),
            asks: PendingAsks::new(hub, me, limits.backlog_len_max),
            directory: Directory::default(),
            logins: Logins::default(),
            pending: PendingForwards::default(),
            batches: ForwardBatches::new(workers),
            lane_waits: LaneWaits::default(),
            chunks: (0..workers).map(|_| Chunk::default()).collect(),
            forwarded: 0,
            sampler: Sampler::new(config.spans.as_ref()),
            counters: Arc::clone(&config.counters[me.index()]),
            figures: Arc::clone(outbound.connections.figures()),
            last_call: Rc::clone(last_call),
            config: Arc::clone(config),
            outbound,
        }
    }

    pub(super) fn begin_turn(&mut self) {
        self.forwarded = 0;
    }

    pub(super) fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    #[cfg(feature = "internals")]
    pub(super) fn endpoint_ref(&self) -> &Endpoint {
        &self.endpoint
    }

    /// True if something here is left for whoever calls: mail from this shard to itself, an ended
    /// session, a message that found no lane.
    #[inline]
    pub(super) fn has_unsettled(&self) -> bool {
        !self.own_mail.is_empty()
            || self.outbound.connections.has_ended()
            || self.lane_waits.has_rejected()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Counts answers of a server type, some of them failures, that were waited for since then.
    #[inline]
    pub(super) fn count_answers(
        &self,
        server_type: ServerTypeIndex,
        started_us: u64,
        answers: u32,
        failed: u16,
    ) {
        let figures = &self.figures.forwards[server_type.index()];
        let now_us = self.outbound.connections.now_us();
        let (answers, failed) = (u64::from(answers), u64::from(failed));
        figures.answered.record(now_us.saturating_sub(started_us), answers);
        figures.end(ForwardEnd::Answered, answers.saturating_sub(failed));
        figures.end(ForwardEnd::Failed, failed);
    }

    /// Counts messages of a server type for which nobody waits any more.
    #[inline]
    fn count_done(&self, server_type: ServerTypeIndex, messages: u32) {
        self.figures.forwards[server_type.index()].done.add(u64::from(messages));
    }

    fn show_uids(&self) {
        self.figures.uids.set(self.directory.len() as u64);
    }

    /// Shows what waits in the lanes.
    pub(super) fn show(&self) {
        for (worker, lane) in self.endpoint.hub().workers().zip(&self.figures.lanes) {
            let party = self.endpoint.hub().worker(worker);
            let mails = self.endpoint.lane_len(party);
            lane.set(mails.max(self.batches.away(worker)) as u64);
        }
        self.outbound.connections.show();
    }

    pub(super) fn logins(&self) -> &Logins {
        &self.logins
    }

    #[cfg(feature = "internals")]
    pub(super) fn asks_len(&self) -> usize {
        self.asks.len()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn pending_len(&self) -> usize {
        self.pending.len()
    }

    #[cfg(any(test, feature = "internals"))]
    pub(super) fn spans_open(&self) -> usize {
        self.sampler.open()
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// Messages in batches that a worker has not sent back.
    #[cfg(test)]
    pub(super) fn away(&self, worker: crate::forward::WorkerIndex) -> usize {
        self.batches.away(worker)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn lane_waits(&self) -> &LaneWaits {
        &self.lane_waits
    }

    /// Messages that went to workers in this turn.
    pub(super) fn forwarded(&self) -> usize {
        self.forwarded
    }

    /// Takes out what was forwarded and whose deadline has come.
    pub(super) fn take_due(&mut self) -> Option<PendingForward> {
        let due = self.pending.take_due(self.outbound.connections.now_us())?;
        self.count_done(due.server_type(), due.pending());
        Some(due)
    }

    /// Takes out the message of a token, unless it has been answered for.
    pub(super) fn take_pending(&mut self, token: u64) -> Option<PendingForward> {
        let taken = self.pending.take(token)?;
        self.count_done(taken.server_type(), taken.pending());
        Some(taken)
    }

    /// Ends the span of a message that is done, if it has one.
    #[inline]
    pub(super) fn end_span(&mut self, span: Option<Box<Span>>, end: ForwardEnd) {
        if let Some(span) = span {
            self.sampler.end(span, Some(end), self.outbound.connections.now_us());
        }
    }

    /// The time at which something here has to be looked at again at the latest.
    pub(super) fn next_deadline_us(&self) -> Option<u64> {
        // Nobody tells of room in a lane that was not quite full.
        let waits = self.endpoint.has_backlog() || !self.lane_waits.is_empty();
        let now_us = self.outbound.connections.now_us();
        let backlog = waits.then_some(now_us + BACKLOG_RETRY_US);
        [self.pending.next_deadline_us(), backlog].into_iter().flatten().min()
    }

    /// The means to put messages of one session into batches, and the parts below this one.
    #[inline]
    pub(super) fn batching(&mut self, is_filtered: bool) -> (Batching<'_>, &mut Outbound) {
        let memory_left = self.outbound.connections.bytes_left();
        let room = Room {
            config: &self.config,
            endpoint: &self.endpoint,
            pending: &self.pending,
            lane_waits: &self.lane_waits,
            memory_left,
            until_sampled: self.sampler.until_due(),
            is_filtered,
        };
        (Batching { batches: &mut self.batches, room }, &mut self.outbound)
    }
}
