#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::handshake;

fuzz_target!(|input: &[u8]| handshake::check(input));
