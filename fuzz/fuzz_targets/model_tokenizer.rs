//! Any bytes as a tokenizer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::model_tokenizer(input));
