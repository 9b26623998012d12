//! `shoal arena audit --rerun`: a verdict that stands in the log, judged again on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::Client;
use api::judge::{Assignment, Evaluate, Finding};
use arena::measure::{Failure, Measures, Outcome, Verdict, plurality};
use arena::record::{Derived, EntryId, LeaseId, Record, Statement};
use arena::spec::{Form, Kind};
use arena::state::{Entry, EntryState};
use arena::{State, verify};
use serde_json::{Value, json};
use wire::{Hash, NodeId};

use super::develop::Needs;
use super::judging::evaluator::Evaluator;
use super::watching::Untrue;
use crate::failure::bad_input;

/// Differences that are told.
const TOLD: usize = 8;

/// What a log says of one entry.
#[derive(Default)]
struct Logged {
    /// Of its round.
    seed: Option<Hash>,
    /// Of its round; empty where a generator makes the inputs.
    items: Vec<Hash>,
    /// What was settled on.
    settled: Option<Outcome>,
    /// What was shown, in the order of the leases.
    verdicts: BTreeMap<LeaseId, (NodeId, Verdict)>,
}

impl Logged {
    /// Reads a log that was found to follow.
    fn read(log: &[u8], of: &Entry, tolerance_ppm: u32) -> Result<Self> {
        let mut found = Self::default();
        let mut leases: BTreeMap<LeaseId, NodeId> = BTreeMap::new();
        for block in ledger::LogReader::new(log)? {
            for record in verify::records(&block?.records).map_err(|(_, error)| error)? {
                match record {
                    Record::Derived(Derived::InputsFixed { competition, round, seed, items, .. })
                        if (competition, round) == (of.competition, of.round) =>
                    {
                        (found.seed, found.items) = (Some(seed), items);
                    }
                    Record::Derived(Derived::Leased { lease, judge, entry, .. }) if entry == of.id => {
                        leases.insert(lease, judge);
                    }
                    // Judges who are asked later, for a takeover, do not change what was settled on.
                    Record::Derived(Derived::Settled { entry, .. }) if entry == of.id => {
                        found.settled = found.plurality(tolerance_ppm).cloned();
                    }
                    Record::Stated(envelope) => {
                        if let Ok(Statement::Show { lease, verdict, .. }) = wire::from_bytes(&envelope.body)
                            && let Some(judge) = leases.get(&lease)
                        {
                            found.verdicts.insert(lease, (*judge, verdict));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// Verdicts that say the same as `outcome`.
    fn agreeing(&self, outcome: &Outcome, tolerance_ppm: u32) -> impl Iterator<Item = &(NodeId, Verdict)> {
        self.verdicts.values().filter(move |(_, verdict)| verdict.outcome.agrees(outcome, tolerance_ppm))
    }

    /// What most judges found.
    fn plurality(&self, tolerance_ppm: u32) -> Option<&Outcome> {
        let outcomes: Vec<&Outcome> = self.verdicts.values().map(|(_, verdict)| &verdict.outcome).collect();
        plurality(&outcomes, tolerance_ppm).map(|(place, _)| outcomes[place])
    }
}

/// What a rerun gave, beside what the audit says of the log.
pub(super) struct Rerun {
    pub(super) json: Value,
    pub(super) text: String,
    /// Whether it found what judges agreed on, and if not, why that is or is not the log's fault.
    pub(super) held: Result<()>,
}

/// Judges entry `id` of a log again: the same code and inputs, fetched from the host and held against their hashes.
/// What the run writes is kept in `run_log`.
pub(super) async fn rerun(
    client: &Client,
    log: &[u8],
    state: &State,
    id: u64,
    run_log: Option<&Path>,
) -> Result<Rerun> {
    let evaluator = Evaluator::new()?;
    // A place that cannot be written is told before the work.
    let kept = |error: std::io::Error| bad_input(format!("--run-log: {error}"));
    let run_log = run_log.map(File::create).transpose().map_err(kept)?;
    let entry = state.entry(EntryId(id)).ok_or_else(|| {
        bad_input(format!("the log has no submission {id}: `shoal arena submissions` lists them"))
    })?;
    let spec = &state.competition(&entry.competition).context("the entry's competition")?.spec;
    let tolerance = spec.judges.tolerance_ppm;
    let logged = Logged::read(log, entry, tolerance)?;
    let judged = matches!(entry.state, EntryState::Scored(_) | EntryState::Failed(_));
    let (Some(seed), Some(code), Some(settled), true) = (logged.seed, entry.code, &logged.settled, judged)
    else {
        return Err(bad_input(format!(
            "submission {id} is {} in the log, which shows verdicts once their round is completed: `shoal arena result {id}` says how it stands",
            entry.state.name()
        )));
    };
    let needs = Needs::fetch(client, spec).await?;
    let mut items = Vec::new();
    for hash in &logged.items {
        items.push((*hash, client.blob(hash).await.with_context(|| format!("fetching the input {hash}"))?));
    }
    let name = super::show::code_name(&client.submission(id, false).await?);
    let bytes = client.raw(id, &name).await?;
    let given = Hash::of(&bytes);
    anyhow::ensure!(
        given == code.hash,
        "the host gives code {given} for submission {id}, and the log names {}: ask its maker for the code",
        code.hash
    );
    let programs = entry.form != Form::Component || spec.kind == Kind::Program;
    let assignment = needs.assign(Assignment {
        lease: LeaseId(0),
        entry: id,
        spec: Arc::new(spec.clone()),
        role: entry.role.into(),
        seed,
        form: entry.form,
        code: bytes,
        baseline: None,
        reference: None,
        environment: None,
        items: Arc::new(items),
    });
    let Finding { verdict, log: wrote } = evaluator.evaluate(assignment).await?;
    if let Some(mut file) = run_log {
        file.write_all(&wrote).map_err(kept)?;
    }
    let held = verdict.outcome.agrees(settled, tolerance);
    let slow = |outcome: &Outcome| matches!(outcome, Outcome::Failed(Failure::Time | Failure::Startup));
    let told = differences(settled, &verdict.outcome).join("; ");
    let end = match () {
        () if held => Ok(()),
        // Another machine is slower, or has another interpreter.
        () if programs || slow(settled) || slow(&verdict.outcome) => Err(anyhow::anyhow!(
            "the verdict on submission {id} is not found again, which can be this machine's doing: try another one (--run-log FILE keeps what the run wrote). {told}"
        )),
        () => Err(Untrue(format!("the verdict on submission {id} is not found again: {told}")).into()),
    };
    let agreeing: Vec<&(NodeId, Verdict)> = logged.agreeing(settled, tolerance).collect();
    let judges: Vec<String> = agreeing.iter().map(|(judge, _)| judge.to_string()).collect();
    let mut walls: Vec<u64> =
        agreeing.iter().filter_map(|(_, found)| Some(found.wall?.task_time_ns)).collect();
    walls.sort_unstable();
    let theirs = walls.get(walls.len().saturating_sub(1) / 2).copied();
    let times = [theirs, verdict.wall.map(|wall| wall.task_time_ns)].map(|time| time.filter(|ns| *ns > 0));
    let [theirs, ours] = times.map(|time| time.map(|ns| ns as f64 / 1e9));
    let json = json!({
        "submission": id, "agrees": held, "round": entry.round.0, "seed": seed.to_string(), "judges": judges,
        "log": as_json(settled), "here": as_json(&verdict.outcome),
        "task_time_s": { "log": theirs, "here": ours },
    });
    let mut text = format!("submission {id}: {} judges found {}", judges.len(), words(settled));
    if held {
        text.push_str(", and so does this machine");
    }
    if let [Some(theirs), Some(ours)] = times {
        let [theirs, ours] = [theirs, ours].map(|ns| ns as f64 / 1e6);
        _ = write!(text, "\nan input took {ours:.3} ms here, {theirs:.3} ms by the log");
    }
    Ok(Rerun { json, text, held: end })
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(failure) => format!("that it {failure}"),
        Outcome::Measured { outputs, measures, .. } => {
            format!("measurements on {} inputs, outputs {}", measures.len(), outputs.short())
        }
    }
}

fn as_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Failed(failure) => json!({ "state": "failed", "failure": failure.to_string() }),
        Outcome::Measured { inputs, outputs, measures } => json!({
            "state": "scored", "items": measures.len(), "inputs_hash": inputs.to_string(),
            "outputs_hash": outputs.to_string(),
        }),
    }
}

/// Where two outcomes differ, for people.
fn differences(log: &Outcome, here: &Outcome) -> Vec<String> {
    let (
        Outcome::Measured { inputs, outputs, measures },
        Outcome::Measured { inputs: our_inputs, outputs: our_outputs, measures: our },
    ) = (log, here)
    else {
        return vec![format!("the log says {}, this machine {}", words(log), words(here))];
    };
    if inputs != our_inputs {
        return vec![format!(
            "it was judged on inputs {}, and here are {}",
            inputs.short(),
            our_inputs.short()
        )];
    }
    let mut told: Vec<String> = match (measures, our) {
        (Measures::Codec(log), Measures::Codec(here)) => differing(log, here),
        (Measures::Program(log), Measures::Program(here)) => differing(log, here),
        _ => vec!["the log measures another kind of entry".to_owned()],
    };
    if told.is_empty() {
        told.push(format!("the log has outputs {}, this machine {}", outputs.short(), our_outputs.short()));
    }
    told
}

fn differing<T: PartialEq + std::fmt::Debug>(log: &[T], here: &[T]) -> Vec<String> {
    let pairs = log.iter().zip(here).enumerate().filter(|(_, (log, here))| log != here);
    pairs
        .take(TOLD)
        .map(|(at, (log, here))| format!("input {at}: {log:?} in the log, {here:?} here"))
        .collect()
}

#[cfg(test)]
mod tests {
    use arena::measure::CodecItem;

    use super::*;

    fn measured(sizes: &[u64], outputs: u8) -> Outcome {
        let item = |size: &u64| CodecItem {
            original_bytes: 100,
            compressed_bytes: *size,
            similarity_ppb: 1_000_000_000,
            exact: true,
            fuel: 5,
        };
        Outcome::Measured {
            inputs: Hash([1; 32]),
            outputs: Hash([outputs; 32]),
            measures: Measures::Codec(sizes.iter().map(item).collect()),
        }
    }

    #[test]
    fn what_most_judges_found_counts_wherever_the_others_stand() {
        let mut logged = Logged::default();
        let of = |outcome: &Outcome| Verdict {
            outcome: outcome.clone(),
            wall: None,
            log: Hash([0; 32]),
            account: Box::default(),
        };
        // The first one claims the same outputs, and other sizes.
        let (lie, truth) = (measured(&[41], 2), measured(&[40], 2));
        for (lease, outcome) in [&lie, &truth, &truth].into_iter().enumerate() {
            logged.verdicts.insert(LeaseId(lease as u64), (NodeId([lease as u8; 32]), of(outcome)));
        }
        assert_eq!(logged.plurality(0), Some(&truth));
        assert_eq!(logged.agreeing(&truth, 0).map(|(judge, _)| judge.0[0]).collect::<Vec<_>>(), [1, 2]);
        logged.verdicts.pop_last();
        assert_eq!(logged.plurality(0), Some(&lie), "of two that are even the first");
    }

    #[test]
    fn differences_name_the_input_and_both_sides() {
        let told = differences(&measured(&[40, 50], 2), &measured(&[40, 51], 3));
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("input 1:") && told[0].contains("compressed_bytes: 51"), "{told:?}");
        let told = differences(&measured(&[40], 2), &measured(&[40], 3));
        assert!(told[0].contains("outputs"), "{told:?}");
        let told = differences(&measured(&[40], 2), &Outcome::Failed(Failure::Trap));
        assert!(told[0].contains("stopped with an error"), "{told:?}");
        let many: Vec<u64> = (1..99).collect();
        assert_eq!(differences(&measured(&many, 2), &measured(&[99; 98], 3)).len(), TOLD);
    }
}
