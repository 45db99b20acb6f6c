//! A warning about messages that take too long.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::super::context::Context;
use super::super::{Filter, Reply, Request, Session, Verdict};
use crate::log::Excerpt;

/// Logs each message that is not answered within the timeout, as Pomelo's `timeout` does. It
/// changes no answer.
///
/// ```
/// use std::time::Duration;
/// use shaddock::{Engine, Timeout};
///
/// let builder = Engine::builder().filter(|| Timeout::new(Duration::from_secs(1), 1_000));
/// ```
#[derive(Debug)]
pub struct Timeout {
    timeout: Duration,
    watched_max: usize,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order they began.
    watched: VecDeque<Watched>,
    tickets: u64,
    /// A future waits for the first of them to be late.
    is_awake: bool,
    /// Memory for the next ones' routes.
    spare: Vec<String>,
}

#[derive(Debug)]
struct Watched {
    ticket: u64,
    due_us: u64,
    route: String,
}

impl Default for Timeout {
    /// 3 s, and 500 messages watched at once, as Pomelo's.
    fn default() -> Self {
        Self::new(Duration::from_secs(3), 500)
    }
}

impl Timeout {
    /// Watches at most `watched_max` messages at once; the ones above that are not watched.
    #[must_use]
    pub fn new(timeout: Duration, watched_max: usize) -> Self {
        Self { timeout, watched_max, state: Rc::default() }
    }

    fn key(&self) -> usize {
        Rc::as_ptr(&self.state).addr()
    }
}

impl State {
    fn remove(&mut self, ticket: u64) {
        let place = self.watched.binary_search_by_key(&ticket, |watched| watched.ticket);
        if let Some(watched) = place.ok().and_then(|place| self.watched.remove(place)) {
            self.spare.push(watched.route);
        }
    }

    /// Tells of those that are late, and how long the next one has; `None` where there is none.
    fn tell_late(&mut self, now_us: u64) -> Option<Duration> {
        while let Some(first) = self.watched.front() {
            if first.due_us > now_us {
                return Some(Duration::from_micros(first.due_us - now_us));
            }
            let route = Excerpt(&first.route);
            crate::log::seldom!(warn, %route, "a message takes too long");
            let ticket = first.ticket;
            self.remove(ticket);
        }
        None
    }
}

/// Is not awake any more once this is gone, be it that there was no room for its future.
struct Awake(Rc<RefCell<State>>);

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.borrow_mut().is_awake = false;
    }
}

/// Waits for as long as any is watched.
async fn watch(awake: Awake, context: Context) {
    loop {
        let next = awake.0.borrow_mut().tell_late(context.now_us());
        let Some(next) = next else { break };
        context.sleep(next).await;
    }
}

impl Filter for Timeout {
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        let mut state = self.state.borrow_mut();
        if state.watched.len() == self.watched_max {
            return Verdict::Continue;
        }
        state.tickets += 1;
        let ticket = state.tickets;
        session.mark(self.key(), ticket);
        let context = session.context();
        let timeout_us = u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX);
        let due_us = context.now_us().saturating_add(timeout_us);
        let mut route = state.spare.pop().unwrap_or_default();
        route.clear();
        route.push_str(request.route());
        state.watched.push_back(Watched { ticket, due_us, route });
        if !std::mem::replace(&mut state.is_awake, true) {
            let awake = Awake(Rc::clone(&self.state));
            context.spawn(watch(awake, context.clone()));
        }
        Verdict::Continue
    }

    fn after(&self, _: &Request<'_>, session: &mut Session, _: &mut Reply<'_>) {
        if let Some(ticket) = session.marked(self.key()) {
            self.state.borrow_mut().remove(ticket);
        }
    }
}
