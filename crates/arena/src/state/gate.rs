//! Who may see what, and when; and how often who may enter.

use serde::{Deserialize, Serialize};
use wire::{Millis, NodeId};

use super::State;
use super::entry::Role;
use crate::record::EntryId;
use crate::spec::CompetitionId;

/// What may be asked for of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Artefact {
    /// The code.
    Code,
    /// The log of its runs.
    Log,
    /// Score, rank, measurements, failure, time.
    Result,
}

/// Why something is not shown (the reasons of arena specs §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateReason {
    /// Shown once the round is completed.
    RoundNotCompleted,
    /// Shown at [`Gate::reveal_at`].
    CodeNotRevealed,
    /// Not there: never opened, or no such entry.
    CodeNotAccessible,
}

/// A closed gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", match self.reason {
    GateReason::RoundNotCompleted => "not shown before the round is completed",
    GateReason::CodeNotRevealed => "the code is not shown yet",
    GateReason::CodeNotAccessible => "there is no such code",
})]
pub struct Gate {
    /// Why.
    pub reason: GateReason,
    /// Whether the round is completed.
    pub round_completed: bool,
    /// When the round closes, or closed.
    pub round_end_at: Option<Millis>,
    /// When the gate opens, if that is known.
    pub reveal_at: Option<Millis>,
}

/// How many entries a key may still make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateStatus {
    /// Entries in a window, over all competitions.
    pub limit: u32,
    /// Used.
    pub used: u32,
    /// Left.
    pub left: u32,
    /// Length of the window.
    pub window: Millis,
    /// When one more is free: now, or when the oldest falls out.
    pub next_free_at: Millis,
    /// When all are free again.
    pub all_free_at: Millis,
}

impl State {
    /// Whether `viewer` may see a part of an entry at a moment that is not before the newest block. Whoever made it sees
    /// all there is, at once.
    ///
    /// # Errors
    /// The gate that is closed.
    pub fn gate(&self, id: EntryId, what: Artefact, viewer: Option<NodeId>, at: Millis) -> Result<(), Gate> {
        let closed = |reason, round_completed, round_end_at, reveal_at| {
            Err(Gate { reason, round_completed, round_end_at, reveal_at })
        };
        let Some(entry) = self.entry(id) else {
            return closed(GateReason::CodeNotAccessible, false, None, None);
        };
        let competition = self.competitions.get(&entry.competition);
        let live = competition.and_then(|found| found.live.get(&entry.round));
        let completed = live.is_none();
        let round_end_at = live.map(|round| round.closes).or_else(|| {
            let summaries = &competition?.summaries;
            summaries.iter().find(|summary| summary.round == entry.round).map(|summary| summary.closed_at)
        });
        let own = viewer == Some(entry.entrant) && entry.role != Role::Baseline;
        match what {
            // The baseline's code stands in the spec.
            Artefact::Code if own || entry.role == Role::Baseline => Ok(()),
            Artefact::Code => match (entry.code, self.code_revealed_at(id)) {
                (_, None) if completed => {
                    closed(GateReason::CodeNotAccessible, completed, round_end_at, None)
                }
                (_, None) => closed(GateReason::CodeNotRevealed, completed, round_end_at, None),
                (_, Some(reveal)) if at >= reveal => Ok(()),
                (_, reveal) => closed(GateReason::CodeNotRevealed, completed, round_end_at, reveal),
            },
            Artefact::Log | Artefact::Result if completed || (own && entry.state.is_final()) => Ok(()),
            Artefact::Log | Artefact::Result => {
                closed(GateReason::RoundNotCompleted, completed, round_end_at, None)
            }
        }
    }

    /// When an entry's code is shown to everybody: an automatic entry's is that of the entry it repeats.
    fn code_revealed_at(&self, id: EntryId) -> Option<Millis> {
        let entry = self.entry(id)?;
        let first = entry.origin.map_or(Some(entry), |origin| self.entry(origin))?;
        first.reveal_at
    }

    /// Whether a round's inputs are shown to everybody.
    ///
    /// # Errors
    /// The gate that is closed.
    pub fn inputs_gate(&self, id: &CompetitionId, round: crate::record::RoundNumber) -> Result<(), Gate> {
        let competition = self.competitions.get(id);
        let live = competition.and_then(|found| found.live.get(&round));
        let known = competition.is_some_and(|found| round < found.next_round);
        if known && live.is_none() {
            return Ok(());
        }
        Err(Gate {
            reason: GateReason::RoundNotCompleted,
            round_completed: false,
            round_end_at: live.map(|round| round.closes),
            reveal_at: None,
        })
    }

    /// How many entries a key may still make.
    pub fn rate_status(&self, key: NodeId, at: Millis) -> RateStatus {
        let window = self.spec.rate_window();
        let limit = self.spec.rate_entries;
        let recent = self.entrants.get(&key).map(|entrant| &entrant.recent);
        let counted: Vec<Millis> = recent
            .into_iter()
            .flatten()
            .map(|(made, _)| made.plus(window))
            .filter(|free| *free > at)
            .collect();
        let used = counted.len() as u32;
        let left = limit.saturating_sub(used);
        RateStatus {
            limit,
            used,
            left,
            window,
            next_free_at: if left > 0 { at } else { counted.first().copied().unwrap_or(at) },
            all_free_at: counted.last().copied().unwrap_or(at),
        }
    }
}
