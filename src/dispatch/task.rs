//! A spawned future, as the code that has spawned it sees it.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::at_end::AtEnd;
use super::last_call::LastCall;
use super::panics::{Panic, caught};
use crate::log::{EXCERPT_CHARS_MAX, Excerpt};
use crate::metrics::Counters;

/// A future that was spawned on a shard or worker; see [`Context::spawn`](crate::Context::spawn).
///
/// Awaited, it yields the future's output. Dropped, it leaves the future running.
///
/// ```
/// use shaddock::{Context, TaskError};
///
/// async fn play(context: &Context) {
///     let round = context.task("round").spawn(async { 7 });
///     assert_eq!(round.await, Ok(7));
///
///     let endless = context.spawn(std::future::pending::<()>());
///     endless.abort();
///     assert_eq!(endless.await, Err(TaskError::Aborted));
/// }
/// ```
pub struct Task<T> {
    shared: Rc<Shared<T>>,
}

/// The reason why a spawned future has no output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskError {
    /// [`Task::abort`] was called.
    Aborted,
    /// It has panicked, with this text, which is cut where it is long.
    Panicked(String),
    /// It was dropped unfinished: there was no room for it
    /// ([`Limits::tasks_max`](crate::Limits::tasks_max)), or its thread has ended.
    Dropped,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted => f.write_str("the future was aborted"),
            Self::Panicked(text) => write!(f, "the future has panicked: {text}"),
            Self::Dropped => f.write_str("the future was dropped unfinished"),
        }
    }
}

impl std::error::Error for TaskError {}

/// The state that a future and its [`Task`] share.
struct Shared<T> {
    name: Rc<str>,
    progress: RefCell<Progress<T>>,
}

struct Progress<T> {
    outcome: Option<Result<T, TaskError>>,
    is_finished: bool,
    is_aborted: bool,
    /// Whoever awaits the outcome.
    awaiter: Option<Waker>,
    /// Wakes the future itself.
    own: Option<Waker>,
}

impl<T> Shared<T> {
    fn finish(&self, outcome: Result<T, TaskError>) {
        let awaiter = {
            let mut progress = self.progress.borrow_mut();
            progress.outcome = Some(outcome);
            progress.is_finished = true;
            progress.own = None;
            progress.awaiter.take()
        };
        if let Some(awaiter) = awaiter {
            awaiter.wake();
        }
    }

    fn is_aborted(&self) -> bool {
        self.progress.borrow().is_aborted
    }
}

impl<T> Task<T> {
    /// Ends the future: it is dropped before its thread does anything else with it. One that has
    /// finished stays so.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn play(context: &shaddock::Context) {
    /// let clock = context.clone();
    /// let task = context.task("round").spawn(async move {
    ///     clock.sleep(Duration::from_secs(60)).await;
    ///     println!("time is up");
    /// });
    /// task.abort(); // Somebody has won.
    /// # }
    /// ```
    pub fn abort(&self) {
        let own = {
            let mut progress = self.shared.progress.borrow_mut();
            progress.is_aborted = true;
            progress.own.clone()
        };
        // One that was never polled is about to be.
        if let Some(own) = own {
            own.wake();
        }
    }

    /// True if the future has ended, in whatever way.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use shaddock::{Context, Task};
    /// async fn watch(context: Context, round: Task<u32>) {
    ///     context.sleep(Duration::from_secs(60)).await;
    ///     if !round.is_finished() {
    ///         println!("{} takes long", round.name());
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.progress.borrow().is_finished
    }

    /// The name of the future; its type's where it was given none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut progress = self.shared.progress.borrow_mut();
        match progress.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            // Somebody has awaited it before.
            None if progress.is_finished => Poll::Ready(Err(TaskError::Dropped)),
            None => {
                progress.awaiter = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name())
            .field("is_finished", &self.is_finished())
            .finish()
    }
}

/// The parts of a thread that its futures leave notes in.
#[derive(Clone, Default)]
pub(super) struct OfThread {
    pub(super) counters: Arc<Counters>,
    pub(super) last_call: Rc<LastCall>,
}

/// Makes a future that runs another one to its end, and the handle of that.
pub(super) fn task<F: Future>(
    future: F,
    name: Rc<str>,
    at_end: AtEnd,
    thread: OfThread,
) -> (impl Future<Output = ()>, Task<F::Output>) {
    let progress =
        Progress { outcome: None, is_finished: false, is_aborted: false, awaiter: None, own: None };
    let shared = Rc::new(Shared { name, progress: RefCell::new(progress) });
    let end = End { shared: Rc::clone(&shared), at_end, thread };
    (run(future, end), Task { shared })
}

