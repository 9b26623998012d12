//! What a model is made of and how it is cut: plain data, checked where it enters.

mod memory;
mod message;
mod plan;
mod presets;

pub use memory::MemoryNeed;
pub use message::{Dtype, Message, MessageError};
pub use plan::{Parameter, ParameterKind, StageSpec, Unit};

use crate::cut::boundary;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Largest vocabulary, in tokens.
pub const VOCAB_MAX: usize = 1 << 20;
/// Largest model width, in numbers per token.
pub const D_MODEL_MAX: usize = 1 << 16;
/// Most blocks in a model.
pub const BLOCKS_MAX: usize = 1024;
/// Longest sequence, in tokens.
pub const SEQUENCE_MAX: usize = 1 << 20;
/// Widest feed-forward layer.
pub const FFN_MAX: usize = 1 << 18;

/// A value that a model, a cut, an optimiser or a schedule can't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number outside its range.
    #[error("{key} = {value} is not possible: {allowed}")]
    Range {
        /// The key as it stands in a spec.
        key: &'static str,
        /// The value found.
        value: String,
        /// What is allowed, in words.
        allowed: String,
    },
}

pub(crate) fn range(
    key: &'static str,
    value: usize,
    allowed: RangeInclusive<usize>,
) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let allowed = format!("must be from {} to {}", allowed.start(), allowed.end());
    Err(ConfigError::Range { key, value: value.to_string(), allowed })
}

pub(crate) fn rule(
    key: &'static str,
    value: &(impl ToString + ?Sized),
    holds: bool,
    allowed: &str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Range { key, value: value.to_string(), allowed: allowed.to_owned() })
}

/// Llama-3's frequency scaling of RoPE: low frequencies are divided by `factor`, high ones kept, those between
/// interpolated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeScaling {
    /// Divisor of the low frequencies.
    pub factor: f32,
    /// Wave lengths above `original_sequence / low_frequency_factor` are divided.
    pub low_frequency_factor: f32,
    /// Wave lengths below `original_sequence / high_frequency_factor` are kept.
    pub high_frequency_factor: f32,
    /// Sequence that the unscaled frequencies were trained for, in tokens.
    pub original_sequence: usize,
}

impl RopeScaling {
    /// Llama 3.2's values: factor 32, low 1, high 4, original 8192.
    pub const LLAMA_3: RopeScaling = RopeScaling {
        factor: 32.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_sequence: 8192,
    };
}

/// A Llama-style decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU, untied output layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Query heads; divide `d_model` into even widths.
    pub heads: usize,
    /// Key and value heads; divide `heads`.
    pub kv_heads: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Tokens per training sequence, and the most that `infer` takes.
    pub sequence: usize,
    /// Epsilon of every RMSNorm.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f32,
    /// Llama-3's frequency scaling, if any.
    #[serde(default)]
    pub rope_scaling: Option<RopeScaling>,
}

fn default_norm_eps() -> f32 {
    1e-5
}

fn default_rope_theta() -> f32 {
    10_000.0
}

impl ModelConfig {
    /// Refuses what no kernel here can run; the error names key, value and allowed range.
    pub fn check(&self) -> Result<(), ConfigError> {
        range("model.vocab", self.vocab, 2..=VOCAB_MAX)?;
        range("model.d_model", self.d_model, 2..=D_MODEL_MAX)?;
        range("model.blocks", self.blocks, 1..=BLOCKS_MAX)?;
        range("model.heads", self.heads, 1..=self.d_model / 2)?;
        range("model.kv_heads", self.kv_heads, 1..=self.heads)?;
        range("model.ffn", self.ffn, 1..=FFN_MAX)?;
        range("model.sequence", self.sequence, 1..=SEQUENCE_MAX)?;
        let even = self.d_model.is_multiple_of(2 * self.heads);
        rule("model.heads", &self.heads, even, "must divide model.d_model into heads of an even width")?;
        let grouped = self.heads.is_multiple_of(self.kv_heads);
        rule("model.kv_heads", &self.kv_heads, grouped, "must divide model.heads")?;
        let eps = self.norm_eps;
        rule("model.norm_eps", &eps, eps > 0.0 && eps <= 0.1, "must be above 0 and at most 0.1")?;
        let theta = self.rope_theta;
        rule("model.rope_theta", &theta, (1.0..=1e9).contains(&theta), "must be from 1 to 1e9")?;
        let Some(scaling) = self.rope_scaling else { return Ok(()) };
        let RopeScaling { factor, low_frequency_factor: low, high_frequency_factor: high, .. } = scaling;
        let key = "model.rope_scaling.factor";
        rule(key, &factor, (1.0..=1024.0).contains(&factor), "must be from 1 to 1024")?;
        let key = "model.rope_scaling.low_frequency_factor";
        rule(key, &low, low > 0.0 && low < high, "must be above 0 and below high_frequency_factor")?;
        let key = "model.rope_scaling.high_frequency_factor";
        rule(key, &high, high <= 1e6, "must be at most 1e6")?;
        range("model.rope_scaling.original_sequence", scaling.original_sequence, 1..=SEQUENCE_MAX)
    }

    /// A preset by name: the table of IOTA's sizes ("100m" … "100b") and small ones ("micro", "tiny", "small").
    pub fn preset(name: &str) -> Option<ModelConfig> {
        presets::preset(name)
    }

