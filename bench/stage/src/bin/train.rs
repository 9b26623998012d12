//! Trains a preset on the bytes of a file in one process, stage after stage, and prints loss and processor time.
//!
//!     train FILE PRESET STAGES CUT STEPS THREADS [adamw]
//!
//! CUT: plain, anchored, bottleneck or nothing. The last twelfth of the file is held out.

use model::config::{Cut, Dtype, Message, ModelConfig, StageSpec, Table};
use model::optim::{AdamW, Muon, OptimiserConfig, Schedule};
use model::stage::{Clip, CpuStage, Output, Stage, StepInput, model_scale};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, preset, stages, cut, steps, threads, rest @ ..] = arguments.as_slice() else {
        eprintln!("train FILE PRESET STAGES CUT STEPS THREADS [adamw]");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let model = ModelConfig::preset(preset).expect("a known preset");
    let d = model.d_model;
    let cut = match cut.as_str() {
        "plain" => Cut::Plain { wire: Dtype::F32 },
        "anchored" => Cut::anchored(d),
        "bottleneck" => Cut::Bottleneck { width: (d / 64).max(1), wire: Dtype::Bf16 },
        _ => Cut::Nothing { table: Table::Full },
    };
    let steps = number(steps) as u64;
    let optimiser = if rest.is_empty() {
        OptimiserConfig::Muon(Muon::default())
    } else {
        OptimiserConfig::Adamw(AdamW::default())
    };
    let text = std::fs::read(file).expect("a readable file");
    let (train, held_out) = text.split_at(text.len() / 12 * 11);
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(number(threads)).build().expect("threads"));
    let specs = StageSpec::plan(&model, cut, number(stages), [1; 32]).expect("a possible plan");
    let build = |spec: &StageSpec| {
        CpuStage::new(spec.clone(), spec.initial_weights(), optimiser, Arc::clone(&pool)).expect("a possible stage")
    };
    let mut stages: Vec<CpuStage> = specs.iter().map(build).collect();
    let row = model.sequence + 1;
    let batch = |text: &[u8], seed: usize, n: usize| -> Vec<u32> {
        let start = |i: usize| (seed * n + i).wrapping_mul(2_654_435_761) % (text.len() - row);
        (0..n).flat_map(|i| &text[start(i)..start(i) + row]).map(|&b| u32::from(b)).collect()
    };
    let evaluation = batch(held_out, 0, 64);
    let schedule = Schedule::cosine(steps);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for step in 0..=steps {
        if step % (steps / 10).max(1) == 0 {
            let loss: f32 = evaluation.chunks(8 * row).map(|part| evaluate(&stages, part)).sum::<f32>() / 8.0;
            let busy = cpu_seconds() - cpu;
            let tokens = step as usize * 8 * model.sequence;
            println!(
                "step {step}: held-out loss {loss:.4}, {:.0} s, {busy:.0} s of processors, {:.0} tokens per processor second",
                start.elapsed().as_secs_f64(),
                tokens as f64 / busy
            );
        }
        if step == steps {
            break;
        }
        let tokens = batch(train, step as usize, 8);
        train_one(&mut stages, step, &tokens);
        let scale = model_scale(stages.iter().flat_map(Stage::square_sums), 1.0);
        for stage in &mut stages {
            let input = StepInput { rate: schedule.factor(step), clip: Clip::Scale(scale) };
            stage.step(input).expect("a step");
        }
    }
}

fn train_one(stages: &mut [CpuStage], step: u64, tokens: &[u32]) {
    let mut input: Option<Message> = None;
    for stage in stages.iter_mut() {
        if let Output::Message(message) = stage.forward(step, tokens, input.as_ref()).expect("forward") {
            input = Some(message);
        }
    }
    let mut gradient: Option<Message> = None;
    for stage in stages.iter_mut().rev() {
        gradient = stage.backward(step, gradient.as_ref(), true).expect("backward");
    }
}

fn evaluate(stages: &[CpuStage], tokens: &[u32]) -> f32 {
    let mut input: Option<Message> = None;
    for stage in stages {
        match stage.evaluate(tokens, input.as_ref()).expect("evaluate") {
            Output::Message(message) => input = Some(message),
            Output::Loss(loss) => return loss,
        }
    }
    f32::NAN
}

/// Processor time of all threads, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
