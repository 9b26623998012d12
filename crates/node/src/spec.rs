//! The run spec: everything that decides what a run computes, as TOML, and what the protocol and the model take from it.
//!
//! A spec as a person writes it may leave out almost everything and name a preset; [`RunSpec::parse`] fills in the rest.
//! Its canonical bytes are the TOML text with every value written out; their hash is the run's id.

mod check;
mod codec;
mod cut;
mod place;
mod section;

pub use self::codec::{CodecSpec, FrameCodec, LossySpec, MergeCodec, TensorCodec};
pub use place::SpecError;
pub use section::{
    AuditSpec, BatchSpec, ClipScope, DataSpec, InnerSpec, OptimiserKind, OuterSpec, PRESET_DEFAULT,
    PhaseSpec, ScheduleSpec, TokenizerSpec, TrustSpec, UnwitnessedSpec,
};

use model::config::{Cut, ModelConfig, StageSpec};
use model::data::{DatasetManifest, Order};
use model::hash::BlobHash;
use model::optim::{OptimiserConfig, Schedule};
use model::stage::Clip;
use model::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use swarm::spec::{MergeSpec, Pace, StageFacts, SwarmSpec};
use wire::{Epoch, Hash, Millis, RunId, Step};

/// Version of the spec's format.
pub const SPEC_VERSION: u32 = 1;

/// A complete, checked run spec.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSpec {
    /// Always [`SPEC_VERSION`].
    pub version: u32,
    /// What people call the run.
    pub name: String,
    /// Seed of the run: data order, initial weights, first routes, rounding.
    pub seed: u64,
    /// Number of blocks of the model in front of each cut: `[2, 4]` makes stages `0..2`, `2..4`, `4..`.
    pub cuts: Vec<usize>,
    /// The model.
    pub model: ModelConfig,
    /// Initial weights of each stage by hash (flat, little-endian f32, layout order); none: drawn from the seed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init: Vec<BlobHash>,
    /// What crosses a cut.
    pub cut: Cut,
    /// Tokenizer and token shards.
    pub data: DataSpec,
    /// Geometry of the work.
    pub batch: BatchSpec,
    /// Inner optimiser.
    pub inner: InnerSpec,
    /// Outer optimiser.
    pub outer: OuterSpec,
    /// Encodings by class of traffic.
    pub codec: CodecSpec,
    /// Quorums and deadlines.
    pub phases: PhaseSpec,
    /// Who is believed.
    pub trust: TrustSpec,
    /// Replays.
    pub audit: AuditSpec,
}

/// What a run that starts from a checkpoint takes from it where its spec says nothing.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its model, with the sequence to train at.
    pub model: ModelConfig,
    /// What crosses a cut.
    pub cut: Cut,
    /// Where it is cut, if it has weights that belong to its cuts.
    pub cuts: Option<Vec<usize>>,
}

/// What a person writes: everything may be left out but the model's size.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    #[serde(default = "section::version")]
    version: u32,
    #[serde(default = "section::name")]
    name: String,
    #[serde(default = "section::seed")]
    seed: u64,
    #[serde(default)]
    stages: Option<usize>,
    #[serde(default)]
    cuts: Option<Vec<usize>>,
    #[serde(default)]
    model: section::ModelDraft,
    #[serde(default)]
    init: Vec<BlobHash>,
    #[serde(default)]
    cut: Option<cut::CutDraft>,
    #[serde(default)]
    data: DataSpec,
    #[serde(default)]
    batch: BatchSpec,
    #[serde(default)]
    inner: InnerSpec,
    #[serde(default)]
    outer: OuterSpec,
    #[serde(default, deserialize_with = "codec::section")]
    codec: CodecSpec,
    #[serde(default)]
    phases: PhaseSpec,
    #[serde(default)]
    trust: TrustSpec,
    #[serde(default)]
    audit: AuditSpec,
}

