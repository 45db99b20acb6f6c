//! Spans that have ended, on their way from the shards to whoever sends them on.

use super::Span;
use crate::sync::{ArrayQueue, AtomicU64, Ordering};

/// A queue for each shard, and counts of what became of the spans. They are changed for sampled
/// messages alone, so several threads may write them.
#[derive(Debug)]
pub(crate) struct SpanQueues {
    /// One message in so many is sampled, at least 1.
    pub(super) every: u64,
    queues: Box<[ArrayQueue<Box<Span>>]>,
    sent: AtomicU64,
    lost: [AtomicU64; SpanLoss::ALL.len()],
}

/// Spans of one shard that have ended and wait to be sent; further ones are lost.
pub(crate) const QUEUE_SPANS_MAX: usize = 1024;

/// The reason for which a span is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanLoss {
    /// As many are waited for as may be.
    Open,
    /// The shard's queue is full.
    Queue,
    /// The collector can't be reached, does not answer in time, or has refused it.
    Collector,
}

impl SpanLoss {
    pub(crate) const ALL: [Self; 3] = [Self::Open, Self::Queue, Self::Collector];

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Queue => "queue",
            Self::Collector => "collector",
        }
    }
}

impl SpanQueues {
    /// Of so many shards, each of which samples one message in `every`.
    pub(crate) fn new(shards: u16, every: u64) -> Self {
        Self {
            every: every.max(1),
            queues: (0..shards).map(|_| ArrayQueue::new(QUEUE_SPANS_MAX)).collect(),
            sent: AtomicU64::new(0),
            lost: [const { 0 }; SpanLoss::ALL.len()].map(AtomicU64::new),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.queues.len()
    }

    /// Takes in a span of a shard's. One that finds no room is lost.
    pub(super) fn push(&self, span: Box<Span>) {
        let queue = self.queues.get(usize::from(span.shard));
        if queue.is_none_or(|queue| queue.push(span).is_err()) {
            self.count_lost(SpanLoss::Queue, 1);
        }
    }

    /// The next span of a shard.
    pub(crate) fn pop(&self, shard: usize) -> Option<Box<Span>> {
        self.queues.get(shard)?.pop()
    }

    pub(crate) fn count_sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Ordering::Relaxed);
    }

    pub(crate) fn count_lost(&self, why: SpanLoss, spans: u64) {
        self.lost[why as usize].fetch_add(spans, Ordering::Relaxed);
    }

    /// Spans that a collector has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn lost(&self, why: SpanLoss) -> u64 {
        self.lost[why as usize].load(Ordering::Relaxed)
    }
}
