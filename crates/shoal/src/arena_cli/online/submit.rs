//! Entering code: sealed before close, opened after it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::judge::Code;
use anyhow::{Context, Result};
use api::Client;
use api::client::ClientError;
use api::model::{EventKind, ReceiptRow};
use api::seals::{Entry, Kept, Opened, Seals};
use arena::about::About;
use arena::record::{EntryId, Statement};
use arena::spec::{CompetitionSpec, Form};
use clap::Args;
use serde_json::json;
use wire::Hash;

use super::charge::id_of;
use super::config::data_folder;
use super::develop::{self, Needs, Samples};
use super::{Where, show};
use crate::arena_cli::eval::{self, FormName, Found, Trial};
use crate::failure::{FAILED, bad_input};
use crate::watch::print;

/// Pause before a look at seals whose events were missed.
const LOOK: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    at: Where,
    /// The code: a WebAssembly component or core module, a Python file, a native program, or a zip of a program's folder.
    file: PathBuf,
    /// Competition: name, id, or first digits of the id.
    #[arg(short, long)]
    competition: String,
    /// What it is. Default: by the file's first bytes.
    #[arg(long, value_enum)]
    form: Option<FormName>,
    /// Submissions that it builds on; their makers may share in the reward.
    #[arg(long, value_name = "ID")]
    parent: Vec<u64>,
    /// Payment, where one is due. Default: the smallest of yours that is enough (`shoal arena receipts`).
    #[arg(long, value_name = "HASH")]
    receipt: Option<Hash>,
    /// Judge it here on the competition's samples, as `shoal arena eval` does, and stop: nothing is sent. Also checks form,
    /// size, rate limit and round.
    #[arg(long)]
    check: bool,
    /// Samples for --check: a folder, or the address of an object store's prefix (s3 is asked unsigned without a key;
    /// AWS_SKIP_SIGNATURE=false uses the machine's role). Default: the competition's own.
    #[arg(long, value_name = "PLACE", requires = "check")]
    data: Option<String>,
    /// Most samples for --check.
    #[arg(long, value_name = "N", requires = "check", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    items: u32,
    /// Hand code and salt to the host now: it opens the seal for you, and could look at the code before the round closes.
    #[arg(long, conflicts_with = "check")]
    trust: bool,
    /// Stay until it is judged: opens the seal when the round asks for it.
    #[arg(short, long, conflicts_with = "check")]
    watch: bool,
    #[command(flatten)]
    words: Words,
}

/// What an entry is, for people. Everybody sees it at once.
#[derive(Args, Debug)]
struct Words {
    /// One line that says what the entry is.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Some lines more.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// What it is written in.
    #[arg(long, value_name = "NAME")]
    language: Option<String>,
    /// Under which terms others may use it, like Apache-2.0.
    #[arg(long, value_name = "NAME")]
    licence: Option<String>,
    /// Address of a page.
    #[arg(long, value_name = "URL")]
    link: Option<String>,
}

impl Words {
    /// Checked as the host checks it.
    fn about(&self) -> Result<About> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let about = About {
            title: text(&self.title),
            note: text(&self.note),
            language: text(&self.language),
            licence: text(&self.licence),
            link: text(&self.link),
        };
        about.check().map_err(|refusal| bad_input(refusal.to_string()))?;
        Ok(about)
    }
}

#[derive(Args, Debug)]
pub(crate) struct DescribeArgs {
    #[command(flatten)]
    at: Where,
    /// Id of the submission.
    id: u64,
    #[command(flatten)]
    words: Words,
}

#[derive(Args, Debug)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    at: Where,
    /// Stay when nothing is left, for entries to come.
    #[arg(long)]
    stay: bool,
}

/// Sealed entries of an arena.
fn seals(client: &Client) -> Result<Seals> {
    Ok(Seals::new(data_folder()?.join("arena").join(client.run().to_string()).join("sealed")))
}

/// What pays for an entry: what was named, else the smallest payment that is enough.
async fn receipt(client: &Client, spec: &CompetitionSpec, named: Option<Hash>) -> Result<Option<Hash>> {
    if named.is_some() || spec.fee.amount == 0 {
        return Ok(named);
    }
    let found = client.receipts(&client.id()?.to_string()).await?.receipts;
    let enough = found.iter().filter(|row| row.amount >= spec.fee.amount).min_by_key(|row| row.amount);
    let parse = |row: &ReceiptRow| row.receipt.parse().context("the host gave no receipt");
    enough.map(parse).transpose()
}

