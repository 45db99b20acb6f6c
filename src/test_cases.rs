//! Shorter unit tests under Miri, where a step takes a thousand times as long.

/// The number of repetitions of a test, a hundredth of `count` under Miri.
pub(crate) const fn repetitions(count: u32) -> u32 {
    if cfg!(miri) { count / 100 } else { count }
}

/// The cases of an exhaustive test; under Miri the first and each `step`th after it.
pub(crate) fn cases<I: IntoIterator>(step: usize, all: I) -> impl Iterator<Item = I::Item> {
    all.into_iter().step_by(if cfg!(miri) { step } else { 1 })
}
