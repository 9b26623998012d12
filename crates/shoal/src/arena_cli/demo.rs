//! `shoal arena demo`: a Matrix Compression competition from its opening to its leaderboard, in one command.
//!
//! Everything is real but the clock: tensors come from a model that trains here and now, entries are sealed, the pool is
//! named after close, three judges bind their verdicts blindly, and the log replays. Deadlines are jumped over.

mod harvest;

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use arena::record::EntryId;
use arena::rule::Scoring;
use arena::spec::{ArenaSpec, CompetitionSpec, Form, Kind};
use arena::state::{Entry, Role};
use clap::Args;
use judge::Abilities;
use judge::baseline::{BASELINES, Baseline, zstd};
use judge::local::LocalArena;
use serde_json::json;
use wire::{Hash, Millis, SigningKey};

use super::eval::{LINK_BYTES_PER_S, judge};

/// Arguments of `shoal arena demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Tensors of the round.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(8..=256))]
    items: u32,
    /// Threads to train with. Default: all cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Scoring rule (see `shoal arena rules`).
    #[arg(long, value_name = "NAME", default_value = "shoal-link-1")]
    rule: String,
}

/// Judges: a takeover needs three who agree.
const JUDGES: u8 = 3;
/// Length of the demo's round. Nobody waits for it: the clock jumps.
const ROUND: Duration = Duration::from_hours(2);

/// A row of the leaderboard.
struct Row {
    submission: String,
    entry: EntryId,
    rank: Option<u32>,
    state: &'static str,
    scoring: Option<Scoring>,
}

fn spec(args: &DemoArgs, start: Millis, baseline: &Baseline) -> Result<CompetitionSpec> {
    let start = arena::calendar::Moment(Millis(start.0 / 1000 * 1000));
    let link = if args.rule.starts_with("shoal-link") {
        format!("link_bytes_per_s = {LINK_BYTES_PER_S}\n")
    } else {
        String::new()
    };
    let text = format!(
        "name = \"matrix-compression\"\ntitle = \"Matrix Compression\"\nkind = \"codec\"\n\
         [rule]\nname = \"{}\"\n{link}[schedule]\nstart = \"{start}\"\nevery_s = {}\nrounds = 1\npool_s = 600\nopening_s = 600\njudging_s = 3600\n\
         [inputs]\nsource = \"pool\"\nitems = {}\noperator_share_ppm = 1000000\n\
         [resources]\nruntime = \"{}\"\n\
         [baseline]\nname = \"{}\"\ncode = \"{}\"\nbytes = {}\n",
        args.rule,
        ROUND.as_secs(),
        args.items,
        judge::Judge::runtime_hash(),
        baseline.name,
        baseline.hash(),
        baseline.component.len(),
    );
    Ok(CompetitionSpec::parse(&text)?)
}

/// Keys of this demo: fresh each time, so that the round's seed is.
fn key(secret: &Hash, name: &str) -> SigningKey {
    SigningKey::from_bytes(&Hash::of_parts("shoal 2026-11 demo key", &[&secret.0, name.as_bytes()]).0)
}

pub(super) fn run(args: &DemoArgs, json: bool) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let secret = node::key::generate()?.derive("arena demo", &[]);
    let now = Millis(now.as_millis() as u64);
    let baseline = zstd();
    let spec = spec(args, now, baseline)?;
    let progress = progress();
    let judge = judge()?;
    let mut arena = LocalArena::new(&ArenaSpec::parse("name = \"demo\"")?, &key(&secret, "host"), now)?;
    for number in 0..JUDGES {
        let abilities = Abilities { kinds: vec![Kind::Codec], forms: vec![Form::Component], leases: 1 };
        let name = format!("judge {number}");
        arena.admit(key(&secret, &name), &name, abilities)?;
    }
    arena.keep(baseline.component);
    let opener = key(&secret, "opener");
    let id = arena.open(&opener, &spec)?;
    let mut submitted = Vec::new();
    for entry in BASELINES.iter().filter(|entry| entry.name != baseline.name) {
        progress.set_message(format!("submitting {}", entry.name));
        let number = arena.submit(&key(&secret, entry.name), id, Form::Component, entry.component)?;
        submitted.push((number, entry.name));
    }
    let pool = || {
        progress.set_message("closed; training a model, to harvest what nobody could know");
        harvest::tensors(&secret, args.items + args.items / 4, args.threads).map_err(|error| {
            judge::JudgeError::Dataset { place: "training".into(), reason: format!("{error:#}") }
        })
    };
    let name_of = |id: EntryId| {
        submitted.iter().find(|(entry, _)| *entry == id).map_or(baseline.name, |(_, name)| name)
    };
    arena.play(&judge, id, &opener, pool, |bound| {
        let found = &bound.evaluation.verdict.outcome;
        tracing::info!(judge = bound.judge, entry = name_of(bound.task.entry), ?found, "verdict bound");
        progress.set_message(format!("judge {} judged {}", bound.judge, name_of(bound.task.entry)));
    })?;
    arena.verify()?;
    progress.finish_and_clear();
    let rows = rows(&arena, name_of);
    if json {
        return Ok(as_json(&rows));
    }
    Ok(as_text(&rows, &arena, args))
}

