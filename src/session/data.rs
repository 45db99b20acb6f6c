//! What a session holds besides its connection.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{SessionId, Uid};

/// A session's place in the world, uid and settings: shared by all who read it, copied when it
/// changes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SessionData {
    /// The id that clients and backends see: a counter from 1, in the order of accepting.
    pub number: u64,
    /// Where the client connects from.
    pub peer: SocketAddr,
    /// Who is logged in, if anyone.
    pub uid: Option<Uid>,
    /// The settings, in the order they were set.
    pub settings: Map<String, Value>,
}

/// A session's data as one thread holds it.
#[derive(Debug, Clone)]
pub(crate) enum SessionSnapshot {
    /// On its shard. The outer pointer is that thread's own, so that a message's snapshot costs no
    /// atomic operation; the inner one goes to workers with what is forwarded.
    #[allow(clippy::redundant_allocation)] // The two counts are what it is for.
    Shard(Rc<Arc<SessionData>>),
    /// On a worker, as it came with a message.
    Worker(Arc<SessionData>),
}

impl SessionSnapshot {
    pub(crate) fn shared(&self) -> &Arc<SessionData> {
        match self {
            Self::Shard(data) => data,
            Self::Worker(data) => data,
        }
    }

    /// The data as a worker has got it.
    pub(crate) fn into_shared(self) -> Option<Arc<SessionData>> {
        match self {
            Self::Worker(data) => Some(data),
            Self::Shard(_) => None,
        }
    }

    /// Whether both are one and the same.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Shard(one), Self::Shard(other)) => Rc::ptr_eq(one, other),
            (Self::Worker(one), Self::Worker(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The data to change; copied if anybody else holds it.
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

/// One look at a session, as routers, broadcast filters and close events get it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SessionView<'a> {
    /// The session's id in this process.
    pub id: SessionId,
    /// What it holds.
    pub data: &'a SessionData,
}

impl<'a> SessionView<'a> {
    /// The id that clients and backends see: a counter from 1, in the order of accepting.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.data.number
    }

    /// Where the client connects from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.data.peer
    }

    /// Who is logged in, if anyone.
    #[must_use]
    pub fn uid(&self) -> Option<&'a Uid> {
        self.data.uid.as_ref()
    }

    /// A setting.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&'a Value> {
        self.data.settings.get(key)
    }
}
