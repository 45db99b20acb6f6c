//! Input from a NATS server.

use shaddock::internals::nats::frames;

/// Bytes of a payload that is taken.
const PAYLOAD_BYTES_MAX: usize = 64;

/// The same frames, and the same fault, come out however the input is cut.
pub fn check(input: &[u8]) {
    let whole = frames([input], PAYLOAD_BYTES_MAX);
    assert!(whole.bytes_left <= input.len());
    for len in [1, 2, 7] {
        assert_eq!(frames(input.chunks(len), PAYLOAD_BYTES_MAX), whole, "in pieces of {len}");
    }
}
