#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::websocket;

fuzz_target!(|input: &[u8]| websocket::check(input));
