//! The checks of the fuzz targets. The parent crate's `tests/vectors/corpus.rs` includes the same files and
//! replays the committed corpus through them, without a fuzzer.

pub mod checks;
