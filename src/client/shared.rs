//! The state of one client, which the program's tasks and the thread of the clients share.

use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use serde_json::Value;

use super::error::{Closed, RequestError};
use super::inbox::Inbox;
use super::message::Push;
use super::protocol::{Event, Protocol};

/// One client's state.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

/// The part of it that stands under the lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) protocol: Protocol,
    pub(super) inbox: Inbox,
    /// The answer's `user`, once the handshake is done.
    user: Option<Value>,
    is_ready: bool,
    closed: Option<Closed>,
    /// True once the thread has let go of the socket.
    is_gone: bool,
    /// True if the thread has been told that there is something to do, and has not begun.
    is_told: bool,
}

impl Shared {
    pub(super) fn new(protocol: Protocol, inbox_bytes_max: usize) -> Self {
        Self(Mutex::new(State {
            protocol,
            inbox: Inbox::new(inbox_bytes_max),
            user: None,
            is_ready: false,
            closed: None,
            is_gone: false,
            is_told: false,
        }))
    }

    /// Calls `with` under the lock, and wakes the tasks that it has found work for behind it.
    pub(super) fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = with(&mut state);
        let woken = state.inbox.take_woken();
        drop(state);
        for waker in woken {
            waker.wake();
        }
        value
    }
}

impl State {
    /// Hands the protocol's events to the program. True once the connection is over.
    pub(super) fn take_events(&mut self) -> bool {
        while let Some(event) = self.protocol.poll_event() {
            match event {
                Event::Ready { user } => {
                    (self.user, self.is_ready) = (user, true);
                    self.inbox.wake_waiting();
                }
                Event::Answer { id, answer } => self.inbox.answer(id, answer),
                Event::Push(push) => self.inbox.push(push),
                Event::Closed(closed) => self.close(closed),
            }
        }
        self.closed.is_some()
    }

    fn close(&mut self, closed: Closed) {
        let closed = self.closed.get_or_insert(closed);
        self.inbox.close(closed);
    }

    /// The thread has let go of the socket.
    pub(super) fn gone(&mut self) {
        // Only a thread that has failed drops one that is not over.
        self.close(Closed::Io(ErrorKind::Other));
        self.is_gone = true;
    }

    /// Ends the connection by the client's will.
    pub(super) fn close_by_client(&mut self) {
        self.protocol.close();
        self.take_events();
    }

    /// True if the thread has to be told that there is something to do.
    pub(super) fn tell(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }

    /// The thread does what there is to do.
    pub(super) fn begin(&mut self) {
        self.is_told = false;
    }

    pub(super) fn request(
        &mut self,
        route: &str,
        body: &[u8],
        deadline: Instant,
    ) -> Result<u32, RequestError> {
        self.open()?;
        let id = self.protocol.request(route, body, deadline)?;
        self.inbox.expect(id);
        Ok(id)
    }

    pub(super) fn notify(&mut self, route: &str, body: &[u8]) -> Result<(), RequestError> {
        self.open()?;
        self.protocol.notify(route, body)
    }

    fn open(&self) -> Result<(), RequestError> {
        self.closed.clone().map_or(Ok(()), |closed| Err(RequestError::Closed(closed)))
    }

    pub(super) fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<(), Closed>> {
        match &self.closed {
            Some(closed) => Poll::Ready(Err(closed.clone())),
            None if self.is_ready => Poll::Ready(Ok(())),
            None => {
                self.inbox.wait(cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_push(&mut self, cx: &Context<'_>) -> Poll<Option<Push>> {
        match self.inbox.take_push() {
            Some(push) => Poll::Ready(Some(push)),
            None if self.closed.is_some() => Poll::Ready(None),
            None => {
                self.inbox.wait(cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<Closed> {
        match &self.closed {
            Some(closed) if self.is_gone => Poll::Ready(closed.clone()),
            _ => {
                self.inbox.wait(cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    pub(super) fn user(&self) -> Option<&Value> {
        self.user.as_ref()
    }
}
