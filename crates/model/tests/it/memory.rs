//! A stage keeps to the memory that it announces. A counting allocator watches; the test runs itself once more, alone
//! in its own process, so that no other test is counted.
#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use super::common::{plan, pool, tokens};
use shoal_model::config::{Cut, Dtype, MemoryNeed, ModelConfig, StageSpec};
use shoal_model::optim::{AdamW, OptimiserConfig};
use shoal_model::stage::{Clip, CpuStage, Output, Stage, StepInput};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: all calls go on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}

const THREADS: usize = 2;
const BATCH: usize = 2;
const IN_FLIGHT: usize = 3;
const ALONE: &str = "SHOAL_TEST_ALONE";

/// Three micro-batches in flight, a step after each backward, or one after all if it `drains`; the peak in bytes.
fn peak(
    spec: &StageSpec,
    input_of: &dyn Fn(u64) -> Option<shoal_model::config::Message>,
    drains: bool,
) -> usize {
    let batch = tokens(&spec.model, BATCH, 1);
    let inputs: Vec<_> = (0..IN_FLIGHT as u64).map(input_of).collect();
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let adamw = OptimiserConfig::Adamw(AdamW::default());
    let mut stage =
        CpuStage::new(spec.clone(), spec.initial_weights(), adamw, pool(THREADS)).expect("possible");
    let mut gradients = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        if let Output::Message(mut message) =
            stage.forward(i as u64, &batch, input.as_ref()).expect("forward")
        {
            message.bytes.fill(0);
            let (_, backward) = spec.cut.message_bytes(&spec.model, BATCH * spec.model.sequence);
            message.bytes.resize(backward, 0);
            if message.shape.len() == 1 {
                message.shape = vec![backward];
            }
            gradients.push(message);
        }
    }
    for i in 0..IN_FLIGHT as u64 {
        stage.backward(i, gradients.first(), true).expect("backward");
        if !drains || i + 1 == IN_FLIGHT as u64 {
            stage.step(StepInput { rate: 1.0, clip: Clip::Off }).expect("a step");
        }
    }
    PEAK.load(Relaxed) - before
}

#[test]
fn a_stage_keeps_to_the_memory_it_announces() {
    if std::env::var_os(ALONE).is_none() {
        let name = "it::memory::a_stage_keeps_to_the_memory_it_announces";
        let exe = std::env::current_exe().expect("this test's own path");
        let run = std::process::Command::new(exe)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .expect("this test once more");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        return;
    }
    let mut model = ModelConfig::preset("tiny").expect("known");
    for (vocab, sequence) in [(512, 256), (6000, 256)] {
        (model.vocab, model.sequence) = (vocab, sequence);
        for cut in [
            Cut::Plain { wire: Dtype::F32 },
            Cut::anchored(256),
            Cut::Bottleneck { width: 16, wire: Dtype::Bf16 },
        ] {
            for spec in plan(&model, cut, 3) {
                // The large vocabulary is about the tail's bands.
                if vocab > 4096 && !spec.is_tail() {
                    continue;
                }
                let need = spec.memory(BATCH, IN_FLIGHT, THREADS);
                let (forward, _) = cut.message_bytes(&model, BATCH * sequence);
                let input = |_: u64| {
                    (!spec.is_head()).then(|| match cut {
                        Cut::Anchored { .. } => shoal_model::config::Message {
                            dtype: Dtype::U8,
                            shape: vec![forward],
                            bytes: vec![0; forward],
                        },
                        Cut::Plain { wire } | Cut::Bottleneck { wire, .. } => shoal_model::config::Message {
                            dtype: wire,
                            shape: vec![BATCH * sequence, forward / wire.bytes() / BATCH / sequence],
                            bytes: vec![0; forward],
                        },
                        Cut::Tabled { .. } | Cut::Nothing { .. } => {
                            unreachable!("not among the cuts of this test")
                        }
                    })
                };
                for (drains, stash) in [(false, need.stash), (true, 0)] {
                    let need = MemoryNeed { stash, ..need };
                    let peak = peak(&spec, &input, drains);
                    let share = peak as f64 / need.total() as f64;
                    println!("{cut:?} stage {} of {vocab}: {peak} of {need:?}: {share:.3}", spec.index);
                    assert!((0.75..=1.0).contains(&share), "stage {}: {peak} bytes of {need:?}", spec.index);
                }
            }
        }
    }
}
