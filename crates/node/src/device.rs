//! The device class of this machine: work is compared by equality only within one (design §3 "Compute").

/// What decides the bits of this machine's results, as nodes state it when they join: back end, instruction set and
/// version of the kernels.
pub fn class() -> String {
    format!("cpu-{}-{}-{}", std::env::consts::ARCH, instructions(), env!("CARGO_PKG_VERSION"))
}

fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "avx2";
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if std::arch::is_aarch64_feature_detected!("neon") {
            return "neon";
        }
    }
    "scalar"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_stable_and_short() {
        assert_eq!(class(), class());
        assert!(class().len() <= swarm::limits::NAME_BYTES);
    }
}
