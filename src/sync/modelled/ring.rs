//! A single-producer, single-consumer ring like rtrb's. Each side keeps its own position and the
//! other's as last seen, and publishes its own by one store.

use std::cell::Cell;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};

/// The ring's storage and its two positions.
pub(crate) struct RingBuffer<T> {
    /// Locked only by the side that the positions admit, so the lock is never contended.
    slots: Box<[Mutex<Option<T>>]>,
    head: AtomicUsize,
    tail: AtomicUsize,
}

pub(crate) struct Producer<T> {
    ring: Arc<RingBuffer<T>>,
    head_seen: Cell<usize>,
    tail: usize,
}

pub(crate) struct Consumer<T> {
    ring: Arc<RingBuffer<T>>,
    head: usize,
    tail_seen: Cell<usize>,
}

/// Free slots for several values, which are published together.
pub(crate) struct WriteChunkUninit<'a, T> {
    producer: &'a mut Producer<T>,
    len: usize,
}

impl<T> RingBuffer<T> {
    #[allow(clippy::new_ret_no_self)] // As in rtrb.
    pub(crate) fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let ring = Arc::new(Self {
            slots: (0..capacity).map(|_| Mutex::new(None)).collect(),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        });
        let producer = Producer { ring: Arc::clone(&ring), head_seen: Cell::new(0), tail: 0 };
        (producer, Consumer { ring, head: 0, tail_seen: Cell::new(0) })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn slot(&self, position: usize) -> &Mutex<Option<T>> {
        &self.slots[position % self.slots.len()]
    }
}

impl<T> Producer<T> {
    pub(crate) fn buffer(&self) -> &RingBuffer<T> {
        &self.ring
    }

    pub(crate) fn cached_slots(&self) -> usize {
        self.ring.capacity() - (self.tail - self.head_seen.get())
    }

    pub(crate) fn slots(&self) -> usize {
        self.head_seen.set(self.ring.head.load(Ordering::Acquire));
        self.cached_slots()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.cached_slots() == 0 && self.slots() == 0
    }

    pub(crate) fn write_chunk_uninit(
        &mut self,
        len: usize,
    ) -> Result<WriteChunkUninit<'_, T>, usize> {
        if self.cached_slots() < len && self.slots() < len {
            return Err(self.cached_slots());
        }
        Ok(WriteChunkUninit { producer: self, len })
    }
}

impl<T> WriteChunkUninit<'_, T> {
    pub(crate) fn fill_from_iter(self, values: impl IntoIterator<Item = T>) -> usize {
        let Producer { ring, tail, .. } = self.producer;
        let before = *tail;
        for value in values.into_iter().take(self.len) {
            *ring.slot(*tail).lock().expect("nobody panics") = Some(value);
            *tail += 1;
        }
        ring.tail.store(*tail, Ordering::Release);
        *tail - before
    }
}

impl<T> Consumer<T> {
    pub(crate) fn buffer(&self) -> &RingBuffer<T> {
        &self.ring
    }

    pub(crate) fn slots(&self) -> usize {
        self.tail_seen.set(self.ring.tail.load(Ordering::Acquire));
        self.tail_seen.get() - self.head
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail_seen.get() == self.head && self.slots() == 0
    }

    pub(crate) fn pop(&mut self) -> Result<T, ()> {
        if self.is_empty() {
            return Err(());
        }
        let value = self.ring.slot(self.head).lock().expect("nobody panics").take();
        self.head += 1;
        self.ring.head.store(self.head, Ordering::Release);
        value.ok_or(())
    }
}