/// What can be known before an entry is made, without running it.
async fn check(
    client: &Client,
    spec: &CompetitionSpec,
    (form, code): (Form, &[u8]),
    receipt: Option<Hash>,
) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let rules = &spec.submission;
    if !rules.forms.contains(&form) {
        faults.push(format!("form {} is not admitted here", form.name()));
    }
    if code.is_empty() || code.len() as u64 > rules.bytes_max {
        faults.push(format!("{} bytes; allowed are 1 to {}", code.len(), rules.bytes_max));
    }
    let rate = client.rate_limit(&client.id()?.to_string()).await?;
    if rate.left == 0 {
        faults.push(format!("{} entries are used up; the next is free at {}", rate.limit, rate.next_free_at));
    }
    if spec.fee.amount > 0 && receipt.is_none() {
        let arena::spec::Fee { amount, currency, pay_to } = &spec.fee;
        let pay = if pay_to.is_empty() { "pay".to_owned() } else { format!("pay to {pay_to}") };
        faults.push(format!(
            "an entry costs {amount} {currency} and no unused payment of yours is enough: {pay}, and ask the host to enter the payment"
        ));
    }
    let found = client.competition(&spec.id().to_string()).await?;
    if found.may_enter == Some(false) {
        let (own, opener) = (client.id()?, &found.opener);
        let name = &found.name;
        faults.push(format!(
            "only registered keys may enter, and yours is not one: ask the opener, {opener}, for `shoal arena register {name} {own}`"
        ));
    }
    if found.curr_round.is_none_or(|round| round.state != "open") {
        let next = found.next_round_at.map_or(String::new(), |at| format!(": the next opens at {at}"));
        faults.push(format!("no round is open{next}"));
    }
    Ok(faults)
}

/// Runs the evaluator of `eval` and of the judges on the samples. Nothing of the entry leaves this machine.
async fn try_out(
    client: &Client,
    spec: CompetitionSpec,
    args: &SubmitArgs,
    (form, code): (Form, Vec<u8>),
) -> Result<(Found, String)> {
    let needs = Needs::fetch(client, &spec).await?;
    let samples = match &args.data {
        Some(place) => {
            let mut inputs = eval::dataset_of(place).await?;
            inputs.truncate(args.items as usize);
            Samples { inputs: Some(inputs), place: place.clone() }
        }
        None => develop::samples(client, &spec, None, args.items as usize).await?,
    };
    let most = args.items;
    let done = tokio::task::spawn_blocking(move || {
        let mut spec = spec;
        spec.inputs.items =
            samples.inputs.as_ref().map_or(spec.inputs.items.min(most), |all| all.len() as u32);
        let trial = Trial {
            spec: &spec,
            seed: eval::seed("check"),
            entry: Code { form, bytes: &code },
            baseline: needs.baseline(),
            reference: needs.reference()?,
            environment: needs.environment(),
            inputs: samples.inputs,
        };
        Ok((eval::try_out(trial)?, samples.place))
    });
    done.await.context("the evaluator stopped")?
}

