#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::session;

fuzz_target!(|input: &[u8]| session::check(input));
