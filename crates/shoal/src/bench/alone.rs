//! `shoal bench alone`: the model of a run trained in this process, for comparison with a swarm's tokens per second and
//! held-out loss.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use model::data::Dataset;
use model::local::{LocalClip, LocalModel};
use model::stage::Clip;
use node::folder::RunFolder;
use node::spec::{ClipScope, RunSpec};
use serde_json::json;
use store::{Durability, FolderBlobs};
use wire::{Epoch, Hash, Step};

use crate::cli::BenchAloneArgs;
use crate::failure::bad_input;
use crate::up::read_spec;
use crate::watch::print;

/// `shoal bench alone`.
pub(super) fn run(args: &BenchAloneArgs, json: bool) -> Result<ExitCode> {
    let folder = RunFolder::new(&args.run);
    let spec = read_spec(&folder)?;
    if !spec.init.is_empty() {
        return Err(bad_input(
            "this run starts from given weights: only runs that draw theirs can be compared",
        ));
    }
    let data = dataset(&folder, &spec)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0)).build();
    let pool = Arc::new(pool.context("cannot start threads")?);
    let stages = spec.stage_specs();
    let weights = stages.iter().map(model::config::StageSpec::initial_weights).collect();
    let mut model = LocalModel::new(&stages, weights, spec.optimiser(), &pool)?;
    let (order, clip) = (spec.order(), clip(&spec));
    let (epochs, steps) = (args.epochs.unwrap_or(spec.phases.epochs), spec.inner.steps);
    let mut next = 0;
    let begin = Instant::now();
    for epoch in 0..epochs {
        let start = Instant::now();
        let end = (u64::from(epoch) + 1) * u64::from(spec.batch.micro_batches_per_epoch);
        let mut sum = 0.0;
        let count = end - next;
        for step in 0..steps {
            // The steps of an epoch share its micro-batches as evenly as they go.
            let until = end - count * u64::from(steps - step - 1) / u64::from(steps);
            for micro_batch in next..until {
                let tokens = data.micro_batch(&order, micro_batch)?.tokens;
                sum += f64::from(model.accumulate(micro_batch, &tokens)?);
            }
            next = until;
            model.step(spec.rate(Epoch(epoch), Step(step)), clip)?;
        }
        let (seconds, tokens) = (start.elapsed().as_secs_f64(), spec.tokens_per_epoch());
        let (loss, rate) = (sum / count as f64, tokens as f64 / seconds);
        print(&if json {
            json!({ "epoch": epoch, "loss": loss, "tokens": tokens, "seconds": seconds, "tokens_per_s": rate })
                .to_string()
        } else {
            format!(
                "epoch {}/{epochs}  loss {loss:.4}  {tokens} tokens in {seconds:.2} s: {rate:.0}/s",
                epoch + 1
            )
        })?;
    }
    let (seconds, tokens) = (begin.elapsed().as_secs_f64(), u64::from(epochs) * spec.tokens_per_epoch());
    let rate = tokens as f64 / seconds;
    let batches = node::limits::HELDOUT_MICRO_BATCHES as u64;
    let loss = model.held_out_loss(&data, spec.batch.sequences, batches)?;
    print(&if json {
        json!({
            "event": "summary", "tokens": tokens, "seconds": seconds, "tokens_per_s": rate, "heldout_loss": loss,
        })
        .to_string()
    } else {
        format!("{tokens} tokens in {seconds:.2} s: {rate:.0}/s; held-out loss {loss:.4}")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn clip(spec: &RunSpec) -> LocalClip {
    match (spec.inner.clip_scope, spec.clip()) {
        (ClipScope::Model, Clip::Slice { limit }) => LocalClip::Model(limit),
        (ClipScope::Slice, Clip::Slice { limit }) => LocalClip::Slice(limit),
        _ => LocalClip::Off,
    }
}

/// The token shards of a run folder.
fn dataset(folder: &RunFolder, spec: &RunSpec) -> Result<Dataset> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let blobs = runtime.block_on(FolderBlobs::open(folder.blobs(), Durability::Cached))?;
    let source = move |hash: model::hash::BlobHash| std::fs::read(blobs.path(Hash(hash.0)));
    Ok(Dataset::new(spec.manifest(), source)?)
}
