//! A sample of what this miner sends, as files: the traffic that codecs are judged on (`shoal arena harvest`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use codec::CodecId;
use model::config::Message;
use wire::Direction;

use super::frames;
use crate::limits;

/// Writes every so many-th frame to a folder until it holds enough.
#[derive(Debug)]
pub(super) struct Samples {
    folder: PathBuf,
    seen: AtomicU64,
}

impl Samples {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), seen: AtomicU64::new(0) }
    }

    /// Whether the next frame is one to keep, and its number.
    pub(super) fn next(&self) -> Option<u64> {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        let number = seen / limits::KEEP_EVERY;
        (seen.is_multiple_of(limits::KEEP_EVERY) && number < limits::KEEP_FRAMES).then_some(number)
    }

    /// Writes one frame as a raw payload of `codec`, which holds type and shape. A full disk stops no training.
    pub(super) fn write(&self, number: u64, direction: Direction, message: &Message) {
        let way = if direction == Direction::Forward { "forward" } else { "backward" };
        let path = self.folder.join(format!("{way}-{number:06}.frame"));
        let Some(payload) = frames::payload(CodecId::Raw, message) else { return };
        let written = std::fs::create_dir_all(&self.folder).and_then(|()| std::fs::write(&path, payload));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "a frame was not kept");
        }
    }
}
