//! Boards of the whole arena, profiles, announcements, limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Pagination, Time};

/// What the arena's leaderboard is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Most rounds won.
    FirstPlaces,
    /// Highest mean of normalised scores.
    MeanScore,
    /// Highest median of normalised scores.
    MedianScore,
    /// Lowest mean of ranks.
    MeanPlace,
    /// Lowest median of ranks.
    MedianPlace,
    /// Most entries.
    TotalSubmissions,
    /// Most earned.
    #[default]
    Earnings,
}

/// A row of the arena's leaderboard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LeaderRow {
    /// From 1; equal values share a rank.
    pub rank: u32,
    /// Key.
    pub entrant: String,
    /// Rounds won.
    pub first_places: u32,
    /// Earned, in days of all the arena's rewards.
    pub earned_days: f64,
    /// Entries, without automatic ones.
    pub total_submissions: u32,
    /// Competitions entered.
    pub competitions_entered: u32,
    /// When it first entered.
    pub first_submission_at: Time,
    /// Mean of normalised scores.
    pub mean_score: Option<f64>,
    /// Lower median of normalised scores.
    pub median_score: Option<f64>,
    /// Mean of ranks.
    pub mean_place: Option<f64>,
    /// Lower median of ranks.
    pub median_place: Option<f64>,
}

/// The arena's leaderboard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GlobalBoard {
    /// What it is sorted by.
    pub mode: Mode,
    /// When it was made: at most some seconds ago.
    pub as_of: Time,
    /// Rows, best first.
    pub rows: Vec<LeaderRow>,
    /// Where they lie.
    pub pagination: Pagination,
}

/// Submissions of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivityDay {
    /// `2026-01-13`, UTC.
    pub date: String,
    /// Submissions.
    pub count: u32,
}

/// Earnings of a day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EarningDay {
    /// `2026-01-13`, UTC.
    pub date: String,
    /// Earned, in days of all the arena's rewards.
    pub earned_days: f64,
}

/// What a key did in one competition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileCompetition {
    /// Competition.
    pub competition_id: String,
    /// Its name.
    pub name: String,
    /// The key leads it.
    pub leads: bool,
    /// The key's entries there.
    pub submissions: u64,
    /// Its newest entries, newest first.
    pub newest: Vec<u64>,
}

/// What a key did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    /// Its row of the leaderboard by earnings.
    pub leader: LeaderRow,
    /// Entries that were scored in rounds that are over.
    pub scored_submissions: u32,
    /// Best normalised score.
    pub best_score: Option<f64>,
    /// Newest entry.
    pub last_submission_at: Option<Time>,
    /// Submissions per day, oldest first.
    pub activity: Vec<ActivityDay>,
    /// Earnings per day, of the newest 366 that had any, oldest first.
    pub earnings: Vec<EarningDay>,
    /// Competitions entered.
    pub competitions: Vec<ProfileCompetition>,
    /// Its rate limit now.
    pub rate_limit: RateLimit,
}

/// How many entries a key may still make, over all competitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RateLimit {
    /// Entries in a window.
    pub limit: u32,
    /// Used.
    pub used: u32,
    /// Left.
    pub left: u32,
    /// Length of the window, seconds.
    pub window_s: u64,
    /// When one more is free.
    pub next_free_at: Time,
    /// When all are free again.
    pub all_free_at: Time,
}

/// A payment that no entry has used yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptRow {
    /// Names the payment: what a submission gives as its receipt.
    pub receipt: String,
    /// How much, in the smallest unit of the currency.
    pub amount: u64,
}

/// Payments of a key that no entry has used yet. What a rejected entry was paid with is among them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipts {
    /// Rows, largest amount first.
    pub receipts: Vec<ReceiptRow>,
}

/// An announcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Announcement {
    /// When.
    pub at: Time,
    /// Key.
    pub from: String,
    /// What.
    pub text: String,
}

/// Announcements, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notes {
    /// Rows.
    pub notes: Vec<Announcement>,
}

/// A judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JudgeRow {
    /// Key.
    pub judge: String,
    /// Who runs it.
    pub operator: String,
    /// May judge.
    pub admitted: bool,
    /// Leases it ever had.
    pub leased: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Verdicts it showed.
    pub judged: u64,
    /// Of those, equal to what was settled.
    pub agreed: u64,
    /// Of those, different from what was settled.
    pub disagreed: u64,
    /// Nonces that it bound and did not open.
    pub withheld: u64,
}

/// A key's share of the arena's rewards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Weight {
    /// Key.
    pub entrant: String,
    /// Share, 10⁻⁹.
    pub weight_ppb: u64,
}

/// Weights now: they and what is burned add up to 10⁹.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WeightsAnswer {
    /// By key.
    pub weights: Vec<Weight>,
    /// What nobody gets, 10⁻⁹.
    pub burned_ppb: u64,
}
