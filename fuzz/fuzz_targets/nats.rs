#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::nats;

fuzz_target!(|input: &[u8]| nats::check(input));
