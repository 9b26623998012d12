//! Epistula: the headers by which hotkeys of the sr25519 kind sign requests (arena specs §3).
//!
//! Signed is `sha256(body).hex + "." + timestamp + "." + signed_for`. The body of a GET is its parameters as JSON, also
//! those that are null and not sent. Method and path are not signed, which nobody can add without breaking the clients;
//! what a host can add it does: a timestamp from the future is refused like one from the past, and each signature counts
//! once.

use std::fmt::Write;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use wire::{Millis, NodeId};

mod ss58;

pub use ss58::{from_ss58, to_ss58};

use crate::limits;

/// Header with the time of signing, milliseconds.
pub const TIMESTAMP: &str = "epistula-timestamp";
/// Header with the hotkey, as ss58.
pub const SIGNED_BY: &str = "epistula-signed-by";
/// Header with the signature: 0x and hexadecimal digits.
pub const SIGNATURE: &str = "epistula-request-signature";
/// Header that names a receiver. It need not be there.
pub const SIGNED_FOR: &str = "epistula-signed-for";

/// Context of substrate's signatures.
const CONTEXT: &[u8] = b"substrate";

/// Why a request by Epistula is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpistulaError {
    /// A header is missing or not of its form.
    #[error("the header {0} is missing or not of its form")]
    Header(&'static str),
    /// Signed too long ago, or in the future.
    #[error("signed at {theirs:?}, the host's clock says {ours:?}: set the clock (limit {} s)", limits::REQUEST_SKEW_MS / 1000)]
    Stale {
        /// Time in the header.
        theirs: Millis,
        /// The host's time.
        ours: Millis,
    },
    /// The signature does not verify.
    #[error("the hotkey's signature does not verify")]
    Signature,
    /// Signed for another host.
    #[error("signed for {theirs:.64}, this host is {ours}")]
    Receiver {
        /// Receiver in the header.
        theirs: String,
        /// This host's key, as ss58.
        ours: String,
    },
}

/// The headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Public key of the hotkey.
    pub hotkey: [u8; 32],
    /// Time of signing.
    pub time: Millis,
    /// Receiver, if one is named.
    pub signed_for: String,
    signature: [u8; 64],
}

impl Headers {
    /// Reads the headers; none if the request is not signed in this way.
    ///
    /// # Errors
    /// One of them is missing or not of its form.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, EpistulaError> {
        let Some(signed_by) = get(SIGNED_BY) else { return Ok(None) };
        let hotkey = from_ss58(signed_by).ok_or(EpistulaError::Header("Epistula-Signed-By"))?;
        let time = get(TIMESTAMP)
            .and_then(|text| text.parse().ok())
            .map(Millis)
            .ok_or(EpistulaError::Header("Epistula-Timestamp"))?;
        let signature = get(SIGNATURE)
            .and_then(|text| text.strip_prefix("0x"))
            .and_then(|text| HEXLOWER.decode(text.to_ascii_lowercase().as_bytes()).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(EpistulaError::Header("Epistula-Request-Signature"))?;
        let signed_for = get(SIGNED_FOR).unwrap_or_default().to_owned();
        Ok(Some(Self { hotkey, time, signed_for, signature }))
    }

    /// Checks that the receiver, where one is named, is this host: its key as ss58 or in hexadecimal digits. What is signed
    /// for another host would else count here, too.
    ///
    /// # Errors
    /// Another receiver is named.
    pub fn check_receiver(&self, host: &NodeId) -> Result<(), EpistulaError> {
        let ours = to_ss58(&host.0);
        let named = &self.signed_for;
        if named.is_empty() || *named == ours || named.eq_ignore_ascii_case(&host.to_string()) {
            return Ok(());
        }
        Err(EpistulaError::Receiver { theirs: named.clone(), ours })
    }

    /// Checks the signature over any of the bodies that the request may stand for; the message that it is over.
    ///
    /// # Errors
    /// Stale, or signed over something else.
    pub fn verify(&self, bodies: &[Vec<u8>], now: Millis) -> Result<Vec<u8>, EpistulaError> {
        if now.since(self.time).0.max(self.time.since(now).0) > limits::REQUEST_SKEW_MS {
            return Err(EpistulaError::Stale { theirs: self.time, ours: now });
        }
        let key = schnorrkel::PublicKey::from_bytes(&self.hotkey).map_err(|_| EpistulaError::Signature)?;
        let signature =
            schnorrkel::Signature::from_bytes(&self.signature).map_err(|_| EpistulaError::Signature)?;
        bodies
            .iter()
            .map(|body| message(body, self.time, &self.signed_for))
            .find(|message| key.verify_simple(CONTEXT, message, &signature).is_ok())
            .ok_or(EpistulaError::Signature)
    }
}

/// What is signed.
pub fn message(body: &[u8], time: Millis, signed_for: &str) -> Vec<u8> {
    let hash = HEXLOWER.encode(&Sha256::digest(body));
    format!("{hash}.{}.{signed_for}", time.0).into_bytes()
}

/// Signs a body with a hotkey's secret (64 bytes): the value of [`SIGNATURE`].
pub fn sign(secret: &schnorrkel::Keypair, body: &[u8], time: Millis, signed_for: &str) -> String {
    let signature = secret.sign_simple(CONTEXT, &message(body, time, signed_for));
    format!("0x{}", HEXLOWER.encode(&signature.to_bytes()))
}

/// The bodies that a GET's signature may be over: its parameters as they were sent, the same with the null ones of the
/// endpoint, and none.
pub fn bodies_of_query(query: &str, nullable: &[&str]) -> Vec<Vec<u8>> {
    let mut sent = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()).take(32) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        sent.insert(decoded(name), typed(&decoded(value)));
    }
    let mut full = sent.clone();
    for name in nullable {
        full.entry((*name).to_owned()).or_insert(Value::Null);
    }
    let mut bodies = vec![python_json(&Value::Object(sent.clone())).into_bytes()];
    if full.len() > sent.len() {
        bodies.push(python_json(&Value::Object(full)).into_bytes());
    }
    bodies
}

/// The bodies that a request's signature may be over: the bytes, and the same JSON with sorted keys.
pub fn bodies_of_json(body: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = vec![body.to_vec()];
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        bodies.push(python_json(&value).into_bytes());
    }
    bodies
}

/// A query's value as Python's client had it: a number, a truth value, else text.
fn typed(text: &str) -> Value {
    match text {
        "True" | "true" => Value::Bool(true),
        "False" | "false" => Value::Bool(false),
        _ => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
    }
}

/// A part of a query without its escapes.
pub(crate) fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `json.dumps(value, sort_keys=True)` of Python: ", " and ": " between, ASCII only.
pub fn python_json(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            // serde_json's map is sorted by its keys' bytes, as Python sorts ASCII keys.
            let sorted: std::collections::BTreeMap<&String, &Value> = map.iter().collect();
            let rows: Vec<String> =
                sorted.iter().map(|(key, value)| format!("{}: {}", text(key), python_json(value))).collect();
            format!("{{{}}}", rows.join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python_json).collect::<Vec<_>>().join(", "))
        }
        Value::String(found) => text(found),
        other => other.to_string(),
    }
}

fn text(found: &str) -> String {
    let mut out = String::from("\"");
    for unit in found.encode_utf16() {
        match char::from_u32(u32::from(unit)) {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some('\u{8}') => out.push_str("\\b"),
            Some('\u{c}') => out.push_str("\\f"),
            Some(c) if (' '..='~').contains(&c) => out.push(c),
            _ => _ = write!(out, "\\u{unit:04x}"),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
