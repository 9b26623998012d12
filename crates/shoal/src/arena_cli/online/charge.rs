//! Verbs of those who open competitions, and of those in charge of the arena.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use api::Client;
use api::model::{AdmitJudge, PaymentEntry, StatementAnswer};
use arena::record::Statement;
use arena::spec::{CompetitionId, CompetitionSpec, Source};
use clap::Args;
use serde_json::json;
use wire::{Hash, NodeId};

use super::Where;
use super::sets::{self, Checked, Known, Published};
use crate::arena_cli::pin_runtime;
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
    /// Folder or object-store prefix (http, https, s3, gs) with the samples and manifest.csv: each is checked against its hash
    /// and uploaded, and the spec's `inputs.samples` set to them.
    #[arg(long, value_name = "PLACE")]
    samples: Option<String>,
    /// Folder or prefix that rounds are to be drawn from (`shoal arena pool NAME PLACE`): checked now, not uploaded. Nothing of
    /// it may be among the samples.
    #[arg(long, value_name = "PLACE")]
    pool: Option<String>,
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
pub(crate) struct RegisterArgs {
    #[command(flatten)]
    at: Where,
    /// Name, id, or first digits of the id.
    competition: String,
    /// Keys, or lists with a key in each line (`@FILE`). Default: print those that are registered.
    keys: Vec<String>,
    /// Take them off the list instead: what they entered stays.
    #[arg(long, requires = "keys")]
    remove: bool,
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
pub(crate) struct UploadArgs {
    #[command(flatten)]
    at: Where,
    /// Files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub(super) fn accepted(answer: &StatementAnswer, words: &str, json: bool) -> Result<String> {
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

pub(super) async fn put(client: &Client, path: &Path) -> Result<(Hash, u64)> {
    let answer = client.put_blob("competition", read(path)?.into()).await;
    let answer = answer.with_context(|| format!("uploading {}", path.display()))?;
    Ok((answer.hash.parse().context("the host gave no hash")?, answer.bytes))
}

pub(super) async fn open(args: &OpenArgs, json: bool) -> Result<String> {
    let shown = args.spec.display().to_string();
    let text = String::from_utf8(read(&args.spec)?).map_err(|_| bad_input(format!("{shown} is not text")))?;
    let mut spec = CompetitionSpec::parse(&text).with_context(|| shown.clone())?;
    let samples = match &args.samples {
        Some(place) => Some(Checked::read(place, spec.kind, &Known::default()).await?),
        None => None,
    };
    pin_runtime(&mut spec);
    // What is wrong is told before anything is uploaded.
    if let Some(manifest) = samples.as_ref().map(Checked::manifest).transpose()? {
        let manifest = Hash::of(manifest.as_bytes());
        if spec.inputs.samples.replace(manifest).is_some_and(|said| said != manifest) {
            return Err(bad_input(format!(
                "{shown} names other samples than --samples holds ({manifest}): leave one of them out"
            )));
        }
    }
    let client = args.at.signer().await?;
    if let Some(place) = &args.pool {
        pool_fits(&spec, place, samples.as_ref(), client.id()?).await?;
    }
    for path in &args.with {
        put(&client, path).await?;
    }
    let published = match &samples {
        Some(samples) => Some(samples.publish(&client).await?),
        None => None,
    };
    let answer = client.state(&Statement::Open { spec: spec.canonical() }).await?;
    if json {
        let samples = published.map(|published| {
            let hash = published.manifest.to_string();
            json!({ "manifest": hash, "items": published.items, "bytes": published.bytes })
        });
        let id = spec.id().to_string();
        let row = json!({ "competition": id, "name": spec.name, "block": answer.block, "samples": samples });
        return Ok(row.to_string());
    }
    let mut text = format!("competition {} {}", spec.name, spec.id());
    if let Some(Published { manifest, items, bytes }) = published {
        _ = write!(text, "\n{items} samples, {bytes} bytes, manifest {manifest}");
    }
    Ok(text)
}

/// Whether rounds could be drawn from a data set, told before anybody enters.
async fn pool_fits(
    spec: &CompetitionSpec,
    place: &str,
    samples: Option<&Checked>,
    own: NodeId,
) -> Result<()> {
    if spec.inputs.source != Source::Pool {
        return Err(bad_input(
            "--pool: the spec says that a generator makes the inputs: inputs.source = \"pool\"",
        ));
    }
    let known = samples.map_or_else(Known::default, Checked::known);
    let pool = Checked::read(place, spec.kind, &known).await?;
    pool.unknown_to(&known)?;
    sets::enough(spec, pool.items.iter().map(|ready| ready.operator().unwrap_or(own)))
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

/// Keys named one by one and in lists.
fn keys_of(named: &[String]) -> Result<Vec<NodeId>> {
    let parse = |text: &str, place: &str| {
        let key: Result<NodeId, wire::id::ParseIdError> = text.parse();
        key.map_err(|error| bad_input(format!("{place}{text:?} is no key: {error}")))
    };
    let mut keys = Vec::new();
    for name in named {
        let Some(list) = name.strip_prefix('@') else {
            keys.push(parse(name, "")?);
            continue;
        };
        let text = read(Path::new(list))?;
        for (number, line) in (1..).zip(String::from_utf8_lossy(&text).lines()) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                keys.push(parse(line, &format!("{list}, line {number}: "))?);
            }
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

pub(super) async fn register(args: &RegisterArgs, json: bool) -> Result<String> {
    if args.keys.is_empty() {
        return registered(&args.at.client().await?, &args.competition, json).await;
    }
    let keys = keys_of(&args.keys)?;
    let client = args.at.signer().await?;
    let competition = id_of(&client, &args.competition).await?;
    let enter = !args.remove;
    let (mut block, mut repeated) = (None, None);
    for part in keys.chunks(arena::limits::REGISTER_KEYS_MAX) {
        let statement = Statement::Register { competition, keys: part.to_vec(), enter };
        match client.state(&statement).await {
            Ok(answer) => block = Some(answer.block),
            // A part of a long list that an earlier try got through: the rest may still say something.
            Err(error) if error.reason() == Some("repeated") => repeated = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    if let (None, Some(error)) = (block, repeated) {
        return Err(error.into());
    }
    let count = keys.len();
    if json {
        return Ok(json!({ "keys": count, "enter": enter, "block": block }).to_string());
    }
    Ok(format!("{count} keys {}", if enter { "may enter" } else { "may enter no more" }))
}

async fn registered(client: &Client, name: &str, json: bool) -> Result<String> {
    let found = client.competition(name).await?;
    if !found.by_registration && !json {
        return Ok("every key may enter here".to_owned());
    }
    let mut keys: Vec<String> = Vec::new();
    loop {
        let page = client.registered(&found.id, keys.len() as u64, api::limits::PAGE_MAX).await?;
        keys.extend(page.keys);
        if !page.pagination.has_more {
            break;
        }
    }
    if json {
        return Ok(json!({ "by_registration": found.by_registration, "keys": keys }).to_string());
    }
    Ok(if keys.is_empty() { "no key is registered yet".to_owned() } else { keys.join("\n") })
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
