//! What judges and those in charge exchange with the host.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Time;

/// A judge's part of a round's seed that is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NonceDue {
    /// Competition.
    pub competition_id: String,
    /// Round.
    pub round_number: u32,
    /// Bind it, or open it.
    pub due: Due,
}

/// What is due of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Its commitment.
    Bind,
    /// The nonce itself.
    Open,
}

/// How far a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingView {
    /// To be judged and bound.
    ToJudge,
    /// Bound; other judges are awaited.
    Bound,
    /// To be shown.
    ToShow,
}

/// A lease of the judge who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseView {
    /// Lease.
    pub lease: u64,
    /// How far it is.
    pub finding: FindingView,
    /// Entry.
    pub submission_id: u64,
    /// Competition.
    pub competition_id: String,
    /// Round.
    pub round_number: u32,
    /// Until when it must be bound, or shown; null while others are awaited.
    pub expires: Option<Time>,
    /// `component`, `python` or `native`.
    pub form: String,
    /// Role in its round.
    pub role: super::EntryRole,
    /// Hash of the code.
    pub code: String,
    /// Size of the code, bytes.
    pub code_bytes: u64,
}

/// What all entries of a round are judged on. For judges of the round, and for everybody once it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoundInputs {
    /// Seed of the round.
    pub seed: String,
    /// Drawn inputs in order; none where a generator makes them.
    pub items: Vec<String>,
}

/// What a judge has to do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkAnswer {
    /// Names this answer: ask for what comes after it.
    pub mark: String,
    /// Nonces due.
    pub nonces: Vec<NonceDue>,
    /// Leases.
    pub leases: Vec<LeaseView>,
    /// Entries that the judge said it could take and has not got.
    pub wanted: u16,
    /// Entries wait for judges.
    pub queued: u64,
}

/// An accepted statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatementAnswer {
    /// Block that holds it; durable.
    pub block: u64,
    /// Entry that it made.
    pub submission_id: Option<u64>,
    /// Round of the entry.
    pub round_number: Option<u32>,
    /// Competition that it opened.
    pub competition_id: Option<String>,
}

/// A stored blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadAnswer {
    /// Its hash.
    pub hash: String,
    /// Its size, bytes.
    pub bytes: u64,
}

/// A judge to admit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdmitJudge {
    /// Key.
    pub judge: String,
    /// Who runs it: judges of one operator count as one voice.
    pub operator: String,
}

/// A payment that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PaymentEntry {
    /// Names the payment where it was made: 64 hexadecimal digits.
    pub receipt: String,
    /// Who paid.
    pub payer: String,
    /// How much, in the smallest unit of the currency.
    pub amount: u64,
}

/// What became of one statement of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// Status that the statement alone would have had.
    pub status: u16,
    /// It was accepted.
    pub accepted: Option<StatementAnswer>,
    /// It was refused.
    pub problem: Option<super::Problem>,
}
