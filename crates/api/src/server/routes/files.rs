//! Files of an entry: its code, its metrics, the logs of its judgements; line by line, or whole.

use std::sync::Arc;

use arena::measure::Verdict;
use arena::record::{EntryId, Record, Statement, Step, entry_seal};
use arena::spec::Form;
use arena::state::{Artefact, Entry, EntryState, Role};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;
use wire::{Hash, NodeId};

use super::super::App;
use super::super::auth::{Upload, Viewer};
use super::super::params::{Path, Query};
use super::super::problem::ApiError;
use super::super::show::detail::{METADATA, Shown, Verdicts, baseline, code_name, detail, log_name};
use super::super::show::round_of;
use super::{blobs, find, parse_hash, parse_key};
use crate::host::Opening;
use crate::host::shared::{View, decode_one};
use crate::limits;
use crate::model::{
    CodePage, FileKind, FileList, FilePage, Gated, Lines, Problem, SubmissionDetail, Time, UploadAnswer,
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct LinesQuery {
    /// First line, from 0; with `reverse` counted from the end.
    start_idx: Option<u64>,
    /// Lines, 1 to 5000.
    count: Option<u32>,
    /// Pages from the end backwards; lines stay in their order.
    reverse: Option<bool>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct SealQuery {
    /// What the seal hid the code behind: 64 hexadecimal digits.
    salt: String,
}

impl App {
    /// What the log says that judges showed of an entry.
    async fn shown(&self, id: EntryId) -> Result<Vec<Shown>, ApiError> {
        let places = self.shared.view().index.verdicts.get(&id).cloned().unwrap_or_default();
        let mut all = Vec::with_capacity(places.len());
        for place in places {
            let blocks = self.verdicts.read(place.seq, 1).await?;
            let Some(block) = blocks.first() else { continue };
            // Only this record: a block may hold hundreds of verdicts of others.
            if let Some(Record::Stated(envelope)) = decode_one(block, place.index)?
                && let Ok(Statement::Show { lease, verdict, .. }) = wire::from_bytes(&envelope.body)
            {
                all.push(Shown { judge: envelope.sender, lease: lease.0, verdict });
            }
        }
        Ok(all)
    }

    /// An entry in detail, with the sizes of its files.
    pub(super) async fn detail(
        &self,
        id: u64,
        viewer: Option<NodeId>,
        units: bool,
    ) -> Result<SubmissionDetail, ApiError> {
        let base = {
            let view = self.shared.view();
            let entry = view.state.entry(EntryId(id)).ok_or_else(|| ApiError::no_entry(id))?;
            baseline(&view.index, entry).filter(|_| entry.scoring().is_some())
        };
        let verdicts = Verdicts {
            entry: self.shown(EntryId(id)).await?,
            baseline: match base {
                Some(base) => self.shown(base).await?,
                None => Vec::new(),
            },
        };
        let mut answer = {
            let at = self.now();
            let view = self.shared.view();
            let entry = view.state.entry(EntryId(id)).ok_or_else(|| ApiError::no_entry(id))?;
            let mut answer = detail(&view, entry, &verdicts, viewer, at, units);
            answer.entrusted = self.custody.has(&entry.seal);
            answer
        };
        for file in answer.files.iter_mut().filter(|file| file.revealed) {
            file.bytes = match file.kind {
                FileKind::Code => answer.code_bytes,
                FileKind::Log => {
                    let log = verdicts.entry.iter().find(|shown| log_name(shown.lease) == file.name);
                    match log {
                        Some(shown) => self.blobs.size(shown.verdict.log).await?,
                        None => None,
                    }
                }
                FileKind::Metadata => None,
            };
        }
        Ok(answer)
    }

    /// The code of an entry, if the viewer may see it; a judge may while it holds a lease on it.
    fn code_of(&self, view: &View, id: u64, viewer: Option<NodeId>) -> Result<(Entry, Hash), ApiError> {
        let state = &view.state;
        let entry = state.entry(EntryId(id)).ok_or_else(|| ApiError::no_entry(id))?;
        let leased =
            viewer.is_some_and(|judge| state.leases_of(judge).any(|(_, lease)| lease.entry == entry.id));
        if !leased {
            let gate = view.index.code_gate(state, entry, viewer, self.now());
            let word = round_of(state, &entry.competition, entry.round).0;
            gate.map_err(|gate| ApiError::Gated(gate, Some(word)))?;
        }
        let missing = || ApiError::NotFound { what: "opened code of submission", name: id.to_string() };
        let code = entry.code.ok_or_else(missing)?;
        // Whoever seals the hash of what rounds are still drawn from does not get it as its own code.
        if !leased && view.index.keeps(&code.hash) {
            return Err(missing());
        }
        Ok((entry.clone(), code.hash))
    }

    /// Bytes of a file, if the viewer may see it.
    async fn file(&self, id: u64, name: &str, viewer: Option<NodeId>) -> Result<Bytes, ApiError> {
        let missing = || ApiError::NotFound { what: "file", name: name.to_owned() };
        if name == METADATA {
            let detail = self.detail(id, viewer, true).await?;
            if !detail.submission.revealed {
                self.result_gate(id, viewer)?;
            }
            let text = serde_json::to_string_pretty(&detail).unwrap_or_default();
            return Ok(text.into());
        }
        let is_code = {
            let view = self.shared.view();
            let entry = view.state.entry(EntryId(id)).ok_or_else(|| ApiError::no_entry(id))?;
            code_name(entry.form) == name
        };
        if is_code {
            let (entry, hash) = self.code_of(&self.shared.view(), id, viewer)?;
            let bytes = entry.code.map_or(0, |code| code.bytes);
            if bytes > limits::ANSWER_BYTES {
                let limit = limits::ANSWER_BYTES;
                return Err(ApiError::TooLarge {
                    what: "the code, for a page: get the raw file;",
                    found: bytes,
                    limit,
                });
            }
            return Ok(self.blobs.get(hash).await?);
        }
        self.result_gate(id, viewer)?;
        let shown = self.shown(EntryId(id)).await?;
        let found = shown.iter().find(|shown| log_name(shown.lease) == name).ok_or_else(missing)?;
        let Verdict { log, .. } = &found.verdict;
        Ok(self.blobs.get(*log).await?)
    }

    async fn code_page(
        &self,
        id: u64,
        viewer: Option<NodeId>,
        query: &LinesQuery,
    ) -> Result<CodePage, ApiError> {
        let (entry, _) = self.code_of(&self.shared.view(), id, viewer)?;
        let name = code_name(entry.form);
        let bytes = self.file(id, name, viewer).await?;
        let page = lines(id, name, &bytes, query);
        Ok(CodePage {
            submission_id: id,
            version: entry.version,
            form: entry.form.name().to_owned(),
            submit_at: Time(entry.submitted_at),
            page,
        })
    }

    fn result_gate(&self, id: u64, viewer: Option<NodeId>) -> Result<(), ApiError> {
        let view = self.shared.view();
        let entry = view.state.entry(EntryId(id)).ok_or_else(|| ApiError::no_entry(id))?;
        let gate = view.state.gate(entry.id, Artefact::Log, viewer, self.now());
        let word = round_of(&view.state, &entry.competition, entry.round).0;
        gate.map_err(|gate| ApiError::Gated(gate, Some(word)))
    }
}

/// Code of an entry, line by line. Its maker sees it at once, everybody else when the gate opens.
#[utoipa::path(get, path = "/v1/submissions/{id}/code", tag = "submissions",
    params(("id" = u64, Path, description = "Id of the entry"), LinesQuery),
    responses((status = 200, body = CodePage), (status = 400, body = Problem), (status = 403, body = Gated), (status = 404, body = Problem)))]
