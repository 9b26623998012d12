//! The judge's loop: lease, evaluate, bind, show. Killed at any instruction it goes on: what it bound lies in a folder, its
//! nonces follow from its key. A bound verdict that is lost costs the judge its lease, nobody else anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arena::measure::Verdict;
use arena::record::{LeaseId, RoundNumber, Statement};
use arena::spec::{CompetitionId, CompetitionSpec, Form};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{Hash, SigningKey};

use crate::client::{Client, ClientError};
use crate::limits;
use crate::model::{Due, EntryRole, FindingView, LeaseView, NonceDue, WorkAnswer};

/// Everything that decides an entry's verdict.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Lease under which it is judged.
    pub lease: LeaseId,
    /// Entry.
    pub entry: u64,
    /// Spec of its competition.
    pub spec: Arc<CompetitionSpec>,
    /// What it is in its round: the baseline is timed beside nothing.
    pub role: EntryRole,
    /// Seed of the round.
    pub seed: Hash,
    /// What the code is.
    pub form: Form,
    /// The code.
    pub code: Bytes,
    /// The baseline's code, but for the baseline itself.
    pub baseline: Option<(Form, Bytes)>,
    /// Generator or evaluator that the spec names.
    pub reference: Option<Bytes>,
    /// Lock file of the environment that the spec names.
    pub environment: Option<Bytes>,
    /// Drawn inputs in order; none where a generator makes them.
    pub items: Arc<Vec<(Hash, Bytes)>>,
}

/// What an evaluation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The verdict; its `log` is the hash of `log`.
    pub verdict: Verdict,
    /// The log.
    pub log: Bytes,
}

/// What is wrong with the judge or the competition, not with the entry: the entry goes to another judge.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EvaluateError(pub String);

/// Runs entries and measures them.
#[async_trait]
pub trait Evaluate: Send + Sync + 'static {
    /// Whether it can judge everything that a competition admits. Others' seeds it takes no part in.
    fn covers(&self, spec: &CompetitionSpec) -> bool;

    /// Judges one entry. What is wrong with the entry is the verdict.
    ///
    /// # Errors
    /// What is wrong with this judge or with the competition.
    async fn evaluate(&self, assignment: Assignment) -> Result<Finding, EvaluateError>;
}

/// How a judge works.
pub struct Settings {
    /// Its key.
    pub key: SigningKey,
    /// Folder for bound verdicts.
    pub folder: PathBuf,
    /// Entries at a time.
    pub lanes: u16,
    /// End once nothing is left to judge.
    pub until_idle: bool,
}

/// What a judge tells while it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It took an entry.
    Leased {
        /// Lease.
        lease: u64,
        /// Entry.
        entry: u64,
    },
    /// It found a verdict, which it binds next.
    Found {
        /// Lease.
        lease: u64,
        /// Entry.
        entry: u64,
        /// What it found, for people.
        found: String,
    },
    /// It showed a verdict.
    Shown {
        /// Lease.
        lease: u64,
        /// Entry.
        entry: u64,
    },
    /// Something went wrong that another judge, or another try, may do better.
    Trouble(String),
}

/// Judges until `stop`, or until nothing is left to do.
///
/// # Errors
/// The host refused this judge, or its own files failed. A host that is away is waited for.
pub async fn run(
    client: Arc<Client>,
    settings: Settings,
    evaluator: Arc<dyn Evaluate>,
    told: mpsc::Sender<Told>,
    stop: CancellationToken,
) -> Result<(), ClientError> {
    std::fs::create_dir_all(&settings.folder).map_err(|source| files("making", &settings.folder, source))?;
    let lanes = settings.lanes.clamp(1, limits::JUDGE_LANES);
    let mut judge = Judge {
        desk: Arc::new(Desk { client, evaluator, rounds: tokio::sync::Mutex::default() }),
        settings: Settings { lanes, ..settings },
        told,
        running: JoinSet::new(),
        busy: BTreeSet::new(),
        given_up: BTreeSet::new(),
        pause: limits::RETRY_MIN,
    };
    judge.work(&stop).await
}

