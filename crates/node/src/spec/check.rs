//! Ranges of a spec's values, and how they must fit each other.

use std::ops::RangeInclusive;

use model::config::{ConfigError, Cut};
use swarm::limits::{EPOCH_MICRO_BATCHES_MAX, STAGES_MAX};
use wire::Direction;

use super::{ClipScope, RunSpec, SPEC_VERSION, ScheduleSpec, SpecError, section::OuterSpec};

/// Longest name of a run, characters.
const NAME_CHARS: usize = 64;
/// Most sequences in a micro-batch.
const SEQUENCES_MAX: usize = 4096;
/// Most inner steps in an epoch.
const STEPS_MAX: u32 = 1 << 16;
/// Most steps of a schedule's phase.
const STEPS_TOTAL_MAX: u64 = 1 << 40;
/// Most epochs.
const EPOCHS_MAX: u32 = 1 << 20;
/// Longest pause between two heartbeats: a day.
const HEARTBEAT_MS_MAX: u64 = 24 * 3600 * 1000;
/// Longest deadline: 30 days.
const DEADLINE_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Most miners or validators that a quorum may ask for.
const QUORUM_MAX: u16 = 64;

fn range<T: Copy + PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), SpecError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let words = format!("must be from {} to {}", allowed.start(), allowed.end());
    Err(SpecError::value(key, &value, words))
}

fn rule(key: &str, value: &impl ToString, holds: bool, allowed: &str) -> Result<(), SpecError> {
    if holds { Ok(()) } else { Err(SpecError::value(key, value, allowed)) }
}

pub(super) fn spec(spec: &RunSpec) -> Result<(), SpecError> {
    range("version", spec.version, SPEC_VERSION..=SPEC_VERSION)?;
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let named = (1..=NAME_CHARS).contains(&spec.name.chars().count()) && spec.name.chars().all(plain);
    let words = format!("must be 1 to {NAME_CHARS} letters, digits, '-', '_' or '.'");
    rule("name", &format!("\"{}\"", spec.name), named, &words)?;
    range("seed", spec.seed, 0..=i64::MAX as u64)?;
    range("stages", spec.stages(), 1..=STAGES_MAX)?;
    let inits = spec.init.is_empty() || spec.init.len() == spec.stages();
    rule("init", &format!("{} hashes", spec.init.len()), inits, "must be one hash per stage, or left out")?;
    range("batch.sequences", spec.batch.sequences, 1..=SEQUENCES_MAX)?;
    let steps = spec.inner.steps;
    range("inner.steps", steps, 1..=STEPS_MAX)?;
    range("inner.stash", spec.inner.stash, 0..=1)?;
    let epoch = "batch.micro_batches_per_epoch";
    range(epoch, spec.batch.micro_batches_per_epoch, 1..=EPOCH_MICRO_BATCHES_MAX)?;
    let enough = spec.batch.micro_batches_per_epoch >= steps;
    rule(
        epoch,
        &spec.batch.micro_batches_per_epoch,
        enough,
        &format!("must be at least inner.steps ({steps})"),
    )?;
    range("data.vocab", spec.data.vocab as usize, 1..=spec.model.vocab)?;
    outer(spec)?;
    phases(spec)?;
    inner(spec)?;
    predicted(spec)?;
    champion(spec)?;
    float("trust.first_norm_bound", spec.trust.first_norm_bound, 0.0, 1e12)?;
    float("audit.rate", spec.audit.rate, 0.0, 1.0)?;
    // What the protocol itself bounds, whatever it is called there.
    spec.swarm_spec()
        .check()
        .map_err(|error| SpecError::value(error.key, &error.value, format!("must be {}", error.allowed)))
}

fn float(key: &str, value: f64, least: f64, most: f64) -> Result<(), SpecError> {
    rule(key, &value, (least..=most).contains(&value), &format!("must be from {least} to {most}"))
}

fn outer(spec: &RunSpec) -> Result<(), SpecError> {
    let OuterSpec::Nesterov { learning_rate, momentum, momentum_from, ramp_epochs } = spec.outer else {
        return Ok(());
    };
    float("outer.learning_rate", learning_rate, 0.0, 10.0)?;
    for (key, value) in [("outer.momentum", momentum), ("outer.momentum_from", momentum_from.unwrap_or(0.0))]
    {
        rule(key, &value, (0.0..1.0).contains(&value), "must be at least 0 and below 1")?;
    }
    range("outer.ramp_epochs", ramp_epochs.unwrap_or(1), 1..=EPOCHS_MAX)?;
    match (momentum_from, ramp_epochs) {
        (Some(_), None) => Err(SpecError::missing("outer.ramp_epochs")),
        (None, Some(_)) => Err(SpecError::missing("outer.momentum_from")),
        _ => Ok(()),
    }
}

