//! Blobs under their hash: what specs name, inputs, logs.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use arena::record::{EntryId, PoolItem};
use arena::state::{Artefact, Round};
use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream as streams};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use wire::{Hash, Millis, NodeId};

use super::super::App;
use super::super::auth::{Upload, Viewer};
use super::super::pace::Pace;
use super::super::params::{Path, Query};
use super::super::problem::ApiError;
use super::parse_hash;
use crate::host::shared::View;
use crate::limits;
use crate::model::{Gated, Problem, UploadAnswer};
use crate::quota::Uploads;
use crate::request::RequestError;

/// What an upload is for.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Purpose {
    /// What a spec names, or an input: for those who may open competitions.
    Competition,
    /// The log of a judgement: for admitted judges.
    Log,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct PutQuery {
    /// What it is for.
    purpose: Purpose,
}

impl App {
    /// Stores bytes under their hash. Cut off, it may store what is not counted.
    pub(super) async fn store(&self, hash: Hash, bytes: Bytes) -> Result<(), ApiError> {
        let mut room = self.space.room(hash);
        if !self.blobs.has(hash).await? {
            room.reach(bytes.len() as u64)?;
            self.blobs.put_at(hash, bytes).await?;
            room.stored();
        }
        Ok(())
    }

    /// Stores a body chunk by chunk if its hash is the signed one, its length within `limit` and the key's quota, and
    /// `check` agrees with it. A refusal is answered at once, whatever is still to come.
    pub(super) async fn receive(
        &self,
        body: Body,
        upload: Upload,
        quota: &Mutex<Uploads>,
        limit: u64,
        check: impl FnOnce(u64) -> Result<(), ApiError>,
    ) -> Result<u64, ApiError> {
        let mut chunks = body.into_data_stream();
        let taken = self.take(&mut chunks, upload, quota, limit, check).await;
        if taken.is_err() {
            self.linger(chunks);
        }
        taken
    }

    /// Reads on what was refused, within bounds and behind the answer: whoever is still sending would see a broken line,
    /// not the reason.
    fn linger(&self, mut chunks: BodyDataStream) {
        let Ok(turn) = Arc::clone(&self.lingering).try_acquire_owned() else { return };
        let rest = async move {
            let _turn = turn;
            let mut len = 0;
            while let Some(Ok(chunk)) = chunks.next().await {
                len += chunk.len() as u64;
                if len > limits::LINGER_BYTES {
                    return;
                }
            }
        };
        // Who sends slower than that is let go.
        tokio::spawn(tokio::time::timeout(limits::LINGER, rest));
    }

    async fn take(
        &self,
        chunks: &mut BodyDataStream,
        upload: Upload,
        quota: &Mutex<Uploads>,
        limit: u64,
        check: impl FnOnce(u64) -> Result<(), ApiError>,
    ) -> Result<u64, ApiError> {
        let (hash, announced) = (upload.hash, upload.len.unwrap_or(0));
        let bounded = |found: u64| {
            let what = "the upload";
            if found > limit { Err(ApiError::TooLarge { what, found, limit }) } else { Ok(()) }
        };
        bounded(announced)?;
        let mut reserved = self.reserve(quota, upload.key, announced)?;
        let mut room = self.space.room(hash);
        // A blob that is there is not written again, but whoever names it must have it.
        let mut writer = None;
        if !self.blobs.has(hash).await? {
            room.reach(announced)?;
            writer = Some(self.blobs.create().await?);
        }
        let least = limits::UPLOAD_LEAST_BYTES.max(announced / limits::UPLOAD_SPANS);
        let mut pace = Pace::new(self.upload_stall, least);
        let (mut len, mut hasher) = (0, blake3::Hasher::new());
        while let Some(chunk) = pace.next(chunks).await? {
            len += chunk.len() as u64;
            bounded(len)?;
            reserved.came(chunk.len() as u64)?;
            match &mut writer {
                Some(writer) => {
                    room.reach(len)?;
                    writer.write(chunk).await?;
                }
                None => _ = hasher.update(&chunk),
            }
        }
        check(len)?;
        match writer {
            Some(writer) => {
                let store = async move {
                    writer.finish(Some(hash)).await?;
                    room.stored();
                    Ok(())
                };
                self.to_the_end(store).await?;
            }
            None if hasher.finalize() != hash.0 => return Err(RequestError::Body.into()),
            None => {}
        }
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).note(upload.key, hash);
        Ok(len)
    }
}

