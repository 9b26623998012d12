//! Competitions, their rounds and boards.

use std::sync::Arc;

use arena::spec::{CompetitionId, Kind, Source};
use arena::state::{Competition as Found, Status};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::super::App;
use super::super::auth::Viewer;
use super::super::params::{Path, Query};
use super::super::problem::ApiError;
use super::super::show::{self, boards, hex};
use super::{find, find_round, page};
use crate::host::shared::View;
use crate::model::{
    Board, Competition, CompetitionPage, Gated, InputFile, Inputs, Notes, Pagination, PointsAnswer, Problem,
    RegisteredPage, Round, RoundPage,
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListQuery {
    /// Part of the name or title.
    name: Option<String>,
    /// Of which kind.
    #[param(inline)]
    kind: Option<KindWord>,
    /// In which state. `completed` also shows those that are over.
    #[param(inline)]
    state: Option<StatusWord>,
    /// Also those that are over. Default: no.
    show_completed: Option<bool>,
    /// First row.
    start_idx: Option<u64>,
    /// Rows, 1 to 200.
    count: Option<u32>,
}

/// A kind of competition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KindWord {
    Codec,
    Program,
}

/// How far a competition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StatusWord {
    Pending,
    Active,
    Completed,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct PageQuery {
    /// First row.
    start_idx: Option<u64>,
    /// Rows, 1 to 200.
    count: Option<u32>,
}

fn status_word(status: Status) -> StatusWord {
    match status {
        Status::Pending => StatusWord::Pending,
        Status::Active => StatusWord::Active,
        Status::Completed => StatusWord::Completed,
    }
}

fn kind_word(kind: Kind) -> KindWord {
    match kind {
        Kind::Codec => KindWord::Codec,
        Kind::Program => KindWord::Program,
    }
}

fn found<'a>(view: &'a View, id: &CompetitionId) -> Result<&'a Found, ApiError> {
    view.state.competition(id).ok_or_else(|| ApiError::no_competition(id))
}

/// Competitions: those with the highest rewards first, then the newest; those that are over last.
#[utoipa::path(get, path = "/v1/competitions", tag = "competitions", params(ListQuery),
    responses((status = 200, body = CompetitionPage), (status = 400, body = Problem)))]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<ListQuery>,
    Viewer(viewer): Viewer,
) -> Json<CompetitionPage> {
    let at = app.now();
    let view = app.shared.view();
    let over = query.show_completed.unwrap_or(false) || query.state == Some(StatusWord::Completed);
    let needle = query.name.as_deref().map(str::to_lowercase);
    let wanted = |found: &&Found| {
        let spec = &found.spec;
        let called = |needle: &String| {
            spec.name.to_lowercase().contains(needle) || spec.title.to_lowercase().contains(needle)
        };
        (over || found.completed_at.is_none())
            && query.state.is_none_or(|state| state == status_word(found.status()))
            && query.kind.is_none_or(|kind| kind == kind_word(spec.kind))
            && needle.as_ref().is_none_or(called)
    };
    let mut all: Vec<&Found> = view.state.competitions().values().filter(wanted).collect();
    all.sort_by_key(|found| {
        let emissions =
            u64::from(found.spec.reward.weight_ppm) * u64::from(1_000_000 - found.spec.reward.base_burn_ppm);
        (found.completed_at.is_some(), std::cmp::Reverse((emissions, found.created_at)), found.id)
    });
    let (start, count) = page(query.start_idx, query.count);
    let rows =
        all.iter().skip(start as usize).take(count).map(|found| show::competition(&view, found, viewer, at));
    let rows: Vec<Competition> = rows.collect();
    let pagination = Pagination::of(start, rows.len(), all.len());
    Json(CompetitionPage { competitions: rows, pagination })
}

/// One competition, by id, by the first digits of its id, or by name.
#[utoipa::path(get, path = "/v1/competitions/{competition}", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name")),
    responses((status = 200, body = Competition), (status = 404, body = Problem)))]
