//! Files that are either complete or absent.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use super::{CheckpointError, read_error};
use crate::limits::MAX_CONFIG_BYTES;

/// Writes `bytes` to `path`: whole and on disk, or not at all. An older file is replaced in one step.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write_file`], for contents that are made while they are written.
pub(super) fn write_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), CheckpointError> {
    let partial = partial_of(path);
    let result = (|| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, path)?;
        sync_parent(path)
    })();
    result.map_err(|source| {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&partial);
        CheckpointError::Write { path: path.display().to_string(), source }
    })
}

/// Makes `folder` with whatever `fill` puts into the folder it is given: complete, or not at all.
pub(super) fn write_folder(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let error = |source| CheckpointError::Write { path: folder.display().to_string(), source };
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(CheckpointError::Exists { path: folder.display().to_string() });
    }
    let partial = partial_of(folder);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(error)?;
    }
    fs::create_dir_all(&partial).map_err(error)?;
    fill(&partial)
        .and_then(|()| fs::rename(&partial, folder).and_then(|()| sync_parent(folder)).map_err(error))
        .inspect_err(|_| {
            let _ = fs::remove_dir_all(&partial);
        })
}

/// A JSON file of a folder, within the limit.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let file = File::open(path).map_err(|source| read_error(path, source))?;
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(|source| read_error(path, source))?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        let reason = format!("it is larger than {MAX_CONFIG_BYTES} bytes");
        return Err(CheckpointError::Json { path: path.display().to_string(), reason });
    }
    Ok(bytes)
}

/// The hidden sibling that is renamed when it is complete.
fn partial_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

/// Makes a rename last: it is the parent that holds the name.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(parent)?.sync_all() } else { Ok(()) }
}
