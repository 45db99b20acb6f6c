#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::lanes;

fuzz_target!(|input: &[u8]| lanes::check(input));
