//! Competitions, rounds and their boards.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Pagination, Time};

/// The arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArenaInfo {
    /// Name.
    pub name: String,
    /// Id of its log: signed into every envelope.
    pub run: String,
    /// Key that signs its log.
    pub host: String,
    /// Keys that may open competitions with a weight.
    pub owners: Vec<String>,
    /// Whether anybody else may open competitions.
    pub open_to_all: bool,
    /// Entries that one key may make in a window.
    pub rate_entries: u32,
    /// Length of the window, seconds.
    pub rate_window_s: u64,
    /// The host's clock.
    pub now: Time,
    /// Newest block.
    pub block: u64,
    /// Hash of the newest block.
    pub head: String,
    /// Competitions.
    pub competitions: u64,
    /// Submissions and automatic entries.
    pub entries: u64,
    /// Keys that entered.
    pub entrants: u64,
}

/// A competition (arena specs §5, CompetitionRecord).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Competition {
    /// Hash of its spec.
    pub id: String,
    /// Short name.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// What it is about.
    pub description: String,
    /// `codec` or `program`.
    pub kind: String,
    /// `pending`, `active` or `completed`.
    pub state: String,
    /// Key that opened it.
    pub opener: String,
    /// Scoring rule.
    pub rule: String,
    /// The rule as a formula.
    pub formula: String,
    /// `higher_is_better` or `lower_is_better`, of the raw score.
    pub score_direction: String,
    /// `normalized_0_1`: raw scores, and with them the score to beat, lie between 0 and 1; `raw`: anywhere.
    pub score_scale: String,
    /// Margin that a takeover needs, percent of the top raw score.
    pub takeover_percent: f64,
    /// Level of the paired test that a takeover needs, percent; 0: none.
    pub takeover_alpha_percent: f64,
    /// When its first round opens, or opened.
    pub start_at: Time,
    /// When it ended.
    pub end_at: Option<Time>,
    /// Its opener has ended it: the round that is open is the last.
    #[serde(default)]
    pub ending: bool,
    /// When it was opened.
    pub created_at: Time,
    /// When anything about it changed last: a round's step, an entry, a verdict, an announcement.
    pub updated_at: Time,
    /// Length of a round, days; one in which the clock changes is an hour shorter or longer.
    pub round_length_in_days: f64,
    /// When the next round opens.
    pub next_round_at: Option<Time>,
    /// The round that takes entries, else the newest.
    pub curr_round: Option<Round>,
    /// Raw score that takes over now; null before anything was judged.
    pub score_to_beat: Option<ToBeat>,
    /// Who leads.
    pub top: Option<TopScore>,
    /// Name of the baseline.
    pub baseline: Option<String>,
    /// Score of the baseline in the newest judged round.
    pub baseline_score: Option<f64>,
    /// Its raw score.
    pub baseline_raw_score: Option<f64>,
    /// Whether the baseline was measured in the newest judged round; null without a baseline or a judged round. Where it is
    /// false the baseline failed there, and only the champion bounds who takes over.
    pub baseline_valid: Option<bool>,
    /// Submissions, without automatic ones.
    pub total_submissions: u64,
    /// Keys that entered.
    pub active_entrants: u64,
    /// Rounds that are over, and those under way.
    pub total_rounds: u64,
    /// Submissions of the newest 30 days that had any.
    pub daily_submissions: Vec<super::ActivityDay>,
    /// Share of the arena's rewards, percent.
    pub weight_percent: f64,
    /// Share of it that is burned now, percent.
    pub burn_percent: f64,
    /// Share of it that is burned right after a takeover, percent.
    pub base_burn_percent: f64,
    /// (1 − burn) × weight, percent; 0 when it is not active.
    pub emissions_percent: f64,
    /// (1 − base burn) × weight, percent.
    pub max_emissions_percent: f64,
    /// Earned in it so far by all keys, in days of all the arena's rewards.
    pub total_earned_days: f64,
    /// Earnings of the newest 30 days that had any.
    pub daily_earnings: Vec<super::EarningDay>,
    /// Who is paid since the newest completed round, most first.
    #[serde(default)]
    pub payees: Vec<Payee>,
    /// Marks that are paid for besides, whether somebody has reached them or not.
    #[serde(default)]
    pub bounties: Vec<Bounty>,
    /// Price of an entry, in the smallest unit of its currency.
    pub fee: u64,
    /// Currency of the price.
    pub fee_currency: String,
    /// Where it is paid; empty where the spec does not say.
    #[serde(default)]
    pub pay_to: String,
    /// Largest code, bytes.
    pub bytes_max: u64,
    /// Forms of entries.
    pub forms: Vec<String>,
    /// Inputs of a round.
    pub items: u32,
    /// Only registered keys may enter.
    #[serde(default)]
    pub by_registration: bool,
    /// Keys that are registered.
    #[serde(default)]
    pub registered: u64,
    /// Whether the key that signed the request may enter, as far as registration goes; null where nobody signed it.
    #[serde(default)]
    pub may_enter: Option<bool>,
    /// What an entry may use while it runs.
    pub limits: Limits,
    /// Command that prepares a program before it starts, word by word; empty: none.
    #[serde(default)]
    pub prepare: Vec<String>,
    /// When code is shown after a round, seconds.
    pub code_delay_s: u64,
    /// Page to read.
    pub doc_url: String,
    /// Picture.
    pub image_url: String,
    /// Who pays.
    pub sponsor: String,
    /// The sponsor's page.
    pub sponsor_url: String,
    /// Blob with the manifest of the development set.
    pub samples: Option<String>,
    /// Blob with a template to start from.
    pub template: Option<String>,
    /// Newest announcement.
    pub note: Option<super::Announcement>,
}

