//! What comes from outside is checked, and a refusal changes nothing.

use super::common::{bits, micro, plan, round_trip, stages, tokens};
use shoal_model::config::{Cut, Dtype, MessageError, StageSpec};
use shoal_model::optim::OptimiserConfig;
use shoal_model::stage::{Clip, CpuStage, Output, Stage, StageError, StepInput};

fn pair() -> Vec<CpuStage> {
    stages(&plan(&micro(), Cut::anchored(64), 2), OptimiserConfig::default(), 1)
}

#[test]
fn bad_messages_are_refused_and_the_graph_stays_open() {
    let (mut stages, batch) = (pair(), tokens(&micro(), 2, 0));
    let Output::Message(good) = stages[0].forward(0, &batch, None).expect("forward") else { panic!() };
    for change in 0..4 {
        let mut bad = good.clone();
        match change {
            0 => drop(bad.bytes.pop()),
            1 => bad.shape[0] += 1,
            2 => bad.dtype = Dtype::F32,
            _ => bad.shape = vec![usize::MAX, usize::MAX],
        }
        let refused = stages[1].forward(0, &batch, Some(&bad));
        assert!(matches!(refused, Err(StageError::Message(_))), "{refused:?}");
        assert_eq!(stages[1].open_graphs(), 0);
    }
    stages[1].forward(0, &batch, Some(&good)).expect("forward");
    let gradient = stages[1].backward(0, None, true).expect("backward").expect("a message");
    let mut bad = gradient.clone();
    let last = bad.bytes.len() - 1;
    bad.bytes[last] = 0xff;
    assert!(matches!(
        stages[0].backward(0, Some(&bad), true),
        Err(StageError::Message(MessageError::Value { .. }))
    ));
    assert_eq!((stages[0].open_graphs(), stages[0].accumulated()), (1, 0));
    stages[0].backward(0, Some(&gradient), true).expect("the good one still fits");
}

#[test]
fn what_was_set_aside_must_be_restored_first() {
    let (mut stages, batch) = (pair(), tokens(&micro(), 2, 0));
    stages[0].set_aside(0);
    assert!(matches!(stages[0].restore(0, &batch, None), Err(StageError::NoGraph(0))));
    let Output::Message(message) = stages[0].forward(0, &batch, None).expect("forward") else { panic!() };
    stages[1].forward(0, &batch, Some(&message)).expect("forward");
    let gradient = stages[1].backward(0, None, true).expect("backward").expect("a message");
    stages[0].set_aside(0);
    assert_eq!(stages[0].open_graphs(), 0);
    assert!(matches!(stages[0].backward(0, Some(&gradient), true), Err(StageError::SetAside(0))));
    assert!(matches!(stages[0].forward(0, &batch, None), Err(StageError::GraphOpen(0))));
    assert!(matches!(stages[0].restore(0, &batch, Some(&message)), Err(StageError::Wiring(_))));
    stages[0].restore(0, &batch, None).expect("restored");
    stages[0].backward(0, Some(&gradient), true).expect("backward");
    stages[0].forward(1, &batch, None).expect("forward");
    stages[0].set_aside(1);
    stages[0].discard(1);
    assert!(matches!(stages[0].restore(1, &batch, None), Err(StageError::NoGraph(1))));
}

#[test]
fn not_finite_numbers_are_refused() {
    for wire in [Dtype::F32, Dtype::Bf16] {
        let specs = plan(&micro(), Cut::Plain { wire }, 2);
        let mut stages = stages(&specs, OptimiserConfig::default(), 1);
        let batch = tokens(&micro(), 1, 0);
        let Output::Message(mut message) = stages[0].forward(0, &batch, None).expect("forward") else {
            panic!()
        };
        let n = wire.bytes();
        message.bytes[2 * n - 1] = 0x7f;
        message.bytes[2 * n - 2] = 0xc0;
        let refused = stages[1].forward(0, &batch, Some(&message));
        assert!(matches!(refused, Err(StageError::Message(MessageError::Value { index: 1 }))), "{refused:?}");
    }
}

#[test]
fn wrong_wiring_and_tokens_are_refused() {
    let (mut stages, model) = (pair(), micro());
    let batch = tokens(&model, 2, 0);
    let Output::Message(message) = stages[0].forward(0, &batch, None).expect("forward") else { panic!() };
    assert!(matches!(stages[0].forward(0, &batch, None), Err(StageError::GraphOpen(0))));
    assert!(matches!(stages[0].forward(1, &batch, Some(&message)), Err(StageError::Wiring(_))));
    assert!(matches!(stages[1].forward(1, &batch, None), Err(StageError::Wiring(_))));
    assert!(matches!(stages[0].backward(0, None, true), Err(StageError::Wiring(_))));
    assert!(matches!(stages[0].backward(7, None, true), Err(StageError::NoGraph(7))));
    assert!(matches!(stages[0].forward(1, &batch[1..], None), Err(StageError::Tokens { .. })));
    assert!(matches!(stages[0].forward(1, &[], None), Err(StageError::Tokens { .. })));
    let mut bad = batch.clone();
    bad[3] = model.vocab as u32;
    let text = stages[0].forward(1, &bad, None).expect_err("a token too high").to_string();
    assert_eq!(text, "token: 300 (must be below the vocabulary of 300)");
    stages[0].discard(0);
    assert_eq!(stages[0].open_graphs(), 0);
    assert!(stages[0].infer(&[], 1, None, false).is_err());
    assert!(stages[0].infer(&batch[..65], 1, None, false).is_err());
}

#[test]
fn bad_weights_and_steps_are_refused() {
    let mut stages = pair();
    let before = bits(stages[0].weights());
    let mut flat = stages[0].weights().to_vec();
    flat[5] = f32::NAN;
    assert!(matches!(stages[0].set_weights(&flat), Err(StageError::NotFinite { index: 5 })));
    assert!(matches!(stages[0].set_weights(&flat[1..]), Err(StageError::Length { .. })));
    let step = StepInput { rate: 1.0, clip: Clip::Off };
    assert!(matches!(stages[0].step(step), Err(StageError::NoGradient)));
    round_trip(&mut stages, 0, &tokens(&micro(), 1, 0));
    let diverged = StepInput { rate: 1.0, clip: Clip::Scale(f32::INFINITY) };
    assert!(matches!(stages[0].step(diverged), Err(StageError::Diverged)));
    assert!(bits(stages[0].weights()) == before);
}

#[test]
fn impossible_stages_are_refused() {
    let mut spec: StageSpec = plan(&micro(), Cut::anchored(64), 2).remove(0);
    spec.model.heads = 3;
    assert!(CpuStage::new(spec, Vec::new(), OptimiserConfig::default(), super::common::pool(1)).is_err());
}
