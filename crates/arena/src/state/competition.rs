//! A competition and what is left of its rounds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wire::{Hash, Millis, NodeId};

use super::earnings::Earned;
use super::round::Round;
use crate::limits;
use crate::record::{EntryId, RoundNumber, VoidReason};
use crate::rule::Scoring;
use crate::spec::{CompetitionId, CompetitionSpec};

/// A competition.
#[derive(Clone, Debug, PartialEq)]
pub struct Competition {
    /// Id.
    pub id: CompetitionId,
    /// Spec.
    pub spec: CompetitionSpec,
    /// Who opened it.
    pub opener: NodeId,
    /// When.
    pub created_at: Millis,
    /// No further round opens.
    pub ending: bool,
    /// Over since.
    pub completed_at: Option<Millis>,
    /// First round that has not opened.
    pub next_round: RoundNumber,
    /// Rounds that are open or judged: at most one of them is open.
    pub live: BTreeMap<RoundNumber, Round>,
    /// Who leads.
    pub champion: Option<Champion>,
    /// Past rounds, oldest first.
    pub summaries: VecDeque<RoundSummary>,
    /// Announcements, oldest first.
    pub notes: VecDeque<Note>,
    /// Entries made, without automatic ones.
    pub submissions: u64,
    /// Keys that may enter, where the spec asks for registration.
    pub registered: BTreeSet<NodeId>,
    /// Newest version of each key.
    pub(super) versions: BTreeMap<NodeId, u32>,
    /// Items that were inputs.
    pub(super) used: BTreeSet<Hash>,
    /// Who is paid, and their shares of what is not burned, 10⁻⁶; from `paid_from` on.
    pub(super) payees: BTreeMap<NodeId, u64>,
    pub(super) paid_from: Millis,
    /// How far each key's takeovers raised the bar, 10⁻⁶, in all.
    pub(super) contributions: BTreeMap<NodeId, u64>,
    /// Who reached the mark of each bounty of the spec, in its order.
    pub(super) claims: Vec<Option<Claim>>,
    /// Raw score of a champion that failed since, until a later one is better.
    pub(super) reached: Option<f64>,
    /// Rewards of the past, of all keys.
    pub(super) earned: Earned,
}

/// States of a competition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Its first round has not opened ("coming soon").
    Pending,
    /// Under way.
    Active,
    /// Over.
    Completed,
}

/// Who leads a competition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Champion {
    /// The entry as it was first made.
    pub entry: EntryId,
    /// Its maker.
    pub entrant: NodeId,
    /// Hash of its code: what goes to production.
    pub code: Hash,
    /// Round in which it took the lead.
    pub round: RoundNumber,
    /// When: the burn decays from here.
    pub since: Millis,
    /// Scores of the newest round in which it was judged.
    pub scoring: Scoring,
}

/// A past round.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundSummary {
    /// Number.
    pub round: RoundNumber,
    /// When it opened.
    pub opened_at: Millis,
    /// When it closed.
    pub closed_at: Millis,
    /// When it was completed.
    pub completed_at: Millis,
    /// Why it was not judged.
    pub void: Option<VoidReason>,
    /// Its seed; zero if void.
    pub seed: Hash,
    /// Its inputs (with a pool): the next development set.
    pub items: Vec<Hash>,
    /// Best first; at most [`limits::BOARD_ROWS_MAX`].
    pub board: Vec<BoardRow>,
    /// Entry that took the lead.
    pub takeover: Option<EntryId>,
    /// Who led at its end.
    pub champion: Option<EntryId>,
    /// Raw score that the next round has to beat, on this round's inputs.
    pub to_beat: Option<f64>,
}

/// A bounty that somebody has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Key that is paid.
    pub entrant: NodeId,
    /// Completed rounds that it is still paid for, the newest among them; 0: it was paid in full.
    pub rounds_left: u32,
}

/// A row of a round's board.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoardRow {
    /// From 1.
    pub rank: u32,
    /// Entry.
    pub entry: EntryId,
    /// Its maker.
    pub entrant: NodeId,
    /// Scores.
    pub scoring: Scoring,
    /// Entry of another key that gave the very same outputs before.
    pub echo_of: Option<EntryId>,
}

/// An announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub at: Millis,
    /// Who.
    pub from: NodeId,
    /// What.
    pub text: String,
}

impl Competition {
    pub(super) fn new(spec: CompetitionSpec, opener: NodeId, now: Millis) -> Self {
        // Rounds whose time is over are never held.
        let next = spec.schedule.round_at(now, 0).unwrap_or(0);
        Self {
            id: spec.id(),
            claims: vec![None; spec.reward.bounties.len()],
            spec,
            opener,
            created_at: now,
            ending: false,
            completed_at: None,
            next_round: RoundNumber(next),
            live: BTreeMap::new(),
            champion: None,
            summaries: VecDeque::new(),
            notes: VecDeque::new(),
            submissions: 0,
            registered: BTreeSet::new(),
            versions: BTreeMap::new(),
            used: BTreeSet::new(),
            payees: BTreeMap::new(),
            contributions: BTreeMap::new(),
            reached: None,
            paid_from: now,
            earned: Earned::default(),
        }
    }

    /// Its state.
    pub fn status(&self) -> Status {
        match () {
            () if self.completed_at.is_some() => Status::Completed,
            () if self.live.is_empty() && self.summaries.is_empty() => Status::Pending,
            () => Status::Active,
        }
    }

    /// The round that takes entries.
    pub fn open_round(&self) -> Option<&Round> {
        self.live.values().find(|round| round.is_open())
    }

    /// Number of the last round's successor, if the schedule has an end.
    fn rounds_end(&self) -> Option<u32> {
        Some(self.spec.schedule.rounds).filter(|rounds| *rounds > 0)
    }

    /// No further round can open.
    pub(super) fn is_spent(&self, now: Millis) -> bool {
        let schedule = &self.spec.schedule;
        self.ending
            || self.rounds_end().is_some_and(|end| self.next_round.0 >= end || schedule.opens(end) <= now)
    }

    /// The round to open now.
    pub(super) fn opening(&self, now: Millis) -> Option<RoundNumber> {
        if self.completed_at.is_some() || self.is_spent(now) || self.open_round().is_some() {
            return None;
        }
        let round = self.spec.schedule.round_at(now, self.next_round.0)?;
        self.rounds_end().is_none_or(|end| round < end).then_some(RoundNumber(round))
    }

    /// When the next round opens, for displays.
    pub fn next_opens(&self, now: Millis) -> Option<Millis> {
        let over = self.completed_at.is_some() || self.is_spent(now);
        (!over).then(|| self.spec.schedule.opens(self.next_round.0))
    }

    pub(super) fn deadlines(&self) -> Vec<Millis> {
        if self.completed_at.is_some() {
            return Vec::new();
        }
        let schedule = &self.spec.schedule;
        let mut all: Vec<Millis> = self.live.values().flat_map(Round::deadlines).collect();
        all.push(schedule.opens(self.next_round.0));
        all.extend(self.rounds_end().map(|end| schedule.opens(end)));
        all
    }

    pub(super) fn note(&mut self, note: Note) {
        push_note(&mut self.notes, note);
    }

    pub(super) fn summarise(&mut self, summary: RoundSummary) {
        self.summaries.push_back(summary);
        if self.summaries.len() > limits::SUMMARIES_MAX {
            self.summaries.pop_front();
        }
    }
}

pub(super) fn push_note(notes: &mut VecDeque<Note>, note: Note) {
    notes.push_back(note);
    if notes.len() > limits::NOTES_MAX {
        notes.pop_front();
    }
}
