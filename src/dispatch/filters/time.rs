//! The time that messages take.

use std::time::Instant;

use super::super::{Filter, Reply, Request, Session, Verdict};
use crate::log::Excerpt;

/// Logs how long each message took, as Pomelo's `time` does: target `shaddock::time`, level info.
///
/// ```
/// let builder = shaddock::Engine::builder().filter(shaddock::Time::default);
/// ```
#[derive(Debug)]
pub struct Time {
    start: Instant,
}

impl Default for Time {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Time {
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Filter for Time {
    fn before(&self, _: &Request<'_>, session: &mut Session) -> Verdict {
        session.mark(self.key(), self.micros());
        Verdict::Continue
    }

    fn after(&self, request: &Request<'_>, session: &mut Session, _: &mut Reply<'_>) {
        if let Some(begin) = session.marked(self.key()) {
            let micros = self.micros() - begin;
            let route = Excerpt(request.route());
            tracing::info!(target: "shaddock::time", %route, micros);
        }
    }
}