pub(in super::super) async fn code(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Query(query): Query<LinesQuery>,
    Viewer(viewer): Viewer,
) -> Result<Json<CodePage>, ApiError> {
    app.code_page(id, viewer, &query).await.map(Json)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct VersionQuery {
    /// Round.
    round: u32,
    /// Key of its maker, 64 hexadecimal digits.
    entrant: String,
    /// The maker's counter; 0: automatic.
    version: u32,
    /// First line, from 0; with `reverse` counted from the end.
    start_idx: Option<u64>,
    /// Lines, 1 to 5000.
    count: Option<u32>,
    /// Pages from the end backwards; lines stay in their order.
    reverse: Option<bool>,
}

/// Code by round, key and version instead of by id.
#[utoipa::path(get, path = "/v1/competitions/{competition}/code", tag = "submissions",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"), VersionQuery),
    responses((status = 200, body = CodePage), (status = 400, body = Problem), (status = 403, body = Gated), (status = 404, body = Problem)))]
pub(in super::super) async fn code_of_version(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(query): Query<VersionQuery>,
    Viewer(viewer): Viewer,
) -> Result<Json<CodePage>, ApiError> {
    let VersionQuery { round, entrant, version, start_idx, count, reverse } = query;
    let key = parse_key(&entrant)?;
    let id = {
        let view = app.shared.view();
        let competition = find(&view, &name)?;
        let made = view.state.entrants().get(&key);
        let all = made.into_iter().flat_map(|made| made.entries.iter().chain(&made.automatic));
        let is = |entry: &&Entry| {
            entry.competition == competition && entry.round.0 == round && entry.version == version
        };
        let found = all.filter_map(|id| view.state.entry(*id)).find(is).map(|entry| entry.id.0);
        found.ok_or_else(|| ApiError::NotFound {
            what: "submission",
            name: format!("of {} in round {round}, version {version}", key.short()),
        })?
    };
    app.code_page(id, viewer, &LinesQuery { start_idx, count, reverse }).await.map(Json)
}

