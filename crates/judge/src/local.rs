//! An arena in one process: the real fold, signed statements, blind verdicts of several judges; only the clock is not the
//! wall's. It jumps to the next deadline when nobody has anything to do.
//!
//! `shoal arena demo` and the tests run on it. What it writes is a log that [`arena::verify`] replays.

use std::collections::BTreeMap;

use arena::commit::{self, Committed};
use arena::record::{
    Control, EntryId, Input as ArenaInput, LeaseId, PoolItem, Record, RoundNumber, STATEMENT_KIND, Statement,
    Step, entry_seal,
};
use arena::spec::{ArenaSpec, CompetitionId, CompetitionSpec, Form};
use arena::state::{EntryState, Role};
use arena::{Fold as _, Refusal, State, verify};
use wire::{Envelope, Hash, Millis, NodeId, SigningKey};

use crate::docket::{Abilities, Docket, Task};
use crate::error::JudgeError;
use crate::input::Input;
use crate::judge::{Case, Code, Judge};

/// Why an arena in this process stopped.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A statement was refused.
    #[error("{what}: {refusal}")]
    Refused {
        /// What was stated.
        what: &'static str,
        /// Why not.
        refusal: Refusal,
    },
    /// A judge could not judge.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// A spec or genesis that no arena can have.
    #[error("the arena cannot begin: {0}")]
    Genesis(String),
    /// Nobody has anything to do and no deadline comes.
    #[error("round {0} does not end")]
    Stuck(RoundNumber),
    /// The log does not replay.
    #[error("the log does not replay: {0}")]
    Verify(String),
}

/// A verdict that a judge bound.
#[derive(Clone, Debug)]
pub struct Bound<'a> {
    /// Which judge, by its place.
    pub judge: usize,
    /// What it judged.
    pub task: &'a Task,
    /// What it found.
    pub evaluation: &'a crate::judge::Evaluation,
}

struct Sealed {
    entry: EntryId,
    key: SigningKey,
    code: Hash,
    salt: Hash,
}

/// An arena in this process.
pub struct LocalArena {
    state: State,
    log: Vec<(Millis, Vec<Record>)>,
    now: Millis,
    nonce: u64,
    blobs: BTreeMap<Hash, Vec<u8>>,
    judges: Vec<(SigningKey, Docket)>,
    sealed: Vec<Sealed>,
    inputs: BTreeMap<Hash, Input>,
}

