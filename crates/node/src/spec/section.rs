//! The sections of a run spec and their defaults.

use model::config::{ModelConfig, RopeScaling};
use model::data::ShardEntry;
use model::hash::BlobHash;
use model::optim::{AdamW, Muon, OptimiserConfig, Schedule};
use model::tokenizer::Tokenizer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use swarm::spec::{Outer, Ramp, Unwitnessed};

use super::SpecError;

/// Longest spec, bytes.
pub(super) const SPEC_BYTES_MAX: usize = 64 << 20;
/// Stages when neither `stages` nor `cuts` is given.
pub(super) const STAGES_DEFAULT: usize = 3;
/// The preset when `[model]` is left out.
pub const PRESET_DEFAULT: &str = "tiny";

pub(super) fn version() -> u32 {
    super::SPEC_VERSION
}

pub(super) fn name() -> String {
    "run".to_owned()
}

pub(super) fn seed() -> u64 {
    1
}

/// `[model]` as written: a preset, sizes, or a preset with some sizes replaced.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ModelDraft {
    preset: Option<String>,
    vocab: Option<usize>,
    d_model: Option<usize>,
    blocks: Option<usize>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
    ffn: Option<usize>,
    sequence: Option<usize>,
    norm_eps: Option<f32>,
    rope_theta: Option<f32>,
    rope_scaling: Option<RopeScaling>,
}

impl ModelDraft {
    pub(super) fn of(model: &ModelConfig) -> Self {
        Self {
            preset: None,
            vocab: Some(model.vocab),
            d_model: Some(model.d_model),
            blocks: Some(model.blocks),
            heads: Some(model.heads),
            kv_heads: Some(model.kv_heads),
            ffn: Some(model.ffn),
            sequence: Some(model.sequence),
            norm_eps: Some(model.norm_eps),
            rope_theta: Some(model.rope_theta),
            rope_scaling: model.rope_scaling,
        }
    }

    /// The model of a checkpoint: a spec sets its sequence, and repeats other sizes at most.
    pub(super) fn of_checkpoint(self, given: &ModelConfig) -> Result<ModelConfig, SpecError> {
        let asked = if self.preset.is_some() { Self::of(&self.complete()?) } else { self };
        let words = |given: &dyn std::fmt::Display| {
            format!("must be {given}, as in the checkpoint: leave [model] out, but for sequence")
        };
        for (key, asked, given) in [
            ("model.vocab", asked.vocab, given.vocab),
            ("model.d_model", asked.d_model, given.d_model),
            ("model.blocks", asked.blocks, given.blocks),
            ("model.heads", asked.heads, given.heads),
            ("model.kv_heads", asked.kv_heads, given.kv_heads),
            ("model.ffn", asked.ffn, given.ffn),
        ] {
            if let Some(asked) = asked.filter(|asked| *asked != given) {
                return Err(SpecError::value(key, &asked, words(&given)));
            }
        }
        for (key, asked, given) in [
            ("model.norm_eps", asked.norm_eps, given.norm_eps),
            ("model.rope_theta", asked.rope_theta, given.rope_theta),
        ] {
            if let Some(asked) = asked.filter(|asked| *asked != given) {
                return Err(SpecError::value(key, &asked, words(&given)));
            }
        }
        if let Some(scaling) = asked.rope_scaling.filter(|scaling| Some(*scaling) != given.rope_scaling) {
            let given = given.rope_scaling.map_or("none".to_owned(), |given| format!("{given:?}"));
            return Err(SpecError::value("model.rope_scaling", &format!("{scaling:?}"), words(&given)));
        }
        Ok(ModelConfig { sequence: asked.sequence.unwrap_or(given.sequence), ..given.clone() })
    }

    pub(super) fn complete(self) -> Result<ModelConfig, SpecError> {
        let sized = [self.vocab, self.d_model, self.blocks, self.heads, self.ffn, self.sequence];
        let base = match &self.preset {
            Some(name) => Some(ModelConfig::preset(name).ok_or_else(|| {
                let names = ModelConfig::preset_names().join(", ");
                SpecError::value("model.preset", &format!("\"{name}\""), format!("must be one of {names}"))
            })?),
            None if sized.iter().all(Option::is_none) => ModelConfig::preset(PRESET_DEFAULT),
            None => None,
        };
        if let Some(mut model) = base {
            let replace = |to: &mut usize, from: Option<usize>| *to = from.unwrap_or(*to);
            replace(&mut model.vocab, self.vocab);
            replace(&mut model.d_model, self.d_model);
            replace(&mut model.blocks, self.blocks);
            replace(&mut model.heads, self.heads);
            replace(&mut model.kv_heads, self.kv_heads);
            replace(&mut model.ffn, self.ffn);
            replace(&mut model.sequence, self.sequence);
            model.norm_eps = self.norm_eps.unwrap_or(model.norm_eps);
            model.rope_theta = self.rope_theta.unwrap_or(model.rope_theta);
            model.rope_scaling = self.rope_scaling.or(model.rope_scaling);
            return Ok(model);
        }
        let need = |key: &'static str, value: Option<usize>| value.ok_or_else(|| SpecError::missing(key));
        let heads = need("model.heads", self.heads)?;
        Ok(ModelConfig {
            vocab: need("model.vocab", self.vocab)?,
            d_model: need("model.d_model", self.d_model)?,
            blocks: need("model.blocks", self.blocks)?,
            heads,
            kv_heads: self.kv_heads.unwrap_or(heads),
            ffn: need("model.ffn", self.ffn)?,
            sequence: need("model.sequence", self.sequence)?,
            norm_eps: self.norm_eps.unwrap_or(1e-5),
            rope_theta: self.rope_theta.unwrap_or(10_000.0),
            rope_scaling: self.rope_scaling,
        })
    }
}