/// Files of an entry, and which of them the viewer may read.
#[utoipa::path(get, path = "/v1/submissions/{id}/files", tag = "submissions",
    params(("id" = u64, Path, description = "Id of the entry")),
    responses((status = 200, body = FileList), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(in super::super) async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Viewer(viewer): Viewer,
) -> Result<Json<FileList>, ApiError> {
    Ok(Json(FileList { files: app.detail(id, viewer, false).await?.files }))
}

/// A file of an entry, line by line.
#[utoipa::path(get, path = "/v1/submissions/{id}/files/{name}", tag = "submissions",
    params(("id" = u64, Path, description = "Id of the entry"),
        ("name" = String, Path, description = "Name of the file"), LinesQuery),
    responses((status = 200, body = FilePage), (status = 400, body = Problem), (status = 403, body = Gated), (status = 404, body = Problem)))]
pub(in super::super) async fn page(
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(u64, String)>,
    Query(query): Query<LinesQuery>,
    Viewer(viewer): Viewer,
) -> Result<Json<FilePage>, ApiError> {
    let bytes = app.file(id, &name, viewer).await?;
    Ok(Json(lines(id, &name, &bytes, &query)))
}

/// A whole file of an entry.
#[utoipa::path(get, path = "/v1/submissions/{id}/raw/{name}", tag = "submissions",
    params(("id" = u64, Path, description = "Id of the entry"),
        ("name" = String, Path, description = "Name of the file")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 400, body = Problem), (status = 403, body = Gated),
        (status = 404, body = Problem)))]
pub(in super::super) async fn raw(
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(u64, String)>,
    Viewer(viewer): Viewer,
) -> Result<Response, ApiError> {
    let code = {
        let view = app.shared.view();
        let entry = view.state.entry(EntryId(id)).ok_or_else(|| ApiError::no_entry(id))?;
        (code_name(entry.form) == name).then(|| app.code_of(&view, id, viewer)).transpose()?
    };
    if let Some((_, hash)) = code {
        return blobs::stream(&app, hash).await;
    }
    let bytes = app.file(id, &name, viewer).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// The code of a sealed entry, with the salt that opens its seal. After close this is how judges get it. Before, it
/// entrusts the seal to the host, which opens it in time; whoever does so trusts the host not to look.
#[utoipa::path(put, path = "/v1/submissions/{id}/code", tag = "submissions",
    params(("id" = u64, Path, description = "Id of the entry"), SealQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = UploadAnswer), (status = 400, body = Problem), (status = 401, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem)))]
