//! The fold: everything the log says, as one value. Inputs are accepted or refused; what follows is due.
//!
//! `advance` sets the time, `accept` takes an input, `due` names the next record that follows and `apply` applies it.
//! The host drives these four through [`ledger::commit`], every other node replays them through [`ledger::verify`]; equal
//! logs give equal states.

mod accept;
mod board;
mod competition;
mod earnings;
mod enter;
mod entry;
mod fold;
mod gate;
mod job;
mod judge;
mod lease;
mod queue;
mod registry;
mod reward;
mod round;
mod takeover;

use std::collections::{BTreeMap, VecDeque};

pub use ledger::fold::Signatures;
use ledger::fold::{Last, Tip};
use wire::{Hash, Millis, NodeId, RunId};

pub use self::board::{Leader, LeaderMode, ParetoPoint, Profile, ScorePoint, ScoreToBeat, rank_leaders};
pub use self::competition::{BoardRow, Champion, Claim, Competition, Note, RoundSummary, Status};
pub use self::entry::{Code, Entrant, Entry, EntryState, Receipt, Role};
pub use self::gate::{Artefact, Gate, GateReason, RateStatus};
pub use self::job::{Job, Slot};
pub use self::judge::{Judge, inputs_hash};
pub use self::lease::Lease;
pub use self::reward::{Weights, burn_ppm};
pub use self::round::{NonceState, Round};
use crate::record::{EntryId, LeaseId};
use crate::spec::{ArenaSpec, CompetitionId, SpecError};

/// Everything that the log says.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    tip: Tip,
    spec: ArenaSpec,
    last: BTreeMap<NodeId, Last>,
    judges: BTreeMap<NodeId, Judge>,
    competitions: BTreeMap<CompetitionId, Competition>,
    /// By [`EntryId`].
    entries: Vec<Entry>,
    seals: BTreeMap<Hash, EntryId>,
    /// The earliest entry of each code of a competition.
    codes: BTreeMap<(CompetitionId, Hash), EntryId>,
    entrants: BTreeMap<NodeId, Entrant>,
    receipts: BTreeMap<Hash, Receipt>,
    leases: lease::Leases,
    next_lease: u64,
    /// How many entries each judge could take.
    wants: BTreeMap<NodeId, u16>,
    notes: VecDeque<Note>,
}

/// Why a log cannot begin like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not a genesis record.
    #[error("the first record is not a genesis")]
    NotGenesis,
    /// The spec is another arena's.
    #[error("the spec is of arena {}, the log of arena {}", theirs.short(), ours.short())]
    WrongArena {
        /// Hash of the spec.
        theirs: RunId,
        /// Arena of the log.
        ours: RunId,
    },
    /// A spec that no arena can have.
    #[error("impossible spec: {0}")]
    Spec(#[from] SpecError),
}

impl State {
    /// Whether `at` has come.
    fn passed(&self, at: Millis) -> bool {
        self.tip.now() >= at
    }

    /// The arena's id.
    pub fn run(&self) -> RunId {
        self.tip.run()
    }

    /// The arena's spec.
    pub fn spec(&self) -> &ArenaSpec {
        &self.spec
    }

    /// Who signs the log.
    pub fn host(&self) -> NodeId {
        self.tip.owner()
    }

    /// Time of the newest block.
    pub fn now(&self) -> Millis {
        self.tip.now()
    }

    /// Hash chain over all records: equal digests mean equal logs.
    pub fn digest(&self) -> Hash {
        self.tip.digest()
    }

    /// All competitions, also those that are over.
    pub fn competitions(&self) -> &BTreeMap<CompetitionId, Competition> {
        &self.competitions
    }

    /// One competition.
    pub fn competition(&self, id: &CompetitionId) -> Option<&Competition> {
        self.competitions.get(id)
    }

    /// All entries, in the order of their ids.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One entry.
    pub fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(usize::try_from(id.0).ok()?)
    }

    /// The entry under a seal: how its maker learns its id.
    pub fn entry_of_seal(&self, seal: &Hash) -> Option<&Entry> {
        self.entry(*self.seals.get(seal)?)
    }

    /// Everybody who ever entered.
    pub fn entrants(&self) -> &BTreeMap<NodeId, Entrant> {
        &self.entrants
    }

    /// Judges, also those sent away.
    pub fn judges(&self) -> &BTreeMap<NodeId, Judge> {
        &self.judges
    }

    /// Leases under way.
    pub fn leases(&self) -> &BTreeMap<LeaseId, Lease> {
        self.leases.all()
    }

    /// Leases of a judge.
    pub fn leases_of(&self, judge: NodeId) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.of(judge)
    }

    /// Announcements for the whole arena, oldest first.
    pub fn notes(&self) -> &VecDeque<Note> {
        &self.notes
    }

    /// The job of an entry, while its round is judged.
    pub fn job(&self, id: EntryId) -> Option<&Job> {
        let entry = self.entry(id)?;
        self.competitions.get(&entry.competition)?.live.get(&entry.round)?.jobs.get(&id)
    }

    fn entry_mut(&mut self, id: EntryId) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(id.0).ok()?)
    }

    fn job_mut(&mut self, id: EntryId) -> Option<&mut Job> {
        let (competition, round) = self.entry(id).map(|entry| (entry.competition, entry.round))?;
        self.competitions.get_mut(&competition)?.live.get_mut(&round)?.jobs.get_mut(&id)
    }

    fn next_entry(&self) -> EntryId {
        EntryId(self.entries.len() as u64)
    }
}
