//! The checks of the fuzz targets. `tests/vectors/main.rs` of the parent crate includes the same
//! files, and `corpus.rs` beside it replays the committed corpus through them, without a fuzzer.

pub mod checks;
