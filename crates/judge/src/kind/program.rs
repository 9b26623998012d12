//! Programs: an entry answers an input, a declared evaluator measures the answer; each in its own sandbox.
//!
//! Both are components or HTTP programs. A component's `compress` is the function (of plain bytes, `u8`):
//!
//! | who | HTTP | component: `compress` of | gives |
//! |---|---|---|---|
//! | entry | `POST /run`, field `file` | the input | the answer |
//! | evaluator | `POST /measure`, fields `input`, `answer` | length of the input (`u64`, little-endian), input, answer | HTTP: a number as text, in the first line; component: 10⁻⁹ units (`i64`, little-endian) |
//! | evaluator as generator | `POST /generate`, field `file` | – (`decompress`) of seed and index (36 bytes) | the input |
//!
//! Behind the objective an evaluator may give metrics in lines of text: `name value unit`, the unit left out for plain numbers.
//! Verdicts hold their means over the inputs; see [`arena::account::Metric`] for what they may be. What is none is dropped.
//! An objective that is not finite counts like no answer.

mod metrics;

use std::time::Instant;

use arena::account::Metric;
use arena::limits::{ITEM_TIME_NS_MAX, OBJECTIVE_NANO_MAX};
use arena::measure::{Failure, Measures, ProgramItem, Wall};
use wire::Hash;

use self::metrics::Metrics;
use super::{Kind, Measured, outputs_hash};
use crate::coder::{Clock, Coder, Contract, Meta, Side, Stop, in_time};
use crate::error::JudgeError;
use crate::input::Input;
use crate::judge::{Case, Code, Cost, Judge};
use crate::limits;
use crate::log::RunLog;
use crate::plan::{self, Call};

pub(super) struct Program;

/// What an evaluator tells of one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The objective, 10⁻⁹ units; none: it counts like no answer.
    pub objective_nano: Option<i64>,
    /// What it measures besides.
    pub metrics: Vec<Metric>,
    /// What is wrong with what it told.
    pub wrong: Vec<String>,
}

impl Judge {
    /// Asks the evaluator of a competition of programs about one answer, without an entry.
    ///
    /// # Errors
    /// What is wrong with the evaluator, or with this machine.
    pub fn ask_evaluator(&self, case: &Case<'_>, input: &Input, answer: &[u8]) -> Result<Told, JudgeError> {
        let mut evaluator = self.reference(case, evaluator(case)?, "evaluator", case.deadline())?;
        let request = measure_request(input, answer);
        let told = evaluator
            .call(Side::Compress, &request, &Meta::bytes(request.len()), limits::ANSWER_BYTES_MAX)
            .map_err(|stop| stop.into_reference("evaluator"))?;
        let (mut metrics, mut wrong) = (Metrics::default(), Vec::new());
        let objective_nano =
            read(&told.bytes, evaluator.has_fuel(), &mut metrics, |reason| wrong.push(reason))?;
        Ok(Told { objective_nano, metrics: metrics.means(), wrong })
    }
}

/// What an evaluator gets to measure an answer.
fn measure_request(input: &Input, answer: &[u8]) -> Vec<u8> {
    [&(input.bytes.len() as u64).to_le_bytes(), &input.bytes[..], answer].concat()
}

fn evaluator<'a>(case: &Case<'a>) -> Result<Code<'a>, JudgeError> {
    case.reference.ok_or_else(|| match case.spec.inputs.code {
        Some(hash) => JudgeError::MissingCode { what: "evaluator", hash },
        None => JudgeError::Reference {
            what: "evaluator",
            reason: "the spec names none: inputs.code is its hash".to_owned(),
        },
    })
}

impl Kind for Program {
    fn generate(&self, judge: &Judge, case: &Case<'_>) -> Result<Vec<Input>, JudgeError> {
        let mut evaluator = judge.reference(case, evaluator(case)?, "evaluator", case.deadline())?;
        let mut inputs = Vec::new();
        for index in 0..case.spec.inputs.items {
            let request = [&case.seed.0[..], &index.to_le_bytes()].concat();
            let meta = Meta::bytes(request.len());
            let answer = evaluator
                .call(Side::Decompress, &request, &meta, limits::INPUT_BYTES_MAX)
                .map_err(|stop| stop.into_reference("evaluator"))?;
            inputs.push(
                Input::plain(format!("generated-{index:04}"), answer.bytes).map_err(|error| {
                    JudgeError::Reference { what: "evaluator", reason: error.to_string() }
                })?,
            );
        }
        Ok(inputs)
    }

    fn measure(
        &self,
        judge: &Judge,
        case: &Case<'_>,
        inputs: &[Input],
        deadline: Instant,
        log: &mut RunLog,
    ) -> Result<Measured, Stop> {
        let mut evaluator = judge.reference(case, evaluator(case)?, "evaluator", deadline)?;
        let mut entry = judge.coder(case, case.entry, Contract::Answer, deadline)?;
        let result = run(case, inputs, deadline, (&mut *entry, &mut *evaluator), log);
        log.entry("entry", &entry.written());
        log.account.usage = entry.usage();
        result
    }
}

