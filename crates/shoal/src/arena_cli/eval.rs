//! `shoal arena eval`: the judge's own evaluator on this machine, to the judge's own verdict on the same inputs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use api::model::{MachineView, UsageView};
use arena::account::Metric;
use arena::measure::{CodecItem, Measures, Outcome};
use arena::rule::{Facts, Scoring};
use arena::spec::{CompetitionSpec, Form, Kind};
use clap::{Args, ValueEnum};
use judge::baseline::{BASELINES, named, of_hash, zstd};
use judge::{Case, Code, Dataset, Evaluation, Input, Judge, Setup};
use serde_json::{Value, json};
use wire::Hash;

use crate::failure::bad_input;

/// Arguments of `shoal arena eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// A component or core module (.wasm), a Python file, a native program, a zip of a program's folder (solution.py or solution at its top), or the name of a built-in codec.
    entry: PathBuf,
    /// What the entry is. Default: by its first bytes.
    #[arg(long, value_enum)]
    form: Option<FormName>,
    /// Spec of the competition, in TOML. Default: a codec competition with the default rule on a link of 10 Mbit/s, zstd-3 as baseline.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Folder with inputs and manifest.csv, or the address of an object store's prefix with them (http, https, s3: key,
    /// region and endpoint as in the usual `AWS_…` variables, unsigned without a key; AWS_SKIP_SIGNATURE=false uses
    /// the machine's role). Default: tensors from --seed.
    #[arg(long, value_name = "PLACE")]
    data: Option<String>,
    /// Only the first N inputs.
    #[arg(long, value_name = "N")]
    items: Option<u32>,
    /// Seed of generated inputs and of the order of calls: a round's seed, or any text.
    #[arg(long, value_name = "TEXT", default_value = "local")]
    seed: String,
    /// The baseline's code, if it is not built in.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Code of the generator or evaluator that the spec names.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Lock file of the environment that the spec names.
    #[arg(long, value_name = "FILE")]
    environment: Option<PathBuf>,
    /// Also print the log that a judge would store.
    #[arg(long)]
    show_log: bool,
}

/// The link of the demo, and of evaluations without a spec: 10 Mbit/s, what a home sends. At the rule's own 100 Mbit/s,
/// where fuel is dear, only a codec of hundreds of megabytes per second gains anything.
pub(super) const LINK_BYTES_PER_S: u64 = 1_250_000;
/// Inputs of a round where neither spec nor data say how many.
const ITEMS: u32 = 16;

/// The spec that is used without one.
fn default_spec(items: u32) -> Result<CompetitionSpec> {
    let baseline = zstd();
    let text = format!(
        "name = \"local\"\nkind = \"codec\"\n[rule]\nlink_bytes_per_s = {LINK_BYTES_PER_S}\n[takeover]\nalpha_ppm = 0\n[schedule]\nstart = \"2026-01-01T00:00:00Z\"\ndays = 2\n[inputs]\nitems = {items}\n[submission]\nforms = [\"component\", \"native\", \"python\"]\n[baseline]\nname = \"{}\"\ncode = \"{}\"\nbytes = {}\n",
        baseline.name,
        baseline.hash(),
        baseline.component.len()
    );
    Ok(CompetitionSpec::parse(&text)?)
}

/// A judge with the user's cache.
pub(super) fn judge() -> Result<Judge> {
    let child = sandbox::Child::this_binary().map_err(|error| bad_input(error.to_string()))?;
    Ok(Judge::new(Setup { child, cache: cache_folder() })?)
}

/// `SHOAL_CACHE`, else the user's own cache folder.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (user, below) =
        if cfg!(windows) { ("LOCALAPPDATA", "shoal/cache") } else { ("HOME", ".cache/shoal") };
    let base = folder("SHOAL_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("shoal")))
        .or_else(|| folder(user).map(|user| user.join(below)))?;
    Some(base.join("judge"))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    if path.is_dir() {
        let shown = path.display();
        return Err(bad_input(format!(
            "{shown} is a folder: give a file, or a zip of what is in the folder"
        )));
    }
    std::fs::read(path).map_err(|error| bad_input(format!("{}: {error}", path.display())))
}

fn read_optional(path: Option<&PathBuf>) -> Result<Option<Vec<u8>>> {
    path.map(|path| read(path)).transpose()
}

/// Code of an entry by its file, or of a built-in codec by its name; core modules become components.
pub(crate) fn code(path: &Path) -> Result<Vec<u8>> {
    let known = path.to_str().and_then(named);
    if let Some(known) = known.filter(|_| !path.exists()) {
        return Ok(known.component.to_vec());
    }
    if !path.exists() {
        let names: Vec<&str> = BASELINES.iter().map(|baseline| baseline.name).collect();
        let shown = path.display();
        return Err(bad_input(format!(
            "{shown}: no such file, nor a built-in codec: those are {}",
            names.join(", ")
        )));
    }
    let bytes = read(path)?;
    if !bytes.starts_with(b"\0asm") {
        return Ok(bytes);
    }
    judge::pack::pack(&bytes).map_err(|error| bad_input(format!("{}: {error}", path.display())))
}

