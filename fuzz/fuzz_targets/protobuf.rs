#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::protobuf;

fuzz_target!(|input: &[u8]| protobuf::check(input));
