//! Submissions, their details and their files.

use arena::state::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MachineView, Pagination, Time, UsageView};

/// What an entry is in its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryRole {
    /// Made for the round.
    Challenger,
    /// The champion, judged again.
    Incumbent,
    /// What everybody must beat.
    Baseline,
}

impl From<Role> for EntryRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Challenger => Self::Challenger,
            Role::Incumbent => Self::Incumbent,
            Role::Baseline => Self::Baseline,
        }
    }
}

/// Which entries are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// Those of the key that signed the request.
    Mine,
    /// Those that took the lead.
    TopScore,
}

/// In which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Newest round first, best first within it. Rounds under way stand in the order of entry.
    #[default]
    Score,
    /// Newest first.
    Time,
}

/// What the maker of an entry says of it. What is not said is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct About {
    /// One line, at most 128 bytes.
    pub title: String,
    /// Some lines, at most 2,048 bytes.
    pub note: String,
    /// What it is written in, at most 128 bytes.
    pub language: String,
    /// Under which terms others may use it, at most 128 bytes.
    pub licence: String,
    /// Address of a page, at most 512 bytes.
    pub link: String,
}

impl About {
    /// What is said, with its label for people; a note may have several lines.
    pub fn said(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { title, note, language, licence, link } = self;
        let all = [
            ("title", title),
            ("written in", language),
            ("licence", licence),
            ("page", link),
            ("note", note),
        ];
        all.into_iter().map(|(label, text)| (label, text.as_str())).filter(|(_, text)| !text.is_empty())
    }
}

/// An entry (arena specs §5, SubmissionRecord).
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Submission {
    /// Id.
    pub id: u64,
    /// Competition.
    pub competition_id: String,
    /// Its name.
    pub competition: String,
    /// Round.
    pub round_number: u32,
    /// `pending`, `queued`, `evaluating`, `scored`, `failed`, `rejected`, `replaced`, `unopened`, `copy`, `disputed`,
    /// `stale`. What judges found shows as `evaluating` until the gate opens.
    pub state: String,
    /// Maker.
    pub entrant: String,
    /// The maker's counter; 0: automatic.
    pub version: u32,
    /// Role in its round.
    pub role: EntryRole,
    /// `component`, `python` or `native`.
    pub form: String,
    /// What its maker calls it; empty if it says nothing.
    #[serde(default)]
    pub title: String,
    /// When it was made.
    pub submitted_at: Time,
    /// When judges settled it.
    pub eval_at: Option<Time>,
    /// From the first judge's lease until judges settled it, seconds; how long it ran itself is in its judgements.
    #[serde(default)]
    pub eval_time_in_seconds: Option<f64>,
    /// Normalised score.
    pub score: Option<f64>,
    /// Raw score.
    pub raw_score: Option<f64>,
    /// Rank in its round.
    pub rank: Option<u32>,
    /// It leads the competition.
    pub top_score: bool,
    /// It took the lead in its round.
    pub takeover: bool,
    /// Why it failed.
    pub eval_error: Option<String>,
    /// Original ÷ compressed size, of codecs.
    pub compression_ratio: Option<f64>,
    /// Mean similarity, of codecs.
    pub similarity: Option<f64>,
    /// Mean time of one input, seconds, of codecs.
    pub task_time_s: Option<f64>,
    /// Results are shown to whoever asked.
    pub revealed: bool,
    /// Code is shown to whoever asked.
    pub code_revealed: bool,
    /// When the code is shown to everybody, if that is known.
    pub reveal_at: Option<Time>,
}

/// A page of submissions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmissionPage {
    /// Rows.
    pub submissions: Vec<Submission>,
    /// Where they lie.
    pub pagination: Pagination,
}

/// One number of a judgement (arena specs §5, EvalMetric).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metric {
    /// Name for programs.
    pub key: String,
    /// Name for people.
    pub label: String,
    /// Value.
    pub value: f64,
    /// Unit; empty for plain numbers.
    pub unit: String,
    /// How to write it: `score`, `number`, `count` or `duration_s`.
    pub format: String,
    /// `higher_is_better`, `lower_is_better` or `neutral`.
    pub direction: String,
    /// The baseline's value in the same round.
    pub baseline_value: Option<f64>,
}

/// Measurements on one input (arena specs §5, EvalUnit).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Unit {
    /// Name among the units of a judgement.
    #[serde(default)]
    pub id: String,
    /// What it is: `instance`, an input of the round.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Position in the round.
    pub index: u32,
    /// Hash of the input; null before the round is over, and where a generator makes the inputs.
    #[serde(default)]
    pub label: Option<String>,
    /// `exact` or `lossy` of codecs, `answered` of programs; `failed`: below the rule's floor, or without an answer.
    #[serde(default)]
    pub outcome: String,
    /// Bytes of the input, of codecs.
    pub original_bytes: Option<u64>,
    /// Bytes of the compressed form, of codecs.
    pub compressed_bytes: Option<u64>,
    /// Similarity, of codecs.
    pub similarity: Option<f64>,
    /// Every bit came back, of codecs.
    pub exact: Option<bool>,
    /// What the evaluator measured, of programs.
    pub objective: Option<f64>,
    /// Fuel.
    pub fuel: u64,
}

