//! Same bits: split or not, however many threads, again or not.

use super::common::{bits, evaluate, micro, plan, round_trip, stages, tokens};
use shoal_model::config::{Cut, Dtype, Table};
use shoal_model::optim::{AdamW, Muon, OptimiserConfig};
use shoal_model::stage::{Clip, CpuStage, Stage, StepInput, device_class, model_scale};

const PLAIN: Cut = Cut::Plain { wire: Dtype::F32 };

/// Twenty steps in lock-step, two micro-batches each, clipped over the whole model.
fn train(stages: &mut [CpuStage], steps: u64) -> Vec<f32> {
    let model = micro();
    let mut losses = Vec::new();
    for step in 0..steps {
        for part in 0..2 {
            let micro_batch = 2 * step + part;
            losses.push(round_trip(stages, micro_batch, &tokens(&model, 2, micro_batch)).0);
        }
        let scale = model_scale(stages.iter().flat_map(Stage::square_sums), 0.5);
        assert!(scale < 1.0, "the limit is low enough to clip");
        for stage in stages.iter_mut() {
            let input = StepInput { rate: 1.0, clip: Clip::Scale(scale) };
            assert_eq!(stage.step(input).expect("a step").accumulated, 2);
        }
    }
    losses
}

#[test]
fn a_plain_split_equals_the_whole_model_bit_for_bit_after_20_steps() {
    for optimiser in [OptimiserConfig::Adamw(AdamW::default()), OptimiserConfig::Muon(Muon::default())] {
        let mut whole = stages(&plan(&micro(), PLAIN, 1), optimiser, 1);
        let mut split = stages(&plan(&micro(), PLAIN, 3), optimiser, 1);
        let (want, got) = (train(&mut whole, 20), train(&mut split, 20));
        assert_eq!(bits(&want), bits(&got));
        let joined: Vec<f32> = split.iter().flat_map(|s| s.weights().to_vec()).collect();
        assert!(bits(&joined) == bits(whole[0].weights()));
        assert!(want[39] < want[0], "it learns: {} to {}", want[0], want[39]);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let mut model = micro();
    // Wide and long enough for several tiles of every kernel.
    (model.d_model, model.ffn, model.vocab, model.sequence, model.blocks) = (256, 300, 600, 300, 2);
    let cut = Cut::Anchored { width: 16, bits: 4, table: Table::Factorised { rank: 8 } };
    let run = |threads: usize| {
        let mut stages = stages(&plan(&model, cut, 2), OptimiserConfig::Muon(Muon::default()), threads);
        let mut out = Vec::new();
        for micro_batch in 0..2 {
            let (loss, messages) = round_trip(&mut stages, micro_batch, &tokens(&model, 2, micro_batch));
            out.push(loss.to_bits());
            out.extend(messages.iter().flat_map(|m| m.bytes.iter().map(|&b| u32::from(b))));
        }
        for stage in &mut stages {
            out.extend(bits(stage.gradient()));
            stage.step(StepInput { rate: 1.0, clip: Clip::Slice { limit: 1.0 } }).expect("a step");
            out.extend(bits(stage.weights()));
        }
        out
    };
    let want = run(1);
    for threads in [2, 3, 7] {
        assert!(run(threads) == want, "{threads} threads");
    }
    // FNV-1a.
    let hash = want.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        (hash ^ u64::from(*word)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let class = device_class();
    if let Some((_, known)) = KNOWN.iter().find(|(known, _)| *known == class) {
        assert!(
            hash == *known,
            "{class} computes other bits now: raise KERNELS, and write down {hash:#018x}"
        );
    }
}

/// What is computed above, by device class. Nodes of one class hold each other to every bit, also nodes of different builds.
const KNOWN: [(&str, u64); 1] = [("cpu-1 gemm-0.19.0 avx512", 0x1d1f_6e27_ed9c_ef71)];

#[test]
fn the_device_class_names_the_version_of_gemm_that_is_built_in() {
    let class = device_class();
    let version =
        class.split_once("gemm-").and_then(|(_, rest)| rest.split(' ').next()).expect("it is named");
    let locked = include_str!("../../../../Cargo.lock");
    assert!(locked.contains(&format!("name = \"gemm\"\nversion = \"{version}\"")), "{class}");
}

#[test]
fn evaluation_has_the_loss_of_forward() {
    let model = micro();
    for cut in [PLAIN, Cut::Bottleneck { width: 8, wire: Dtype::Bf16 }, Cut::anchored(64)] {
        let mut stages = stages(&plan(&model, cut, 3), OptimiserConfig::default(), 2);
        let batch = tokens(&model, 3, 1);
        let want = evaluate(&stages, &batch);
        let (got, _) = round_trip(&mut stages, 0, &batch);
        assert_eq!(want.to_bits(), got.to_bits());
    }
}

/// A step between forward and backward: the gradient is that of the old weights.
#[test]
fn backward_uses_the_version_of_its_forward() {
    let model = micro();
    let spec = plan(&model, PLAIN, 1);
    let (first, second) = (tokens(&model, 2, 1), tokens(&model, 2, 2));
    let mut plain = stages(&spec, OptimiserConfig::default(), 2);
    round_trip(&mut plain, 0, &first);
    let want = bits(plain[0].gradient());

    let mut stage = stages(&spec, OptimiserConfig::default(), 2).remove(0);
    stage.forward(0, &first, None).expect("forward");
    stage.forward(1, &second, None).expect("forward");
    stage.backward(1, None, true).expect("backward");
    let before = stage.weights().to_vec();
    stage.step(StepInput { rate: 1.0, clip: Clip::Off }).expect("step");
    assert_ne!(before, stage.weights());
    stage.backward(0, None, true).expect("backward");
    assert!(bits(stage.gradient()) == want);
    assert_eq!(stage.open_graphs(), 0);
}

#[test]
fn without_accumulation_only_the_message_comes_back() {
    let model = micro();
    let cut = Cut::anchored(64);
    let mut stages = stages(&plan(&model, cut, 2), OptimiserConfig::default(), 2);
    let batch = tokens(&model, 2, 4);
    let (_, messages) = round_trip(&mut stages, 9, &batch);
    let before = bits(stages[1].gradient());
    stages[1].forward(9, &batch, Some(&messages[0])).expect("forward");
    let again = stages[1].backward(9, None, false).expect("backward").expect("a message");
    assert_eq!(again, messages[1], "a replay of the same micro-batch gives the same bytes");
    assert_eq!(stages[1].accumulated(), 1);
    assert!(bits(stages[1].gradient()) == before);
    stages[1].forward(10, &batch, Some(&messages[0])).expect("forward");
    let other = stages[1].backward(10, None, false).expect("backward").expect("a message");
    assert_ne!(other, messages[1], "another micro-batch rounds otherwise");
}

/// Moments and weights carried over to a fresh stage go on with the same bits.
#[test]
fn a_stage_restored_from_weights_and_moments_goes_on_the_same() {
    let specs = plan(&micro(), PLAIN, 1);
    let mut stage = stages(&specs, OptimiserConfig::default(), 1);
    train(&mut stage, 2);
    let mut restored = stages(&specs, OptimiserConfig::default(), 1);
    restored[0].set_weights(stage[0].weights()).expect("fits");
    restored[0].set_moments(stage[0].moments()).expect("fits");
    assert_eq!(train(&mut stage, 2), train(&mut restored, 2));
    assert!(bits(stage[0].weights()) == bits(restored[0].weights()));
}

/// Buffers are used again with what the last pass left in them.
#[test]
fn other_passes_between_do_not_change_a_bit() {
    let model = micro();
    let specs = plan(&model, PLAIN, 1);
    let mut quiet = stages(&specs, OptimiserConfig::default(), 2);
    let mut busy = stages(&specs, OptimiserConfig::default(), 2);
    let batch = tokens(&model, 2, 1);
    for stage in &busy {
        stage.evaluate(&tokens(&model, 5, 2), None).expect("evaluate");
        stage.infer(&batch[..17], 1, None, false).expect("infer");
    }
    round_trip(&mut quiet, 0, &batch);
    round_trip(&mut busy, 0, &batch);
    assert!(bits(quiet[0].gradient()) == bits(busy[0].gradient()));
}
