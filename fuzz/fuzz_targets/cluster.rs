#![no_main]

use libfuzzer_sys::fuzz_target;
use shaddock_fuzz::checks::cluster;

fuzz_target!(|input: &[u8]| cluster::check(input));