/// `[data]`: what is trained on, by hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// How text became tokens.
    pub tokenizer: TokenizerSpec,
    /// Every token is below this.
    pub vocab: u32,
    /// Token shards in training order.
    pub train: Vec<ShardEntry>,
    /// Token shards that are never trained on.
    pub held_out: Vec<ShardEntry>,
}

impl Default for DataSpec {
    fn default() -> Self {
        let (train, held_out) = (Vec::new(), Vec::new());
        Self { tokenizer: TokenizerSpec::Bytes, vocab: Tokenizer::Bytes.vocab(), train, held_out }
    }
}

/// How text becomes tokens: `"bytes"`, or the hash of a `tokenizer.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenizerSpec {
    /// One token per byte, built in.
    #[default]
    Bytes,
    /// A `tokenizer.json` by its hash.
    Blob(BlobHash),
}

impl Serialize for TokenizerSpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes => to.serialize_str("bytes"),
            Self::Blob(hash) => to.collect_str(hash),
        }
    }
}

impl<'de> Deserialize<'de> for TokenizerSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "bytes" {
            return Ok(Self::Bytes);
        }
        let hash =
            text.parse().map_err(|_| D::Error::custom("expected \"bytes\" or a hash of 64 hex digits"))?;
        Ok(Self::Blob(hash))
    }
}

/// `[batch]`: geometry of the work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSpec {
    /// Sequences in one micro-batch.
    pub sequences: usize,
    /// Micro-batches that an epoch trains on, over all replicas.
    pub micro_batches_per_epoch: u32,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self { sequences: 4, micro_batches_per_epoch: 64 }
    }
}

/// Older versions of the weights that a miner keeps.
const STASH_DEFAULT: u32 = 1;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_default_stash(stash: &u32) -> bool {
    *stash == STASH_DEFAULT
}

/// `[inner]`: the optimiser that every miner runs on its stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InnerSpec {
    /// Which one.
    pub optimiser: OptimiserKind,
    /// Steps per epoch, the same for everybody.
    pub steps: u32,
    /// Older versions of its weights that a miner keeps while gradients of their micro-batches are on the way: 1, or 0. With
    /// 0 it ends what is under way before it steps: 4 bytes per parameter less while it trains, and pauses between steps.
    #[serde(skip_serializing_if = "is_default_stash")]
    pub stash: u32,
    /// AdamW's learning rate: all parameters, or with Muon those that are no matrices.
    pub learning_rate: f64,
    /// Muon's learning rate for matrices.
    pub muon_learning_rate: f64,
    /// Muon's momentum.
    pub muon_momentum: f64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Longest gradient of the whole model; 0 = no clipping.
    pub clip_norm: f64,
    /// Over what the gradient's norm is taken.
    pub clip_scope: ClipScope,
    /// How the learning rates change over the run.
    pub schedule: ScheduleSpec,
}

impl Default for InnerSpec {
    fn default() -> Self {
        Self {
            optimiser: OptimiserKind::Muon,
            steps: 8,
            stash: STASH_DEFAULT,
            learning_rate: 3e-3,
            muon_learning_rate: 0.02,
            muon_momentum: 0.95,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
            clip_scope: ClipScope::Slice,
            schedule: ScheduleSpec::default(),
        }
    }
}

impl InnerSpec {
    /// As the model crate takes it.
    pub(super) fn optimiser(&self) -> OptimiserConfig {
        let adamw = AdamW {
            rate: self.learning_rate as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            epsilon: self.epsilon as f32,
            weight_decay: self.weight_decay as f32,
        };
        match self.optimiser {
            OptimiserKind::Adamw => OptimiserConfig::Adamw(adamw),
            OptimiserKind::Muon => OptimiserConfig::Muon(Muon {
                rate: self.muon_learning_rate as f32,
                momentum: self.muon_momentum as f32,
                weight_decay: self.weight_decay as f32,
                adamw,
            }),
        }
    }
}

/// Inner optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserKind {
    /// AdamW for everything.
    Adamw,
    /// Muon for matrices, AdamW for the rest.
    Muon,
}

/// Over what a gradient's norm is taken (protocol §2.2 "Clip").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipScope {
    /// Over the stage, against its share of the limit; stages step on their own.
    Slice,
    /// Over the whole model, in lock-step; one replica per stage.
    Model,
}

