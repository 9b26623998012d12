//! One entry with all that is known: its numbers, what each judge found, its files.

use arena::State;
use arena::measure::{CodecItem, Measures, Outcome, ProgramItem, Verdict};
use arena::rule::{Direction, Scoring};
use arena::spec::{Form, Kind};
use arena::state::{Artefact, Entry, EntryState, Role};
use wire::{Millis, NodeId};

use super::{direction_name, hex, results, round_of, submission};
use crate::model::{self, FileKind};

/// Version of the metrics' layout.
const SCHEMA_VERSION: u32 = 1;

/// A verdict as the log holds it.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) judge: NodeId,
    pub(crate) lease: u64,
    pub(crate) verdict: Verdict,
}

/// Name of the file of an entry's code.
pub(crate) fn code_name(form: Form) -> &'static str {
    match form {
        Form::Component => "code.wasm",
        Form::Python => "code.py",
        Form::Native => "code.bin",
    }
}

/// Name of the file of a judgement's log.
pub(crate) fn log_name(lease: u64) -> String {
    format!("judgement-{lease}.log")
}

/// Name of the file of the metrics.
pub(crate) const METADATA: &str = "metadata.json";

/// Everything but sizes of files, which the blobs know. `shown` is what the log says of the entry; gates are asked here.
pub(crate) fn detail(
    state: &State,
    entry: &Entry,
    shown: &[Shown],
    viewer: Option<NodeId>,
    at: Millis,
    units: bool,
) -> model::SubmissionDetail {
    let (round_state, round_end_at) = round_of(state, &entry.competition, entry.round);
    let results = results(state, entry, viewer, at);
    let open = |what| state.gate(entry.id, what, viewer, at).is_ok();
    let file = |kind, name: String, revealed| model::FileRow { kind, name, bytes: None, revealed };
    let mut files = vec![file(FileKind::Metadata, METADATA.to_owned(), results.is_some())];
    files.push(file(
        FileKind::Code,
        code_name(entry.form).to_owned(),
        entry.code.is_some() && open(Artefact::Code),
    ));
    let logs = open(Artefact::Log);
    if logs {
        files.extend(shown.iter().map(|shown| file(FileKind::Log, log_name(shown.lease), true)));
    }
    let summary = results.flatten().map_or_else(Vec::new, |scoring| metrics(state, entry, scoring));
    let judgements: Vec<model::JudgementView> = match results {
        Some(_) => shown.iter().map(|shown| judgement(state, shown, units)).collect(),
        None => Vec::new(),
    };
    model::SubmissionDetail {
        submission: submission(state, entry, viewer, at),
        seal: hex(entry.seal),
        code_hash: entry.code.map(|code| hex(code.hash)),
        code_bytes: entry.code.map(|code| code.bytes),
        origin: entry.origin.map(|entry| entry.0),
        parents: entry.parents.iter().map(|entry| entry.0).collect(),
        lineage: state.lineage(entry.id).into_iter().map(|entry| entry.0).collect(),
        echo_of: entry.echo_of.filter(|_| results.is_some()).map(|entry| entry.0),
        copy_of: match entry.state {
            EntryState::Copy { of } if results.is_some() => Some(of.0),
            _ => None,
        },
        round_state,
        round_end_at,
        schema_version: SCHEMA_VERSION,
        capabilities: capabilities(&summary, &judgements),
        summary,
        judgements,
        entrusted: false,
        files,
    }
}

/// Scores of the baseline in the entry's round.
fn baseline<'a>(state: &'a State, entry: &Entry) -> Option<&'a Scoring> {
    let competition = state.competition(&entry.competition)?;
    if let Some(live) = competition.live.get(&entry.round) {
        return state.entry(live.baseline?)?.scoring();
    }
    let summary = competition.summaries.iter().rev().find(|summary| summary.round == entry.round)?;
    let is = |id| state.entry(id).is_some_and(|found| found.role == Role::Baseline);
    summary.board.iter().find(|row| is(row.entry)).map(|row| &row.scoring)
}

/// What the numbers allow: no flag without what it promises.
fn capabilities(summary: &[model::Metric], judgements: &[model::JudgementView]) -> Vec<String> {
    let flags = [
        ("baseline_comparison", summary.iter().any(|metric| metric.baseline_value.is_some())),
        ("score_distribution", judgements.iter().any(|found| found.failure.is_none())),
        ("runtime_breakdown", judgements.iter().any(|found| found.wall_task_time_s.is_some())),
    ];
    flags.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()).collect()
}