/// Whether nothing in the arena is kept from anybody by this hash: the code of an entry before it is revealed, or what
/// rounds of a running competition draw their inputs from.
fn is_free(view: &View, hash: &Hash, at: Millis) -> bool {
    let codes = view.index.codes.get(hash).into_iter().flatten();
    let revealed = |entry: &EntryId| view.state.gate(*entry, Artefact::Code, None, at).is_ok();
    codes.into_iter().all(revealed) && !view.index.keeps(hash)
}

impl App {
    /// Checks a round's pool: judges can fetch every item, and nobody can know one, as everybody knows the samples that specs
    /// name, what else they name, and the inputs of rounds that are over.
    pub(super) async fn pool_is_sealed(&self, items: &[PoolItem]) -> Result<(), ApiError> {
        let (lists, open): (Vec<Hash>, Option<Hash>) = {
            let view = self.shared.view();
            let open = items.iter().find(|item| may_read(&view, &item.hash, None, self.now()));
            (sample_lists(&view, self.now()), open.map(|item| item.hash))
        };
        if let Some(item) = open {
            return Err(ApiError::KnownInput { item: item.short() });
        }
        for list in lists {
            let samples = self.samples_of(list).await?;
            // A list opens nothing that is kept, so it makes nothing known either: else whoever lists what was named before and
            // not drawn would spoil every later pool.
            let view = self.shared.view();
            let known =
                |item: &&PoolItem| samples.contains(&item.hash) && is_free(&view, &item.hash, self.now());
            if let Some(item) = items.iter().find(known) {
                return Err(ApiError::KnownInput { item: item.hash.short() });
            }
        }
        for item in items {
            if !self.blobs.has(item.hash).await? {
                let item = item.hash.short();
                return Err(ApiError::BadRequest(format!(
                    "upload item {item} of the pool first: judges could not fetch it"
                )));
            }
        }
        Ok(())
    }

    /// Whether a blob is listed in the samples that a spec names. Whoever opens a competition writes that list, so it
    /// opens nothing that the arena keeps from others.
    async fn is_sample(&self, hash: &Hash) -> Result<bool, ApiError> {
        let lists = sample_lists(&self.shared.view(), self.now());
        for list in lists {
            if self.samples_of(list).await?.contains(hash) {
                return Ok(is_free(&self.shared.view(), hash, self.now()));
            }
        }
        Ok(false)
    }

    /// Hashes in a manifest of samples.
    async fn samples_of(&self, list: Hash) -> Result<Arc<HashSet<Hash>>, ApiError> {
        if let Some(known) = self.samples.lock().unwrap_or_else(PoisonError::into_inner).get(&list) {
            return Ok(Arc::clone(known));
        }
        // Not there yet, or too long: nothing is remembered, it may come.
        if self.blobs.size(list).await?.is_none_or(|bytes| bytes > limits::SAMPLES_LIST_BYTES) {
            return Ok(Arc::default());
        }
        let bytes = self.blobs.get(list).await?;
        let text = String::from_utf8_lossy(&bytes);
        let cells = text.split([',', '\n', '\r']).filter_map(|cell| cell.trim().parse::<Hash>().ok());
        let found: Arc<HashSet<Hash>> = Arc::new(cells.collect());
        let mut known = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::SAMPLES_LISTS {
            known.clear();
        }
        known.insert(list, Arc::clone(&found));
        Ok(found)
    }
}

