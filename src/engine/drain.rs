//! The way in which an engine stops, and the times of a drain that its threads share.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::shard::DrainPlan;

/// The way in which an engine stops.
///
/// ```
/// use std::time::Duration;
/// use shaddock::Drain;
///
/// // Balancers have 10 s to look elsewhere, sessions are closed evenly over a minute, and answers
/// // that are pending then have 5 s more.
/// let seconds = Duration::from_secs;
/// let drain = Drain::within(seconds(5)).delay(seconds(10)).over(seconds(60)).refuse_logins();
/// assert_eq!(drain.total(), seconds(75));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says how to stop, and stops nothing"]
pub struct Drain {
    pub(crate) within: Duration,
    pub(crate) delay: Duration,
    pub(crate) over: Duration,
    pub(crate) refuses_logins: bool,
}

impl Drain {
    /// Stops accepting, answers what is pending, closes every session (see
    /// [`Builder::shutdown_kick`](crate::Builder::shutdown_kick)), waits for what is owed, and ends
    /// after that time at the latest; behind [`Self::delay`] and [`Self::over`], if they are set.
    ///
    /// These are owed, on shards and on workers: async handlers, the futures of
    /// [`Context::spawn_owed`](crate::Context::spawn_owed) and those that are spawned when a
    /// session has closed, and the hooks of
    /// [`Handlers::on_shutdown`](crate::Handlers::on_shutdown).
    /// A session whose answer is still pending a second before the end is closed then, so what is
    /// spawned for its end has that second.
    pub fn within(within: Duration) -> Self {
        Self { within, delay: Duration::ZERO, over: Duration::ZERO, refuses_logins: false }
    }

    /// Closes everything at once. Nothing is waited for: what is owed is lost, and counted
    /// ([`ShutdownReport::futures_lost`](crate::ShutdownReport::futures_lost)).
    ///
    /// ```
    /// use shaddock::{Drain, Engine};
    ///
    /// # fn stop(engine: Engine) {
    /// let report = engine.shutdown(Drain::now());
    /// println!("{} saves were lost", report.futures_lost);
    /// # }
    /// ```
    pub fn now() -> Self {
        Self::within(Duration::ZERO)
    }

    /// Tells balancers that long before anything is closed: the health path and `/readyz` say 503,
    /// and everybody is served as before. [`Handle::undrain`](crate::Handle::undrain) calls off
    /// what [`Handle::drain`](crate::Handle::drain) has begun meanwhile.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Closes the sessions evenly over that time, instead of all at once, so that those who
    /// connect again come to the other connectors one after the other. Sessions that are bound to
    /// no uid come first. One with an answer pending is closed behind it. Nobody is accepted any
    /// more.
    pub fn over(mut self, over: Duration) -> Self {
        self.over = over;
        self
    }

    /// Closes those who connect during [`Self::delay`] at their handshake (1001 by WebSocket;
    /// counted as `refused_draining`). Without it they are served until all are closed.
    pub fn refuse_logins(mut self) -> Self {
        self.refuses_logins = true;
        self
    }

    /// The longest time that it takes.
    #[must_use]
    pub fn total(self) -> Duration {
        self.delay.saturating_add(self.over).saturating_add(self.within)
    }

    /// Its times, if it is asked for now.
    pub(crate) fn plan(self, now_us: u64) -> DrainPlan {
        let begin_us = now_us.saturating_add(micros(self.delay));
        let closed_us = begin_us.saturating_add(micros(self.over));
        DrainPlan { begin_us, closed_us, end_us: closed_us.saturating_add(micros(self.within)) }
    }
}

/// One that is over within that time.
impl From<Duration> for Drain {
    fn from(within: Duration) -> Self {
        Self::within(within)
    }
}

/// Half of what the clock counts to, so that sums stay times.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(u64::MAX / 8)
}

/// The drain of an engine. Its shards read it in each turn; others change it seldom.
#[derive(Debug)]
pub(super) struct SharedDrain {
    phase: AtomicU8,
    begin_us: AtomicU64,
    closed_us: AtomicU64,
    end_us: AtomicU64,
    /// Held by those who change it; true if it can't be called off any more.
    is_final: Mutex<bool>,
}

/// There is no drain.
const NONE: u8 = 0;
/// Its delay is not over.
const WAITS: u8 = 1;
/// Sessions are closed.
const CLOSES: u8 = 2;

