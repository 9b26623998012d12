//! The shape of a run from a spec file, a preset and options.

use anyhow::{Context, Result};
use model::checkpoint::Checkpoint;
use model::config::{Cut, Dtype, ModelConfig};
use model::tokenizer::Tokenizer;
use node::spec::{Base, PRESET_DEFAULT, RunSpec, SpecError};

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
    let base = init.as_ref().map(base).transpose()?;
    let read = |text: &str| match &base {
        Some(base) => RunSpec::parse_on(text, base),
        None => RunSpec::parse(text),
    };
    let mut spec = if let Some(path) = &args.spec {
        let text = std::fs::read_to_string(path)
            .map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
        read(&text).with_context(|| path.display().to_string())?
    } else if base.is_some() {
        read("").map_err(SpecError::without_line)?
    } else {
        let name = args.preset.as_deref().unwrap_or(PRESET_DEFAULT);
        let mut spec = RunSpec::preset(name).ok_or_else(|| {
            let names = ModelConfig::preset_names().join(", ");
            bad_input(format!("there is no preset {name:?}: choose one of {names}"))
        })?;
        spec.model.vocab = vocab_of(tokenizer);
        spec
    };
    if spec.model.vocab < vocab {
        return Err(bad_input(format!(
            "model.vocab = {} is too small for the tokenizer: it must be at least {vocab}",
            spec.model.vocab
        )));
    }
    if let Some(stages) = args.stages.filter(|stages| *stages != spec.stages()) {
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
    Ok(RunSpec::parse(&spec.canonical()).map_err(SpecError::without_line)?)
}

/// What a run takes from the checkpoint it starts from: weights that belong to cuts are of use in those cuts alone.
fn base(init: &Checkpoint) -> Result<Base> {
    let mut model = init.model().clone();
    model.sequence = model.sequence.min(INIT_SEQUENCE);
    let stages = init.stages()?;
    let own = stages.len() > 1 && !matches!(stages[0].cut, Cut::Plain { .. });
    let cut = if own { stages[0].cut } else { Cut::Plain { wire: Dtype::Bf16 } };
    let cuts = own.then(|| stages[1..].iter().map(|stage| stage.blocks.start).collect());
    Ok(Base { model, cut, cuts })
}

/// A line for whoever cuts a checkpoint's model in another way than it was trained with.
pub(crate) fn cut_anew(init: &Checkpoint, spec: &RunSpec) -> Result<Option<String>> {
    let stages = init.stages()?;
    let plain = stages.len() == 1 || matches!(stages[0].cut, Cut::Plain { .. });
    let same = if plain {
        spec.is_plain()
    } else {
        spec.cut == stages[0].cut
            && spec.stage_specs().iter().map(|s| &s.blocks).eq(stages.iter().map(|s| &s.blocks))
    };
    Ok((!same).then(|| {
        "--init: the checkpoint was not trained with this run's cuts: the loss starts above its own"
            .to_owned()
    }))
}

/// Vocabulary of a model made for a tokenizer.
pub(crate) fn vocab_of(tokenizer: &Tokenizer) -> usize {
    (tokenizer.vocab() as usize).next_multiple_of(VOCAB_STEP)
}
