//! What was recorded from the original's libraries, what fuzzers have found, and what another codec
//! says, against the codecs; without an engine.

#[path = "../../fuzz/src/checks/mod.rs"]
pub mod checks;
mod corpus;
mod protobuf;
mod route;
mod websocket_differential;
mod wire;
