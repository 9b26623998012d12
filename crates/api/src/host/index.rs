//! What the fold would have to search for: lists in the order in which they are served, brought up to date block by
//! block. Nothing here is a rule of the protocol: every row is read from the state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arena::State;
use arena::record::{Derived, EntryId, LeaseId, Record, RoundNumber, Statement};
use arena::spec::{CompetitionId, CompetitionSpec};
use arena::state::{Artefact, Entry, Gate, Leader, Role};
use wire::{Hash, Millis, NodeId, Seq};

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
    /// Keys that entered by themselves: how often, and when first.
    pub(crate) entrants: BTreeMap<NodeId, (u64, Millis)>,
    /// The baseline's entries.
    pub(crate) baselines: BTreeMap<RoundNumber, EntryId>,
    /// Submissions per day since 1970, UTC.
    pub(crate) daily: BTreeMap<u64, u32>,
    /// Entries that took the lead, oldest first.
    pub(crate) takeovers: Vec<EntryId>,
    /// When anything about it changed last.
    pub(crate) updated_at: Millis,
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
    /// What a spec names although it was an entry's opened code, or in a pool that is still drawn from, before: a spec does not
    /// open what the arena keeps closed.
    pub(crate) named: HashSet<Hash>,
    /// Items of all pools that a running competition's rounds may still draw, and were not judged on yet.
    pooled: HashMap<CompetitionId, HashSet<Hash>>,
    /// Entries of each opened code.
    pub(crate) codes: HashMap<Hash, Vec<EntryId>>,
    /// Blocks in which the live rounds' inputs were fixed: the log is shown up to there.
    judged_from: BTreeMap<(CompetitionId, RoundNumber), Seq>,
    /// Entries under lease.
    leased: HashMap<LeaseId, EntryId>,
    /// When a judge first took each entry.
    pub(crate) first_leased: HashMap<EntryId, Millis>,
    /// Entries of the arena known so far.
    entries: usize,
}

impl Index {
    /// Follows a block that `state` holds already.
    pub(crate) fn note(&mut self, state: &State, seq: Seq, records: &[Record]) {
        let mut changed: BTreeSet<NodeId> = BTreeSet::new();
        self.follow(state, seq, records, &mut changed);
        self.refresh(state, changed);
    }

    /// The same but for the rows of the leaderboard, which cost as much as their keys have entries: whoever follows many blocks
    /// makes them once, of the keys gathered in `changed`.
    pub(super) fn follow(
        &mut self,
        state: &State,
        seq: Seq,
        records: &[Record],
        changed: &mut BTreeSet<NodeId>,
    ) {
        for entry in state.entries().get(self.entries..).unwrap_or_default() {
            self.add(entry);
            changed.insert(entry.entrant);
        }
        self.entries = state.entries().len();
        for (index, record) in records.iter().enumerate() {
            self.touch(state, record);
            match record {
                Record::Stated(envelope) => {
                    self.stated(&envelope.body, Place { seq, index: index as u32 });
                }
                Record::Derived(derived) => self.derived(state, seq, derived, changed),
                Record::Control(_) => {}
            }
        }
    }

    /// Makes the rows of some keys anew.
    pub(super) fn refresh(&mut self, state: &State, changed: BTreeSet<NodeId>) {
        self.generation += u64::from(!changed.is_empty());
        for key in changed {
            if let Some(leader) = state.leader(key, 0) {
                self.leaders.insert(key, leader);
            }
        }
    }

    /// Notes when a competition changed.
    fn touch(&mut self, state: &State, record: &Record) {
        if let Some(id) = about(state, record) {
            self.competitions.entry(id).or_default().updated_at = state.now();
        }
    }

    fn add(&mut self, entry: &Entry) {
        let lists = self.competitions.entry(entry.competition).or_default();
        lists.all.push(entry.id);
        lists.rounds.entry(Reverse(entry.round)).or_default().push(entry.id);
        *lists.by_entrant.entry(entry.entrant).or_default() += 1;
        if entry.role == Role::Baseline {
            lists.baselines.insert(entry.round, entry.id);
        }
        if entry.role == Role::Challenger {
            lists.entrants.entry(entry.entrant).or_insert((0, entry.submitted_at)).0 += 1;
            *lists.daily.entry(entry.submitted_at.0 / DAY_MS).or_default() += 1;
        }
    }

