//! A plain split, trained by real miners through the protocol, gives the bits of the unsplit model.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::checkpoint::Checkpoint;
use model::config::{Cut, Dtype};
use shoal_node::miner::Keep;
use shoal_node::spec::{ClipScope, MergeCodec, OptimiserKind, OuterSpec, RunSpec, TensorCodec};
use swarm::record::Statement;
use wire::MicroBatch;

use super::alone::{Alone, losses, statements};
use super::miners::Swarm;

/// Epochs and the inner steps of each: 20 steps, with a merge after every fifth.
const EPOCHS: u32 = 4;
const STEPS: u32 = 5;
/// Two micro-batches per step: their sum is the same in either order.
const PER_STEP: u32 = 2;

/// Plain cuts that send f32, all stages in lock-step, clipped over the whole model.
fn lockstep(spec: &mut RunSpec, stages: usize, optimiser: OptimiserKind) {
    spec.cut = Cut::Plain { wire: Dtype::F32 };
    spec.set_stages(stages).expect("enough blocks");
    spec.inner.optimiser = optimiser;
    spec.inner.clip_scope = ClipScope::Model;
    spec.inner.clip_norm = 0.5;
    spec.inner.steps = STEPS;
    spec.batch.micro_batches_per_epoch = STEPS * PER_STEP;
    spec.outer = OuterSpec::Identity {};
    spec.codec.merge = MergeCodec::F32;
    spec.phases.epochs = EPOCHS;
    spec.phases.miners_min = 1;
}

/// What a run gave.
struct Given {
    losses: BTreeMap<MicroBatch, u32>,
    weights: Vec<u32>,
    scales: Vec<f32>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Trains `stages` stages in a swarm; the same model in one process beside it.
async fn train(stages: usize, optimiser: OptimiserKind, keep: Keep, stash: u32) -> (Given, Alone) {
    let mut swarm = Swarm::start(stages, |spec| {
        lockstep(spec, stages, optimiser);
        spec.inner.stash = stash;
        if keep == Keep::Inputs {
            spec.codec.activations = TensorCodec::Auto.into();
            spec.codec.gradients = TensorCodec::Auto.into();
        }
    })
    .await;
    swarm.keep = keep;
    swarm.miners(1).await;
    let (spec, log, blobs) = (swarm.spec.clone(), swarm.log.clone(), swarm.blobs.clone());
    let whole = {
        let mut whole = spec.clone();
        whole.set_stages(1).expect("one stage");
        Alone::new(&whole, &blobs).await
    };
    let folder = Arc::clone(&swarm.folder);
    let (summary, _) = swarm.end().await;
    assert_eq!((summary.epochs, summary.coverage), (EPOCHS, Some(1.0)));
    assert_eq!(summary.memory_spared_bytes > 0, keep == Keep::Inputs);
    let statements = statements(&log).await;
    let mut scales = Vec::new();
    for (_, statement) in &statements {
        let Statement::Work(work) = statement else { continue };
        scales.extend(work.steps.iter().map(|step| step.clip));
    }
    let checkpoint = Checkpoint::open(summary.checkpoint.expect("a checkpoint").as_ref()).expect("it opens");
    let weights: Vec<f32> = spec
        .stage_specs()
        .iter()
        .flat_map(|stage| checkpoint.weights(stage).expect("the stage's weights"))
        .collect();
    drop(folder);
    let given = Given {
        losses: losses(&statements).iter().map(|(at, loss)| (*at, loss.to_bits())).collect(),
        weights: bits(&weights),
        scales,
    };
    (given, whole)
}

async fn equals(optimiser: OptimiserKind, keep: Keep, stash: u32) {
    let (given, mut whole) = train(3, optimiser, keep, stash).await;
    let want = whole.train();
    let want: BTreeMap<MicroBatch, u32> = want.iter().map(|(at, loss)| (*at, loss.to_bits())).collect();
    assert_eq!(want.len() as u32, EPOCHS * STEPS * PER_STEP);
    assert_eq!(given.losses, want, "{optimiser:?}");
    assert!(given.weights == bits(&whole.weights()), "{optimiser:?}: weights differ");
    assert!(given.scales.iter().any(|scale| *scale < 1.0), "the limit is low enough to clip");
    let first = f32::from_bits(given.losses[&MicroBatch(0)]);
    let (_, last) = given.losses.last_key_value().expect("losses");
    assert!(f32::from_bits(*last) < first, "it learns: {first} to {}", f32::from_bits(*last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_split_through_the_swarm_equals_the_unsplit_model_with_muon() {
    equals(OptimiserKind::Muon, Keep::Graphs, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_split_through_the_swarm_equals_the_unsplit_model_with_adamw() {
    equals(OptimiserKind::Adamw, Keep::Graphs, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn miners_that_keep_only_encoded_inputs_give_the_same_bits() {
    equals(OptimiserKind::Adamw, Keep::Inputs, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn miners_that_keep_one_version_give_the_same_bits() {
    equals(OptimiserKind::Adamw, Keep::Inputs, 0).await;
}
