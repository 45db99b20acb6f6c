//! What unit tests leave out in Miri, where a step takes a thousand times as long.

/// How often a test does the same, or nearly so.
pub(crate) const fn repetitions(count: u32) -> u32 {
    if cfg!(miri) { count / 100 } else { count }
}

/// The cases of a test that tries all there are; in Miri the first and each `step`th after it.
pub(crate) fn cases<I: IntoIterator>(step: usize, all: I) -> impl Iterator<Item = I::Item> {
    all.into_iter().step_by(if cfg!(miri) { step } else { 1 })
}