/// Reads a data set: a folder, or a prefix of an object store.
pub(super) fn dataset(place: &str) -> Result<Vec<Input>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting a runtime")?.block_on(dataset_of(place))
}

/// The same, with whose each input is.
pub(super) fn dataset_with_operators(place: &str) -> Result<Vec<(Input, Option<wire::NodeId>)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let read = async {
        let set = Dataset::at(place).await?;
        let inputs = set.inputs().await?;
        let operators = set.manifest().items.iter().map(|item| item.operator);
        Ok::<_, judge::JudgeError>(inputs.into_iter().zip(operators).collect())
    };
    runtime.context("starting a runtime")?.block_on(read).map_err(|error| bad_input(error.to_string()))
}

/// The first input of a data set; the others are not read.
pub(super) fn first_of(place: &str) -> Result<Input> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let read = async {
        let set = Dataset::at(place).await.map_err(|error| bad_input(error.to_string()))?;
        let item =
            set.manifest().items.first().ok_or_else(|| bad_input(format!("{place} holds no input")))?;
        set.input(item).await.map_err(|error| bad_input(error.to_string()))
    };
    runtime.context("starting a runtime")?.block_on(read)
}

/// [`dataset`], where a runtime is there.
pub(super) async fn dataset_of(place: &str) -> Result<Vec<Input>> {
    let read = async { Dataset::at(place).await?.inputs().await };
    read.await.map_err(|error| bad_input(error.to_string()))
}

/// What an entry is: as it is said to be, else by its first bytes, which its name must not contradict.
pub(super) fn form(path: &Path, bytes: &[u8], said: Option<FormName>) -> Result<Form> {
    if let Some(said) = said {
        return Ok(said.into());
    }
    let name = path.file_name().and_then(|name| name.to_str());
    judge::form::tell(name, bytes).map_err(|error| bad_input(format!("{}: {error}", path.display())))
}

fn formed(path: &Path, bytes: Vec<u8>) -> Result<(Form, Vec<u8>)> {
    Ok((form(path, &bytes, None)?, bytes))
}

/// Forms by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormName {
    Component,
    Python,
    Native,
}

impl From<FormName> for Form {
    fn from(name: FormName) -> Self {
        match name {
            FormName::Component => Self::Component,
            FormName::Python => Self::Python,
            FormName::Native => Self::Native,
        }
    }
}

pub(super) fn seed(text: &str) -> Hash {
    text.parse().unwrap_or_else(|_| Hash::of(text.as_bytes()))
}

/// What `eval` found.
pub(super) struct Found {
    evaluation: Evaluation,
    /// None if the entry failed.
    pub(super) scoring: Option<Scoring>,
    baseline: Option<Beside>,
    items: usize,
    code_bytes: usize,
    rule: &'static str,
}

/// What the baseline did on the same inputs.
struct Beside {
    name: String,
    scoring: Scoring,
    metrics: Vec<Metric>,
}

impl Found {
    /// What the baseline's run tells by the name of a metric.
    fn beside(&self, metric: &Metric) -> Option<f64> {
        let all = &self.baseline.as_ref()?.metrics;
        let same = all.iter().find(|other| other.name == metric.name && other.unit == metric.unit)?;
        Some(same.nano as f64 / 1e9)
    }
}

/// What to print, and whether the entry has measurements.
pub(super) fn run(args: &EvalArgs, json: bool) -> Result<(String, bool)> {
    let found = evaluate(args)?;
    let text = if json { as_json(&found, args.show_log).to_string() } else { as_text(&found, args.show_log) };
    Ok((text, found.scoring.is_some()))
}

/// An entry with all that judging it takes.
pub(super) struct Trial<'a> {
    pub(super) spec: &'a CompetitionSpec,
    pub(super) seed: Hash,
    pub(super) entry: Code<'a>,
    pub(super) baseline: Option<Code<'a>>,
    pub(super) reference: Option<Code<'a>>,
    pub(super) environment: Option<&'a [u8]>,
    /// None: made by the competition's generator.
    pub(super) inputs: Option<Vec<Input>>,
}

