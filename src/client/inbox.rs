//! Answers and pushes that wait for the program to take them, and tasks that wait for them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use rustc_hash::FxHashMap;

use super::error::{Closed, RequestError};
use super::message::{Answer, Push};

/// The most tasks that are remembered as waiting for anything but an answer; beyond it all are
/// woken, and come again.
const WAITING_MAX: usize = 64;

/// Answers and pushes that are not taken yet, bounded in bytes.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes_max: usize,
    /// INVARIANT: what `pushes` and `answers` take, at most `bytes_max`.
    bytes: usize,
    pushes: VecDeque<Push>,
    dropped: u64,
    answers: FxHashMap<u32, Slot>,
    waiting: Vec<Waker>,
    /// Tasks to be woken once the lock is released.
    woken: Vec<Waker>,
}

/// A request that the program has not taken the answer of.
#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>),
    Done(Result<Answer, RequestError>),
}

impl Inbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            pushes: VecDeque::new(),
            dropped: 0,
            answers: FxHashMap::default(),
            waiting: Vec::new(),
            woken: Vec::new(),
        }
    }

    /// Makes room for a request's answer.
    pub(super) fn expect(&mut self, id: u32) {
        self.forget(id);
        self.answers.insert(id, Slot::Waiting(None));
    }

    pub(super) fn answer(&mut self, id: u32, answer: Result<Answer, RequestError>) {
        // Whoever has dropped the request wants no answer.
        if !self.answers.contains_key(&id) {
            return;
        }
        let bytes = answer.as_ref().map_or(0, |answer| answer.body().len());
        let answer = match self.make_room(bytes) {
            true => answer,
            false => Err(RequestError::InboxFull { max: self.bytes_max }),
        };
        self.bytes += answer.as_ref().map_or(0, |answer| answer.body().len());
        if let Some(Slot::Waiting(Some(waker))) = self.answers.insert(id, Slot::Done(answer)) {
            self.woken.push(waker);
        }
    }

    pub(super) fn push(&mut self, push: Push) {
        let bytes = push.bytes();
        if self.make_room(bytes) {
            self.bytes += bytes;
            self.pushes.push_back(push);
        } else {
            self.dropped += 1;
        }
        self.wake_waiting();
    }

    /// Drops old pushes until there is room for so many bytes; true if there is.
    fn make_room(&mut self, bytes: usize) -> bool {
        while self.bytes + bytes > self.bytes_max {
            let Some(push) = self.pushes.pop_front() else { return false };
            self.bytes -= push.bytes();
            self.dropped += 1;
        }
        true
    }

    /// The connection is over: requests that wait have failed.
    pub(super) fn close(&mut self, closed: &Closed) {
        for slot in self.answers.values_mut() {
            let Slot::Waiting(waker) = slot else { continue };
            self.woken.extend(waker.take());
            *slot = Slot::Done(Err(RequestError::Closed(closed.clone())));
        }
        self.wake_waiting();
    }

    pub(super) fn poll_answer(
        &mut self,
        id: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<Answer, RequestError>> {
        match self.answers.get_mut(&id) {
            Some(Slot::Waiting(waker)) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    // Woken instead of dropped: the last of a task's wakers drops the task, which
                    // may hold a client of its own, and this is under the lock.
                    self.woken.extend(waker.replace(cx.waker().clone()));
                }
                Poll::Pending
            }
            Some(Slot::Done(_)) => match self.answers.remove(&id) {
                Some(Slot::Done(answer)) => {
                    self.bytes -= answer.as_ref().map_or(0, |answer| answer.body().len());
                    Poll::Ready(answer)
                }
                _ => unreachable!("it was done a line above"),
            },
            // Another request has had this id, four billion requests later, and its answer taken.
            None => Poll::Ready(Err(RequestError::TimedOut)),
        }
    }

    /// Wants no answer to a request any more.
    pub(super) fn forget(&mut self, id: u32) {
        match self.answers.remove(&id) {
            Some(Slot::Done(Ok(answer))) => self.bytes -= answer.body().len(),
            // Not dropped here, as above.
            Some(Slot::Waiting(waker)) => self.woken.extend(waker),
            Some(Slot::Done(Err(_))) | None => {}
        }
    }

    pub(super) fn take_push(&mut self) -> Option<Push> {
        let push = self.pushes.pop_front()?;
        self.bytes -= push.bytes();
        Some(push)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Remembers a task to be woken by the next push, when the connection is ready, or over.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.wake_waiting();
        }
        self.waiting.push(cx.waker().clone());
    }

    pub(super) fn wake_waiting(&mut self) {
        self.woken.append(&mut self.waiting);
    }

    /// The tasks to wake now.
    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(number: usize) -> Push {
        Push::new(number.to_string(), vec![0; 100])
    }

    fn poll(inbox: &mut Inbox, id: u32) -> Poll<Result<Answer, RequestError>> {
        inbox.poll_answer(id, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_oldest_pushes_make_room_for_what_is_new() {
        let mut inbox = Inbox::new(push(0).bytes() * 3);
        for number in 0..5 {
            inbox.push(push(number));
        }
        assert_eq!(inbox.dropped(), 2);
        inbox.expect(7);
        inbox.answer(7, Ok(Answer::new(vec![1; 50])));
        assert_eq!(inbox.dropped(), 3);
        assert_eq!(inbox.take_push(), Some(push(3)));
        inbox.push(Push::new(String::new(), vec![0; 10_000]));
        assert_eq!((inbox.dropped(), inbox.take_push()), (5, None), "longer than all there is");
        assert!(matches!(poll(&mut inbox, 7), Poll::Ready(Ok(answer)) if answer.body() == [1; 50]));
        assert_eq!(inbox.bytes, 0);
    }

    #[test]
    fn an_answer_without_room_fails_its_request() {
        let mut inbox = Inbox::new(100);
        for id in [1, 2, 3] {
            inbox.expect(id);
        }
        inbox.answer(1, Ok(Answer::new(vec![0; 60])));
        inbox.answer(2, Ok(Answer::new(vec![0; 60])));
        inbox.answer(9, Ok(Answer::new(vec![0; 60])));
        let full = RequestError::InboxFull { max: 100 };
        assert_eq!(poll(&mut inbox, 2), Poll::Ready(Err(full)));
        inbox.forget(1);
        inbox.answer(3, Ok(Answer::new(vec![0; 60])));
        assert!(poll(&mut inbox, 3).is_ready());
        assert_eq!((inbox.bytes, inbox.answers.len()), (0, 0));
    }

    #[test]
    fn the_end_fails_what_waits_and_keeps_what_has_come() {
        let mut inbox = Inbox::new(1 << 20);
        inbox.expect(1);
        inbox.expect(2);
        inbox.push(push(1));
        inbox.answer(1, Ok(Answer::new(Vec::new())));
        assert!(poll(&mut inbox, 2).is_pending());
        inbox.close(&Closed::ByServer);
        assert_eq!(inbox.take_woken().len(), 1);
        assert!(matches!(poll(&mut inbox, 1), Poll::Ready(Ok(_))));
        let closed = RequestError::Closed(Closed::ByServer);
        assert_eq!(poll(&mut inbox, 2), Poll::Ready(Err(closed)));
        assert_eq!(inbox.take_push(), Some(push(1)));
    }

    #[test]
    fn tasks_that_wait_have_a_bound() {
        struct Nothing;
        impl std::task::Wake for Nothing {
            fn wake(self: std::sync::Arc<Self>) {}
        }
        let mut inbox = Inbox::new(0);
        for _ in 0..1000 {
            let waker = Waker::from(std::sync::Arc::new(Nothing));
            inbox.wait(&Context::from_waker(&waker));
            inbox.take_woken();
            assert!(inbox.waiting.len() <= WAITING_MAX);
        }
        inbox.wake_waiting();
        let waker = Waker::from(std::sync::Arc::new(Nothing));
        for _ in 0..2 {
            inbox.wait(&Context::from_waker(&waker));
        }
        assert_eq!(inbox.waiting.len(), 1);
    }
}
