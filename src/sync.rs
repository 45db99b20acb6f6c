//! Atomics and lock-free queues, for whatever threads share.
//!
//! Under `--cfg shaddock_loom` unit tests get loom's, which try every order in which threads may
//! see each other's writes; see `docs/reliability.md`.

#[cfg(not(all(test, shaddock_loom)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, fence};

    pub(crate) use crossbeam_queue::{ArrayQueue, SegQueue};
    pub(crate) use rtrb::{Consumer, Producer, RingBuffer};
}

#[cfg(all(test, shaddock_loom))]
mod modelled;
#[cfg(all(test, shaddock_loom))]
use modelled as real;

pub(crate) use real::{
    ArrayQueue, AtomicBool, AtomicU64, Consumer, Producer, RingBuffer, SegQueue, fence,
};
pub(crate) use std::sync::atomic::Ordering;