fn progress() -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// All entries of the round: those on the board by rank, then the others.
fn rows(arena: &LocalArena, name_of: impl Fn(EntryId) -> &'static str) -> Vec<Row> {
    let row = |entry: &Entry| Row {
        submission: match entry.role {
            Role::Baseline => format!("{} (baseline)", name_of(entry.id)),
            _ => name_of(entry.id).to_owned(),
        },
        entry: entry.id,
        rank: None,
        state: entry.state.name(),
        scoring: entry.scoring().copied(),
    };
    let mut rows: Vec<Row> = arena.state().entries().iter().map(row).collect();
    rows.sort_by(|a, b| {
        let raw = |row: &Row| row.scoring.map_or(f64::NEG_INFINITY, |scoring| scoring.score.raw);
        raw(b).total_cmp(&raw(a)).then(a.entry.cmp(&b.entry))
    });
    for (index, row) in rows.iter_mut().enumerate() {
        row.rank = row.scoring.map(|_| index as u32 + 1);
    }
    rows
}

fn as_json(rows: &[Row]) -> String {
    let all: Vec<_> = rows
        .iter()
        .map(|row| {
            let figures = row.scoring.and_then(|scoring| scoring.figures);
            json!({
                "rank": row.rank,
                "submission": row.submission,
                "score": row.scoring.map(|scoring| scoring.score.score),
                "raw_score": row.scoring.map(|scoring| scoring.score.raw),
                "compression_ratio": figures.map(|figures| figures.ratio),
                "similarity": figures.map(|figures| figures.similarity),
                "task_time_s": figures.map(|figures| figures.task_time_s),
                "state": row.state,
            })
        })
        .collect();
    json!(all).to_string()
}

fn as_text(rows: &[Row], arena: &LocalArena, args: &DemoArgs) -> String {
    let mut text = format!(
        "Matrix Compression, round 0: {} tensors of a model trained just now, rule {}{}\n\n",
        args.items,
        args.rule,
        if args.rule.starts_with("shoal-link") { " on a link of 10 Mbit/s" } else { "" },
    );
    text.push_str("rank  submission           raw score    score    ratio  similarity time/input  state\n");
    for row in rows {
        let rank = row.rank.map_or_else(|| "–".to_owned(), |rank| rank.to_string());
        _ = write!(text, "{rank:>4}  {:<20} ", row.submission);
        match row.scoring.and_then(|scoring| scoring.figures.map(|figures| (scoring.score, figures))) {
            Some((score, figures)) => {
                _ = write!(
                    text,
                    "{:>9.4} {:>8.4} {:>8.4} {:>11.6} {:>7.2} ms  ",
                    score.raw,
                    score.score,
                    figures.ratio,
                    figures.similarity,
                    figures.task_time_s * 1e3
                );
            }
            None => _ = write!(text, "{:>9} {:>8} {:>8} {:>11} {:>10}  ", "–", "–", "–", "–", "–"),
        }
        _ = writeln!(text, "{}", row.state);
    }
    let champion = arena.state().competitions().values().find_map(|found| found.champion);
    let leads = champion.and_then(|champion| rows.iter().find(|row| row.entry == champion.entry));
    if let Some(row) = leads {
        _ = writeln!(text, "\nChampion: {}, confirmed by {JUDGES} judges.", row.submission);
    } else {
        _ = writeln!(text, "\nNo entry beat the baseline by enough.");
    }
    let records: usize = arena.log().iter().map(|(_, records)| records.len()).sum();
    _ = write!(text, "{records} records in the log; replayed, every signature checked: they agree.");
    text
}
