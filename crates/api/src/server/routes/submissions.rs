//! Submissions: the list, one in detail, and hand-in by those whose key is not of the arena's kind.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use arena::about::About;
use arena::record::{EntryId, RoundNumber, Statement, entry_seal};
use arena::spec::Form;
use arena::state::Entry;
use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use wire::{Hash, NodeId};

use super::super::App;
use super::super::auth::{Authored, Viewer};
use super::super::params::{Path, Query};
use super::super::problem::ApiError;
use super::super::show::{self, hex};
use super::{find, page};
use crate::host::index::CompetitionIndex;
use crate::host::shared::View;
use crate::host::{Opening, state_under, ward};
use crate::limits;
use crate::model::{
    self, Filter, Pagination, Problem, Sort, Submission, SubmissionDetail, SubmissionPage, Submitted,
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct ListQuery {
    /// Id, first digits of the id, or name of a competition. Without it: of the whole arena, newest first.
    competition: Option<String>,
    /// Part of an entrant's key.
    entrant: Option<String>,
    /// One round of the competition.
    round: Option<u32>,
    /// Which entries. Default: all.
    filter: Option<Filter>,
    /// In which order. Default: score (newest round first, best first within it).
    sort: Option<Sort>,
    /// First row.
    start_idx: Option<u64>,
    /// Rows, 1 to 200.
    count: Option<u32>,
}

/// Entries, filtered, sorted and paged. Scores show where the viewer may know them.
#[utoipa::path(get, path = "/v1/submissions", tag = "submissions", params(ListQuery),
    responses((status = 200, body = SubmissionPage), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<ListQuery>,
    Viewer(viewer): Viewer,
) -> Result<Json<SubmissionPage>, ApiError> {
    let at = app.now();
    let view = app.shared.view();
    let (start, count) = page(query.start_idx, query.count);
    let (ids, total) = select(&view, &query, viewer, start as usize, count)?;
    let entries = ids.iter().filter_map(|id| view.state.entry(*id));
    let rows: Vec<Submission> =
        entries.map(|entry| show::submission(&view.state, &view.index, entry, viewer, at)).collect();
    let pagination = Pagination::of(start, rows.len(), total);
    Ok(Json(SubmissionPage { submissions: rows, pagination }))
}

/// Ids of a page, and how many there are in all.
fn select(
    view: &View,
    query: &ListQuery,
    viewer: Option<NodeId>,
    start: usize,
    count: usize,
) -> Result<(Vec<EntryId>, usize), ApiError> {
    let sort = query.sort.unwrap_or_default();
    let keys = match (query.filter, &query.entrant) {
        (Some(Filter::Mine), _) => {
            Some(BTreeSet::from([viewer.ok_or(ApiError::Unsigned("`mine` means the signer's"))?]))
        }
        (_, Some(part)) if !part.is_empty() => Some(matching(view, part)?),
        _ => None,
    };
    let Some(name) = &query.competition else {
        if query.round.is_some() || query.filter == Some(Filter::TopScore) {
            return Err(ApiError::BadRequest("name a competition for its rounds and its leaders".into()));
        }
        let all = view.state.entries();
        return Ok(match keys {
            None => (all.iter().rev().skip(start).take(count).map(|entry| entry.id).collect(), all.len()),
            Some(keys) => gathered(view, &keys, |_| true, Sort::Time, start, count),
        });
    };
    let id = find(view, name)?;
    let empty = CompetitionIndex::default();
    let lists = view.index.competitions.get(&id).unwrap_or(&empty);
    let of_round =
        |entry: &Entry| entry.competition == id && query.round.is_none_or(|round| entry.round.0 == round);
    if query.filter == Some(Filter::TopScore) {
        let mut tops: Vec<EntryId> = lists.takeovers.iter().rev().copied().collect();
        tops.retain(|entry| {
            view.state.entry(*entry).is_some_and(|entry| {
                of_round(entry) && keys.as_ref().is_none_or(|keys| keys.contains(&entry.entrant))
            })
        });
        let total = tops.len();
        return Ok((tops.into_iter().skip(start).take(count).collect(), total));
    }
    if let Some(keys) = keys {
        let entries: usize =
            keys.iter().filter_map(|key| lists.by_entrant.get(key)).map(|count| *count as usize).sum();
        if entries <= limits::GATHER_MAX || query.round.is_some() {
            return Ok(gathered(view, &keys, of_round, sort, start, count));
        }
        let wanted =
            |entry: &&EntryId| view.state.entry(**entry).is_some_and(|entry| keys.contains(&entry.entrant));
        let ids = match sort {
            Sort::Time => lists.all.iter().rev().filter(wanted).skip(start).take(count).copied().collect(),
            Sort::Score => {
                lists.rounds.values().flatten().filter(wanted).skip(start).take(count).copied().collect()
            }
        };
        return Ok((ids, entries));
    }
    if let Some(round) = query.round {
        let none = Vec::new();
        let entries = lists.rounds.get(&Reverse(RoundNumber(round))).unwrap_or(&none);
        let mut ids = entries.clone();
        if sort == Sort::Time {
            ids.sort_unstable_by_key(|entry| Reverse(*entry));
        }
        return Ok((ids.into_iter().skip(start).take(count).collect(), entries.len()));
    }
    let ids = match sort {
        Sort::Time => lists.all.iter().rev().skip(start).take(count).copied().collect(),
        Sort::Score => paged(lists, start, count),
    };
    Ok((ids, lists.all.len()))
}

/// A page over all rounds; whole rounds are skipped by their length.
fn paged(lists: &CompetitionIndex, mut start: usize, count: usize) -> Vec<EntryId> {
    let mut ids = Vec::with_capacity(count);
    for entries in lists.rounds.values() {
        if start >= entries.len() {
            start -= entries.len();
            continue;
        }
        ids.extend(entries[start..].iter().take(count - ids.len()));
        start = 0;
        if ids.len() >= count {
            break;
        }
    }
    ids
}

/// Keys whose hexadecimal text contains a part.
fn matching(view: &View, part: &str) -> Result<BTreeSet<NodeId>, ApiError> {
    let part = part.to_ascii_lowercase();
    if part.len() > limits::NEEDLE_BYTES || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ApiError::BadRequest(
            "entrant: expected a part of a key, up to 64 hexadecimal digits".into(),
        ));
    }
    if let Ok(key) = part.parse() {
        return Ok(BTreeSet::from([key]));
    }
    let keys = view.index.leaders.keys();
    Ok(keys.filter(|key| key.to_string().contains(&part)).copied().collect())
}

