//! `shoal arena`: what needs no host: scoring rules, the check of a spec, evaluation on this machine, a demo; and the verbs
//! that need one.

mod attempt;
mod demo;
mod eval;
mod harvest;
mod new;
mod online;
mod samples;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use arena::calendar::Moment;
use arena::rule::{Figures, RULES, RuleInfo, info};
use arena::spec::{CompetitionSpec, Form};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::failure::bad_input;
use crate::watch::print;

/// Rounds that `check` lists.
const ROUNDS_SHOWN: u32 = 3;

/// Arguments of `shoal arena`.
#[derive(Debug, Args)]
pub(crate) struct ArenaArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scoring rules.
    Rules,
    /// Score three figures with a rule.
    Score(ScoreArgs),
    /// Check a competition's spec; print its id, its first rounds and its canonical form.
    Check(CheckArgs),
    /// Judge an entry on this machine: the same evaluator, the same verdict.
    Eval(eval::EvalArgs),
    /// List a data set, or write one: a draw from another, or tensors from a seed.
    Samples(samples::SamplesArgs),
    /// Turn a run's own traffic and checkpoints into inputs.
    Harvest(harvest::HarvestArgs),
    /// Make an entry to start from.
    New(new::NewArgs),
    /// Wrap a core WebAssembly module in the component that is entered.
    Pack(new::PackArgs),
    /// A whole competition on this machine: train, harvest, enter the baselines, judge, show the leaderboard.
    Demo(demo::DemoArgs),
    #[command(flatten)]
    Online(online::Online),
}

#[derive(Debug, Args)]
struct ScoreArgs {
    /// Name of the rule (see `shoal arena rules`).
    #[arg(long, value_name = "NAME")]
    rule: String,
    /// Cosine similarity × norm similarity; 1: every bit came back.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    similarity: f64,
    /// Original size ÷ compressed size.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    ratio: f64,
    /// Compress plus decompress, seconds.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    time: f64,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The spec, in TOML.
    spec: PathBuf,
    /// Also run what it names on one input: the generator, the baseline, the evaluator.
    #[arg(long = "try")]
    attempt: bool,
    /// Files that the spec names by their hashes, for --try; the built-in codecs are there.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "attempt")]
    with: Vec<PathBuf>,
    /// Folder or object store's prefix whose first input --try takes, instead of one that is generated.
    #[arg(long, value_name = "PLACE", requires = "attempt")]
    data: Option<String>,
}

pub(crate) use eval::{cache_folder, code};
pub(crate) use online::{Untrue, Where, create_encrypted, decrypt, encrypt, load_any};

