//! The calls of a turn, for whoever asks what has held the thread up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::route::table::RouteId;

/// The last code of the embedder's that was called in a turn. To note it takes a store or two, once
/// for all the messages that a session has sent together.
///
/// So behind a turn that has taken long, the last call is known, and that need not be the one that
/// took long. From then on calls are timed for a while, each message by itself, to know the next
/// such call for certain. They are timed by the clock, which the rest of the core gets from its
/// caller: only the log depends on it.
#[derive(Debug, Default)]
pub(crate) struct LastCall {
    what: Cell<What>,
    /// The route that is in no table.
    text: RefCell<String>,
    /// The name of the future.
    name: RefCell<Option<Rc<str>>>,
    /// The time of the thread until which calls are timed; 0 where they are not.
    timed_until_us: Cell<u64>,
    /// The time at which the last call began, where it is timed.
    since: Cell<Option<Instant>>,
    longest: RefCell<TimedCall>,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum What {
    #[default]
    Nothing,
    /// The handler of a route, and the filters round it.
    Route(RouteId),
    /// That of a route which is in no table.
    Text,
    /// The future of an async handler, by the handler's place.
    Answer(usize),
    /// A spawned future.
    Future,
    /// A tick, a receiver of mail or another callback, by its name.
    Callback(&'static str),
}

/// A call with its time.
#[derive(Debug, Clone, Default)]
pub(super) struct TimedCall {
    pub(super) took: Duration,
    pub(super) what: What,
    /// The route that is in no table, or the name of the future.
    pub(super) text: String,
}

/// The time for which calls are timed behind a turn that has taken long.
const TIMED_FOR_US: u64 = 60_000_000;
/// A shorter call is not looked at.
const LONG: Duration = Duration::from_millis(1);

impl LastCall {
    /// A turn begins at that time of its thread.
    pub(crate) fn begin_turn(&self, now_us: u64) {
        self.what.set(What::Nothing);
        if self.is_timed() {
            self.begin_timed_turn(now_us);
        }
    }

    #[cold]
    fn begin_timed_turn(&self, now_us: u64) {
        self.longest.take();
        let is_over = now_us >= self.timed_until_us.get();
        self.since.set((!is_over).then(Instant::now));
        if is_over {
            self.timed_until_us.set(0);
        }
    }

    /// Times the calls of the next turns, for a while.
    pub(super) fn time_calls(&self, now_us: u64) {
        self.timed_until_us.set(now_us.saturating_add(TIMED_FOR_US));
    }

    /// True where each call is noted before it is made; else runs of messages are noted behind
    /// their last.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.timed_until_us.get() != 0
    }

    #[inline]
    fn note(&self, what: What) {
        if self.is_timed() {
            self.end_call();
        }
        self.what.set(what);
    }

    /// The time since the last call began is its own.
    #[cold]
    fn end_call(&self) {
        let now = Instant::now();
        let Some(since) = self.since.replace(Some(now)) else { return };
        let took = now - since;
        let what = self.what.get();
        if what != What::Nothing && took >= LONG && took > self.longest.borrow().took {
            let text = self.text_of(what);
            self.longest.replace(TimedCall { took, what, text });
        }
    }

    fn text_of(&self, what: What) -> String {
        match what {
            What::Text => self.text.borrow().clone(),
            What::Future => self.name.borrow().as_deref().unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }

    #[inline]
    pub(crate) fn note_route(&self, route: RouteId) {
        self.note(What::Route(route));
    }

    /// Notes the end of a run of messages, by the route of the last one.
    #[inline]
    pub(crate) fn note_run(&self, last: RouteId) {
        let is_noted = self.is_timed();
        self.note(if is_noted { What::Nothing } else { What::Route(last) });
    }

    /// Notes that a call has ended, so that what comes next is not taken for its time.
    #[inline]
    pub(crate) fn end(&self) {
        if self.is_timed() {
            self.note(What::Nothing);
        }
    }

    /// Notes a route that is in no table.
    pub(crate) fn note_text(&self, route: &str) {
        self.note(What::Text);
        let mut text = self.text.borrow_mut();
        text.clear();
        text.push_str(route);
    }

    pub(super) fn note_answer(&self, handler: usize) {
        self.note(What::Answer(handler));
    }

    pub(super) fn note_future(&self, name: &Rc<str>) {
        self.note(What::Future);
        self.name.replace(Some(Rc::clone(name)));
    }

    pub(crate) fn note_callback(&self, name: &'static str) {
        self.note(What::Callback(name));
    }

    /// The call that came last in this turn.
    pub(super) fn last(&self) -> TimedCall {
        let what = self.what.get();
        TimedCall { took: Duration::ZERO, what, text: self.text_of(what) }
    }

    /// The longest call of this turn, where calls are timed.
    pub(super) fn longest(&self) -> Option<TimedCall> {
        self.since.get()?;
        self.note(What::Nothing);
        Some(self.longest.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(ms: u64) {
        let end = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < end {}
    }

    #[test]
    fn the_longest_call_is_known_for_a_while_behind_a_long_turn() {
        let calls = LastCall::default();
        calls.begin_turn(1);
        calls.note_text("room.a.slow");
        calls.note_callback("quick");
        assert!(calls.longest().is_none() && !calls.is_timed());
        assert_eq!(calls.last().what, What::Callback("quick"));
        calls.time_calls(1);
        assert!(calls.longest().is_none(), "this turn was not timed from its beginning");
        for now_us in [2, TIMED_FOR_US] {
            calls.begin_turn(now_us);
            calls.note_callback("quick");
            calls.note_text("room.a.slow");
            work(20);
            calls.note_text("room.a.quick");
            calls.note_future(&"quick".into());
            calls.end();
            work(25);
            calls.note_callback("quick");
            let longest = calls.longest().unwrap();
            assert_eq!((longest.what, &*longest.text), (What::Text, "room.a.slow"));
            assert!(longest.took >= Duration::from_millis(20), "{longest:?}");
        }
        calls.begin_turn(TIMED_FOR_US + 1);
        calls.note_callback("quick");
        assert!(calls.longest().is_none() && !calls.is_timed());
    }
}
