//! Competitions around any measurable objective: a declared evaluator measures what entries answer.

use arena::measure::{Failure, Measures, Outcome};
use arena::spec::CompetitionSpec;
use shoal_judge::{Case, Code, Input, JudgeError};
use wire::Hash;

use super::bench::{COPY, component, judge, packed};

fn spec(evaluator: &[u8]) -> CompetitionSpec {
    let text = format!(
        "name = \"any\"\nkind = \"program\"\n[takeover]\nalpha_ppm = 0\n[schedule]\nstart = \"2026-01-13T00:00:00Z\"\ndays = 2\n[inputs]\nitems = 3\ncode = \"{}\"\n[resources]\nfuel = 100000000\n",
        Hash::of(evaluator)
    );
    CompetitionSpec::parse(&text).unwrap()
}

/// Measures how many bytes an answer has, in whole units; as a generator it gives the index in 8 bytes.
fn evaluator() -> Vec<u8> {
    let eight = "(local $at i32) (local.set $at (call $alloc (i32.const 8)))";
    let measure = format!(
        "{eight} (i64.store (local.get $at) (i64.mul (i64.const 1000000000)
            (i64.extend_i32_u (i32.sub (i32.sub (local.get $length) (i32.const 8)) (i32.load (local.get $data))))))
         (call $answer (local.get $at) (i32.const 8))"
    );
    let generate = format!(
        "{eight} (i64.store (local.get $at) (i64.extend_i32_u (i32.load offset=32 (local.get $data))))
         (call $answer (local.get $at) (i32.const 8))"
    );
    packed("", &measure, &generate)
}

fn case<'a>(spec: &'a CompetitionSpec, entry: &'a [u8], evaluator: &'a [u8]) -> Case<'a> {
    Case {
        spec,
        seed: Hash::of(b"seed"),
        entry: component(entry),
        baseline: None,
        reference: Some(Code::reference(evaluator).unwrap()),
        environment: None,
    }
}

#[test]
fn the_evaluator_measures_what_an_entry_answers() {
    let evaluator = evaluator();
    let spec = spec(&evaluator);
    // Answers with half of the input.
    let entry =
        packed("", "(call $answer (local.get $data) (i32.shr_u (local.get $length) (i32.const 1)))", COPY);
    let case = case(&spec, &entry, &evaluator);
    let inputs = judge().generate(&case).unwrap();
    assert_eq!(inputs.iter().map(|input| input.bytes[0]).collect::<Vec<_>>(), [0, 1, 2]);
    let evaluation = judge().evaluate(&case, &inputs).unwrap();
    let Outcome::Measured { measures: Measures::Program(items), .. } = &evaluation.verdict.outcome else {
        panic!("{}", String::from_utf8_lossy(&evaluation.log))
    };
    assert!(items.iter().all(|item| item.objective_nano == Some(4_000_000_000) && item.fuel > 0));
}

#[test]
fn an_input_without_an_answer_counts_as_none_and_a_loop_ends_the_entry() {
    let evaluator = evaluator();
    let spec = spec(&evaluator);
    // Fails on the input that is 1.
    let picky = "(if (i32.eq (i32.load (local.get $data)) (i32.const 1)) (then (unreachable)))
        (call $answer (local.get $data) (local.get $length))";
    let entry = packed("", picky, COPY);
    let case = case(&spec, &entry, &evaluator);
    let inputs = judge().generate(&case).unwrap();
    let evaluation = judge().evaluate(&case, &inputs).unwrap();
    let Outcome::Measured { measures: Measures::Program(items), .. } = &evaluation.verdict.outcome else {
        panic!("{}", String::from_utf8_lossy(&evaluation.log))
    };
    let found: Vec<Option<i64>> = items.iter().map(|item| item.objective_nano).collect();
    assert_eq!(found, [Some(8_000_000_000), None, Some(8_000_000_000)]);

    let endless = packed("", "(loop $again (br $again)) (unreachable)", COPY);
    let evaluation = judge().evaluate(&Case { entry: component(&endless), ..case }, &inputs).unwrap();
    assert_eq!(evaluation.verdict.outcome, Outcome::Failed(Failure::Fuel));
}

#[test]
fn a_broken_evaluator_is_no_fault_of_an_entry() {
    let broken = packed("", "(unreachable)", COPY);
    let spec = spec(&broken);
    let entry = packed("", COPY, COPY);
    let inputs = [Input::plain("x", *b"input").unwrap()];
    let error = judge().evaluate(&case(&spec, &entry, &broken), &inputs).unwrap_err();
    assert!(matches!(error, JudgeError::Reference { what: "evaluator", .. }), "{error}");
    let missing = Case { reference: None, ..case(&spec, &entry, &broken) };
    assert!(matches!(judge().evaluate(&missing, &inputs), Err(JudgeError::MissingCode { .. })));
}