    fn stated(&mut self, body: &[u8], place: Place) {
        match wire::from_bytes(body) {
            Ok(Statement::Show { lease, .. }) => {
                if let Some(entry) = self.leased.remove(&lease) {
                    self.verdicts.entry(entry).or_default().push(place);
                }
            }
            Ok(Statement::Open { spec }) => {
                let Ok(spec) = CompetitionSpec::parse(&spec) else { return };
                self.competitions.entry(spec.id()).or_default();
                for (_, hash) in spec.files() {
                    let kept = self.codes.contains_key(&hash) || self.keeps(&hash);
                    if kept && !self.public.contains(&hash) {
                        self.named.insert(hash);
                    } else {
                        self.public.insert(hash);
                    }
                }
            }
            Ok(Statement::Pool { competition, items, .. }) => {
                self.pooled.entry(competition).or_default().extend(items.iter().map(|item| item.hash));
            }
            Ok(Statement::Unseal { entry, code, .. }) => self.codes.entry(code).or_default().push(entry),
            _ => {}
        }
    }

    fn derived(&mut self, state: &State, seq: Seq, derived: &Derived, changed: &mut BTreeSet<NodeId>) {
        match derived {
            Derived::Leased { lease, entry, .. } => {
                self.leased.insert(*lease, *entry);
                self.first_leased.entry(*entry).or_insert(state.now());
            }
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
            Derived::Completed { competition } => _ = self.pooled.remove(competition),
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
        for item in summary.into_iter().flat_map(|summary| &summary.items) {
            if let Some(pooled) = self.pooled.get_mut(&id) {
                pooled.remove(item);
            }
            // What another competition draws from, too, stays closed: whoever opens one does not open the pools of others.
            if self.keeps(item) {
                self.named.insert(*item);
            } else {
                self.public.insert(*item);
            }
        }
        let lists = self.competitions.entry(id).or_default();
        let Some(entries) = lists.rounds.get_mut(&Reverse(round)) else { return };
        let rank = |entry: &EntryId| state.entry(*entry).and_then(|entry| entry.rank).unwrap_or(u32::MAX);
        entries.sort_by_key(|entry| (rank(entry), *entry));
        changed.extend(entries.iter().filter_map(|entry| state.entry(*entry)).map(|entry| entry.entrant));
    }

    /// Whether a running competition draws from this blob, now or in a later round, and was not judged on it yet.
    pub(crate) fn keeps(&self, hash: &Hash) -> bool {
        self.pooled.values().any(|items| items.contains(hash))
    }

    /// Whether `viewer` may see an entry's code. A spec that names an entry's hidden code as its baseline opens it to nobody.
    ///
    /// # Errors
    /// The gate that is closed: the entry's, or that of another with the baseline's code.
    pub(crate) fn code_gate(
        &self,
        state: &State,
        entry: &Entry,
        viewer: Option<NodeId>,
        at: Millis,
    ) -> Result<(), Gate> {
        state.gate(entry.id, Artefact::Code, viewer, at)?;
        let code = entry.code.filter(|_| entry.role == Role::Baseline);
        let hidden = code.filter(|code| !self.public.contains(&code.hash));
        let mut all = hidden.and_then(|code| self.codes.get(&code.hash)).into_iter().flatten();
        all.try_for_each(|other| state.gate(*other, Artefact::Code, viewer, at))
    }

    /// The first block that holds verdicts of a round that is not over.
    pub(crate) fn hidden_from(&self) -> Option<Seq> {
        self.judged_from.values().min().copied()
    }
}

/// The competition that a record is about, if it changes what is shown of one.
fn about(state: &State, record: &Record) -> Option<CompetitionId> {
    let of = |entry: EntryId| state.entry(entry).map(|entry| entry.competition);
    match record {
        Record::Control(_) => None,
        Record::Stated(envelope) => match wire::from_bytes(&envelope.body).ok()? {
            Statement::Open { spec } => CompetitionSpec::parse(&spec).ok().map(|spec| spec.id()),
            Statement::Announce { competition, .. } => competition,
            Statement::End { competition }
            | Statement::Submit { competition, .. }
            | Statement::Register { competition, .. }
            | Statement::Pool { competition, .. } => Some(competition),
            Statement::Unseal { entry, .. } | Statement::Describe { entry, .. } => of(entry),
            _ => None,
        },
        Record::Derived(derived) => match derived {
            Derived::RoundOpened { competition, .. }
            | Derived::Advanced { competition, .. }
            | Derived::InputsFixed { competition, .. }
            | Derived::RoundCompleted { competition, .. }
            | Derived::RoundVoid { competition, .. }
            | Derived::Completed { competition } => Some(*competition),
            Derived::Settled { entry, .. } => of(*entry),
            _ => None,
        },
    }
}

const DAY_MS: u64 = 86_400_000;
