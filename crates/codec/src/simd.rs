//! Instruction sets and the choice among them at run time.
//!
//! Every kernel exists for every level and gives the same bytes; the level changes the speed only.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;

use std::fmt;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, on every machine.
    Scalar,
    /// x86-64 with AVX2, BMI and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL, VBMI, VBMI2 and VNNI, BMI and POPCNT.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// `AArch64` with NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// The best level of this machine.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let bmi = is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            if bmi
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("avx512vbmi2")
                && is_x86_feature_detected!("avx512vnni")
            {
                return Self::Avx512;
            }
            if bmi && is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self::Neon;
        }
        Self::Scalar
    }

    /// Every level of this machine, slowest first.
    pub fn available() -> Vec<Self> {
        let best = Self::detect();
        #[cfg(target_arch = "x86_64")]
        if best == Self::Avx512 {
            return vec![Self::Scalar, Self::Avx2, Self::Avx512];
        }
        if best == Self::Scalar { vec![best] } else { vec![Self::Scalar, best] }
    }

    /// Runs `f`, a loop over slices, compiled for this level where it is inlined.
    #[inline]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::run(f),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::run(f),
            _ => f(),
        }
    }

    /// This level if the machine has it, else the scalar one, so that no caller can ask for missing instructions.
    pub(crate) fn checked(self) -> Self {
        if Self::available().contains(&self) { self } else { Self::Scalar }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        })
    }
}

/// One layer of a layered code: a code of `bits` bits, of which the all-ones value is the escape to the next layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Layer {
    /// 1, 2 or 3.
    pub(crate) bits: u8,
    /// With 1 or 2 bits, the symbols of codes 0, 1, 2; with 3, `symbols[0]` is the lowest of seven consecutive ones.
    pub(crate) symbols: [u8; 3],
}

/// Elements that one step of a kernel takes: the width of a bit plane.
pub(crate) const GROUP: usize = 64;

/// What the kernels of one level do. Slices are checked by the caller (`layered::chunk`):
/// `words` holds `2 n` bytes, `n` a multiple of [`GROUP`]; `offsets` and `tails` hold `n`; `planes` holds `n / 8 × bits`;
/// `rest` and `deeper` hold the escapes and at least [`GROUP`] bytes more.
pub(crate) trait Kernels {
    /// Splits words into tail bytes, the code planes of the first layer, and the escaped symbols; returns their number.
    fn split_first(
        words: &[u8],
        rotate: bool,
        offsets: &[u8],
        layer: Layer,
        tails: &mut [u8],
        planes: &mut [u8],
        rest: &mut [u8],
    ) -> usize;
    /// Codes the symbols, a multiple of [`GROUP`], with one layer, copies the escaped ones to `rest` and returns their
    /// number.
    fn split_layer(symbols: &[u8], layer: Layer, planes: &mut [u8], rest: &mut [u8]) -> usize;
    /// Undoes [`Kernels::split_layer`] and returns how many bytes of `deeper` it took.
    fn join_layer(planes: &[u8], layer: Layer, deeper: &[u8], out: &mut [u8]) -> usize;
    /// Undoes [`Kernels::split_first`] and returns how many bytes of `deeper` it took.
    fn join_first(
        tails: &[u8],
        planes: &[u8],
        layer: Layer,
        deeper: &[u8],
        offsets: &[u8],
        rotate: bool,
        words: &mut [u8],
    ) -> usize;
}
