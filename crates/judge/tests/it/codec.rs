//! Codecs that work: what is measured is what they did.

use arena::measure::{Measures, Outcome};
use arena::rule::{Facts, Scoring};
use shoal_judge::baseline::{BASELINES, zstd};
use shoal_judge::input::{Direction, to_bf16};
use shoal_judge::{Evaluation, Input, synthetic};
use wire::Hash;

use super::bench::{COPY, case, component, evaluate, inputs, judge, packed, small_spec};

fn scoring(evaluation: &Evaluation, code_bytes: usize) -> Scoring {
    let Outcome::Measured { measures, .. } = &evaluation.verdict.outcome else {
        panic!("{:?}: {}", evaluation.verdict.outcome, String::from_utf8_lossy(&evaluation.log))
    };
    measures.check().unwrap();
    let wall = evaluation.verdict.wall;
    let facts = Facts { measures, code_bytes: code_bytes as u64, wall, baseline_ns: None };
    small_spec().rule().judge(&facts)
}

#[test]
fn every_baseline_keeps_its_promise() {
    let (spec, inputs) = (small_spec(), inputs(3));
    for baseline in &BASELINES {
        let evaluation = evaluate(&spec, component(baseline.component), None, &inputs);
        let found = scoring(&evaluation, baseline.component.len());
        let figures = found.figures.unwrap();
        assert!(figures.ratio > 1.0, "{} {figures:?}", baseline.name);
        assert!(found.similarity_min_ppb >= 990_000_000, "{} {found:?}", baseline.name);
        let Outcome::Measured { measures: Measures::Codec(items), .. } = &evaluation.verdict.outcome else {
            panic!("not measured")
        };
        assert_eq!(items.iter().all(|item| item.exact), baseline.lossless, "{}", baseline.name);
        assert!(items.iter().all(|item| item.fuel > 1000));
    }
}

#[test]
fn what_is_measured_is_equal_at_every_judge_and_in_every_run() {
    let (spec, inputs) = (small_spec(), inputs(3));
    let entry = component(shoal_judge::baseline::named("context").unwrap().component);
    let first = evaluate(&spec, entry, Some(component(zstd().component)), &inputs);
    let again = evaluate(&spec, entry, None, &inputs);
    assert_eq!(first.verdict.outcome, again.verdict.outcome);
    // Another judge on another machine has the same seed, or the calls come in another order.
    let mut other = case(&spec, entry, None);
    other.seed = Hash::of(b"another order");
    assert_eq!(judge().evaluate(&other, &inputs).unwrap().verdict.outcome, first.verdict.outcome);
}

#[test]
fn bytes_and_fuel_are_the_entrys_own() {
    let (spec, inputs) = (small_spec(), inputs(2));
    let entry = packed("", COPY, COPY);
    let evaluation = evaluate(&spec, component(&entry), None, &inputs);
    let Outcome::Measured { measures: Measures::Codec(items), .. } = &evaluation.verdict.outcome else {
        panic!("{}", String::from_utf8_lossy(&evaluation.log))
    };
    for (item, input) in items.iter().zip(&inputs) {
        assert_eq!(item.original_bytes, input.bytes.len() as u64);
        assert_eq!(item.compressed_bytes, item.original_bytes);
        assert!(item.exact);
        assert!(item.fuel < 10_000, "{}", item.fuel);
    }
}

#[test]
fn a_loss_is_measured_not_believed() {
    let (spec, inputs) = (small_spec(), inputs(2));
    // Half of the bytes, the other half comes back as zeros.
    let half = "(call $answer (local.get $data) (i32.shr_u (local.get $length) (i32.const 1)))";
    let double = "(local $at i32) (local.set $at (call $alloc (i32.mul (local.get $length) (i32.const 2))))
        (memory.copy (local.get $at) (local.get $data) (local.get $length))
        (call $answer (local.get $at) (i32.mul (local.get $length) (i32.const 2)))";
    let evaluation = evaluate(&spec, component(&packed("", half, double)), None, &inputs);
    let found = scoring(&evaluation, 1000);
    assert!(found.similarity_min_ppb < 900_000_000 && found.score.raw == 0.0, "{found:?}");
    assert_eq!(found.failed_items, 2);
}