pub(in super::super) async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Viewer(viewer): Viewer,
) -> Result<Json<Competition>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    Ok(Json(show::competition(&view, found(&view, &id)?, viewer, app.now())))
}

/// Keys that may enter a competition by registration, ascending; none where every key may.
#[utoipa::path(get, path = "/v1/competitions/{competition}/registered", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"), PageQuery),
    responses((status = 200, body = RegisteredPage), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(in super::super) async fn registered(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
    _viewer: Viewer,
) -> Result<Json<RegisteredPage>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    let all = &found(&view, &id)?.registered;
    let (start, count) = page(query.start_idx, query.count);
    let keys: Vec<String> = all.iter().skip(start as usize).take(count).map(hex).collect();
    let pagination = Pagination::of(start, keys.len(), all.len());
    Ok(Json(RegisteredPage { keys, pagination }))
}

/// The spec in its canonical form: its hash is the competition's id.
#[utoipa::path(get, path = "/v1/competitions/{competition}/spec", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name")),
    responses((status = 200, body = String, content_type = "application/toml"), (status = 404, body = Problem)))]
pub(in super::super) async fn spec(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    _viewer: Viewer,
) -> Result<Response, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    let text = found(&view, &id)?.spec.canonical();
    Ok(([(header::CONTENT_TYPE, "application/toml")], text).into_response())
}

/// Rounds, newest first.
#[utoipa::path(get, path = "/v1/competitions/{competition}/rounds", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"), PageQuery),
    responses((status = 200, body = RoundPage), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(in super::super) async fn rounds(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
    _viewer: Viewer,
) -> Result<Json<RoundPage>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    let (start, count) = page(query.start_idx, query.count);
    let (rounds, total) = show::rounds(&view, found(&view, &id)?, start as usize, count);
    let pagination = Pagination::of(start, rounds.len(), total);
    Ok(Json(RoundPage { rounds, pagination }))
}

/// One round: a number, `current`, or `last` (the newest that was judged).
#[utoipa::path(get, path = "/v1/competitions/{competition}/rounds/{round}", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"),
        ("round" = String, Path, description = "Number, `current` or `last`")),
    responses((status = 200, body = Round), (status = 404, body = Problem)))]
pub(in super::super) async fn round(
    State(app): State<Arc<App>>,
    Path((name, round)): Path<(String, String)>,
    _viewer: Viewer,
) -> Result<Json<Round>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    let number = find_round(&view, &id, &round)?;
    let found = found(&view, &id)?;
    if let Some(live) = found.live.get(&number) {
        return Ok(Json(show::round(live)));
    }
    let summary = found.summaries.iter().rev().find(|summary| summary.round == number);
    let summary = summary.ok_or(ApiError::NotFound { what: "round", name: round })?;
    Ok(Json(show::summary(&view, found, summary)))
}

/// The board of one round, with its Pareto board.
#[utoipa::path(get, path = "/v1/competitions/{competition}/rounds/{round}/board", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"),
        ("round" = String, Path, description = "Number, `current` or `last`"), PageQuery),
    responses((status = 200, body = Board), (status = 400, body = Problem), (status = 403, body = Gated), (status = 404, body = Problem)))]
pub(in super::super) async fn round_board(
    State(app): State<Arc<App>>,
    Path((name, round)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
    _viewer: Viewer,
) -> Result<Json<Board>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    let number = find_round(&view, &id, &round)?;
    let state_of = |()| Some(show::round_of(&view.state, &id, number).0);
    view.state.inputs_gate(&id, number).map_err(|gate| ApiError::Gated(gate, state_of(())))?;
    let summary = found(&view, &id)?.summaries.iter().rev().find(|summary| summary.round == number);
    let summary = summary.ok_or(ApiError::NotFound { what: "round", name: round })?;
    let (start, count) = page(query.start_idx, query.count);
    let rows = summary.board.iter().skip(start as usize).take(count);
    let rows: Vec<_> = rows.map(|row| boards::row(&view.state, row)).collect();
    let pagination = Pagination::of(start, rows.len(), summary.board.len());
    Ok(Json(Board { round_number: Some(number.0), rows, pareto: boards::pareto(summary), pagination }))
}

