//! Every route with its document. Reads take the served state for as long as the answer takes to make.

mod arena;
mod blobs;
mod competitions;
mod events;
mod files;
mod judging;
mod statements;
mod submissions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::arena::record::RoundNumber;
use ::arena::spec::CompetitionId;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::{Hash, NodeId};

use super::problem::ApiError;
use super::{App, Document, metrics};
use crate::host::shared::View;
use crate::limits;

/// Routes with their document.
pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(arena::health))
        .routes(routes!(arena::info))
        .routes(routes!(arena::leaderboard))
        .routes(routes!(arena::profile))
        .routes(routes!(arena::rate))
        .routes(routes!(arena::receipts))
        .routes(routes!(arena::notes))
        .routes(routes!(arena::judges))
        .routes(routes!(arena::weights))
        .routes(routes!(competitions::list))
        .routes(routes!(competitions::one))
        .routes(routes!(competitions::registered))
        .routes(routes!(competitions::spec))
        .routes(routes!(competitions::rounds))
        .routes(routes!(competitions::round))
        .routes(routes!(competitions::round_board))
        .routes(routes!(competitions::inputs))
        .routes(routes!(competitions::leaderboard))
        .routes(routes!(competitions::scores))
        .routes(routes!(competitions::notes))
        .routes(routes!(submissions::list, submissions::hand_in))
        .routes(routes!(submissions::one))
        .routes(routes!(files::code, files::upload_code))
        .routes(routes!(files::code_of_version))
        .routes(routes!(files::list))
        .routes(routes!(files::page))
        .routes(routes!(files::raw))
        .routes(routes!(statements::state))
        .routes(routes!(statements::batch))
        .routes(routes!(submissions::by_seal))
        .routes(routes!(statements::log))
        .routes(routes!(judging::work))
        .routes(routes!(judging::round_inputs))
        .routes(routes!(judging::admit))
        .routes(routes!(judging::dismiss))
        .routes(routes!(judging::pay))
        .routes(routes!(blobs::get))
        .routes(routes!(blobs::put))
        .routes(routes!(events::stream))
}

/// The whole service: routes, document, metrics, bounds.
pub(super) fn service(app: Arc<App>) -> Router {
    let (routes, document) = router().split_for_parts();
    let document: Arc<str> = document.to_pretty_json().expect("a document of strings and numbers").into();
    let bounds = Arc::new(Semaphore::new(limits::REQUESTS_IN_FLIGHT));
    routes
        .route(
            "/openapi.json",
            axum::routing::get(move || {
                let document = Arc::clone(&document);
                async move { ([(header::CONTENT_TYPE, "application/json")], document.to_string()) }
            }),
        )
        .route("/metrics", axum::routing::get(prometheus))
        .fallback(async || ApiError::NotFound { what: "route", name: "here: see /openapi.json".into() })
        .layer(middleware::from_fn_with_state((Arc::clone(&app), bounds), bounded))
        .with_state(app)
}

async fn prometheus(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::page(&app)).into_response()
}

fn is_stream(path: &str) -> bool {
    path.ends_with("/events") || path == "/v1/judge/work"
}

/// How long a request may be worked on. An upload has a pace of its own: whoever keeps it is not cut off.
fn longest(method: &Method, path: &str) -> Option<Duration> {
    let transfers =
        path.contains("/blobs") || path.ends_with("/code") || path.contains("/raw/") || path == "/v1/log";
    match () {
        () if is_stream(path) || (transfers && method == Method::PUT) => None,
        () if transfers => Some(limits::TRANSFER_TIMEOUT),
        () => Some(limits::REQUEST_TIMEOUT),
    }
}