    /// All names that [`ModelConfig::preset`] knows, smallest first.
    pub fn preset_names() -> Vec<&'static str> {
        presets::names()
    }

    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.d_model / self.heads
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_width()
    }

    /// Parameters of one block.
    pub fn block_parameters(&self) -> u64 {
        let (d, kv, ffn) = (self.d_model as u64, self.kv_width() as u64, self.ffn as u64);
        2 * d * d + 2 * d * kv + 3 * d * ffn + 2 * d
    }

    /// Parameters of the uncut model: embedding, blocks, last norm, untied output layer.
    pub fn parameters(&self) -> u64 {
        let (d, vocab) = (self.d_model as u64, self.vocab as u64);
        2 * vocab * d + self.blocks as u64 * self.block_parameters() + d
    }
}

/// The table that a receiving stage looks tokens up in, to put back what the wire leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Table {
    /// No table: the wire has to carry everything.
    None,
    /// `vocab × d_model`.
    Full,
    /// `vocab × rank` times `rank × d_model`.
    Factorised {
        /// Inner width.
        rank: usize,
    },
}

/// What crosses from one stage to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Cut {
    /// The residual stream itself, `d_model` wide.
    Plain {
        /// Numbers on the wire: `f32` (bit-equal to the uncut model) or `bf16`.
        wire: Dtype,
    },
    /// The residual stream, and a token table that the receiver adds: a control that shows what the table is worth.
    Tabled {
        /// Numbers on the wire: `f32` or `bf16`.
        wire: Dtype,
        /// What the receiver adds.
        table: Table,
    },
    /// IOTA's bottleneck block: the first `width` coordinates of the residual go on uninterrupted
    /// (<https://arxiv.org/abs/2507.17766>).
    Bottleneck {
        /// Numbers per token.
        width: usize,
        /// Numbers on the wire: `f32` or `bf16`.
        wire: Dtype,
    },
    /// Token-anchored quantised cut: RMS-normalised numbers of few bits, the receiver adds a token table.
    Anchored {
        /// Numbers per token.
        width: usize,
        /// Bits per number in both directions: 1, 2, 3, 4, 8, or 16 (bf16).
        bits: u8,
        /// What the receiver puts back from the tokens.
        table: Table,
    },
    /// Control: nothing is sent, the later stage starts from its own token table.
    Nothing {
        /// The table it starts from.
        table: Table,
    },
}

impl Cut {
    /// The default: `d_model / 16` numbers (at least one) of 4 bits and a full table, 64 times less than bf16.
    pub fn anchored(d_model: usize) -> Cut {
        Cut::Anchored { width: (d_model / 16).max(1), bits: 4, table: Table::Full }
    }

    /// Refuses a cut that does not fit the model.
    pub fn check(&self, model: &ModelConfig) -> Result<(), ConfigError> {
        boundary(*self).check(model)
    }

    /// Whether the receiving stage needs the tokens of the micro-batch.
    pub fn needs_tokens(&self) -> bool {
        boundary(*self).table() != Table::None
    }

    /// Type of the numbers that cross and how many there are per token; none where they cross packed, so that no lossless
    /// codec makes them fewer, or where nothing crosses.
    pub fn numbers(&self, model: &ModelConfig) -> Option<(Dtype, usize)> {
        boundary(*self).numbers(model)
    }

    /// Bytes of one message over `rows` tokens: forward, backward (side data included).
    pub fn message_bytes(&self, model: &ModelConfig, rows: usize) -> (usize, usize) {
        boundary(*self).message_bytes(model, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_number_of_parameters() {
        let count = |name| ModelConfig::preset(name).expect("a known preset").parameters();
        assert_eq!(count("8b"), 8_030_261_248); // Llama 3 8B
        assert_eq!(count("3b"), 3_606_752_256);
        assert_eq!(count("7b"), 7_157_813_248);
        assert_eq!(count("5b"), 5_412_917_248);
    }

    #[test]
    fn every_preset_and_its_default_cut_pass_the_check() {
        for name in ModelConfig::preset_names() {
            let model = ModelConfig::preset(name).expect("listed");
            model.check().expect("a preset is possible");
            Cut::anchored(model.d_model).check(&model).expect("its default cut is possible");
        }
        assert!(ModelConfig::preset("8c").is_none());
    }

    #[test]
    fn a_refusal_names_key_value_and_range() {
        let mut model = ModelConfig::preset("micro").expect("known");
        model.heads = 3;
        let text = model.check().expect_err("64 is no multiple of 6").to_string();
        assert!(text.starts_with("model.heads = 3 is not possible"), "{text}");
        let cut = Cut::Anchored { width: 4, bits: 5, table: Table::Full };
        let text = cut.check(&model).expect_err("5 bits").to_string();
        assert!(text.contains("cut.bits = 5") && text.contains("1, 2, 3, 4, 8 or 16"), "{text}");
        assert!(Cut::Nothing { table: Table::None }.check(&model).is_err());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let good = r#"{"kind":"anchored","width":4,"bits":4,"table":{"factorised":{"rank":8}}}"#;
        let cut: Cut = serde_json::from_str(good).expect("known keys");
        assert_eq!(cut, Cut::Anchored { width: 4, bits: 4, table: Table::Factorised { rank: 8 } });
        let bad = r#"{"kind":"plain","wire":"f32","widht":4}"#;
        assert!(serde_json::from_str::<Cut>(bad).is_err());
    }

    #[test]
    fn the_default_cut_is_64_times_smaller_than_bf16() {
        let model = ModelConfig::preset("tiny").expect("known");
        let (forward, backward) = Cut::anchored(model.d_model).message_bytes(&model, 2048);
        assert_eq!(model.d_model * 2 * 2048, forward * 64);
        assert_eq!(backward, forward + 2 * model.d_model / 16);
    }
}
