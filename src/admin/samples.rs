//! Two looks at the figures, a second apart: rates, and shards that hang.

use std::time::{Duration, Instant};

use super::bounds::TURN_TIME_MAX;
use crate::engine::{Handle, Metrics};
use crate::metrics::Latency;

/// The time between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The last two looks.
pub(super) struct Samples {
    pub(super) last: Sample,
    pub(super) before: Sample,
    /// The turns of each shard, and when there was last one more.
    turns: Vec<(u64, Instant)>,
}

pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) metrics: Metrics,
}

impl Sample {
    fn take(handle: &Handle, now: Instant) -> Self {
        Self { at: now, metrics: handle.last_metrics() }
    }
}

impl Samples {
    pub(super) fn new(handle: &Handle, now: Instant) -> Self {
        let sample = || Sample::take(handle, now);
        let turns = (0..handle.shard_count()).map(|_| (0, now)).collect();
        Self { last: sample(), before: sample(), turns }
    }

    /// Looks again.
    pub(super) fn look(&mut self, handle: &Handle, now: Instant) {
        self.before = std::mem::replace(&mut self.last, Sample::take(handle, now));
        for (seen, shard) in self.turns.iter_mut().zip(&self.last.metrics.shards) {
            let turns = shard.turns.requests();
            if seen.0 != turns {
                *seen = (turns, now);
            }
        }
    }

    /// The time since each shard was last seen to end a turn. One that is idle ends some, too.
    pub(super) fn silent(&self, now: Instant) -> impl Iterator<Item = Duration> {
        self.turns.iter().map(move |(_, at)| now.saturating_duration_since(*at))
    }

    /// The shards that have not ended a turn for too long.
    pub(super) fn stuck(&self, now: Instant) -> impl Iterator<Item = usize> {
        let shards = self.silent(now).enumerate();
        shards.filter(|(_, silent)| *silent > TURN_TIME_MAX).map(|(shard, _)| shard)
    }

    /// Seconds between the two looks.
    pub(super) fn seconds(&self) -> f64 {
        self.last.at.saturating_duration_since(self.before.at).as_secs_f64().max(f64::EPSILON)
    }

    /// The latency of what was answered between the two.
    pub(super) fn latency(&self) -> Latency {
        self.last.metrics.latency.since(&self.before.metrics.latency)
    }
}
