//! What the fold would have to search for: lists in the order in which they are served, brought up to date block by
//! block. Nothing here is a rule of the protocol: every row is read from the state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arena::State;
use arena::record::{Derived, EntryId, LeaseId, Record, RoundNumber, Statement};
use arena::spec::{CompetitionId, CompetitionSpec};
use arena::state::{Entry, Leader, Role};
use wire::{Hash, NodeId, Seq};

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) seq: Seq,
    pub(crate) index: u32,
}

/// Lists of one competition.
#[derive(Debug, Default)]
pub(crate) struct CompetitionIndex {
    /// Entries by id.
    pub(crate) all: Vec<EntryId>,
    /// Entries by round, newest round first; within a completed round by rank, then by id.
    pub(crate) rounds: BTreeMap<Reverse<RoundNumber>, Vec<EntryId>>,
    /// Entries of each key, automatic ones included, by number.
    pub(crate) by_entrant: BTreeMap<NodeId, u32>,
    /// Submissions per day since 1970, UTC.
    pub(crate) daily: BTreeMap<u64, u32>,
    /// Entries that took the lead, oldest first.
    pub(crate) takeovers: Vec<EntryId>,
}

/// All lists.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) competitions: BTreeMap<CompetitionId, CompetitionIndex>,
    /// Verdicts shown, by entry: the log holds them, the state forgets them with the round.
    pub(crate) verdicts: HashMap<EntryId, Vec<Place>>,
    /// Rows of the arena's leaderboard, unranked and without earnings.
    pub(crate) leaders: BTreeMap<NodeId, Leader>,
    /// Counts changes of `leaders`.
    pub(crate) generation: u64,
    /// Blobs that are for everybody: what specs name, and inputs of rounds that are over.
    pub(crate) public: HashSet<Hash>,
    /// What a spec names although it was an entry's opened code, or in the pool of a live round, before: a spec does not
    /// open what the arena keeps closed.
    pub(crate) named: HashSet<Hash>,
    /// Entries of each opened code.
    pub(crate) codes: HashMap<Hash, Vec<EntryId>>,
    /// Blocks in which the live rounds' inputs were fixed: the log is shown up to there.
    judged_from: BTreeMap<(CompetitionId, RoundNumber), Seq>,
    /// Entries under lease.
    leased: HashMap<LeaseId, EntryId>,
    /// Entries of the arena known so far.
    entries: usize,
}

impl Index {
    /// Follows a block that `state` holds already.
    pub(super) fn note(&mut self, state: &State, seq: Seq, records: &[Record]) {
        let mut changed: BTreeSet<NodeId> = BTreeSet::new();
        for entry in state.entries().get(self.entries..).unwrap_or_default() {
            self.add(entry);
            changed.insert(entry.entrant);
        }
        self.entries = state.entries().len();
        for (index, record) in records.iter().enumerate() {
            match record {
                Record::Stated(envelope) => {
                    self.stated(state, &envelope.body, Place { seq, index: index as u32 });
                }
                Record::Derived(derived) => self.derived(state, seq, derived, &mut changed),
                Record::Control(_) => {}
            }
        }
        self.generation += u64::from(!changed.is_empty());
        for key in changed {
            if let Some(leader) = state.leader(key, 0) {
                self.leaders.insert(key, leader);
            }
        }
    }

    fn add(&mut self, entry: &Entry) {
        let lists = self.competitions.entry(entry.competition).or_default();
        lists.all.push(entry.id);
        lists.rounds.entry(Reverse(entry.round)).or_default().push(entry.id);
        *lists.by_entrant.entry(entry.entrant).or_default() += 1;
        if entry.role == Role::Challenger {
            *lists.daily.entry(entry.submitted_at.0 / DAY_MS).or_default() += 1;
        }
    }

    fn stated(&mut self, state: &State, body: &[u8], place: Place) {
        match wire::from_bytes(body) {
            Ok(Statement::Show { lease, .. }) => {
                if let Some(entry) = self.leased.remove(&lease) {
                    self.verdicts.entry(entry).or_default().push(place);
                }
            }
            Ok(Statement::Open { spec }) => {
                let Ok(spec) = CompetitionSpec::parse(&spec) else { return };
                self.competitions.entry(spec.id()).or_default();
                let named = [
                    spec.inputs.code,
                    spec.inputs.samples,
                    spec.resources.runtime,
                    spec.resources.environment,
                    spec.baseline.code,
                    spec.baseline.template,
                ];
                for hash in named.into_iter().flatten() {
                    let kept = self.codes.contains_key(&hash) || in_live_pool(state, &hash);
                    if kept && !self.public.contains(&hash) {
                        self.named.insert(hash);
                    } else {
                        self.public.insert(hash);
                    }
                }
            }
            Ok(Statement::Unseal { entry, code, .. }) => self.codes.entry(code).or_default().push(entry),
            _ => {}
        }
    }

    fn derived(&mut self, state: &State, seq: Seq, derived: &Derived, changed: &mut BTreeSet<NodeId>) {
        match derived {
            Derived::Leased { lease, entry, .. } => _ = self.leased.insert(*lease, *entry),
            Derived::Expired { lease } => _ = self.leased.remove(lease),
            Derived::InputsFixed { competition, round, .. } => {
                self.judged_from.insert((*competition, *round), seq);
            }
            Derived::RoundCompleted { competition, round, takeover, .. } => {
                if let (Some(entry), Some(lists)) = (takeover, self.competitions.get_mut(competition)) {
                    lists.takeovers.push(*entry);
                }
                self.end(state, *competition, *round, changed);
            }
            Derived::RoundVoid { competition, round, .. } => self.end(state, *competition, *round, changed),
            _ => {}
        }
    }

    /// A round is over: its entries stand in the order of their ranks, its inputs are for everybody.
    fn end(&mut self, state: &State, id: CompetitionId, round: RoundNumber, changed: &mut BTreeSet<NodeId>) {
        self.judged_from.remove(&(id, round));
        self.leased.retain(|lease, _| state.leases().contains_key(lease));
        let summary = state
            .competition(&id)
            .and_then(|found| found.summaries.iter().rev().find(|summary| summary.round == round));
        self.public.extend(summary.into_iter().flat_map(|summary| &summary.items));
        let lists = self.competitions.entry(id).or_default();
        let Some(entries) = lists.rounds.get_mut(&Reverse(round)) else { return };
        let rank = |entry: &EntryId| state.entry(*entry).and_then(|entry| entry.rank).unwrap_or(u32::MAX);
        entries.sort_by_key(|entry| (rank(entry), *entry));
        changed.extend(entries.iter().filter_map(|entry| state.entry(*entry)).map(|entry| entry.entrant));
    }

    /// The first block that holds verdicts of a round that is not over.
    pub(crate) fn hidden_from(&self) -> Option<Seq> {
        self.judged_from.values().min().copied()
    }
}

/// Whether a round that is not over draws from this blob.
fn in_live_pool(state: &State, hash: &Hash) -> bool {
    let mut rounds = state.competitions().values().flat_map(|found| found.live.values());
    rounds.any(|round| round.pool.iter().any(|item| item.hash == *hash))
}

const DAY_MS: u64 = 86_400_000;
