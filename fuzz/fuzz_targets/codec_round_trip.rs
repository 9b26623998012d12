//! A tensor from the input through every codec: lossless ones give it back, lossy ones meet their target.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::codec_round_trip(input));
