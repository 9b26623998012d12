//! A start value of a miner's speed.

use std::sync::Arc;
use std::time::Instant;

use model::config::{Cut, Dtype, ModelConfig, StageSpec};
use model::optim::OptimiserConfig;
use model::stage::{CpuStage, Stage};
use rayon::ThreadPool;

/// Model that the speed is measured on.
const YARDSTICK: &str = "micro";
/// Sequences of it.
const SEQUENCES: usize = 4;
/// Forward and backward passes; the fastest counts.
const PASSES: u64 = 3;
/// What is said where nothing can be measured.
const FALLBACK_MFLOPS: u64 = 1000;

/// Forward and backward MFLOP/s on a small model: a start value, real rates are measured in the run.
pub(super) fn mflops(pool: &Arc<ThreadPool>) -> u64 {
    measure(pool).unwrap_or(FALLBACK_MFLOPS).max(1)
}

fn measure(pool: &Arc<ThreadPool>) -> Option<u64> {
    let model = ModelConfig::preset(YARDSTICK)?;
    let spec = StageSpec::plan(&model, Cut::Plain { wire: Dtype::F32 }, 1, [0; 32]).ok()?.pop()?;
    let tokens: Vec<u32> =
        (0..SEQUENCES * (model.sequence + 1)).map(|i| (i * 31 % model.vocab) as u32).collect();
    let flops = 3 * spec.flops_per_token() * (SEQUENCES * model.sequence) as u64;
    let weights = spec.initial_weights();
    let mut stage = CpuStage::new(spec, weights, OptimiserConfig::default(), Arc::clone(pool)).ok()?;
    let mut best = u64::MAX;
    for pass in 0..PASSES {
        let start = Instant::now();
        stage.forward(pass, &tokens, None).ok()?;
        stage.backward(pass, None, true).ok()?;
        best = best.min(start.elapsed().as_micros() as u64);
    }
    Some(flops / best.max(1))
}
