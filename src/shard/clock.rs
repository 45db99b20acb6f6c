//! The times of a shard.

/// The times of one shard, all since the engine started.
#[derive(Debug, Default)]
pub(super) struct Clock {
    now_us: u64,
    /// Time as the deadlines of clients count it: a turn that took longer than [`PATIENCE_US`],
    /// because the process was stopped or a handler blocked, counts as that long. So nobody is
    /// closed for what could not be read.
    patient_us: u64,
    /// The same; asked for by every package.
    patient_ms: u64,
}

/// Far above a turn's ordinary length, far below any timeout of a client.
pub(super) const PATIENCE_US: u64 = 200_000;

impl Clock {
    pub(super) fn advance(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.now_us);
        self.now_us = self.now_us.max(now_us);
        self.patient_us += passed.min(PATIENCE_US);
        self.patient_ms = self.patient_us / 1000;
    }

    #[inline]
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The time that deadlines of clients are compared with, in milliseconds.
    #[inline]
    pub(super) fn patient_ms(&self) -> u64 {
        self.patient_ms
    }
}
