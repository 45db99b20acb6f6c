//! Loom's atomics, and queues on them with the interfaces of crossbeam and rtrb.
//!
//! The queues promise no more than crossbeam's documentation: what was written before a push is
//! seen after the pop that takes it. A check for emptiness orders nothing.

mod ring;

use std::collections::VecDeque;

use loom::sync::Mutex;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, fence};
use loom::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use ring::{Consumer, Producer, RingBuffer};

/// A bounded queue after Dmitry Vyukov's, which is crossbeam's as well.
#[derive(Debug)]
pub(crate) struct ArrayQueue<T> {
    slots: Box<[Slot<T>]>,
    head: AtomicUsize,
    tail: AtomicUsize,
}

#[derive(Debug)]
struct Slot<T> {
    /// Twice the round in which the slot may be written; one more once it may be read.
    stamp: AtomicUsize,
    /// Locked only by the thread that the stamp admits, so the lock is never contended.
    value: Mutex<Option<T>>,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let slot = |_| Slot { stamp: AtomicUsize::new(0), value: Mutex::new(None) };
        Self {
            slots: (0..capacity).map(slot).collect(),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        }
    }

    fn slot(&self, position: usize) -> (&Slot<T>, usize) {
        (&self.slots[position % self.slots.len()], 2 * (position / self.slots.len()))
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        loop {
            let tail = self.tail.load(Ordering::Relaxed);
            let (slot, stamp) = self.slot(tail);
            if slot.stamp.load(Ordering::Acquire) == stamp {
                let next = tail + 1;
                let order = (Ordering::AcqRel, Ordering::Relaxed);
                if self.tail.compare_exchange(tail, next, order.0, order.1).is_ok() {
                    *slot.value.lock().expect("nobody panics") = Some(value);
                    slot.stamp.store(stamp + 1, Ordering::Release);
                    return Ok(());
                }
            } else if self.head.load(Ordering::Acquire) + self.slots.len() == tail {
                return Err(value);
            }
            loom::thread::yield_now();
        }
    }

    pub(crate) fn pop(&self) -> Option<T> {
        loop {
            let head = self.head.load(Ordering::Relaxed);
            let (slot, stamp) = self.slot(head);
            if slot.stamp.load(Ordering::Acquire) == stamp + 1 {
                let order = (Ordering::AcqRel, Ordering::Relaxed);
                if self.head.compare_exchange(head, head + 1, order.0, order.1).is_ok() {
                    let value = slot.value.lock().expect("nobody panics").take();
                    slot.stamp.store(stamp + 2, Ordering::Release);
                    return value;
                }
            } else if self.tail.load(Ordering::Acquire) == head {
                return None;
            }
            loom::thread::yield_now();
        }
    }

    pub(crate) fn force_push(&self, mut value: T) -> Option<T> {
        let mut last = None;
        while let Err(back) = self.push(value) {
            last = self.pop();
            value = back;
        }
        last
    }

    pub(crate) fn len(&self) -> usize {
        let tail = self.tail.load(Ordering::Relaxed);
        tail.saturating_sub(self.head.load(Ordering::Relaxed))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An unbounded queue.
#[derive(Debug)]
pub(crate) struct SegQueue<T> {
    values: Mutex<VecDeque<T>>,
    len: AtomicUsize,
}

impl<T> SegQueue<T> {
    pub(crate) fn new() -> Self {
        Self { values: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
    }

    pub(crate) fn push(&self, value: T) {
        let mut values = self.values.lock().expect("nobody panics");
        values.push_back(value);
        self.len.store(values.len(), Ordering::Relaxed);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut values = self.values.lock().expect("nobody panics");
        let value = values.pop_front();
        self.len.store(values.len(), Ordering::Relaxed);
        value
    }

    /// True if it is empty. It reads without the lock, which would order more than crossbeam
    /// promises.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }
}
