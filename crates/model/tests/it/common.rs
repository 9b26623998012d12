//! Shared by the tests: pools, specs, fixtures, a run of all stages in lock-step.

use shoal_model::config::{Cut, Message, ModelConfig, StageSpec};
use shoal_model::optim::OptimiserConfig;
use shoal_model::stage::{CpuStage, Output, Stage};
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) fn pool(threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads"))
}

pub(crate) fn micro() -> ModelConfig {
    ModelConfig::preset("micro").expect("known")
}

pub(crate) fn stages(specs: &[StageSpec], optimiser: OptimiserConfig, threads: usize) -> Vec<CpuStage> {
    let pool = pool(threads);
    let stage =
        |spec: &StageSpec| CpuStage::new(spec.clone(), spec.initial_weights(), optimiser, Arc::clone(&pool));
    specs.iter().map(|spec| stage(spec).expect("a possible stage")).collect()
}

pub(crate) fn plan(model: &ModelConfig, cut: Cut, count: usize) -> Vec<StageSpec> {
    StageSpec::plan(model, cut, count, [3; 32]).expect("a possible plan")
}

/// One micro-batch through all stages and back; the loss and every message on the way.
pub(crate) fn round_trip(stages: &mut [CpuStage], micro_batch: u64, tokens: &[u32]) -> (f32, Vec<Message>) {
    let mut messages: Vec<Message> = Vec::new();
    let mut input: Option<Message> = None;
    let mut loss = None;
    for stage in stages.iter_mut() {
        match stage.forward(micro_batch, tokens, input.as_ref()).expect("forward") {
            Output::Message(message) => {
                messages.push(message.clone());
                input = Some(message);
            }
            Output::Loss(value) => loss = Some(value),
        }
    }
    let mut gradient: Option<Message> = None;
    for stage in stages.iter_mut().rev() {
        gradient = stage.backward(micro_batch, gradient.as_ref(), true).expect("backward");
        messages.extend(gradient.clone());
    }
    assert!(gradient.is_none(), "the head has no input gradient");
    (loss.expect("the tail gives the loss"), messages)
}

pub(crate) fn evaluate(stages: &[CpuStage], tokens: &[u32]) -> f32 {
    let mut input: Option<Message> = None;
    for stage in stages {
        match stage.evaluate(tokens, input.as_ref()).expect("evaluate") {
            Output::Message(message) => input = Some(message),
            Output::Loss(loss) => return loss,
        }
    }
    panic!("the last stage gives the loss")
}

/// Deterministic tokens with something to learn: a walk with few successors per token.
pub(crate) fn tokens(model: &ModelConfig, batch: usize, seed: u64) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let vocab = model.vocab as u64;
    let mut out = Vec::with_capacity(batch * (model.sequence + 1));
    for _ in 0..batch {
        let mut token = next() % vocab;
        for _ in 0..=model.sequence {
            out.push(token as u32);
            token = (token * 7 + 3 + next() % 3) % vocab;
        }
    }
    out
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Tensors of a safetensors file as f32, integers too.
pub(crate) fn read_fixture(bytes: &[u8]) -> HashMap<String, Vec<f32>> {
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&rest[..length]).expect("a header");
    let number = |v: &serde_json::Value| v.as_u64().expect("an offset") as usize;
    let tensor = |(name, entry): (&String, &serde_json::Value)| {
        let offsets = &entry["data_offsets"];
        let words = rest[length..][number(&offsets[0])..number(&offsets[1])].as_chunks::<4>().0.iter();
        let numbers = match entry["dtype"].as_str() {
            Some("I32") => words.map(|b| i32::from_le_bytes(*b) as f32).collect(),
            _ => words.map(|b| f32::from_le_bytes(*b)).collect(),
        };
        (name.clone(), numbers)
    };
    header.as_object().expect("an object").iter().map(tensor).collect()
}
