//! Records of the log: what keys state (signed), what the host puts in, and what follows from both.
//!
//! A block holds inputs (statements and controls) in the order of arrival; behind each input stand the derived records
//! that it made due. Derived records are a pure function of the state, so a verifier recomputes each one.

use std::fmt;

use ledger::Fact;
use serde::{Deserialize, Serialize};
use wire::{Hash, Millis, NodeId};

use crate::about::About;
use crate::measure::{Failure, Verdict};
use crate::rule::{Comparison, Scoring};
use crate::spec::{CompetitionId, Form};

/// Kind of an envelope whose body is a [`Statement`].
pub const STATEMENT_KIND: u16 = 2;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// An entry of the arena, counted from 0 over all competitions.
    EntryId(u64)
);
id!(
    /// The right of one judge to judge one entry, until a deadline.
    LeaseId(u64)
);
id!(
    /// A round of a competition, from 0.
    RoundNumber(u32)
);

/// One record of the log.
pub type Record = ledger::fold::Record<Control, Derived>;
/// A record that comes from outside: everything else follows.
pub type Input = ledger::fold::Input<Control>;

/// Input of the host itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// First record of a log.
    Genesis {
        /// Canonical text of the arena's spec, whose hash is the log's run id.
        spec: String,
        /// Who signs the blocks.
        host: NodeId,
    },
    /// The host was down; open deadlines move by this much.
    Resumed {
        /// Time not served.
        down: Millis,
    },
    /// A judge is admitted, or its operator named anew.
    Admitted {
        /// Judge.
        judge: NodeId,
        /// Who runs it: two judges of one operator count as one voice.
        operator: String,
    },
    /// A judge is sent away: its leases end.
    Dismissed {
        /// Judge.
        judge: NodeId,
    },
    /// A payment arrived.
    Paid {
        /// Names the payment where it was made; each counts once.
        receipt: Hash,
        /// Who paid.
        payer: NodeId,
        /// How much, in the smallest unit of the currency.
        amount: u64,
    },
}

/// What a key may state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Statement {
    /// Opens a competition.
    Open {
        /// Canonical text of its spec.
        spec: String,
    },
    /// Ends a competition: its open round is the last one.
    End {
        /// Which.
        competition: CompetitionId,
    },
    /// Says something to everybody.
    Announce {
        /// In which competition; `None` for the whole arena.
        competition: Option<CompetitionId>,
        /// What.
        text: String,
    },
    /// Enters code under a seal: nobody sees it before the round is closed.
    Submit {
        /// Where.
        competition: CompetitionId,
        /// [`entry_seal`] of the code.
        seal: Hash,
        /// What it is.
        form: Form,
        /// Entries that it builds on.
        parents: Vec<EntryId>,
        /// Payment, where one is due.
        receipt: Option<Hash>,
    },
    /// Opens the seal after close. The salt becomes part of the round's seed. Stated by the entrant, or by the host to
    /// whom the entrant gave code and salt.
    Unseal {
        /// Which entry.
        entry: EntryId,
        /// Hash of the code.
        code: Hash,
        /// Size of the code.
        bytes: u64,
        /// Part of the seal.
        salt: Hash,
    },
    /// A judge binds its part of the round's seed, before anybody's is known.
    Nonce {
        /// Where.
        competition: CompetitionId,
        /// Which round.
        round: RoundNumber,
        /// [`ledger::beacon::commitment`] of the nonce.
        commitment: Hash,
    },
    /// A judge opens its part, after all entrants had theirs to open.
    OpenNonce {
        /// Where.
        competition: CompetitionId,
        /// Which round.
        round: RoundNumber,
        /// The nonce.
        nonce: Hash,
    },
    /// The competition's opener names what inputs may be drawn from: after close, before the seed.
    Pool {
        /// Where.
        competition: CompetitionId,
        /// Which round.
        round: RoundNumber,
        /// Items, ascending by hash.
        items: Vec<PoolItem>,
    },
    /// A judge asks for work; replaces what it asked for before.
    Lease {
        /// How many entries it could judge now.
        want: u16,
    },
    /// A judge binds its verdict.
    Judged {
        /// Its lease.
        lease: LeaseId,
        /// [`Verdict::seal`].
        seal: Hash,
    },
    /// A judge shows its verdict, once all judges of the entry are bound.
    Show {
        /// Its lease.
        lease: LeaseId,
        /// Part of the seal.
        nonce: Hash,
        /// The verdict.
        verdict: Verdict,
    },
    /// Lets keys enter a competition by registration, or lets them enter no more. Said by those in charge of it.
    Register {
        /// Where.
        competition: CompetitionId,
        /// Whose.
        keys: Vec<NodeId>,
        /// Whether they may enter from here on.
        enter: bool,
    },
    /// Says what an entry of one's own is, in place of what was said before.
    Describe {
        /// Which entry.
        entry: EntryId,
        /// What it is.
        about: About,
    },
    /// A judge gives a lease back that it cannot serve: the entry goes to another judge at once.
    Return {
        /// Its lease; nothing is bound under it yet.
        lease: LeaseId,
    },
}

/// One item of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PoolItem {
    /// Hash of the content.
    pub hash: Hash,
    /// Who gave it.
    pub operator: NodeId,
}

