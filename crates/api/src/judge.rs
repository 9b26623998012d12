//! The judge's loop: lease, evaluate, bind, show. Killed at any instruction it goes on: what it bound lies in a folder, its
//! nonces follow from its key. A bound verdict that is lost costs the judge its lease, nobody else anything.

mod desk;
mod look;
mod tally;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arena::measure::Verdict;
use arena::record::{LeaseId, RoundNumber, Statement};
use arena::spec::{CompetitionId, CompetitionSpec, Form};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{Hash, SigningKey};

use self::desk::{Desk, Found};
use self::look::Looks;
pub use self::tally::{Of, Tally, serve};
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
    /// The baseline's code.
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
    /// Whether it can judge everything that a competition admits, and measure it. Others' seeds it takes no part in.
    /// `reference` is the generator or evaluator that the spec names.
    ///
    /// # Errors
    /// What it lacks.
    fn covers(&self, spec: &CompetitionSpec, reference: Option<&[u8]>) -> Result<(), EvaluateError>;

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
    /// Where it counts what it does.
    pub tally: Arc<Tally>,
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
    settings.tally.begin(lanes);
    let mut judge = Judge {
        desk: Arc::new(Desk::new(client, evaluator)),
        settings: Settings { lanes, ..settings },
        told,
        running: JoinSet::new(),
        busy: BTreeSet::new(),
        given_up: BTreeSet::new(),
        stuck: BTreeSet::new(),
        failing: false,
        looks: Looks::default(),
        pause: limits::RETRY_MIN,
    };
    judge.work(&stop).await
}

