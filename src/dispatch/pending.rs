//! A result that comes in a later turn of the same thread, or from another thread.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::reply::Reply;
use crate::sync::{ArrayQueue, Ordering, fence};

/// The result of something a session or context was asked to do. The doing does not wait for the
/// `Pending` to be polled, and dropping it cancels nothing.
///
/// ```
/// # async fn save_both(session: shaddock::Session) -> bool {
/// // Both are under way at once, and would be without being awaited.
/// let (level, team) = (session.store_setting("level"), session.store_setting("team"));
/// level.await & team.await
/// # }
/// ```
#[derive(Debug)]
pub struct Pending<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

/// The other end of a [`Pending`], which puts the result there.
#[derive(Debug)]
pub(crate) struct Completion<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> (Completion<T>, Self) {
        let slot = Rc::new(RefCell::new(Slot { value: None, waker: None }));
        (Completion { slot: Rc::clone(&slot) }, Self { slot })
    }

    pub(crate) fn ready(value: T) -> Self {
        Self { slot: Rc::new(RefCell::new(Slot { value: Some(value), waker: None })) }
    }
}

impl<T> Completion<T> {
    /// True if the other end is still there.
    pub(super) fn is_awaited(&self) -> bool {
        Rc::strong_count(&self.slot) > 1
    }

    pub(crate) fn complete(self, value: T) {
        let waker = {
            let mut slot = self.slot.borrow_mut();
            slot.value = Some(value);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.slot.borrow_mut();
        if let Some(value) = slot.value.take() {
            return Poll::Ready(value);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Answers one request from any thread, once. Dropped unused, it answers with an error.
///
/// Made by [`Session::defer`](crate::Session::defer).
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
///
/// use shaddock::{Engine, Reply, Responder, testing};
///
/// let (send, jobs) = channel::<(Vec<u8>, Responder)>();
/// std::thread::spawn(move || {
///     for (body, responder) in jobs {
///         responder.answer(Reply::bytes(body));
///     }
/// });
/// let builder = Engine::builder().register(move |handlers| {
///     let send: Sender<_> = send.clone();
///     handlers.handler("connector.jobs.run", move |request, session| {
///         session.defer(|responder| _ = send.send((request.body().to_vec(), responder)))
///     });
/// });
/// let t = testing::Engine::new(builder);
/// assert_eq!(t.connect().request("connector.jobs.run", 7), 7);
/// ```
#[derive(Debug)]
pub struct Responder {
    shared: Arc<Deferred>,
}

#[derive(Debug)]
struct Deferred {
    reply: ArrayQueue<Answer>,
    waker: ArrayQueue<Waker>,
}

/// A [`Reply`] that may change threads.
#[derive(Debug)]
struct Answer {
    body: Option<Vec<u8>>,
    failed: bool,
}

impl Responder {
    /// A responder and the future of what it will say.
    pub(crate) fn new() -> (Self, impl Future<Output = Reply<'static>> + 'static) {
        let shared = Arc::new(Deferred { reply: ArrayQueue::new(1), waker: ArrayQueue::new(1) });
        let answer = DeferredReply { shared: Arc::clone(&shared) };
        (Self { shared }, answer)
    }

    /// Answers. The body of a reply that is itself made by [`Reply::later`] is lost: give the
    /// responder to that future instead.
    pub fn answer(self, reply: Reply<'_>) {
        let failed = reply.failed || matches!(reply.body, super::reply::ReplyBody::Later(_));
        self.put(Answer { body: reply.body().map(<[u8]>::to_vec), failed });
    }

    fn put(&self, answer: Answer) {
        // The first answer counts; the drop that follows it finds the place taken or read.
        if self.shared.reply.push(answer).is_err() {
            return;
        }
        // Between the answer and the look for a waker, as there is one between the waker and the
        // look for an answer: not both can miss.
        fence(Ordering::SeqCst);
        if let Some(waker) = self.shared.waker.pop() {
            waker.wake();
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.put(Answer { body: None, failed: true });
    }
}

struct DeferredReply {
    shared: Arc<Deferred>,
}

impl Future for DeferredReply {
    type Output = Reply<'static>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The waker goes in before the second look, so that an answer in between is seen here or
        // wakes us. A waker that is still there is the same task's.
        if self.shared.reply.is_empty() {
            self.shared.waker.force_push(context.waker().clone());
            fence(Ordering::SeqCst);
        }
        match self.shared.reply.pop() {
            None => Poll::Pending,
            Some(Answer { body: None, failed: true }) => Poll::Ready(Reply::error()),
            Some(Answer { body, failed }) => {
                let reply = body.map_or_else(Reply::empty, Reply::bytes);
                Poll::Ready(Reply { failed, ..reply })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_completion_is_seen_once_it_is_there() {
        let (completion, pending) = Pending::new();
        let mut pending = std::pin::pin!(pending);
        assert_eq!(poll(pending.as_mut()), Poll::Pending);
        completion.complete(7);
        assert_eq!(poll(pending.as_mut()), Poll::Ready(7));
    }

    #[test]
    fn a_responder_answers_once_from_any_thread() {
        let (responder, future) = Responder::new();
        let mut future = std::pin::pin!(future);
        assert!(poll(future.as_mut()).is_pending());
        std::thread::spawn(|| responder.answer(Reply::bytes("1"))).join().unwrap();
        let Poll::Ready(reply) = poll(future.as_mut()) else { panic!("no answer") };
        assert_eq!(reply.body(), Some(&b"1"[..]));
        assert!(!reply.is_error());
    }

    #[test]
    fn a_dropped_responder_answers_with_an_error() {
        let (responder, future) = Responder::new();
        drop(responder);
        let Poll::Ready(reply) = poll(std::pin::pin!(future)) else { panic!("no answer") };
        assert!(reply.is_error());
    }
}
