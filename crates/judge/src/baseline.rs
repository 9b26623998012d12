//! Codec components that come with every judge: zstd at level 3, and this project's own codecs. `cargo xtask components`
//! rebuilds them from `components/`.

use wire::Hash;

/// A component that comes with every judge.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    /// Short name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Every bit comes back.
    pub lossless: bool,
    /// The component.
    pub component: &'static [u8],
}

macro_rules! component {
    ($name:literal, $about:literal, $lossless:literal) => {
        Baseline {
            name: $name,
            about: $about,
            lossless: $lossless,
            component: include_bytes!(concat!("../../../components/wasm/", $name, ".wasm")),
        }
    };
}

/// All of them; the first is the baseline of Matrix Compression.
pub static BASELINES: [Baseline; 5] = [
    component!("zstd-3", "zstd at level 3, bytes as bytes", true),
    component!("fast", "one window of seven exponents, near the speed of memory", true),
    component!("huffman", "exponents in layers of bit planes", true),
    component!("context", "sign, exponent and first mantissa bit in context of row and column", true),
    component!("uniform-99", "one uniform step, similarity at least 0.99", false),
];

/// The baseline of Matrix Compression.
pub fn zstd() -> &'static Baseline {
    &BASELINES[0]
}

/// A component by its name.
pub fn named(name: &str) -> Option<&'static Baseline> {
    BASELINES.iter().find(|baseline| baseline.name == name)
}

/// A component by its hash.
pub fn of_hash(hash: &Hash) -> Option<&'static Baseline> {
    BASELINES.iter().find(|baseline| baseline.hash() == *hash)
}

impl Baseline {
    /// Hash of the component: what a spec names.
    pub fn hash(&self) -> Hash {
        Hash::of(self.component)
    }
}
