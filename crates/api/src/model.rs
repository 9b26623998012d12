//! What the API says, as JSON: the server writes these, the client reads them, the OpenAPI document describes them.
//!
//! Times are RFC 3339 in UTC, keys and hashes 64 hexadecimal digits, scores numbers that may be negative. What a gate hides
//! is `null`, and `revealed` says so.

mod account;
mod board;
mod competition;
mod event;
mod judging;
mod submission;
mod time;

pub use account::{MachineView, UsageView};
pub use board::{
    ActivityDay, Announcement, EarningDay, GlobalBoard, JudgeRow, LeaderRow, Mode, Notes, Profile,
    ProfileCompetition, RateLimit, ReceiptRow, Receipts, Weight, WeightsAnswer,
};
pub use competition::{
    ArenaInfo, Board, BoardEntry, Bounty, Competition, CompetitionPage, InputFile, Inputs, Limits, Pareto,
    Payee, PointsAnswer, RegisteredPage, Round, RoundPage, ScorePointRow, ToBeat, TopScore,
};
pub use event::{Event, EventKind};
pub use judging::{
    AdmitJudge, BatchAnswer, Due, FindingView, LeaseView, NonceDue, PaymentEntry, RoundInputs,
    StatementAnswer, UploadAnswer, WorkAnswer,
};
pub use submission::{
    About, CodePage, EntryRole, Failed, FileKind, FileList, FilePage, FileRow, Filter, JudgementView, Lines,
    Metric, Sort, Submission, SubmissionDetail, SubmissionPage, Submitted, Unit,
};
pub use time::Time;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a page lies in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pagination {
    /// First row, from 0.
    pub start_idx: u64,
    /// Rows of this page.
    pub count: u64,
    /// Rows in all.
    pub total: u64,
    /// Rows follow.
    pub has_more: bool,
}

impl Pagination {
    /// A page of `count` rows at `start`.
    pub fn of(start: u64, count: usize, total: usize) -> Self {
        let (count, total) = (count as u64, total as u64);
        Self { start_idx: start, count, total, has_more: start + count < total }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// One word: `not_found`, `bad_request`, `unsigned`, `replayed`, `refused`, `busy`, …
    pub reason: String,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// The fold's own refusal, where it refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<Object>)]
    pub refusal: Option<serde_json::Value>,
    /// What the key may upload, where it was too much (429).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quota: Option<Box<UploadQuota>>,
}

/// How much a key may upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadQuota {
    /// Bytes in a window.
    pub limit_bytes: u64,
    /// Used of it.
    pub used_bytes: u64,
    /// Left.
    pub left_bytes: u64,
    /// Length of the window, seconds: what is used comes back evenly.
    pub window_s: u64,
    /// When what was asked for is free, seconds from now; 0: never, it is more than the limit.
    pub free_in_s: u64,
}

/// A gate that is closed: the body of a 403.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gated {
    /// `round_not_completed`, `code_not_revealed`, `code_not_accessible`.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// State of the entry's round.
    pub round_state: Option<String>,
    /// When the round closes, or closed.
    pub round_end_at: Option<Time>,
    /// When the gate opens, if that is known.
    pub reveal_at: Option<Time>,
}

/// Health of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Newest durable block.
    pub block: u64,
    /// The host's clock.
    pub now: Time,
    /// Version of the program.
    pub version: String,
}
