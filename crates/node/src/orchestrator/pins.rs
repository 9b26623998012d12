//! The owner's wishes about champions: a file in the run's folder, taken into the log, answered in another file.
//!
//! Whoever may write to the folder owns the run: it holds the orchestrator's key.

use std::path::Path;

use serde::{Deserialize, Serialize};
use store::Blobs;
use swarm::record::{CodecPin, Control, Input};
use swarm::refusal::Refusal;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wire::Epoch;

use super::shared::{Inputs, Pending, Shared};
use crate::folder::RunFolder;
use crate::limits;

/// What an owner wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Pin this codec, from the first epoch that may use it; its component is among the run's blobs.
    Pin(CodecPin),
    /// Take away what is pinned.
    Unpin,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granted {
    /// It stands in the log; the codec may be used from this epoch on.
    Pinned {
        /// First epoch.
        from: Epoch,
    },
    /// It is pinned already.
    Already,
    /// It stands in the log.
    Unpinned,
    /// The run does not take it.
    Refused {
        /// Why.
        reason: String,
    },
}

impl Wish {
    /// Lays the wish into a run's folder, in place of an earlier one. The orchestrator takes it within a second, or when
    /// it runs.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn leave(&self, folder: &RunFolder) -> std::io::Result<()> {
        remove(&folder.codec_answer())?;
        let draft = folder.codec_wish().with_extension("wish-draft");
        std::fs::write(&draft, wire::to_bytes(self))?;
        std::fs::rename(draft, folder.codec_wish())
    }
}

impl Granted {
    /// The answer to the last wish, once there is one.
    pub fn read(folder: &RunFolder) -> Option<Self> {
        wire::from_bytes(&std::fs::read(folder.codec_answer()).ok()?).ok()
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Looks for wishes until `stop`.
pub(super) struct Pins {
    pub(super) folder: RunFolder,
    pub(super) blobs: std::sync::Arc<dyn Blobs>,
    pub(super) shared: std::sync::Arc<Shared>,
    pub(super) inputs: Inputs,
}

impl Pins {
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            // Out of the way first: a newer wish that comes meanwhile is the next one.
            let (wish, under_way) = (self.folder.codec_wish(), self.folder.codec_taken());
            drop(tokio::fs::rename(wish, &under_way).await);
            if let Ok(bytes) = tokio::fs::read(&under_way).await {
                let Some(granted) = self.grant(&bytes).await else { return };
                tracing::info!(?granted, "a wish about the codec");
                let answer = tokio::fs::write(self.folder.codec_answer(), wire::to_bytes(&granted)).await;
                let taken = tokio::fs::remove_file(under_way).await;
                if let Err(error) = answer.and(taken) {
                    tracing::warn!(%error, "the run's folder cannot be written: a wish about the codec stays there");
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(limits::PIN_LOOK) => {}
            }
        }
    }

    /// None when nobody takes inputs any more.
    async fn grant(&self, bytes: &[u8]) -> Option<Granted> {
        let refused = |reason: String| Some(Granted::Refused { reason });
        let wish: Wish = match wire::from_bytes(bytes) {
            Ok(wish) => wish,
            Err(error) => return refused(format!("not a wish of this version: {error}")),
        };
        let Wish::Pin(pin) = wish else {
            return match self.state(Control::CodecUnpinned).await? {
                Ok(()) => Some(Granted::Unpinned),
                Err(refusal) => refused(refusal.to_string()),
            };
        };
        if let Err(error) = self.blobs.get(pin.component).await {
            return refused(format!("its component is not among the run's blobs: {error}"));
        }
        let mut states = self.shared.states();
        loop {
            let from = states.borrow_and_update().codec_from();
            match self.state(Control::CodecPinned(CodecPin { from, ..pin.clone() })).await? {
                Ok(()) => return Some(Granted::Pinned { from }),
                // An epoch opened meanwhile.
                Err(Refusal::WrongEpoch { ours, .. }) if ours > from => states.changed().await.ok()?,
                Err(Refusal::Repeated { .. }) => return Some(Granted::Already),
                Err(refusal) => return refused(refusal.to_string()),
            }
        }
    }

    async fn state(&self, control: Control) -> Option<Result<(), Refusal>> {
        let (answer, outcome) = oneshot::channel();
        let len = wire::to_bytes(&control).len();
        self.inputs.send(Pending { input: Input::Control(control), len, answer }).await.ok()?;
        Some(outcome.await.ok()?.map(|_| ()))
    }
}
