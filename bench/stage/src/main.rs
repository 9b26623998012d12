//! Times forward + backward + AdamW of one stage of our CPU kernels, and prints its peak memory.
//!
//! Speaks a line protocol so that `run.py` can alternate it with the peer in the same run: every line "step" on stdin
//! runs one step and answers with seconds (all, forward, backward, processor); "end" answers with the peak resident set in bytes.

use model::config::{Cut, Dtype, Message, ModelConfig, StageSpec};
use model::optim::{AdamW, OptimiserConfig};
use model::stage::{Clip, CpuStage, Output, Stage, StepInput};
use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: usize| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (sequence, batch, threads) = (number(1, 256), number(2, 4), number(3, 2));
    let model = ModelConfig {
        vocab: 64,
        d_model: 512,
        blocks: 6,
        heads: 8,
        kv_heads: 8,
        ffn: 1376,
        sequence,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
    };
    // The middle stage of three: four blocks and nothing else.
    let plain = Cut::Plain { wire: Dtype::F32 };
    let spec = StageSpec::plan_at(&model, plain, &[1, 5], [1; 32]).expect("a possible plan").remove(1);
    let need = spec.memory(batch, 1, threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let weights = spec.initial_weights();
    let adamw = OptimiserConfig::Adamw(AdamW { rate: 1e-4, ..AdamW::default() });
    let mut stage = CpuStage::new(spec, weights, adamw, Arc::new(pool)).expect("a possible stage");
    let rows = batch * sequence;
    let numbers = |seed: u32| -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..rows * 512).map(|_| next()).collect()
    };
    let input = Message::from_f32(Dtype::F32, vec![rows, 512], &numbers(1));
    let gradient = Message::from_f32(Dtype::F32, vec![rows, 512], &numbers(2));
    let tokens = vec![0u32; batch * (sequence + 1)];
    eprintln!("announced: {} bytes {need:?}", need.total());
    let mut micro_batch = 0;
    for line in std::io::stdin().lock().lines() {
        if line.expect("stdin") != "step" {
            break;
        }
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let Output::Message(_) = stage.forward(micro_batch, &tokens, Some(&input)).expect("forward") else {
            panic!("a middle stage gives a message")
        };
        let forward = start.elapsed();
        stage.backward(micro_batch, Some(&gradient), true).expect("backward");
        let backward = start.elapsed() - forward;
        stage.step(StepInput { rate: 1.0, clip: Clip::Off }).expect("a step");
        let all = start.elapsed();
        micro_batch += 1;
        let cpu = cpu_seconds() - cpu;
        println!("{} {} {} {cpu}", all.as_secs_f64(), forward.as_secs_f64(), backward.as_secs_f64());
    }
    println!("{}", peak_bytes());
}

/// Processor time of all threads, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Peak resident set of this process.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("VmHWM: 0 kB");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}
