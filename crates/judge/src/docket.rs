//! What a judge owes an arena: nonces, leases, verdicts. A pure function of the arena's state and of what it bound.
//!
//! Whoever runs a judge follows the log, states what [`Docket::due`] says, works on [`Docket::tasks`] and hands each
//! verdict to [`Docket::bind`]. Nonces are derived from the key, so a restart gives the same.

use std::collections::BTreeMap;

use arena::State;
use arena::measure::Verdict;
use arena::record::{EntryId, LeaseId, RoundNumber, Statement, Step};
use arena::spec::{CompetitionId, CompetitionSpec, Form, Kind};
use arena::state::Role;
use wire::{Hash, NodeId, SigningKey};

/// What a judge can judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Kinds of competition.
    pub kinds: Vec<Kind>,
    /// Forms of entries. A competition that admits another form is left to others.
    pub forms: Vec<Form>,
    /// Entries at a time.
    pub leases: u16,
}

impl Abilities {
    /// Whether this judge can judge everything that a competition admits.
    pub fn cover(&self, spec: &CompetitionSpec) -> bool {
        self.kinds.contains(&spec.kind) && spec.submission.forms.iter().all(|form| self.forms.contains(form))
    }
}

/// An entry to judge, with all that decides its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The lease.
    pub lease: LeaseId,
    /// The entry.
    pub entry: EntryId,
    /// What it is in its round.
    pub role: Role,
    /// Competition.
    pub competition: CompetitionId,
    /// Round.
    pub round: RoundNumber,
    /// Spec of the competition.
    pub spec: CompetitionSpec,
    /// What the entry is.
    pub form: Form,
    /// Hash of its code.
    pub code: Hash,
    /// Seed of the round.
    pub seed: Hash,
    /// Inputs of the round; empty where a generator makes them.
    pub items: Vec<Hash>,
}

/// A judge's side of the protocol.
#[derive(Debug)]
pub struct Docket {
    key: SigningKey,
    abilities: Abilities,
    bound: BTreeMap<LeaseId, Verdict>,
}

impl Docket {
    /// A judge that has bound nothing yet.
    pub fn new(key: SigningKey, abilities: Abilities) -> Self {
        Self { key, abilities, bound: BTreeMap::new() }
    }

    /// A judge after a restart, with the verdicts that it had bound ([`Docket::bound`]). A bound verdict that is lost
    /// costs the judge its lease.
    pub fn resume(key: SigningKey, abilities: Abilities, bound: BTreeMap<LeaseId, Verdict>) -> Self {
        Self { key, abilities, bound }
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// Verdicts that are bound and not shown: to be kept over a restart.
    pub fn bound(&self) -> &BTreeMap<LeaseId, Verdict> {
        &self.bound
    }

    fn nonce(&self, competition: &CompetitionId, round: RoundNumber) -> Hash {
        self.key.derive("arena round", &[&competition.0.0, &round.0.to_le_bytes()])
    }

    fn seal_nonce(&self, lease: LeaseId) -> Hash {
        self.key.derive("arena verdict", &[&lease.0.to_le_bytes()])
    }

    /// What to state now, besides verdicts that are not measured yet. `asked` is what it asked for last.
    pub fn due(&self, state: &State) -> Vec<Statement> {
        if !state.is_judge(self.id()) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for competition in state.competitions().values() {
            if competition.completed_at.is_some() || !self.abilities.cover(&competition.spec) {
                continue;
            }
            for round in competition.live.values() {
                let nonce = self.nonce(&competition.id, round.number);
                let (id, number) = (competition.id, round.number);
                match (round.nonces.get(&self.id()), round.step) {
                    (None, Step::Open | Step::Pooling) => {
                        let commitment = ledger::beacon::commitment(&nonce);
                        due.push(Statement::Nonce { competition: id, round: number, commitment });
                    }
                    (Some(bound), Step::Drawing) if bound.opened.is_none() => {
                        due.push(Statement::OpenNonce { competition: id, round: number, nonce });
                    }
                    _ => {}
                }
            }
        }
        for (lease, held) in state.leases_of(self.id()) {
            let Some(job) = state.job(held.entry) else { continue };
            let Some(slot) = job.slots.iter().find(|slot| slot.lease == lease) else { continue };
            let Some(verdict) = self.bound.get(&lease) else { continue };
            let nonce = self.seal_nonce(lease);
            if slot.seal.is_none() {
                due.push(Statement::Judged { lease, seal: verdict.seal(&self.id(), &nonce) });
            } else if job.showing && slot.verdict.is_none() {
                due.push(Statement::Show { lease, nonce, verdict: verdict.clone() });
            }
        }
        due
    }

    /// How many more entries it could take now; to be stated as [`Statement::Lease`] when it changes.
    pub fn want(&self, state: &State) -> u16 {
        self.abilities.leases.saturating_sub(self.tasks(state).len() as u16)
    }

    /// Entries that are leased to this judge and not measured yet, in the order of their leases.
    pub fn tasks(&self, state: &State) -> Vec<Task> {
        let open = |lease: &LeaseId| !self.bound.contains_key(lease);
        state
            .leases_of(self.id())
            .filter(|(lease, _)| open(lease))
            .filter_map(|(lease, held)| Task::of(state, lease, held.entry))
            .filter(|task| {
                // A seal that this judge does not remember cannot be opened any more.
                let slots = state.job(task.entry).map(|job| &job.slots[..]).unwrap_or_default();
                slots.iter().any(|slot| slot.lease == task.lease && slot.seal.is_none())
            })
            .collect()
    }

    /// Keeps a verdict until it is shown. It is stated with the next [`Docket::due`].
    pub fn bind(&mut self, lease: LeaseId, verdict: Verdict) {
        self.bound.insert(lease, verdict);
    }

    /// Forgets verdicts whose lease is over.
    pub fn prune(&mut self, state: &State) {
        self.bound.retain(|lease, _| state.leases().contains_key(lease));
    }
}

impl Task {
    /// The task of a lease; `None` for one that is over.
    pub fn of(state: &State, lease: LeaseId, entry: EntryId) -> Option<Self> {
        let found = state.entry(entry)?;
        let competition = state.competition(&found.competition)?;
        let round = competition.live.get(&found.round)?;
        Some(Self {
            lease,
            entry,
            role: found.role,
            competition: competition.id,
            round: found.round,
            spec: competition.spec.clone(),
            form: found.form,
            code: found.code?.hash,
            seed: round.seed,
            items: round.items.clone(),
        })
    }
}
