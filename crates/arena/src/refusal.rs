//! Why an input is refused: a refused input is not logged and changes nothing.

use ledger::fold::Unfit;
use serde::{Deserialize, Serialize};
use wire::{Hash, Millis, NodeId};

use crate::calendar::Moment;
use crate::record::{EntryId, LeaseId, RoundNumber, Step};
use crate::spec::{CompetitionId, Form};

/// Why an input is refused. Travels to its sender, who decides what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No envelope that may enter the log now, whatever it states.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The spec of a competition is not possible, or not canonical.
    #[error("{reason}")]
    Spec {
        /// Which key, which value, what is allowed.
        reason: String,
    },
    /// This very competition exists.
    #[error(
        "competition {} exists already: a spec is opened once, also where it is over; change its start or its name",
        competition.0.short()
    )]
    Exists {
        /// Its id.
        competition: CompetitionId,
    },
    /// Another open competition has this name.
    #[error("an open competition is called {name} already: choose another name, or wait for its end")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Only certain keys may do this.
    #[error("only {who} may do this")]
    NotAllowed {
        /// Who may.
        who: String,
    },
    /// All weights together would be above one.
    #[error("a weight of {asked} ppm: only {left} ppm are left")]
    Weight {
        /// Asked for, 10⁻⁶.
        asked: u64,
        /// Left, 10⁻⁶.
        left: u64,
    },
    /// The competition's first round would already be over.
    #[error("the schedule ended before now")]
    Past,
    /// No such competition, or it is over.
    #[error("no competition {} is under way", competition.0.short())]
    UnknownCompetition {
        /// Named.
        competition: CompetitionId,
    },
    /// No such entry.
    #[error("no entry {entry}")]
    UnknownEntry {
        /// Named.
        entry: EntryId,
    },
    /// No round is in that state.
    #[error("round {round} is not at this step{}", step.map(|step| format!(": it is at {step:?}")).unwrap_or_default())]
    WrongStep {
        /// Round named.
        round: RoundNumber,
        /// Step it is at; `None` if it is over or to come.
        step: Option<Step>,
    },
    /// The competition takes no entries now.
    #[error("no round is open{}", opens.map(|at| format!(": the next opens at {}", Moment(at))).unwrap_or_default())]
    NotOpen {
        /// When the next round opens.
        opens: Option<Millis>,
    },
    /// A form that this competition does not admit.
    #[error("form {} is not admitted here", form.name())]
    Form {
        /// Form of the entry.
        form: Form,
    },
    /// Too many entries of this key in the window.
    #[error("{limit} entries per key and window are used up; the next is free at {}", Moment(*free_at))]
    RateLimit {
        /// Entries in a window.
        limit: u32,
        /// When the oldest falls out.
        free_at: Millis,
    },
    /// Over a limit.
    #[error("{what}: {found} is over the limit of {limit}")]
    OverLimit {
        /// What is counted.
        what: String,
        /// Found.
        found: u64,
        /// Limit.
        limit: u64,
    },
    /// A payment is due, and the receipt is missing, unknown, another's, used, or too small.
    #[error("this entry costs {amount}: {what}{}", if pay_to.is_empty() { String::new() } else { format!("; pay to {pay_to}") })]
    Fee {
        /// Price.
        amount: u64,
        /// What is wrong with the receipt.
        what: String,
        /// Where it is paid; empty where the spec does not say.
        #[serde(default)]
        pay_to: String,
    },
    /// Said before, in other words.
    #[error("said before: {what}")]
    Repeated {
        /// What.
        what: String,
    },
    /// Not what was bound.
    #[error("does not open the seal: {what}")]
    WrongOpening {
        /// What was opened.
        what: String,
    },
    /// A list out of order, with doubles or too short.
    #[error("not a possible list of items: {what}")]
    Items {
        /// What is wrong.
        what: String,
    },
    /// An item of an earlier round.
    #[error("item {} was an input of an earlier round", item.short())]
    UsedItem {
        /// Item.
        item: Hash,
    },
    /// Not an admitted judge.
    #[error("not an admitted judge")]
    NotJudge,
    /// Not this judge's lease, or it ran out.
    #[error("lease {lease} is not yours, or ran out")]
    NotLeased {
        /// Lease named.
        lease: LeaseId,
    },
    /// Too early or too late for this.
    #[error("not now: {what}")]
    NotNow {
        /// What is awaited, or what is over.
        what: String,
    },
    /// A verdict that cannot be.
    #[error("impossible verdict: {what}")]
    Verdict {
        /// What is wrong.
        what: String,
    },
    /// Not known to the arena.
    #[error("unknown key {}", node.short())]
    UnknownNode {
        /// Named.
        node: NodeId,
    },
    /// The competition is by registration, and this key is not on its list.
    #[error(
        "{competition} takes entries of registered keys only, and {key} is not one: ask the opener, {opener}, for `shoal arena register {competition} {key}`"
    )]
    NotRegistered {
        /// Name of the competition.
        competition: String,
        /// Who wanted to enter.
        key: NodeId,
        /// Who opened the competition.
        opener: NodeId,
    },
    /// What an entry says of itself cannot be shown.
    #[error("{what}")]
    About {
        /// What is wrong.
        what: String,
    },
    /// A genesis in the middle of a log.
    #[error("the arena has begun already")]
    Begun,
    /// `Resumed` may only be the first record of a block, and not claim more time than passed.
    #[error("not a resumption: {what}")]
    NotResumed {
        /// Why.
        what: String,
    },
}
