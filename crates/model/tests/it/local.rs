//! Training in one process, and the comparison of cuts.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{collections::HashMap, io};

use super::common::{micro, plan, pool};
use shoal_model::{
    config::{Cut, Dtype, ModelConfig, StageSpec, Table},
    data::{CollectOptions, DataError, Dataset, build, collect, split},
    local::{Curve, LocalClip, LocalError, LocalModel, LocalPlan, cuts, train},
    optim::{OptimiserConfig, Schedule},
    stage::Stage,
    tokenizer::Tokenizer,
};

/// The crate's own sources as bytes.
fn sources() -> Dataset {
    let corpus = collect(&["src".to_owned()], &CollectOptions::default()).unwrap();
    let mut blobs = HashMap::new();
    let store = |hash, bytes| {
        blobs.insert(hash, bytes);
        Ok(())
    };
    let manifest = build(&split(corpus).unwrap(), &Tokenizer::Bytes, store, |_, _| {}).unwrap();
    Dataset::new(manifest, move |hash| blobs.get(&hash).cloned().ok_or(io::ErrorKind::NotFound.into()))
        .unwrap()
}

fn small() -> ModelConfig {
    ModelConfig { d_model: 32, ffn: 80, sequence: 32, ..micro() }
}

fn local_plan(data: &Dataset, steps: u64) -> LocalPlan<'_> {
    LocalPlan {
        data,
        seed: [1; 32],
        batch: 4,
        accumulate: 2,
        steps,
        schedule: Schedule::cosine(steps),
        clip: LocalClip::Model(1.0),
        evaluate_every: 5,
        held_out_batches: 8,
    }
}

fn model(specs: &[StageSpec]) -> LocalModel {
    let weights = specs.iter().map(StageSpec::initial_weights).collect();
    LocalModel::new(specs, weights, OptimiserConfig::default(), &pool(1)).unwrap()
}

fn run(specs: &[StageSpec], data: &Dataset, steps: u64) -> (LocalModel, Curve) {
    let mut model = model(specs);
    let curve = train(&mut model, &local_plan(data, steps), |_| true).unwrap();
    (model, curve)
}

#[test]
fn a_split_model_trains_as_the_whole_one_to_the_bit() {
    let data = sources();
    let plain = Cut::Plain { wire: Dtype::F32 };
    let (whole, curve) = run(&plan(&small(), plain, 1), &data, 12);
    let (parts, split_curve) = run(&plan(&small(), plain, 3), &data, 12);
    assert_eq!(curve, split_curve);
    let joined: Vec<f32> = parts.stages().iter().flat_map(|stage| stage.weights().to_vec()).collect();
    assert!(joined == whole.stages()[0].weights());
    let tokens = 12 * 2 * 4 * 32;
    assert_eq!(parts.wire_bytes(), [tokens * 2 * 32 * 4; 2]);
    assert_eq!(whole.wire_bytes(), [0; 2]);
    assert_eq!(curve.points.len(), 12);
    assert_eq!(curve.points[11].tokens, tokens);
    let measured: Vec<_> = curve.points.iter().filter(|p| p.held_out.is_some()).map(|p| p.step).collect();
    assert_eq!(measured, [5, 10, 12]);
    assert!(curve.held_out_last() < curve.held_out_first - 0.3, "{curve:?}");
}

#[test]
fn impossible_plans_are_refused() {
    let data = sources();
    let specs = plan(&small(), Cut::Plain { wire: Dtype::F32 }, 2);
    let refuse = |change: &dyn Fn(&mut LocalPlan<'_>)| {
        let mut plan = local_plan(&data, 2);
        change(&mut plan);
        train(&mut model(&specs), &plan, |_| true).unwrap_err()
    };
    assert!(matches!(refuse(&|plan| plan.accumulate = 0), LocalError::Zero { key: "accumulate" }));
    assert!(matches!(refuse(&|plan| plan.batch = 0), LocalError::Zero { key: "batch" }));
    assert!(matches!(refuse(&|plan| plan.batch = 1 << 40), LocalError::Data(DataError::Batch { .. })));
    let weights = vec![specs[0].initial_weights()];
    let one_short = LocalModel::new(&specs, weights, OptimiserConfig::default(), &pool(1));
    assert!(matches!(one_short, Err(LocalError::Stages)));
    let mut stopped = model(&specs);
    let curve = train(&mut stopped, &local_plan(&data, 9), |point| point.step < 3).unwrap();
    assert_eq!(curve.points.len(), 3);
}

#[test]
fn every_cut_is_compared_with_equal_tokens() {
    let data = sources();
    let model = small();
    let mut plan = cuts::CutsPlan {
        cuts: cuts::standard_cuts(&model),
        model,
        ends: vec![1, 3],
        seeds: vec![1, 2],
        batch: 4,
        accumulate: 1,
        steps: 6,
        optimiser: OptimiserConfig::default(),
        clip: 1.0,
        held_out_batches: 4,
    };
    let mut runs = 0;
    let rows = cuts::run(&plan, &data, &pool(1), |run| {
        runs += 1;
        assert_eq!(run.done, (runs, 18));
    })
    .unwrap();
    assert_eq!(rows.len(), 9);
    let row = |name: &str| rows.iter().find(|row| row.name.starts_with(name)).unwrap();
    assert_eq!(row("plain, bf16").bytes_per_token, [64.0; 2]);
    assert_eq!(row("plain, bf16").ratio_bf16, Some(1.0));
    assert_eq!((row("plain, bf16").gap, row("plain, bf16").parameters_added), (0.0, 0));
    assert_eq!(row("plain + table").parameters_added, 2 * 300 * 32);
    assert_eq!(row("token-anchored, 64×").bytes_per_token[0], 1.0);
    assert_eq!(row("nothing").bytes_per_token, [0.0; 2]);
    assert!(rows.iter().all(|row| row.losses.len() == 2 && row.loss > 3.0 && row.loss < 6.0));
    assert_eq!(cuts::markdown(&rows).lines().count(), 11);
    plan.seeds.clear();
    assert!(matches!(cuts::run(&plan, &data, &pool(1), |_| {}), Err(LocalError::Zero { key: "seeds" })));
}

#[test]
fn a_table_on_top_of_a_plain_cut_learns() {
    let data = sources();
    let tabled = Cut::Tabled { wire: Dtype::F32, table: Table::Full };
    let specs = plan(&small(), tabled, 2);
    let name = "cut.0.table.weight";
    let place = specs[1].layout().iter().find(|p| p.name == name).unwrap().range();
    let (model, curve) = run(&specs, &data, 6);
    assert!(model.stages()[1].weights()[place.clone()] != specs[1].initial_weights()[place]);
    assert!(curve.held_out_last() < curve.held_out_first);
}
