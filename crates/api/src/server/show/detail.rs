//! One entry with all that is known: its numbers, what each judge found, its files.

use arena::State;
use arena::measure::{CodecItem, Measures, Outcome, ProgramItem, Verdict};
use arena::record::EntryId;
use arena::rule::{Direction, Facts, Rule, Scoring};
use arena::spec::{Form, Kind};
use arena::state::{Artefact, Entry, EntryState};
use wire::{Hash, Millis, NodeId};

use super::{direction_name, hex, results, round_of, submission};
use crate::host::index::Index;
use crate::host::shared::View;
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

/// What the log says of an entry, and of the baseline beside it.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) entry: Vec<Shown>,
    pub(crate) baseline: Vec<Shown>,
}

/// Everything but sizes of files, which the blobs know. Gates are asked here.
pub(crate) fn detail(
    view: &View,
    entry: &Entry,
    Verdicts { entry: shown, baseline: beside }: &Verdicts,
    viewer: Option<NodeId>,
    at: Millis,
    units: bool,
) -> model::SubmissionDetail {
    let View { state, index } = view;
    let (round_state, round_end_at) = round_of(state, &entry.competition, entry.round);
    let results = results(state, entry, viewer, at);
    let open = |what| state.gate(entry.id, what, viewer, at).is_ok();
    let file = |kind, name: String, revealed| model::FileRow { kind, name, bytes: None, revealed };
    let mut files = vec![file(FileKind::Metadata, METADATA.to_owned(), results.is_some())];
    files.push(file(
        FileKind::Code,
        code_name(entry.form).to_owned(),
        entry.code.is_some() && index.code_gate(state, entry, viewer, at).is_ok(),
    ));
    let logs = open(Artefact::Log);
    if logs {
        files.extend(shown.iter().map(|shown| file(FileKind::Log, log_name(shown.lease), true)));
    }
    let mut summary = results.flatten().map_or_else(Vec::new, |scoring| metrics(view, entry, scoring));
    if results.flatten().is_some()
        && let Some(found) = state.competition(&entry.competition)
    {
        summary.extend(super::account::metrics(shown, beside, &found.spec));
    }
    let judgements: Vec<model::JudgementView> = match results {
        Some(_) => shown.iter().map(|shown| judgement(state, entry, shown, units)).collect(),
        None => Vec::new(),
    };
    model::SubmissionDetail {
        submission: submission(state, index, entry, viewer, at),
        about: state.about(entry.id).cloned().map(about),
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

fn about(said: arena::about::About) -> model::About {
    let arena::about::About { title, note, language, licence, link } = said;
    model::About { title, note, language, licence, link }
}

/// The baseline's entry in the entry's round.
pub(crate) fn baseline(index: &Index, entry: &Entry) -> Option<EntryId> {
    index.competitions.get(&entry.competition)?.baselines.get(&entry.round).copied()
}

/// What the numbers allow: no flag without what it promises.
fn capabilities(summary: &[model::Metric], judgements: &[model::JudgementView]) -> Vec<String> {
    let measured = judgements.iter().any(|found| found.failure.is_none());
    let flags = [
        ("baseline_comparison", summary.iter().any(|metric| metric.baseline_value.is_some())),
        ("score_distribution", measured),
        ("outcome_breakdown", measured),
        ("runtime_breakdown", judgements.iter().any(|found| found.wall_task_time_s.is_some())),
    ];
    flags.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()).collect()
}

fn metrics(View { state, index }: &View, entry: &Entry, scoring: &Scoring) -> Vec<model::Metric> {
    // Of its own entry: a board keeps its best rows only.
    let base = baseline(index, entry).and_then(|found| state.entry(found)?.scoring());
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

fn judgement(state: &State, entry: &Entry, shown: &Shown, units: bool) -> model::JudgementView {
    let Shown { judge, lease, verdict } = shown;
    let (mut inputs_hash, mut outputs_hash, mut rows, mut failed) = (None, None, Vec::new(), None);
    let spec = state.competition(&entry.competition).map(|found| &found.spec);
    match &verdict.outcome {
        Outcome::Failed(failure) => {
            failed = Some(model::Failed {
                kind: format!("{failure:?}"),
                message: failure.to_string(),
                reason: verdict.account.reason.clone(),
            });
        }
        Outcome::Measured { inputs, outputs, measures } => {
            (inputs_hash, outputs_hash) = (Some(hex(inputs)), Some(hex(outputs)));
            if let Some(spec) = spec.filter(|_| units) {
                rows = unit_rows(&spec.rule(), measures, inputs_of(state, entry));
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
        metrics: spec.map_or_else(Vec::new, |spec| {
            verdict.account.metrics.iter().map(|metric| super::account::metric(metric, spec)).collect()
        }),
        usage: (&verdict.account.usage).into(),
        machine: (&verdict.account.machine).into(),
        units: rows,
    }
}

/// Hashes of the inputs of an entry's round, in their order: once everybody may know them, and where they come from a pool.
fn inputs_of<'a>(state: &'a State, entry: &Entry) -> &'a [Hash] {
    if state.inputs_gate(&entry.competition, entry.round).is_err() {
        return &[];
    }
    let summaries = state.competition(&entry.competition).map(|found| &found.summaries);
    let mut rounds = summaries.into_iter().flatten().rev();
    rounds.find(|summary| summary.round == entry.round).map_or(&[], |summary| &summary.items)
}

/// One row per input. Whether an input failed is asked of the rule itself, on that input alone.
fn unit_rows(rule: &Rule, measures: &Measures, inputs: &[Hash]) -> Vec<model::Unit> {
    let failed = |one: &Measures| {
        rule.judge(&Facts { measures: one, code_bytes: 0, wall: None, baseline_ns: None }).failed_items > 0
    };
    let rows: Vec<model::Unit> = match measures {
        Measures::Codec(items) => {
            let row = |(index, item): (u32, &CodecItem)| {
                codec_unit(index, item, failed(&Measures::Codec(vec![*item])))
            };
            (0..).zip(items).map(row).collect()
        }
        Measures::Program(items) => {
            let row = |(index, item): (u32, &ProgramItem)| {
                program_unit(index, item, failed(&Measures::Program(vec![*item])))
            };
            (0..).zip(items).map(row).collect()
        }
    };
    let labels = inputs.iter().map(|input| Some(hex(input))).chain(std::iter::repeat(None));
    rows.into_iter().zip(labels).map(|(row, label)| model::Unit { label, ..row }).collect()
}

fn unit(index: u32, outcome: &str, fuel: u64) -> model::Unit {
    model::Unit {
        id: format!("input-{index}"),
        kind: "instance".to_owned(),
        index,
        label: None,
        outcome: outcome.to_owned(),
        original_bytes: None,
        compressed_bytes: None,
        similarity: None,
        exact: None,
        objective: None,
        fuel,
    }
}

fn codec_unit(index: u32, item: &CodecItem, failed: bool) -> model::Unit {
    let outcome = match (failed, item.exact) {
        (true, _) => "failed",
        (false, true) => "exact",
        (false, false) => "lossy",
    };
    model::Unit {
        original_bytes: Some(item.original_bytes),
        compressed_bytes: Some(item.compressed_bytes),
        similarity: Some(item.similarity_ppb as f64 / 1e9),
        exact: Some(item.exact),
        ..unit(index, outcome, item.fuel)
    }
}

fn program_unit(index: u32, item: &ProgramItem, failed: bool) -> model::Unit {
    let outcome = if failed { "failed" } else { "answered" };
    let objective = item.objective_nano.map(|nano| nano as f64 / 1e9);
    model::Unit { objective, ..unit(index, outcome, item.fuel) }
}

#[cfg(test)]
mod large;

#[cfg(test)]
mod tests {
    use arena::rule::info;

    use super::*;

    #[test]
    fn units_say_what_became_of_each_input() {
        let item = |similarity_ppb, exact| CodecItem {
            original_bytes: 100,
            compressed_bytes: 50,
            similarity_ppb,
            exact,
            fuel: 7,
        };
        let items = [item(1_000_000_000, true), item(995_000_000, false), item(400_000_000, false)];
        let rule = info("shoal-link-1").unwrap().rule;
        let rows = unit_rows(&rule, &Measures::Codec(items.to_vec()), &[Hash([7; 32])]);
        let told: Vec<(&str, &str)> = rows.iter().map(|row| (&row.id[..], &row.outcome[..])).collect();
        assert_eq!(told, [("input-0", "exact"), ("input-1", "lossy"), ("input-2", "failed")]);
        assert_eq!(rows[0].label, Some(hex(Hash([7; 32]))));
        assert_eq!((rows[1].label.as_ref(), rows[1].kind.as_str(), rows[1].fuel), (None, "instance", 7));
        // Where every bit counts, what is only near has failed.
        let exact = info("apex-2025-12-04").unwrap().rule;
        assert_eq!(unit_rows(&exact, &Measures::Codec(items.to_vec()), &[])[1].outcome, "failed");
        // Answers of hosts of before are read, too.
        let mut old = serde_json::to_value(&rows[0]).unwrap();
        for name in ["id", "type", "label", "outcome"] {
            assert!(old.as_object_mut().unwrap().remove(name).is_some(), "{name}");
        }
        let old: model::Unit = serde_json::from_value(old).unwrap();
        assert_eq!((old.index, old.id.as_str()), (0, ""));
    }
}
