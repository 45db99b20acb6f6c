//! The requests that a shard has forwarded and not yet answered.

use super::deadline_list::DeadlineList;
use super::message_batch::{Head, KEPT_BYTES_MAX, Messages};
use super::workers::ServerTypeIndex;
use crate::dispatch::context::{ClientCall, HeldRequest};
use crate::dispatch::{Request, Session};
use crate::route::table::{RouteId, RouteTable};
use crate::session::SessionId;
use crate::span::Span;

/// Requests that are forwarded and not yet answered, by token and deadline.
#[derive(Default)]
pub(crate) struct PendingForwards {
    list: DeadlineList<PendingForward>,
    /// Requests in all entries.
    len: usize,
}

/// Requests that were forwarded at once.
pub(crate) enum PendingForward {
    One {
        client: ClientCall,
        server_type: ServerTypeIndex,
        /// For the global after filters, where there are any.
        held: Option<Box<HeldRequest>>,
        /// Its span, if it is sampled.
        span: Option<Box<Span>>,
    },
    Batch(PendingBatch),
}

/// The requests of a batch.
pub(crate) struct PendingBatch {
    pub(crate) session: SessionId,
    pub(crate) server_type: ServerTypeIndex,
    /// The time at which they came, in microseconds of the shard's clock.
    pub(crate) started_us: u64,
    /// The ids of the batch's messages, 0 for notifies.
    pub(crate) ids: Vec<u32>,
    /// Their routes, where those are measured; none else.
    pub(crate) routes: Vec<RouteId>,
    /// The messages that are not answered, a bit each.
    pub(crate) pending: u64,
    /// The bytes that they count for until all are answered.
    pub(crate) bytes: usize,
    /// For the global after filters, where there are any; then notifies are answered too.
    pub(crate) held: Option<Box<HeldMessages>>,
}

/// A message of a batch, as the figures count its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) server_type: ServerTypeIndex,
    /// Its route, where those are measured.
    pub(crate) route: Option<RouteId>,
}

impl PendingBatch {
    /// One of its messages, as its answer is counted.
    pub(crate) fn counted(&self, index: usize) -> Counted {
        Counted { server_type: self.server_type, route: self.routes.get(index).copied() }
    }

    /// One of its messages, as those that are answered by themselves.
    pub(crate) fn part(
        &self,
        index: usize,
        routes: &RouteTable,
    ) -> (ClientCall, Option<Box<HeldRequest>>) {
        let (session, started_us) = (self.session, self.started_us);
        let id = self.ids[index];
        let client = ClientCall { session, id, route: None, bytes: 0, started_us };
        (client, self.held.as_ref().and_then(|held| held.get(index, routes)))
    }
}

/// Messages of a batch, and each one's session, as the global after filters are to see them.
#[derive(Default)]
pub(crate) struct HeldMessages {
    messages: Messages,
    sessions: Vec<Session>,
}

impl HeldMessages {
    #[inline]
    pub(crate) fn push(&mut self, head: Head, body: &[u8], session: Session) {
        self.messages.push(head, body);
        self.sessions.push(session);
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Head, &[u8], &mut Session)> {
        let messages = self.messages.iter().zip(&mut self.sessions);
        messages.map(|((head, body), session)| (head, body, session))
    }

    /// One of them by itself.
    fn get(&self, index: usize, routes: &RouteTable) -> Option<Box<HeldRequest>> {
        let (head, body) = self.messages.iter().nth(index)?;
        let request = Request::new(&routes.entry(head.route).text, head.id, body).to_owned();
        Some(self.sessions.get(index)?.clone().hold(request))
    }

    /// Forgets them; whether the memory is worth keeping.
    pub(crate) fn clear(&mut self) -> bool {
        self.messages.clear();
        self.sessions.clear();
        self.messages.capacity() <= KEPT_BYTES_MAX
    }
}

impl PendingForward {
    /// The server type that it is for.
    pub(crate) fn server_type(&self) -> ServerTypeIndex {
        match self {
            Self::One { server_type, .. } => *server_type,
            Self::Batch(batch) => batch.server_type,
        }
    }

    /// The messages of it that are not answered.
    pub(crate) fn pending(&self) -> u32 {
        match self {
            Self::One { .. } => 1,
            Self::Batch(batch) => batch.pending.count_ones(),
        }
    }

    /// The requests in it.
    fn len(&self) -> usize {
        match self {
            Self::One { .. } => 1,
            Self::Batch(batch) => batch.ids.len(),
        }
    }
}

impl PendingForwards {
    /// Requests, and notifies that went with them, of which at least one waits.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes what is forwarded in; its token is never 0. Deadlines come in order.
    pub(crate) fn add(&mut self, forward: PendingForward, deadline_us: u64) -> u64 {
        self.len += forward.len();
        self.list.add(forward, deadline_us)
    }

    /// The requests of a batch's token, unless they have been answered for.
    pub(crate) fn batch_mut(&mut self, token: u64) -> Option<&mut PendingBatch> {
        match self.list.get_mut(token)? {
            PendingForward::Batch(batch) => Some(batch),
            PendingForward::One { .. } => None,
        }
    }

    /// Takes out what is of a token, unless it has been answered for.
    pub(crate) fn take(&mut self, token: u64) -> Option<PendingForward> {
        let forward = self.list.take(token)?;
        self.len -= forward.len();
        Some(forward)
    }

    /// Takes out the first whose deadline has come.
    pub(crate) fn take_due(&mut self, now_us: u64) -> Option<PendingForward> {
        let forward = self.list.take_due(now_us)?;
        self.len -= forward.len();
        Some(forward)
    }

    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        self.list.next_deadline_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Generation, ShardIndex, Slot};

    #[test]
    fn the_requests_of_a_batch_count_until_it_is_taken() {
        let session = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        let client = ClientCall { session, id: 1, route: None, bytes: 0, started_us: 0 };
        let batch = PendingBatch {
            session,
            server_type: ServerTypeIndex(0),
            started_us: 0,
            ids: vec![1, 2, 3],
            routes: Vec::new(),
            pending: 0b111,
            bytes: 0,
            held: None,
        };
        let mut forwards = PendingForwards::default();
        let server_type = ServerTypeIndex(0);
        let one =
            forwards.add(PendingForward::One { client, server_type, held: None, span: None }, 5);
        let three = forwards.add(PendingForward::Batch(batch), 6);
        assert_eq!(forwards.len(), 4);
        assert!(forwards.batch_mut(one).is_none());
        assert!(forwards.batch_mut(three).is_some());
        assert!(forwards.take(three).is_some());
        assert!(forwards.batch_mut(three).is_none());
        assert_eq!(forwards.len(), 1);
        assert!(forwards.take_due(5).is_some());
        assert_eq!((forwards.len(), forwards.next_deadline_us()), (0, None));
    }
}