pub(in super::super) async fn upload_code(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Query(query): Query<SealQuery>,
    upload: Upload,
    body: Body,
) -> Result<Json<UploadAnswer>, ApiError> {
    let salt = parse_hash(&query.salt)?;
    let (entry, limit) = {
        let view = app.shared.view();
        let state = &view.state;
        let entry = state.entry(EntryId(id)).filter(|entry| entry.role == Role::Challenger);
        let entry = entry.ok_or_else(|| ApiError::no_entry(id))?;
        if entry.entrant != upload.key {
            return Err(ApiError::Forbidden("the maker of the entry"));
        }
        let competition = state.competition(&entry.competition);
        let step = competition.and_then(|found| found.live.get(&entry.round)).map(|round| round.step);
        let early = entry.state == EntryState::Sealed && step.is_some_and(|step| step <= Step::Opening);
        let opened = entry.code.is_some_and(|code| code.hash == upload.hash);
        if !early && !opened {
            return Err(ApiError::BadRequest(format!(
                "entry {id} takes no code now: its seal is past its time"
            )));
        }
        (entry.clone(), competition.map_or(0, |found| found.spec.submission.bytes_max))
    };
    let bytes = app.receive(body, upload, &app.uploads, limit, |bytes| {
        let seal = entry_seal(&entry.competition, &entry.entrant, entry.form, &upload.hash, bytes, &salt);
        if seal == entry.seal {
            Ok(())
        } else {
            Err(ApiError::BadRequest(format!("code and salt do not open the seal of entry {id}")))
        }
    });
    let bytes = bytes.await?;
    if entry.state == EntryState::Sealed {
        app.custody.keep(entry.seal, Opening { code: upload.hash, bytes, salt }).await?;
    }
    Ok(Json(UploadAnswer { hash: upload.hash.to_string(), bytes }))
}

/// A page of lines.
fn lines(id: u64, name: &str, bytes: &[u8], query: &LinesQuery) -> FilePage {
    let count = query.count.unwrap_or(limits::LINES).clamp(1, limits::LINES_MAX) as usize;
    let download_url = format!("/v1/submissions/{id}/raw/{name}");
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let Some(text) = text.filter(|_| name != code_name(Form::Component)) else {
        let pagination = Lines { start_idx: 0, end_idx: 0, lines: 0, next_start_idx: None };
        return FilePage {
            name: name.to_owned(),
            data: String::new(),
            is_binary: true,
            download_url,
            pagination,
        };
    };
    let all: Vec<&str> = text.lines().collect();
    let start = usize::try_from(query.start_idx.unwrap_or(0)).unwrap_or(usize::MAX).min(all.len());
    let (from, to) = if query.reverse.unwrap_or(false) {
        let to = all.len() - start;
        (to.saturating_sub(count), to)
    } else {
        (start, (start + count).min(all.len()))
    };
    let mut data = String::new();
    let mut shown = 0;
    for line in &all[from..to] {
        if data.len() + line.len() > limits::PAGE_BYTES && shown > 0 {
            break;
        }
        data.extend(line.chars().take(limits::PAGE_BYTES));
        data.push('\n');
        shown += 1;
    }
    let reverse = query.reverse.unwrap_or(false);
    let (end, next) = if reverse {
        (to, (from > 0).then(|| (start + (to - from)) as u64))
    } else {
        (from + shown, (from + shown < all.len()).then(|| (from + shown) as u64))
    };
    let pagination =
        Lines { start_idx: from as u64, end_idx: end as u64, lines: all.len() as u64, next_start_idx: next };
    FilePage { name: name.to_owned(), data, is_binary: false, download_url, pagination }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_paged_forwards_and_backwards() {
        let text = (0..10).map(|line| format!("line {line}\n")).collect::<Vec<_>>().concat();
        let page = |start, count, reverse| {
            let query = LinesQuery { start_idx: Some(start), count: Some(count), reverse: Some(reverse) };
            let page = lines(1, "a.log", text.as_bytes(), &query);
            (page.pagination.start_idx, page.pagination.end_idx, page.pagination.next_start_idx)
        };
        assert_eq!(page(0, 4, false), (0, 4, Some(4)));
        assert_eq!(page(8, 4, false), (8, 10, None));
        assert_eq!(page(99, 4, false), (10, 10, None));
        assert_eq!(page(0, 4, true), (6, 10, Some(4)));
        assert_eq!(page(4, 4, true), (2, 6, Some(8)));
        assert_eq!(page(8, 4, true), (0, 2, None));
        let query = LinesQuery { start_idx: None, count: None, reverse: None };
        assert!(lines(1, "a.log", b"a\0b", &query).is_binary);
        assert!(lines(1, "a.log", &[0xff, 0xfe], &query).is_binary);
        assert_eq!(lines(1, "a.log", b"", &query).pagination.lines, 0);
    }
}
