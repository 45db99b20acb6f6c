//! A warning about messages that take too long.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::super::context::Context;
use super::super::{Filter, Reply, Request, Session, Verdict};

/// Logs each message that is not answered within the timeout, as Pomelo's `timeout` does. It
/// changes no answer.
#[derive(Debug)]
pub struct Timeout {
    timeout: Duration,
    watched_max: usize,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order they began.
    watched: VecDeque<(u64, Box<str>)>,
    tickets: u64,
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

    fn watch(&self, ticket: u64, context: &Context) {
        let state = Rc::clone(&self.state);
        let sleep = context.sleep(self.timeout);
        context.spawn(async move {
            sleep.await;
            if let Some(route) = state.borrow_mut().remove(ticket) {
                tracing::warn!(route = &*route, "a message takes too long");
            }
        });
    }
}

impl State {
    fn remove(&mut self, ticket: u64) -> Option<Box<str>> {
        let place = self.watched.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()?;
        self.watched.remove(place).map(|(_, route)| route)
    }
}

impl Filter for Timeout {
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        let ticket = {
            let mut state = self.state.borrow_mut();
            if state.watched.len() == self.watched_max {
                return Verdict::Continue;
            }
            state.tickets += 1;
            let ticket = state.tickets;
            state.watched.push_back((ticket, request.route().into()));
            ticket
        };
        session.mark(Rc::as_ptr(&self.state).addr(), ticket);
        self.watch(ticket, &session.context());
        Verdict::Continue
    }

    fn after(&self, _: &Request<'_>, session: &mut Session, _: &mut Reply<'_>) {
        if let Some(ticket) = session.marked(Rc::as_ptr(&self.state).addr()) {
            self.state.borrow_mut().remove(ticket);
        }
    }
}
