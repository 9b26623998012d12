//! `shoal arena` with a host: the verbs of entrants, of judges and of those in charge.

mod charge;
mod config;
mod dashboard;
mod develop;
mod host;
mod judging;
mod key_file;
mod pool;
mod rerun;
mod sets;
mod show;
mod submit;
mod watching;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use api::Client;
use api::model::{Filter, Mode, Sort};
use clap::{Args, Subcommand, ValueEnum};

use crate::watch::print;
pub(crate) use config::Config;
pub(super) use develop::draw;
pub(crate) use key_file::{create_encrypted, decrypt, encrypt, load_any};
pub(crate) use watching::Untrue;

/// Verbs that need a host.
#[derive(Debug, Subcommand)]
pub(crate) enum Online {
    /// Serve an arena: its log, its API, its files.
    Host(host::HostArgs),
    /// Remember a host and a key for all other verbs.
    Link(config::LinkArgs),
    /// List the competitions.
    List(ListArgs),
    /// Show one competition.
    Show(ShowArgs),
    /// Open a competition from a spec in TOML.
    Open(charge::OpenArgs),
    /// End a competition: its open round is the last one.
    End(charge::EndArgs),
    /// Let keys enter a competition by registration (`submission.registered = true`), or list those that may.
    Register(charge::RegisterArgs),
    /// Announce something, in a competition or to the whole arena.
    Announce(charge::AnnounceArgs),
    /// Admit a judge. For the host and the arena's owners.
    Admit(charge::AdmitArgs),
    /// Send a judge away. For the host and the arena's owners.
    Dismiss(charge::DismissArgs),
    /// Enter a payment that arrived. For the host and the arena's owners.
    Paid(charge::PaidArgs),
    /// Name what a round's inputs are drawn from, after it closed: a folder or a prefix with manifest.csv, files, or hashes.
    Pool(pool::PoolArgs),
    /// Store what a spec names: samples, a baseline, a generator. Prints the hash.
    Upload(charge::UploadArgs),
    /// Seal and enter code; it is opened after close by `agent`, by `--watch`, or by the host (`--trust`).
    Submit(submit::SubmitArgs),
    /// Say what a submission of yours is, in place of what was said before.
    Describe(submit::DescribeArgs),
    /// Open your sealed entries as their rounds ask for it, until none is left.
    Agent(submit::AgentArgs),
    /// List submissions.
    Submissions(SubmissionsArgs),
    /// Show a submission: scores, metrics, files.
    Result(ResultArgs),
    /// Print the log of a submission's judgements.
    Logs(LogsArgs),
    /// Print or save a submission's code.
    Code(CodeArgs),
    /// The leaderboard of a competition, or of the whole arena.
    Leaderboard(LeaderboardArgs),
    /// What a key did, and how many entries it has left.
    Profile(ProfileArgs),
    /// Payments of a key that no entry has used yet.
    Receipts(ProfileArgs),
    /// The judges, and how often they agreed with what was settled.
    Judges(AtArgs),
    /// Every key's share of the arena's rewards now, and what is burned.
    Weights(AtArgs),
    /// Fetch what a competition offers: its baseline, its template, its generator or evaluator, its environment.
    Get(develop::GetArgs),
    /// Print the guide for entrants, or what a competition says of itself.
    Docs(DocsArgs),
    /// Judge: lease entries, evaluate them, bind and show verdicts.
    Judge(judging::JudgeArgs),
    /// Follow what happens.
    Watch(watching::WatchArgs),
    /// The arena in the terminal.
    Dashboard(dashboard::DashboardArgs),
    /// Download the arena's log and recompute it: every score follows from it.
    Audit(watching::AuditArgs),
}

/// Which host, and who asks.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Where {
    /// Address of the host. Default: `SHOAL_ARENA`, else what `link` remembers, else http://127.0.0.1:7464.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Key file that signs. Default: what `link` remembers. Encrypted ones ask for their passphrase, or read
    /// `SHOAL_PASSPHRASE`.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Where {
    /// A host, or the default one; the key that `link` remembers.
    pub(crate) fn at(server: Option<String>) -> Self {
        Self { server, key: None }
    }

    /// A client, with the key if there is one.
    pub(crate) async fn client(&self) -> Result<Client> {
        let config = Config::load()?;
        let server = config.server(self.server.as_deref());
        let key = match self.key.as_ref().or(config.key.as_ref()) {
            Some(path) => Some(load_any(path)?),
            None => None,
        };
        Ok(Client::connect(&server, key).await?)
    }

    /// A client for what runs unattended: with the key that `link` remembers if that opens without a question.
    pub(crate) async fn unattended(server: &str) -> Result<Client> {
        let unasked = std::env::var_os("SHOAL_PASSPHRASE").is_some();
        let open = |path: &PathBuf| if unasked { load_any(path).ok() } else { node::key::load(path).ok() };
        let key = Config::load()?.key.as_ref().and_then(open);
        Ok(Client::connect(server, key).await?)
    }

    /// A client that can sign.
    pub(crate) async fn signer(&self) -> Result<Client> {
        let client = self.client().await?;
        client.key()?;
        Ok(client)
    }
}

