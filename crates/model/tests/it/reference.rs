//! Whole models, cut and uncut, and optimisers against PyTorch (fixtures made by `tests/fixtures/make.py`).

use super::common::{pool, read_fixture, round_trip};
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
