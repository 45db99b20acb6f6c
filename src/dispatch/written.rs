//! Memory for replies that handlers have written, which goes back to its thread behind them.

use std::cell::Cell;
use std::ops::Deref;

thread_local! {
    /// One is enough: a reply is sent before the next one is written, unless it comes later.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Memory that is kept for the next reply; more than that is given back.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// A text in memory that the next one gets.
#[derive(Debug)]
pub(crate) struct Written(Vec<u8>);

impl Written {
    /// The text that `write` appends to an empty one.
    pub(super) fn by<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Self, E> {
        // A thread that ends has no spare memory any more.
        let mut written = Self(SPARE.try_with(Cell::take).unwrap_or_default());
        written.0.clear();
        write(&mut written.0)?;
        Ok(written)
    }
}

impl Deref for Written {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Written {
    #[inline(never)] // Other replies end in the same place, in the loop of messages.
    fn drop(&mut self) {
        if self.0.capacity() <= SPARE_BYTES_MAX {
            let memory = std::mem::take(&mut self.0);
            SPARE.try_with(|spare| spare.set(memory)).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> Written {
        Written::by(|out| {
            assert!(out.is_empty());
            out.extend_from_slice(text);
            Ok::<_, ()>(())
        })
        .unwrap()
    }

    #[test]
    fn memory_goes_to_the_next_and_is_bounded() {
        let first = written(b"hello");
        let at = first.as_ptr();
        let second = written(b"others have memory of their own");
        assert_eq!((&*first, &*second), (&b"hello"[..], &b"others have memory of their own"[..]));
        drop(first);
        let third = written(b"you");
        assert_eq!((&*third, third.as_ptr()), (&b"you"[..], at));
        drop(second);
        drop(third);
        drop(written(&vec![0; SPARE_BYTES_MAX + 1]));
        SPARE.with(|spare| assert!(spare.take().capacity() <= SPARE_BYTES_MAX));
    }
}
