//! Any bytes as a safetensors file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::model_tensors(input));
