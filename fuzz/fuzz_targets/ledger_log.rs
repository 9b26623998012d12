//! Any bytes as the file of a log, and as a block.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shoal_fuzz::ledger_log(input));