/// A page of a list.
#[derive(Args, Clone, Copy, Debug)]
struct Page {
    /// Page, from 1.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    page: u64,
    /// Rows of a page, at most 200.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
    count: u32,
}

impl Page {
    fn start(self) -> u64 {
        (self.page - 1).saturating_mul(self.count.into())
    }
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    at: Where,
    /// Also those that are over.
    #[arg(short, long)]
    all: bool,
    /// Only those with this in their name or title.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Only those of a kind.
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    /// Only those in a state; `completed` needs no --all.
    #[arg(long, value_enum)]
    state: Option<StateName>,
    #[command(flatten)]
    page: Page,
}

impl ListArgs {
    fn query(&self) -> api::client::CompetitionQuery {
        let kind = self.kind.map(|kind| match kind {
            KindName::Codec => "codec",
            KindName::Program => "program",
        });
        let state = self.state.map(|state| match state {
            StateName::Pending => "pending",
            StateName::Active => "active",
            StateName::Completed => "completed",
        });
        api::client::CompetitionQuery {
            name: self.name.clone(),
            kind: kind.map(str::to_owned),
            state: state.map(str::to_owned),
            completed: self.all,
            start: self.page.start(),
            count: self.page.count,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    Codec,
    Program,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateName {
    /// Its first round has not opened.
    Pending,
    Active,
    /// It is over.
    Completed,
}

/// Which host, for what has no other arguments.
#[derive(Args, Debug)]
pub(crate) struct AtArgs {
    #[command(flatten)]
    at: Where,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    at: Where,
    /// Name, id, or first digits of the id.
    competition: String,
    /// Print the canonical spec instead.
    #[arg(long)]
    spec: bool,
    /// Print the best of each judged round instead, oldest first.
    #[arg(long, conflicts_with = "spec")]
    history: bool,
    /// Print all announcements instead, newest first.
    #[arg(long, conflicts_with_all = ["spec", "history"])]
    notes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Score,
    Time,
}

#[derive(Args, Debug)]
pub(crate) struct SubmissionsArgs {
    #[command(flatten)]
    at: Where,
    /// Competition: name, id, or first digits of the id. Default: all, newest first.
    #[arg(short, long)]
    competition: Option<String>,
    /// One round.
    #[arg(long, requires = "competition")]
    round: Option<u32>,
    /// Only yours.
    #[arg(short, long, conflicts_with_all = ["top", "entrant"])]
    mine: bool,
    /// Only those that took the lead.
    #[arg(short, long, requires = "competition")]
    top: bool,
    /// Part of an entrant's key.
    #[arg(long, value_name = "HEX")]
    entrant: Option<String>,
    /// Order: by score within rounds, or newest first.
    #[arg(short, long, value_enum, default_value_t = By::Score)]
    sort: By,
    #[command(flatten)]
    page: Page,
}

#[derive(Args, Debug)]
pub(crate) struct ResultArgs {
    #[command(flatten)]
    at: Where,
    /// Id of the submission.
    id: u64,
    /// Print a file in full instead (see the list of files).
    #[arg(short, long, value_name = "NAME")]
    file: Option<String>,
    /// With the measurements on each input.
    #[arg(long)]
    units: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    at: Where,
    /// Id of the submission.
    id: u64,
}

#[derive(Args, Debug)]
pub(crate) struct CodeArgs {
    #[command(flatten)]
    at: Where,
    /// Id of the submission. Without it: the competition, round, key and version that name it.
    #[arg(required_unless_present = "competition")]
    id: Option<u64>,
    /// Competition: an id, its first digits, or a name.
    #[arg(short, long, conflicts_with = "id", requires_all = ["round", "entrant", "version"])]
    competition: Option<String>,
    /// Round.
    #[arg(long, requires = "competition")]
    round: Option<u32>,
    /// Key of its maker, 64 hexadecimal digits.
    #[arg(long, requires = "competition", value_name = "KEY")]
    entrant: Option<String>,
    /// The maker's counter, from 1; 0: what was entered automatically.
    #[arg(long, requires = "competition", value_name = "N")]
    version: Option<u32>,
    /// Save it here instead; an existing file is left alone.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    FirstPlaces,
    MeanScore,
    MedianScore,
    MeanPlace,
    MedianPlace,
    TotalSubmissions,
    Earnings,
}

#[derive(Args, Debug)]
pub(crate) struct LeaderboardArgs {
    #[command(flatten)]
    at: Where,
    /// Competition. Default: the whole arena.
    #[arg(short, long)]
    competition: Option<String>,
    /// One round of the competition: a number, or `last`.
    #[arg(long, requires = "competition")]
    round: Option<String>,
    /// What the arena's leaderboard is sorted by.
    #[arg(long, value_enum, default_value_t = Order::Earnings, conflicts_with = "competition")]
    mode: Order,
    #[command(flatten)]
    page: Page,
}

#[derive(Args, Debug)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    at: Where,
    /// Key. Default: yours.
    entrant: Option<String>,
}

impl ProfileArgs {
    async fn whose(&self) -> Result<(Client, String)> {
        let client = self.at.client().await?;
        let key = match &self.entrant {
            Some(key) => key.clone(),
            None => client.id()?.to_string(),
        };
        Ok((client, key))
    }
}

#[derive(Args, Debug)]
pub(crate) struct DocsArgs {
    #[command(flatten)]
    at: Where,
    /// Competition: name, id, or first digits of the id. Default: the guide for entrants, which needs no host.
    #[arg(short, long)]
    competition: Option<String>,
    /// The guide for whoever opens a competition: how to write a spec and an evaluator, and every key.
    #[arg(long, conflicts_with = "competition")]
    opener: bool,
}

/// The guide for entrants.
const GUIDE: &str = include_str!("../../../../docs/arena.md");

/// The guide for openers.
pub(super) const OPENERS_GUIDE: &str = include_str!("../../../../docs/competitions.md");

/// Runs a verb.
pub(crate) fn run(verb: &Online, json: bool) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(act(verb, json)))
}

