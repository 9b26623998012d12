//! Any bytes as a payload: refused or decoded, and alike on every instruction set.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::codec_decode(input));
