//! A run's folder while it is being made. A lock in it tells whether somebody still makes it: what a killed process left is
//! taken away by the next one.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// First letters of its name.
const PREFIX: &str = ".new-run-";
/// Held by whoever makes it; it goes before the folder gets its name.
const LOCK: &str = "being-made.lock";
/// Folders tried before giving up: one is taken away by another process only in the moment before it is locked.
const TRIES: usize = 16;

/// The folder; taken away when dropped.
#[derive(Debug)]
pub(crate) struct Draft {
    folder: TempDir,
    lock: File,
}

impl Draft {
    /// Makes one below `parent`.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            let path = folder.path().join(LOCK);
            // Another process may take the folder away until the lock is held.
            let Ok(lock) = File::create(&path) else { continue };
            match lock.try_lock() {
                Ok(()) if path.exists() => return Ok(Self { folder, lock }),
                Ok(()) | Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other("new folders do not stay"))
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The finished folder, without the lock.
    pub(super) fn finish(self) -> io::Result<TempDir> {
        // Whoever looks for left folders wants this file to be there when it has the lock.
        std::fs::remove_file(self.path().join(LOCK))?;
        drop(self.lock);
        Ok(self.folder)
    }
}

/// Takes away what processes below `parent` left that are dead; whatever goes wrong, it stays.
pub(super) fn clear(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
    let is_draft = |entry: &std::fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    for folder in entries.filter(is_draft).map(|entry| entry.path()) {
        let path = folder.join(LOCK);
        let Ok(lock) = File::options().write(true).open(&path) else { continue };
        if lock.try_lock().is_ok() && path.exists() {
            match std::fs::remove_dir_all(&folder) {
                Ok(()) => {
                    tracing::info!(folder = %folder.display(), "left by a process that died: taken away");
                }
                Err(error) => tracing::debug!(%error, folder = %folder.display(), "left as it is"),
            }
        }
    }
}
