//! An entry's files: laid out in a folder of ours, and nothing in them leads out of it.
//!
//! Plain files and folders only. Links, devices, pipes and sockets, names that climb or start at the root, names that
//! differ only for us, archives that grow when unpacked: each is refused by name, before anything is run.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::fault::{Error, Fault, HostError};
use crate::limits::{DEPTH_MAX, PATH_BYTES_MAX};

/// How much an entry may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryLimits {
    /// All files together, bytes.
    pub bytes: u64,
    /// Files and folders.
    pub files: usize,
}

impl Default for EntryLimits {
    fn default() -> Self {
        Self { bytes: 64 << 20, files: 1000 }
    }
}

/// Copies an entrant's folder to `to`, which must not exist. Returns the bytes of its files.
///
/// # Errors
/// [`Fault::Forbidden`] for links and special files, [`Fault::Invalid`] for what is too much or has a bad name.
pub fn copy_folder(from: &Path, to: &Path, limits: &EntryLimits) -> Result<u64, Error> {
    let mut layout = Layout::new(to, limits)?;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let listed = fs::read_dir(from.join(&folder)).map_err(|error| unreadable(&error))?;
        for item in listed {
            let item = item.map_err(|error| unreadable(&error))?;
            let path = folder.join(item.file_name());
            let kind = item.file_type().map_err(|error| unreadable(&error))?;
            if kind.is_dir() {
                layout.folder(&path)?;
                folders.push(path);
            } else if kind.is_file() {
                // Whoever owns the folder may swap the file for a link now: do not follow one, do not wait on a pipe.
                let mut file = OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                    .open(from.join(&path))
                    .map_err(|error| unreadable(&error))?;
                let metadata = file.metadata().map_err(|error| unreadable(&error))?;
                if !metadata.is_file() {
                    return Err(special(&path));
                }
                layout.file(&path, &mut file, metadata.permissions().mode() & 0o100 != 0)?;
            } else {
                return Err(special(&path));
            }
        }
    }
    Ok(layout.bytes)
}

/// Unpacks a tar archive (not compressed) to `to`, which must not exist. Returns the bytes of its files.
///
/// # Errors
/// As [`copy_folder`]; [`Fault::Invalid`] also for what is no tar archive.
pub fn unpack_tar(archive: &[u8], to: &Path, limits: &EntryLimits) -> Result<u64, Error> {
    let mut layout = Layout::new(to, limits)?;
    let broken = |error: std::io::Error| Error::entry(Fault::Invalid, format!("not a tar archive: {error}"));
    let mut tar = tar::Archive::new(archive);
    for item in tar.entries().map_err(broken)? {
        let mut item = item.map_err(broken)?;
        let path = item.path().map_err(broken)?.into_owned();
        let kind = item.header().entry_type();
        if kind.is_dir() {
            layout.folder(&path)?;
        } else if kind == tar::EntryType::Regular {
            let runs = item.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
            layout.file(&path, &mut item, runs)?;
        } else {
            return Err(special(&path));
        }
    }
    if layout.seen.is_empty() {
        return Err(Error::entry(Fault::Invalid, "the archive is empty"));
    }
    Ok(layout.bytes)
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::entry(Fault::Invalid, format!("a file of the entry cannot be read: {error}"))
}

fn special(path: &Path) -> Error {
    Error::entry(
        Fault::Forbidden,
        format!("{:?} is neither a file nor a folder (no links either)", shown(path)),
    )
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().take(200).collect()
}

/// What was laid out until now.
struct Layout<'a> {
    to: &'a Path,
    limits: &'a EntryLimits,
    seen: BTreeSet<PathBuf>,
    bytes: u64,
}

impl<'a> Layout<'a> {
    fn new(to: &'a Path, limits: &'a EntryLimits) -> Result<Self, Error> {
        fs::create_dir(to).map_err(|error| HostError::system("an entry cannot be laid out", error))?;
        Ok(Self { to, limits, seen: BTreeSet::new(), bytes: 0 })
    }

    /// A name that stays inside, or why not.
    fn name(path: &Path) -> Result<PathBuf, Error> {
        let refuse = |fault, why: &str| Err(Error::entry(fault, format!("{:?}: {why}", shown(path))));
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > PATH_BYTES_MAX
            || bytes.iter().any(|byte| *byte < b' ' || *byte == b'\\' || *byte == 0x7f)
        {
            return refuse(Fault::Invalid, "too long, or with a control character or backslash");
        }
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                _ => return refuse(Fault::Forbidden, "leads out of the entry's folder"),
            }
        }
        if clean.components().count() > DEPTH_MAX {
            return refuse(Fault::Invalid, "too deep");
        }
        Ok(clean)
    }

    fn count(&mut self, path: &Path) -> Result<(), Error> {
        if self.seen.len() >= self.limits.files {
            let log = format!("more than {} files and folders", self.limits.files);
            return Err(Error::entry(Fault::Invalid, log));
        }
        if !self.seen.insert(path.to_path_buf()) {
            return Err(Error::entry(Fault::Invalid, format!("{:?} comes twice", shown(path))));
        }
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> Result<(), Error> {
        let missing: Vec<PathBuf> = path
            .ancestors()
            .skip(1)
            .filter(|folder| !folder.as_os_str().is_empty() && !self.seen.contains(*folder))
            .map(Path::to_path_buf)
            .collect();
        missing.into_iter().rev().try_for_each(|folder| self.make(&folder))
    }

    fn make(&mut self, folder: &Path) -> Result<(), Error> {
        self.count(folder)?;
        fs::create_dir(self.to.join(folder)).map_err(|error| clash(folder, &error))
    }

    fn folder(&mut self, path: &Path) -> Result<(), Error> {
        let path = Self::name(path)?;
        if path.as_os_str().is_empty() || (self.seen.contains(&path) && self.to.join(&path).is_dir()) {
            return Ok(());
        }
        self.parents(&path)?;
        self.make(&path)
    }

    fn file(&mut self, path: &Path, from: &mut impl Read, runs: bool) -> Result<(), Error> {
        let path = Self::name(path)?;
        if path.as_os_str().is_empty() {
            return Err(Error::entry(Fault::Invalid, "a file without a name"));
        }
        self.parents(&path)?;
        self.count(&path)?;
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if runs { 0o755 } else { 0o644 })
            .open(self.to.join(&path))
            .map_err(|error| clash(&path, &error))?;
        let room = self.limits.bytes - self.bytes;
        let mut buffer = vec![0_u8; 64 << 10];
        let mut written = 0_u64;
        loop {
            let read = from.read(&mut buffer).map_err(|error| unreadable(&error))?;
            if read == 0 {
                break;
            }
            written += read as u64;
            if written > room {
                let log = format!("more than {} bytes", self.limits.bytes);
                return Err(Error::entry(Fault::Invalid, log));
            }
            file.write_all(&buffer[..read])
                .map_err(|error| HostError::system("an entry cannot be laid out", error))?;
        }
        self.bytes += written;
        Ok(())
    }
}

/// A file where a folder should be, or the reverse, is the entry's doing; a full disk is not.
fn clash(path: &Path, error: &std::io::Error) -> Error {
    use std::io::ErrorKind::{AlreadyExists, InvalidFilename, NotADirectory};
    if matches!(error.kind(), AlreadyExists | NotADirectory | InvalidFilename) {
        return Error::entry(Fault::Invalid, format!("{:?} clashes with another name: {error}", shown(path)));
    }
    HostError::system("an entry cannot be laid out", error).into()
}
