#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::client;

fuzz_target!(|input: &[u8]| client::check(input));
