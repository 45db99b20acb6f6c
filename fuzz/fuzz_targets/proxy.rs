#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::proxy;

fuzz_target!(|input: &[u8]| proxy::check(input));
