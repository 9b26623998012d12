//! Any bytes as a payload: refused or decoded, and alike on every instruction set.
#![no_main]

use codec::{Level, Limits, Shared, decode_into_at};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { max_decoded_bytes: 1 << 20, verify_checksum: false };
    let mut first = None;
    for level in Level::available() {
        let mut out = Vec::new();
        let got = decode_into_at(level, input, &limits, &Shared::new(), &mut out).map(|_| out);
        if let Ok(bytes) = &got {
            assert!(bytes.len() <= limits.max_decoded_bytes);
        }
        match &first {
            None => first = Some(got),
            Some(f) => assert_eq!(*f, got, "{level} differs"),
        }
    }
});
