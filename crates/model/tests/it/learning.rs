//! The whole model as one stage learns text, byte by byte.

use super::common::{evaluate, micro, plan, round_trip, stages};
use shoal_model::config::{Cut, Dtype};
use shoal_model::optim::{AdamW, Muon, OptimiserConfig, Schedule};
use shoal_model::stage::{Clip, Stage, StepInput};

/// This file's folder is text enough: the crate's own sources.
fn text() -> Vec<u8> {
    [include_str!("../../src/config.rs"), include_str!("../../src/config/plan.rs"), include_str!("split.rs")]
        .concat()
        .into_bytes()
}

#[test]
fn both_optimisers_learn_text() {
    let model = micro();
    let text = text();
    let (train, held_out) = text.split_at(text.len() * 9 / 10);
    let row = model.sequence + 1;
    let batch = |text: &[u8], seed: usize, n: usize| -> Vec<u32> {
        let start = |i: usize| (seed * 7919 + i * 104_729) % (text.len() - row);
        (0..n).flat_map(|i| &text[start(i)..start(i) + row]).map(|&b| u32::from(b)).collect()
    };
    for (optimiser, below) in
        [(OptimiserConfig::Adamw(AdamW::default()), 3.2), (OptimiserConfig::Muon(Muon::default()), 2.8)]
    {
        let mut stage = stages(&plan(&model, Cut::Plain { wire: Dtype::F32 }, 1), optimiser, 2);
        let before = evaluate(&stage, &batch(held_out, 1, 16));
        assert!((f64::from(before) - 300f64.ln()).abs() < 0.3, "close to uniform at first: {before}");
        let schedule = Schedule::cosine(120);
        for step in 0..120 {
            round_trip(&mut stage, step, &batch(train, step as usize, 8));
            let input = StepInput { rate: schedule.factor(step), clip: Clip::Slice { limit: 1.0 } };
            stage[0].step(input).expect("a step");
        }
        let after = evaluate(&stage, &batch(held_out, 1, 16));
        assert!(after < below, "{optimiser:?}: {before} to {after}");
    }
}
