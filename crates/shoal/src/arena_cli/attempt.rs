//! `shoal arena check --try`: what a spec names is run on one input, so that what is broken is found before the competition opens
//! and fixes its hash.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use arena::measure::Outcome;
use arena::rule::Facts;
use arena::spec::{CompetitionSpec, Form, Kind, Source};
use judge::baseline::of_hash;
use judge::{Case, Code, Input, Judge, JudgeError, synthetic};
use serde_json::{Value, json};
use wire::Hash;

use super::eval::{self, first_of, read};
use crate::failure::bad_input;

/// What was tried: of each a word, what came of it, and that as JSON.
pub(super) type Tried = Vec<(&'static str, String, Value)>;

/// Files by their hashes.
struct Files(BTreeMap<Hash, Vec<u8>>);

impl Files {
    fn read(with: &[PathBuf], spec: &CompetitionSpec) -> Result<Self> {
        let mut all = BTreeMap::new();
        for path in with {
            let bytes = read(path)?;
            let (hash, shown) = (Hash::of(&bytes), path.display());
            let named: Vec<(&str, Hash)> = spec.files().collect();
            if named.iter().all(|(_, known)| *known != hash) {
                let known: Vec<String> = named.iter().map(|(key, hash)| format!("{key} {hash}")).collect();
                let known = if known.is_empty() { "no file".to_owned() } else { known.join(", ") };
                return Err(bad_input(format!("{shown} is {hash}, and the spec names {known}")));
            }
            all.insert(hash, bytes);
        }
        Ok(Self(all))
    }

    fn get(&self, key: &str, hash: Option<Hash>) -> Result<Option<&[u8]>> {
        let Some(hash) = hash else { return Ok(None) };
        let built_in = || of_hash(&hash).map(|known| known.component);
        let found = self.0.get(&hash).map(Vec::as_slice).or_else(built_in);
        let missing = || bad_input(format!("{key} of the spec is {hash}: give that file with --with"));
        found.map(Some).ok_or_else(missing)
    }
}

/// What is wrong with what the spec names; anything else is this machine's fault.
fn broken(error: JudgeError) -> anyhow::Error {
    match error {
        JudgeError::Reference { .. } => {
            bad_input(format!("{error}; mend it, and name its new hash in the spec"))
        }
        error => error.into(),
    }
}

/// Tries all that the spec names. `data`: where the input comes from, if not from the generator.
pub(super) fn run(spec: &CompetitionSpec, with: &[PathBuf], data: Option<&str>) -> Result<Tried> {
    let files = Files::read(with, spec)?;
    let reference = files.get("inputs.code", spec.inputs.code)?;
    let baseline = files.get("baseline.code", spec.baseline.code)?;
    let environment = files.get("resources.environment", spec.resources.environment)?;
    let judge = eval::judge()?;
    let mut one = spec.clone();
    one.inputs.items = 1;
    let case = Case {
        spec: &one,
        seed: Hash::of(b"check"),
        // Nothing is entered.
        entry: Code { form: Form::Component, bytes: &[] },
        baseline: None,
        reference: reference.map(Code::reference).transpose().map_err(broken)?,
        environment,
    };
    let mut tried = Tried::new();
    let input = input(&judge, &case, data, &mut tried)?;
    if let Some(code) = baseline {
        tried.push(run_baseline(&judge, &case, code, &input)?);
    }
    if spec.kind == Kind::Program {
        tried.push(ask_evaluator(&judge, &case, &input)?);
    }
    Ok(tried)
}

/// The input that all is tried on.
fn input(judge: &Judge, case: &Case<'_>, data: Option<&str>, tried: &mut Tried) -> Result<Input> {
    let generates = case.spec.inputs.source == Source::Generator && case.spec.inputs.code.is_some();
    let made = if generates { generate(judge, case, tried)? } else { Vec::new() };
    let all = match (data, case.spec.inputs.source, case.spec.kind) {
        (Some(place), ..) => vec![first_of(place)?],
        (None, Source::Generator, _) if generates => made,
        (None, _, Kind::Codec) => synthetic::tensors(&case.seed, 1),
        (None, _, Kind::Program) => {
            return Err(bad_input("the inputs come from a pool: name a place with some, --data PLACE"));
        }
    };
    all.into_iter().next().ok_or_else(|| bad_input("there is no input to try it on"))
}

/// One input of the generator, made twice: judges must get the same bytes.
fn generate(judge: &Judge, case: &Case<'_>, tried: &mut Tried) -> Result<Vec<Input>> {
    let start = Instant::now();
    let made = judge.generate(case).map_err(broken)?;
    let seconds = start.elapsed().as_secs_f64();
    if judge.generate(case).map_err(broken)? != made {
        return Err(bad_input(
            "the generator gives two different inputs for one seed: it may use no randomness but the seed",
        ));
    }
    let other = Case { seed: Hash::of(b"another"), ..*case };
    let same = judge.generate(&other).map_err(broken)? == made;
    let bytes: usize = made.iter().map(|input| input.bytes.len()).sum();
    let note = if same { "; another seed gives the same: entrants will know it" } else { "" };
    let words = format!("{bytes} bytes in {seconds:.2} s, the same twice{note}");
    let row = json!({ "bytes": bytes, "seconds": seconds, "depends_on_seed": !same });
    tried.push(("generator", words, row));
    Ok(made)
}

/// The baseline, judged as in each round.
fn run_baseline(
    judge: &Judge,
    case: &Case<'_>,
    code: &[u8],
    input: &Input,
) -> Result<(&'static str, String, Value)> {
    let (said, spec) = (&case.spec.baseline, case.spec);
    let bytes = code.len() as u64;
    if said.bytes != 0 && said.bytes != bytes {
        return Err(bad_input(format!("baseline.bytes = {} is wrong: the file has {bytes}", said.bytes)));
    }
    let form = judge::form::tell(None, code).map_err(|error| bad_input(format!("the baseline: {error}")))?;
    if form != said.form {
        let (said, found) = (said.form.name(), form.name());
        return Err(bad_input(format!("baseline.form = \"{said}\" is wrong: the file is {found}")));
    }
    let entry = Code { form, bytes: code };
    let found = judge.evaluate(&Case { entry, ..*case }, std::slice::from_ref(input)).map_err(broken)?;
    let measures = match &found.verdict.outcome {
        Outcome::Measured { measures, .. } => measures,
        Outcome::Failed(failure) => {
            let log = String::from_utf8_lossy(&found.log).into_owned();
            let why: Vec<&str> =
                log.lines().filter_map(|line| line.strip_prefix("entry| ")).take(5).collect();
            return Err(bad_input(format!("the baseline failed: {failure}: {}", why.join("; "))));
        }
    };
    let facts = Facts { measures, code_bytes: said.bytes, wall: found.verdict.wall, baseline_ns: None };
    let scoring = spec.rule().judge(&facts);
    if scoring.failed_items > 0 {
        let why = "its answer counts as failed by the rule of the spec";
        return Err(bad_input(format!(
            "the baseline failed on the input: {why}; `shoal arena eval` shows more"
        )));
    }
    let raw = scoring.score.raw;
    Ok(("baseline", format!("raw score {raw:.6}"), json!({ "raw_score": raw, "score": scoring.score.score })))
}

/// The evaluator, on an answer that any entry could give: the input itself.
fn ask_evaluator(judge: &Judge, case: &Case<'_>, input: &Input) -> Result<(&'static str, String, Value)> {
    let told = judge.ask_evaluator(case, input, &input.bytes).map_err(broken)?;
    let objective = told.objective_nano.map(|nano| nano as f64 / 1e9);
    let shown = objective.map_or("none (it counts like no answer)".to_owned(), |value| value.to_string());
    let metrics: Vec<&str> = told.metrics.iter().map(|metric| metric.name.as_str()).collect();
    let more = if metrics.is_empty() { String::new() } else { format!(", metrics {}", metrics.join(", ")) };
    let wrong = if told.wrong.is_empty() { String::new() } else { format!("; {}", told.wrong.join("; ")) };
    let words = format!("objective {shown} of an answer that repeats the input{more}{wrong}");
    Ok(("evaluator", words, json!({ "objective": objective, "metrics": metrics, "wrong": told.wrong })))
}
