//! Our side of `tests/interop/check_hf.py`: makes a folder for `transformers`, or runs a folder that it made.
//!
//! `interop make FOLDER` saves a random model, the logits of some tokens and the ids of some texts;
//! `interop logits FOLDER` reads `tokens.json` there and writes the logits of these tokens.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rayon::ThreadPoolBuilder;
use serde_json::json;
use shoal_model::{
    checkpoint::{Checkpoint, Export, TensorRef, write_tensors},
    config::{Cut, Dtype, ModelConfig, RopeScaling, StageSpec},
    sample::Sampler,
    tokenizer::Tokenizer,
};

const TEXTS: [&str; 5] = [
    "Hello, world!",
    "Grüße, 世界 😀",
    "  two  spaces\n\n\ttab\r\n",
    "fn main() { 1 + 2 }",
    "\u{0}\u{7f}\u{a0}",
];
const LOGITS: &str = "logits.safetensors";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", folder] => make(Path::new(folder)),
        ["logits", folder] => {
            let folder = PathBuf::from(folder);
            let tokens: Vec<u32> = serde_json::from_slice(&fs::read(folder.join("tokens.json"))?)?;
            write_logits(&folder, &tokens, Tokenizer::Bytes)
        }
        _ => Err("usage: interop make FOLDER | interop logits FOLDER".into()),
    }
}

/// Two models: one on bytes, split in three and scaled RoPE; one on a trained tokenizer.
fn make(folder: &Path) -> Result<(), Box<dyn Error>> {
    let micro = ModelConfig::preset("micro").ok_or("no such preset")?;
    let scaling = RopeScaling { original_sequence: 16, factor: 8.0, ..RopeScaling::LLAMA_3 };
    let scaled = ModelConfig { rope_scaling: Some(scaling), rope_theta: 500_000.0, ..micro.clone() };
    let trained = Tokenizer::train(TEXTS.iter().copied().chain(["the cat sat on the mat"; 3]), 300)?;
    for (name, model, stages, tokenizer) in
        [("bytes", scaled, 3, Tokenizer::Bytes), ("trained", micro, 1, trained)]
    {
        let folder = folder.join(name);
        let specs = StageSpec::plan(&model, Cut::Plain { wire: Dtype::F32 }, stages, [11; 32])?;
        let weights: Vec<Vec<f32>> = specs.iter().map(lively_weights).collect();
        let slices: Vec<_> = weights.iter().map(Vec::as_slice).collect();
        Export { stages: &specs, weights: &slices, tokenizer: &tokenizer, dtype: Dtype::F32 }
            .save(&folder)?;
        let tokens: Vec<u32> = (0..model.sequence as u32).map(|i| i * 37 % tokenizer.vocab()).collect();
        fs::write(folder.join("tokens.json"), json!(tokens).to_string())?;
        let texts: Result<Vec<_>, _> =
            TEXTS.iter().map(|text| tokenizer.encode(text).map(|ids| json!([text, ids]))).collect();
        let end = tokenizer.end_of_text();
        fs::write(folder.join("texts.json"), json!({ "end": end, "texts": texts? }).to_string())?;
        write_logits(&folder, &tokens, tokenizer)?;
    }
    Ok(())
}

/// Matrices ten times as large as at the start of a run, gains from 0.5 to 1.5: logits are far from zero, and a
/// gain in the wrong place shows.
fn lively_weights(spec: &StageSpec) -> Vec<f32> {
    let mut weights = spec.initial_weights();
    for parameter in spec.layout() {
        let is_gain = parameter.shape.len() == 1;
        for (i, x) in weights[parameter.range()].iter_mut().enumerate() {
            *x *= if is_gain { 0.5 + (i * 7 % 11) as f32 / 11.0 } else { 10.0 };
        }
    }
    weights
}

/// Writes `[time, vocab]` logits of `tokens` by the model in `folder`, as a single stage.
fn write_logits(folder: &Path, tokens: &[u32], tokenizer: Tokenizer) -> Result<(), Box<dyn Error>> {
    let pool = Arc::new(ThreadPoolBuilder::new().num_threads(2).build()?);
    let checkpoint = Checkpoint::open(folder)?;
    let specs = checkpoint.stages()?;
    let weights: Result<Vec<_>, _> = specs.iter().map(|spec| checkpoint.weights(spec)).collect();
    let logits = Sampler::new(&specs, weights?, tokenizer, &pool)?.logits(tokens)?;
    let shape = [tokens.len(), checkpoint.model().vocab];
    let tensor = TensorRef { name: "logits", shape: &shape, numbers: &logits };
    Ok(write_tensors(&folder.join(LOGITS), &[tensor], Dtype::F32)?)
}
