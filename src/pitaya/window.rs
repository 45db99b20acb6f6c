//! Messages under way at a server, and those that wait for it (docs/protocol/pitaya.md,
//! "NATS subjects").
//!
//! A server of Pitaya's reads its subject through a channel of 75 messages, which all frontends
//! share, and its NATS client drops what that has no room for, without a word. So no more than a
//! window of messages is under way at it: requests until they are answered, notifies until they are
//! acknowledged. What is above waits here in order, within bounds.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::subjects::Subject;
use crate::forward::mail::ForwardRoute;
use crate::route::table::RouteTable;
use crate::session::{Generation, SessionData, SessionId, ShardIndex, Slot};
use crate::span::SpanContext;

/// The key of a server in the table of servers.
pub(super) type ServerKey = (Slot, Generation);

/// The caller that waits for a server's answer, from when the message came until the answer or the
/// deadline.
pub(super) struct Waiter {
    pub(super) shard: ShardIndex,
    /// 0 for a notify, which nobody waits for.
    pub(super) token: u64,
    /// Which server's.
    pub(super) server_key: ServerKey,
    pub(super) subject: Subject,
    pub(super) route: Name,
    pub(super) stage: Stage,
}

/// The stage of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for its server's window.
    Waiting,
    /// It is sent, or about to be.
    Sent,
}

/// A route's text, mostly without memory of its own.
pub(super) type Name = SmallVec<[u8; 24]>;

/// A client's message that has not been sent.
pub(super) struct Message {
    pub(super) session: SessionId,
    /// For the router, should another server have to be picked.
    pub(super) data: Arc<SessionData>,
    /// The session as servers are told of it.
    pub(super) export: Bytes,
    pub(super) route: ForwardRoute,
    /// The client's request id; 0 for a notify.
    pub(super) id: u32,
    /// The body, behind the route's text where the route has no id.
    pub(super) bytes: Bytes,
    /// Its span, if it is sampled.
    pub(super) span: Option<Box<SpanContext>>,
}

/// A message that waits for its server's window.
pub(super) struct Waiting {
    /// The token of its caller among the calls.
    pub(super) call: u64,
    pub(super) message: Message,
}

/// A message that holds a place in its server's window.
pub(super) struct Sent {
    pub(super) server_key: ServerKey,
    pub(super) subject: Subject,
    /// The token of its caller among the calls; 0 for a notify.
    pub(super) call: u64,
    /// Bytes that it counts for.
    pub(super) bytes: usize,
    /// There until NATS's client takes it.
    pub(super) payload: Option<Bytes>,
}

/// Bytes that a message counts for besides its content: its entries in the lists here.
pub(super) const MESSAGE_BYTES: usize = 256;
const _: () = assert!(size_of::<Waiting>() + size_of::<Waiter>() + ENTRY_BYTES <= MESSAGE_BYTES);
const _: () = assert!(size_of::<Sent>() + size_of::<Waiter>() + 2 * ENTRY_BYTES <= MESSAGE_BYTES);
/// Bytes of an entry in a list besides its content.
const ENTRY_BYTES: usize = 32;

impl Message {
    pub(super) fn parts<'a>(&'a self, routes: &'a RouteTable) -> (&'a str, &'a [u8]) {
        self.route.split(routes, &self.bytes)
    }

    /// Bytes that it counts for while it waits.
    pub(super) fn bytes_counted(&self) -> usize {
        MESSAGE_BYTES + self.export.len() + self.bytes.len()
    }

    /// Gives it memory of its own: carved memory would stay as a whole.
    pub(super) fn detach(&mut self) {
        self.bytes = Bytes::copy_from_slice(&self.bytes);
    }
}

/// One server's part.
#[derive(Default)]
pub(super) struct Window {
    /// Messages that were sent to it and are not answered, acknowledged or timed out.
    pub(super) under_way: usize,
    queue: VecDeque<Waiting>,
    queue_bytes: usize,
}

impl Window {
    /// All that it has of the clients' messages.
    pub(super) fn len(&self) -> usize {
        self.under_way + self.queue.len()
    }

    pub(super) fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// True if a message may go at once: none waits before it.
    pub(super) fn is_open(&self, window: usize) -> bool {
        self.under_way < window && self.queue.is_empty()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.queue_bytes += waiting.message.bytes_counted();
        self.queue.push_back(waiting);
    }

    pub(super) fn first(&self) -> Option<&Waiting> {
        self.queue.front()
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.queue_bytes -= waiting.message.bytes_counted();
        if self.queue.is_empty() && self.queue.capacity() > QUEUE_KEPT_LEN {
            self.queue = VecDeque::new();
        }
        Some(waiting)
    }
}

/// An empty queue with room for more gives its memory back.
const QUEUE_KEPT_LEN: usize = 1024;
