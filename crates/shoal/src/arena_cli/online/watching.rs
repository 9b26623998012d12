//! Following what happens, and recomputing what happened.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use api::model::{Event, EventKind};
use arena::State;
use arena::state::Signatures;
use clap::Args;
use serde_json::json;

use super::Where;
use super::rerun::rerun;
use crate::failure::{DOES_NOT_FOLLOW, bad_input};
use crate::watch::print;

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    at: Where,
    /// Only this competition.
    #[arg(short, long)]
    competition: Option<String>,
    /// Only this submission.
    #[arg(long, value_name = "ID")]
    submission: Option<u64>,
    /// Begin with this block. Default: from now on.
    #[arg(long, value_name = "BLOCK")]
    from: Option<u64>,
    /// End after this many events.
    #[arg(short = 'n', long, value_name = "N")]
    events: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    at: Where,
    /// Keep the log here, too.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Recompute this log instead of the host's.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    file: Option<PathBuf>,
    /// Also judge this submission again, on this machine: the code and inputs that the log names, by their hashes. Its round
    /// must be completed and its code shown to you (`shoal arena result ID` says since when).
    #[arg(long, value_name = "ID")]
    rerun: Option<u64>,
    /// Keep what that run wrote here.
    #[arg(long, value_name = "FILE", requires = "rerun")]
    run_log: Option<PathBuf>,
}

/// `shoal arena watch`.
pub(super) async fn watch(args: &WatchArgs, json: bool) -> Result<ExitCode> {
    let client = args.at.client().await?;
    let mut events = client.events(args.competition.as_deref(), args.submission, args.from);
    let mut left = args.events.unwrap_or(u64::MAX);
    while left > 0 {
        match events.next().await {
            Ok(event) => {
                print(&if json { serde_json::to_string(&event)? } else { line(&event) })?;
                left -= 1;
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "opening the stream again");
                tokio::time::sleep(api::limits::RETRY_MAX).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(event: &Event) -> String {
    let what = match event.kind {
        EventKind::CompetitionOpened => "competition opened",
        EventKind::CompetitionCompleted => "competition over",
        EventKind::RoundOpened => "round opened",
        EventKind::RoundAdvanced => "round",
        EventKind::RoundCompleted => "round completed",
        EventKind::RoundVoid => "round void",
        EventKind::Submitted => "submitted",
        EventKind::Unsealed => "unsealed",
        EventKind::Leased => "leased",
        EventKind::Settled => "settled",
        EventKind::Announced => "announced",
        EventKind::Registered => "registration",
        EventKind::Described => "described",
    };
    let mut line = format!("{} {what}", event.at);
    let short = |text: &String| text.chars().take(10).collect::<String>();
    if let Some(id) = &event.competition_id {
        _ = write!(line, " {}", short(id));
    }
    if let Some(round) = event.round_number {
        _ = write!(line, " round {round}");
    }
    if let Some(id) = event.submission_id {
        _ = write!(line, " submission {id}");
    }
    if let Some(key) = &event.key {
        _ = write!(line, " by {}", short(key));
    }
    if let Some(text) = &event.text {
        _ = write!(line, ": {text}");
    }
    line
}

/// `shoal arena audit`.
pub(super) async fn audit(args: &AuditArgs, json: bool) -> Result<ExitCode> {
    let bytes = match &args.file {
        Some(path) => {
            std::fs::read(path).map_err(|error| bad_input(format!("{}: {error}", path.display())))?
        }
        None => args.at.client().await?.log().await?,
    };
    if let Some(path) = &args.out {
        std::fs::write(path, &bytes).map_err(|error| bad_input(format!("{}: {error}", path.display())))?;
    }
    let (state, chain) = arena::verify::file::<State>(&bytes, |_| Signatures::Check)
        .map_err(|fault| anyhow::Error::new(Untrue(format!("the log does not follow: {fault}"))))?;
    let again = match args.rerun {
        Some(id) => Some(rerun(&args.at.client().await?, &bytes, &state, id, args.run_log.as_deref()).await?),
        None => None,
    };
    let rounds: usize = state.competitions().values().map(|found| found.summaries.len()).sum();
    let blocks = chain.next_seq().0;
    let (entries, digest) = (state.entries().len(), state.digest());
    let mut row = json!({
        "follows": true, "blocks": blocks, "competitions": state.competitions().len(), "rounds": rounds,
        "entries": entries, "digest": digest.to_string(), "run": state.run().to_string(),
    });
    let mut text =
        format!("every record follows: {blocks} blocks, {rounds} rounds, {entries} entries\ndigest {digest}");
    let mut held = Ok(());
    if let Some(again) = again {
        row["rerun"] = again.json;
        _ = write!(text, "\n{}", again.text);
        held = again.held;
    }
    print(&if json { row.to_string() } else { text })?;
    held.map(|()| ExitCode::SUCCESS)
}

/// A log that stops being true, or a verdict in it that is not found again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Untrue(pub(super) String);

impl Untrue {
    /// Exit code of `audit` then.
    pub(crate) const CODE: u8 = DOES_NOT_FOLLOW;
}
