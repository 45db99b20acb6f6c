//! What unit tests leave out in Miri, where a step takes a thousand times as long.

/// How often a test does what it does at random.
pub(crate) const fn repetitions(count: u32) -> u32 {
    if cfg!(miri) { count / 100 } else { count }
}

/// The cases of a test that tries all there are.
pub(crate) fn cases<I: Iterator>(all: I) -> impl Iterator<Item = I::Item> {
    all.step_by(if cfg!(miri) { 97 } else { 1 })
}
