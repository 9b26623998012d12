//! One target under libFuzzer: `SHOAL_FUZZ_TARGET` names it.
#![no_main]

use std::sync::LazyLock;

use shoal_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("SHOAL_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.0 == name);
    found.unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.0).collect();
        panic!("SHOAL_FUZZ_TARGET is {name:?}: set it to one of {names:?}")
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.1)(input));
