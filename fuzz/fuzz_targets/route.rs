#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::route;

fuzz_target!(|input: &[u8]| route::check(input));