impl RunSpec {
    /// Reads a spec and checks every value. Data may still be missing: see [`RunSpec::check_data`].
    ///
    /// # Errors
    /// Names the key, the value, what is allowed and the line.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        Self::read(text, None)
    }

    /// Reads the spec of a run that starts from a checkpoint.
    ///
    /// # Errors
    /// As of [`RunSpec::parse`]; also where `[model]` asks for another model than the checkpoint's.
    pub fn parse_on(text: &str, base: &Base) -> Result<Self, SpecError> {
        Self::read(text, Some(base))
    }

    fn read(text: &str, base: Option<&Base>) -> Result<Self, SpecError> {
        if text.len() > section::SPEC_BYTES_MAX {
            return Err(SpecError::TooLong { bytes: text.len(), allowed: section::SPEC_BYTES_MAX });
        }
        match toml::from_str::<Draft>(text) {
            Ok(draft) => draft.checked(base).map_err(|error| error.at_line_of(text)),
            Err(error) => Err(place::explain(text, &error, |other| {
                toml::from_str::<Draft>(other).ok()?.checked(base).err()
            })),
        }
    }

    /// Reads canonical bytes, as the genesis record of a log holds them, and checks that they are this run's.
    ///
    /// # Errors
    /// Not UTF-8, not a spec, or not hashing to `run`.
    pub fn from_canonical(bytes: &[u8], run: RunId) -> Result<Self, SpecError> {
        let found = id_of(bytes);
        if found != run {
            return Err(SpecError::OtherRun { expected: run, found });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| SpecError::NotText)?;
        Self::parse(text)
    }

    /// The spec of a preset with every default; data is still missing.
    pub fn preset(name: &str) -> Option<Self> {
        let draft: Draft = toml::from_str("").expect("every key has a default");
        let model = section::ModelDraft::of(&ModelConfig::preset(name)?);
        let mut spec = Draft { model, ..draft }.checked(None).ok()?;
        name.clone_into(&mut spec.name);
        Some(spec)
    }

    /// The TOML text with every value written out.
    pub fn canonical(&self) -> String {
        toml::to_string(self).expect("a spec holds only strings, numbers, lists and tables")
    }

    /// The run's id: hash of the canonical bytes.
    pub fn run_id(&self) -> RunId {
        id_of(self.canonical().as_bytes())
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.cuts.len() + 1
    }

    /// Cuts the model into `stages` by cost.
    ///
    /// # Errors
    /// There are fewer blocks than stages.
    pub fn set_stages(&mut self, stages: usize) -> Result<(), SpecError> {
        self.cuts = plan_cuts(&self.model, self.cut, stages)?;
        Ok(())
    }

    /// The stages of the model, head first.
    pub fn stage_specs(&self) -> Vec<StageSpec> {
        StageSpec::plan_at(&self.model, self.cut, &self.cuts, self.weights_seed())
            .expect("the cuts were checked when the spec was made")
    }

    /// Seed of initial weights and of the cuts' rounding.
    pub fn weights_seed(&self) -> [u8; 32] {
        Hash::of_parts("shoal 2026-11 weights", &[&self.seed.to_le_bytes()]).0
    }

    /// Tokens of one micro-batch.
    pub fn tokens_per_micro_batch(&self) -> u64 {
        (self.batch.sequences * self.model.sequence) as u64
    }

    /// Tokens of one epoch.
    pub fn tokens_per_epoch(&self) -> u64 {
        self.tokens_per_micro_batch() * u64::from(self.batch.micro_batches_per_epoch)
    }

    /// What the protocol must know.
    pub fn swarm_spec(&self) -> SwarmSpec {
        let facts = |stage: &StageSpec| StageFacts {
            parameters: stage.parameters() as u64,
            flops_per_token: stage.flops_per_token(),
        };
        let pace = match self.inner.clip_scope {
            ClipScope::Slice => Pace::Async,
            ClipScope::Model => Pace::Lockstep { clip_norm: self.inner.clip_norm },
        };
        let phases = &self.phases;
        SwarmSpec {
            seed: self.seed,
            stages: self.stage_specs().iter().map(facts).collect(),
            tokens_per_micro_batch: self.tokens_per_micro_batch(),
            epochs: phases.epochs,
            micro_batches_per_epoch: self.batch.micro_batches_per_epoch,
            inner_steps: self.inner.steps,
            pace,
            miners_min: phases.miners_min,
            validators_min: phases.validators_min,
            epoch_deadline: Millis(phases.epoch_deadline_ms),
            lease_ttl: Millis(phases.lease_ms),
            heartbeat: Millis(phases.heartbeat_ms),
            lost_after: Millis(phases.lost_after_ms),
            merge: MergeSpec {
                deadline_min: Millis(phases.merge_min_ms),
                deadline_max: Millis(phases.merge_max_ms),
                unwitnessed: self.trust.unwitnessed.into(),
                first_norm_bound: self.trust.first_norm_bound,
                outer: self.outer.into(),
                wire: self.codec.merge.into(),
            },
            audit_rate_ppm: (self.audit.rate * 1e6).round() as u32,
        }
    }

    /// Learning-rate schedule over the inner steps of the whole run.
    pub fn schedule(&self) -> Schedule {
        self.inner.schedule.over(u64::from(self.phases.epochs) * u64::from(self.inner.steps))
    }

    /// The schedule's factor on the inner learning rates at a step, the same for everybody.
    pub fn rate(&self, epoch: Epoch, step: Step) -> f32 {
        let done = u64::from(epoch.0) * u64::from(self.inner.steps) + u64::from(step.0);
        self.schedule().factor(done)
    }

    /// Inner optimiser with its constants.
    pub fn optimiser(&self) -> OptimiserConfig {
        self.inner.optimiser()
    }

    /// How a stage clips when it steps on its own; in lock-step the scale comes from the log instead.
    pub fn clip(&self) -> Clip {
        if self.inner.clip_norm == 0.0 {
            Clip::Off
        } else {
            Clip::Slice { limit: self.inner.clip_norm as f32 }
        }
    }

    /// What the tokens are made of, for [`model::data::Dataset`].
    pub fn manifest(&self) -> DatasetManifest {
        let tokenizer = match self.data.tokenizer {
            TokenizerSpec::Bytes => Tokenizer::Bytes.hash(),
            TokenizerSpec::Blob(hash) => hash,
        };
        let (train, held_out) = (self.data.train.clone(), self.data.held_out.clone());
        DatasetManifest { tokenizer, vocab: self.data.vocab, train, held_out }
    }

    /// The order in which micro-batches take the tokens.
    pub fn order(&self) -> Order {
        let seed = Hash::of_parts("shoal 2026-11 data order", &[&self.seed.to_le_bytes()]).0;
        Order { seed, batch: self.batch.sequences, sequence: self.model.sequence }
    }

    /// Checks that the spec lists data for at least one micro-batch.
    ///
    /// # Errors
    /// No shards, or too few tokens.
    pub fn check_data(&self) -> Result<(), SpecError> {
        check::data(self)
    }

    fn check(&self) -> Result<(), SpecError> {
        check::spec(self)
    }
}

