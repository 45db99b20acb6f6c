#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::message;

fuzz_target!(|input: &[u8]| message::check(input));