/// A key that is paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Payee {
    /// Key, 64 hexadecimal digits.
    pub entrant: String,
    /// Share of what is not burned, percent.
    pub share_percent: f64,
    /// How far its takeovers have raised the bar in all, percent of the better score.
    pub raised_percent: f64,
}

/// A share for the first champion whose raw score reaches a mark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bounty {
    /// The mark.
    pub raw_score: f64,
    /// Share of what is not burned, percent.
    pub share_percent: f64,
    /// Completed rounds that it is paid for.
    pub rounds: u32,
    /// Key that reached it.
    pub entrant: Option<String>,
    /// Completed rounds that it is still paid for; 0 before somebody reaches it, and once it is paid in full.
    pub rounds_left: u32,
}

/// What an entry may use while it runs: the same at every judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Fuel of one call, of components.
    pub fuel: u64,
    /// Time of one call, seconds.
    pub call_s: u64,
    /// Time until a program is ready, seconds.
    pub startup_s: u64,
    /// Processors, 10⁻³, of programs.
    pub cpu_milli: u32,
    /// Processes and threads, of programs.
    pub processes: u32,
    /// Disk, bytes, of programs.
    pub disk_bytes: u64,
}

/// What takes over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToBeat {
    /// Raw score.
    pub raw_score: f64,
    /// Round on whose inputs it was measured.
    pub round_number: u32,
    /// Measured on an earlier round's inputs: the incumbent is judged again on those to come.
    pub provisional: bool,
}

/// Who leads a competition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopScore {
    /// Entry as it was first made.
    pub submission_id: u64,
    /// Its maker.
    pub entrant: String,
    /// Normalised score of the newest round in which it was judged.
    pub score: f64,
    /// Raw score.
    pub raw_score: f64,
    /// Round in which it took the lead.
    pub round_number: u32,
    /// When: the burn decays from here.
    pub since: Time,
    /// Hash of its code.
    pub code: String,
}

/// A round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Round {
    /// Number, from 0.
    pub round_number: u32,
    /// `open`, `pooling`, `opening`, `drawing`, `evaluating`, `completed`, `void`.
    pub state: String,
    /// When it opened.
    pub start_at: Time,
    /// When it closes, or closed.
    pub end_at: Time,
    /// When its present step ends at the latest.
    pub until: Option<Time>,
    /// When it was completed.
    pub completed_at: Option<Time>,
    /// Entries.
    pub entries: u64,
    /// Entries settled by judges.
    pub judged: u64,
    /// Entries to be judged.
    pub to_judge: u64,
    /// Why it was not judged.
    pub void: Option<String>,
    /// Its seed, once it is over.
    pub seed: Option<String>,
    /// Entry that took the lead.
    pub takeover: Option<u64>,
    /// Who led at its end.
    pub champion: Option<u64>,
    /// Raw score that the next round has to beat.
    pub score_to_beat: Option<f64>,
}

