#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::http;

fuzz_target!(|input: &[u8]| http::check(input));
