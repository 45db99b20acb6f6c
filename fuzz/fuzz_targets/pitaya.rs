#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::pitaya;

fuzz_target!(|input: &[u8]| pitaya::check(input));
