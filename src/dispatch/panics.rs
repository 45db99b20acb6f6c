//! Panics of the embedder's code, which end the call that they come from and nothing else.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::log::Excerpt;
use crate::metrics::Counters;

/// A panic that was caught. It shows the text that it was raised with, escaped and cut for the log.
pub(crate) struct Panic(Box<dyn Any + Send>);

impl Panic {
    /// The text that the panic was raised with.
    pub(super) fn text(&self) -> &str {
        let Self(payload) = self;
        match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => text,
            (_, Some(text)) => text,
            _ => "a value that is no text",
        }
    }
}

/// Words of the panic of the runtime on a thread that has none of its executors.
const NO_EXECUTOR: &str = "scoped thread local variable";
const EXECUTOR_HINT: &str = " (glommio's timers and files work on a shard whose driver is `ring`, \
    and nowhere else: not with the driver `poll`, and not on a worker; Context::sleep works \
    everywhere)";

#[cfg(test)]
impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Excerpt(self.text()).fmt(f)?;
        match self.text().contains(NO_EXECUTOR) {
            true => f.write_str(EXECUTOR_HINT),
            false => Ok(()),
        }
    }
}

/// Runs code of the embedder. The panic hook has printed a panic by the time it is given back.
///
/// The code has borrowed nothing mutably but what is dropped with it, such as a snapshot of one
/// message.
#[inline(always)] // Every message comes by here.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(code)).map_err(Panic)
}

/// Runs a callback of the embedder's, which is no handler and no filter; `None` when it panics,
/// which is counted, and logged with the callback's name.
#[inline(always)]
pub(crate) fn guarded<T>(
    callback: &'static str,
    counters: &Counters,
    code: impl FnOnce() -> T,
) -> Option<T> {
    caught(code).map_err(|panic| count_panic(callback, counters, &panic)).ok()
}

/// The same where nobody counts.
#[inline(always)]
pub(crate) fn guarded_uncounted<T>(callback: &'static str, code: impl FnOnce() -> T) -> Option<T> {
    caught(code).map_err(|panic| tell(callback, &panic)).ok()
}

/// Counts the panic of a callback, and logs it.
#[cold]
pub(crate) fn count_panic(callback: &'static str, counters: &Counters, panic: &Panic) {
    counters.callback_panics.one();
    tell(callback, panic);
}

#[cold]
fn tell(callback: &'static str, panic: &Panic) {
    crate::log::seldom!(of callback, error, callback, %panic, "a callback of the game panicked");
}