impl std::fmt::Debug for LocalArena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalArena")
            .field("run", &self.state.run())
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl LocalArena {
    /// A new arena whose host is `host`.
    pub fn new(spec: &ArenaSpec, host: &SigningKey, now: Millis) -> Result<Self, LocalError> {
        let control = Control::Genesis { spec: spec.canonical(), host: host.node_id() };
        let (state, records) = commit::genesis::<State>(spec.run_id(), now, control)
            .map_err(|error| LocalError::Genesis(error.to_string()))?;
        Ok(Self {
            state,
            log: vec![(now, records)],
            now,
            nonce: 0,
            blobs: BTreeMap::new(),
            judges: Vec::new(),
            sealed: Vec::new(),
            inputs: BTreeMap::new(),
        })
    }

    /// What the log says.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Blocks so far: time and records.
    pub fn log(&self) -> &[(Millis, Vec<Record>)] {
        &self.log
    }

    /// Keeps a blob that a spec names: a baseline, a generator, an environment.
    pub fn keep(&mut self, bytes: &[u8]) -> Hash {
        let hash = Hash::of(bytes);
        self.blobs.insert(hash, bytes.to_vec());
        hash
    }

    /// Admits a judge.
    pub fn admit(&mut self, key: SigningKey, operator: &str, abilities: Abilities) -> Result<(), LocalError> {
        let control = Control::Admitted { judge: key.node_id(), operator: operator.to_owned() };
        self.input("admitting a judge", ArenaInput::Control(control))?;
        self.judges.push((key.clone(), Docket::new(key, abilities)));
        Ok(())
    }

    /// Opens a competition.
    pub fn open(&mut self, key: &SigningKey, spec: &CompetitionSpec) -> Result<CompetitionId, LocalError> {
        self.say("opening a competition", key, &Statement::Open { spec: spec.canonical() })?;
        Ok(spec.id())
    }

    /// Enters code under a seal; the seal is opened when the round closes.
    pub fn submit(
        &mut self,
        key: &SigningKey,
        competition: CompetitionId,
        form: Form,
        code: &[u8],
    ) -> Result<EntryId, LocalError> {
        let hash = self.keep(code);
        let salt = key.derive("arena salt", &[&competition.0.0, &hash.0, &self.nonce.to_le_bytes()]);
        let seal = entry_seal(&competition, &key.node_id(), form, &hash, code.len() as u64, &salt);
        let parents = Vec::new();
        self.say("submitting", key, &Statement::Submit { competition, seal, form, parents, receipt: None })?;
        let entry = self.state.entry_of_seal(&seal).map(|entry| entry.id);
        let entry = entry.ok_or(LocalError::Stuck(RoundNumber(0)))?;
        self.sealed.push(Sealed { entry, key: key.clone(), code: hash, salt });
        Ok(entry)
    }

    /// Plays the open round to its end. `pool` is asked for once the round is closed, where the spec draws from one;
    /// `opener` states it. `bound` hears of each verdict.
    pub fn play(
        &mut self,
        judge: &Judge,
        competition: CompetitionId,
        opener: &SigningKey,
        pool: impl FnOnce() -> Result<Vec<Input>, JudgeError>,
        mut bound: impl FnMut(&Bound<'_>),
    ) -> Result<RoundNumber, LocalError> {
        let open = self.state.competition(&competition).and_then(|found| found.open_round());
        let number = open.map(|round| round.number).ok_or(LocalError::Stuck(RoundNumber(0)))?;
        let mut pool = Some(pool);
        loop {
            let Some(step) = self.step(competition, number) else { return Ok(number) };
            if step == Step::Pooling
                && let Some(pool) = pool.take()
            {
                self.state_pool(competition, number, opener, pool()?)?;
                continue;
            }
            if self.unseal(competition, number)? || self.serve(judge, &mut bound)? {
                continue;
            }
            self.wait(number)?;
        }
    }

    fn step(&self, competition: CompetitionId, number: RoundNumber) -> Option<Step> {
        self.state.competition(&competition)?.live.get(&number).map(|round| round.step)
    }

    fn state_pool(
        &mut self,
        competition: CompetitionId,
        round: RoundNumber,
        opener: &SigningKey,
        pool: Vec<Input>,
    ) -> Result<(), LocalError> {
        let operator = opener.node_id();
        let mut items: Vec<PoolItem> =
            pool.iter().map(|input| PoolItem { hash: input.hash, operator }).collect();
        items.sort_unstable();
        items.dedup();
        self.inputs.extend(pool.into_iter().map(|input| (input.hash, input)));
        self.say("naming the pool", opener, &Statement::Pool { competition, round, items })
    }

    fn unseal(&mut self, competition: CompetitionId, number: RoundNumber) -> Result<bool, LocalError> {
        if self.step(competition, number) != Some(Step::Opening) {
            return Ok(false);
        }
        let sealed = |sealed: &Sealed| {
            let entry = self.state.entry(sealed.entry);
            entry.is_some_and(|entry| entry.round == number && entry.state == EntryState::Sealed)
        };
        let Some(place) = self.sealed.iter().position(sealed) else { return Ok(false) };
        let Sealed { entry, key, code, salt } = self.sealed.remove(place);
        let bytes = self.blobs.get(&code).map_or(0, |bytes| bytes.len() as u64);
        self.say("opening a seal", &key, &Statement::Unseal { entry, code, bytes, salt })?;
        Ok(true)
    }

    /// Lets each judge do what it owes; false if none owes anything.
    fn serve(&mut self, judge: &Judge, bound: &mut impl FnMut(&Bound<'_>)) -> Result<bool, LocalError> {
        let mut acted = false;
        for place in 0..self.judges.len() {
            let key = self.judges[place].0.clone();
            for statement in self.judges[place].1.due(&self.state) {
                self.say("a judge's statement", &key, &statement)?;
                acted = true;
            }
            for task in self.judges[place].1.tasks(&self.state) {
                let evaluation = self.evaluate(judge, &task)?;
                bound(&Bound { judge: place, task: &task, evaluation: &evaluation });
                self.judges[place].1.bind(task.lease, evaluation.verdict);
                self.blobs.insert(Hash::of(&evaluation.log), evaluation.log);
                acted = true;
            }
            let judging = |found: &arena::state::Round| found.step == Step::Judging;
            let any = self.state.competitions().values().any(|found| found.live.values().any(judging));
            let want = self.judges[place].1.want(&self.state);
            if any && want > 0 {
                let before: Vec<LeaseId> = self.state.leases().keys().copied().collect();
                self.say("asking for work", &key, &Statement::Lease { want })?;
                acted |= self.state.leases().keys().any(|lease| !before.contains(lease));
            }
        }
        Ok(acted)
    }

    fn evaluate(&self, judge: &Judge, task: &Task) -> Result<crate::judge::Evaluation, LocalError> {
        let blob = |what: &'static str, hash: Hash| {
            self.blobs.get(&hash).map(Vec::as_slice).ok_or(JudgeError::MissingCode { what, hash })
        };
        let spec = &task.spec;
        let optional = |what, hash: Option<Hash>| hash.map(|hash| blob(what, hash)).transpose();
        let baseline = optional("baseline", spec.baseline.code.filter(|_| task.role != Role::Baseline))?;
        let case = Case {
            spec,
            seed: task.seed,
            entry: Code { form: task.form, bytes: blob("entry", task.code)? },
            baseline: baseline.map(|bytes| Code { form: spec.baseline.form, bytes }),
            reference: optional("generator or evaluator", spec.inputs.code)?.map(Code::of),
            environment: optional("environment", spec.resources.environment)?,
        };
        let inputs = if case.generates() {
            judge.generate(&case)?
        } else {
            let find = |hash| self.inputs.get(hash).cloned().ok_or(JudgeError::MissingInput(*hash));
            task.items.iter().map(find).collect::<Result<_, _>>()?
        };
        Ok(judge.evaluate(&case, &inputs)?)
    }

    /// A log that a verdict named.
    pub fn blob(&self, hash: &Hash) -> Option<&[u8]> {
        self.blobs.get(hash).map(Vec::as_slice)
    }

    fn wait(&mut self, round: RoundNumber) -> Result<(), LocalError> {
        let deadline = self.state.next_deadline(self.now).ok_or(LocalError::Stuck(round))?;
        self.now = deadline;
        let Committed { records, .. } = commit::commit(&mut self.state, self.now, Vec::new());
        if !records.is_empty() {
            self.log.push((self.now, records));
        }
        Ok(())
    }

    fn say(&mut self, what: &'static str, key: &SigningKey, statement: &Statement) -> Result<(), LocalError> {
        self.nonce += 1;
        let body = wire::to_bytes(statement);
        let envelope = Envelope::sign(key, self.state.run(), STATEMENT_KIND, body, self.now, self.nonce);
        self.input(what, ArenaInput::Stated(envelope))
    }

    fn input(&mut self, what: &'static str, input: ArenaInput) -> Result<(), LocalError> {
        let Committed { records, outcomes } = commit::commit(&mut self.state, self.now, vec![input]);
        if !records.is_empty() {
            self.log.push((self.now, records));
        }
        outcomes
            .into_iter()
            .try_for_each(|outcome| outcome.map_err(|refusal| LocalError::Refused { what, refusal }))
    }

    /// Folds the log again, every signature checked, and compares.
    pub fn verify(&self) -> Result<(), LocalError> {
        let fault = |error: &dyn std::fmt::Display| LocalError::Verify(error.to_string());
        let (time, records) = &self.log[0];
        let mut state =
            verify::start::<State>(self.state.run(), *time, records).map_err(|error| fault(&error))?;
        for (time, records) in &self.log[1..] {
            verify::replay(&mut state, *time, records).map_err(|error| fault(&error))?;
        }
        if state == self.state { Ok(()) } else { Err(fault(&"another state")) }
    }

    /// Who made an entry.
    pub fn entrant(&self, entry: EntryId) -> Option<NodeId> {
        self.state.entry(entry).map(|entry| entry.entrant)
    }
}
