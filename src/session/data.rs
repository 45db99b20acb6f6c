//! A session's data apart from its connection: ids, peer, uid and settings.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{SessionId, Uid};

/// A session's number, peer, uid and settings. Readers share it; a change copies it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SessionData {
    /// The id that clients and backends see. It grows in the order of accepting, with gaps where
    /// there are several shards (docs/protocol/wire.md, "Port switcher").
    pub number: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The uid, if one is bound.
    pub uid: Option<Uid>,
    /// The settings, in the order they were set.
    pub settings: Map<String, Value>,
}

/// A session's data as one thread holds it.
#[derive(Debug, Clone)]
pub(crate) enum SessionSnapshot {
    /// A shard's. The outer pointer stays on that thread, so a snapshot for a message costs no
    /// atomic operation; the inner one goes to workers with forwarded messages.
    #[allow(clippy::redundant_allocation)] // The two counts are intended.
    Shard(Rc<Arc<SessionData>>),
    /// A worker's, as it came with a message.
    Worker(Arc<SessionData>),
}

impl SessionSnapshot {
    pub(crate) fn shared(&self) -> &Arc<SessionData> {
        match self {
            Self::Shard(data) => data,
            Self::Worker(data) => data,
        }
    }

    /// The data of a worker's snapshot.
    pub(crate) fn into_shared(self) -> Option<Arc<SessionData>> {
        match self {
            Self::Worker(data) => Some(data),
            Self::Shard(_) => None,
        }
    }

    /// True if both point to the same data.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Shard(one), Self::Shard(other)) => Rc::ptr_eq(one, other),
            (Self::Worker(one), Self::Worker(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The data for a change; copied if there are other holders.
    pub(crate) fn make_mut(&mut self) -> &mut SessionData {
        match self {
            Self::Shard(data) => Arc::make_mut(Rc::make_mut(data)),
            Self::Worker(data) => Arc::make_mut(data),
        }
    }
}

impl std::ops::Deref for SessionSnapshot {
    type Target = SessionData;

    fn deref(&self) -> &SessionData {
        self.shared()
    }
}

impl SessionData {
    pub(crate) fn new(number: u64, peer: SocketAddr) -> Self {
        Self { number, peer, uid: None, settings: Map::new() }
    }
}

/// A read-only view of a session, for routers, broadcast filters and close events.
///
/// ```
/// use shaddock::{Audience, SessionView};
///
/// fn is_strong(session: &SessionView<'_>) -> bool {
///     session.uid().is_some() && session.setting("level").is_some_and(|it| it.as_u64() > Some(9))
/// }
///
/// let audience = Audience::all().filter(is_strong);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SessionView<'a> {
    /// The session's id in this process.
    pub id: SessionId,
    /// Its data.
    pub data: &'a SessionData,
}

impl<'a> SessionView<'a> {
    /// The id that clients and backends see. It grows in the order of accepting, with gaps where
    /// there are several shards (docs/protocol/wire.md, "Port switcher").
    #[must_use]
    pub fn number(&self) -> u64 {
        self.data.number
    }

    /// The client's address.
    ///
    /// ```
    /// # fn register(handlers: &mut shaddock::Handlers) {
    /// handlers.on_session_opened(|session, _context| {
    ///     println!("{} comes from {}", session.number(), session.peer());
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.data.peer
    }

    /// The uid, if one is bound.
    #[must_use]
    pub fn uid(&self) -> Option<&'a Uid> {
        self.data.uid.as_ref()
    }

    /// The value of one setting.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&'a Value> {
        self.data.settings.get(key)
    }
}
