//! The `shaddock` binary.
fn main() {}