/// Manifests of samples that everybody may read.
fn sample_lists(view: &View, at: Millis) -> Vec<Hash> {
    let specs = view.state.competitions().values().filter_map(|found| found.spec.inputs.samples);
    specs.filter(|list| may_read(view, list, None, at)).collect()
}

/// Whether a blob is for this viewer: everybody's, or an input of a round that the judge judges.
fn may_read(view: &View, hash: &Hash, viewer: Option<NodeId>, at: Millis) -> bool {
    let judged = || {
        let rounds = view.state.competitions().values().flat_map(|found| found.live.values());
        let holds = |round: &Round| round.items.contains(hash);
        viewer.is_some_and(|judge| view.state.is_judge(judge)) && rounds.into_iter().any(holds)
    };
    let owner = || viewer.is_some_and(|key| key == view.state.host());
    let named = || view.index.named.contains(hash) && is_free(view, hash, at);
    view.index.public.contains(hash) || named() || judged() || owner()
}

/// A blob that is for everybody: what a spec names, or an input of a round that is over. Judges get the inputs of the
/// rounds they judge.
#[utoipa::path(get, path = "/v1/blobs/{hash}", tag = "blobs",
    params(("hash" = String, Path, description = "BLAKE3 hash, 64 hexadecimal digits")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 403, body = Gated),
        (status = 404, body = Problem)))]
pub(in super::super) async fn get(
    State(app): State<Arc<App>>,
    Path(hash): Path<String>,
    Viewer(viewer): Viewer,
) -> Result<Response, ApiError> {
    let hash = parse_hash(&hash)?;
    let readable = may_read(&app.shared.view(), &hash, viewer, app.now());
    // What is not for the viewer is not there: whether somebody stored it is not told.
    if !readable && !app.is_sample(&hash).await? {
        return Err(ApiError::NotFound { what: "blob that you may read", name: hash.short() });
    }
    stream(&app, hash).await
}

/// The bytes of a blob, checked as they go: a damaged one breaks off.
pub(super) async fn stream(app: &App, hash: Hash) -> Result<Response, ApiError> {
    let bytes = app.blobs.size(hash).await?;
    let bytes = bytes.ok_or_else(|| ApiError::NotFound { what: "blob", name: hash.short() })?;
    let reader = app.blobs.open(hash).await?;
    let chunks = streams::try_unfold(reader, async |mut reader| {
        Ok::<_, store::BlobError>(reader.next().await?.map(|chunk| (chunk, reader)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        (header::ETAG, format!("\"{hash}\"")),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// Stores a blob under its hash, which the signature names.
#[utoipa::path(put, path = "/v1/blobs", tag = "blobs", params(PutQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = UploadAnswer), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 413, body = Problem), (status = 429, body = Problem), (status = 507, body = Problem)))]
pub(in super::super) async fn put(
    State(app): State<Arc<App>>,
    Query(query): Query<PutQuery>,
    upload: Upload,
    body: Body,
) -> Result<Json<UploadAnswer>, ApiError> {
    app.rate(upload.key)?;
    let allowed = {
        let view = app.shared.view();
        let state = &view.state;
        let (may, who, limit) = match query.purpose {
            Purpose::Log => (state.is_judge(upload.key), "an admitted judge", limits::LOG_BYTES),
            Purpose::Competition => {
                let may = state.spec().open_to_all || App::in_charge(state, upload.key);
                (may, "an owner of the arena", limits::UPLOAD_BYTES)
            }
        };
        may.then_some(limit).ok_or(ApiError::Forbidden(who))
    };
    let limit = match allowed {
        Ok(limit) => limit,
        Err(refused) => {
            app.linger(body.into_data_stream());
            return Err(refused);
        }
    };
    let quota = match query.purpose {
        Purpose::Log => &app.logs,
        Purpose::Competition => &app.uploads,
    };
    let bytes = app.receive(body, upload, quota, limit, |_| Ok(())).await?;
    Ok(Json(UploadAnswer { hash: upload.hash.to_string(), bytes }))
}
