//! Ctrl-C and `kill`: the first asks for a clean stop, the second stops at once.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

/// Whether somebody wants the process to end.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: Receiver<()>,
}

/// What a shell reports for a process that a signal ended is this much above the signal.
const EXIT_CODE_OF_SIGNAL: i32 = 128;

impl Stop {
    /// Listens for SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// The system refuses the handlers or the thread.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let (ask, asked) = mpsc::channel();
        thread::Builder::new().name("signals".into()).spawn(move || {
            for (earlier, signal) in signals.forever().enumerate() {
                if earlier > 0 {
                    low_level::exit(EXIT_CODE_OF_SIGNAL + signal);
                }
                // Nobody listens any more when the process is about to end anyway.
                ask.send(()).ok();
            }
        })?;
        Ok(Self { asked })
    }

    /// Waits until the stop is asked for, though not longer than `duration`; whether it is.
    pub(crate) fn wait(&self, duration: Duration) -> bool {
        self.asked.recv_timeout(duration) != Err(RecvTimeoutError::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_the_wait() {
        let stop = Stop::on_signals().unwrap();
        assert!(!stop.wait(Duration::from_millis(1)));
        low_level::raise(SIGTERM).unwrap();
        assert!(stop.wait(Duration::from_secs(10)));
    }
}
