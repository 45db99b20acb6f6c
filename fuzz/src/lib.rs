//! What the fuzz targets assert. `tests/corpus.rs` of the crate above includes the same files and
//! replays the committed corpus through them, without a fuzzer.

pub mod checks;
