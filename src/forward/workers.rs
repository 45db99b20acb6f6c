//! The servers behind a server type, as the embedder describes them.

use std::sync::Arc;

use crate::dispatch::{Context, Handlers, Register, Routes};
use crate::session::{SessionView, ShardIndex};

/// A server's name, such as `chat-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(Arc<str>);

impl ServerId {
    /// The name.
    ///
    /// ```
    /// use shaddock::ServerId;
    ///
    /// fn place_of(name: &str, servers: &[ServerId]) -> Option<usize> {
    ///     servers.iter().position(|server| server.as_str() == name)
    /// }
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl From<&str> for ServerId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// Threads of this process that handle one server type: its backend servers.
///
/// ```
/// use std::cell::Cell;
/// use shaddock::{Handlers, Reply, Workers};
///
/// // Each worker counts for itself; its handlers share the count without a lock.
/// let workers = Workers::new(2, |handlers: &mut Handlers| {
///     let count = Cell::new(0);
///     handlers.handler("chat.chatHandler.count", move |_, _| {
///         count.set(count.get() + 1);
///         Reply::json(&count.get())
///     });
/// });
/// ```
#[derive(Clone)]
pub struct Workers {
    pub(crate) count: u16,
    pub(crate) register: Register,
}

impl Workers {
    /// `count` workers, at least 1, each set up on its own thread by `register`. They are called
    /// `type-1`, `type-2` and so on.
    pub fn new(count: u16, register: impl Fn(&mut Handlers) + Send + Sync + 'static) -> Self {
        Self { count, register: Arc::new(register) }
    }

    /// `count` workers, at least 1, each with a state of its own, which `make` makes on the
    /// worker's thread and which never leaves it: so its handlers, ticks and receivers of mail get
    /// it as `&mut S`, without a lock.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::time::Duration;
    ///
    /// use shaddock::{Context, Engine, Fault, Missed, Routes, Session, Uid, WorkerPick, Workers};
    ///
    /// struct Rooms {
    ///     context: Context,
    ///     rooms: HashMap<u32, Vec<Uid>>,
    /// }
    ///
    /// /// From whoever makes matches.
    /// struct Open(u32);
    ///
    /// impl Rooms {
    ///     fn new(context: &Context) -> Self {
    ///         Self { context: context.clone(), rooms: HashMap::new() }
    ///     }
    ///
    ///     fn open(&mut self, Open(room): Open) {
    ///         self.rooms.entry(room).or_default();
    ///     }
    ///
    ///     fn enter(&mut self, room: u32, session: &mut Session) -> Result<usize, Fault> {
    ///         let uid = session.uid().cloned().ok_or(Fault::new(401, "log in first"))?;
    ///         let room = self.rooms.get_mut(&room).ok_or(Fault::new(404, "no room"))?;
    ///         room.push(uid);
    ///         Ok(room.len())
    ///     }
    ///
    ///     fn tick(&mut self) {
    ///         for (number, members) in &self.rooms {
    ///             let state = number.to_string();
    ///             self.context.push(members.iter().cloned(), "onState", state.as_bytes()).ok();
    ///         }
    ///     }
    /// }
    ///
    /// let workers = Workers::stateful(2, Rooms::new, |routes: &mut Routes<Rooms>| {
    ///     routes
    ///         .call("roomHandler.enter", Rooms::enter) // The route `room.roomHandler.enter`.
    ///         .every(Duration::from_millis(50), Missed::Skip, Rooms::tick)
    ///         .mail(Rooms::open);
    /// });
    /// let builder = Engine::builder().forward("room", workers).routes(["room.roomHandler.enter"]);
    /// ```
    pub fn stateful<S: 'static>(
        count: u16,
        make: impl Fn(&Context) -> S + Send + Sync + 'static,
        routes: impl Fn(&mut Routes<S>) + Send + Sync + 'static,
    ) -> Self {
        Self::new(count, move |handlers| {
            handlers.stateful(&make, &routes);
        })
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("count", &self.count).finish_non_exhaustive()
    }
}

/// A rule that picks a server: its index in the list.
pub(crate) type Route = Arc<dyn Fn(&SessionView<'_>, &[ServerId]) -> Option<usize> + Send + Sync>;

/// The fate of a message that finds the lane to its server full, which holds
/// [`lane_len`](crate::Limits::lane_len) messages: the policy of its server type
/// ([`Builder::lane_full`](crate::Builder::lane_full)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LaneFull {
    /// A request is answered 500 at once, a notify is dropped (`forward_rejects`).
    #[default]
    Reject,
    /// The message waits for room, and its session is not read on meanwhile, so that it is the
    /// client who has to wait (`lane_pauses`). What has waited for
    /// [`forward_timeout`](crate::Limits::forward_timeout) is refused as by [`Self::Reject`], and
    /// so is what comes behind it until the lane has room again.
    Pause,
}

/// The index of a worker among all of the engine, behind which come its network forwarders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WorkerIndex(pub(crate) u16);

impl WorkerIndex {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its bit in a set of workers, which 64 of them share.
    #[inline]
    pub(crate) fn bit(self) -> u64 {
        1 << (self.0 % 64)
    }
}

/// The index of a server type among those of the configuration that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerTypeIndex(pub(crate) u16);

impl ServerTypeIndex {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A server type that is forwarded.
#[derive(Clone)]
pub(crate) struct ServerType {
    pub(crate) name: Arc<str>,
    pub(crate) carrier: Carrier,
    pub(crate) lane_full: LaneFull,
}

/// The destination of a server type's messages.
#[derive(Clone)]
pub(crate) enum Carrier {
    /// To workers of this process.
    Workers {
        servers: Arc<[ServerId]>,
        /// The worker that is the first of the servers; the others follow it.
        first_worker: WorkerIndex,
        /// Pomelo's default rule if there is none.
        route: Option<Route>,
    },
    /// To a network forwarder. It picks the server itself, as its list changes while the engine
    /// runs.
    Remote(NetworkThreads),
}

/// The threads of one network forwarder. Each serves some of the shards, and stands for all servers
/// to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetworkThreads {
    /// The others follow it.
    pub(crate) first: WorkerIndex,
    /// At least 1.
    pub(crate) count: u16,
}

impl NetworkThreads {
    /// The thread that serves a shard.
    pub(crate) fn of(self, shard: ShardIndex) -> WorkerIndex {
        WorkerIndex(self.first.0 + Self::place(shard, self.count))
    }

    /// The place of that thread among so many.
    pub(crate) fn place(shard: ShardIndex, count: u16) -> u16 {
        shard.0 % count
    }
}