impl Draft {
    fn checked(self, base: Option<&Base>) -> Result<RunSpec, SpecError> {
        let spec = self.complete(base)?;
        spec.check().map(|()| spec)
    }

    fn complete(self, base: Option<&Base>) -> Result<RunSpec, SpecError> {
        let model = match base {
            Some(base) => self.model.of_checkpoint(&base.model)?,
            None => self.model.complete()?,
        };
        model.check()?;
        let default = || base.map_or_else(|| Cut::anchored(model.d_model), |base| base.cut);
        let cut = self.cut.map_or_else(|| Ok(default()), cut::CutDraft::complete)?;
        cut.check(&model)?;
        let cuts = match (self.cuts, self.stages) {
            (Some(cuts), None) => cuts,
            (Some(cuts), Some(stages)) if cuts.len() + 1 == stages => cuts,
            (Some(cuts), Some(stages)) => {
                return Err(SpecError::value(
                    "stages",
                    &stages,
                    format!("must be {}, one more than cuts, or left out", cuts.len() + 1),
                ));
            }
            (None, stages) => {
                let own = base.filter(|base| base.cut == cut).and_then(|base| base.cuts.clone());
                let fits = |cuts: &Vec<usize>| stages.is_none_or(|stages| stages == cuts.len() + 1);
                let planned = || {
                    let stages = stages.unwrap_or_else(|| section::STAGES_DEFAULT.min(model.blocks));
                    plan_cuts(&model, cut, stages)
                };
                own.filter(fits).map_or_else(planned, Ok)?
            }
        };
        StageSpec::plan_at(&model, cut, &cuts, [0; 32])?;
        Ok(RunSpec {
            version: self.version,
            name: self.name,
            seed: self.seed,
            cuts,
            model,
            init: self.init,
            cut,
            data: self.data,
            batch: self.batch,
            inner: self.inner,
            outer: self.outer,
            codec: self.codec,
            phases: self.phases,
            trust: self.trust,
            audit: self.audit,
        })
    }
}

fn plan_cuts(model: &ModelConfig, cut: Cut, stages: usize) -> Result<Vec<usize>, SpecError> {
    let plan = StageSpec::plan(model, cut, stages, [0; 32])?;
    Ok(plan[..stages - 1].iter().map(|stage| stage.blocks.end).collect())
}

fn id_of(canonical: &[u8]) -> RunId {
    swarm::record::run_id(canonical)
}

#[cfg(test)]
mod document;
#[cfg(test)]
mod tests;
