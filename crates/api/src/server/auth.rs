//! Who asks: a signed request's key, an Epistula hotkey's ward, or anybody.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arena::State;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use bytes::Bytes;
use wire::{Hash, Millis, NodeId};

use super::App;
use super::problem::ApiError;
use crate::epistula::{self, Headers};
use crate::host::ward_id;
use crate::limits;
use crate::replay::Seen;
use crate::request::{self, Signed};

/// Key of the durable list of signed requests from ahead of the host's clock.
pub(super) const AHEAD: &str = "requests ahead";

/// Whoever asks, if the request is signed. Its body is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer(pub(crate) Option<NodeId>);

/// Whoever asks, signed. Its body is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known(pub(crate) NodeId);

/// A signed request with its body in memory.
#[derive(Debug)]
pub(crate) struct Authored {
    pub(crate) key: NodeId,
    /// The hotkey, if it was signed by Epistula.
    pub(crate) hotkey: Option<[u8; 32]>,
    pub(crate) body: Bytes,
}

/// A signed upload whose body is still to come; its hash is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upload {
    pub(crate) key: NodeId,
    pub(crate) hash: Hash,
    /// Bytes that it announces.
    pub(crate) len: Option<u64>,
}

/// Parameters of our endpoints that a client by Epistula signs as null when it does not send them.
const NULLABLE: [&str; 11] = [
    "competition",
    "entrant",
    "filter",
    "kind",
    "mode",
    "name",
    "round",
    "sort",
    "start_idx",
    "count",
    "state",
];

fn target(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |target| target.as_str())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl App {
    /// Whether the arena has anything of a key.
    fn is_member(state: &State, key: NodeId) -> bool {
        Self::in_charge(state, key) || state.is_judge(key) || state.entrants().contains_key(&key)
    }

    /// Each signature once, also across a restart of the host: but for reads from ahead of its clock, which change nothing.
    async fn once(&self, id: Hash, key: NodeId, time: Millis, changes: bool) -> Result<(), ApiError> {
        let told = |seen| match seen {
            Seen::New => Ok(()),
            Seen::Before => Err(ApiError::Replayed),
            Seen::Full => Err(ApiError::Busy),
        };
        // What came before the start is forgotten: nothing signed then counts any more.
        if time < self.started {
            return Err(ApiError::BeforeStart);
        }
        let now = self.now();
        told(self.replays.lock().unwrap_or_else(PoisonError::into_inner).note(id, now))?;
        if time <= self.ahead_until && self.ahead.lock().await.has(&id) {
            return Err(ApiError::Replayed);
        }
        let ahead_ms = time.since(now).0;
        if ahead_ms > limits::AHEAD_WAIT_MS && !changes {
            return Ok(());
        }
        if ahead_ms > limits::AHEAD_WAIT_MS {
            // It would still be fresh, and newer than the start, after a restart.
            let mut ahead = self.ahead.lock().await;
            let noted = {
                let view = self.shared.view();
                ahead.note(id, (time, key), |key| Self::is_member(&view.state, key), now)
            };
            told(noted)?;
            self.verdicts.put(AHEAD, wire::to_bytes(&*ahead).into()).await?;
        } else if ahead_ms > 0 {
            tokio::time::sleep(Duration::from_millis(ahead_ms)).await;
        }
        Ok(())
    }

    /// The signature in `Authorization`; its body is still to be checked.
    async fn signed(&self, parts: &Parts) -> Result<Option<Signed>, ApiError> {
        let Some(header) = text(&parts.headers, header::AUTHORIZATION.as_str()) else { return Ok(None) };
        let signed = request::verify(header, &self.run(), parts.method.as_str(), target(parts), self.now())?;
        let changes = parts.method != Method::GET && parts.method != Method::HEAD;
        self.once(signed.id, signed.key, signed.time, changes).await?;
        Ok(Some(signed))
    }

    /// The hotkey in the Epistula headers.
    async fn hotkey(&self, parts: &Parts, body: Option<&[u8]>) -> Result<Option<[u8; 32]>, ApiError> {
        let Some(headers) = Headers::read(|name| text(&parts.headers, name))? else { return Ok(None) };
        headers.check_receiver(&self.key.node_id())?;
        let bodies = match body {
            Some(body) => epistula::bodies_of_json(body),
            None => epistula::bodies_of_query(parts.uri.query().unwrap_or_default(), &NULLABLE),
        };
        let message = headers.verify(&bodies, self.now())?;
        // The message, not the signature: sr25519 signs the same message differently each time.
        let context = [parts.method.as_str().as_bytes(), parts.uri.path().as_bytes()];
        let id = Hash::of_parts(
            "shoal 2026-11 epistula request",
            &[&headers.hotkey, &message, context[0], context[1]],
        );
        // What changes something counts once whatever the path: the path is not signed.
        let id = if body.is_some() {
            Hash::of_parts("shoal 2026-11 epistula change", &[&headers.hotkey, &message])
        } else {
            id
        };
        self.once(id, ward_id(&self.key, &headers.hotkey), headers.time, body.is_some()).await?;
        Ok(Some(headers.hotkey))
    }
}

impl FromRequestParts<Arc<App>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if let Some(signed) = app.signed(parts).await? {
            signed.check_body(b"")?;
            return Ok(Self(Some(signed.key)));
        }
        let hotkey = app.hotkey(parts, None).await?;
        Ok(Self(hotkey.map(|hotkey| ward_id(&app.key, &hotkey))))
    }
}

impl FromRequestParts<Arc<App>> for Known {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Viewer(viewer) = Viewer::from_request_parts(parts, app).await?;
        viewer.map(Self).ok_or(ApiError::Unsigned("this is shown to certain keys only"))
    }
}

impl FromRequest<Arc<App>> for Authored {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let signed = app.signed(&parts).await?;
        let body = read(body).await?;
        if let Some(signed) = signed {
            signed.check_body(&body)?;
            return Ok(Self { key: signed.key, hotkey: None, body });
        }
        match app.hotkey(&parts, Some(&body)).await? {
            Some(hotkey) => Ok(Self { key: ward_id(&app.key, &hotkey), hotkey: Some(hotkey), body }),
            None => Err(ApiError::Unsigned("it changes something")),
        }
    }
}

impl FromRequestParts<Arc<App>> for Upload {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let signed = app.signed(parts).await?.ok_or(ApiError::Unsigned("it stores something"))?;
        let len = text(&parts.headers, header::CONTENT_LENGTH.as_str()).and_then(|len| len.parse().ok());
        Ok(Self { key: signed.key, hash: signed.body, len })
    }
}

/// The whole body, bounded.
pub(crate) async fn read(body: axum::body::Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, limits::BODY_BYTES).await.map_err(|_| ApiError::TooLarge {
        what: "the body",
        found: limits::BODY_BYTES as u64 + 1,
        limit: limits::BODY_BYTES as u64,
    })
}
