//! Time limits on a machine that is busy with something else: no entry fails for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arena::measure::{Failure, Outcome};
use arena::spec::Form;
use shoal_judge::JudgeError;

use super::bench::{COPY, case, component, inputs, judge, packed, spec};
use super::programs::{able, program_spec, server};

/// Threads, or jails, of other work for each processor.
const OTHERS: usize = 4;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// Counts to `turns` before it answers.
fn counts(turns: u64) -> Vec<u8> {
    let count = format!(
        "(local $left i64) (local.set $left (i64.const {turns}))
        (loop $again (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $again (i64.ne (local.get $left) (i64.const 0))))"
    );
    packed("", &format!("{count} {COPY}"), COPY)
}

#[test]
fn a_component_has_its_time_also_where_others_use_the_processors() {
    let spec = |call_s: u64| {
        spec(&format!("[inputs]\nitems = 1\n[resources]\nfuel = 500000000000000\ncall_s = {call_s}\n"))
    };
    let turns = 20_000_000;
    let trial = judge().evaluate(&case(&spec(60), component(&counts(turns)), None), &inputs(1)).unwrap();
    // Compressed twice: a third of a second for each.
    let each_ns = trial.verdict.account.usage.cpu_ns / 2;
    let entry = counts(turns * 330_000_000 / each_ns.max(1));
    let stop = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        for _ in 0..OTHERS * cores() {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let found = judge().evaluate(&case(&spec(1), component(&entry), None), &inputs(1));
        stop.store(true, Ordering::Relaxed);
        found
    });
    match found {
        Ok(found) => {
            assert!(
                matches!(found.verdict.outcome, Outcome::Measured { .. }),
                "{}",
                String::from_utf8_lossy(&found.log)
            );
        }
        Err(error) => assert!(matches!(error, JudgeError::Busy { .. }), "{error}"),
    }
    // It has its time and no more.
    let endless = packed("", "(loop $again (br $again)) (unreachable)", COPY);
    let again = || judge().evaluate(&case(&spec(1), component(&endless), None), &inputs(1));
    // Other tests may keep the machine busy; a judge does not give an entry back for ever.
    let found = again().or_else(|_| again()).or_else(|_| again()).unwrap().verdict;
    assert_eq!(found.outcome, Outcome::Failed(Failure::Time));
}

#[test]
fn a_program_that_waited_for_a_processor_is_given_back_and_one_that_slept_fails() {
    if !able() {
        return;
    }
    let machine = sandbox::Machine::probe(judge().setup().child.clone()).unwrap();
    let body = "
import time
def compress(data):
    end = time.process_time() + 0.7
    while time.process_time() < end:
        pass
    return data
def decompress(data):
    return data
";
    let code = server(body);
    let mut spec = program_spec("");
    (spec.resources.call_s, spec.resources.startup_s) = (1, 120);
    let entry = shoal_judge::Code { form: Form::Python, bytes: code.as_bytes() };
    let mut other = sandbox::Program::new(["/bin/sh", "-c", "while :; do :; done"]);
    other.limits.cpu = Duration::from_mins(5);
    other.limits.wall = Duration::from_mins(5);
    let others: Vec<sandbox::Jail> = (0..OTHERS * cores()).map(|_| machine.start(&other).unwrap()).collect();
    let found = judge().evaluate(&case(&spec, entry, None), &inputs(1));
    drop(others);
    match found {
        Err(error) => assert!(matches!(error, JudgeError::Busy { .. }), "{error}"),
        Ok(found) => panic!("{:?} {}", found.verdict.outcome, String::from_utf8_lossy(&found.log)),
    }
    // Whoever sleeps has nothing to wait for.
    let asleep = server(
        "import time\ndef compress(data):\n    time.sleep(60)\ndef decompress(data):\n    return data\n",
    );
    spec.resources.call_s = 2;
    let entry = shoal_judge::Code { form: Form::Python, bytes: asleep.as_bytes() };
    let found = judge().evaluate(&case(&spec, entry, None), &inputs(1)).unwrap();
    assert_eq!(found.verdict.outcome, Outcome::Failed(Failure::Time));
}