struct Judge {
    desk: Arc<Desk>,
    settings: Settings,
    told: mpsc::Sender<Told>,
    running: JoinSet<(LeaseView, Result<Found, String>, Duration)>,
    /// Leases that are evaluated.
    busy: BTreeSet<u64>,
    /// Leases that this judge cannot serve: it gives them back.
    given_up: BTreeSet<u64>,
    /// Those of them that the host did not take back: they run out, each in its lane.
    stuck: BTreeSet<u64>,
    /// The newest evaluation that ended had no verdict.
    failing: bool,
    /// What it found of competitions.
    looks: Looks,
    pause: Duration,
}

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acted {
    /// Nothing was due.
    Not,
    /// All that was stated was taken.
    Stated,
    /// Leases were given back, or the host did not take something: what is due next can wait a little.
    Refused,
}

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
                    for (lease, found, took) in std::iter::once(done).chain(rest).flatten() {
                        self.finished(&lease, found, took);
                    }
                    // What was bound may let the fold go on: ask anew.
                    mark = None;
                    continue;
                }
                words = self.looks.ended() => {
                    if let Some(words) = words {
                        self.trouble(words);
                    }
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
            self.settings.tally.heard();
            if self.settings.until_idle && self.is_idle(&answer) {
                return Ok(());
            }
            let acted = self.act(&answer).await;
            match acted {
                Ok(Acted::Refused) => {
                    // What is wrong here is wrong with the next entry as well: others have time to take it. A host that is
                    // busy is left alone.
                    self.rest(stop).await;
                    mark = None;
                }
                Ok(acted) => {
                    if !self.failing {
                        self.pause = limits::RETRY_MIN;
                    }
                    mark = (acted == Acted::Not).then_some(answer.mark);
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

    /// Does what is due.
    async fn act(&mut self, answer: &WorkAnswer) -> Result<Acted, ClientError> {
        let mut statements = Vec::new();
        let mut returned = false;
        for nonce in &answer.nonces {
            if let Some(statement) = self.nonce(nonce)? {
                statements.push(statement);
            }
        }
        let held: BTreeSet<u64> = answer.leases.iter().map(|lease| lease.lease).collect();
        for lease in &answer.leases {
            let kept = self.kept(lease.lease);
            match (lease.finding, kept) {
                (FindingView::ToJudge, Some(verdict)) => statements.push(self.judged(lease.lease, &verdict)),
                // Others can do what this machine cannot: they get it at once, and the lane is free.
                (FindingView::ToJudge, None) if self.given_up.contains(&lease.lease) => {
                    returned = true;
                    statements.push(Statement::Return { lease: LeaseId(lease.lease) });
                }
                // The host did not take it back: it runs out.
                (FindingView::ToJudge, None) if self.stuck.contains(&lease.lease) => {}
                (FindingView::ToJudge, None) => self.begin(lease),
                (FindingView::ToShow, Some(verdict)) => {
                    let (id, nonce) = (LeaseId(lease.lease), self.seal_nonce(lease.lease));
                    statements.push(Statement::Show { lease: id, nonce, verdict });
                }
                // Bound in a folder that is gone: the lease runs out.
                (FindingView::ToShow, None) | (FindingView::Bound, _) => {}
            }
        }
        let to_judge = |lease: &&LeaseView| {
            lease.finding == FindingView::ToJudge && !self.given_up.contains(&lease.lease)
        };
        let to_judge = answer.leases.iter().filter(to_judge).count();
        let want = self.settings.lanes.saturating_sub(to_judge as u16);
        // Who gives back asks for nothing in the same breath.
        if want != answer.wanted && !returned {
            statements.push(Statement::Lease { want });
        }
        self.forget(&held);
        if statements.is_empty() {
            return Ok(Acted::Not);
        }
        let outcomes = self.desk.client.state_all(&statements).await?;
        let mut refused = returned;
        for (statement, outcome) in statements.iter().zip(outcomes) {
            match (statement, outcome) {
                (Statement::Show { lease, .. }, Ok(_)) => {
                    self.settings.tally.shown();
                    if let Some(held) = answer.leases.iter().find(|held| held.lease == lease.0) {
                        self.tell(Told::Shown { lease: held.lease, entry: held.submission_id });
                    }
                }
                (Statement::Return { .. }, Ok(_)) => self.settings.tally.returned(),
                (_, Ok(_)) => {}
                (statement, Err(error)) => {
                    self.settings.tally.refused();
                    if let (Statement::Return { lease }, false) = (statement, error.is_transient()) {
                        self.given_up.remove(&lease.0);
                        self.stuck.insert(lease.0);
                    }
                    refused = true;
                    self.trouble(error.to_string());
                }
            }
        }
        Ok(if refused { Acted::Refused } else { Acted::Stated })
    }

    fn nonce(&mut self, due: &NonceDue) -> Result<Option<Statement>, ClientError> {
        let competition: CompetitionId = self.desk.parsed(&due.competition_id)?;
        let round = RoundNumber(due.round_number);
        let parts = [&competition.0.0[..], &round.0.to_le_bytes()];
        let nonce = self.settings.key.derive("arena round", &parts);
        if due.due == Due::Open {
            return Ok(Some(Statement::OpenNonce { competition, round, nonce }));
        }
        // While that is not known the nonce waits, nothing else does.
        let covers = self.looks.covers(&self.desk, competition, &due.competition_id) == Some(true);
        let commitment = ledger::beacon::commitment(&nonce);
        Ok(covers.then_some(Statement::Nonce { competition, round, commitment }))
    }

    /// Whether nothing is left to do: rounds of what cannot be judged here are others'.
    fn is_idle(&self, answer: &WorkAnswer) -> bool {
        let left = |due: &NonceDue| {
            let competition: Option<CompetitionId> = due.competition_id.parse().ok();
            due.due == Due::Bind && competition.and_then(|id| self.looks.known(id)) == Some(false)
        };
        answer.leases.is_empty()
            && answer.queued == 0
            && answer.nonces.iter().all(left)
            && self.running.is_empty()
    }

    fn begin(&mut self, lease: &LeaseView) {
        let free = self.busy.len() < usize::from(self.settings.lanes);
        if !free || !self.busy.insert(lease.lease) {
            return;
        }
        self.settings.tally.busy(self.busy.len());
        self.tell(Told::Leased { lease: lease.lease, entry: lease.submission_id });
        let (desk, lease, path) = (Arc::clone(&self.desk), lease.clone(), self.path(lease.lease));
        self.running.spawn(async move {
            let start = Instant::now();
            let found = desk.find(&lease, &path).await;
            (lease, found, start.elapsed())
        });
    }

    /// An evaluation has ended; what it found lies in the folder and is bound in the next turn.
    fn finished(&mut self, lease: &LeaseView, found: Result<Found, String>, took: Duration) {
        self.busy.remove(&lease.lease);
        self.settings.tally.busy(self.busy.len());
        self.settings.tally.ended(found.as_ref().ok().map(|found| found.end), took);
        self.failing = found.is_err();
        match found {
            Ok(Found { words: found, .. }) => {
                self.tell(Told::Found { lease: lease.lease, entry: lease.submission_id, found });
            }
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
        self.stuck.retain(|lease| held.contains(lease));
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

/// The form of a name.
pub fn form(name: &str) -> Option<Form> {
    [Form::Component, Form::Python, Form::Native].into_iter().find(|form| form.name() == name)
}

fn files(doing: &'static str, place: &Path, source: std::io::Error) -> ClientError {
    ClientError::Files { doing, place: place.display().to_string(), source }
}

/// Writes a file aside and renames it into place; durable when this returns.
///
/// # Errors
/// The disk failed.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let aside = path.with_extension("new");
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(aside, path)?;
    match path.parent() {
        Some(folder) if cfg!(unix) => std::fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("folder", &self.folder)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}
