//! Why a request fails, as a typed answer.

use arena::Refusal;
use arena::spec::CompetitionId;
use arena::state::{Gate, GateReason};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ledger::fold::Unfit;
use store::{BlobError, LogError};

use crate::model::{Gated, Problem, Time, UploadQuota};
use crate::request::RequestError;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("no {what} {name}{}", whereabouts(what))]
    NotFound { what: &'static str, name: String },
    #[error("{0}")]
    BadRequest(String),
    #[error("sign this request: {0}")]
    Unsigned(&'static str),
    #[error(transparent)]
    Signature(#[from] RequestError),
    #[error("{0}")]
    Epistula(#[from] crate::epistula::EpistulaError),
    #[error("this very request came before: sign a new one")]
    Replayed,
    #[error("only {0} may do this")]
    Forbidden(&'static str),
    #[error("{0}")]
    Gated(Gate, Option<String>),
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error(
        "item {item} of the pool is one that everybody has, a sample or an input of a round that is over: leave it out, nobody \
         may know what a round is judged on"
    )]
    KnownInput { item: String },
    #[error("{what} of {found} bytes is over the limit of {limit}")]
    TooLarge { what: &'static str, found: u64, limit: u64 },
    #[error("nothing, or too little, came of the upload in {seconds} s: send it again")]
    Stalled { seconds: u64 },
    #[error("signed before this host started: sign a new one")]
    BeforeStart,
    #[error("the host has no room for more: its owner must raise the bound or free space")]
    NoRoom,
    #[error("too many requests: come again in {0} s")]
    TooMany(u64),
    #[error("{}", quota_words(.0))]
    Quota(UploadQuota),
    #[error("the host is busy: come again")]
    Busy,
    #[error("the host's log failed: {0}")]
    Log(#[from] LogError),
    #[error("the host's blobs failed: {0}")]
    Blob(#[source] BlobError),
}

/// Where what there is can be seen.
fn whereabouts(what: &str) -> &'static str {
    match what {
        "competition" => ": `shoal arena list --all` shows those there are",
        "file" => ": `shoal arena result ID` lists those there are",
        "submission" => ": `shoal arena submissions` shows those there are",
        "round" => ": `shoal arena show COMPETITION` shows the newest; `last` is the newest that was judged",
        _ => "",
    }
}

/// What a key has left to upload, and when more.
fn quota_words(quota: &UploadQuota) -> String {
    let UploadQuota { limit_bytes, used_bytes, left_bytes, window_s, free_in_s } = quota;
    let hours = window_s / 3600;
    if *free_in_s == 0 {
        return format!(
            "over the {limit_bytes} bytes that a key may upload in {hours} h: send less, or ask the host for more"
        );
    }
    let (minutes, seconds) = (free_in_s / 60, free_in_s % 60);
    format!(
        "{used_bytes} of the {limit_bytes} bytes that a key may upload in {hours} h are used, {left_bytes} are left: try \
         again in {minutes} min {seconds} s"
    )
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Missing(hash) => Self::NotFound { what: "blob", name: hash.to_string() },
            BlobError::Mismatch { .. } => Self::Signature(RequestError::Body),
            BlobError::TooLarge { len, limit } => Self::TooLarge { what: "a blob", found: len, limit },
            BlobError::Full { .. } => Self::NoRoom,
            other => Self::Blob(other),
        }
    }
}

impl From<Unfit> for ApiError {
    fn from(unfit: Unfit) -> Self {
        Refusal::from(unfit).into()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl ApiError {
    pub(crate) fn no_competition(id: &CompetitionId) -> Self {
        Self::NotFound { what: "competition", name: id.0.short() }
    }

    pub(crate) fn no_entry(id: u64) -> Self {
        Self::NotFound { what: "submission", name: id.to_string() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unsigned(_) | Self::Signature(_) | Self::Epistula(_) | Self::Replayed => {
                StatusCode::UNAUTHORIZED
            }
            Self::Stalled { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Forbidden(_) | Self::Gated(..) => StatusCode::FORBIDDEN,
            Self::KnownInput { .. } => StatusCode::CONFLICT,
            Self::Refused(refusal) => status_of(refusal),
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            Self::TooMany(_) | Self::Quota(_) => StatusCode::TOO_MANY_REQUESTS,
            // Both pass: clients try again, and sign anew.
            Self::Busy | Self::BeforeStart => StatusCode::SERVICE_UNAVAILABLE,
            Self::Log(_) | Self::Blob(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::BadRequest(_) => "bad_request",
            Self::Unsigned(_) => "unsigned",
            Self::Signature(RequestError::Stale { .. }) => "stale",
            Self::BeforeStart => "before_start",
            Self::Stalled { .. } => "stalled",
            Self::Signature(_) | Self::Epistula(_) => "bad_signature",
            Self::Replayed => "replayed",
            Self::Forbidden(_) => "forbidden",
            Self::Gated(..) => "gated",
            Self::KnownInput { .. } => "known_input",
            Self::Refused(refusal) => match **refusal {
                Refusal::RateLimit { .. } => "rate_limited",
                Refusal::NotRegistered { .. } => "not_registered",
                Refusal::Repeated { .. } => "repeated",
                Refusal::Unfit(Unfit::Stale { .. }) => "stale",
                Refusal::Unfit(Unfit::NotNewer { .. } | Unfit::Duplicate) => "replayed",
                Refusal::Unfit(Unfit::Envelope { .. }) => "bad_signature",
                _ => "refused",
            },
            Self::TooLarge { .. } => "too_large",
            Self::NoRoom => "no_room",
            Self::TooMany(_) => "too_many",
            Self::Quota(_) => "upload_quota",
            Self::Busy => "busy",
            Self::Log(_) | Self::Blob(_) => "internal",
        }
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Unfit(Unfit::Kind { .. } | Unfit::Malformed { .. }) | Refusal::Spec { .. } => {
            StatusCode::BAD_REQUEST
        }
        Refusal::Unfit(_) => StatusCode::UNAUTHORIZED,
        Refusal::NotAllowed { .. } | Refusal::NotRegistered { .. } | Refusal::NotJudge => {
            StatusCode::FORBIDDEN
        }
        Refusal::UnknownCompetition { .. } | Refusal::UnknownEntry { .. } | Refusal::UnknownNode { .. } => {
            StatusCode::NOT_FOUND
        }
        Refusal::RateLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Fee { .. } => StatusCode::PAYMENT_REQUIRED,
        _ => StatusCode::CONFLICT,
    }
}

/// Name of a gate's reason, as the API writes it.
pub(crate) fn reason_name(reason: GateReason) -> &'static str {
    match reason {
        GateReason::RoundNotCompleted => "round_not_completed",
        GateReason::CodeNotRevealed => "code_not_revealed",
        GateReason::CodeNotAccessible => "code_not_accessible",
    }
}

impl ApiError {
    /// Status and body, but for gates.
    pub(crate) fn problem(&self) -> (StatusCode, Problem) {
        let refusal = match self {
            Self::Refused(refusal) => serde_json::to_value(refusal).ok(),
            _ => None,
        };
        let quota = if let Self::Quota(quota) = self { Some(Box::new(*quota)) } else { None };
        let body = Problem { reason: self.reason().to_owned(), message: self.to_string(), refusal, quota };
        (self.status(), body)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, message) = (self.status(), self.to_string());
        if status.is_server_error() && !matches!(self, Self::Busy | Self::BeforeStart | Self::NoRoom) {
            tracing::error!(error = %self, "a request failed");
        }
        if let Self::Gated(gate, round_state) = &self {
            let body = Gated {
                reason: reason_name(gate.reason).to_owned(),
                message,
                round_state: round_state.clone(),
                round_end_at: gate.round_end_at.map(Time),
                reveal_at: gate.reveal_at.map(Time),
            };
            return (status, Json(body)).into_response();
        }
        let retry = match &self {
            Self::TooMany(seconds) => Some(*seconds),
            Self::Quota(quota) => Some(quota.free_in_s).filter(|seconds| *seconds > 0),
            Self::Busy | Self::BeforeStart => Some(1),
            _ => None,
        };
        let mut response = (status, Json(self.problem().1)).into_response();
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
