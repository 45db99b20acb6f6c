//! The buffers that a ring receives into: one provided-buffer ring for each shard.

#![allow(unsafe_code)] // Memory that the kernel writes to and a ring that it reads.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::completion::BufferIndex;
use super::traits::ReceiveBuffers;

/// The buffers of one group, and the ring by which they are given to the kernel.
///
/// The kernel takes buffers in the order in which it got them. Were all of them always there, each
/// would be touched in turn, and none be in a cache any more when its turn comes again. So the
/// kernel has no more than a few turns need, and gets those first that were used last.
///
/// INVARIANT: a buffer belongs to the kernel from [`publish`](Self::publish) until a completion
/// names it, and to the shard from then on.
pub(crate) struct RingBuffers {
    /// The ring's entries; `count` of them, page-aligned.
    entries: NonNull<BufRingEntry>,
    /// The buffers, one after the other.
    memory: NonNull<u8>,
    buffer_bytes: usize,
    count: u16,
    tail: u16,
    /// Buffers that are neither with the kernel nor in use, the last one used at the end.
    spare: Vec<BufferIndex>,
    /// The number that the kernel shall have.
    offered: u16,
    /// The number that have come back since it got some.
    returned: u16,
    /// It has found none.
    is_dry: bool,
    /// Until it shall have one less.
    publishes: u16,
}

/// The fewest that the kernel shall have, if there are as many: it receives some thirty times
/// between two looks at what there is to do.
const OFFERED_MIN: u16 = 64;
/// Turns in which the kernel needs no more until it shall have one less.
const PUBLISHES_PER_DECREASE: u16 = 64;

const PAGE_BYTES: usize = 4096;

impl RingBuffers {
    /// Makes the buffers, to be registered with a ring under [`Self::entries_address`].
    ///
    /// The caller drops that ring before the buffers.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Self {
        assert!(count.is_power_of_two());
        let buffer_bytes = buffer_bytes as usize;
        Self {
            entries: allocate(Self::entries_layout(count)).cast::<BufRingEntry>(),
            memory: allocate(Self::memory_layout(count, buffer_bytes)),
            buffer_bytes,
            count,
            tail: 0,
            spare: (0..count).rev().map(BufferIndex).collect(),
            offered: OFFERED_MIN.min(count),
            returned: 0,
            is_dry: false,
            publishes: 0,
        }
    }

    /// The address of the ring's entries: zeroed memory of the right size for `count` of them,
    /// which lives as long as this.
    pub(super) fn entries_address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    fn entries_layout(count: u16) -> Layout {
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        Layout::from_size_align(bytes, PAGE_BYTES).expect("a few hundred KiB")
    }

    fn memory_layout(count: u16, buffer_bytes: usize) -> Layout {
        let bytes = usize::from(count) * buffer_bytes;
        Layout::from_size_align(bytes, PAGE_BYTES).expect("limits bound the product")
    }

    fn put(&mut self, buffer: BufferIndex) {
        let entry_index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `entry_index` is below `count`, and the kernel does not look at an entry that
        // lies past the published tail. The tail shares memory with the first entry's reserved
        // field, which these setters leave alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(entry_index);
            let start = self.memory.as_ptr().add(usize::from(buffer.0) * self.buffer_bytes);
            entry.set_addr(start as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer.0);
        }
        self.tail = self.tail.wrapping_add(1);
    }
}

impl ReceiveBuffers for RingBuffers {
    fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    fn filled(&mut self, buffer: BufferIndex, len: usize) -> &mut [u8] {
        assert!(buffer.0 < self.count && len <= self.buffer_bytes);
        // SAFETY: the buffer lies within `memory`, which was zeroed when it was allocated, and a
        // completion has just handed it to the shard, which holds no other reference to it.
        unsafe {
            let start = self.memory.as_ptr().add(usize::from(buffer.0) * self.buffer_bytes);
            std::slice::from_raw_parts_mut(start, len)
        }
    }

    /// The kernel may have it again after [`Self::publish`].
    fn give_back(&mut self, buffer: BufferIndex) {
        assert!(buffer.0 < self.count && self.spare.len() < usize::from(self.count));
        self.spare.push(buffer);
        self.returned += 1;
    }

    fn ran_dry(&mut self) -> bool {
        self.is_dry = true;
        self.offered == self.count
    }

    /// Lets the kernel have as many as it shall have.
    fn publish(&mut self) {
        if std::mem::take(&mut self.is_dry) {
            self.offered = self.count;
        } else if self.returned > self.offered / 2 {
            self.offered = self.returned.saturating_mul(2).min(self.count);
        } else {
            self.publishes = (self.publishes + 1) % PUBLISHES_PER_DECREASE;
            if self.publishes == 0 && self.offered > OFFERED_MIN {
                self.offered -= 1;
            }
        }
        self.returned = 0;
        while self.count - (self.spare.len() as u16) < self.offered
            && let Some(buffer) = self.spare.pop()
        {
            self.put(buffer);
        }
        // SAFETY: the tail is an aligned u16 inside the entries, which the kernel reads at any
        // time; hence the atomic store.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for RingBuffers {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_has_what_a_few_turns_need() {
        let mut buffers = RingBuffers::new(256, 4096);
        buffers.publish();
        let offered = |buffers: &RingBuffers| 256 - buffers.spare.len();
        let ends_with =
            |buffers: &RingBuffers, last: [u16; 3]| buffers.spare.ends_with(&last.map(BufferIndex));
        assert_eq!(offered(&buffers), 64);

        // What was used last is used next.
        [5, 9].into_iter().for_each(|buffer| buffers.give_back(BufferIndex(buffer)));
        assert!(ends_with(&buffers, [64, 5, 9]));
        buffers.publish();
        assert!(ends_with(&buffers, [66, 65, 64]));

        // A turn that took many is believed, and forgotten after a while.
        (0..50).for_each(|buffer| buffers.give_back(BufferIndex(buffer)));
        buffers.publish();
        assert_eq!(offered(&buffers), 100);
        for turn in 0..(100 - 64) * PUBLISHES_PER_DECREASE {
            buffers.give_back(BufferIndex(turn % 64));
            buffers.publish();
        }
        assert_eq!(offered(&buffers), 64);

        // All there are, where that was not enough.
        assert!(!buffers.ran_dry());
        buffers.publish();
        assert_eq!(offered(&buffers), 256);
        assert!(buffers.ran_dry());
    }
}