fn evaluate(args: &EvalArgs) -> Result<Found> {
    let mut data = args.data.as_deref().map(dataset).transpose()?;
    if let (Some(data), Some(items)) = (&mut data, args.items) {
        data.truncate(items as usize);
    }
    let wanted = data.as_ref().map_or(args.items.unwrap_or(ITEMS), |data| data.len() as u32);
    let mut spec = match &args.spec {
        None => default_spec(wanted)?,
        Some(path) => {
            let text = String::from_utf8_lossy(&read(path)?).into_owned();
            CompetitionSpec::parse(&text).with_context(|| path.display().to_string())?
        }
    };
    if let Some(items) = args.items {
        spec.inputs.items = items;
    }
    let entry = code(&args.entry)?;
    let baseline = match (&args.baseline, spec.baseline.code) {
        (Some(path), _) => Some(formed(path, code(path)?)?),
        (None, Some(hash)) => {
            let found = of_hash(&hash).ok_or_else(|| {
                bad_input(format!("the baseline {hash} is not built in: give its code with --baseline"))
            })?;
            Some((Form::Component, found.component.to_vec()))
        }
        (None, None) => None,
    };
    let reference = args.reference.as_deref().map(|path| formed(path, read(path)?)).transpose()?;
    let needed = data.is_none() || spec.kind == Kind::Program;
    match (spec.inputs.code, &reference) {
        (Some(named), None) if needed => {
            let what = if spec.kind == Kind::Program { "evaluator" } else { "generator" };
            return Err(bad_input(format!(
                "the spec names the {what} {named}: give its code with --reference (`shoal arena get NAME reference -o FILE` fetches that of a competition)"
            )));
        }
        (Some(named), Some((_, bytes))) if Hash::of(bytes) != named => {
            let given = Hash::of(bytes);
            return Err(bad_input(format!("--reference is {given}, and inputs.code of the spec {named}")));
        }
        _ => {}
    }
    let environment = read_optional(args.environment.as_ref())?;
    try_out(Trial {
        spec: &spec,
        seed: seed(&args.seed),
        entry: Code { form: form(&args.entry, &entry, args.form)?, bytes: &entry },
        baseline: baseline.as_ref().map(|(form, bytes)| Code { form: *form, bytes }),
        reference: reference.as_ref().map(|(form, bytes)| Code { form: *form, bytes }),
        environment: environment.as_deref(),
        inputs: data,
    })
}

/// Judges an entry on this machine, and the baseline for comparison.
pub(super) fn try_out(trial: Trial<'_>) -> Result<Found> {
    let Trial { spec, seed, entry, baseline, reference, environment, inputs } = trial;
    // The baseline itself is not timed beside itself.
    let baseline = baseline.filter(|code| code.bytes != entry.bytes);
    let case = Case { spec, seed, entry, baseline, reference, environment };
    let judge = judge()?;
    let inputs = match inputs {
        Some(inputs) => inputs,
        None => judge.generate(&case)?,
    };
    if inputs.is_empty() {
        return Err(bad_input("there are no inputs"));
    }
    let evaluation = judge.evaluate(&case, &inputs)?;
    let beside = case.baseline.filter(|_| spec.kind == Kind::Codec).map(|code| {
        let case = Case { entry: code, baseline: None, ..case };
        judge.evaluate(&case, &inputs).map(|found| (code.bytes.len(), found))
    });
    let mut baseline_ns = None;
    let baseline = match beside.transpose()? {
        Some((bytes, found)) => {
            if let Some(facts) = facts(&found, bytes, None) {
                baseline_ns = Some(spec.rule().time_ns(&facts));
            }
            score(spec, &found, bytes, None).map(|scoring| Beside {
                name: spec.baseline.name.clone(),
                scoring,
                metrics: found.verdict.account.metrics,
            })
        }
        None => None,
    };
    let scoring = score(spec, &evaluation, entry.bytes.len(), baseline_ns);
    Ok(Found {
        evaluation,
        scoring,
        baseline,
        items: inputs.len(),
        code_bytes: entry.bytes.len(),
        rule: spec.rule.name,
    })
}

fn facts(found: &Evaluation, code_bytes: usize, baseline_ns: Option<u128>) -> Option<Facts<'_>> {
    let Outcome::Measured { measures, .. } = &found.verdict.outcome else { return None };
    Some(Facts { measures, code_bytes: code_bytes as u64, wall: found.verdict.wall, baseline_ns })
}

fn score(
    spec: &CompetitionSpec,
    found: &Evaluation,
    code_bytes: usize,
    baseline_ns: Option<u128>,
) -> Option<Scoring> {
    facts(found, code_bytes, baseline_ns).map(|facts| spec.rule().judge(&facts))
}

fn figures(scoring: &Scoring) -> Value {
    let figures = scoring.figures;
    json!({
        "raw_score": scoring.score.raw,
        "score": scoring.score.score,
        "compression_ratio": figures.map(|found| found.ratio),
        "similarity": figures.map(|found| found.similarity),
        "similarity_min": scoring.similarity_min_ppb as f64 / 1e9,
        "task_time_s": figures.map(|found| found.task_time_s),
        "bytes_per_s": scoring.bytes_per_s,
        "failed_items": scoring.failed_items,
    })
}

