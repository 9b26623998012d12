//! Tensors of a model that trains for a few seconds: what crosses its cut, both ways, and what a merge would move.

use std::sync::Arc;

use anyhow::{Context, Result};
use judge::{Direction, Input, input::to_bf16};
use model::config::{Cut, Dtype, ModelConfig, StageSpec};
use model::optim::OptimiserConfig;
use model::stage::{Clip, CpuStage, Output, Stage, StepInput};
use wire::Hash;

/// Bytes of text; a token each.
const VOCAB: usize = 256;
/// Rows of a micro-batch: with the sequence below, tensors of 512 × 256.
const BATCH: usize = 4;
/// The text that is learnt: this project's own pages.
const TEXT: [&str; 2] =
    [include_str!("../../../../../ARCHITECTURE.md"), include_str!("../../../../../README.md")];

fn config() -> ModelConfig {
    ModelConfig {
        vocab: VOCAB,
        d_model: 256,
        blocks: 2,
        heads: 4,
        kv_heads: 4,
        ffn: 512,
        sequence: 128,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
    }
}

/// `count` tensors of training steps spread over the run. `secret` seeds weights and data order.
pub(super) fn tensors(secret: &Hash, count: u32, threads: Option<usize>) -> Result<Vec<Input>> {
    let model = config();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build()?;
    let pool = Arc::new(pool);
    let specs = StageSpec::plan_at(&model, Cut::Plain { wire: Dtype::Bf16 }, &[1], secret.0)?;
    let optimiser = OptimiserConfig::default();
    let mut stages = specs
        .iter()
        .map(|spec| CpuStage::new(spec.clone(), spec.initial_weights(), optimiser, Arc::clone(&pool)))
        .collect::<Result<Vec<_>, _>>()?;
    let [head, tail] = &mut stages[..] else { anyhow::bail!("a model of two stages has two") };
    let text: Vec<u8> = TEXT.iter().flat_map(|text| text.bytes()).collect();
    let mut taken = Vec::new();
    let mut step = 0_u64;
    while (taken.len() as u32) < count {
        let tokens = batch(&text, secret, step, model.sequence);
        let Output::Message(forward) = head.forward(step, &tokens, None)? else {
            anyhow::bail!("the head has a successor")
        };
        tail.forward(step, &tokens, Some(&forward))?;
        let backward = tail.backward(step, None, true)?.context("the tail sends a gradient back")?;
        head.backward(step, Some(&backward), true)?;
        // Activations and gradients in turn, one every other step, so that the model changes between them.
        if step % 2 == 1 {
            let (name, direction, message) = if step % 4 == 1 {
                ("activation", Direction::Forward, &forward)
            } else {
                ("gradient", Direction::Backward, &backward)
            };
            let cols = *message.shape.last().context("a message has a shape")? as u32;
            let rows = (message.bytes.len() / 2) as u32 / cols;
            let name = format!("{name}-{step:04}");
            taken.push(Input::new(name, Some(vec![rows, cols]), direction, message.bytes.clone())?);
        }
        for stage in [&mut *head, &mut *tail] {
            // Every eighth tensor is a weight matrix as it stands.
            if step % 16 == 15 && (taken.len() as u32) < count {
                let layout = stage.spec().layout();
                let largest =
                    layout.iter().filter(|part| part.shape.len() == 2).max_by_key(|part| part.len());
                if let Some(part) = largest {
                    let shape = part.shape.iter().map(|side| *side as u32).collect();
                    let bytes = to_bf16(&stage.weights()[part.range()]);
                    let name = format!("weight-{step:04}-{}", part.name);
                    taken.push(Input::new(name, Some(shape), Direction::Forward, bytes)?);
                }
            }
            stage.step(StepInput { rate: 1.0, clip: Clip::Slice { limit: 1.0 } })?;
        }
        step += 1;
    }
    Ok(taken)
}

/// Windows of the text, chosen by secret and step.
fn batch(text: &[u8], secret: &Hash, step: u64, sequence: usize) -> Vec<u32> {
    let windows = text.len() - sequence - 1;
    (0..BATCH as u64)
        .flat_map(|row| {
            let drawn = Hash::of_parts(
                "shoal 2026-11 demo batch",
                &[&secret.0, &step.to_le_bytes(), &row.to_le_bytes()],
            );
            let (number, _) = drawn.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
            let start = (u64::from_le_bytes(*number) % windows as u64) as usize;
            text[start..=start + sequence].iter().map(|byte| u32::from(*byte))
        })
        .collect()
}
