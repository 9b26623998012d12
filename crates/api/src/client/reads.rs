//! What can be asked for.

use std::fmt::Write;

use bytes::Bytes;
use reqwest::Method;
use wire::Hash;

use super::{Client, ClientError};
use crate::limits;
use crate::model::{
    AdmitJudge, Board, CodePage, Competition, CompetitionPage, FilePage, Filter, GlobalBoard, Health, Inputs,
    JudgeRow, Mode, Notes, PaymentEntry, PointsAnswer, Profile, RateLimit, Receipts, RegisteredPage, Round,
    RoundInputs, RoundPage, Sort, StatementAnswer, Submission, SubmissionDetail, SubmissionPage,
    UploadAnswer, WeightsAnswer, WorkAnswer,
};

/// Which submissions.
#[derive(Clone, Debug, Default)]
pub struct SubmissionQuery {
    /// Competition: id, first digits, or name.
    pub competition: Option<String>,
    /// Part of an entrant's key.
    pub entrant: Option<String>,
    /// One round.
    pub round: Option<u32>,
    /// Which.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// First row.
    pub start: u64,
    /// Rows.
    pub count: u32,
}

/// Which competitions.
#[derive(Clone, Debug, Default)]
pub struct CompetitionQuery {
    /// Part of the name or title.
    pub name: Option<String>,
    /// `codec` or `program`.
    pub kind: Option<String>,
    /// `pending`, `active` or `completed`.
    pub state: Option<String>,
    /// Also those that are over.
    pub completed: bool,
    /// First row.
    pub start: u64,
    /// Rows.
    pub count: u32,
}

/// A part of a path or a query.
fn part(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A name that serde gives a plain variant.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn page(target: &str, start: u64, count: u32) -> String {
    let joint = if target.contains('?') { '&' } else { '?' };
    format!("{target}{joint}start_idx={start}&count={count}")
}

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $kind:ty),*) -> $answer:ty = $target:expr;)*) => {
        impl Client {
            $($(#[$doc])*
            ///
            /// # Errors
            /// The host refused or is away.
            pub async fn $name(&self, $($arg: $kind),*) -> Result<$answer, ClientError> {
                self.get(&$target).await
            })*
        }
    };
}

reads! {
    /// Health of the host.
    health() -> Health = "/healthz";
    /// One competition.
    competition(name: &str) -> Competition = format!("/v1/competitions/{}", part(name));
    /// A page of rounds.
    rounds(name: &str, start: u64, count: u32) -> RoundPage =
        page(&format!("/v1/competitions/{}/rounds", part(name)), start, count);
    /// One round: a number, `current` or `last`.
    round(name: &str, round: &str) -> Round = format!("/v1/competitions/{}/rounds/{}", part(name), part(round));
    /// The board of a round.
    round_board(name: &str, round: &str, start: u64, count: u32) -> Board =
        page(&format!("/v1/competitions/{}/rounds/{}/board", part(name), part(round)), start, count);
    /// Inputs of a round that is over.
    inputs(name: &str, round: &str, start: u64, count: u32) -> Inputs =
        page(&format!("/v1/competitions/{}/rounds/{}/inputs", part(name), part(round)), start, count);
    /// The competition's leaderboard.
    board(name: &str, start: u64, count: u32) -> Board =
        page(&format!("/v1/competitions/{}/leaderboard", part(name)), start, count);
    /// The best of each judged round.
    scores(name: &str) -> PointsAnswer = format!("/v1/competitions/{}/scores", part(name));
    /// Keys that may enter a competition by registration.
    registered(name: &str, start: u64, count: u32) -> RegisteredPage =
        page(&format!("/v1/competitions/{}/registered", part(name)), start, count);
    /// Announcements of a competition.
    competition_notes(name: &str) -> Notes = format!("/v1/competitions/{}/notes", part(name));
    /// Announcements for the whole arena.
    notes() -> Notes = "/v1/notes";
    /// One entry in detail.
    submission(id: u64, units: bool) -> SubmissionDetail = format!("/v1/submissions/{id}?units={units}");
    /// The entry under a seal.
    submission_of_seal(seal: &Hash) -> Submission = format!("/v1/seals/{seal}");
    /// Code of an entry, line by line.
    code(id: u64, start: u64, count: u32) -> CodePage = page(&format!("/v1/submissions/{id}/code"), start, count);
    /// Code by round, key of its maker and version.
    code_of_version(name: &str, round: u32, entrant: &str, version: u32) -> CodePage = format!(
        "/v1/competitions/{}/code?round={round}&entrant={}&version={version}", part(name), part(entrant));
    /// A file of an entry, line by line.
    file(id: u64, name: &str, start: u64, count: u32) -> FilePage =
        page(&format!("/v1/submissions/{id}/files/{}", part(name)), start, count);
    /// The leaderboard over all competitions.
    leaderboard(mode: Mode, start: u64, count: u32) -> GlobalBoard =
        page(&format!("/v1/leaderboard?mode={}", word(mode)), start, count);
    /// What a key did.
    profile(key: &str) -> Profile = format!("/v1/profiles/{}", part(key));
    /// How many entries a key may still make.
    rate_limit(key: &str) -> RateLimit = format!("/v1/rate-limits/{}", part(key));
    /// Payments of a key that no entry has used yet.
    receipts(key: &str) -> Receipts = format!("/v1/receipts/{}", part(key));
    /// Judges.
    judges() -> Vec<JudgeRow> = "/v1/judges";
    /// Every key's share of the arena's rewards now.
    weights() -> WeightsAnswer = "/v1/weights";
    /// Seed and inputs of a round that is judged.
    round_inputs(competition: &str, round: u32) -> RoundInputs =
        format!("/v1/judge/rounds/{}/{round}", part(competition));
}

