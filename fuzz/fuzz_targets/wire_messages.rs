//! Any bytes as the messages that cross between nodes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::wire_messages(input));