/// Bounds every request in number and time, and counts it. Streams and transfers have bounds of their own.
async fn bounded(
    State((app, places)): State<(Arc<App>, Arc<Semaphore>)>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let streams = is_stream(path);
    let limit = longest(request.method(), path);
    let start = Instant::now();
    let (_place, _stream);
    if streams {
        match Arc::clone(&app.streams).try_acquire_owned() {
            Ok(place) => _stream = place,
            Err(_) => return ApiError::Busy.into_response(),
        }
    } else {
        match places.try_acquire_owned() {
            Ok(place) => _place = place,
            Err(_) => return ApiError::Busy.into_response(),
        }
    }
    let under_way = app.metrics.begin();
    let response = match limit {
        None => next.run(request).await,
        Some(limit) => match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::Busy.into_response(),
        },
    };
    drop(under_way);
    if !streams {
        app.metrics.done(response.status().as_u16(), start.elapsed());
    }
    response
}

/// A competition by id, by the first digits of its id, or by name (open ones first).
pub(super) fn find(view: &View, text: &str) -> Result<CompetitionId, ApiError> {
    if let Ok(id) = text.parse::<CompetitionId>() {
        return view
            .state
            .competition(&id)
            .map(|found| found.id)
            .ok_or_else(|| ApiError::no_competition(&id));
    }
    let all = || view.state.competitions().values();
    let named = || all().filter(|found| found.spec.name == text);
    let running = named().find(|found| found.completed_at.is_none());
    // Of several that are over the newest is meant.
    if let Some(found) = running.or_else(|| named().max_by_key(|found| found.created_at)) {
        return Ok(found.id);
    }
    let missing = || ApiError::NotFound { what: "competition", name: text.to_owned() };
    if text.len() < 6 {
        return Err(missing());
    }
    let mut alike = all().filter(|found| found.id.to_string().starts_with(text));
    match (alike.next(), alike.next()) {
        (Some(found), None) => Ok(found.id),
        (Some(_), Some(_)) => {
            Err(ApiError::BadRequest(format!("{text} names several competitions: give more digits")))
        }
        _ => Err(missing()),
    }
}

/// A round by number, or `current`, or `last` (the newest that was judged).
pub(super) fn find_round(view: &View, id: &CompetitionId, text: &str) -> Result<RoundNumber, ApiError> {
    let missing = || ApiError::NotFound { what: "round", name: text.to_owned() };
    let found = view.state.competition(id).ok_or_else(missing)?;
    match text {
        "current" => {
            let live =
                found.open_round().or_else(|| found.live.values().next_back()).map(|round| round.number);
            live.or_else(|| found.summaries.back().map(|last| last.round)).ok_or_else(missing)
        }
        "last" => found.last_judged().map(|last| last.round).ok_or_else(missing),
        _ => {
            let number = RoundNumber(text.parse().map_err(|_| missing())?);
            let known = found.live.contains_key(&number)
                || found.summaries.iter().any(|summary| summary.round == number);
            known.then_some(number).ok_or_else(missing)
        }
    }
}

/// A page's bounds.
pub(super) fn page(start: Option<u64>, count: Option<u32>) -> (u64, usize) {
    (start.unwrap_or(0), count.unwrap_or(limits::PAGE).clamp(1, limits::PAGE_MAX) as usize)
}

pub(super) fn parse_key(text: &str) -> Result<NodeId, ApiError> {
    text.parse().map_err(|error| ApiError::BadRequest(format!("{text:?}: {error}")))
}

pub(super) fn parse_hash(text: &str) -> Result<Hash, ApiError> {
    text.parse().map_err(|error| ApiError::BadRequest(format!("{text:?}: {error}")))
}

/// How long a client may wait.
pub(super) fn patience(wait_s: Option<u64>) -> Duration {
    Duration::from_secs(wait_s.unwrap_or(0)).min(limits::LONG_POLL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_not_cut_off_by_the_clock() {
        for path in ["/v1/blobs", "/v1/submissions/7/code"] {
            assert_eq!(longest(&Method::PUT, path), None);
            assert_eq!(longest(&Method::GET, path), Some(limits::TRANSFER_TIMEOUT));
        }
        assert_eq!(longest(&Method::POST, "/v1/statements"), Some(limits::REQUEST_TIMEOUT));
        assert_eq!(longest(&Method::GET, "/v1/events"), None);
    }
}
