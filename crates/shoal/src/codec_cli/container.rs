//! The file that `compress` writes.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | `SCF1` |
//! | 8 + … | length and bytes of the original file's header |
//! | 1, 8 + … | parts in order: kind (0 payload, 1 predictor, 2 basis), length and bytes |
//!
//! The original file is its header followed by the decoded payloads, of which a large tensor may have several. Integers are little-endian.

use anyhow::{Context, bail, ensure};
use codec::{Basis, Level, Limits, Predictor, Shared, decode_into_at};
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"SCF1";
/// Most bytes of one decoded tensor.
const MAX_TENSOR_BYTES: usize = 64 << 30;

/// What a part of the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Payload = 0,
    Predictor = 1,
    Basis = 2,
}

/// Starts a file with the original's header.
pub(super) fn begin(prefix: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(prefix.len() as u64).to_le_bytes());
    out.extend_from_slice(prefix);
    out
}

/// Appends a part.
pub(super) fn push(out: &mut Vec<u8>, part: Part, bytes: &[u8]) {
    out.push(part as u8);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The original file; `progress` is told how many bytes of `file` were read.
pub(super) fn unpack(file: &[u8], mut progress: impl FnMut(usize)) -> anyhow::Result<Vec<u8>> {
    let Some((magic, mut rest)) = file.split_first_chunk::<4>() else {
        bail!("file is empty or cut short");
    };
    ensure!(*magic == MAGIC, "not written by `shoal codec compress`");
    let mut out = take(&mut rest)?.to_vec();
    let mut shared = Shared::new();
    let limits = Limits::with_max_decoded_bytes(MAX_TENSOR_BYTES);
    let mut bytes = Vec::new();
    while let Some((&kind, after)) = rest.split_first() {
        rest = after;
        let part = take(&mut rest)?;
        match kind {
            0 => {
                decode_into_at(Level::detect(), part, &limits, &shared, &mut bytes)?;
                out.extend_from_slice(&bytes);
            }
            1 => {
                shared.add_predictor(Arc::new(Predictor::from_bytes(part)?));
            }
            2 => {
                shared.add_basis(Arc::new(Basis::from_bytes(part)?));
            }
            _ => bail!("part of unknown kind {kind}; a newer shoal may have written it"),
        }
        progress(file.len() - rest.len());
    }
    Ok(out)
}

fn take<'a>(rest: &mut &'a [u8]) -> anyhow::Result<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<8>().context("file is cut short")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).context("file is cut short")?;
    let (part, after) = after.split_at_checked(length).context("file is cut short")?;
    *rest = after;
    Ok(part)
}