/// Entries of some keys, sorted.
fn gathered(
    view: &View,
    keys: &BTreeSet<NodeId>,
    wanted: impl Fn(&Entry) -> bool,
    sort: Sort,
    start: usize,
    count: usize,
) -> (Vec<EntryId>, usize) {
    let entrants = keys.iter().filter_map(|key| view.state.entrants().get(key));
    let ids = entrants.flat_map(|entrant| entrant.entries.iter().chain(&entrant.automatic));
    let mut all: Vec<&Entry> =
        ids.filter_map(|id| view.state.entry(*id)).filter(|entry| wanted(entry)).collect();
    match sort {
        Sort::Time => all.sort_unstable_by_key(|entry| Reverse(entry.id)),
        Sort::Score => {
            all.sort_unstable_by_key(|entry| {
                (Reverse(entry.round), entry.rank.unwrap_or(u32::MAX), entry.id)
            });
        }
    }
    (all.iter().skip(start).take(count).map(|entry| entry.id).collect(), all.len())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct DetailQuery {
    /// With the measurements on each input. Default: no.
    units: Option<bool>,
}

/// One entry with all that is known of it.
#[utoipa::path(get, path = "/v1/submissions/{id}", tag = "submissions",
    params(("id" = u64, Path, description = "Id of the entry"), DetailQuery),
    responses((status = 200, body = SubmissionDetail), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(in super::super) async fn one(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Query(query): Query<DetailQuery>,
    Viewer(viewer): Viewer,
) -> Result<Json<SubmissionDetail>, ApiError> {
    Ok(Json(app.detail(id, viewer, query.units.unwrap_or(false)).await?))
}

/// The entry under a seal: how its maker learns its id.
#[utoipa::path(get, path = "/v1/seals/{seal}", tag = "submissions",
    params(("seal" = String, Path, description = "Seal, 64 hexadecimal digits")),
    responses((status = 200, body = Submission), (status = 404, body = Problem)))]
pub(in super::super) async fn by_seal(
    State(app): State<Arc<App>>,
    Path(seal): Path<String>,
    Viewer(viewer): Viewer,
) -> Result<Json<Submission>, ApiError> {
    let seal = super::parse_hash(&seal)?;
    let view = app.shared.view();
    let entry = view.state.entry_of_seal(&seal);
    let entry = entry.ok_or_else(|| ApiError::NotFound { what: "seal", name: seal.short() })?;
    Ok(Json(show::submission(&view.state, &view.index, entry, viewer, app.now())))
}

