//! A count of this process's allocations.

#![allow(unsafe_code)] // The allocator passes every call on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

struct Counting;

/// A cache line of its own for each thread, which writes nothing that another one reads often: a
/// server that allocates for each message pays no locked instruction for being counted.
#[repr(align(128))]
struct Count(AtomicU64);

const THREADS_MAX: usize = 64;
static COUNTS: [Count; THREADS_MAX] = [const { Count(AtomicU64::new(0)) }; THREADS_MAX];
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The place of a thread's count; it has none before its first allocation.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The number of allocations and reallocations so far.
pub(crate) fn count() -> u64 {
    COUNTS.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
}

fn add() {
    let place = PLACE.get().unwrap_or_else(|| {
        let place = THREADS.fetch_add(1, Ordering::Relaxed) % THREADS_MAX;
        PLACE.set(Some(place));
        place
    });
    let count = &COUNTS[place].0;
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}
