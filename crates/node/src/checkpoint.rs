//! Checkpoints: merged weights, as the keeper has them, written as a folder that other software loads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::checkpoint::{CheckpointError, Export};
use model::config::Dtype;
use model::tokenizer::{Tokenizer, TokenizerError};
use store::{BlobError, Blobs, LogStore};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::{Epoch, Hash};

use crate::folder::RunFolder;
use crate::keeper::{Kept, KeptStage};
use crate::progress::Progress;
use crate::spec::{RunSpec, TokenizerSpec};

/// Why weights could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Kept bytes are gone or damaged.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The tokenizer is damaged.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The folder could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Kept bytes are not a stage's weights.
    #[error(
        "the kept weights of stage {stage} have {found} bytes, {expected} belong: the blob store is of another run"
    )]
    Length {
        /// Stage.
        stage: usize,
        /// Bytes found.
        found: usize,
        /// Bytes of the stage.
        expected: usize,
    },
    /// Writing ended in a panic: a defect.
    #[error("writing failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The tokenizer that a spec names.
pub async fn tokenizer(spec: &RunSpec, blobs: &dyn Blobs) -> Result<Tokenizer, ExportError> {
    match spec.data.tokenizer {
        TokenizerSpec::Bytes => Ok(Tokenizer::Bytes),
        TokenizerSpec::Blob(hash) => Ok(Tokenizer::from_bytes(&blobs.get(Hash(hash.0)).await?)?),
    }
}

/// Writes kept stages, head first, to a new folder; returns whether `transformers` can load it.
pub async fn export(
    spec: &RunSpec,
    blobs: &dyn Blobs,
    kept: &[KeptStage],
    to: &Path,
    dtype: Dtype,
) -> Result<bool, ExportError> {
    let tokenizer = tokenizer(spec, blobs).await?;
    let stages = spec.stage_specs();
    let mut weights = Vec::with_capacity(stages.len());
    for (stage, kept) in stages.iter().zip(kept) {
        let bytes = blobs.get(kept.weights).await?;
        let expected = stage.parameters() * 4;
        if bytes.len() != expected {
            return Err(ExportError::Length { stage: stage.index, found: bytes.len(), expected });
        }
        weights.push(floats(&bytes));
    }
    let to = to.to_owned();
    let write = move || {
        let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
        Export { stages: &stages, weights: &weights, tokenizer: &tokenizer, dtype }.save(&to)
    };
    Ok(tokio::task::spawn_blocking(write).await??)
}

/// Numbers from little-endian bytes; a rest shorter than a number is left out.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

/// Newest checkpoint in a folder.
pub fn present(folder: &RunFolder) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder.checkpoints()).ok()?;
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("epoch-"))
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(named).max()
}

/// Writes checkpoints of one run, one at a time.
pub(crate) struct Checkpoints {
    pub(crate) spec: RunSpec,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) folder: RunFolder,
    /// Epochs between checkpoints; 0: none but the last.
    pub(crate) every: u32,
    pub(crate) progress: mpsc::Sender<Progress>,
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Locks the run's folder: a write that has begun goes on when all else of this orchestrator is dropped, and nobody else
    /// may begin one meanwhile.
    pub(crate) _log: Arc<dyn LogStore>,
}

impl Checkpoints {
    /// Writes the newest kept state, if that was not done yet; returns where the newest checkpoint is.
    ///
    /// In a task of its own: a write that has begun goes on, under the lock, when the caller is cancelled.
    pub(crate) async fn newest(self: &Arc<Self>) -> Result<Option<PathBuf>, ExportError> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _one = this.writing.lock().await;
            let Some((epoch, stages)) = this.kept.newest(this.spec.stages()) else {
                return Ok(present(&this.folder));
            };
            let path = this.folder.checkpoint(epoch.0);
            if !path.exists() {
                export(&this.spec, this.blobs.as_ref(), &stages, &path, Dtype::F32).await?;
                let path = path.display().to_string();
                drop(this.progress.try_send(Progress::Checkpoint { epoch: epoch.0, path }));
            }
            Ok(Some(path))
        });
        task.await?
    }

    /// Writes one every few epochs, until `stop`.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut whole: watch::Receiver<Option<Epoch>>,
        stop: CancellationToken,
    ) -> Result<(), ExportError> {
        loop {
            let newest = *whole.borrow_and_update();
            if newest.is_some_and(|epoch| self.every > 0 && epoch.0 > 0 && epoch.0.is_multiple_of(self.every))
            {
                self.newest().await?;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = whole.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoints").field("every", &self.every).finish_non_exhaustive()
    }
}
