//! Predictors and bases from any bytes, and payloads that name them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::codec_shared(input));
