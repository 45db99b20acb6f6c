//! The buffers that the kernel receives into: one provided-buffer ring for each shard.

#![allow(unsafe_code)] // Memory that the kernel writes to and a ring that it reads.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;

/// The buffers of one group, and the ring by which they are given to the kernel.
///
/// INVARIANT: a buffer belongs to the kernel from [`Self::give_back`] until a completion names it,
/// and to the shard from then on.
pub(super) struct Buffers {
    /// The ring's entries; `count` of them, page-aligned.
    entries: NonNull<BufRingEntry>,
    /// The buffers, one after the other.
    memory: NonNull<u8>,
    buffer_bytes: usize,
    count: u16,
    tail: u16,
}

const PAGE_BYTES: usize = 4096;
/// The group's number; a shard has one.
pub(super) const GROUP: u16 = 0;

impl Buffers {
    /// Makes the buffers and registers them with the ring.
    ///
    /// The caller drops the ring before the buffers.
    pub(super) fn new(ring: &Ring, count: u16, buffer_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let buffer_bytes = buffer_bytes as usize;
        let entries = allocate(Self::entries_layout(count)).cast::<BufRingEntry>();
        let memory = allocate(Self::memory_layout(count, buffer_bytes));
        let mut buffers = Self { entries, memory, buffer_bytes, count, tail: 0 };
        let address = entries.as_ptr() as u64;
        // SAFETY: the entries are zeroed memory of the right size that lives until `self` is
        // dropped, which is after the ring.
        unsafe {
            ring.uring().submitter().register_buf_ring_with_flags(address, count, GROUP, 0)?;
        }
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn entries_layout(count: u16) -> Layout {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE_BYTES).expect("a few hundred KiB")
    }

    fn memory_layout(count: u16, buffer_bytes: usize) -> Layout {
        let bytes = usize::from(count) * buffer_bytes;
        Layout::from_size_align(bytes, PAGE_BYTES).expect("limits bound the product")
    }

    /// How much fits into a buffer.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// What the kernel has put into a buffer.
    pub(super) fn filled(&mut self, buffer: u16, len: usize) -> &mut [u8] {
        assert!(buffer < self.count && len <= self.buffer_bytes);
        // SAFETY: the buffer lies within `memory`, which was zeroed when it was allocated, and a
        // completion has just handed it to the shard, which holds no other reference to it.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(buffer) * self.buffer_bytes);
            std::slice::from_raw_parts_mut(start, len)
        }
    }

    /// Puts a buffer into the ring again; the kernel sees it after [`Self::publish`].
    pub(super) fn give_back(&mut self, buffer: u16) {
        assert!(buffer < self.count);
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` is below `count`, and the kernel does not look at an entry that lies
        // past the published tail. The tail shares memory with the first entry's reserved field,
        // which these setters leave alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            let start = self.memory.as_ptr().add(usize::from(buffer) * self.buffer_bytes);
            entry.set_addr(start as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what has been given back.
    pub(super) fn publish(&self) {
        // SAFETY: the tail is an aligned u16 inside the entries, which the kernel reads at any
        // time; hence the atomic store.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts; the ring, and with it the kernel's use,
        // is gone.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.memory.as_ptr(), Self::memory_layout(self.count, self.buffer_bytes));
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has size zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