impl SharedDrain {
    pub(super) fn new() -> Self {
        let never = || AtomicU64::new(u64::MAX);
        Self {
            phase: AtomicU8::new(NONE),
            begin_us: never(),
            closed_us: never(),
            end_us: never(),
            is_final: Mutex::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_final.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a drain. Where there is one, whose delay is not over, the one that closes sooner
    /// holds; one that closes sessions goes on, unless this one ends at once.
    pub(super) fn begin(&self, plan: DrainPlan) {
        let _guard = self.lock();
        self.take(plan);
    }

    /// The same, and it can't be called off any more.
    pub(super) fn begin_for_good(&self, plan: DrainPlan) {
        let mut is_final = self.lock();
        *is_final = true;
        self.take(plan);
    }

    fn take(&self, plan: DrainPlan) {
        let has_begun = self.phase.load(Ordering::Acquire) == CLOSES;
        let ends_at_once = plan.end_us == plan.begin_us;
        let is_sooner = plan.begin_us <= self.begin_us.load(Ordering::Acquire);
        if ends_at_once || is_sooner && !has_begun {
            self.store(plan);
        }
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.phase.compare_exchange(NONE, WAITS, order.0, order.1).ok();
    }

    /// Ends within that time, whatever there is.
    pub(super) fn shorten(&self, plan: DrainPlan) {
        let _guard = self.lock();
        let old = self.times();
        self.store(DrainPlan {
            begin_us: old.begin_us.min(plan.begin_us),
            closed_us: old.closed_us.min(plan.closed_us),
            end_us: old.end_us.min(plan.end_us),
        });
        let order = (Ordering::AcqRel, Ordering::Acquire);
        self.phase.compare_exchange(NONE, WAITS, order.0, order.1).ok();
    }

    /// The beginning last, by which the others are found.
    fn store(&self, plan: DrainPlan) {
        self.end_us.store(plan.end_us, Ordering::Release);
        self.closed_us.store(plan.closed_us, Ordering::Release);
        self.begin_us.store(plan.begin_us, Ordering::Release);
    }

    /// Calls a drain off. False if sessions are closed already, or it is final.
    pub(super) fn call_off(&self) -> bool {
        let is_final = self.lock();
        if *is_final {
            return false;
        }
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        if self.phase.compare_exchange(WAITS, NONE, success, failure) == Err(CLOSES) {
            return false;
        }
        let never = u64::MAX;
        self.store(DrainPlan { begin_us: never, closed_us: never, end_us: never });
        true
    }

    /// The times of a drain whose delay is over at that time. Whoever finds that first begins it,
    /// so that nobody calls it off behind the first close.
    pub(super) fn plan(&self, now_us: u64) -> Option<DrainPlan> {
        let phase = self.phase.load(Ordering::Acquire);
        if phase == NONE {
            return None;
        }
        let times = self.times();
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        let has_begun = phase == CLOSES
            || now_us >= times.begin_us
                && matches!(
                    self.phase.compare_exchange(WAITS, CLOSES, success, failure),
                    Ok(_) | Err(CLOSES)
                );
        has_begun.then_some(times)
    }

    /// The times of a drain, if there is one.
    pub(super) fn asked(&self) -> Option<DrainPlan> {
        (self.phase.load(Ordering::Acquire) != NONE).then(|| self.times())
    }

    fn times(&self) -> DrainPlan {
        DrainPlan {
            begin_us: self.begin_us.load(Ordering::Acquire),
            closed_us: self.closed_us.load(Ordering::Acquire),
            end_us: self.end_us.load(Ordering::Acquire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(delay_s: u64, now_us: u64) -> DrainPlan {
        let seconds = Duration::from_secs;
        Drain::within(seconds(5)).delay(seconds(delay_s)).over(seconds(20)).plan(now_us)
    }

    #[test]
    fn a_drain_is_called_off_until_sessions_are_closed() {
        let drain = SharedDrain::new();
        assert_eq!((drain.plan(u64::MAX), drain.asked()), (None, None));
        assert!(drain.call_off(), "there is none");
        drain.begin(plan(10, 0));
        assert_eq!(drain.plan(9_999_999), None);
        assert!(drain.call_off());
        assert_eq!((drain.plan(u64::MAX), drain.asked()), (None, None));
        drain.begin(plan(10, 0));
        let times = DrainPlan { begin_us: 10_000_000, closed_us: 30_000_000, end_us: 35_000_000 };
        assert_eq!(drain.plan(10_000_000), Some(times));
        assert!(!drain.call_off());
        // All threads see the same, also one whose clock is behind.
        assert_eq!((drain.plan(1), drain.asked()), (Some(times), Some(times)));
    }

    #[test]
    fn the_drain_that_closes_sooner_holds_and_one_that_closes_goes_on() {
        let drain = SharedDrain::new();
        drain.begin(plan(10, 0));
        drain.begin(plan(60, 0));
        assert_eq!(drain.asked(), Some(plan(10, 0)));
        drain.begin_for_good(plan(1, 0));
        assert!(!drain.call_off(), "whoever had the engine has given it away");
        assert_eq!(drain.plan(1_000_000), Some(plan(1, 0)));
        drain.begin_for_good(Drain::within(Duration::from_secs(1)).plan(2_000_000));
        assert_eq!(drain.asked(), Some(plan(1, 0)));
        drain.begin_for_good(Drain::now().plan(2_000_000));
        assert_eq!(drain.asked().map(|plan| plan.end_us), Some(2_000_000));
    }

    #[test]
    fn a_failure_shortens_any_drain() {
        let drain = SharedDrain::new();
        drain.begin(plan(3_600, 0));
        let failed = Drain::within(Duration::from_secs(1)).plan(7);
        drain.shorten(failed);
        assert_eq!(drain.plan(7), Some(failed));
        assert_eq!(Drain::within(Duration::MAX).delay(Duration::MAX).total(), Duration::MAX);
        let plan = Drain::within(Duration::MAX).delay(Duration::MAX).over(Duration::MAX).plan(9);
        assert!(plan.begin_us < plan.closed_us && plan.closed_us < plan.end_us);
    }
}
