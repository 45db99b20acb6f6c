//! Refusal of messages while the server is behind.

use std::time::Duration;

use super::super::failure::Failure;
use super::super::{Filter, Reply, Request, Session, Verdict};

/// Refuses messages while the thread lags, as Pomelo's `toobusy` does: 500, or
/// [`Codes::busy`](crate::Codes::busy).
///
/// The lag is how long the thread's last turn took: the time in which nobody else was served.
///
/// ```
/// use std::time::Duration;
/// use shaddock::{Engine, TooBusy};
///
/// let builder = Engine::builder().global_filter(|| TooBusy::new(Duration::from_millis(20)));
/// ```
#[derive(Debug, Clone)]
pub struct TooBusy {
    lag_max: Duration,
}

impl Default for TooBusy {
    /// 70 ms, as Pomelo's.
    fn default() -> Self {
        Self::new(Duration::from_millis(70))
    }
}

impl TooBusy {
    /// Refuses above that lag.
    #[must_use]
    pub fn new(lag_max: Duration) -> Self {
        Self { lag_max }
    }
}

impl Filter for TooBusy {
    fn before(&self, _: &Request<'_>, session: &mut Session) -> Verdict {
        if session.context().lag() > self.lag_max {
            crate::log::seldom!(warn, "too busy");
            return Verdict::Refuse(Reply::failure(Failure::Busy));
        }
        Verdict::Continue
    }
}