/// What a round that is over was judged on: the next development set.
#[utoipa::path(get, path = "/v1/competitions/{competition}/rounds/{round}/inputs", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"),
        ("round" = String, Path, description = "Number, `current` or `last`"), PageQuery),
    responses((status = 200, body = Inputs), (status = 400, body = Problem), (status = 403, body = Gated), (status = 404, body = Problem)))]
pub(in super::super) async fn inputs(
    State(app): State<Arc<App>>,
    Path((name, round)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
    _viewer: Viewer,
) -> Result<Json<Inputs>, ApiError> {
    let (start, count) = page(query.start_idx, query.count);
    let (mut answer, hashes) = {
        let view = app.shared.view();
        let id = find(&view, &name)?;
        let number = find_round(&view, &id, &round)?;
        let word = Some(show::round_of(&view.state, &id, number).0);
        view.state.inputs_gate(&id, number).map_err(|gate| ApiError::Gated(gate, word))?;
        let found = found(&view, &id)?;
        let summary = found.summaries.iter().rev().find(|summary| summary.round == number);
        let summary = summary.ok_or(ApiError::NotFound { what: "round", name: round })?;
        let hashes: Vec<_> = summary.items.iter().skip(start as usize).take(count).copied().collect();
        let pagination = Pagination::of(start, hashes.len(), summary.items.len());
        let pool = found.spec.inputs.source == Source::Pool;
        let answer = Inputs {
            round_number: number.0,
            source: if pool { "pool" } else { "generator" }.to_owned(),
            seed: hex(summary.seed),
            generator: found.spec.inputs.code.map(hex),
            files: Vec::new(),
            pagination,
        };
        (answer, hashes)
    };
    for (index, hash) in (start..).zip(hashes) {
        let bytes = app.blobs.size(hash).await?;
        let download_url = format!("/v1/blobs/{hash}");
        answer.files.push(InputFile { index, hash: hex(hash), bytes, download_url });
    }
    Ok(Json(answer))
}

/// The competition's leaderboard: of the newest judged round each key's best row, and the baseline's.
#[utoipa::path(get, path = "/v1/competitions/{competition}/leaderboard", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"), PageQuery),
    responses((status = 200, body = Board), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(in super::super) async fn leaderboard(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
    _viewer: Viewer,
) -> Result<Json<Board>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    let found = found(&view, &id)?;
    let (start, count) = page(query.start_idx, query.count);
    let all = found.leaderboard(&view.state);
    let at = app.now();
    let rows = all.iter().skip(start as usize).take(count);
    let rows: Vec<_> = rows.map(|row| boards::paid_row(&view, found, row, at)).collect();
    let pagination = Pagination::of(start, rows.len(), all.len());
    let last = found.last_judged();
    Ok(Json(Board {
        round_number: last.map(|last| last.round.0),
        rows,
        pareto: last.map_or_else(Vec::new, boards::pareto),
        pagination,
    }))
}

/// The best of each judged round, oldest first.
#[utoipa::path(get, path = "/v1/competitions/{competition}/scores", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name")),
    responses((status = 200, body = PointsAnswer), (status = 404, body = Problem)))]
pub(in super::super) async fn scores(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    _viewer: Viewer,
) -> Result<Json<PointsAnswer>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    Ok(Json(PointsAnswer { points: boards::points(&view.state, found(&view, &id)?) }))
}

/// Announcements of a competition, newest first.
#[utoipa::path(get, path = "/v1/competitions/{competition}/notes", tag = "competitions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name")),
    responses((status = 200, body = Notes), (status = 404, body = Problem)))]
pub(in super::super) async fn notes(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    _viewer: Viewer,
) -> Result<Json<Notes>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    Ok(Json(Notes { notes: found(&view, &id)?.notes.iter().rev().map(boards::note).collect() }))
}
