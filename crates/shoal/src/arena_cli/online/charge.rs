//! Verbs of those who open competitions, and of those in charge of the arena.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use api::Client;
use api::model::{AdmitJudge, PaymentEntry, StatementAnswer};
use arena::record::{PoolItem, RoundNumber, Statement};
use arena::spec::{CompetitionId, CompetitionSpec};
use clap::Args;
use serde_json::json;
use wire::{Hash, NodeId};

use super::Where;
use crate::failure::bad_input;

#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    #[command(flatten)]
    at: Where,
    /// Spec of the competition, in TOML (`shoal arena check` tells what it means).
    spec: PathBuf,
    /// Files that the spec names by their hash: baseline, generator, samples, environment. Uploaded first.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    with: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct EndArgs {
    #[command(flatten)]
    at: Where,
    /// Name, id, or first digits of the id.
    competition: String,
}

#[derive(Args, Debug)]
pub(crate) struct AnnounceArgs {
    #[command(flatten)]
    at: Where,
    /// What to say.
    text: String,
    /// In which competition. Default: to the whole arena.
    #[arg(short, long)]
    competition: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct AdmitArgs {
    #[command(flatten)]
    at: Where,
    /// Key of the judge.
    judge: NodeId,
    /// Who runs it: judges of one operator count as one voice.
    #[arg(long)]
    operator: String,
}

#[derive(Args, Debug)]
pub(crate) struct DismissArgs {
    #[command(flatten)]
    at: Where,
    /// Key of the judge.
    judge: NodeId,
}

#[derive(Args, Debug)]
pub(crate) struct PaidArgs {
    #[command(flatten)]
    at: Where,
    /// Names the payment where it was made: 64 hexadecimal digits.
    #[arg(long)]
    receipt: Hash,
    /// Key that paid.
    #[arg(long)]
    payer: NodeId,
    /// How much, in the smallest unit of the currency.
    #[arg(long)]
    amount: u64,
}

#[derive(Args, Debug)]
pub(crate) struct PoolArgs {
    #[command(flatten)]
    at: Where,
    /// Name, id, or first digits of the id.
    competition: String,
    /// Files that are the items, or a list with `HASH` or `HASH,OPERATOR` in each line (`@FILE`). Files are uploaded.
    #[arg(required = true)]
    items: Vec<String>,
    /// Round. Default: the one that awaits its pool.
    #[arg(long)]
    round: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct UploadArgs {
    #[command(flatten)]
    at: Where,
    /// Files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

fn accepted(answer: &StatementAnswer, words: &str, json: bool) -> Result<String> {
    Ok(if json { serde_json::to_string(answer)? } else { format!("{words} (block {})", answer.block) })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| bad_input(format!("{}: {error}", path.display())))
}

/// The full id of a competition.
pub(super) async fn id_of(client: &Client, name: &str) -> Result<CompetitionId> {
    let found = client.competition(name).await?;
    found.id.parse().with_context(|| format!("the host gave {:?} as an id", found.id))
}

async fn put(client: &Client, path: &Path) -> Result<(Hash, u64)> {
    let answer = client.put_blob("competition", read(path)?.into()).await;
    let answer = answer.with_context(|| format!("uploading {}", path.display()))?;
    Ok((answer.hash.parse().context("the host gave no hash")?, answer.bytes))
}

pub(super) async fn open(args: &OpenArgs, json: bool) -> Result<String> {
    let shown = args.spec.display().to_string();
    let text = String::from_utf8(read(&args.spec)?).map_err(|_| bad_input(format!("{shown} is not text")))?;
    let spec = CompetitionSpec::parse(&text).with_context(|| shown)?;
    let client = args.at.signer().await?;
    for path in &args.with {
        put(&client, path).await?;
    }
    let answer = client.state(&Statement::Open { spec: spec.canonical() }).await?;
    if json {
        let row = json!({ "competition": spec.id().to_string(), "name": spec.name, "block": answer.block });
        return Ok(row.to_string());
    }
    Ok(format!("competition {} {}", spec.name, spec.id()))
}

pub(super) async fn end(args: &EndArgs, json: bool) -> Result<String> {
    let client = args.at.signer().await?;
    let competition = id_of(&client, &args.competition).await?;
    let answer = client.state(&Statement::End { competition }).await?;
    accepted(&answer, "its open round is the last one", json)
}

pub(super) async fn announce(args: &AnnounceArgs, json: bool) -> Result<String> {
    let client = args.at.signer().await?;
    let competition = match &args.competition {
        Some(name) => Some(id_of(&client, name).await?),
        None => None,
    };
    let answer = client.state(&Statement::Announce { competition, text: args.text.clone() }).await?;
    accepted(&answer, "announced", json)
}

pub(super) async fn admit(args: &AdmitArgs, json: bool) -> Result<String> {
    let admit = AdmitJudge { judge: args.judge.to_string(), operator: args.operator.clone() };
    let answer = args.at.signer().await?.admit(&admit).await?;
    accepted(&answer, "admitted", json)
}

pub(super) async fn dismiss(args: &DismissArgs, json: bool) -> Result<String> {
    let answer = args.at.signer().await?.dismiss(&args.judge.to_string()).await?;
    accepted(&answer, "dismissed", json)
}

pub(super) async fn paid(args: &PaidArgs, json: bool) -> Result<String> {
    let PaidArgs { at, receipt, payer, amount } = args;
    let payment = PaymentEntry { receipt: receipt.to_string(), payer: payer.to_string(), amount: *amount };
    let answer = at.signer().await?.pay(&payment).await?;
    accepted(&answer, "entered", json)
}

pub(super) async fn upload(args: &UploadArgs, json: bool) -> Result<String> {
    let client = args.at.signer().await?;
    let mut lines = Vec::new();
    for path in &args.files {
        let (hash, bytes) = put(&client, path).await?;
        let shown = path.display().to_string();
        lines.push(if json {
            json!({ "file": shown, "hash": hash.to_string(), "bytes": bytes }).to_string()
        } else {
            format!("{hash} {bytes:>12} {shown}")
        });
    }
    Ok(lines.join("\n"))
}

pub(super) async fn pool(args: &PoolArgs, json: bool) -> Result<String> {
    let client = args.at.signer().await?;
    let competition = id_of(&client, &args.competition).await?;
    let own = client.id()?;
    let mut items: Vec<PoolItem> = Vec::new();
    for item in &args.items {
        let Some(list) = item.strip_prefix('@') else {
            let (hash, _) = put(&client, Path::new(item)).await?;
            items.push(PoolItem { hash, operator: own });
            continue;
        };
        let text = read(Path::new(list))?;
        for (number, line) in (1..).zip(String::from_utf8_lossy(&text).lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (hash, operator) = line.split_once(',').unwrap_or((line, ""));
            let wrong = |what: String| bad_input(format!("{list}, line {number}: {what}"));
            let hash =
                hash.trim().parse().map_err(|error: wire::id::ParseIdError| wrong(error.to_string()))?;
            let operator = match operator.trim() {
                "" => own,
                key => key.parse().map_err(|error: wire::id::ParseIdError| wrong(error.to_string()))?,
            };
            items.push(PoolItem { hash, operator });
        }
    }
    items.sort_unstable();
    items.dedup_by_key(|item| item.hash);
    let round = if let Some(round) = args.round {
        round
    } else {
        let rounds = client.rounds(&competition.to_string(), 0, 20).await?.rounds;
        let waiting = rounds.iter().find(|round| round.state == "pooling");
        let words = "no round awaits its pool now: it does after it closed (name one with --round)";
        waiting.ok_or_else(|| bad_input(words))?.round_number
    };
    let count = items.len();
    let answer = client.state(&Statement::Pool { competition, round: RoundNumber(round), items }).await?;
    accepted(&answer, &format!("{count} items for round {round}"), json)
}
