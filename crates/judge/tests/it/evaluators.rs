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

/// As [`evaluator`], with lines of metrics behind the objective.
fn telling(lines: &str) -> Vec<u8> {
    let more = format!("(data (i32.const 1024) \"{}\")", lines.replace('\n', "\\0a"));
    let all = lines.len() + 8;
    let measure = format!(
        "(local $at i32) (local.set $at (call $alloc (i32.const {all})))
         (i64.store (local.get $at) (i64.const 1000000000))
         (memory.copy (i32.add (local.get $at) (i32.const 8)) (i32.const 1024) (i32.const {}))
         (call $answer (local.get $at) (i32.const {all}))",
        lines.len()
    );
    packed(&more, &measure, COPY)
}

#[test]
fn what_an_evaluator_tells_besides_stands_in_the_verdict_and_changes_no_score() {
    let tells = telling("latency_p99 2.5 ms\nhits 1\n");
    let spec = spec(&tells);
    let entry = packed("", COPY, COPY);
    let inputs = [Input::plain("x", *b"input").unwrap(), Input::plain("y", *b"more").unwrap()];
    let found = judge().evaluate(&case(&spec, &entry, &tells), &inputs).unwrap().verdict;
    let metric = |name: &str, unit: &str, nano| arena::account::Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        nano,
    };
    let expected = [metric("latency_p99", "ms", 2_500_000_000), metric("hits", "", 1_000_000_000)];
    assert_eq!(found.account.metrics, expected);
    assert_eq!(found.account.check(), Ok(()));
    assert!(found.account.usage.fuel > 0 && found.account.usage.memory_peak_bytes >= 2 << 16);
    assert!(found.account.machine.sandbox.starts_with("wasmtime"), "{:?}", found.account.machine);
    // Without them the outcome is the same: judges agree whatever is told besides.
    let silent = telling("");
    let quiet = judge().evaluate(&case(&spec, &entry, &silent), &inputs).unwrap().verdict;
    assert_eq!((&quiet.outcome, &quiet.account.metrics), (&found.outcome, &Vec::new()));
    // Nonsense is dropped and told in the log: an entry may have brought it about.
    for lines in ["latency nan", "latency", "Latency 1"] {
        let wrong = telling(lines);
        let nonsense = judge().evaluate(&case(&spec, &entry, &wrong), &inputs).unwrap();
        let log = String::from_utf8_lossy(&nonsense.log).into_owned();
        assert!(log.contains("evaluator| input 0: "), "{log}");
        let found = nonsense.verdict;
        assert_eq!((&found.outcome, found.account.metrics), (&quiet.outcome, Vec::new()), "{lines}");
    }
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
fn an_evaluator_is_asked_without_an_entry() {
    let tells = telling("hits 1\nLOSS 2\n");
    let spec = spec(&tells);
    let input = Input::plain("x", *b"input").unwrap();
    let told = judge().ask_evaluator(&case(&spec, b"", &tells), &input, b"answer").unwrap();
    assert_eq!((told.objective_nano, told.metrics.len()), (Some(1_000_000_000), 1));
    assert!(told.wrong.len() == 1 && told.wrong[0].contains("LOSS"), "{:?}", told.wrong);
    let broken = packed("", "(unreachable)", COPY);
    let error = judge().ask_evaluator(&case(&spec, b"", &broken), &input, b"answer").unwrap_err();
    assert!(matches!(error, JudgeError::Reference { what: "evaluator", .. }), "{error}");
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
