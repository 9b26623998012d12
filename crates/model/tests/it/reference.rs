//! Whole models, cut and uncut, and optimisers against PyTorch (fixtures made by `tests/fixtures/make.py`).

use super::common::{evaluate, pool, read_fixture, round_trip};
use shoal_model::config::{Cut, Dtype, ModelConfig, StageSpec, Table};
use shoal_model::optim::OptimiserConfig;
use shoal_model::stage::{CpuStage, Inferred, Stage};

fn model() -> ModelConfig {
    ModelConfig {
        vocab: 40,
        d_model: 32,
        blocks: 3,
        heads: 4,
        kv_heads: 2,
        ffn: 48,
        sequence: 12,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
    }
}

fn fixture_stages(name: &str, cut: Cut, ends: &[usize]) -> (Vec<CpuStage>, Vec<u32>) {
    let fixture = read_fixture(include_bytes!("../fixtures/model.safetensors"));
    let tokens = fixture["tokens"].iter().map(|&t| t as u32).collect();
    let build = |spec: &StageSpec| {
        let flat = spec
            .layout()
            .iter()
            .flat_map(|p| {
                let own = format!("{name}.weight.{}", p.name);
                fixture.get(&own).unwrap_or_else(|| &fixture[&format!("weight.{}", p.name)]).clone()
            })
            .collect();
        CpuStage::new(spec.clone(), flat, OptimiserConfig::default(), pool(2)).expect("possible")
    };
    let specs = StageSpec::plan_at(&model(), cut, ends, [0; 32]).expect("possible");
    (specs.iter().map(build).collect(), tokens)
}

fn assert_gradients(name: &str, cut: Cut, ends: &[usize], tolerance: f64) {
    let fixture = read_fixture(include_bytes!("../fixtures/model.safetensors"));
    let (mut stages, tokens) = fixture_stages(name, cut, ends);
    let (loss, _) = round_trip(&mut stages, 5, &tokens);
    let want = fixture[&format!("{name}.loss")][0];
    assert!(f64::from((loss - want).abs()) < tolerance, "{name}: loss {loss}, PyTorch {want}");
    for stage in &stages {
        for p in stage.spec().layout() {
            let got = &stage.gradient()[p.range()];
            let want = &fixture[&format!("{name}.gradient.{}", p.name)];
            let square: f64 = want.iter().map(|&x| f64::from(x).powi(2)).sum();
            let size = (square / want.len() as f64).sqrt();
            let off = got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            assert!(off <= tolerance * size, "{name}: {} is off by {off:e} of {size:e}", p.name);
        }
    }
}

#[test]
fn an_uncut_model_has_pytorchs_loss_gradients_and_logits() {
    let plain = Cut::Plain { wire: Dtype::F32 };
    assert_gradients("plain", plain, &[], 5e-5);
    assert_gradients("plain", plain, &[2], 5e-5);
    let fixture = read_fixture(include_bytes!("../fixtures/model.safetensors"));
    let (stages, tokens) = fixture_stages("plain", plain, &[]);
    let inputs: Vec<u32> = tokens.chunks_exact(13).flat_map(|row| &row[..12]).copied().collect();
    let Ok(Inferred::Logits(all)) = stages[0].infer(&inputs, 2, None, true) else { panic!("logits") };
    let off = all.iter().zip(&fixture["plain.logits"]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 2e-5, "{off}");
    // A shorter sequence sees the same past.
    let Ok(Inferred::Logits(short)) = stages[0].infer(&inputs[..7], 1, None, false) else { panic!("logits") };
    let off = short.iter().zip(&all[6 * 40..7 * 40]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 2e-5, "{off}");
}

#[test]
fn the_bottleneck_has_pytorchs_gradients() {
    assert_gradients("bottleneck", Cut::Bottleneck { width: 6, wire: Dtype::F32 }, &[2], 5e-5);
}

/// With 16 bits both ends round to bf16; a number close to a tie may round differently.
#[test]
fn the_anchored_cut_has_pytorchs_gradients() {
    let cut = |table| Cut::Anchored { width: 6, bits: 16, table };
    assert_gradients("anchored", cut(Table::Full), &[2], 2e-2);
    assert_gradients("factorised", cut(Table::Factorised { rank: 4 }), &[2], 2e-2);
}

/// Every kind of cut whose forward has a slope, in whole models: the loss moves along seeded directions of all weights as
/// the gradient says. (Rounded numbers have none; their straight-through gradients are compared with PyTorch's.)
#[test]
fn cut_models_match_finite_differences() {
    let wire = Dtype::F32;
    let tokens: Vec<u32> = (0..2 * 13).map(|i| i * i % 40).collect();
    for (cut, tolerance) in [
        (Cut::Plain { wire }, 5e-3),
        (Cut::Tabled { wire, table: Table::Full }, 5e-3),
        (Cut::Tabled { wire, table: Table::Factorised { rank: 3 } }, 5e-3),
        // Along a direction through all weights some of its rectified units cross their kink.
        (Cut::Bottleneck { width: 5, wire }, 3e-2),
        (Cut::Nothing { table: Table::Full }, 5e-3),
    ] {
        let specs = StageSpec::plan_at(&model(), cut, &[1, 2], [6; 32]).expect("possible");
        let build = |spec: &StageSpec| {
            CpuStage::new(spec.clone(), spec.initial_weights(), OptimiserConfig::default(), pool(2))
                .expect("possible")
        };
        let mut stages: Vec<_> = specs.iter().map(build).collect();
        // Starting weights hold zeros, behind which gradients vanish.
        let mut state = 7_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        for stage in &mut stages {
            let noisy: Vec<f32> = stage.weights().iter().map(|w| w + 0.05 * noise()).collect();
            stage.set_weights(&noisy).expect("finite");
        }
        round_trip(&mut stages, 0, &tokens);
        for index in 0..stages.len() {
            let (weights, gradient) = (stages[index].weights().to_vec(), stages[index].gradient().to_vec());
            for direction in 0..3 {
                let v: Vec<f32> = weights.iter().map(|_| noise()).collect();
                let h = 1e-3;
                let mut loss = |by: f32| {
                    let moved: Vec<f32> = weights.iter().zip(&v).map(|(w, v)| w + by * v).collect();
                    stages[index].set_weights(&moved).expect("finite");
                    f64::from(evaluate(&stages, &tokens))
                };
                let found = (loss(h) - loss(-h)) / (2.0 * f64::from(h));
                let along: f64 = gradient.iter().zip(&v).map(|(&g, &v)| f64::from(g) * f64::from(v)).sum();
                // Behind a cut that sends nothing there is none.
                let size = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt().max(1e-12);
                let off = (found - along).abs() / size;
                assert!(
                    off < tolerance,
                    "{cut:?}, stage {index}, direction {direction}: {found} for {along}, off by {off:e}"
                );
            }
            stages[index].set_weights(&weights).expect("finite");
        }
    }
}
