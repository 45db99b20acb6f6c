//! Work on a thread of its own, for which nobody waits for ever: a file system may not answer.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for a piece of work.
const TIME_MAX: Duration = Duration::from_secs(30);
/// The longest wait for a piece of work while the process is to stop.
const TIME_MAX_OF_STOP: Duration = Duration::from_secs(1);
/// The time between two looks for a stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does some work on another thread, and waits for it. `is_stopping` says if the process is to
/// stop.
///
/// # Errors
/// The system has no thread, the work panics, or it is not done in time: it is left behind then,
/// and nobody learns what comes of it.
pub(crate) fn run<T: Send + 'static>(
    is_stopping: impl Fn() -> bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (tell, done) = mpsc::channel();
    thread::Builder::new().name("files".into()).spawn(move || tell.send(work()))?;
    let start = Instant::now();
    loop {
        match done.recv_timeout(LOOK_EVERY) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("it panicked")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let time_max = if is_stopping() { TIME_MAX_OF_STOP } else { TIME_MAX };
        if start.elapsed() >= time_max {
            let text = format!("a file system has not answered within {time_max:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_does_not_wait_for_work_that_does_not_end() {
        assert_eq!(run(|| true, || 7).unwrap(), 7);
        let (_keep, never) = mpsc::channel::<()>();
        let start = Instant::now();
        let error = run(|| true, move || never.recv()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= TIME_MAX_OF_STOP && start.elapsed() < TIME_MAX);
    }
}
