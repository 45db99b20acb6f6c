//! Messages of the embedder's own to workers, from handlers and from the host.

use std::any::{Any, type_name};
use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::tasks::WakeThread;
use crate::sync::{AtomicBool, AtomicU64, Ordering, SegQueue};

/// The choice of one worker among those of a server type.
///
/// A key leads to the same worker from everywhere in the engine, so a router may use it, too:
///
/// ```
/// use shaddock::{Engine, WorkerPick};
///
/// let builder = Engine::builder().route("room", |session, servers| {
///     WorkerPick::key(session.setting("room")?.as_str()?).among(servers.len())
/// });
/// ```
///
/// Give a key the same type everywhere: the hash of a number is not that of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerPick(Pick);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    Hash(u64),
    Index(usize),
}

impl WorkerPick {
    /// The worker that has the key, by its hash.
    #[must_use]
    pub fn key(key: impl Hash) -> Self {
        Self(Pick::Hash(FxBuildHasher.hash_one(key)))
    }

    /// The worker at that place, from 0: the first is called `type-1`.
    #[must_use]
    pub fn index(index: usize) -> Self {
        Self(Pick::Index(index))
    }

    /// Its place among so many; none if there is no such place.
    ///
    /// ```
    /// use shaddock::WorkerPick;
    ///
    /// assert_eq!(WorkerPick::index(3).among(4), Some(3));
    /// assert_eq!(WorkerPick::index(4).among(4), None);
    /// assert_eq!(WorkerPick::key("lobby").among(4), WorkerPick::key("lobby").among(4));
    /// ```
    #[must_use]
    pub fn among(self, count: usize) -> Option<usize> {
        match self.0 {
            // By the high bits, which are the best of this hash.
            Pick::Hash(hash) => {
                (count > 0).then(|| ((u128::from(hash) * count as u128) >> 64) as usize)
            }
            Pick::Index(index) => (index < count).then_some(index),
        }
    }
}

/// The reason why a message did not go to a worker. It has been dropped then.
///
/// ```
/// use shaddock::{Fault, MailError, Session, WorkerPick};
///
/// fn invite(room: u64, session: &mut Session) -> Result<(), Fault> {
///     match session.context().mail("room", WorkerPick::key(room), session.id()) {
///         Err(MailError::Full) => Err(Fault::new(503, "come back later")),
///         sent => Ok(sent?),
///     }
/// }
/// # let _ = shaddock::Engine::builder().call("connector.room.invite", invite);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailError {
    /// No worker of this engine has that server type (made by the embedder).
    NoWorkers,
    /// The server type has fewer workers (made by the embedder).
    NoSuchWorker,
    /// As many messages wait for the worker as [`Limits::inbox_len`](crate::Limits::inbox_len)
    /// allows. Try again later.
    Full,
    /// The engine, or the worker, has stopped.
    Stopped,
}

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoWorkers => "no worker has that server type; forward it to some",
            Self::NoSuchWorker => "the server type has fewer workers",
            Self::Full => "too many messages wait for the worker",
            Self::Stopped => "the worker has stopped",
        })
    }
}

impl std::error::Error for MailError {}

/// A message on its way.
pub(crate) struct Mailed {
    pub(crate) message: Box<dyn Any + Send>,
    /// That of the message's type, for the log.
    pub(crate) type_name: &'static str,
}

/// The messages that wait for one worker, from any thread.
pub(crate) struct MailQueue {
    /// INVARIANT: `len` is at least its length.
    queue: SegQueue<Mailed>,
    len: AtomicU64,
    len_max: u64,
    /// Refused since the worker has asked last.
    refused: AtomicU64,
    is_closed: AtomicBool,
    bell: Arc<dyn WakeThread>,
}

impl MailQueue {
    pub(crate) fn new(len_max: usize, bell: Arc<dyn WakeThread>) -> Self {
        Self {
            queue: SegQueue::new(),
            len: AtomicU64::new(0),
            len_max: len_max as u64,
            refused: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            bell,
        }
    }

    fn post(&self, mailed: Mailed) -> Result<(), MailError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(MailError::Stopped);
        }
        if self.len.fetch_add(1, Ordering::Relaxed) >= self.len_max {
            self.len.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(MailError::Full);
        }
        self.queue.push(mailed);
        self.bell.wake();
        // A worker that has ended meanwhile takes nothing any more.
        if self.is_closed.load(Ordering::Acquire) {
            self.close();
        }
        Ok(())
    }

    /// The next message.
    pub(crate) fn take(&self) -> Option<Mailed> {
        let mailed = self.queue.pop()?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(mailed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of messages that were refused since this was last asked.
    pub(crate) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Takes no more, and drops what waits: it may hold the engine's own handle.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        while self.take().is_some() {}
    }
}

/// The ways to all workers, by server type.
#[derive(Default)]
pub(crate) struct Post {
    types: Vec<(Arc<str>, Vec<Arc<MailQueue>>)>,
}

impl Post {
    pub(crate) fn new(types: impl IntoIterator<Item = (Arc<str>, Vec<Arc<MailQueue>>)>) -> Self {
        Self { types: types.into_iter().collect() }
    }

    pub(crate) fn send<M: Any + Send>(
        &self,
        server_type: &str,
        to: WorkerPick,
        message: M,
    ) -> Result<(), MailError> {
        let found = self.types.iter().find(|(name, _)| &**name == server_type);
        let (_, queues) = found.ok_or(MailError::NoWorkers)?;
        let index = to.among(queues.len()).ok_or(MailError::NoSuchWorker)?;
        queues[index].post(Mailed { message: Box::new(message), type_name: type_name::<M>() })
    }
}

#[cfg(all(test, not(shaddock_loom)))]
mod tests {
    use super::*;

    struct Nobody;

    impl WakeThread for Nobody {
        fn wake(&self) {}
    }

    #[test]
    fn a_queue_is_bounded_and_closed_behind_its_worker() {
        let queue = Arc::new(MailQueue::new(2, Arc::new(Nobody)));
        let post = Post::new([("room".into(), vec![Arc::clone(&queue)])]);
        let to = WorkerPick::index(0);
        let alive = Arc::new(());
        for expected in [Ok(()), Ok(()), Err(MailError::Full)] {
            assert_eq!(post.send("room", to, Arc::clone(&alive)), expected);
        }
        assert_eq!(queue.take_refused(), 1);
        assert_eq!(queue.take_refused(), 0);
        assert!(queue.take().unwrap().message.is::<Arc<()>>());
        assert_eq!(post.send("room", to, Arc::clone(&alive)), Ok(()));
        queue.close();
        assert_eq!(Arc::strong_count(&alive), 1);
        assert_eq!(post.send("room", to, ()), Err(MailError::Stopped));
        assert_eq!(post.send("room", WorkerPick::index(1), ()), Err(MailError::NoSuchWorker));
        assert_eq!(post.send("chat", to, ()), Err(MailError::NoWorkers));
    }

    #[test]
    fn keys_are_spread_over_all_workers() {
        let mut counts = [0; 4];
        for room in 0..1_000 {
            counts[WorkerPick::key(room).among(4).unwrap()] += 1;
            let text = format!("room-{room}");
            let index = WorkerPick::key(&text).among(4);
            assert_eq!(index, WorkerPick::key(text.as_str()).among(4));
            counts[index.unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (300..700).contains(count)), "{counts:?}");
        assert_eq!(WorkerPick::key(1).among(0), None);
    }
}