pub(crate) fn run(args: &ArenaArgs, json: bool) -> Result<ExitCode> {
    match &args.command {
        Command::Rules => print(&rules(json))?,
        Command::Score(args) => print(&score(args, json)?)?,
        Command::Check(args) => print(&check(args, json)?)?,
        Command::Eval(args) => {
            let (text, scored) = eval::run(args, json)?;
            print(&text)?;
            return Ok(if scored { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Samples(args) => print(&samples::run(args, json)?)?,
        Command::Harvest(args) => print(&harvest::run(args, json)?)?,
        Command::New(args) => print(&new::run(args, json)?)?,
        Command::Pack(args) => print(&new::pack(args, json)?)?,
        Command::Online(verb) => return online::run(verb, json),
        Command::Demo(args) => print(&demo::run(args, json)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn rules(json: bool) -> String {
    let mut text = String::new();
    for RuleInfo { name, formula, origin, takeover, parameters, .. } in RULES {
        let (margin, alpha) = (takeover.margin_ppm, takeover.alpha_ppm);
        if json {
            let row = json!({
                "rule": name, "formula": formula, "origin": origin, "parameters": parameters,
                "takeover": { "margin_ppm": margin, "alpha_ppm": alpha },
            });
            _ = writeln!(text, "{row}");
            continue;
        }
        let percent = |ppm: u32| f64::from(ppm) / 10_000.0;
        let proof =
            if alpha > 0 { format!(", and a paired test at {} %", percent(alpha)) } else { String::new() };
        _ = writeln!(
            text,
            "{name}\n  {formula}\n  Takeover: {} % over the top raw score{proof}",
            percent(margin)
        );
        _ = writeln!(text, "  Origin: {origin}");
        if !parameters.is_empty() {
            _ = writeln!(text, "  Parameters: {}", parameters.join(", "));
        }
        text.push('\n');
    }
    text.trim_end().to_owned()
}

fn score(args: &ScoreArgs, json: bool) -> Result<String> {
    let names = || RULES.iter().map(|info| info.name).collect::<Vec<_>>().join(", ");
    let found = info(&args.rule)
        .ok_or_else(|| bad_input(format!("no rule {:?}; there are: {}", args.rule, names())))?;
    if !found.rule.is_for_codecs() {
        return Err(bad_input(format!(
            "{} scores what an evaluator measures, not the figures of a codec",
            args.rule
        )));
    }
    let possible = |good: bool, flag: &str, value: f64, allowed: &str| {
        if good {
            Ok(())
        } else {
            Err(bad_input(format!("{flag} {value} is not possible: expected {allowed}")))
        }
    };
    let (similarity, ratio, time) = (args.similarity, args.ratio, args.time);
    possible(
        similarity <= 1.0 && similarity.is_finite(),
        "--similarity",
        similarity,
        "a number of at most 1",
    )?;
    possible(ratio > 0.0 && ratio.is_finite(), "--ratio", ratio, "a number above 0")?;
    possible(time >= 0.0 && time.is_finite(), "--time", time, "seconds, 0 or more")?;
    let score = found.rule.score(&Figures { similarity, ratio, task_time_s: time });
    if json {
        return Ok(json!({ "raw_score": score.raw, "score": score.score }).to_string());
    }
    Ok(format!("raw score {}\nscore {}", score.raw, score.score))
}

/// Pins this build's runtime where components run and the spec pins none: judges with another would count other fuel.
fn pin_runtime(spec: &mut CompetitionSpec) {
    let baseline = spec.baseline.code.map(|_| spec.baseline.form);
    let components =
        spec.submission.forms.iter().copied().chain(baseline).any(|form| form == Form::Component);
    if components && spec.resources.runtime.is_none() {
        spec.resources.runtime = Some(judge::Judge::runtime_hash());
    }
}

fn check(args: &CheckArgs, json: bool) -> Result<String> {
    let shown = args.spec.display();
    let text = std::fs::read_to_string(&args.spec).map_err(|error| bad_input(format!("{shown}: {error}")))?;
    let mut spec = CompetitionSpec::parse(&text).with_context(|| shown.to_string())?;
    pin_runtime(&mut spec);
    let tried = if args.attempt {
        attempt::run(&spec, &args.with, args.data.as_deref()).with_context(|| shown.to_string())?
    } else {
        attempt::Tried::new()
    };
    let end = if spec.schedule.rounds > 0 { spec.schedule.rounds } else { u32::MAX };
    let rounds: Vec<(String, String)> = (0..ROUNDS_SHOWN.min(end))
        .map(|round| {
            let (opens, closes) = (spec.schedule.opens(round), spec.schedule.closes(round));
            (Moment(opens).to_string(), Moment(closes).to_string())
        })
        .collect();
    let (id, canonical) = (spec.id().to_string(), spec.canonical());
    if json {
        let rounds: Vec<_> =
            rounds.iter().map(|(opens, closes)| json!({ "opens": opens, "closes": closes })).collect();
        let mut row =
            json!({ "competition": id, "name": spec.name, "rounds": rounds, "canonical": canonical });
        if args.attempt {
            row["tried"] = tried.into_iter().map(|(what, _, found)| (what.to_owned(), found)).collect();
        }
        return Ok(row.to_string());
    }
    let mut text = format!("competition {id}\n");
    for (round, (opens, closes)) in rounds.iter().enumerate() {
        _ = writeln!(text, "round {round}: {opens} to {closes}");
    }
    for (what, words, _) in &tried {
        _ = writeln!(text, "tried {what}: {words}");
    }
    if args.attempt && tried.is_empty() {
        _ = writeln!(text, "nothing to try: the spec names neither generator nor baseline nor evaluator");
    }
    _ = write!(text, "\n{}", canonical.trim_end());
    Ok(text)
}
