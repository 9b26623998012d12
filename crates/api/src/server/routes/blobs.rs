//! Blobs under their hash: what specs name, inputs, logs.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use arena::record::EntryId;
use arena::state::{Artefact, Round};
use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream as streams};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use wire::{Hash, Millis, NodeId};

use super::super::App;
use super::super::auth::{Upload, Viewer};
use super::super::problem::ApiError;
use super::parse_hash;
use crate::host::shared::View;
use crate::limits;
use crate::model::{Gated, Problem, UploadAnswer};

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
    /// Stores bytes under their hash.
    pub(super) async fn store(&self, hash: Hash, bytes: Bytes) -> Result<(), ApiError> {
        if self.blobs.has(hash).await? {
            return Ok(());
        }
        let len = bytes.len() as u64;
        self.room(len)?;
        self.blobs.put_at(hash, bytes).await?;
        self.stored.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    fn room(&self, len: u64) -> Result<(), ApiError> {
        let full = self.stored.load(Ordering::Relaxed).saturating_add(len) > self.blobs_max;
        if full { Err(ApiError::NoRoom) } else { Ok(()) }
    }

    /// Stores a body chunk by chunk if its hash is the signed one, its length within `limit` and the key's quota, and
    /// `check` agrees with it.
    pub(super) async fn receive(
        &self,
        body: Body,
        upload: Upload,
        limit: u64,
        check: impl FnOnce(u64) -> Result<(), ApiError>,
    ) -> Result<u64, ApiError> {
        let mut chunks = body.into_data_stream();
        // More than that is not read on, so that nothing would be gained.
        let short = upload.len.is_none_or(|len| len <= limits::LINGER_BYTES);
        let taken = self.take(&mut chunks, upload, limit, check).await;
        if taken.is_err() && short {
            linger(&mut chunks).await;
        }
        taken
    }

    async fn take(
        &self,
        chunks: &mut BodyDataStream,
        upload: Upload,
        limit: u64,
        check: impl FnOnce(u64) -> Result<(), ApiError>,
    ) -> Result<u64, ApiError> {
        let (hash, key) = (upload.hash, upload.key);
        if let Some(len) = upload.len {
            if len > limit {
                return Err(ApiError::TooLarge { what: "the upload", found: len, limit });
            }
            self.room(len)?;
            self.announced(key, len)?;
        }
        let mut len = 0;
        if let Some(stored) = self.blobs.size(hash).await? {
            // There already: the body is read to its end, so that the connection stays of use.
            while let Some(Ok(chunk)) = chunks.next().await {
                len += chunk.len() as u64;
                self.upload(key, chunk.len() as u64)?;
                if len > limit {
                    return Err(ApiError::TooLarge { what: "the upload", found: len, limit });
                }
            }
            check(stored)?;
            return Ok(stored);
        }
        let mut writer = self.blobs.create().await?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| ApiError::BadRequest("the upload was cut off".into()))?;
            len += chunk.len() as u64;
            if len > limit {
                return Err(ApiError::TooLarge { what: "the upload", found: len, limit });
            }
            self.room(len)?;
            self.upload(key, chunk.len() as u64)?;
            writer.write(chunk).await?;
        }
        check(len)?;
        writer.finish(Some(hash)).await?;
        self.stored.fetch_add(len, Ordering::Relaxed);
        Ok(len)
    }
}

/// Reads on what was refused, within bounds: whoever is still sending would see a broken line, not the reason.
async fn linger(chunks: &mut BodyDataStream) {
    let rest = async {
        let mut len = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            len += chunk.len() as u64;
            if len > limits::LINGER_BYTES {
                return;
            }
        }
    };
    // Who sends slower than that is let go.
    drop(tokio::time::timeout(limits::LINGER, rest).await);
}

/// Whether nothing in the arena is kept from anybody by this hash: the code of an entry before it is revealed, or what a
/// live round draws its inputs from.
fn is_free(view: &View, hash: &Hash, at: Millis) -> bool {
    let codes = view.index.codes.get(hash).into_iter().flatten();
    let revealed = |entry: &EntryId| view.state.gate(*entry, Artefact::Code, None, at).is_ok();
    let mut rounds = view.state.competitions().values().flat_map(|found| found.live.values());
    codes.into_iter().all(revealed) && !rounds.any(|round| round.pool.iter().any(|item| item.hash == *hash))
}

impl App {
    /// Whether a blob is listed in the samples that a spec names. Whoever opens a competition writes that list, so it
    /// opens nothing that the arena keeps from others.
    async fn is_sample(&self, hash: &Hash) -> Result<bool, ApiError> {
        let lists: Vec<Hash> = {
            let view = self.shared.view();
            let specs = view.state.competitions().values().filter_map(|found| found.spec.inputs.samples);
            specs.filter(|list| may_read(&view, list, None, self.now())).collect()
        };
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
    responses((status = 200, body = UploadAnswer), (status = 401, body = Problem), (status = 403, body = Problem),
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
            linger(&mut body.into_data_stream()).await;
            return Err(refused);
        }
    };
    let bytes = app.receive(body, upload, limit, |_| Ok(())).await?;
    Ok(Json(UploadAnswer { hash: upload.hash.to_string(), bytes }))
}
