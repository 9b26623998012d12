//! What an event stream tells.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Time;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A competition was opened.
    CompetitionOpened,
    /// A competition is over.
    CompetitionCompleted,
    /// A round takes entries.
    RoundOpened,
    /// A step of a round began.
    RoundAdvanced,
    /// A round is over.
    RoundCompleted,
    /// A round ended without being judged.
    RoundVoid,
    /// An entry was made.
    Submitted,
    /// An entry's seal was opened.
    Unsealed,
    /// A judge took an entry.
    Leased,
    /// Judges settled an entry.
    Settled,
    /// Somebody announced something.
    Announced,
    /// Keys were registered for a competition, or taken off its list.
    Registered,
    /// An entry's maker said what it is.
    Described,
}

/// One event. Its id is `block.record`: a stream goes on behind the `Last-Event-ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// `block.record`.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub at: Time,
    /// Competition.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub competition_id: Option<String>,
    /// Round.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub round_number: Option<u32>,
    /// Entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub submission_id: Option<u64>,
    /// Key that did it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// Step, reason or text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
}