impl Client {
    /// A page of competitions.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn competitions(&self, query: &CompetitionQuery) -> Result<CompetitionPage, ClientError> {
        let mut target = format!("/v1/competitions?show_completed={}", query.completed);
        for (key, value) in [("name", &query.name), ("kind", &query.kind), ("state", &query.state)] {
            if let Some(value) = value {
                _ = write!(target, "&{key}={}", part(value));
            }
        }
        self.get(&page(&target, query.start, query.count)).await
    }

    /// A page of submissions.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn submissions(&self, query: &SubmissionQuery) -> Result<SubmissionPage, ClientError> {
        let mut target = format!("/v1/submissions?filter={}&sort={}", word(query.filter), word(query.sort));
        if let Some(competition) = &query.competition {
            _ = write!(target, "&competition={}", part(competition));
        }
        if let Some(entrant) = &query.entrant {
            _ = write!(target, "&entrant={}", part(entrant));
        }
        if let Some(round) = query.round {
            _ = write!(target, "&round={round}");
        }
        self.get(&page(&target, query.start, query.count)).await
    }

    /// The canonical text of a competition's spec.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn spec(&self, name: &str) -> Result<String, ClientError> {
        let target = format!("/v1/competitions/{}/spec", part(name));
        let bytes = self.get_bytes(&target, limits::REQUEST_TIMEOUT, limits::ANSWER_BYTES).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A whole file of an entry.
    ///
    /// # Errors
    /// The host refused or is away, or a gate is closed.
    pub async fn raw(&self, id: u64, name: &str) -> Result<Bytes, ClientError> {
        let target = format!("/v1/submissions/{id}/raw/{}", part(name));
        self.get_bytes(&target, limits::TRANSFER_TIMEOUT, limits::JUDGE_BLOB_BYTES).await
    }

    /// A blob, checked against its hash.
    ///
    /// # Errors
    /// The host refused, is away, or gave other bytes.
    pub async fn blob(&self, hash: &Hash) -> Result<Bytes, ClientError> {
        let target = format!("/v1/blobs/{hash}");
        let bytes = self.get_bytes(&target, limits::TRANSFER_TIMEOUT, limits::JUDGE_BLOB_BYTES).await?;
        if Hash::of(&bytes) == *hash {
            return Ok(bytes);
        }
        let reason = format!("blob {} has other bytes", hash.short());
        Err(ClientError::Malformed { address: self.address().to_owned(), reason })
    }

    /// Stores a blob: what a spec names (`competition`), or a judgement's `log`.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn put_blob(&self, purpose: &str, bytes: Bytes) -> Result<UploadAnswer, ClientError> {
        self.upload(&format!("/v1/blobs?purpose={}", part(purpose)), bytes).await
    }

    /// What a judge has to do now; waits for something else to say than `mark`.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn work(&self, mark: Option<&str>, wait_s: u64) -> Result<WorkAnswer, ClientError> {
        let mark = mark.map_or(String::new(), |mark| format!("mark={}&", part(mark)));
        let timeout = limits::LONG_POLL + limits::REQUEST_TIMEOUT;
        let target = format!("/v1/judge/work?{mark}wait_s={wait_s}");
        let bytes = self.get_bytes(&target, timeout, limits::ANSWER_BYTES).await?;
        super::decode(&self.base, &bytes)
    }

    /// Admits a judge.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn admit(&self, judge: &AdmitJudge) -> Result<StatementAnswer, ClientError> {
        self.enter(Method::POST, "/v1/judges", serde_json::to_vec(judge)).await
    }

    /// Sends a judge away.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn dismiss(&self, judge: &str) -> Result<StatementAnswer, ClientError> {
        self.enter(Method::DELETE, &format!("/v1/judges/{}", part(judge)), Ok(Vec::new())).await
    }

    /// Enters a payment that arrived.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn pay(&self, payment: &PaymentEntry) -> Result<StatementAnswer, ClientError> {
        self.enter(Method::POST, "/v1/payments", serde_json::to_vec(payment)).await
    }

    async fn enter(
        &self,
        method: Method,
        target: &str,
        body: serde_json::Result<Vec<u8>>,
    ) -> Result<StatementAnswer, ClientError> {
        let body = body.unwrap_or_default();
        self.change(method, target, body.into(), limits::REQUEST_TIMEOUT).await
    }

    /// The public part of the log, as a file that can be verified.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn log(&self) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        let mut target = "/v1/log".to_owned();
        loop {
            let empty = Bytes::new();
            let answer = self.send(Method::GET, &target, empty, limits::TRANSFER_TIMEOUT).await?;
            let number = |name: &str| {
                answer.headers().get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            };
            let (next, end) = (number("x-shoal-next"), number("x-shoal-end"));
            all.extend_from_slice(&super::body(&self.base, answer, limits::ANSWER_BYTES).await?);
            match (next, end) {
                (Some(next), Some(end)) if next < end => target = format!("/v1/log?from={next}"),
                _ => return Ok(all),
            }
        }
    }
}
