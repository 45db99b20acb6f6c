//! What each step of a message costs by itself, and a whole turn of the core without sockets.
//!
//! `cargo bench --features internals --bench micro`, with a part of a name behind it to run only
//! some, e.g. `-- turn`. Criterion's `thrpt` column counts what the group's name says; the time of
//! one element is the time divided by the number of elements, which stands in the bench's name
//! where it is not one.
//!
//! Goals, on one core of about 3 GHz: decode of a 64 B request 25 ns with a text route and 15 ns
//! with a code, a lane hop in a batch 40 ns, a session looked up 5 ns, a 64 B answer appended
//! 15 ns.

mod lanes;
mod protobuf;
mod state;
mod traffic;
mod turn;
mod websocket;
mod wire;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    benches,
    wire::decode,
    wire::encode,
    protobuf::transcode,
    websocket::frames,
    state::routes,
    state::sessions,
    state::outbox,
    state::wheel,
    lanes::hops,
    turn::turns,
);
criterion_main!(benches);
