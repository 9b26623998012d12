//! Text from a model: temperature, top-k and top-p over the logits of its last position.
//!
//! Every token re-runs the window of at most `sequence` tokens before it; small models need no cache.

use std::sync::Arc;

use rayon::ThreadPool;

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    config::StageSpec,
    limits::MAX_SAMPLE_TOKENS,
    optim::OptimiserConfig,
    random,
    stage::{CpuStage, Inferred, Stage, StageError},
    tokenizer::{TextStream, Tokenizer, TokenizerError},
};

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleOptions {
    /// 0 takes the likeliest token; 1 samples from the model; above 1 is wilder. At least 0.
    pub temperature: f32,
    /// Only this many of the likeliest tokens, if given. At least 1.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together have this share, above 0 to 1.
    pub top_p: f32,
    /// The same seed gives the same text.
    pub seed: u64,
    /// Most tokens to make.
    pub max_tokens: usize,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: None, top_p: 0.95, seed: 0, max_tokens: 200 }
    }
}

/// Why a sampler stopped or could not start.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// An option outside its range.
    #[error("{key} = {value} is not possible; {allowed}")]
    Option {
        /// The option.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The stages are not those of one model.
    #[error("the stages given are not all stages of one model in order")]
    Stages,
    /// A stage refused.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it.
    EndOfText,
    /// `max_tokens` were made.
    MaxTokens,
    /// The callback asked for it.
    Asked,
}

/// A model in this process: all stages chained through their cuts.
#[derive(Debug)]
pub struct Sampler {
    stages: Vec<CpuStage>,
    tokenizer: Tokenizer,
}

impl Sampler {
    /// Loads a checkpoint folder.
    pub fn open(checkpoint: &Checkpoint, pool: &Arc<ThreadPool>) -> Result<Self, SampleError> {
        let specs = checkpoint.stages()?;
        let weights: Result<Vec<_>, _> = specs.iter().map(|spec| checkpoint.weights(spec)).collect();
        Self::new(&specs, weights?, checkpoint.tokenizer()?, pool)
    }

    /// A model from the flat weights of all its stages.
    pub fn new(
        specs: &[StageSpec],
        weights: Vec<Vec<f32>>,
        tokenizer: Tokenizer,
        pool: &Arc<ThreadPool>,
    ) -> Result<Self, SampleError> {
        let in_order = specs.iter().enumerate().all(|(i, s)| s.index == i && s.count == specs.len());
        if specs.is_empty() || !in_order || weights.len() != specs.len() {
            return Err(SampleError::Stages);
        }
        let stages: Result<Vec<_>, _> = specs
            .iter()
            .zip(weights)
            .map(|(spec, weights)| {
                CpuStage::new(spec.clone(), weights, OptimiserConfig::default(), Arc::clone(pool))
            })
            .collect();
        Ok(Self { stages: stages?, tokenizer })
    }

    /// The tokenizer of the model.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Logits `[time, vocab]` of one sequence of tokens, at most the model's `sequence` long.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>, SampleError> {
        self.run(tokens, true)
    }

    /// Continues `prompt` and hands each piece of new text to `on_text`, which returns whether to go on.
    ///
    /// An empty prompt starts a new text. End-of-text ends it and is not part of it.
    pub fn continue_text(
        &self,
        prompt: &str,
        options: &SampleOptions,
        mut on_text: impl FnMut(&str) -> bool,
    ) -> Result<Stop, SampleError> {
        check(options)?;
        let sequence = self.stages[0].spec().model.sequence;
        let end = self.tokenizer.end_of_text();
        let mut tokens = vec![end];
        tokens.extend(self.tokenizer.encode(prompt)?);
        let mut stream = TextStream::new(&self.tokenizer);
        let mut stop = Stop::MaxTokens;
        for position in 0..options.max_tokens {
            let window = &tokens[tokens.len().saturating_sub(sequence)..];
            let logits = self.run(window, false)?;
            let known = &logits[..self.tokenizer.vocab() as usize];
            let token = draw(known, options, random::uniform(options.seed, position as u64));
            if token == end {
                stop = Stop::EndOfText;
                break;
            }
            tokens.push(token);
            let text = stream.push(token)?;
            if !text.is_empty() && !on_text(&text) {
                return Ok(Stop::Asked);
            }
        }
        let rest = stream.finish()?;
        if !rest.is_empty() {
            on_text(&rest);
        }
        Ok(stop)
    }

    fn run(&self, tokens: &[u32], all: bool) -> Result<Vec<f32>, SampleError> {
        let mut input = None;
        for stage in &self.stages {
            match stage.infer(tokens, 1, input.as_ref(), all)? {
                Inferred::Message(message) => input = Some(message),
                Inferred::Logits(logits) => return Ok(logits),
            }
        }
        Err(SampleError::Stages)
    }
}

