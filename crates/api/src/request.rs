//! Signed requests: an envelope over method, path with query, and the hash of the body, in the `Authorization` header.
//!
//! `Authorization: Shoal BASE64URL(envelope)`; the envelope's body is a [`Request`], its kind [`REQUEST_KIND`]. The
//! signature holds for one arena, one request and a short time; the host remembers each until it is stale, so it holds once:
//! also across a restart of the host, but for reads that were signed ahead of its clock, which change nothing.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use wire::{Envelope, EnvelopeError, Hash, Millis, NodeId, RunId, SigningKey};

use crate::limits;

/// Kind of an envelope whose body is a [`Request`].
pub const REQUEST_KIND: u16 = 3;
/// First word of the header.
pub const SCHEME: &str = "Shoal ";

/// What is signed beside the envelope's own fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Method, in capitals.
    pub method: String,
    /// Path and query as they are sent.
    pub target: String,
    /// Hash of the body; of nothing where there is none.
    pub body: Hash,
}

/// Who signed a request, when, and for which body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Signer.
    pub key: NodeId,
    /// Signer's clock.
    pub time: Millis,
    /// Names the signature against replay.
    pub id: Hash,
    /// Hash of the body.
    pub body: Hash,
}

/// Why a signed request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not `Shoal` and an envelope.
    #[error("the Authorization header is no signed request: expected `Shoal` and a base64url envelope")]
    Malformed,
    /// The envelope does not verify.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The envelope is a message of another kind.
    #[error("the envelope is no signed request")]
    Kind,
    /// Signed for another request.
    #[error("signed for {signed}, this is {found}")]
    Other {
        /// Method and target in the envelope.
        signed: String,
        /// Method and target of the request.
        found: String,
    },
    /// The body is another one.
    #[error("the body is not the signed one")]
    Body,
    /// Signed too long ago, or in the future.
    #[error("signed at {theirs:?}, the host's clock says {ours:?}: set the clock (limit {} s)", limits::REQUEST_SKEW_MS / 1000)]
    Stale {
        /// Time in the envelope.
        theirs: Millis,
        /// The host's time.
        ours: Millis,
    },
}

/// Value of the `Authorization` header.
pub fn sign(key: &SigningKey, run: RunId, request: &Request, time: Millis, nonce: u64) -> String {
    let envelope = Envelope::sign(key, run, REQUEST_KIND, wire::to_bytes(request), time, nonce);
    format!("{SCHEME}{}", BASE64URL_NOPAD.encode(&wire::to_bytes(&envelope)))
}

/// Checks a header against the request that it came with. Whether it came before is the caller's to know.
///
/// # Errors
/// Not signed, not for this request, or not now.
pub fn verify(
    header: &str,
    run: &RunId,
    method: &str,
    target: &str,
    now: Millis,
) -> Result<Signed, RequestError> {
    let text = header.strip_prefix(SCHEME).filter(|text| text.len() <= limits::AUTHORIZATION_BYTES);
    let bytes = text.and_then(|text| BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok());
    let envelope: Envelope =
        bytes.and_then(|bytes| wire::from_bytes(&bytes).ok()).ok_or(RequestError::Malformed)?;
    if envelope.kind != REQUEST_KIND {
        return Err(RequestError::Kind);
    }
    if now.since(envelope.time).0.max(envelope.time.since(now).0) > limits::REQUEST_SKEW_MS {
        return Err(RequestError::Stale { theirs: envelope.time, ours: now });
    }
    envelope.verify(run)?;
    let request: Request = wire::from_bytes(&envelope.body).map_err(|_| RequestError::Malformed)?;
    if request.method != method || request.target != target {
        return Err(RequestError::Other {
            signed: format!("{} {}", request.method, request.target),
            found: format!("{method} {target}"),
        });
    }
    Ok(Signed { key: envelope.sender, time: envelope.time, id: envelope.hash(), body: request.body })
}

impl Signed {
    /// Whether `body` is what was signed.
    ///
    /// # Errors
    /// It is not.
    pub fn check_body(&self, body: &[u8]) -> Result<(), RequestError> {
        if Hash::of(body) == self.body { Ok(()) } else { Err(RequestError::Body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId([7; 32]);
    const NOW: Millis = Millis(1_000_000_000);

    fn header(request: &Request) -> String {
        sign(&SigningKey::from_bytes(&[1; 32]), RUN, request, NOW, 5)
    }

    #[test]
    fn method_path_query_body_arena_and_time_are_signed() {
        let request =
            Request { method: "PUT".into(), target: "/v1/blobs?purpose=log".into(), body: Hash::of(b"body") };
        let good = header(&request);
        let check = |method, target, run, now| verify(&good, &run, method, target, now);
        let signed = check("PUT", "/v1/blobs?purpose=log", RUN, NOW).unwrap();
        assert_eq!(signed.key, SigningKey::from_bytes(&[1; 32]).node_id());
        signed.check_body(b"body").unwrap();
        assert_eq!(signed.check_body(b"other"), Err(RequestError::Body));
        for (method, target) in
            [("POST", "/v1/blobs?purpose=log"), ("PUT", "/v1/blobs?purpose=input"), ("PUT", "/v1/blobs")]
        {
            assert!(matches!(check(method, target, RUN, NOW), Err(RequestError::Other { .. })));
        }
        let other = check("PUT", "/v1/blobs?purpose=log", RunId([8; 32]), NOW);
        assert!(matches!(other, Err(RequestError::Envelope(_))));
        for shift in [-1_i64, 1] {
            let now = Millis(NOW.0.wrapping_add_signed(shift * (limits::REQUEST_SKEW_MS as i64 + 1)));
            let stale = check("PUT", "/v1/blobs?purpose=log", RUN, now);
            assert!(matches!(stale, Err(RequestError::Stale { .. })), "also from the future");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let request = Request { method: "GET".into(), target: "/".into(), body: Hash::of(b"") };
        let mut bad = header(&request);
        bad.replace_range(20..22, "AA");
        for header in ["", "Shoal", "Shoal !", "Bearer x", &bad] {
            assert!(verify(header, &RUN, "GET", "/", NOW).is_err(), "{header}");
        }
    }
}
