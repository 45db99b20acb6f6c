//! One message of a session at a time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::super::context::Context;
use super::super::pending::{Completion, Pending};
use super::super::{Filter, Reply, Request, Session, Verdict};
use crate::session::SessionId;

/// Handles the messages of one session one after the other, as Pomelo's `serial` does.
///
/// A message waits until the one before it has been answered, at most for the timeout: then the
/// next one starts, and the late one's reply becomes an error. As a global filter it serialises
/// forwarded messages too.
///
/// A line holds at most [`Serial::LINE_LEN_MAX`] waiting messages; one more is refused (500).
///
/// ```
/// use std::time::Duration;
/// use shaddock::{Engine, Serial};
///
/// let builder = Engine::builder().global_filter(|| Serial::new(Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone)]
pub struct Serial {
    timeout: Duration,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Sessions of which a message is being handled.
    lines: FxHashMap<SessionId, Line>,
    tickets: u64,
}

#[derive(Debug)]
struct Line {
    running: u64,
    waiting: VecDeque<(u64, Completion<()>)>,
}

impl Default for Serial {
    /// A timeout of 3 s, as Pomelo's.
    fn default() -> Self {
        Self::new(Duration::from_secs(3))
    }
}

impl Serial {
    /// Messages that may wait in one session's line.
    pub const LINE_LEN_MAX: usize = 1024;

    /// A filter with that timeout for each message.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, state: Rc::default() }
    }

    fn key(&self) -> usize {
        Rc::as_ptr(&self.state).addr()
    }

    /// Ends the running message of a session, if it is still that one, and starts the next. One
    /// that has not had its turn, because it was refused meanwhile, leaves the line.
    fn release(&self, session: SessionId, ticket: u64, context: &Context) -> bool {
        let next = {
            let mut state = self.state.borrow_mut();
            let Some(line) = state.lines.get_mut(&session) else { return false };
            if line.running != ticket {
                line.waiting.retain(|(waiting, _)| *waiting != ticket);
                return false;
            }
            let next = line.waiting.pop_front();
            match &next {
                Some((ticket, _)) => line.running = *ticket,
                None => drop(state.lines.remove(&session)),
            }
            next
        };
        if let Some((ticket, turn)) = next {
            self.watch(session, ticket, context);
            turn.complete(());
        }
        true
    }

    /// Releases a message that takes too long.
    fn watch(&self, session: SessionId, ticket: u64, context: &Context) {
        let (serial, own) = (self.clone(), context.clone());
        let sleep = context.sleep(self.timeout);
        context.spawn(async move {
            sleep.await;
            serial.release(session, ticket, &own);
        });
    }
}

impl Filter for Serial {
    fn before(&self, _: &Request<'_>, session: &mut Session) -> Verdict {
        let mut state = self.state.borrow_mut();
        state.tickets += 1;
        let ticket = state.tickets;
        session.mark(self.key(), ticket);
        let Some(line) = state.lines.get_mut(&session.id()) else {
            let line = Line { running: ticket, waiting: VecDeque::new() };
            state.lines.insert(session.id(), line);
            return Verdict::Continue;
        };
        if line.waiting.len() == Self::LINE_LEN_MAX {
            return Verdict::Refuse(Reply::error());
        }
        // Nobody watches a message as long as nobody waits for it.
        let first = line.waiting.is_empty().then_some(line.running);
        let (turn, pending) = Pending::new();
        line.waiting.push_back((ticket, turn));
        drop(state);
        if let Some(running) = first {
            self.watch(session.id(), running, &session.context());
        }
        Verdict::wait(async move {
            pending.await;
            Verdict::Continue
        })
    }

    fn after(&self, _: &Request<'_>, session: &mut Session, reply: &mut Reply<'_>) {
        let Some(ticket) = session.marked(self.key()) else { return };
        if !self.release(session.id(), ticket, &session.context()) {
            *reply = Reply::error();
        }
    }
}
