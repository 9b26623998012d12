//! The shape of a run from a spec file, a preset and options.

use anyhow::{Context, Result};
use model::checkpoint::Checkpoint;
use model::config::ModelConfig;
use model::tokenizer::Tokenizer;
use node::spec::{PRESET_DEFAULT, RunSpec};

use crate::cli::ShapeArgs;
use crate::failure::bad_input;

/// Vocabularies of presets are rounded up to whole vectors.
const VOCAB_STEP: usize = 16;

/// Longest sequence of a run that starts from a checkpoint, unless its spec says otherwise.
const INIT_SEQUENCE: usize = 512;

/// A checked spec that still lacks data.
pub(crate) fn shape(args: &ShapeArgs, tokenizer: &Tokenizer) -> Result<RunSpec> {
    let vocab = tokenizer.vocab() as usize;
    let init = args.init.as_deref().map(Checkpoint::open).transpose()?;
    let mut spec = if let Some(path) = &args.spec {
        let text = std::fs::read_to_string(path)
            .map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
        RunSpec::parse(&text).with_context(|| path.display().to_string())?
    } else if let Some(init) = &init {
        let mut model = init.model().clone();
        model.sequence = model.sequence.min(INIT_SEQUENCE);
        RunSpec::of_model(&model)?
    } else {
        let name = args.preset.as_deref().unwrap_or(PRESET_DEFAULT);
        let mut spec = RunSpec::preset(name).ok_or_else(|| {
            let names = ModelConfig::preset_names().join(", ");
            bad_input(format!("there is no preset {name:?}: choose one of {names}"))
        })?;
        spec.model.vocab = vocab_of(tokenizer);
        spec
    };
    if let Some(init) = &init {
        let sized = ModelConfig { sequence: spec.model.sequence, ..init.model().clone() };
        if sized != spec.model {
            return Err(bad_input(
                "[model] of the spec differs from that of --init: leave it out, but for sequence",
            ));
        }
    }
    if spec.model.vocab < vocab {
        return Err(bad_input(format!(
            "model.vocab = {} is too small for the tokenizer: it must be at least {vocab}",
            spec.model.vocab
        )));
    }
    if let Some(stages) = args.stages {
        spec.set_stages(stages)?;
    }
    if let Some(seed) = args.seed {
        spec.seed = seed;
    }
    if let Some(epochs) = args.epochs {
        spec.phases.epochs = epochs;
    }
    if let Some(tokens) = args.tokens {
        spec.phases.epochs = tokens.div_ceil(spec.tokens_per_epoch()).try_into().unwrap_or(u32::MAX);
    }
    // Options can be as impossible as a file: read back what they made.
    Ok(RunSpec::parse(&spec.canonical()).map_err(node::spec::SpecError::without_line)?)
}

/// Vocabulary of a model made for a tokenizer.
pub(crate) fn vocab_of(tokenizer: &Tokenizer) -> usize {
    (tokenizer.vocab() as usize).next_multiple_of(VOCAB_STEP)
}