struct Judge {
    desk: Arc<Desk>,
    settings: Settings,
    told: mpsc::Sender<Told>,
    running: JoinSet<(LeaseView, Result<String, String>)>,
    /// Leases that are evaluated.
    busy: BTreeSet<u64>,
    /// Leases that this judge cannot serve.
    given_up: BTreeSet<u64>,
    pause: std::time::Duration,
}

/// What evaluations share.
struct Desk {
    client: Arc<Client>,
    evaluator: Arc<dyn Evaluate>,
    rounds: tokio::sync::Mutex<BTreeMap<(String, u32), Arc<RoundDesk>>>,
}

/// What all entries of a round share.
struct RoundDesk {
    spec: Arc<CompetitionSpec>,
    seed: Hash,
    items: Arc<Vec<(Hash, Bytes)>>,
    baseline: Option<(Form, Bytes)>,
    reference: Option<Bytes>,
    environment: Option<Bytes>,
}

/// Rounds kept in memory.
const ROUNDS_KEPT: usize = 4;

impl Judge {
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), ClientError> {
        let mut mark: Option<String> = None;
        loop {
            let client = Arc::clone(&self.desk.client);
            let wait = if mark.is_some() { limits::LONG_POLL.as_secs() } else { 0 };
            let answer = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(done) = self.running.join_next() => {
                    let rest = std::iter::from_fn(|| self.running.try_join_next()).collect::<Vec<_>>();
                    for (lease, found) in std::iter::once(done).chain(rest).flatten() {
                        self.finished(&lease, found);
                    }
                    // What was bound may let the fold go on: ask anew.
                    mark = None;
                    continue;
                }
                answer = client.work(mark.as_deref(), wait) => answer,
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) if error.is_transient() => {
                    self.trouble(error.to_string());
                    self.rest(stop).await;
                    mark = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let idle = answer.leases.is_empty() && answer.queued == 0 && answer.nonces.is_empty();
            if self.settings.until_idle && idle && self.running.is_empty() {
                return Ok(());
            }
            let acted = self.act(&answer).await;
            match acted {
                Ok(acted) => {
                    self.pause = limits::RETRY_MIN;
                    mark = (!acted).then_some(answer.mark);
                }
                Err(error) if error.is_transient() => {
                    self.trouble(error.to_string());
                    self.rest(stop).await;
                    mark = None;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn rest(&mut self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(self.pause) => {}
        }
        self.pause = (self.pause * 2).min(limits::RETRY_MAX);
    }

    /// Does what is due. Whether anything was stated.
    async fn act(&mut self, answer: &WorkAnswer) -> Result<bool, ClientError> {
        let mut statements = Vec::new();
        let mut shown = Vec::new();
        for nonce in &answer.nonces {
            if let Some(statement) = self.nonce(nonce).await? {
                statements.push(statement);
            }
        }
        let held: BTreeSet<u64> = answer.leases.iter().map(|lease| lease.lease).collect();
        for lease in &answer.leases {
            let kept = self.kept(lease.lease);
            match (lease.finding, kept) {
                (FindingView::ToJudge, Some(verdict)) => statements.push(self.judged(lease.lease, &verdict)),
                (FindingView::ToJudge, None) => self.begin(lease),
                (FindingView::ToShow, Some(verdict)) => {
                    let (id, nonce) = (LeaseId(lease.lease), self.seal_nonce(lease.lease));
                    statements.push(Statement::Show { lease: id, nonce, verdict });
                    shown.push(lease.clone());
                }
                // Bound in a folder that is gone: the lease runs out.
                (FindingView::ToShow, None) | (FindingView::Bound, _) => {}
            }
        }
        let to_judge = answer.leases.iter().filter(|lease| lease.finding == FindingView::ToJudge).count();
        let want = self.settings.lanes.saturating_sub(to_judge as u16);
        if want != answer.wanted {
            statements.push(Statement::Lease { want });
        }
        self.forget(&held);
        if statements.is_empty() {
            return Ok(false);
        }
        for outcome in self.desk.client.state_all(&statements).await? {
            if let Err(error) = outcome {
                self.trouble(error.to_string());
            }
        }
        for lease in shown {
            self.tell(Told::Shown { lease: lease.lease, entry: lease.submission_id });
        }
        Ok(true)
    }

    async fn nonce(&self, due: &NonceDue) -> Result<Option<Statement>, ClientError> {
        let competition: CompetitionId = self.desk.parsed(&due.competition_id)?;
        let round = RoundNumber(due.round_number);
        let parts = [&competition.0.0[..], &round.0.to_le_bytes()];
        let nonce = self.settings.key.derive("arena round", &parts);
        if due.due == Due::Open {
            return Ok(Some(Statement::OpenNonce { competition, round, nonce }));
        }
        let spec = self.desk.spec(&due.competition_id).await?;
        let commitment = ledger::beacon::commitment(&nonce);
        Ok(self.desk.evaluator.covers(&spec).then_some(Statement::Nonce { competition, round, commitment }))
    }

    fn begin(&mut self, lease: &LeaseView) {
        let free = self.busy.len() < usize::from(self.settings.lanes);
        if !free || self.given_up.contains(&lease.lease) || !self.busy.insert(lease.lease) {
            return;
        }
        self.tell(Told::Leased { lease: lease.lease, entry: lease.submission_id });
        let (desk, lease, path) = (Arc::clone(&self.desk), lease.clone(), self.path(lease.lease));
        self.running.spawn(async move {
            let found = desk.find(&lease, &path).await;
            (lease, found)
        });
    }

    /// An evaluation has ended; what it found lies in the folder and is bound in the next turn.
    fn finished(&mut self, lease: &LeaseView, found: Result<String, String>) {
        self.busy.remove(&lease.lease);
        match found {
            Ok(found) => self.tell(Told::Found { lease: lease.lease, entry: lease.submission_id, found }),
            Err(reason) => {
                self.given_up.insert(lease.lease);
                self.trouble(format!("entry {}: {reason}", lease.submission_id));
            }
        }
    }

    fn judged(&self, lease: u64, verdict: &Verdict) -> Statement {
        let seal = verdict.seal(&self.settings.key.node_id(), &self.seal_nonce(lease));
        Statement::Judged { lease: LeaseId(lease), seal }
    }

    fn seal_nonce(&self, lease: u64) -> Hash {
        self.settings.key.derive("arena verdict", &[&lease.to_le_bytes()])
    }

    fn path(&self, lease: u64) -> PathBuf {
        self.settings.folder.join(format!("{lease}.verdict"))
    }

    fn kept(&self, lease: u64) -> Option<Verdict> {
        wire::from_bytes(&std::fs::read(self.path(lease)).ok()?).ok()
    }

    /// Forgets verdicts whose leases are over.
    fn forget(&mut self, held: &BTreeSet<u64>) {
        self.given_up.retain(|lease| held.contains(lease));
        let Ok(files) = std::fs::read_dir(&self.settings.folder) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let lease = name.to_str().and_then(|name| name.strip_suffix(".verdict")?.parse::<u64>().ok());
            if lease.is_some_and(|lease| !held.contains(&lease) && !self.busy.contains(&lease)) {
                drop(std::fs::remove_file(file.path()));
            }
        }
    }

    fn tell(&self, told: Told) {
        drop(self.told.try_send(told)); // a slow reader misses some
    }

    fn trouble(&self, words: String) {
        tracing::warn!(words, "judge");
        self.tell(Told::Trouble(words));
    }
}

impl Desk {
    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self, text: &str) -> Result<T, ClientError> {
        text.parse().map_err(|error: T::Err| ClientError::Malformed {
            address: self.client.address().to_owned(),
            reason: format!("{text:?}: {error}"),
        })
    }

    async fn spec(&self, competition: &str) -> Result<Arc<CompetitionSpec>, ClientError> {
        let text = self.client.spec(competition).await?;
        let malformed =
            |reason: String| ClientError::Malformed { address: self.client.address().to_owned(), reason };
        let spec = CompetitionSpec::parse(&text).map_err(|error| malformed(error.to_string()))?;
        let good = spec.id() == self.parsed(competition)?;
        good.then(|| Arc::new(spec)).ok_or_else(|| malformed("the spec is another competition's".to_owned()))
    }

    /// Evaluates an entry, uploads the log, keeps the verdict; what was found, for people.
    async fn find(&self, lease: &LeaseView, path: &Path) -> Result<String, String> {
        let Finding { verdict, log } = self.evaluate(lease).await?;
        // The log first: a shown verdict names it. Without it the verdict still counts.
        if let Err(error) = self.client.put_blob("log", log).await {
            tracing::warn!(%error, entry = lease.submission_id, "a log was not uploaded");
        }
        write(path, &wire::to_bytes(&verdict)).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(found_words(&verdict))
    }

    async fn evaluate(&self, lease: &LeaseView) -> Result<Finding, String> {
        let said = |error: ClientError| error.to_string();
        let round = self.round(&lease.competition_id, lease.round_number).await.map_err(said)?;
        let form = form(&lease.form).ok_or_else(|| format!("no form is called {:?}", lease.form))?;
        let name = match form {
            Form::Component => "code.wasm",
            Form::Python => "code.py",
            Form::Native => "code.bin",
        };
        let code = self.client.raw(lease.submission_id, name).await.map_err(said)?;
        if Hash::of(&code).to_string() != lease.code {
            return Err("the host gave other code than the entry's".to_owned());
        }
        let baseline = round.baseline.clone().filter(|_| lease.role != EntryRole::Baseline);
        let assignment = Assignment {
            lease: LeaseId(lease.lease),
            entry: lease.submission_id,
            spec: Arc::clone(&round.spec),
            role: lease.role,
            seed: round.seed,
            form,
            code,
            baseline,
            reference: round.reference.clone(),
            environment: round.environment.clone(),
            items: Arc::clone(&round.items),
        };
        self.evaluator.evaluate(assignment).await.map_err(|error| error.to_string())
    }

    async fn round(&self, competition: &str, number: u32) -> Result<Arc<RoundDesk>, ClientError> {
        // Held while it is fetched: the round's other entries wait for it instead of fetching it as well.
        let mut rounds = self.rounds.lock().await;
        if let Some(found) = rounds.get(&(competition.to_owned(), number)) {
            return Ok(Arc::clone(found));
        }
        let spec = self.spec(competition).await?;
        let answer = self.client.round_inputs(competition, number).await?;
        let mut items = Vec::with_capacity(answer.items.len());
        for item in &answer.items {
            let hash: Hash = self.parsed(item)?;
            items.push((hash, self.client.blob(&hash).await?));
        }
        let blob = async |hash: Option<Hash>| match hash {
            Some(hash) => self.client.blob(&hash).await.map(Some),
            None => Ok(None),
        };
        let found = Arc::new(RoundDesk {
            seed: self.parsed(&answer.seed)?,
            items: Arc::new(items),
            baseline: blob(spec.baseline.code).await?.map(|code| (spec.baseline.form, code)),
            reference: blob(spec.inputs.code).await?,
            environment: blob(spec.resources.environment).await?,
            spec,
        });
        if rounds.len() >= ROUNDS_KEPT {
            rounds.pop_first();
        }
        rounds.insert((competition.to_owned(), number), Arc::clone(&found));
        Ok(found)
    }
}

/// The form of a name.
pub fn form(name: &str) -> Option<Form> {
    [Form::Component, Form::Python, Form::Native].into_iter().find(|form| form.name() == name)
}

fn found_words(verdict: &Verdict) -> String {
    match &verdict.outcome {
        arena::measure::Outcome::Failed(failure) => failure.to_string(),
        arena::measure::Outcome::Measured { measures, .. } => format!("{} inputs measured", measures.len()),
    }
}

fn files(doing: &'static str, place: &Path, source: std::io::Error) -> ClientError {
    ClientError::Files { doing, place: place.display().to_string(), source }
}

/// Writes a file aside and renames it into place.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let aside = path.with_extension("new");
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(aside, path)
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("folder", &self.folder)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}
