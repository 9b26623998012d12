//! The arena as a whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::App;
use super::super::auth::Viewer;
use super::super::params::{Path, Query};
use super::super::problem::ApiError;
use super::super::show::{boards, hex};
use super::{page, parse_key};
use crate::model::{
    ArenaInfo, GlobalBoard, Health, JudgeRow, Mode, Notes, Pagination, Problem, Profile, RateLimit,
    ReceiptRow, Receipts, Time, Weight, WeightsAnswer,
};

/// Whether the host works.
#[utoipa::path(get, path = "/healthz", tag = "arena", responses((status = 200, body = Health)))]
pub(in super::super) async fn health(State(app): State<Arc<App>>, _viewer: Viewer) -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        block: app.shared.head().map_or(0, |head| head.seq.0),
        now: Time(app.now()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The arena: its id, its host, its limits.
#[utoipa::path(get, path = "/v1/arena", tag = "arena", responses((status = 200, body = ArenaInfo)))]
pub(in super::super) async fn info(State(app): State<Arc<App>>, _viewer: Viewer) -> Json<ArenaInfo> {
    let (now, head) = (app.now(), app.shared.head());
    let view = app.shared.view();
    let (state, spec) = (&view.state, view.state.spec());
    Json(ArenaInfo {
        name: spec.name.clone(),
        run: hex(state.run()),
        host: hex(state.host()),
        owners: spec.owners.iter().map(|key| hex(key.0)).collect(),
        open_to_all: spec.open_to_all,
        rate_entries: spec.rate_entries,
        rate_window_s: spec.rate_window_s,
        now: Time(now),
        block: head.map_or(0, |head| head.seq.0),
        head: head.map_or(String::new(), |head| hex(head.hash)),
        competitions: state.competitions().len() as u64,
        entries: state.entries().len() as u64,
        entrants: state.entrants().len() as u64,
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct BoardQuery {
    /// What it is sorted by. Default: earnings.
    mode: Option<Mode>,
    /// First row.
    start_idx: Option<u64>,
    /// Rows, 1 to 200.
    count: Option<u32>,
}

/// The leaderboard over all competitions.
#[utoipa::path(get, path = "/v1/leaderboard", tag = "arena", params(BoardQuery),
    responses((status = 200, body = GlobalBoard), (status = 400, body = Problem)))]
pub(in super::super) async fn leaderboard(
    State(app): State<Arc<App>>,
    Query(query): Query<BoardQuery>,
    _viewer: Viewer,
) -> Json<GlobalBoard> {
    let mode = query.mode.unwrap_or_default();
    let (at, rows) = app.leaderboard(boards::mode(mode));
    let (start, count) = page(query.start_idx, query.count);
    let shown: Vec<_> = rows.iter().skip(start as usize).take(count).map(boards::leader).collect();
    let pagination = Pagination::of(start, shown.len(), rows.len());
    Json(GlobalBoard { mode, as_of: Time(at), rows: shown, pagination })
}

/// What a key did, and how many entries it has left.
#[utoipa::path(get, path = "/v1/profiles/{key}", tag = "arena",
    params(("key" = String, Path, description = "Key, 64 hexadecimal digits")),
    responses((status = 200, body = Profile), (status = 404, body = Problem)))]
pub(in super::super) async fn profile(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    _viewer: Viewer,
) -> Result<Json<Profile>, ApiError> {
    let key = parse_key(&key)?;
    let (_, rows) = app.leaderboard(arena::state::LeaderMode::Earnings);
    let at = app.now();
    let view = app.shared.view();
    let ranked = rows.iter().find(|row| row.entrant == key).cloned();
    // Whoever entered just now is not on the board yet.
    let leader = ranked.or_else(|| view.state.leader(key, view.state.earned(key, at)));
    let found = leader.and_then(|leader| view.state.profile_of(leader, at));
    let found = found.ok_or_else(|| ApiError::NotFound { what: "entrant", name: key.short() })?;
    Ok(Json(boards::profile(&view.state, key, &found, at)))
}

/// How many entries a key may still make, and when.
#[utoipa::path(get, path = "/v1/rate-limits/{key}", tag = "arena",
    params(("key" = String, Path, description = "Key, 64 hexadecimal digits")),
    responses((status = 200, body = RateLimit), (status = 400, body = Problem)))]
pub(in super::super) async fn rate(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    _viewer: Viewer,
) -> Result<Json<RateLimit>, ApiError> {
    let key = parse_key(&key)?;
    Ok(Json(boards::rate(&app.shared.view().state.rate_status(key, app.now()))))
}

/// Payments of a key that no entry has used yet: a lost receipt is found here.
#[utoipa::path(get, path = "/v1/receipts/{key}", tag = "arena",
    params(("key" = String, Path, description = "Key, 64 hexadecimal digits")),
    responses((status = 200, body = Receipts), (status = 400, body = Problem)))]
pub(in super::super) async fn receipts(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    _viewer: Viewer,
) -> Result<Json<Receipts>, ApiError> {
    let key = parse_key(&key)?;
    let view = app.shared.view();
    let unused = view.state.unused_receipts(key);
    let mut receipts: Vec<ReceiptRow> =
        unused.map(|(receipt, paid)| ReceiptRow { receipt: hex(receipt), amount: paid.amount }).collect();
    receipts.sort_by(|a, b| b.amount.cmp(&a.amount).then_with(|| a.receipt.cmp(&b.receipt)));
    Ok(Json(Receipts { receipts }))
}

/// Announcements for the whole arena, newest first.
#[utoipa::path(get, path = "/v1/notes", tag = "arena", responses((status = 200, body = Notes)))]
pub(in super::super) async fn notes(State(app): State<Arc<App>>, _viewer: Viewer) -> Json<Notes> {
    Json(Notes { notes: app.shared.view().state.notes().iter().rev().map(boards::note).collect() })
}

/// Judges, and how often they agreed.
#[utoipa::path(get, path = "/v1/judges", tag = "judging", responses((status = 200, body = Vec<JudgeRow>)))]
pub(in super::super) async fn judges(State(app): State<Arc<App>>, _viewer: Viewer) -> Json<Vec<JudgeRow>> {
    Json(app.shared.view().state.judges().iter().map(|(key, judge)| boards::judge(key, judge)).collect())
}

/// Every key's share of the arena's rewards now.
#[utoipa::path(get, path = "/v1/weights", tag = "arena", responses((status = 200, body = WeightsAnswer)))]
pub(in super::super) async fn weights(State(app): State<Arc<App>>, _viewer: Viewer) -> Json<WeightsAnswer> {
    let weights = app.shared.view().state.weights(app.now());
    let rows = weights.keys.iter().map(|(key, weight)| Weight { entrant: hex(key), weight_ppb: *weight });
    Json(WeightsAnswer { weights: rows.collect(), burned_ppb: weights.burned })
}
