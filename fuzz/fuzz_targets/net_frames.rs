//! Any bytes as the head of a frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::net_frames(input));
