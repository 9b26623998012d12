//! Programs: an entry answers an input, a declared evaluator measures the answer; each in its own sandbox.
//!
//! Both are components or HTTP programs. A component's `compress` is the function (of plain bytes, `u8`):
//!
//! | who | HTTP | component: `compress` of | gives |
//! |---|---|---|---|
//! | entry | `POST /run`, field `file` | the input | the answer |
//! | evaluator | `POST /measure`, fields `input`, `answer` | length of the input (`u64`, little-endian), input, answer | HTTP: a number as text; component: 10⁻⁹ units (`i64`, little-endian) |
//! | evaluator as generator | `POST /generate`, field `file` | – (`decompress`) of seed and index (36 bytes) | the input |

use arena::limits::{ITEM_TIME_NS_MAX, OBJECTIVE_NANO_MAX};
use arena::measure::{Failure, Measures, ProgramItem, Wall};
use wire::Hash;

use super::{Kind, Measured, outputs_hash};
use crate::coder::{Clock, Coder, Contract, Meta, Side, Stop, in_time};
use crate::error::JudgeError;
use crate::input::Input;
use crate::judge::{Case, Code, Cost, Judge};
use crate::limits;
use crate::log::RunLog;
use crate::plan::{self, Call};

pub(super) struct Program;

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
        let mut evaluator = judge.reference(case, evaluator(case)?, "evaluator")?;
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
        log: &mut RunLog,
    ) -> Result<Measured, Stop> {
        let mut evaluator = judge.reference(case, evaluator(case)?, "evaluator")?;
        let mut entry = judge.coder(case, case.entry, Contract::Answer)?;
        let result = run(case, inputs, &mut *entry, &mut *evaluator, log);
        log.entry("entry", &entry.written());
        result
    }
}

fn run(
    case: &Case<'_>,
    inputs: &[Input],
    entry: &mut dyn Coder,
    evaluator: &mut dyn Coder,
    log: &mut RunLog,
) -> Result<Measured, Stop> {
    let (clock, deadline) = (Clock::start(), case.deadline());
    let mut cost = Cost::default();
    let mut found: Vec<Option<(Hash, ProgramItem)>> = vec![None; inputs.len()];
    let mut time_ns = 0;
    // An input's place is where a codec would compress it; an input that comes twice must get one answer.
    for call in plan::calls(inputs.len(), &case.order()) {
        let Call::Compress(index) = call else { continue };
        in_time(deadline)?;
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
        if let Some((first, item)) = &found[index] {
            if case.spec.judges.tolerance_ppm == 0 && (*first != hash || item.objective_nano.is_none()) {
                let reason = format!("input {index} gave {first} and then {hash}");
                return Err(Stop::Entry(Failure::NotDeterministic, reason));
            }
            continue;
        }
        time_ns += answer.time_ns;
        let objective = measure(evaluator, &input.bytes, &answer.bytes)?;
        log.line(&format!("input {index} {}: objective {}", input.hash.short(), objective as f64 / 1e9));
        found[index] = Some((hash, ProgramItem { objective_nano: Some(objective), fuel: answer.fuel }));
    }
    cost.total_ns = clock.elapsed_ns();
    let (hashes, items): (Vec<Hash>, Vec<ProgramItem>) = found.into_iter().flatten().unzip();
    // Answers that differ within a tolerance have different bytes at every judge.
    let outputs = if case.spec.judges.tolerance_ppm == 0 { outputs_hash(&hashes) } else { Hash([0; 32]) };
    let mean = time_ns / (inputs.len().max(1) as u64);
    let wall = Wall { task_time_ns: mean.min(ITEM_TIME_NS_MAX), over_baseline_ppm: 0 };
    Ok(Measured { outputs, measures: Measures::Program(items), wall: Some(wall), cost })
}

fn measure(evaluator: &mut dyn Coder, input: &[u8], answer: &[u8]) -> Result<i64, JudgeError> {
    let fail = |reason: String| JudgeError::Reference { what: "evaluator", reason };
    let request = [&(input.len() as u64).to_le_bytes(), input, answer].concat();
    let meta = Meta::bytes(request.len());
    let found = evaluator
        .call(Side::Compress, &request, &meta, limits::ANSWER_BYTES_MAX)
        .map_err(|stop| stop.into_reference("evaluator"))?;
    let nano = if evaluator.has_fuel() {
        let bytes = found.bytes.try_into().map_err(|_| fail("gave back no 8 bytes".to_owned()))?;
        i64::from_le_bytes(bytes)
    } else {
        let text = String::from_utf8_lossy(&found.bytes);
        let value: f64 =
            text.trim().parse().map_err(|_| fail(format!("{:.40} is no number", text.trim())))?;
        (value * 1e9).round() as i64
    };
    if (-OBJECTIVE_NANO_MAX..=OBJECTIVE_NANO_MAX).contains(&nano) {
        return Ok(nano);
    }
    Err(fail(format!("{nano} · 10⁻⁹ is beyond what a verdict may state")))
}
