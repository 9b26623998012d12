//! Model sizes by name.

use super::{ModelConfig, RopeScaling};

/// `(name, d_model, blocks, ffn, heads)` of IOTA's published sizes; vocabulary and RoPE are Llama 3.2's.
const IOTA: [(&str, usize, usize, usize, usize); 11] = [
    ("100m", 512, 6, 512, 32),
    ("1b", 2048, 16, 8192, 32),
    ("3b", 3072, 28, 8192, 24),
    ("5b", 4096, 20, 14_336, 32),
    ("7b", 4096, 28, 14_336, 32),
    ("8b", 4096, 32, 14_336, 32),
    ("12b", 5120, 40, 13_824, 40),
    ("15b", 5120, 50, 13_824, 40),
    ("21b", 5120, 64, 16_384, 40),
    ("45b", 7168, 66, 25_088, 56),
    ("100b", 9216, 90, 32_256, 72),
];

type Small = (&'static str, usize, usize, usize, usize, usize, usize, usize);

/// `(name, vocab, d_model, blocks, heads, kv_heads, ffn, sequence)`: sizes for tests and for one machine.
const SMALL: [Small; 3] = [
    ("micro", 300, 64, 4, 4, 2, 160, 64),
    ("tiny", 512, 256, 6, 4, 2, 640, 256),
    ("small", 4096, 512, 12, 8, 4, 1376, 512),
];

pub(super) fn names() -> Vec<&'static str> {
    SMALL.iter().map(|p| p.0).chain(IOTA.iter().map(|p| p.0)).collect()
}

pub(super) fn preset(name: &str) -> Option<ModelConfig> {
    let name = name.to_ascii_lowercase();
    if let Some(&(_, vocab, d_model, blocks, heads, kv_heads, ffn, sequence)) =
        SMALL.iter().find(|p| p.0 == name)
    {
        let (norm_eps, rope_theta, rope_scaling) = (1e-5, 10_000.0, None);
        return Some(ModelConfig {
            vocab,
            d_model,
            blocks,
            heads,
            kv_heads,
            ffn,
            sequence,
            norm_eps,
            rope_theta,
            rope_scaling,
        });
    }
    let &(_, d_model, blocks, ffn, heads) = IOTA.iter().find(|p| p.0 == name)?;
    Some(ModelConfig {
        vocab: 128_256,
        d_model,
        blocks,
        heads,
        kv_heads: 8,
        ffn,
        sequence: 800,
        norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: Some(RopeScaling::LLAMA_3),
    })
}
