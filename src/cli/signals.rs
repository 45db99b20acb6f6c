//! Ctrl-C and `kill`: the first asks for a drain, the second ends the process at once. `kill -HUP`
//! asks to read the configuration again.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

/// The wishes that signals bring: that the process ends, or does something else.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: Receiver<Asked>,
    /// True if a stop is under way: the next signal ends the process at once.
    is_stopping: Arc<AtomicBool>,
}

/// A wish that a signal brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Stop,
    /// To read the configuration again.
    Reload,
}

/// The difference between a signal and the exit code that shells report for a process it ended.
const EXIT_CODE_OF_SIGNAL: i32 = 128;

impl Stop {
    /// Listens for SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// The system refuses the handlers or the thread.
    pub(crate) fn on_signals() -> io::Result<Self> {
        Self::on(&[SIGINT, SIGTERM])
    }

    /// Listens for SIGHUP too.
    ///
    /// # Errors
    /// As [`Self::on_signals`].
    pub(crate) fn on_signals_and_hangup() -> io::Result<Self> {
        Self::on(&[SIGINT, SIGTERM, SIGHUP])
    }

    fn on(signals: &[i32]) -> io::Result<Self> {
        let mut signals = Signals::new(signals)?;
        let (ask, asked) = mpsc::channel();
        let is_stopping = Arc::<AtomicBool>::default();
        let was_asked = Arc::clone(&is_stopping);
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                let wish = if signal == SIGHUP { Asked::Reload } else { Asked::Stop };
                if wish == Asked::Stop && was_asked.swap(true, Ordering::Relaxed) {
                    low_level::exit(EXIT_CODE_OF_SIGNAL + signal);
                }
                // Nobody listens any more when the process is about to end anyway.
                ask.send(wish).ok();
            }
        })?;
        Ok(Self { asked, is_stopping })
    }

    /// True if a signal has asked for a stop, and it was not called off.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Says if a stop is under way, or was called off.
    pub(crate) fn set_stopping(&self, is_stopping: bool) {
        self.is_stopping.store(is_stopping, Ordering::Relaxed);
    }

    /// Waits until something is asked for, though not longer than `duration`.
    pub(crate) fn wait(&self, duration: Duration) -> Option<Asked> {
        match self.asked.recv_timeout(duration) {
            Ok(asked) => Some(asked),
            Err(RecvTimeoutError::Timeout) => None,
            // No thread, no signals: the process could not be stopped otherwise.
            Err(RecvTimeoutError::Disconnected) => Some(Asked::Stop),
        }
    }
}

/// Asks this process to end, as SIGTERM does; once, as a second signal would not let it end in
/// order.
pub(crate) fn stop() {
    static ASKED: Once = Once::new();
    ASKED.call_once(|| {
        if let Err(error) = low_level::raise(SIGTERM) {
            tracing::error!(%error, "can't stop");
        }
    });
}

/// Asks this process to read its configuration again, as SIGHUP does.
pub(crate) fn reload() {
    if let Err(error) = low_level::raise(SIGHUP) {
        tracing::error!(%error, "can't read the configuration again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_the_wait() {
        let stop = Stop::on_signals_and_hangup().unwrap();
        assert_eq!(stop.wait(Duration::from_millis(1)), None);
        low_level::raise(SIGHUP).unwrap();
        assert_eq!(stop.wait(Duration::from_secs(10)), Some(Asked::Reload));
        low_level::raise(SIGTERM).unwrap();
        assert_eq!(stop.wait(Duration::from_secs(10)), Some(Asked::Stop));
    }
}