fn metrics(state: &State, entry: &Entry, scoring: &Scoring) -> Vec<model::Metric> {
    let base = baseline(state, entry);
    let spec = state.competition(&entry.competition).map(|found| &found.spec);
    let codec = spec.is_some_and(|spec| spec.kind == Kind::Codec);
    let raw = spec.map_or(Direction::Higher, |spec| spec.rule().direction());
    let row =
        |key: &str, label: &str, unit: &str, direction: &str, value: &dyn Fn(&Scoring) -> Option<f64>| {
            value(scoring).map(|found| model::Metric {
                key: key.to_owned(),
                label: label.to_owned(),
                value: found,
                unit: unit.to_owned(),
                format: match key {
                    "raw_score" | "score" => "score",
                    "failed_items" => "count",
                    "task_time_s" => "duration_s",
                    _ => "number",
                }
                .to_owned(),
                direction: direction.to_owned(),
                baseline_value: base.and_then(value),
            })
        };
    let (higher, lower) = ("higher_is_better", "lower_is_better");
    let mut rows = vec![
        row("raw_score", "Raw score", "", direction_name(raw), &|s| Some(s.score.raw)),
        row("score", "Score", "", higher, &|s| Some(s.score.score)),
        row("failed_items", "Inputs failed", "", lower, &|s| Some(f64::from(s.failed_items))),
    ];
    if codec {
        rows.extend([
            row("compression_ratio", "Compression ratio", "", higher, &|s| Some(s.figures?.ratio)),
            row("similarity", "Similarity, mean", "", higher, &|s| Some(s.figures?.similarity)),
            row("similarity_min", "Similarity, least", "", higher, &|s| {
                Some(s.similarity_min_ppb as f64 / 1e9)
            }),
            row("task_time_s", "Time of one input", "s", lower, &|s| Some(s.figures?.task_time_s)),
            row("bytes_per_s", "Speed", "B/s", higher, &|s| {
                (s.bytes_per_s > 0).then_some(s.bytes_per_s as f64)
            }),
        ]);
    }
    rows.into_iter().flatten().collect()
}

fn judgement(state: &State, shown: &Shown, units: bool) -> model::JudgementView {
    let Shown { judge, lease, verdict } = shown;
    let (mut inputs_hash, mut outputs_hash, mut rows, mut failed) = (None, None, Vec::new(), None);
    match &verdict.outcome {
        Outcome::Failed(failure) => {
            failed = Some(model::Failed { kind: format!("{failure:?}"), message: failure.to_string() });
        }
        Outcome::Measured { inputs, outputs, measures } => {
            (inputs_hash, outputs_hash) = (Some(hex(inputs)), Some(hex(outputs)));
            if units {
                rows = match measures {
                    Measures::Codec(items) => (0..).zip(items).map(codec_unit).collect(),
                    Measures::Program(items) => (0..).zip(items).map(program_unit).collect(),
                };
            }
        }
    }
    model::JudgementView {
        judge: hex(judge),
        operator: state.judges().get(judge).map_or(String::new(), |known| known.operator.clone()),
        lease: *lease,
        failure: failed,
        wall_task_time_s: verdict.wall.map(|wall| wall.task_time_ns as f64 / 1e9),
        over_baseline: verdict
            .wall
            .map(|wall| wall.over_baseline_ppm as f64 / 1e6)
            .filter(|over| *over > 0.0),
        inputs: inputs_hash,
        outputs: outputs_hash,
        log: hex(verdict.log),
        units: rows,
    }
}

fn codec_unit((index, item): (u32, &CodecItem)) -> model::Unit {
    model::Unit {
        index,
        original_bytes: Some(item.original_bytes),
        compressed_bytes: Some(item.compressed_bytes),
        similarity: Some(item.similarity_ppb as f64 / 1e9),
        exact: Some(item.exact),
        objective: None,
        fuel: item.fuel,
    }
}

fn program_unit((index, item): (u32, &ProgramItem)) -> model::Unit {
    model::Unit {
        index,
        original_bytes: None,
        compressed_bytes: None,
        similarity: None,
        exact: None,
        objective: item.objective_nano.map(|nano| nano as f64 / 1e9),
        fuel: item.fuel,
    }
}
