//! `shoal bench`: measures in one process, or from the log of a run.

mod alone;
mod log;
mod through;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use model::config::{ModelConfig, StageSpec};
use model::data::{self, Dataset};
use model::hash::BlobHash;
use model::local::cuts::{self, Contender, CutsPlan, markdown, standard_cuts};
use model::optim::OptimiserConfig;

use crate::cli::{BenchArgs, BenchCommand, BenchCutsArgs, ShapeArgs};
use crate::failure::bad_input;
use crate::prepare;
use crate::watch::{Show, print};

/// Longest gradient of the whole model, as in a run's default spec.
const CLIP: f32 = 1.0;
/// Rows of a micro-batch.
const BATCH: usize = 4;
/// Held-out tokens that are measured at the end of each run, at most.
const HELD_OUT_TOKENS: usize = 65_536;

/// `shoal bench`.
pub(crate) fn run(args: BenchArgs, json: bool) -> Result<ExitCode> {
    match args.command {
        BenchCommand::Cuts(args) => bench_cuts(&args, json),
        BenchCommand::Alone(args) => alone::run(&args, json),
        BenchCommand::Log(args) => log::run(&args, json),
    }
}

fn bench_cuts(args: &BenchCutsArgs, json: bool) -> Result<ExitCode> {
    let mut show = Show::new(json);
    let tokenizer = prepare::tokenizer(&args.data, &ShapeArgs::default())?;
    let mut model = ModelConfig::preset(&args.preset).ok_or_else(|| {
        bad_input(format!(
            "there is no preset {:?}: choose one of {}",
            args.preset,
            ModelConfig::preset_names().join(", ")
        ))
    })?;
    model.vocab = prepare::vocab_of(&tokenizer);
    let mut cuts = wanted_cuts(&model, &args.only)?;
    if let Some(codec) = &args.codec {
        cuts = through::contenders(cuts, codec)?;
    }
    let first = cuts[0].cut;
    let plan = match args.behind.as_slice() {
        [] => StageSpec::plan(&model, first, args.stages, [0; 32]),
        behind => StageSpec::plan_at(&model, first, behind, [0; 32]),
    };
    let plan = plan.map_err(|error| bad_input(error.to_string()))?;
    if plan.len() < 2 {
        return Err(bad_input("--stages 1 has no cut: give at least 2"));
    }
    let corpus = prepare::corpus(&args.data, Vec::new())?;
    show.say(&format!("data: {}", corpus.summary))?;
    let data = dataset(corpus, &tokenizer)?;
    let accumulate = args.sequences.div_ceil(BATCH);
    let plan = CutsPlan {
        ends: plan[..plan.len() - 1].iter().map(|stage| stage.blocks.end).collect(),
        cuts,
        seeds: (args.first_seed..).take(args.seeds as usize).collect(),
        batch: args.sequences.div_ceil(accumulate),
        accumulate: accumulate as u64,
        steps: u64::from(args.steps),
        optimiser: OptimiserConfig::default(),
        clip: CLIP,
        held_out_batches: (HELD_OUT_TOKENS / (BATCH * model.sequence)).max(1) as u64,
        model,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0)).build();
    let pool = Arc::new(pool.context("cannot start threads")?);
    let rows = cuts::run(&plan, &data, &pool, |run| {
        let line = format!("{}/{}: {}, seed {}: {:.4}", run.done.0, run.done.1, run.name, run.seed, run.loss);
        drop(show.say(&line));
    })?;
    if json {
        for row in &rows {
            print(&serde_json::to_string(row)?)?;
        }
    } else {
        let tokens = plan.steps * plan.accumulate * (plan.batch * plan.model.sequence) as u64;
        print(&format!(
            "{} parameters, cuts behind blocks {:?}, {tokens} tokens a run, {} seeds\n",
            plan.model.parameters(),
            plan.ends,
            plan.seeds.len()
        ))?;
        print(markdown(&rows).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first cut, and those whose names have one of these words; all, without words.
fn wanted_cuts(model: &ModelConfig, only: &[String]) -> Result<Vec<Contender>> {
    let mut cuts = standard_cuts(model);
    let has = |word: &String| cuts.iter().any(|one| one.name.contains(word.as_str()));
    if let Some(word) = only.iter().find(|word| !has(word)) {
        let names = cuts.iter().map(|one| format!("\"{}\"", one.name)).collect::<Vec<_>>().join(", ");
        return Err(bad_input(format!("--only {word:?} is in no cut's name: {names}")));
    }
    let others = cuts.split_off(1).into_iter();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word.as_str()));
    cuts.extend(others.filter(|one| wanted(&one.name)));
    Ok(cuts)
}

/// Tokenises a corpus and keeps the shards in memory.
fn dataset(corpus: data::Corpus, tokenizer: &model::tokenizer::Tokenizer) -> Result<Dataset> {
    let split = data::split(corpus)?;
    let mut shards: HashMap<BlobHash, Vec<u8>> = HashMap::new();
    let keep = |hash, bytes| {
        shards.insert(hash, bytes);
        Ok(())
    };
    let manifest = data::build(&split, tokenizer, keep, |_, _| {})?;
    let source = move |hash| shards.get(&hash).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into());
    Ok(Dataset::new(manifest, Box::new(source))?)
}