/// `shoal arena submit --check`.
async fn dry_run(
    client: &Client,
    spec: CompetitionSpec,
    args: &SubmitArgs,
    entry: (Form, Vec<u8>),
    faults: &[String],
    json: bool,
) -> Result<ExitCode> {
    let form = entry.0;
    // What is not admitted is not run either.
    let admitted = spec.submission.forms.contains(&form);
    let found = if admitted { Some(try_out(client, spec, args, entry).await?) } else { None };
    let scored = found.as_ref().is_some_and(|(found, _)| found.scoring.is_some());
    let good = faults.is_empty() && scored;
    if json {
        let verdict = found.as_ref().map(|(found, _)| eval::as_json(found, false));
        let samples = found.as_ref().map(|(_, place)| place);
        print(
            &json!({ "ok": good, "form": form.name(), "faults": faults, "samples": samples, "verdict": verdict })
                .to_string(),
        )?;
    } else {
        if let Some((found, place)) = &found {
            print(&format!("on {place}:\n{}", eval::as_text(found, false)))?;
        }
        let words = if good { "ready to enter".to_owned() } else { faults.join("\n") };
        if !words.is_empty() {
            print(&words)?;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// `shoal arena submit`.
pub(super) async fn submit(args: &SubmitArgs, json: bool) -> Result<ExitCode> {
    let code = eval::code(&args.file)?;
    let form = eval::form(&args.file, &code, args.form)?;
    let about = args.words.about()?;
    let client = args.at.signer().await?;
    let competition = id_of(&client, &args.competition).await?;
    let spec = CompetitionSpec::parse(&client.spec(&competition.to_string()).await?)?;
    let receipt = receipt(&client, &spec, args.receipt).await?;
    let faults = check(&client, &spec, (form, &code), receipt).await?;
    if args.check {
        return dry_run(&client, spec, args, (form, code), &faults, json).await;
    }
    if !faults.is_empty() {
        return Err(bad_input(faults.join("; ")));
    }
    let seals = seals(&client)?;
    let parents = args.parent.iter().map(|id| EntryId(*id)).collect();
    let entry = Entry { competition, form, code: code.into(), parents, receipt };
    let (answer, kept) = seals.enter(&client, entry).await?;
    let id = answer.submission_id.context("the host named no submission")?;
    let round = client.round(&competition.to_string(), &answer.round_number.unwrap_or(0).to_string()).await?;
    if args.trust {
        seals.entrust(&client, &kept, id).await?;
    }
    if json {
        let row = json!({
            "submission": id, "round": answer.round_number, "closes": round.end_at, "seal": kept.seal,
            "opened_by": if args.trust { "host" } else if args.watch { "this process" } else { "agent" },
        });
        print(&row.to_string())?;
    } else {
        print(&format!("submission {id}, round {}, closes {}", round.round_number, round.end_at))?;
        match (args.trust, args.watch) {
            (true, _) => print("the host opens the seal")?,
            (false, true) => print("waiting: this opens the seal when the round has closed")?,
            (false, false) => print("run `shoal arena agent` until the round has closed: it opens the seal")?,
        }
    }
    if !about.is_empty() {
        // The entry stands without its words: what follows must not be lost with them.
        if let Err(error) = client.state(&Statement::Describe { entry: EntryId(id), about }).await {
            // Nor with a reader of warnings that has gone.
            drop(writeln!(
                std::io::stderr(),
                "shoal: submission {id} is entered, but not described ({error}): say what it is with `shoal arena describe {id}`"
            ));
        }
    }
    if !args.watch {
        return Ok(ExitCode::SUCCESS);
    }
    open_all(&client, &seals, Some(&kept.seal), json, false).await?;
    judged(&client, id, json).await
}

/// `shoal arena describe`.
pub(super) async fn describe(args: &DescribeArgs, json: bool) -> Result<ExitCode> {
    let about = args.words.about()?;
    let client = args.at.signer().await?;
    let answer = client.state(&Statement::Describe { entry: EntryId(args.id), about }).await?;
    print(&if json {
        json!({ "submission": args.id, "block": answer.block }).to_string()
    } else {
        format!("submission {} is described", args.id)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of an entry's round; the exit code says whether it was scored.
async fn judged(client: &Client, id: u64, json: bool) -> Result<ExitCode> {
    let mut events = client.events(None, Some(id), None);
    let before = client.submission(id, false).await?;
    let mut rounds = client.events(Some(&before.submission.competition_id), None, None);
    loop {
        let found = client.submission(id, false).await?;
        let row = &found.submission;
        let over = matches!(found.round_state.as_str(), "completed" | "void");
        // The maker sees what judges settled at once.
        if over || (row.revealed && row.state != "pending" && row.state != "queued") {
            print(&show::submission(&found, json)?)?;
            return Ok(if row.state == "scored" { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        tokio::select! {
            event = events.next() => drop(event),
            event = rounds.next() => drop(event),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// `shoal arena agent`.
pub(super) async fn agent(args: &AgentArgs, json: bool) -> Result<ExitCode> {
    let client = args.at.signer().await?;
    open_all(&client, &seals(&client)?, None, json, args.stay).await?;
    Ok(ExitCode::SUCCESS)
}

/// Opens what is sealed, or this one seal alone, as rounds ask for it; ends when nothing is left.
async fn open_all(client: &Client, seals: &Seals, only: Option<&str>, json: bool, stay: bool) -> Result<()> {
    let own = client.id()?.to_string();
    let mut events = client.events(None, None, None);
    let mut failed = BTreeMap::new();
    loop {
        // Open before looking, so that nothing falls between both.
        let listening = events.open().await;
        let mut waiting = 0;
        let ours = |kept: &Kept| kept.entrant == own && only.is_none_or(|seal| kept.seal == seal);
        for kept in seals.all()?.into_iter().filter(ours) {
            let opened = match seals.open(client, &kept).await {
                Ok(opened) => opened,
                Err(error) if error.is_transient() => {
                    waiting += 1;
                    continue;
                }
                // The others are opened nevertheless. What the host refuses now it may take later; own files do not mend.
                Err(error) => {
                    waiting += u32::from(!matches!(error, ClientError::Files { .. }));
                    let words = error.to_string();
                    if failed.get(&kept.seal) != Some(&words) {
                        crate::failure::report(&error.into(), json);
                        failed.insert(kept.seal, words);
                    }
                    continue;
                }
            };
            failed.remove(&kept.seal);
            match opened {
                Opened::Waits { .. } => waiting += 1,
                Opened::Now { entry } => {
                    waiting += 1; // until it is seen as opened
                    tell(json, entry, "opened")?;
                }
                Opened::Over { entry, state } => tell(json, entry, &state)?,
                Opened::Unknown => {}
            }
        }
        if waiting == 0 && !stay {
            anyhow::ensure!(failed.is_empty(), "{} sealed entries could not be opened", failed.len());
            return Ok(());
        }
        let woken = async {
            if listening.is_err() {
                tokio::time::sleep(LOOK).await;
                return;
            }
            while let Ok(event) = events.next().await {
                if matches!(event.kind, EventKind::RoundAdvanced | EventKind::RoundVoid | EventKind::Unsealed)
                {
                    return;
                }
            }
        };
        drop(tokio::time::timeout(LOOK, woken).await);
    }
}

fn tell(json: bool, entry: u64, state: &str) -> Result<()> {
    if json {
        print(&json!({ "submission": entry, "state": state }).to_string())
    } else {
        print(&format!("submission {entry}: {state}"))
    }
}
