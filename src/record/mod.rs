//! Recordings of single sessions: what a client has sent and got, for whoever looks for a fault.
//!
//! An operator arms one by a session's id, by a uid or by an address. The shard that has the
//! session cuts its bytes into packages ([`Tap`]), takes out what is secret ([`redact`]) and keeps
//! the rest in a ring of its own ([`Recording`]), which the admin server reads. Sessions that are
//! not recorded do not come here.

mod recording;
mod redact;
mod tap;
mod texts;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

pub(crate) use recording::{Direction, News, Record, RecordKind, Recording, Snapshot, State};
pub(crate) use redact::{Redactor, SecretRequests, Secrets};
pub(crate) use tap::{Cut, Tap};

use crate::session::{SessionId, SessionInfo};

/// Recordings of an engine, armed or kept; `docs/limits.md` lists this and what follows.
pub(crate) const RECORDINGS_MAX: usize = 16;
/// The least bytes of a recording's ring.
pub(crate) const RECORDING_BYTES_MIN: usize = 64 * 1024;
/// The most bytes of a recording's ring.
pub(crate) const RECORDING_BYTES_MAX: usize = 1024 * 1024;
/// The longest time that a session is recorded, or waited for.
pub(crate) const RECORDING_SECONDS_MAX: u64 = 3_600;

/// The extent of a recording, in bytes and time.
#[derive(Debug, Clone)]
pub(crate) struct RecordOptions {
    /// Bytes of the ring.
    pub(crate) bytes_max: usize,
    /// True if bodies are kept, without what is secret; else only the heads of messages are.
    pub(crate) has_bodies: bool,
    pub(crate) seconds: u64,
    pub(crate) secrets: Arc<Secrets>,
}

impl RecordOptions {
    /// Bytes of one package's body that are kept where bodies are.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.bytes_max / 16
    }
}

/// The session that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Session(SessionId),
    Uid(String),
    Peer(IpAddr),
}

/// The recordings of an engine. Shards know those that are theirs, and those that wait for a
/// session, by mail; they never come here.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The time of its making, which is the engine's start.
    started: Instant,
    list: Mutex<List>,
    /// The addresses of the listeners.
    addresses: OnceLock<Vec<SocketAddr>>,
}

#[derive(Debug, Default)]
struct List {
    recordings: Vec<Arc<Recording>>,
    last_id: u32,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { started: Instant::now(), list: Mutex::default(), addresses: OnceLock::new() }
    }
}

impl Recorder {
    /// Microseconds since the engine's start.
    pub(crate) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Keeps the addresses of the listeners, which recordings name.
    pub(crate) fn set_addresses(&self, addresses: &[SocketAddr]) {
        self.addresses.get_or_init(|| addresses.to_vec());
    }

    /// The address of a listener.
    pub(crate) fn address(&self, listener: u8) -> Option<SocketAddr> {
        self.addresses.get()?.get(usize::from(listener)).copied()
    }

    /// Adds a recording, of a session or of the next that is wanted. It takes the place of the
    /// oldest that is over; `None` where none is.
    pub(crate) fn arm(
        &self,
        target: Target,
        options: RecordOptions,
        session: Option<SessionInfo>,
        now_us: u64,
    ) -> Option<Arc<Recording>> {
        let mut list = self.lock();
        if list.recordings.len() >= RECORDINGS_MAX {
            let over = list.recordings.iter().position(|it| it.is_over(now_us))?;
            list.recordings.remove(over);
        }
        list.last_id = list.last_id.wrapping_add(1).max(1);
        let recording = Recording::new(list.last_id, target, options, session, now_us);
        let recording = Arc::new(recording);
        list.recordings.push(Arc::clone(&recording));
        Some(recording)
    }

    /// All recordings, the oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Recording>> {
        self.lock().recordings.clone()
    }

    pub(crate) fn find(&self, id: u32) -> Option<Arc<Recording>> {
        self.lock().recordings.iter().find(|it| it.id == id).cloned()
    }

    /// Ends a recording, and forgets it if it is not to be kept.
    pub(crate) fn stop(&self, id: u32, is_kept: bool) -> Option<Arc<Recording>> {
        let mut list = self.lock();
        let at = list.recordings.iter().position(|it| it.id == id)?;
        let recording = Arc::clone(&list.recordings[at]);
        recording.end("stopped");
        if !is_kept {
            list.recordings.remove(at);
        }
        Some(recording)
    }

    /// No code that holds the lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RecordOptions {
        RecordOptions {
            bytes_max: RECORDING_BYTES_MIN,
            has_bodies: false,
            seconds: 10,
            secrets: Arc::new(Secrets::default()),
        }
    }

    #[test]
    fn the_documentation_lists_the_bounds() {
        let text = include_str!("../../docs/limits.md");
        let (min, max) = (RECORDING_BYTES_MIN / 1024, RECORDING_BYTES_MAX / 1024 / 1024);
        for row in [
            format!("| fixed (`RECORDINGS_MAX`) | {RECORDINGS_MAX} |"),
            format!("| fixed (`RECORDING_BYTES_MAX`) | {min} KiB to {max} MiB |"),
            "| fixed (`RECORDING_SECONDS_MAX`) | 1 h |".to_owned(),
        ] {
            assert!(text.contains(&row), "docs/limits.md lacks the row: {row}");
        }
        assert_eq!(RECORDING_SECONDS_MAX, 3_600);
    }

    #[test]
    fn one_that_is_over_makes_room_and_none_else() {
        let recorder = Recorder::default();
        let arm = |now_us| recorder.arm(Target::Uid("amy".into()), options(), None, now_us);
        let first = arm(0).unwrap();
        for _ in 1..RECORDINGS_MAX {
            arm(0).unwrap();
        }
        assert!(arm(0).is_none());
        recorder.stop(first.id, true).unwrap();
        let next = arm(0).unwrap();
        assert!(recorder.find(first.id).is_none() && recorder.find(next.id).is_some());
        assert!(arm(9_999_999).is_none());
        assert!(arm(10_000_000).is_some(), "their time is over");
        assert_eq!(recorder.list().len(), RECORDINGS_MAX);
        for recording in recorder.list() {
            recorder.stop(recording.id, false);
        }
        assert!(recorder.list().is_empty());
    }
}