fn run(
    case: &Case<'_>,
    inputs: &[Input],
    deadline: Instant,
    (entry, evaluator): (&mut dyn Coder, &mut dyn Coder),
    log: &mut RunLog,
) -> Result<Measured, Stop> {
    let clock = Clock::start();
    let mut cost = Cost::default();
    let mut found: Vec<Option<(Hash, ProgramItem)>> = vec![None; inputs.len()];
    let (mut time_ns, mut metrics) = (0, Metrics::default());
    // An input's place is where a codec would compress it; an input that comes twice must get one answer.
    for call in plan::calls(inputs.len(), &case.order()) {
        let Call::Compress(index) = call else { continue };
        in_time(deadline, &[&*entry, &*evaluator])?;
        let input = &inputs[index];
        let meta = Meta::bytes(input.bytes.len());
        let answer = match entry.call(Side::Compress, &input.bytes, &meta, limits::ANSWER_BYTES_MAX) {
            Ok(answer) => answer,
            // No answer to this input; the rule says what that counts.
            Err(Stop::Entry(Failure::Trap | Failure::Output, reason)) => {
                log.entry("entry", &format!("input {index}: {reason}"));
                let item = ProgramItem { objective_nano: None, fuel: 0 };
                found[index].get_or_insert((Hash([0; 32]), item));
                continue;
            }
            Err(stop) => return Err(stop),
        };
        cost.entry_ns += answer.time_ns;
        let hash = Hash::of(&answer.bytes);
        if let Some((first, _)) = &found[index] {
            if case.spec.judges.tolerance_ppm == 0 && *first != hash {
                let reason = format!("input {index} gave {first} and then {hash}");
                return Err(Stop::Entry(Failure::NotDeterministic, reason));
            }
            continue;
        }
        time_ns += answer.time_ns;
        let request = measure_request(input, &answer.bytes);
        let meta = Meta::bytes(request.len());
        let told = evaluator
            .call(Side::Compress, &request, &meta, limits::ANSWER_BYTES_MAX)
            .map_err(|stop| stop.beside("evaluator", deadline))?;
        let wrong = |reason: String| log.entry("evaluator", &format!("input {index}: {reason}"));
        let objective_nano = read(&told.bytes, evaluator.has_fuel(), &mut metrics, wrong)?;
        let objective = objective_nano.map_or("none".to_owned(), |nano| (nano as f64 / 1e9).to_string());
        log.line(&format!("input {index} {}: objective {objective}", input.hash.short()));
        found[index] = Some((hash, ProgramItem { objective_nano, fuel: answer.fuel }));
    }
    cost.total_ns = clock.elapsed_ns();
    log.account.metrics = metrics.means();
    let (hashes, items): (Vec<Hash>, Vec<ProgramItem>) = found.into_iter().flatten().unzip();
    // Answers that differ within a tolerance have different bytes at every judge.
    let outputs = if case.spec.judges.tolerance_ppm == 0 { outputs_hash(&hashes) } else { Hash([0; 32]) };
    let mean = time_ns / (inputs.len().max(1) as u64);
    let wall = Wall { task_time_ns: mean.min(ITEM_TIME_NS_MAX), over_baseline_ppm: 0 };
    Ok(Measured { outputs, measures: Measures::Program(items), wall: Some(wall), cost })
}

/// What an evaluator tells of one answer: the objective; what else it measured goes to `metrics`. An objective that is not finite,
/// or that no verdict may state, is none: an answer can bring that about (all zeros, where a cosine is asked for). So can it with a
/// metric, of which `wrong` hears. Only what has no objective at all is the evaluator's fault.
fn read(
    told: &[u8],
    component: bool,
    metrics: &mut Metrics,
    mut wrong: impl FnMut(String),
) -> Result<Option<i64>, JudgeError> {
    let fail = |reason: String| JudgeError::Reference { what: "evaluator", reason };
    let (objective, rest) = if component {
        let (head, rest) = told.split_first_chunk().ok_or_else(|| fail("gave back no 8 bytes".to_owned()))?;
        (Some(i64::from_le_bytes(*head)), String::from_utf8_lossy(rest).into_owned())
    } else {
        let text = String::from_utf8_lossy(told);
        let (first, rest) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
        let objective = metrics::number(first.trim());
        (objective.ok_or_else(|| fail(format!("{:.40} is no number", first.trim())))?, rest.to_owned())
    };
    metrics.add(&rest, &mut wrong);
    let within = objective.filter(|nano| (-OBJECTIVE_NANO_MAX..=OBJECTIVE_NANO_MAX).contains(nano));
    if within.is_none() {
        wrong("the objective is not finite, or beyond what a verdict may state".to_owned());
    }
    Ok(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_makes_nonsense_of_its_measure_has_no_objective() {
        let tell = |told: &[u8], component| {
            let (mut metrics, mut wrong) = (Metrics::default(), Vec::new());
            let found = read(told, component, &mut metrics, |reason| wrong.push(reason));
            (found.map_err(|error| error.to_string()), metrics.means().len(), wrong.len())
        };
        assert_eq!(tell(b" 1.5 \nloss 2\n", false), (Ok(Some(1_500_000_000)), 1, 0));
        for text in ["nan", "inf", "-inf\n", "1e300", "1e999"] {
            assert_eq!(tell(text.as_bytes(), false), (Ok(None), 0, 1), "{text}");
        }
        assert_eq!(tell(b"1\nloss nan\nLOSS 1\nhits 3", false), (Ok(Some(1_000_000_000)), 1, 2));
        assert_eq!(tell(&i64::MIN.to_le_bytes(), true), (Ok(None), 0, 1));
        for (told, component) in [(&b"fast"[..], false), (b"", false), (b"1 2", false), (b"1234567", true)] {
            let (found, _, _) = tell(told, component);
            assert!(found.unwrap_err().contains("evaluator"), "{told:?}");
        }
    }
}