fn inner(spec: &RunSpec) -> Result<(), SpecError> {
    let inner = &spec.inner;
    float("inner.learning_rate", inner.learning_rate, 0.0, 10.0)?;
    float("inner.muon_learning_rate", inner.muon_learning_rate, 0.0, 10.0)?;
    for (key, value) in [
        ("inner.muon_momentum", inner.muon_momentum),
        ("inner.beta1", inner.beta1),
        ("inner.beta2", inner.beta2),
    ] {
        rule(key, &value, (0.0..1.0).contains(&value), "must be at least 0 and below 1")?;
    }
    let epsilon = inner.epsilon;
    rule("inner.epsilon", &epsilon, epsilon > 0.0 && epsilon <= 1.0, "must be above 0 and at most 1")?;
    float("inner.weight_decay", inner.weight_decay, 0.0, 1.0)?;
    float("inner.clip_norm", inner.clip_norm, 0.0, 1e6)?;
    if inner.clip_scope == ClipScope::Model {
        let most = spec.phases.miners_min;
        rule(
            "inner.clip_scope",
            &"\"model\"",
            most == 1,
            "needs phases.miners_min = 1: lock-step runs with one replica",
        )?;
        rule(
            "inner.clip_norm",
            &inner.clip_norm,
            inner.clip_norm > 0.0,
            "must be above 0 with clip_scope = \"model\"",
        )?;
    }
    match inner.schedule {
        ScheduleSpec::Constant {} => {}
        ScheduleSpec::Cosine { warmup, floor } => {
            float("inner.schedule.warmup", warmup, 0.0, 1.0)?;
            float("inner.schedule.floor", floor, 0.0, 1.0)?;
        }
        ScheduleSpec::SawTooth { warmup, plateau, .. } => {
            range("inner.schedule.warmup", warmup, 0..=STEPS_TOTAL_MAX)?;
            range("inner.schedule.plateau", plateau, 0..=STEPS_TOTAL_MAX)?;
        }
    }
    spec.schedule().check().map_err(|ConfigError::Range { key, value, allowed }| {
        SpecError::value(format!("inner.{key}"), &value, allowed)
    })
}

/// What can be predicted: tensors with columns.
fn predicted(spec: &RunSpec) -> Result<(), SpecError> {
    let codec = &spec.codec;
    let can = super::codec::predictable_columns(spec.cut, &spec.model).is_some();
    for (key, direction) in
        [("codec.activations", Direction::Forward), ("codec.gradients", Direction::Backward)]
    {
        let asked = codec.built_in(direction) == super::TensorCodec::Predictive;
        let words = format!(
            "needs a cut that sends bf16 numbers, of at most {} columns",
            crate::limits::PREDICTOR_COLUMNS
        );
        rule(key, &"\"predictive\"", can || !asked, &words)?;
    }
    for (key, codec) in [("codec.pseudo_gradients", codec.pseudo_gradients), ("codec.weights", codec.weights)]
    {
        let words = "carries activations and gradients only: they have columns";
        rule(key, &format!("\"{}\"", codec.name()), codec != super::TensorCodec::Predictive, words)?;
    }
    Ok(())
}

/// What is asked of a competition's champion.
fn champion(spec: &RunSpec) -> Result<(), SpecError> {
    let codec = &spec.codec;
    float("codec.lossy.similarity", codec.lossy.similarity, 0.5, 1.0)?;
    float("codec.lossy.norm", codec.lossy.norm, 0.0, 1.0)?;
    float("codec.lossy.element", codec.lossy.element, 0.0, 10.0)?;
    let asked = [&codec.activations, &codec.gradients].map(|class| class.competition());
    let Some(name) = codec.competition() else {
        let unused = codec.built_in.is_none();
        let value = codec.built_in.map_or("", super::TensorCodec::name);
        return rule("codec.built_in", &value, unused, "is only of use beside \"arena:COMPETITION\"");
    };
    let one = asked.into_iter().flatten().all(|other| other == name);
    rule(
        "codec.gradients",
        &asked[1].unwrap_or_default(),
        one,
        "one competition has one champion: name the same",
    )?;
    let words = "a champion needs a cut that sends numbers: plain, tabled or bottleneck; what an anchored cut sends is \
                 packed and becomes no shorter";
    rule("codec.activations", &format!("\"arena:{name}\""), spec.cut.numbers(&spec.model).is_some(), words)
}

fn phases(spec: &RunSpec) -> Result<(), SpecError> {
    let phases = &spec.phases;
    range("phases.epochs", phases.epochs, 1..=EPOCHS_MAX)?;
    range("phases.miners_min", phases.miners_min, 1..=QUORUM_MAX)?;
    range("phases.validators_min", phases.validators_min, 0..=QUORUM_MAX)?;
    range("phases.heartbeat_ms", phases.heartbeat_ms, 50..=HEARTBEAT_MS_MAX)?;
    for (key, value, least) in [
        ("phases.epoch_deadline_ms", phases.epoch_deadline_ms, 1000),
        // Work is reported at heartbeats: a lease must outlive a few of them.
        ("phases.lease_ms", phases.lease_ms, phases.heartbeat_ms.saturating_mul(3).max(1000)),
        ("phases.lost_after_ms", phases.lost_after_ms, phases.heartbeat_ms.saturating_mul(3)),
        ("phases.merge_min_ms", phases.merge_min_ms, 100),
        ("phases.merge_max_ms", phases.merge_max_ms, phases.merge_min_ms),
    ] {
        range(key, value, least..=DEADLINE_MS_MAX)?;
    }
    Ok(())
}

/// Whether there is data for at least one micro-batch.
pub(super) fn data(spec: &RunSpec) -> Result<(), SpecError> {
    let needed = (spec.batch.sequences * (spec.model.sequence + 1)) as u64;
    let found = spec.data.train.iter().fold(0_u64, |sum, shard| sum.saturating_add(shard.tokens));
    if found < needed {
        return Err(SpecError::Data { list: "train", found, needed });
    }
    spec.manifest().check().map_err(|error| SpecError::Manifest { reason: error.to_string() })
}

/// Whether the model exports to a Hugging Face folder: nothing but a Llama is inside.
impl RunSpec {
    /// Whether the trained weights are those of a plain Llama model, which other software loads.
    pub fn is_plain(&self) -> bool {
        self.cuts.is_empty() || matches!(self.cut, Cut::Plain { .. })
    }
}
