//! Tests that look at what belongs to a whole process: its memory, its descriptors and threads, its
//! time on a core. So each runs in a process of its own ([`support::alone::is_alone`]), or has its
//! server in one.

#[path = "../../benches/end_to_end/allocations.rs"]
mod allocations;
mod balance;
mod fragments;
mod idle;
mod leaks;
#[cfg(feature = "tls")]
mod memory;
#[cfg(feature = "pomelo")]
mod pomelo_memory;
mod traces;
mod typed;
