//! Spans of traces: one message in so many that a shard forwards is followed from its turn to its
//! answer.
//!
//! A shard counts down ([`Sampler`]); a message that is not sampled costs that decrement, carries
//! nothing and is remembered nowhere. The spans that have ended wait in [`SpanQueues`] for
//! whoever sends them on (`src/traces/`, feature `traces`).

mod context;
mod queues;
mod random;
mod sampler;

pub(crate) use context::SpanContext;
#[cfg(all(test, feature = "traces"))]
pub(crate) use queues::QUEUE_SPANS_MAX;
pub(crate) use queues::{SpanLoss, SpanQueues};
#[cfg(feature = "traces")]
pub(crate) use random::Random;
#[cfg(all(test, feature = "traces"))]
pub(crate) use sampler::OPEN_SPANS_MAX;
pub(crate) use sampler::Sampler;

use std::sync::Arc;

use crate::metrics::ForwardEnd;

/// A message that a shard has forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) context: SpanContext,
    /// The time at which the message came, in microseconds of the shard's clock.
    pub(crate) started_us: u64,
    /// The time at which it was answered, or was sent if nobody waits for it.
    pub(crate) ended_us: u64,
    /// Its outcome; nothing is known of a notify to a cluster.
    pub(crate) end: Option<ForwardEnd>,
    pub(crate) is_notify: bool,
    pub(crate) shard: u16,
    /// The number of its session, which backends know it by.
    pub(crate) session: u64,
    /// Cut, as the uid, by [`cut`].
    pub(crate) route: Box<str>,
    pub(crate) uid: Option<Box<str>>,
    pub(crate) server_type: Arc<str>,
    /// The carrier: `worker`, `pomelo` or `pitaya`.
    pub(crate) carrier: &'static str,
    /// The worker that it went to; a cluster's server is picked elsewhere.
    pub(crate) worker: Option<Arc<str>>,
}

/// Bytes of a uid or a route in a span, so that spans that wait are bounded in bytes, too.
pub(crate) const TEXT_BYTES_MAX: usize = 256;
// `docs/limits.md`, "Traces", counts with it.
const _: () = assert!(size_of::<Span>() <= 256);

/// A text of a client's for a span; what is too long is cut.
pub(crate) fn cut(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into()
}
