//! Evidence of faults: the bytes themselves, for whoever wants to run them again.

use std::path::Path;

use codec::CodecId;
use model::config::{Dtype, Message};
use sandbox::Runtime;
use wire::{Direction, Hash};

use super::carry::{Champion, Fell, Undecoded};
use super::{Champions, PinError};
use crate::limits;
use crate::miner::frames;

impl Champions {
    /// Keeps what a component made, under the hash that the log names: `HASH.payload`, and where it is known
    /// `HASH.tensor`, what it should have been. A full disk, or many faults, stop no training.
    pub(crate) fn keep_evidence(&self, payload: &[u8], tensor: Option<&Message>) {
        let Some(folder) = self.folder.as_ref().map(|folder| folder.join("codec-faults")) else { return };
        if let Err(error) = keep(&folder, payload, tensor) {
            tracing::warn!(%error, folder = %folder.display(), "evidence of a champion's fault was not kept");
        }
    }
}

fn keep(folder: &Path, payload: &[u8], tensor: Option<&Message>) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    if std::fs::read_dir(folder)?.count() >= limits::CHAMPION_EVIDENCE_FILES {
        return Ok(());
    }
    let name = Hash::of(payload).to_string();
    std::fs::write(folder.join(format!("{name}.payload")), payload)?;
    match tensor.and_then(|tensor| frames::payload(CodecId::Raw, tensor)) {
        Some(raw) => std::fs::write(folder.join(format!("{name}.tensor")), raw),
        None => Ok(()),
    }
}

/// What a component does with kept evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rerun {
    /// Hash of the tensor that the payload decodes to, as the log's `CodecFault` has it; or why it does not.
    pub decoded: Result<Hash, String>,
    /// With the tensor: its hash, and whether the component makes this payload of it.
    pub tensor: Option<(Hash, bool)>,
}

/// Runs evidence again.
///
/// # Errors
/// The component cannot be used here.
pub fn rerun(
    runtime: &Runtime,
    component: &[u8],
    direction: Direction,
    payload: &[u8],
    tensor: Option<&[u8]>,
) -> Result<Rerun, PinError> {
    // Exact: what comes back is told either way.
    let champion = Champion::new(runtime.compile(component)?, None);
    let decoded = champion.decode(direction, payload, wire::limits::FRAME_PAYLOAD_BYTES as usize);
    let decoded = decoded.map(|message| frames::tensor_hash(&message)).map_err(|undecoded| match undecoded {
        Undecoded::Head => "no type and shape in front of it".to_owned(),
        Undecoded::Failed(reason) | Undecoded::Here(reason) => reason,
    });
    let tensor = tensor.and_then(of_raw).map(|message| {
        let encoded = match champion.encode(direction, &message, true) {
            Ok(carried) => Some(Hash::of(&carried.payload)),
            Err(Fell::Wrong { payload, .. }) => Some(Hash::of(&payload)),
            Err(_) => None,
        };
        (frames::tensor_hash(&message), encoded == Some(Hash::of(payload)))
    });
    Ok(Rerun { decoded, tensor })
}

fn of_raw(payload: &[u8]) -> Option<Message> {
    let limits = codec::Limits::with_max_decoded_bytes(wire::limits::FRAME_PAYLOAD_BYTES as usize);
    let tensor = codec::decode(payload, &limits).ok()?;
    let dtype = match tensor.dtype() {
        codec::DType::F32 => Dtype::F32,
        codec::DType::Bf16 => Dtype::Bf16,
        _ => return None,
    };
    Some(Message { dtype, shape: tensor.shape().to_vec(), bytes: tensor.into_bytes() })
}