fn codec_item(item: &CodecItem) -> Value {
    json!({
        "original_bytes": item.original_bytes,
        "compressed_bytes": item.compressed_bytes,
        "similarity": item.similarity_ppb as f64 / 1e9,
        "exact": item.exact,
        "fuel": item.fuel,
    })
}

pub(super) fn as_json(found: &Found, log: bool) -> Value {
    let mut value = json!({
        "rule": found.rule,
        "code_bytes": found.code_bytes,
        "inputs": found.items,
        "judge_overhead": found.evaluation.cost.overhead(),
        "verdict_log": found.evaluation.verdict.log.to_string(),
    });
    match &found.evaluation.verdict.outcome {
        Outcome::Failed(failure) => {
            value["state"] = json!(if failure.is_screening() { "rejected" } else { "failed" });
            value["failure"] = json!(failure.to_string());
            value["reason"] = json!(found.evaluation.verdict.account.reason);
        }
        Outcome::Measured { inputs, outputs, measures } => {
            value["state"] = json!("scored");
            value["inputs_hash"] = json!(inputs.to_string());
            value["outputs_hash"] = json!(outputs.to_string());
            value["items"] = match measures {
                Measures::Codec(items) => items.iter().map(codec_item).collect(),
                Measures::Program(items) => items
                    .iter()
                    .map(|item| json!({ "objective": item.objective_nano.map(|nano| nano as f64 / 1e9) }))
                    .collect(),
            };
        }
    }
    let account = &found.evaluation.verdict.account;
    value["usage"] = json!(UsageView::from(&account.usage));
    value["machine"] = json!(MachineView::from(&account.machine));
    let metric = |told: &Metric| {
        let value = told.nano as f64 / 1e9;
        json!({ "name": told.name, "value": value, "unit": told.unit, "baseline_value": found.beside(told) })
    };
    value["metrics"] = account.metrics.iter().map(metric).collect();
    if let Some(scoring) = &found.scoring {
        merge(&mut value, figures(scoring));
    }
    if let Some(Beside { name, scoring, .. }) = &found.baseline {
        value["baseline"] = figures(scoring);
        value["baseline"]["name"] = json!(name);
    }
    if log {
        value["log"] = json!(String::from_utf8_lossy(&found.evaluation.log));
    }
    value
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

pub(super) fn as_text(found: &Found, log: bool) -> String {
    let mut text = String::new();
    match (&found.evaluation.verdict.outcome, &found.scoring) {
        (Outcome::Failed(failure), _) => {
            _ = writeln!(text, "failed: {failure}");
            // The reason is what an entrant needs.
            let reasons = String::from_utf8_lossy(&found.evaluation.log).into_owned();
            for line in reasons.lines().filter(|line| line.starts_with("entry|")).take(20) {
                _ = writeln!(text, "  {line}");
            }
        }
        (_, Some(scoring)) => {
            _ = writeln!(text, "{}", line("entry", scoring));
            if let Some(Beside { name, scoring, .. }) = &found.baseline {
                _ = writeln!(text, "{}", line(&format!("baseline {name}"), scoring));
            }
            // Of an entry that hardly ran there is nothing to compare with.
            let overhead = Some(found.evaluation.cost.overhead()).filter(|overhead| *overhead < 10.0);
            let own = overhead
                .map(|overhead| format!("; the judge's own work: {:.1} % of the entry's", 100.0 * overhead));
            _ = writeln!(
                text,
                "{} inputs, code of {} bytes, rule {}{}",
                found.items,
                found.code_bytes,
                found.rule,
                own.unwrap_or_default()
            );
            let account = &found.evaluation.verdict.account;
            for metric in &account.metrics {
                let value = metric.nano as f64 / 1e9;
                let told = format!("{}: {value} {}", metric.name, metric.unit);
                let base = found.beside(metric).map_or(String::new(), |value| format!(" (baseline {value})"));
                _ = writeln!(text, "{}{base}", told.trim_end());
            }
            _ = writeln!(text, "took {}", UsageView::from(&account.usage).words());
        }
        (Outcome::Measured { .. }, None) => {}
    }
    if log {
        text.push_str(&String::from_utf8_lossy(&found.evaluation.log));
    }
    text.trim_end().to_owned()
}

fn line(name: &str, scoring: &Scoring) -> String {
    let Some(figures) = scoring.figures else {
        return format!("{name}: raw score {:.6}, score {:.6}", scoring.score.raw, scoring.score.score);
    };
    format!(
        "{name}: raw score {:.6}, score {:.6}, ratio {:.4}, similarity {:.6}, {:.3} ms per input",
        scoring.score.raw,
        scoring.score.score,
        figures.ratio,
        figures.similarity,
        figures.task_time_s * 1e3
    )
}
