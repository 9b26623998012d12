//! Entries that cheat or break: each ends in its own failure, and the judge goes on.

use arena::measure::{Failure, Outcome};
use shoal_judge::baseline::zstd;

use super::bench::{COPY, component, evaluate, inputs, packed, small_spec};

fn failure_of(entry: &[u8]) -> (Failure, String) {
    let evaluation = evaluate(&small_spec(), component(entry), Some(component(zstd().component)), &inputs(3));
    let log = String::from_utf8(evaluation.log).unwrap();
    match evaluation.verdict.outcome {
        Outcome::Failed(failure) => (failure, log),
        Outcome::Measured { .. } => panic!("measured: {log}"),
    }
}

#[test]
fn each_way_to_break_has_its_name() {
    let loops = "(loop $again (br $again)) (unreachable)";
    let cases: [(&str, Vec<u8>, Failure); 13] = [
        ("endless loop in compress", packed("", loops, COPY), Failure::Fuel),
        ("endless loop in decompress", packed("", COPY, loops), Failure::Fuel),
        ("trap", packed("", "(unreachable)", COPY), Failure::Trap),
        (
            "division by zero",
            packed("", COPY, "(i32.div_u (local.get $length) (i32.const 0))"),
            Failure::Trap,
        ),
        (
            "endless recursion",
            packed("(func $deep (call $deep))", "(call $deep) (unreachable)", COPY),
            Failure::Trap,
        ),
        ("an error of its own", packed("", "(call $error (i32.const 0) (i32.const 5))", COPY), Failure::Trap),
        (
            "memory bomb",
            packed("", "(loop $again (drop (memory.grow (i32.const 256))) (br $again)) (unreachable)", COPY),
            Failure::Memory,
        ),
        (
            "compressed to nothing",
            packed("", "(call $answer (i32.const 0) (i32.const 0))", COPY),
            Failure::Output,
        ),
        (
            "answer outside its memory",
            packed("", "(call $answer (i32.const -16) (i32.const 100000))", COPY),
            Failure::Output,
        ),
        (
            "answer far too long",
            packed(
                "",
                "(drop (memory.grow (i32.const 200))) (call $answer (i32.const 0) (i32.const 10000000))",
                COPY,
            ),
            Failure::OutputTooLarge,
        ),
        (
            "bloated when decompressed",
            packed(
                "",
                COPY,
                "(drop (memory.grow (i32.const 200))) (call $answer (i32.const 0) (i32.const 10000000))",
            ),
            Failure::OutputTooLarge,
        ),
        ("no component", b"\0asm junk".to_vec(), Failure::Invalid),
        ("nothing", Vec::new(), Failure::Invalid),
    ];
    for (name, entry, expected) in cases {
        let (found, log) = failure_of(&entry);
        assert_eq!(found, expected, "{name}: {log}");
        assert!(log.contains("failed: "), "{name}: {log}");
    }
}

#[test]
fn state_does_not_pass_from_call_to_call() {
    // Keeps what it compresses in memory, compresses to one byte, and gives back what it kept.
    let keep = "(memory.copy (i32.const 200000) (local.get $data) (local.get $length))
        (global.set $kept (local.get $length)) (call $answer (i32.const 0) (i32.const 1))";
    let give = "(call $answer (i32.const 200000) (global.get $kept))";
    let entry = packed("(global $kept (mut i32) (i32.const 0))", keep, give);
    // Nothing is there in the other instance: what comes back is empty, so it is like nothing.
    let mut spec = small_spec();
    spec.resources.memory_bytes = 64 << 20;
    let evaluation = evaluate(&spec, component(&entry), None, &inputs(3));
    match evaluation.verdict.outcome {
        Outcome::Measured { measures: arena::measure::Measures::Codec(items), .. } => {
            assert!(items.iter().all(|item| item.similarity_ppb == 0 && !item.exact));
        }
        other => assert_eq!(other, Outcome::Failed(Failure::Trap)),
    }
}

#[test]
fn an_answer_that_is_always_the_same_is_like_nothing() {
    let constant = "(call $answer (i32.const 0) (i32.const 4096))";
    let evaluation = evaluate(&small_spec(), component(&packed("", constant, constant)), None, &inputs(3));
    let Outcome::Measured { measures: arena::measure::Measures::Codec(items), .. } =
        evaluation.verdict.outcome
    else {
        panic!("{}", String::from_utf8_lossy(&evaluation.log))
    };
    assert!(items.iter().all(|item| item.similarity_ppb == 0));
}

#[test]
fn imports_are_forbidden_whatever_they_are() {
    let text = r#"(component
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64))))))"#;
    let (found, log) = failure_of(&wat::parse_str(text).unwrap());
    assert_eq!(found, Failure::Forbidden, "{log}");
    let (found, log) = failure_of(&wat::parse_str("(component)").unwrap());
    assert_eq!(found, Failure::Invalid, "{log}");
}
