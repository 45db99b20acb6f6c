//! Settings of the system's allocator for large pieces of memory.

#![allow(unsafe_code)] // A call of the C library.

/// Has glibc's allocator give large pieces of memory back to the system once they are free. To be
/// called at the start of a program; elsewhere than with glibc it does nothing.
///
/// Left alone, glibc takes the largest piece that was freed for the size from which on memory is
/// worth a mapping of its own, and keeps smaller ones for later: each thread that has had a package
/// of 16 MiB keeps up to 32 MiB for ever. A mapping of its own also grows without being copied.
///
/// It is the program's allocator, not the engine's, so an engine does not do this by itself.
///
/// ```no_run
/// use shaddock::Engine;
///
/// # fn main() -> Result<(), shaddock::StartError> {
/// shaddock::return_large_memory();
/// let engine = Engine::builder().listen("127.0.0.1:3010").start()?;
/// # drop(engine);
/// # Ok(())
/// # }
/// ```
pub fn return_large_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_THRESHOLD: c_int = -3;
        // SAFETY: it takes two numbers and a lock, and changes how later allocations are made.
        let is_set = unsafe {
            mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) == 1
                && mallopt(M_TRIM_THRESHOLD, KEPT_BYTES) == 1
        };
        if !is_set {
            tracing::warn!(
                "the allocator took no settings: it keeps large pieces of memory that are free"
            );
        }
    }
}

/// From this size on memory gets a mapping of its own, which grows without being copied: the size
/// that glibc begins with, above what ordinary messages take. To copy 512 KiB into fresh memory
/// takes a third of a millisecond, for which other clients wait.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: std::ffi::c_int = 128 * 1024;

/// Bytes that a thread's allocator keeps at the end of its memory, which [`return_free_memory`]
/// does not give back. Crowds leave more than that there.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: std::ffi::c_int = 256 * 1024;

/// Has glibc's allocator give back what is free in the middle of its memory. `true` if anything
/// was. Elsewhere than with glibc it does nothing.
///
/// The memory that a crowd has taken lies between what others hold, and so stays with the process
/// after the crowd has gone, to be used again. To look through it takes milliseconds where it is
/// much, in which threads that allocate have to wait: for a moment in which there is little to do.
///
/// ```no_run
/// # fn at_night(connections: usize) {
/// if connections < 100 && shaddock::return_free_memory() {
///     println!("the memory of the evening's crowd has gone back");
/// }
/// # }
/// ```
pub fn return_free_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> c_int;
        }
        // SAFETY: it takes a number, and only memory that is not allocated is given back.
        unsafe { malloc_trim(0) == 1 }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}
