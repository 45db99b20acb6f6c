//! The commands to the shell that wait for NATS to take them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::member_config::MemberConfig;
use super::subjects::Subject;
use crate::metrics::Counters;

/// A command to the shell about NATS; they are done in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Send a message. The answer to a `call` is wanted on
    /// [`Member::reply_subject`](super::Member::reply_subject) of it. If it can't be sent,
    /// [`Member::handle_unsent`](super::Member::handle_unsent) is told of that.
    Publish { subject: Subject, payload: Bytes, call: Option<u64> },
    /// Listen to a user's pushes and kicks.
    Subscribe { uid: Arc<str> },
    /// Listen no more.
    Unsubscribe { uid: Arc<str> },
    /// Listen to none but those users that [`Member::has_user`](super::Member::has_user) knows;
    /// those that are missing follow. What is said of one that is listened to already says nothing
    /// new.
    Review,
}

/// Something that waits for NATS to take it.
pub(super) enum Next {
    /// A client's message, by its token among those that hold a place in a window.
    Sent(u64),
    Command(Command),
}

/// All that waits for NATS, and what is known of the connection to it.
pub(super) struct Commands {
    queue: VecDeque<Next>,
    is_connected: bool,
    /// Set while the shell listens to other users than those who are logged in.
    is_stale: bool,
    len_max: usize,
    counters: Arc<Counters>,
}

impl Commands {
    pub(super) fn new(config: &MemberConfig) -> Self {
        Self {
            queue: VecDeque::new(),
            is_connected: false,
            is_stale: false,
            len_max: config.limits.queue_len_max,
            counters: Arc::clone(&config.counters),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= self.len_max
    }

    /// True if the shell listens to all users, and has nothing else to do.
    pub(super) fn is_settled(&self) -> bool {
        self.is_connected && !self.is_stale && self.queue.is_empty()
    }

    /// There is a connection. What has waited for it is sent, behind what it takes to listen to
    /// all users.
    pub(super) fn handle_connected(&mut self, users: impl Iterator<Item = Arc<str>>) {
        self.is_connected = true;
        if std::mem::take(&mut self.is_stale) {
            let waiting = std::mem::take(&mut self.queue);
            self.review(users);
            self.queue.extend(waiting);
        }
    }

    /// There is no connection any more: who is listened to is looked at anew.
    pub(super) fn handle_lost(&mut self) {
        self.is_connected = false;
        self.is_stale = true;
        let stays =
            |next: &Next| matches!(next, Next::Sent(_) | Next::Command(Command::Publish { .. }));
        self.queue.retain(stays);
    }

    /// All users are to be listened to anew.
    pub(super) fn set_stale(&mut self) {
        self.is_stale = true;
    }

    /// Sends what is no client's message, if there is a connection and room for it.
    pub(super) fn publish(&mut self, subject: Subject, payload: Vec<u8>) {
        if !self.is_connected {
            return;
        }
        if self.is_full() {
            self.counters.forward_rejects.one();
            crate::log::seldom!(warn, "too much waits for NATS; an answer to a server was dropped");
            return;
        }
        let payload = payload.into();
        let command = Command::Publish { subject, payload, call: None };
        self.queue.push_back(Next::Command(command));
    }

    /// Adds what follows from a user's login or logout. Where that is too much, all users are
    /// looked at once there is room.
    pub(super) fn push(&mut self, command: Command) {
        if self.is_connected && !self.is_full() {
            self.queue.push_back(Next::Command(command));
        } else {
            self.is_stale = true;
        }
    }

    /// Sends a client's message, by its token.
    pub(super) fn push_sent(&mut self, token: u64) {
        self.queue.push_back(Next::Sent(token));
    }

    /// The next one. Where nothing waits, `users` are looked at, if that is due.
    pub(super) fn pop(&mut self, users: impl Iterator<Item = Arc<str>>) -> Option<Next> {
        if self.queue.is_empty() && self.is_connected && std::mem::take(&mut self.is_stale) {
            self.review(users);
        }
        self.queue.pop_front()
    }

    /// Has the shell listen to these users, and to nobody else.
    fn review(&mut self, users: impl Iterator<Item = Arc<str>>) {
        self.queue.push_back(Next::Command(Command::Review));
        self.queue.extend(users.map(|uid| Next::Command(Command::Subscribe { uid })));
    }
}