/// What one judge found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JudgementView {
    /// Judge.
    pub judge: String,
    /// Who runs it.
    pub operator: String,
    /// Lease.
    pub lease: u64,
    /// Why there are no measurements.
    pub failure: Option<Failed>,
    /// Mean time of one input by the judge's clock, seconds.
    pub wall_task_time_s: Option<f64>,
    /// Time over the baseline's, lower bound, measured in pairs.
    pub over_baseline: Option<f64>,
    /// Hash over the inputs.
    pub inputs: Option<String>,
    /// Hash over what the entry gave back.
    pub outputs: Option<String>,
    /// Blob with the log.
    pub log: String,
    /// What the competition's evaluator measured there besides the objective. Judges need not agree on it.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// What the entry took there.
    #[serde(default)]
    pub usage: UsageView,
    /// Where that was.
    #[serde(default)]
    pub machine: MachineView,
    /// One per input.
    pub units: Vec<Unit>,
}

/// Why an entry has no measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failed {
    /// One word.
    pub kind: String,
    /// For people.
    pub message: String,
    /// Where screening rejected it: why, with file and line where there are any. Otherwise empty: the log says more.
    #[serde(default)]
    pub reason: String,
}

impl Failed {
    /// All of it in one line.
    pub fn words(&self) -> String {
        if self.reason.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.message, self.reason)
        }
    }
}

/// An entry with all that is known (arena specs §5, SubmissionDetail).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmissionDetail {
    /// The row of the list.
    #[serde(flatten)]
    pub submission: Submission,
    /// What its maker says of it.
    #[serde(default)]
    pub about: Option<About>,
    /// Seal under which it was entered.
    pub seal: String,
    /// Hash of its code, once opened.
    pub code_hash: Option<String>,
    /// Size of its code, bytes.
    pub code_bytes: Option<u64>,
    /// The entry whose code this is, for automatic ones.
    pub origin: Option<u64>,
    /// Entries that it builds on.
    pub parents: Vec<u64>,
    /// Itself, its parents, their parents, nearest first.
    pub lineage: Vec<u64>,
    /// Entry of another key with the very same outputs.
    pub echo_of: Option<u64>,
    /// Entry of another key with the very same code.
    pub copy_of: Option<u64>,
    /// State of its round.
    pub round_state: String,
    /// When its round closes, or closed.
    pub round_end_at: Option<Time>,
    /// Version of the metrics' layout.
    pub schema_version: u32,
    /// The entry's numbers, those of the competition's own evaluator last; empty while they are hidden.
    pub summary: Vec<Metric>,
    /// What can be drawn from these numbers: `baseline_comparison`, `score_distribution` and `outcome_breakdown` (ask with
    /// `units=true`), `runtime_breakdown`.
    pub capabilities: Vec<String>,
    /// What each judge found; empty while it is hidden.
    pub judgements: Vec<JudgementView>,
    /// Its seal is in the host's keeping.
    pub entrusted: bool,
    /// Files that can be read.
    pub files: Vec<FileRow>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// The metrics, as JSON.
    Metadata,
    /// The code.
    Code,
    /// The log of a judgement.
    Log,
}

/// A file of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileRow {
    /// What it is.
    pub kind: FileKind,
    /// Name, to ask for it.
    pub name: String,
    /// Size, bytes, if the host has it.
    pub bytes: Option<u64>,
    /// It is shown to whoever asked.
    pub revealed: bool,
}

/// Files of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// Rows.
    pub files: Vec<FileRow>,
}

/// Where the lines of a page lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lines {
    /// First line, from 0.
    pub start_idx: u64,
    /// One past the last line.
    pub end_idx: u64,
    /// Lines in all.
    pub lines: u64,
    /// Where the next page begins.
    pub next_start_idx: Option<u64>,
}

/// A page of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FilePage {
    /// File.
    pub name: String,
    /// Lines; empty for a binary file.
    pub data: String,
    /// Not text: use `download_url`.
    pub is_binary: bool,
    /// Where to get the whole file.
    pub download_url: String,
    /// Where the lines lie.
    pub pagination: Lines,
}

/// A page of an entry's code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodePage {
    /// Whose code it is.
    pub submission_id: u64,
    /// The maker's counter.
    pub version: u32,
    /// `component`, `python` or `native`.
    pub form: String,
    /// When it was entered.
    pub submit_at: Time,
    /// The page.
    #[serde(flatten)]
    pub page: FilePage,
}

/// An accepted entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Its id.
    pub submission_id: u64,
    /// Round.
    pub round_number: u32,
    /// When the round closes.
    pub round_end_at: Option<Time>,
    /// Key under which it stands in the log.
    pub entrant: String,
}