#[test]
fn activations_and_gradients_are_told_apart() {
    let spec = small_spec();
    // Half of what is called backward is lost, nothing of the rest.
    let compress = "(call $answer (local.get $data) (i32.shr_u (local.get $length) (local.get $direction)))";
    let decompress =
        "(local $at i32) (local.set $at (call $alloc (i32.shl (local.get $length) (local.get $direction))))
        (memory.copy (local.get $at) (local.get $data) (local.get $length))
        (call $answer (local.get $at) (i32.shl (local.get $length) (local.get $direction)))";
    let entry = packed("", compress, decompress);
    let values = |value: f32| to_bf16(&[value; 64]);
    let input = |direction, value| Input::new("x", Some(vec![8, 8]), direction, values(value)).unwrap();
    let mixed =
        [input(Direction::Forward, 1.0), input(Direction::Backward, 2.0), input(Direction::Backward, 3.0)];
    let found = evaluate(&spec, component(&entry), None, &mixed);
    let account = &found.verdict.account;
    assert_eq!(account.check(), Ok(()));
    let told: Vec<(&str, i64)> =
        account.metrics.iter().map(|metric| (metric.name.as_str(), metric.nano)).collect();
    assert!(told.iter().map(|(name, _)| *name).eq(arena::account::CODEC_METRICS.map(|(name, _)| name)));
    assert_eq!((told[0].1, told[1].1, told[2].1), (1_000_000_000, 1_000_000_000, 2_000_000_000));
    assert!(told[3].1 > 0 && told[3].1 < 500_000_000, "{told:?}");
    assert!(String::from_utf8_lossy(&found.log).contains("metric ratio_backward: 2"));
    // Of one kind only there is nothing to tell apart; gradients alone are called what they are.
    let names = |inputs: &[Input]| {
        let found = evaluate(&spec, component(&entry), None, inputs);
        found.verdict.account.metrics.iter().map(|metric| metric.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&mixed[..1]), Vec::<String>::new());
    assert_eq!(names(&mixed[1..]), ["ratio_backward", "similarity_backward"]);
}

#[test]
fn a_spec_that_pins_another_runtime_is_refused() {
    let mut spec = small_spec();
    spec.resources.runtime = Some(Hash::of(b"another"));
    let entry = packed("", COPY, COPY);
    let error = judge().evaluate(&case(&spec, component(&entry), None), &inputs(1)).unwrap_err();
    assert!(error.to_string().contains("pins runtime"), "{error}");
    spec.resources.runtime = Some(shoal_judge::Judge::runtime_hash());
    judge().evaluate(&case(&spec, component(&entry), None), &inputs(1)).unwrap();
}

#[test]
fn generated_inputs_follow_from_the_seed() {
    let spec = small_spec();
    let entry = packed("", COPY, COPY);
    let case = case(&spec, component(&entry), None);
    let made = judge().generate(&case).unwrap();
    assert_eq!(made, synthetic::tensors(&Hash::of(b"seed"), 3));
    // A generator of one's own: rows and columns, then values; here 1 × 4, the index in all of them.
    let generator = packed(
        "",
        COPY,
        "(local $at i32) (local.set $at (call $alloc (i32.const 16)))
         (i32.store (local.get $at) (i32.const 1)) (i32.store offset=4 (local.get $at) (i32.const 4))
         (i32.store offset=8 (local.get $at) (i32.load offset=32 (local.get $data)))
         (i32.store offset=12 (local.get $at) (i32.const 1065369472))
         (call $answer (local.get $at) (i32.const 16))",
    );
    let with = |generator: &[u8]| {
        judge().generate(&shoal_judge::Case { reference: Some(component(generator)), ..case })
    };
    let made = with(&generator).unwrap();
    assert_eq!(made.len(), 3);
    assert_eq!(made[2].shape, [1, 4]);
    assert_eq!(&made[2].bytes[..4], [2, 0, 0, 0]);
    assert!(made.iter().all(|input| input.direction == Direction::Forward));
    // With a head it says which way a tensor goes: here 1 × 4 again, of the direction that the index is.
    let headed = "(local $at i32) (local.set $at (call $alloc (i32.const 32)))
        (i64.store (local.get $at) (i64.load (i32.const 1024)))
        (i32.store offset=8 (local.get $at) (i32.load offset=32 (local.get $data)))
        (i32.store offset=12 (local.get $at) (i32.const 1)) (i32.store offset=16 (local.get $at) (i32.const 4))
        (i32.store offset=20 (local.get $at) (i32.const 0)) (i64.store offset=24 (local.get $at) (i64.const 7))
        (call $answer (local.get $at) (i32.const 32))";
    let magic = "(data (i32.const 1024) \"shoaltn1\")";
    // Of three inputs the last has direction 2, which is none.
    let error = with(&packed(magic, COPY, headed)).unwrap_err().to_string();
    assert!(error.contains("the generator failed") && error.contains("direction 0 or 1"), "{error}");
    let mut two = small_spec();
    two.inputs.items = 2;
    let both = packed(magic, COPY, headed);
    let made = judge().generate(&shoal_judge::Case { spec: &two, reference: Some(component(&both)), ..case });
    let told: Vec<_> =
        made.unwrap().iter().map(|input| (input.direction, input.shape.clone(), input.bytes[0])).collect();
    assert_eq!(told, [(Direction::Forward, vec![1, 4], 7), (Direction::Backward, vec![1, 4], 7)]);
}
