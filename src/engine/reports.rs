//! Questions of a handle to all shards: the sessions that are logged in, and the end of a turn.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::handle::Handle;
use super::threads::is_of_engine;
use crate::dispatch::Statistics;
use crate::error::HandleError;
use crate::forward::mail::{Mail, Report, ReportKind};
use crate::forward::reports::Reports;
use crate::metrics::CounterSnapshot;
use crate::session::ShardIndex;

/// The time in which a shard has to report. A turn lasts far less unless a handler blocks.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

impl Handle {
    /// The number of connections, and the sessions that are logged in.
    ///
    /// ```no_run
    /// # fn print(handle: &shaddock::Handle) -> Result<(), shaddock::HandleError> {
    /// for login in handle.statistics()?.logins {
    ///     println!("{} from {}", login.uid, login.address);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn statistics(&self) -> Result<Statistics, HandleError> {
        self.reports(ReportKind::Logins, REPORT_PATIENCE).map(|reports| self.statistics_of(reports))
    }

    /// The same as a future, which any executor can await, and a handler or a future on a shard.
    /// The shards are asked at once. It waits for as long as they take.
    ///
    /// ```
    /// # async fn logged_in(handle: &shaddock::Handle) -> Result<usize, shaddock::HandleError> {
    /// Ok(handle.statistics_async().await?.login_count)
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn statistics_async(
        &self,
    ) -> impl Future<Output = Result<Statistics, HandleError>> + Send + use<> {
        let (handle, asked) = (self.clone(), self.ask(ReportKind::Logins));
        async move {
            let reports = asked?.await.ok_or(HandleError::Stopped)?;
            Ok(handle.statistics_of(reports))
        }
    }

    fn statistics_of(&self, reports: Vec<Report>) -> Statistics {
        let connections = reports.iter().map(|report| report.connections).sum();
        let mut statistics = Statistics {
            server_id: self.config.server_id.to_string(),
            connections,
            login_count: 0,
            logins: Vec::new(),
        };
        // A uid with sessions on several shards has one entry, as in Pomelo.
        let mut seen = HashSet::new();
        for login in reports.into_iter().flat_map(|report| report.logins) {
            if seen.insert(login.uid.text().to_owned()) {
                statistics.logins.push(login);
            }
        }
        statistics.login_count = statistics.logins.len();
        statistics
    }

    /// The counters of all shards, without asking them for anything.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let _amy = t.connect();
    /// assert_eq!(t.handle().counters().connections_accepted, 1);
    /// ```
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        let mut sum = CounterSnapshot::default();
        for counters in &self.config.counters {
            sum += counters.snapshot();
        }
        sum
    }

    /// Waits until every shard has ended a turn, as a watchdog does: a handler that never returns
    /// holds all sessions of its shard, and nothing else may tell that.
    ///
    /// # Errors
    /// [`HandleError::TimedOut`] if a shard has not done so within that time,
    /// [`Busy`](HandleError::Busy) if it takes no mail, [`OnShard`](HandleError::OnShard) where a
    /// shard or worker asks ([`Self::wait_for_turns_async`] is for
    /// those), and [`HandleError::Stopped`] if the engine has ended.
    ///
    /// # Examples
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # fn check(handle: &shaddock::Handle) -> Result<(), shaddock::HandleError> {
    /// handle.wait_for_turns(Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for_turns(&self, within: Duration) -> Result<(), HandleError> {
        self.reports(ReportKind::Presence, within).map(drop)
    }

    /// The same as a future, which any executor can await, and a handler or a future on a shard:
    /// it is done once every shard has ended the turn that it is in. It waits for as long as they
    /// take.
    ///
    /// ```
    /// # use shaddock::{Handle, HandleError};
    /// # async fn all_have_seen_it(handle: &Handle) -> Result<(), HandleError> {
    /// handle.push("amy", "onNews", "{}")?;
    /// handle.wait_for_turns_async().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn wait_for_turns_async(
        &self,
    ) -> impl Future<Output = Result<(), HandleError>> + Send + use<> {
        let asked = self.ask(ReportKind::Presence);
        async move { asked?.await.map(drop).ok_or(HandleError::Stopped) }
    }

    /// Asks all shards for a report.
    fn ask(&self, kind: ReportKind) -> Result<Reports<Report>, HandleError> {
        let (reports, places) = Reports::new(self.shards().into());
        for (shard, to) in (0..).map(ShardIndex).zip(places) {
            self.tell(shard, Mail::Report { to, kind })?;
        }
        Ok(reports)
    }

    /// Waits for the reports of all shards.
    fn reports(&self, kind: ReportKind, within: Duration) -> Result<Vec<Report>, HandleError> {
        if is_of_engine() {
            return Err(HandleError::OnShard);
        }
        let mut reports = self.ask(kind)?;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let deadline = Instant::now() + within;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match Pin::new(&mut reports).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(all) => return all.ok_or(HandleError::Stopped),
                Poll::Pending if !patience.is_zero() => thread::park_timeout(patience),
                Poll::Pending if self.is_stopped() => return Err(HandleError::Stopped),
                Poll::Pending => return Err(HandleError::TimedOut),
            }
        }
    }
}

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
