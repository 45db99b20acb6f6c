#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::package;

fuzz_target!(|input: &[u8]| package::check(input));