/// What follows from the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Derived {
    /// A round takes entries.
    RoundOpened {
        /// Where.
        competition: CompetitionId,
        /// Which.
        round: RoundNumber,
        /// When it closes.
        closes: Millis,
    },
    /// A step of a round begins.
    Advanced {
        /// Where.
        competition: CompetitionId,
        /// Which round.
        round: RoundNumber,
        /// What is awaited now.
        step: Step,
    },
    /// The seed is known, the inputs are fixed, judging begins.
    InputsFixed {
        /// Where.
        competition: CompetitionId,
        /// Which round.
        round: RoundNumber,
        /// Seed of the round.
        seed: Hash,
        /// Hashes of the inputs in order; empty where a generator makes them from the seed.
        items: Vec<Hash>,
        /// Challengers that are judged, ascending.
        challengers: Vec<EntryId>,
        /// Entry under which the baseline is judged in this round.
        baseline: Option<EntryId>,
        /// Entry under which the champion is judged again in this round.
        incumbent: Option<EntryId>,
        /// Entries whose code was entered before by another key: the copy, then the original.
        copies: Vec<(EntryId, EntryId)>,
    },
    /// A judge gets an entry.
    Leased {
        /// Lease.
        lease: LeaseId,
        /// Judge.
        judge: NodeId,
        /// Entry.
        entry: EntryId,
        /// Until when the judge must bind its verdict.
        expires: Millis,
    },
    /// A lease ran out or was given back: the entry may be leased again.
    Expired {
        /// Lease.
        lease: LeaseId,
    },
    /// All judges of an entry are bound: verdicts may be shown.
    VerdictsDue {
        /// Entry.
        entry: EntryId,
    },
    /// Verdicts differ, or a takeover hangs on this entry: one more judge is asked.
    Referred {
        /// Entry.
        entry: EntryId,
        /// Judges who must agree.
        need: u8,
        /// Judges asked in all.
        asked: u8,
    },
    /// Enough judges agree on an entry, or cannot any more.
    Settled {
        /// Entry.
        entry: EntryId,
        /// What became of it.
        settlement: Settlement,
    },
    /// A challenger above the threshold, compared with the bar input by input.
    Compared {
        /// Challenger.
        entry: EntryId,
        /// Entry that holds the bar.
        bar: EntryId,
        /// Result.
        comparison: Comparison,
        /// Whether it is sure enough.
        sure: bool,
    },
    /// A round is over.
    RoundCompleted {
        /// Where.
        competition: CompetitionId,
        /// Which.
        round: RoundNumber,
        /// Entry that took the lead in this round, if one did.
        takeover: Option<EntryId>,
        /// Who leads now: the entry as it was first made.
        champion: Option<EntryId>,
        /// Entries that nobody judged in time.
        stale: Vec<EntryId>,
        /// Entries whose scores further judges contradicted when a takeover hung on them: they count no more.
        disputed: Vec<EntryId>,
    },
    /// A round ends without being judged. The champion stays, entries count as never made.
    RoundVoid {
        /// Where.
        competition: CompetitionId,
        /// Which.
        round: RoundNumber,
        /// Why.
        reason: VoidReason,
    },
    /// A competition is over: its schedule or its opener says so, and its last round is done.
    Completed {
        /// Which.
        competition: CompetitionId,
    },
}

/// Steps of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Takes sealed entries.
    Open,
    /// Closed; the pool is awaited.
    Pooling,
    /// Entrants open their seals.
    Opening,
    /// Judges open their nonces.
    Drawing,
    /// Judges judge.
    Judging,
}

/// Why a round is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
pub enum VoidReason {
    /// Nobody entered, or nobody opened.
    #[error("no entries")]
    NoEntries,
    /// No pool was named in time.
    #[error("no pool of inputs was named in time")]
    NoPool,
    /// No judge opened a nonce: nobody could have judged, and the entrants alone would have made the seed.
    #[error("no judge opened a nonce in time")]
    NoJudges,
}

/// What judges made of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Settlement {
    /// They agree on measurements.
    Scored {
        /// The scores that follow.
        scoring: Scoring,
        /// Hash over what the entry gave back.
        outputs: Hash,
    },
    /// They agree on a failure.
    Failed(Failure),
    /// As many as can be asked do not agree.
    Disputed,
}

/// Seal of an entry: binds the code to its competition, its maker and its form, and hides it behind a salt. A seal
/// that somebody copies opens for nobody.
pub fn entry_seal(
    competition: &CompetitionId,
    entrant: &NodeId,
    form: Form,
    code: &Hash,
    bytes: u64,
    salt: &Hash,
) -> Hash {
    let form = form.name().as_bytes();
    let parts = [&competition.0.0[..], &entrant.0, form, &code.0, &bytes.to_le_bytes(), &salt.0];
    Hash::of_parts("shoal 2026-11 arena entry", &parts)
}

impl Fact for Derived {
    fn name(&self) -> &'static str {
        match self {
            Self::RoundOpened { .. } => "RoundOpened",
            Self::Advanced { .. } => "Advanced",
            Self::InputsFixed { .. } => "InputsFixed",
            Self::Leased { .. } => "Leased",
            Self::Expired { .. } => "Expired",
            Self::VerdictsDue { .. } => "VerdictsDue",
            Self::Referred { .. } => "Referred",
            Self::Settled { .. } => "Settled",
            Self::Compared { .. } => "Compared",
            Self::RoundCompleted { .. } => "RoundCompleted",
            Self::RoundVoid { .. } => "RoundVoid",
            Self::Completed { .. } => "Completed",
        }
    }
}

impl Fact for Control {
    fn name(&self) -> &'static str {
        match self {
            Self::Genesis { .. } => "Genesis",
            Self::Resumed { .. } => "Resumed",
            Self::Admitted { .. } => "Admitted",
            Self::Dismissed { .. } => "Dismissed",
            Self::Paid { .. } => "Paid",
        }
    }
}