/// Code in the clear, from somebody whose key is not of the arena's kind.
#[derive(Debug, Deserialize, ToSchema)]
pub(in super::super) struct HandIn {
    /// Id, first digits of the id, or name.
    competition_id: String,
    /// Text of the code; else `raw_binary`.
    raw_code: Option<String>,
    /// Code in base64.
    raw_binary: Option<String>,
    /// `.py` (python), `.zip` (a Python program's folder, `solution.py` at its top), `.wasm` (component), anything else:
    /// native.
    file_extension: String,
    /// Entries that it builds on.
    #[serde(default)]
    parents: Vec<u64>,
    /// Payment, where one is due.
    receipt: Option<String>,
    /// What the entry is, for people.
    #[serde(default)]
    about: model::About,
}

/// Enters code signed by Epistula. The host seals it, keeps it and opens it after close: whoever does this trusts the
/// host not to read the code early and not to keep the seal shut. Keys of the arena's kind sign `Submit` themselves.
#[utoipa::path(post, path = "/v1/submissions", tag = "submissions", request_body = HandIn,
    responses((status = 200, body = Submitted), (status = 401, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem)))]
pub(in super::super) async fn hand_in(
    State(app): State<Arc<App>>,
    signed: Authored,
) -> Result<Json<Submitted>, ApiError> {
    let hotkey = signed.hotkey.ok_or_else(|| {
        ApiError::BadRequest(
            "your key can sign for itself: hand in a `Submit` statement at /v1/statements".into(),
        )
    })?;
    app.rate(signed.key)?;
    let asked: HandIn =
        serde_json::from_slice(&signed.body).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let code = code_of(&asked)?;
    let form = match asked.file_extension.trim_start_matches('.') {
        "py" | "zip" => Form::Python,
        "wasm" => Form::Component,
        _ => Form::Native,
    };
    let model::About { title, note, language, licence, link } = asked.about.clone();
    let about = About { title, note, language, licence, link };
    about.check()?;
    let competition = find(&app.shared.view(), &asked.competition_id)?;
    let receipt = asked.receipt.as_deref().map(super::parse_hash).transpose()?;
    let key = ward(&app.key, &hotkey);
    let (entrant, bytes, hash) = (key.node_id(), code.len() as u64, Hash::of(&code));
    let now = app.now().0.to_le_bytes();
    let salt = app.key.derive("epistula salt", &[&hotkey, &competition.0.0, &hash.0, &now]);
    let seal = entry_seal(&competition, &entrant, form, &hash, bytes, &salt);
    let limit =
        app.shared.view().state.competition(&competition).map_or(0, |found| found.spec.submission.bytes_max);
    if bytes > limit {
        return Err(ApiError::TooLarge { what: "the code", found: bytes, limit });
    }
    let parents = asked.parents.into_iter().map(EntryId).collect();
    let statement = Statement::Submit { competition, seal, form, parents, receipt };
    let enter = {
        let (app, key) = (Arc::clone(&app), key.clone());
        async move {
            let mut reserved = app.reserve(&app.uploads, signed.key, bytes)?;
            // The code is durable before the entry is: what was accepted can be opened.
            app.store(hash, code).await?;
            reserved.came(bytes)?;
            app.custody.keep(seal, Opening { code: hash, bytes, salt }).await?;
            if let Err(refusal) = state_under(&app, &key, &statement).await.ok_or(ApiError::Busy)? {
                app.custody.forget(&seal).await?;
                return Err(refusal.into());
            }
            Ok(())
        }
    };
    app.to_the_end(enter).await?;
    let made = app.shared.view().state.entry_of_seal(&seal).map(|entry| entry.id).ok_or(ApiError::Busy)?;
    if !about.is_empty() {
        // The entry stands; words that the host could not say for it now do not undo it.
        let described = state_under(&app, &key, &Statement::Describe { entry: made, about }).await;
        if !matches!(described, Some(Ok(_))) {
            tracing::warn!(entry = made.0, "an entry's description was not taken");
        }
    }
    let view = app.shared.view();
    let entry = view.state.entry(made).ok_or(ApiError::Busy)?;
    Ok(Json(Submitted {
        submission_id: entry.id.0,
        round_number: entry.round.0,
        round_end_at: show::round_of(&view.state, &competition, entry.round).1,
        entrant: hex(entrant),
    }))
}

fn code_of(asked: &HandIn) -> Result<Bytes, ApiError> {
    match (&asked.raw_code, &asked.raw_binary) {
        (Some(text), None) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        (None, Some(text)) => {
            let bytes = BASE64.decode(text.as_bytes());
            bytes.map(Bytes::from).map_err(|error| ApiError::BadRequest(format!("raw_binary: {error}")))
        }
        _ => Err(ApiError::BadRequest("give exactly one of raw_code and raw_binary".into())),
    }
}