/// How the learning rates change over the run.
///
/// Kinds without keys have braces: serde lets any key pass beside a unit variant's tag.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleSpec {
    /// Always the full rate.
    Constant {},
    /// Linear warm-up, then half a cosine down to `floor`.
    Cosine {
        /// Share of all steps.
        warmup: f64,
        /// Last factor.
        floor: f64,
    },
    /// IOTA's: warm-up, plateau, a cosine times a saw-tooth, a linear tail (see [`Schedule::SawTooth`]).
    SawTooth {
        /// Steps of warm-up.
        warmup: u64,
        /// Steps at the full rate.
        plateau: u64,
        /// Steps of one tooth.
        cycle: u64,
        /// Lowest factor of the cosine and of each tooth.
        floor: f64,
        /// Share of all steps that falls to 0 at the end.
        tail: f64,
    },
}

impl ScheduleSpec {
    /// As the model crate takes it, for a run of `total` steps.
    pub(super) fn over(self, total: u64) -> Schedule {
        match self {
            Self::Constant {} => Schedule::Constant,
            Self::Cosine { warmup, floor } => {
                let warmup = (warmup * total as f64).ceil() as u64;
                Schedule::Cosine { warmup: warmup.min(total), total, floor: floor as f32 }
            }
            Self::SawTooth { warmup, plateau, cycle, floor, tail } => {
                Schedule::SawTooth { warmup, plateau, cycle, floor: floor as f32, tail: tail as f32, total }
            }
        }
    }
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self::Cosine { warmup: 0.05, floor: 0.02 }
    }
}

/// `[outer]`: what every replica does with the merged pseudo-gradient. Braces as in [`ScheduleSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OuterSpec {
    /// The mean of the replicas.
    Identity {},
    /// Nesterov momentum (DiLoCo, arXiv 2311.08105).
    Nesterov {
        /// Outer learning rate.
        learning_rate: f64,
        /// Momentum, at least 0 and below 1; with a ramp from epoch `ramp_epochs` on.
        momentum: f64,
        /// Momentum of epoch 0's merge, at least 0 and below 1; from there it goes to `momentum` in a line. None: no ramp.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        momentum_from: Option<f64>,
        /// Epochs that the line takes, 1 to 2²⁰; only beside `momentum_from`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ramp_epochs: Option<u32>,
    },
}

impl Default for OuterSpec {
    fn default() -> Self {
        Self::Identity {}
    }
}

impl From<OuterSpec> for Outer {
    fn from(spec: OuterSpec) -> Self {
        match spec {
            OuterSpec::Identity {} => Self::Identity,
            OuterSpec::Nesterov { learning_rate, momentum, momentum_from, ramp_epochs } => Self::Nesterov {
                learning_rate: learning_rate as f32,
                momentum: momentum as f32,
                ramp: momentum_from.zip(ramp_epochs).map(|(from, epochs)| Ramp { from: from as f32, epochs }),
            },
        }
    }
}

/// `[phases]`: length of the run, quorums and deadlines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhaseSpec {
    /// Merges until the run ends.
    pub epochs: u32,
    /// Miners needed in every stage before the first epoch opens.
    pub miners_min: u16,
    /// Validators needed before the first epoch opens.
    pub validators_min: u16,
    /// Longest a training phase may last.
    pub epoch_deadline_ms: u64,
    /// Time that a lease gives its holder.
    pub lease_ms: u64,
    /// How often a node reports at least.
    pub heartbeat_ms: u64,
    /// Silence after which a node counts as lost.
    pub lost_after_ms: u64,
    /// Shortest merge deadline.
    pub merge_min_ms: u64,
    /// Longest merge deadline; the first merge's.
    pub merge_max_ms: u64,
}

impl Default for PhaseSpec {
    fn default() -> Self {
        Self {
            epochs: 10,
            miners_min: 1,
            validators_min: 0,
            epoch_deadline_ms: 600_000,
            lease_ms: 60_000,
            heartbeat_ms: 1_000,
            lost_after_ms: 15_000,
            merge_min_ms: 10_000,
            merge_max_ms: 120_000,
        }
    }
}

/// `[trust]`: who is believed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrustSpec {
    /// What a single, unwitnessed claim on a shard is worth.
    pub unwitnessed: UnwitnessedSpec,
    /// Bound on an upload's norm while there is no history to take it from; 0 = none.
    pub first_norm_bound: f64,
}

impl Default for TrustSpec {
    fn default() -> Self {
        Self { unwitnessed: UnwitnessedSpec::Accept, first_norm_bound: 0.0 }
    }
}

/// What a single, unwitnessed claim is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnwitnessedSpec {
    /// It settles the shard.
    Accept,
    /// The shard keeps its old value.
    Keep,
}

impl From<UnwitnessedSpec> for Unwitnessed {
    fn from(spec: UnwitnessedSpec) -> Self {
        match spec {
            UnwitnessedSpec::Accept => Self::Accept,
            UnwitnessedSpec::Keep => Self::Keep,
        }
    }
}

/// `[audit]`: replays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSpec {
    /// Share of first-step work items that each validator replays, from 0 to 1.
    pub rate: f64,
}

impl Default for AuditSpec {
    fn default() -> Self {
        Self { rate: 0.05 }
    }
}