async fn act(verb: &Online, json: bool) -> Result<ExitCode> {
    let text = match verb {
        Online::Host(args) => return host::run(args, json).await,
        Online::Judge(args) => return judging::run(args, json).await,
        Online::Watch(args) => return watching::watch(args, json).await,
        Online::Dashboard(args) => return dashboard::run(args).await,
        Online::Submit(args) => return submit::submit(args, json).await,
        Online::Describe(args) => return submit::describe(args, json).await,
        Online::Agent(args) => return submit::agent(args, json).await,
        Online::Link(args) => config::link(args, json)?,
        Online::Open(args) => charge::open(args, json).await?,
        Online::End(args) => charge::end(args, json).await?,
        Online::Register(args) => charge::register(args, json).await?,
        Online::Announce(args) => charge::announce(args, json).await?,
        Online::Admit(args) => charge::admit(args, json).await?,
        Online::Dismiss(args) => charge::dismiss(args, json).await?,
        Online::Paid(args) => charge::paid(args, json).await?,
        Online::Pool(args) => pool::pool(args, json).await?,
        Online::Upload(args) => charge::upload(args, json).await?,
        Online::Audit(args) => return watching::audit(args, json).await,
        Online::List(args) => {
            let client = args.at.client().await?;
            show::competitions(&client.competitions(&args.query()).await?, client.now(), json)?
        }
        Online::Show(args) => {
            let client = args.at.client().await?;
            if args.spec {
                show::spec(&client.spec(&args.competition).await?, json)
            } else if args.history {
                show::history(&client.scores(&args.competition).await?, json)?
            } else if args.notes {
                show::notes(&client.competition_notes(&args.competition).await?, json)?
            } else {
                let found = client.competition(&args.competition).await?;
                let rounds = client.rounds(&found.id, 0, 5).await?;
                show::competition(&found, &rounds, client.now(), json)?
            }
        }
        Online::Docs(args) => match &args.competition {
            None => {
                let guide = if args.opener { OPENERS_GUIDE } else { GUIDE };
                if json {
                    serde_json::json!({ "guide": guide }).to_string()
                } else {
                    guide.trim_end().to_owned()
                }
            }
            Some(name) => {
                let client = args.at.client().await?;
                let found = client.competition(name).await?;
                show::page(&found, &client.spec(&found.id).await?, json)
            }
        },
        Online::Submissions(args) => {
            let filter = match (args.mine, args.top) {
                (true, _) => Filter::Mine,
                (false, true) => Filter::TopScore,
                (false, false) => Filter::All,
            };
            let query = api::client::SubmissionQuery {
                competition: args.competition.clone(),
                entrant: args.entrant.clone(),
                round: args.round,
                filter,
                sort: if matches!(args.sort, By::Score) { Sort::Score } else { Sort::Time },
                start: args.page.start(),
                count: args.page.count,
            };
            let client = args.at.client().await?;
            show::submissions(&client.submissions(&query).await?, client.now(), json)?
        }
        Online::Result(args) => {
            let client = args.at.client().await?;
            match &args.file {
                Some(name) => {
                    let bytes = client.raw(args.id, name).await?;
                    if !json {
                        return write_raw(&bytes);
                    }
                    show::raw(name, &bytes)
                }
                None => show::submission(&client.submission(args.id, args.units).await?, json)?,
            }
        }
        Online::Logs(args) => {
            let client = args.at.client().await?;
            let detail = client.submission(args.id, false).await?;
            let mut logs = Vec::new();
            for file in detail.files.iter().filter(|file| file.kind == api::model::FileKind::Log) {
                let bytes = client.raw(args.id, &file.name).await?;
                logs.push((file.name.clone(), String::from_utf8_lossy(&bytes).into_owned()));
            }
            if logs.is_empty() && !detail.submission.revealed {
                // Says why, as a typed gate.
                client.file(args.id, "metadata.json", 0, 1).await?;
            }
            show::logs(&logs, &detail, json)?
        }
        Online::Code(args) => {
            let client = args.at.client().await?;
            let (id, name) = match (args.id, &args.competition, args.round, &args.entrant, args.version) {
                (None, Some(name), Some(round), Some(entrant), Some(version)) => {
                    let found = client.code_of_version(name, round, entrant, version).await?;
                    (found.submission_id, found.page.name)
                }
                (id, ..) => {
                    let id = id.context("say which submission: its id, or --competition and the rest")?;
                    (id, show::code_name(&client.submission(id, false).await?))
                }
            };
            let bytes = client.raw(id, &name).await?;
            match &args.out {
                None if json => show::raw(&name, &bytes),
                None => return write_raw(&bytes),
                Some(path) => {
                    dashboard::save(path, &bytes, false)?;
                    let shown = path.display().to_string();
                    if json {
                        serde_json::json!({ "file": shown, "bytes": bytes.len() }).to_string()
                    } else {
                        shown
                    }
                }
            }
        }
        Online::Leaderboard(args) => {
            let client = args.at.client().await?;
            let (start, count) = (args.page.start(), args.page.count);
            match (&args.competition, &args.round) {
                (Some(name), None) => show::board(&client.board(name, start, count).await?, json)?,
                (Some(name), Some(round)) => {
                    show::board(&client.round_board(name, round, start, count).await?, json)?
                }
                (None, _) => show::global(&client.leaderboard(mode(args.mode), start, count).await?, json)?,
            }
        }
        Online::Profile(args) => {
            let (client, key) = args.whose().await?;
            show::profile(&client.profile(&key).await?, json)?
        }
        Online::Receipts(args) => {
            let (client, key) = args.whose().await?;
            show::receipts(&client.receipts(&key).await?, json)?
        }
        Online::Judges(args) => show::judges(&args.at.client().await?.judges().await?, json)?,
        Online::Weights(args) => show::weights(&args.at.client().await?.weights().await?, json)?,
        Online::Get(args) => develop::get(args, json).await?,
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn mode(order: Order) -> Mode {
    match order {
        Order::FirstPlaces => Mode::FirstPlaces,
        Order::MeanScore => Mode::MeanScore,
        Order::MedianScore => Mode::MedianScore,
        Order::MeanPlace => Mode::MeanPlace,
        Order::MedianPlace => Mode::MedianPlace,
        Order::TotalSubmissions => Mode::TotalSubmissions,
        Order::Earnings => Mode::Earnings,
    }
}

/// A file's own bytes, to standard output.
fn write_raw(bytes: &[u8]) -> Result<ExitCode> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openers_guide_names_every_key() {
        let code = wire::Hash::of(b"any");
        let parsed = |kind: &str| {
            let text = format!(
                "name = \"a\"\nkind = \"{kind}\"\n[schedule]\nstart = \"2026-01-01T00:00:00Z\"\ndays = 2\n\
                 [inputs]\ncode = \"{code}\"\n[[reward.bounties]]\nraw = 1\n"
            );
            arena::spec::CompetitionSpec::parse(&text).unwrap().canonical().parse::<toml::Table>().unwrap()
        };
        // The keys of [screening] stand in the entrants' guide.
        for table in ["codec", "program"].map(parsed) {
            for (section, value) in table.iter().filter(|(section, _)| *section != "screening") {
                let keys = value.as_table().map_or(vec![section], |table| table.keys().collect());
                for key in keys.into_iter().filter(|key| *key != "bounties") {
                    assert!(OPENERS_GUIDE.contains(&format!("`{key}`")), "{section}.{key}");
                }
            }
        }
    }
}