fn check(options: &SampleOptions) -> Result<(), SampleError> {
    let bad = |key, value: String, allowed: &str| {
        Err(SampleError::Option { key, value, allowed: allowed.to_owned() })
    };
    let SampleOptions { temperature, top_k, top_p, max_tokens, .. } = *options;
    if !(0.0..=100.0).contains(&temperature) {
        return bad("temperature", temperature.to_string(), "choose 0 to 100");
    }
    if top_k == Some(0) {
        return bad("top_k", "0".to_owned(), "choose at least 1");
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return bad("top_p", top_p.to_string(), "choose above 0 up to 1");
    }
    if max_tokens > MAX_SAMPLE_TOKENS {
        return bad("max_tokens", max_tokens.to_string(), &format!("choose at most {MAX_SAMPLE_TOKENS}"));
    }
    Ok(())
}

/// One token; `dice` is uniform in [0, 1). Ties go to the lower id, so a seed means the same everywhere.
fn draw(logits: &[f32], options: &SampleOptions, dice: f32) -> u32 {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |id: u32| logits[id as usize];
    order.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)).then(a.cmp(&b)));
    if options.temperature == 0.0 {
        return order[0];
    }
    order.truncate(options.top_k.unwrap_or(usize::MAX));
    let best = logit(order[0]);
    let weight = |id: u32| f64::from((logit(id) - best) / options.temperature).exp();
    let weights: Vec<f64> = order.iter().map(|&id| weight(id)).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = 0;
    let mut share = 0.0;
    while kept < weights.len() && share < f64::from(options.top_p) * total {
        share += weights[kept];
        kept += 1;
    }
    let mut left = f64::from(dice) * share;
    for (id, weight) in order.iter().zip(&weights).take(kept) {
        left -= weight;
        if left < 0.0 {
            return *id;
        }
    }
    order[kept - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, 2.0];

    fn shares(options: &SampleOptions) -> [f64; 4] {
        let mut counts = [0.0; 4];
        for i in 0..10_000 {
            counts[draw(&LOGITS, options, i as f32 / 10_000.0) as usize] += 1e-4;
        }
        counts
    }

    fn options(temperature: f32, top_k: Option<usize>, top_p: f32) -> SampleOptions {
        SampleOptions { temperature, top_k, top_p, ..SampleOptions::default() }
    }

    #[test]
    fn shares_are_those_of_the_softmax() {
        let total: f64 = LOGITS.iter().map(|&x| f64::from(x).exp()).sum();
        for (share, logit) in shares(&options(1.0, None, 1.0)).iter().zip(LOGITS) {
            assert!((share - f64::from(logit).exp() / total).abs() < 1e-3);
        }
    }

    #[test]
    fn limits_keep_the_likeliest_and_ties_go_to_the_lower_id() {
        assert_eq!(shares(&options(0.0, None, 1.0)).map(f64::round), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(shares(&options(1.0, Some(1), 1.0)).map(f64::round), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(shares(&options(1.0, None, 0.1)).map(f64::round), [0.0, 1.0, 0.0, 0.0]);
        let two = shares(&options(1.0, Some(2), 1.0));
        assert!(two[0] + two[2] == 0.0 && (two[1] - 0.5).abs() < 1e-3);
        assert!((shares(&options(1.0, None, 0.9))[2] - 0.155).abs() < 1e-2);
    }

    #[test]
    fn options_outside_their_range_are_named() {
        for (bad, key) in [
            (options(-1.0, None, 1.0), "temperature"),
            (options(f32::NAN, None, 1.0), "temperature"),
            (options(1.0, Some(0), 1.0), "top_k"),
            (options(1.0, None, 0.0), "top_p"),
            (SampleOptions { max_tokens: usize::MAX, ..SampleOptions::default() }, "max_tokens"),
        ] {
            assert!(check(&bad).unwrap_err().to_string().starts_with(key));
        }
    }
}