async fn run<F: Future>(future: F, end: End<F::Output>) {
    let outcome = {
        let mut future = pin!(future);
        poll_fn(|context| {
            if end.shared.progress.borrow().own.is_none() {
                end.shared.progress.borrow_mut().own = Some(context.waker().clone());
            }
            if end.shared.is_aborted() {
                return Poll::Ready(Err(TaskError::Aborted));
            }
            let name = &end.shared.name;
            end.thread.last_call.note_future(name);
            match guard_step(&end.thread.counters, name, || future.as_mut().poll(context)) {
                Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
                // It may have aborted itself; then it is awake again.
                Ok(Poll::Pending) => Poll::Pending,
                Err(panic) => Poll::Ready(Err(panic.into())),
            }
        })
        .await
    };
    end.shared.finish(outcome);
}

/// The end of a future, which comes even if it is dropped.
struct End<T> {
    shared: Rc<Shared<T>>,
    at_end: AtEnd,
    thread: OfThread,
}

impl From<Panic> for TaskError {
    fn from(panic: Panic) -> Self {
        Self::Panicked(panic.text().chars().take(EXCERPT_CHARS_MAX).collect())
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        if self.shared.progress.borrow().is_finished {
            return;
        }
        if self.at_end == AtEnd::Wait && !self.shared.is_aborted() {
            let future = Excerpt(&self.shared.name);
            crate::log::seldom!(warn, %future, "a future that is owed was dropped unfinished");
        }
        self.shared.finish(Err(TaskError::Dropped));
    }
}

/// Runs one step of a future, or of something that is repeated, such as the tick of a timer. A
/// panic is counted and told by the name of what has panicked; a timer may go on with its next
/// tick.
pub(crate) fn guard_step<T>(
    counters: &Counters,
    name: &str,
    step: impl FnOnce() -> T,
) -> Result<T, Panic> {
    caught(step).inspect_err(|panic| tell_panic(counters, name, panic))
}

#[cold]
fn tell_panic(counters: &Counters, name: &str, panic: &Panic) {
    counters.task_panics.one();
    let future = Excerpt(name);
    crate::log::seldom!(of name, error, %future, %panic, "a spawned future has panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn spawned<F: Future>(
        future: F,
    ) -> (Pin<Box<impl Future<Output = ()>>>, Task<F::Output>, Arc<Counters>) {
        let thread = OfThread::default();
        let counters = Arc::clone(&thread.counters);
        let (run, handle) = task(future, "it".into(), AtEnd::Wait, thread);
        (Box::pin(run), handle, counters)
    }

    #[test]
    fn an_output_is_awaited_and_a_dropped_handle_cancels_nothing() {
        let (mut run, mut handle, _) = spawned(async { 7 });
        assert_eq!((handle.name(), handle.is_finished()), ("it", false));
        assert!(poll(Pin::new(&mut handle)).is_pending());
        assert!(poll(run.as_mut()).is_ready() && handle.is_finished());
        assert_eq!(poll(Pin::new(&mut handle)), Poll::Ready(Ok(7)));
        let (out, mut run) = {
            let out = Rc::new(RefCell::new(0));
            let seen = Rc::clone(&out);
            let (run, _, _) = spawned(async move { *seen.borrow_mut() = 7 });
            (out, run)
        };
        assert!(poll(run.as_mut()).is_ready());
        assert_eq!(*out.borrow(), 7);
    }

    #[test]
    fn an_aborted_future_is_dropped_before_its_handle_tells() {
        let alive = Rc::new(());
        let held = Rc::clone(&alive);
        let endless = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        let (mut run, mut handle, _) = spawned(endless);
        assert!(poll(run.as_mut()).is_pending());
        handle.abort();
        assert!(poll(run.as_mut()).is_ready());
        assert_eq!(Rc::strong_count(&alive), 1);
        assert_eq!(poll(Pin::new(&mut handle)), Poll::Ready(Err(TaskError::Aborted)));
        drop(run);
        assert!(handle.is_finished());
    }

    #[test]
    fn a_panic_is_counted_and_told_to_whoever_awaits() {
        let (mut run, mut handle, counters) = spawned(async { panic!("on {}", "purpose") });
        assert!(poll(run.as_mut()).is_ready());
        let told: Poll<Result<(), _>> = poll(Pin::new(&mut handle));
        assert_eq!(told, Poll::Ready(Err(TaskError::Panicked("on purpose".into()))));
        assert_eq!(counters.snapshot().task_panics, 1);
        assert!(guard_step(&counters, "tick", || panic!("again")).is_err());
        assert!(guard_step(&counters, "tick", || 7).is_ok_and(|seven| seven == 7));
        assert_eq!(counters.snapshot().task_panics, 2);
    }

    #[test]
    fn a_future_that_is_dropped_says_so() {
        let (run, mut handle, _) = spawned(async {});
        drop(run);
        assert_eq!(poll(Pin::new(&mut handle)), Poll::Ready(Err(TaskError::Dropped)));
    }
}
