//! Blobs under their hash: what specs name, inputs, logs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arena::state::Round;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream as streams};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use wire::{Hash, NodeId};

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

    /// Stores a body chunk by chunk if its hash is `hash`, its length within `limit`, and `check` agrees with it.
    pub(super) async fn receive(
        &self,
        body: Body,
        hash: Hash,
        limit: u64,
        check: impl FnOnce(u64) -> Result<(), ApiError>,
    ) -> Result<u64, ApiError> {
        let mut chunks = body.into_data_stream();
        let mut len = 0;
        if let Some(stored) = self.blobs.size(hash).await? {
            // There already: the body is read to its end, so that the connection stays of use.
            while let Some(Ok(chunk)) = chunks.next().await {
                len += chunk.len() as u64;
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
            writer.write(chunk).await?;
        }
        check(len)?;
        writer.finish(Some(hash)).await?;
        self.stored.fetch_add(len, Ordering::Relaxed);
        Ok(len)
    }
}

/// Whether a blob is for this viewer: everybody's, or an input of a round that the judge judges.
fn may_read(view: &View, hash: &Hash, viewer: Option<NodeId>) -> bool {
    let judged = || {
        let rounds = view.state.competitions().values().flat_map(|found| found.live.values());
        let holds = |round: &Round| round.items.contains(hash);
        viewer.is_some_and(|judge| view.state.is_judge(judge)) && rounds.into_iter().any(holds)
    };
    let owner = || viewer.is_some_and(|key| key == view.state.host());
    view.index.public.contains(hash) || judged() || owner()
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
    // What is not for the viewer is not there: whether somebody stored it is not told.
    if !may_read(&app.shared.view(), &hash, viewer) {
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
        (status = 413, body = Problem), (status = 507, body = Problem)))]
pub(in super::super) async fn put(
    State(app): State<Arc<App>>,
    Query(query): Query<PutQuery>,
    upload: Upload,
    body: Body,
) -> Result<Json<UploadAnswer>, ApiError> {
    app.rate(upload.key)?;
    let limit = {
        let view = app.shared.view();
        let state = &view.state;
        let (may, who, limit) = match query.purpose {
            Purpose::Log => (state.is_judge(upload.key), "an admitted judge", limits::LOG_BYTES),
            Purpose::Competition => {
                let may = state.spec().open_to_all || App::in_charge(state, upload.key);
                (may, "an owner of the arena", limits::UPLOAD_BYTES)
            }
        };
        may.then_some(limit).ok_or(ApiError::Forbidden(who))?
    };
    let bytes = app.receive(body, upload.hash, limit, |_| Ok(())).await?;
    Ok(Json(UploadAnswer { hash: upload.hash.to_string(), bytes }))
}
