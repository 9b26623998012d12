//! Fetching things in pieces from whoever has them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use net::{Link, LinkError};
use wire::{Hash, NodeId, RunId};

use crate::limits;
use crate::packed;
use crate::rpc::{Reply, ReplyError, Request, Span, What, code};

/// Why a thing could not be fetched from a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No answer, or a refusal.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// An answer that makes no sense.
    #[error("node {} answered wrongly: {reason}", peer.short())]
    Wrong {
        /// Who.
        peer: NodeId,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes that are not those of the hash.
    #[error("node {} sent other bytes than {expected}: their hash is {found}", peer.short())]
    Mismatch {
        /// Who.
        peer: NodeId,
        /// Expected.
        expected: Hash,
        /// Hash of what came.
        found: Hash,
    },
    /// Nobody to ask.
    #[error("nobody to fetch from")]
    Nobody,
}

impl FetchError {
    /// Whether the peer does not have it (yet), rather than failing or misbehaving.
    pub fn not_here(&self) -> bool {
        matches!(self, Self::Link(LinkError::Refused { refusal, .. }) if refusal.code == code::NOT_HERE)
    }
}

/// What was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Bytes,
    /// How many crossed the wire for them.
    pub wire: usize,
    /// Time that decoding took.
    pub decoding: Duration,
}

/// Fetches `what` whole from `peer`, at most `limit` bytes. The caller checks the bytes.
pub async fn fetch(
    link: &dyn Link,
    run: RunId,
    peer: NodeId,
    what: What,
    limit: u64,
) -> Result<Bytes, FetchError> {
    Ok(fetch_within(link, run, peer, what, limit, limits::PIECE_DEADLINE).await?.bytes)
}

/// As [`fetch`], with a deadline for each piece.
pub async fn fetch_within(
    link: &dyn Link,
    run: RunId,
    peer: NodeId,
    what: What,
    limit: u64,
    deadline: Duration,
) -> Result<Fetched, FetchError> {
    let wrong = |reason: String| FetchError::Wrong { peer, reason };
    let mut whole = BytesMut::new();
    let (mut wire, mut decoding) = (0, Duration::ZERO);
    loop {
        let span = Span { from: whole.len() as u64, len: limits::PIECE_BYTES };
        let message = Request::Fetch { what, span }.message(run);
        let answer = link.call(&peer, message, deadline).await?;
        let reply = Reply::parse(&answer).map_err(|error| wrong(error.to_string()))?;
        wire += answer.payload.len();
        let (total, len) = match reply {
            Reply::Piece { total } => (total, answer.payload.len() as u64),
            Reply::Packed { total, len } => (total, len),
            other => return Err(wrong(ReplyError::Unexpected(other.name()).to_string())),
        };
        let end = whole.len() as u64 + len;
        if total > limit {
            return Err(wrong(format!("{total} bytes where at most {limit} belong")));
        }
        if end > total || (len == 0 && end < total) {
            return Err(wrong(format!("a piece of {len} bytes at {} of {total}", whole.len())));
        }
        let piece = if matches!(reply, Reply::Packed { .. }) {
            let (piece, time) = packed::unpack(answer.payload, len).await.map_err(wrong)?;
            decoding += time;
            piece
        } else {
            answer.payload
        };
        if whole.is_empty() && end == total {
            return Ok(Fetched { bytes: piece, wire, decoding }); // the usual case: nothing to put together
        }
        if whole.is_empty() {
            whole.reserve(total as usize);
        }
        whole.extend_from_slice(&piece);
        if end == total {
            return Ok(Fetched { bytes: whole.freeze(), wire, decoding });
        }
    }
}

/// Fetches a blob from the first of `peers` that has it, and checks it.
///
/// # Errors
/// The last peer's.
pub async fn fetch_blob(
    link: &dyn Link,
    run: RunId,
    peers: impl IntoIterator<Item = NodeId>,
    hash: Hash,
    limit: u64,
) -> Result<Bytes, FetchError> {
    let mut last = FetchError::Nobody;
    for peer in peers {
        match fetch(link, run, peer, What::Blob(hash), limit).await {
            Ok(bytes) => {
                let found = Hash::of(&bytes);
                if found == hash {
                    return Ok(bytes);
                }
                last = FetchError::Mismatch { peer, expected: hash, found };
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