/// A page of competitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompetitionPage {
    /// Rows.
    pub competitions: Vec<Competition>,
    /// Where they lie.
    pub pagination: Pagination,
}

/// A page of the keys that a competition by registration lets enter, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredPage {
    /// Keys.
    pub keys: Vec<String>,
    /// Where they lie.
    pub pagination: Pagination,
}

/// A page of rounds, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RoundPage {
    /// Rows.
    pub rounds: Vec<Round>,
    /// Where they lie.
    pub pagination: Pagination,
}

/// A row of a board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BoardEntry {
    /// From 1.
    pub rank: u32,
    /// Entry.
    pub submission_id: u64,
    /// Its maker.
    pub entrant: String,
    /// The maker's counter; 0: automatic.
    pub version: u32,
    /// Role in its round.
    pub role: super::EntryRole,
    /// What its maker calls it; empty if it says nothing.
    #[serde(default)]
    pub title: String,
    /// Normalised score.
    pub score: f64,
    /// Raw score.
    pub raw_score: f64,
    /// Original ÷ compressed size, of codecs.
    pub compression_ratio: Option<f64>,
    /// Mean similarity, of codecs.
    pub similarity: Option<f64>,
    /// Mean time of one input, seconds, of codecs.
    pub task_time_s: Option<f64>,
    /// Original bytes per second of compress plus decompress.
    pub bytes_per_s: u64,
    /// Entry of another key that gave the very same outputs before.
    pub echo_of: Option<u64>,
    /// When it was made.
    pub submitted_at: Time,
    /// What its key would earn in the next 24 hours if nothing changed, percent of all that the arena pays in them: burn and
    /// decay applied. On a competition's leaderboard only.
    #[serde(default)]
    pub daily_percent: Option<f64>,
    /// Entries that its key made in the competition, without automatic ones. On a competition's leaderboard only.
    #[serde(default)]
    pub submissions_count: Option<u64>,
    /// When its key first entered the competition. On a competition's leaderboard only.
    #[serde(default)]
    pub join_date: Option<Time>,
}

/// An entry that no other beats in ratio, speed and fidelity at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pareto {
    /// Entry.
    pub submission_id: u64,
    /// Its maker.
    pub entrant: String,
    /// Original ÷ compressed size.
    pub compression_ratio: f64,
    /// Original bytes per second of compress plus decompress.
    pub bytes_per_s: u64,
    /// Mean similarity.
    pub similarity: f64,
}

/// A board: of a round, or of a competition (each key's best row of the newest judged round).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Board {
    /// Round that was judged.
    pub round_number: Option<u32>,
    /// Rows, best first.
    pub rows: Vec<BoardEntry>,
    /// The Pareto board of the round, highest ratio first.
    pub pareto: Vec<Pareto>,
    /// Where the rows lie.
    pub pagination: Pagination,
}

/// The best of one completed round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScorePointRow {
    /// When the round was completed.
    pub date: Time,
    /// Round.
    pub round_number: u32,
    /// Entry.
    pub submission_id: u64,
    /// Its maker.
    pub entrant: String,
    /// The maker's counter; 0: automatic.
    #[serde(default)]
    pub version: u32,
    /// Normalised score.
    pub score: f64,
    /// Raw score.
    pub raw_score: f64,
}

/// Top scores over time, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PointsAnswer {
    /// Points.
    pub points: Vec<ScorePointRow>,
}

/// An input of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputFile {
    /// Position in the round.
    pub index: u64,
    /// Hash of its bytes.
    pub hash: String,
    /// Size, bytes; null if the host has not got it.
    pub bytes: Option<u64>,
    /// Where to get it.
    pub download_url: String,
}

/// Inputs of a round that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inputs {
    /// Round.
    pub round_number: u32,
    /// `generator` or `pool`.
    pub source: String,
    /// Seed of the round: a generator makes the inputs from it.
    pub seed: String,
    /// Blob with the generator (or the evaluator of a program).
    pub generator: Option<String>,
    /// Drawn inputs; none where a generator makes them.
    pub files: Vec<InputFile>,
    /// Where they lie.
    pub pagination: Pagination,
}
