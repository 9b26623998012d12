//! Entries, who made them, and what they paid.

use std::collections::VecDeque;

use wire::{Hash, Millis, NodeId};

use super::earnings::Earned;
use crate::about::About;
use crate::measure::Failure;
use crate::record::{EntryId, RoundNumber};
use crate::rule::Scoring;
use crate::spec::{CompetitionId, Form};

/// An entry. It is judged in one round only: a champion goes on as a new, automatic entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Id.
    pub id: EntryId,
    /// Competition.
    pub competition: CompetitionId,
    /// Round.
    pub round: RoundNumber,
    /// Maker.
    pub entrant: NodeId,
    /// Counts the maker's entries of the competition from 1; 0 = automatic.
    pub version: u32,
    /// What it is in its round.
    pub role: Role,
    /// The entry whose code this is, for automatic ones.
    pub origin: Option<EntryId>,
    /// Form.
    pub form: Form,
    /// Seal.
    pub seal: Hash,
    /// When it was made.
    pub submitted_at: Millis,
    /// Code, once opened.
    pub code: Option<Code>,
    /// Entries that it builds on.
    pub parents: Vec<EntryId>,
    /// Payment.
    pub receipt: Option<Hash>,
    /// Where it stands.
    pub state: EntryState,
    /// When judges settled it.
    pub settled_at: Option<Millis>,
    /// When its code is shown to everybody.
    pub reveal_at: Option<Millis>,
    /// Rank in its round, from 1.
    pub rank: Option<u32>,
    /// Entry of another key that gave the very same outputs before.
    pub echo_of: Option<EntryId>,
    /// What its maker says of it.
    pub about: Option<Box<About>>,
    /// How often its maker said so.
    pub(super) described: u8,
}

/// What an entry is in its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Made for this round.
    Challenger,
    /// The champion, judged again on this round's inputs.
    Incumbent,
    /// What everybody must beat.
    Baseline,
}

/// Code of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its hash.
    pub hash: Hash,
    /// Its size.
    pub bytes: u64,
    /// What hid it; zero for automatic entries.
    pub salt: Hash,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EntryState {
    /// Sealed; the round is open, or its seal may still be opened.
    Sealed,
    /// A newer entry of the same key took its place.
    Replaced,
    /// Its seal was not opened in time.
    Unopened,
    /// Opened; the inputs are not known yet.
    Opened,
    /// Waits for judges.
    Queued,
    /// Before at least one judge.
    Judging,
    /// Judged. Final when the round is completed: a takeover asks further judges, who may contradict.
    Scored(Scoring),
    /// Judges agree that it failed. Final.
    Failed(Failure),
    /// Another key entered this code before. Final.
    Copy {
        /// The original.
        of: EntryId,
    },
    /// Judges did not agree. Final.
    Disputed,
    /// Nobody judged it in time, or its round was void; it counts as never made. Final.
    Stale,
}

impl EntryState {
    /// Nothing more happens to it.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Sealed | Self::Opened | Self::Queued | Self::Judging)
    }

    /// One word, as displays and APIs use it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sealed => "pending",
            Self::Replaced => "replaced",
            Self::Unopened => "unopened",
            Self::Opened | Self::Queued => "queued",
            Self::Judging => "evaluating",
            Self::Scored(_) => "scored",
            Self::Failed(failure) if failure.is_screening() => "rejected",
            Self::Failed(_) => "failed",
            Self::Copy { .. } => "copy",
            Self::Disputed => "disputed",
            Self::Stale => "stale",
        }
    }

    /// Its fee may be used again.
    pub(super) fn frees_fee(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.is_screening(),
            Self::Copy { .. } | Self::Stale => true,
            _ => false,
        }
    }
}

impl Entry {
    /// Scores, if it was judged.
    pub fn scoring(&self) -> Option<&Scoring> {
        if let EntryState::Scored(scoring) = &self.state { Some(scoring) } else { None }
    }
}

/// Somebody who entered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrant {
    /// Entries without automatic ones, oldest first.
    pub entries: Vec<EntryId>,
    /// Automatic entries of its champions, oldest first.
    pub automatic: Vec<EntryId>,
    /// Times of the entries that count for the rate limit, oldest first.
    pub(super) recent: VecDeque<(Millis, EntryId)>,
    /// Rewards of the past.
    pub(super) earned: Earned,
}

/// A payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who paid.
    pub payer: NodeId,
    /// How much.
    pub amount: u64,
    /// Entry that it pays for.
    pub used_by: Option<EntryId>,
}
