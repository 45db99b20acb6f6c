//! Responders and wakers in every order that two threads may see each other's writes in.
//!
//! A task that is never woken is what loom reports as a deadlock.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc as LoomArc, Mutex, Notify};
use loom::thread;

use super::at_end::AtEnd;
use super::pending::Responder;
use super::reply::Reply;
use super::tasks::{Tasks, WakeThread};

/// The place where the owner of the tasks sleeps.
struct Bed(LoomArc<Notify>);

impl WakeThread for Bed {
    fn wake(&self) {
        self.0.notify();
    }
}

fn executor() -> (Tasks, LoomArc<Notify>) {
    let bed = LoomArc::new(Notify::new());
    (Tasks::new(1, Arc::new(Bed(LoomArc::clone(&bed))), Arc::default()), bed)
}

/// Runs until the one task is done.
fn run(tasks: &mut Tasks, bed: &Notify) {
    while tasks.len() > 0 {
        if !tasks.run_one() {
            bed.wait();
        }
    }
}

fn answered(act: impl Fn(Responder) + Copy + Sync + Send + 'static) {
    loom::model(move || {
        let (mut tasks, bed) = executor();
        let (responder, reply) = Responder::new();
        let got = Rc::new(RefCell::new(None));
        let out = Rc::clone(&got);
        let future = Box::pin(async move { *out.borrow_mut() = Some(reply.await) });
        assert!(tasks.spawn(future, AtEnd::Drop).is_ok());
        let other = thread::spawn(move || act(responder));
        run(&mut tasks, &bed);
        assert!(got.borrow().is_some());
        other.join().unwrap();
    });
}

#[test]
fn an_answer_always_arrives() {
    answered(|responder| responder.answer(Reply::bytes("1")));
}

#[test]
fn a_dropped_responder_always_answers() {
    answered(drop);
}

/// A future that looks at what it waits for without a lock: the wake alone has to order it.
#[test]
fn a_wake_shows_what_was_written_before_it() {
    loom::model(|| {
        let (mut tasks, bed) = executor();
        let done = LoomArc::new(AtomicBool::new(false));
        let waker = LoomArc::new(Mutex::new(None::<Waker>));
        let (seen, kept) = (LoomArc::clone(&done), LoomArc::clone(&waker));
        let future = poll_fn(move |context| {
            let mut kept = kept.lock().unwrap();
            // Kept once: all wakers of a task are the same.
            kept.get_or_insert_with(|| context.waker().clone());
            drop(kept);
            if seen.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        });
        assert!(tasks.spawn(Box::pin(future), AtEnd::Drop).is_ok());
        tasks.run_one();
        let waker = waker.lock().unwrap().clone().expect("polled once");
        let other = thread::spawn(move || {
            waker.wake_by_ref();
            done.store(true, Ordering::Relaxed);
            waker.wake();
        });
        run(&mut tasks, &bed);
        other.join().unwrap();
    });
}

/// However many wake at once, the task runs after the last of them, and ends.
#[test]
fn wakes_at_once_are_none_too_few() {
    let mut builder = loom::model::Builder::new();
    // Three threads: switches where none has to wait are bounded.
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let (mut tasks, bed) = executor();
        let count = LoomArc::new(AtomicUsize::new(0));
        let waker = LoomArc::new(Mutex::new(None::<Waker>));
        let (seen, kept) = (LoomArc::clone(&count), LoomArc::clone(&waker));
        let future = poll_fn(move |context| {
            *kept.lock().unwrap() = Some(context.waker().clone());
            if seen.load(Ordering::Relaxed) == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert!(tasks.spawn(Box::pin(future), AtEnd::Drop).is_ok());
        tasks.run_one();
        let others = [0, 1].map(|_| {
            let (count, waker) = (LoomArc::clone(&count), LoomArc::clone(&waker));
            thread::spawn(move || {
                count.fetch_add(1, Ordering::Relaxed);
                waker.lock().unwrap().clone().expect("polled once").wake();
            })
        });
        run(&mut tasks, &bed);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}
