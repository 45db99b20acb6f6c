//! The part of a connection's state that belongs to its session.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::forward::mail::ReplyTo;
use crate::route::edition::EditionId;
use crate::session::{SessionData, SessionSnapshot, Uid};

/// The session of one client.
pub(crate) struct SessionRecord {
    /// The client-visible id; 0 until the first byte.
    pub(crate) number: u64,
    /// The workers that have seen a message of this session, by their bits.
    pub(crate) workers: u64,
    /// INVARIANT: there before a handler or worker sees the session.
    pub(crate) data: Option<SessionSnapshot>,
    /// The uid that its home shard was asked to bind.
    pub(crate) binding: Option<Box<Binding>>,
    /// The bytes of messages in flight, and of the notifies that workers have yet to handle.
    pub(crate) in_flight_bytes: u32,
    /// Requests that wait for a worker or an async handler.
    pub(crate) in_flight: u16,
    /// The edition of the dictionary that the answer to its handshake was made from.
    pub(crate) edition: EditionId,
}

/// A uid that its home shard has been asked for, once.
pub(crate) struct Binding {
    pub(crate) uid: Uid,
    /// Those who want to know, in the order they asked; each is kept by its party as well, which
    /// bounds them.
    pub(crate) waiting: SmallVec<[ReplyTo; 1]>,
}

impl Default for SessionRecord {
    fn default() -> Self {
        Self {
            number: 0,
            workers: 0,
            data: None,
            binding: None,
            in_flight_bytes: 0,
            in_flight: 0,
            edition: EditionId::FIRST,
        }
    }
}

impl SessionRecord {
    /// The data of the session; made when it is first asked for.
    #[inline]
    pub(crate) fn data(&mut self, peer: SocketAddr) -> &mut SessionSnapshot {
        let number = self.number;
        self.data.get_or_insert_with(|| new_data(number, peer))
    }
}

#[cold]
fn new_data(number: u64, peer: SocketAddr) -> SessionSnapshot {
    SessionSnapshot::Shard(Rc::new(Arc::new(SessionData::new(number, peer))))
}
