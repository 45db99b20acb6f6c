//! The choice of messages that are traced.

use std::sync::Arc;

use super::random::Random;
use super::{Span, SpanContext, SpanLoss, SpanQueues};
use crate::metrics::ForwardEnd;

/// One shard's countdown to the next message that is sampled.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Messages until one is sampled, that one included, at least 1.
    left: u64,
    /// None where nothing is traced.
    sampling: Option<Sampling>,
}

/// The parts that tracing takes.
#[derive(Debug)]
struct Sampling {
    queues: Arc<SpanQueues>,
    random: Random,
    /// Spans that have begun and not ended.
    open: usize,
}

/// Spans of one shard that may be waited for at once; further messages are not traced.
pub(crate) const OPEN_SPANS_MAX: usize = 1024;

impl Sampler {
    pub(crate) fn new(queues: Option<&Arc<SpanQueues>>) -> Self {
        let Some(queues) = queues else { return Self { left: NEVER, sampling: None } };
        let mut random = Random::new();
        // Not all shards, nor all connectors that start at once, begin with their first message.
        let left = 1 + random.next() % queues.every;
        let sampling = Sampling { queues: Arc::clone(queues), random, open: 0 };
        Self { left, sampling: Some(sampling) }
    }

    /// Spans that have begun and not ended.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn open(&self) -> usize {
        self.sampling.as_ref().map_or(0, |sampling| sampling.open)
    }

    /// Messages that go before the one that is sampled.
    #[inline]
    pub(crate) fn until_due(&self) -> usize {
        usize::try_from(self.left - 1).unwrap_or(usize::MAX)
    }

    /// Counts messages that go together, at most [`Self::until_due`].
    #[inline]
    pub(crate) fn skip(&mut self, messages: usize) {
        debug_assert!(messages <= self.until_due());
        self.left = self.left.saturating_sub(messages as u64).max(1);
    }

    /// Counts a message. True if it is to be sampled: then [`Self::begin`] follows.
    #[inline]
    pub(crate) fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// Begins the span of a message that is due, unless too many are open.
    #[cold]
    pub(crate) fn begin(
        &mut self,
        describe: impl FnOnce(SpanContext) -> Span,
    ) -> Option<Box<Span>> {
        let Some(sampling) = &mut self.sampling else {
            self.left = NEVER;
            return None;
        };
        self.left = sampling.queues.every;
        if sampling.open >= OPEN_SPANS_MAX {
            sampling.queues.count_lost(SpanLoss::Open, 1);
            return None;
        }
        sampling.open += 1;
        Some(Box::new(describe(sampling.random.context())))
    }

    /// Ends a span that [`Self::begin`] has begun.
    #[cold]
    pub(crate) fn end(&mut self, mut span: Box<Span>, end: Option<ForwardEnd>, now_us: u64) {
        let Some(sampling) = &mut self.sampling else { return };
        sampling.open -= 1;
        span.end = end;
        span.ended_us = now_us;
        sampling.queues.push(span);
    }
}

/// A countdown that comes to no end.
const NEVER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::super::queues::QUEUE_SPANS_MAX;
    use super::*;

    fn span(context: SpanContext) -> Span {
        Span {
            context,
            started_us: 5,
            ended_us: 0,
            end: None,
            is_notify: false,
            shard: 0,
            session: 1,
            route: "chat.chatHandler.send".into(),
            uid: None,
            server_type: "chat".into(),
            carrier: "worker",
            worker: None,
        }
    }

    #[test]
    fn one_message_in_so_many_is_due_however_they_go() {
        const EVERY: u64 = 7;
        let queues = Arc::new(SpanQueues::new(1, EVERY));
        let mut sampler = Sampler::new(Some(&queues));
        let (mut messages, mut sampled) = (0, 0);
        while messages < 100 * EVERY {
            let together = sampler.until_due().min(3);
            sampler.skip(together);
            messages += together as u64;
            if messages < 100 * EVERY {
                messages += 1;
                if sampler.is_due() {
                    let span = sampler.begin(span).unwrap();
                    sampler.end(span, Some(ForwardEnd::Answered), 9);
                    sampled += 1;
                }
            }
        }
        assert_eq!(sampled, 100);
        let ended = std::iter::from_fn(|| queues.pop(0));
        let wanted = (5, 9, Some(ForwardEnd::Answered));
        assert_eq!(
            ended.map(|it| assert_eq!((it.started_us, it.ended_us, it.end), wanted)).count(),
            100
        );
    }

    #[test]
    fn spans_are_bounded_while_open_and_while_they_wait() {
        let queues = Arc::new(SpanQueues::new(1, 1));
        let mut sampler = Sampler::new(Some(&queues));
        let mut open = Vec::new();
        for _ in 0..OPEN_SPANS_MAX + 3 {
            assert!(sampler.is_due());
            open.extend(sampler.begin(span));
        }
        assert_eq!((open.len(), queues.lost(SpanLoss::Open)), (OPEN_SPANS_MAX, 3));
        for span in open {
            sampler.end(span, None, 9);
        }
        for _ in 0..5 {
            assert!(sampler.is_due());
            let span = sampler.begin(span).expect("there is room for open ones again");
            sampler.end(span, None, 9);
        }
        let lost = OPEN_SPANS_MAX + 5 - QUEUE_SPANS_MAX;
        assert_eq!(queues.lost(SpanLoss::Queue), lost as u64);
    }

    #[test]
    fn nothing_is_due_where_nothing_is_traced() {
        let mut sampler = Sampler::new(None);
        assert_eq!(sampler.until_due(), usize::MAX - 1);
        sampler.skip(64);
        assert!((0..1000).all(|_| !sampler.is_due()));
    }
}
