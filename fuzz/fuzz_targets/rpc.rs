#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::rpc;

fuzz_target!(|input: &[u8]| rpc::check(input));
