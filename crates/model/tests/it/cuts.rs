//! What goes over a cut: exact sizes, all kinds train.

use super::common::{bits, evaluate, micro, plan, round_trip, stages, tokens};
use shoal_model::config::{Cut, Dtype, Message, Table};
use shoal_model::optim::OptimiserConfig;
use shoal_model::stage::{Clip, Output, Stage, StepInput};

fn all_cuts() -> Vec<Cut> {
    let anchored = |width, bits, table| Cut::Anchored { width, bits, table };
    vec![
        Cut::Plain { wire: Dtype::F32 },
        Cut::Plain { wire: Dtype::Bf16 },
        Cut::Tabled { wire: Dtype::Bf16, table: Table::Full },
        Cut::Bottleneck { width: 16, wire: Dtype::Bf16 },
        Cut::Bottleneck { width: 64, wire: Dtype::F32 },
        anchored(4, 4, Table::Full),
        anchored(16, 8, Table::None),
        anchored(5, 3, Table::Factorised { rank: 16 }),
        anchored(8, 2, Table::Full),
        anchored(8, 1, Table::Full),
        anchored(8, 16, Table::Full),
        Cut::Nothing { table: Table::Full },
        Cut::Nothing { table: Table::Factorised { rank: 16 } },
    ]
}

#[test]
fn messages_are_as_long_as_the_spec_says() {
    let model = micro();
    for cut in all_cuts() {
        let mut stages = stages(&plan(&model, cut, 2), OptimiserConfig::default(), 2);
        let (_, messages) = round_trip(&mut stages, 0, &tokens(&model, 3, 0));
        let (forward, backward) = cut.message_bytes(&model, 3 * model.sequence);
        assert_eq!((messages[0].bytes.len(), messages[1].bytes.len()), (forward, backward), "{cut:?}");
    }
    // 4 numbers of 4 bits: 2 bytes a token, 64 times less than bf16.
    let (forward, _) = Cut::anchored(64).message_bytes(&model, 1000);
    assert_eq!(forward, 2000);
}

#[test]
fn every_cut_learns() {
    let model = micro();
    let held_out = tokens(&model, 4, 999);
    for cut in all_cuts() {
        let mut stages = stages(&plan(&model, cut, 3), OptimiserConfig::default(), 2);
        let before = evaluate(&stages, &held_out);
        for step in 0..24 {
            round_trip(&mut stages, step, &tokens(&model, 4, step));
            for stage in &mut stages {
                stage.step(StepInput { rate: 1.0, clip: Clip::Slice { limit: 1.0 } }).expect("a step");
            }
        }
        let after = evaluate(&stages, &held_out);
        assert!(after < before - 0.5, "{cut:?}: {before} to {after}");
    }
}

#[test]
fn a_forward_that_runs_again_gives_the_same_bits_with_the_weights_of_its_time() {
    let model = micro();
    for cut in all_cuts() {
        let specs = plan(&model, cut, 3);
        let mut kept = stages(&specs, OptimiserConfig::default(), 2);
        let mut again = stages(&specs, OptimiserConfig::default(), 2);
        // Two micro-batches under way, a step between their backwards.
        let mut messages = Vec::new();
        for set in [&mut kept, &mut again] {
            let mut inputs: Vec<Vec<Option<Message>>> = vec![vec![None], vec![None]];
            for micro_batch in 0..2_u64 {
                let batch = tokens(&model, 2, micro_batch);
                for stage in set.iter_mut() {
                    let row = &mut inputs[micro_batch as usize];
                    let input = row.last().cloned().flatten();
                    if let Output::Message(message) =
                        stage.forward(micro_batch, &batch, input.as_ref()).expect("forward")
                    {
                        row.push(Some(message));
                    }
                }
            }
            messages.push(inputs);
        }
        assert_eq!(messages[0], messages[1], "{cut:?}");
        for stage in &mut again {
            stage.set_aside(0);
            stage.set_aside(1);
            assert_eq!(stage.open_graphs(), 0);
        }
        for micro_batch in 0..2_u64 {
            let batch = tokens(&model, 2, micro_batch);
            let mut gradient: [Option<Message>; 2] = [None, None];
            for index in (0..3).rev() {
                let input = messages[0][micro_batch as usize][index].as_ref();
                again[index].restore(micro_batch, &batch, input).expect("restored");
                for (set, gradient) in [&mut kept, &mut again].into_iter().zip(&mut gradient) {
                    let given = gradient.take();
                    *gradient = set[index].backward(micro_batch, given.as_ref(), true).expect("backward");
                }
                assert_eq!(gradient[0], gradient[1], "{cut:?}");
                assert_eq!(bits(kept[index].gradient()), bits(again[index].gradient()), "{cut:?}");
                for set in [&mut kept, &mut again] {
                    set[index].step(StepInput { rate: 1.0, clip: Clip::Off }).expect("a step");
                }
                assert_eq!(bits(kept[index].weights()), bits(again[index].weights()), "{cut:?}");
            }
        }
    }
}

#[test]
fn a_stage_that_reads_no_tokens_needs_none() {
    let model = micro();
    let batch = tokens(&model, 3, 0);
    let anchored = Cut::Anchored { width: 5, bits: 3, table: Table::None };
    for cut in [Cut::Plain { wire: Dtype::Bf16 }, Cut::Bottleneck { width: 8, wire: Dtype::F32 }, anchored] {
        let mut stages = stages(&plan(&model, cut, 3), OptimiserConfig::default(), 2);
        let needs: Vec<bool> = stages.iter().map(|s| s.spec().needs_tokens()).collect();
        assert_eq!(needs, [true, false, true]);
        let Output::Message(first) = stages[0].forward(0, &batch, None).expect("forward") else {
            panic!("a message")
        };
        let with = stages[1].forward(0, &batch, Some(&first)).expect("forward");
        let without = stages[1].forward(1, &[], Some(&first)).expect("forward");
        assert_eq!(with, without);
        let mut short = first.clone();
        short.bytes.pop();
        assert!(stages[1].forward(2, &[], Some(&short)).is_err());
    }
    let mut stages = stages(&plan(&model, Cut::anchored(64), 3), OptimiserConfig::default(), 1);
    let Output::Message(first) = stages[0].forward(0, &batch, None).expect("forward") else {
        panic!("a message")
    };
    assert!(stages[1].forward(0, &[], Some(&first)).is_err(), "its table needs the tokens");
}
