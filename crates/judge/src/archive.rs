//! Programs of more than one file: a zip of the program's folder. What it may hold is bounded before anything is
//! written, and what it unpacks to is bounded while it is written.
//!
//! Only plain files and folders, under names that stay below the folder. Links, devices, encrypted files, two files of
//! one name and anything over a limit make the whole archive invalid: nothing of it is run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use arena::spec::Form;
use zip::ZipArchive;

use crate::dataset;
use crate::limits;
use crate::mode::set_mode;

/// What a Python program is called in its folder.
pub(crate) const PYTHON: &str = "solution.py";
/// What a native program is called in its folder.
pub(crate) const NATIVE: &str = "solution";

/// Why an archive is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Not a zip, or a damaged one.
    #[error("the zip cannot be read: {0}; is it whole?")]
    Damaged(String),
    /// Too much in it.
    #[error("the zip has {found} {what}, at most {limit} are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much, as far as it was counted.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Something that is neither file nor folder, or a name that leaves the folder.
    #[error("the zip holds {name:?}: {reason}")]
    Entry {
        /// Its name there.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No program.
    #[error("the zip has no {expected} at its top (zip the files, not the folder around them)")]
    NoProgram {
        /// What was looked for.
        expected: &'static str,
    },
}

/// Whether bytes are meant to be a zip.
pub(crate) fn is_archive(code: &[u8]) -> bool {
    // The second is an empty zip's.
    code.starts_with(b"PK\x03\x04") || code.starts_with(b"PK\x05\x06")
}

/// Whose program is in it.
pub(crate) fn form(code: &[u8]) -> Result<Form, ArchiveError> {
    let archive = open(code)?;
    let has = |name: &str| archive.index_for_name(name).is_some();
    match () {
        () if has(PYTHON) => Ok(Form::Python),
        () if has(NATIVE) => Ok(Form::Native),
        () => Err(ArchiveError::NoProgram { expected: "solution.py or solution" }),
    }
}

fn damaged(error: &dyn std::fmt::Display) -> ArchiveError {
    ArchiveError::Damaged(error.to_string())
}

fn open(code: &[u8]) -> Result<ZipArchive<Cursor<&[u8]>>, ArchiveError> {
    let archive = ZipArchive::new(Cursor::new(code)).map_err(|error| damaged(&error))?;
    bound("files", archive.len() as u64, limits::ARCHIVE_FILES_MAX as u64)?;
    Ok(archive)
}

fn bound(what: &'static str, found: u64, limit: u64) -> Result<(), ArchiveError> {
    if found <= limit { Ok(()) } else { Err(ArchiveError::TooLarge { what, found, limit }) }
}

/// Why unpacking failed.
#[derive(Debug)]
pub(crate) enum UnpackError {
    /// The archive's fault.
    Archive(ArchiveError),
    /// This machine's.
    File(PathBuf, io::Error),
}

impl From<ArchiveError> for UnpackError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

/// Writes an archive's files below a new, empty folder. `program` must be among them.
pub(crate) fn unpack(code: &[u8], folder: &Path, program: &'static str) -> Result<(), UnpackError> {
    let mut archive = open(code)?;
    if archive.index_for_name(program).is_none() {
        return Err(ArchiveError::NoProgram { expected: program }.into());
    }
    let mut seen = BTreeSet::new();
    let mut left = limits::ARCHIVE_BYTES_MAX;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).map_err(|error| damaged(&error))?;
        let name = file.name().map_err(|error| damaged(&error))?.into_owned();
        let refuse = |reason| ArchiveError::Entry { name: name.clone(), reason };
        let kind = file.unix_mode().map_or(0, |mode| mode & 0o170_000);
        if file.is_symlink() || !matches!(kind, 0 | 0o100_000 | 0o040_000) {
            return Err(refuse("only files and folders are allowed").into());
        }
        let plain = name.strip_suffix('/').unwrap_or(&name);
        dataset::check_name(plain).map_err(|_| refuse("a name that is not allowed"))?;
        // Some file systems know no case; what is unpacked must be the same everywhere.
        if !seen.insert(plain.to_ascii_lowercase()) {
            return Err(refuse("there twice").into());
        }
        bound("folders in each other", plain.split('/').count() as u64, limits::ARCHIVE_DEPTH_MAX as u64)?;
        let path = folder.join(plain);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| UnpackError::File(path, error)
        };
        if file.is_dir() {
            make_folder(folder, &path).map_err(failed(&path))?;
            continue;
        }
        if let Some(parent) = path.parent() {
            make_folder(folder, parent).map_err(failed(parent))?;
        }
        let mut out = File::create_new(&path).map_err(failed(&path))?;
        // The size in the head may lie: one byte more than is left tells.
        let copied = io::copy(&mut (&mut file).take(left + 1), &mut Unpacked(&mut out));
        let copied = match copied {
            Ok(copied) => copied,
            Err(error)
                if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<DiskError>) =>
            {
                return Err(UnpackError::File(path, error));
            }
            Err(error) => return Err(damaged(&error).into()),
        };
        bound("bytes unpacked", limits::ARCHIVE_BYTES_MAX - left + copied, limits::ARCHIVE_BYTES_MAX)?;
        left -= copied;
        let runs = plain == NATIVE || file.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        set_mode(&path, if runs { 0o755 } else { 0o644 }).map_err(failed(&path))?;
    }
    Ok(())
}

/// Makes a folder and those above it, up to the entry's own, for everybody to read.
fn make_folder(root: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    for folder in path.ancestors().take_while(|folder| *folder != root) {
        set_mode(folder, 0o755)?;
    }
    Ok(())
}

/// Marks errors of the disk, to tell them from errors of the archive.
struct Unpacked<'a>(&'a mut File);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DiskError(io::Error);

impl io::Write for Unpacked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| io::Error::new(error.kind(), DiskError(error)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    enum Part<'a> {
        File(&'a str, &'a [u8], u32),
        Link(&'a str, &'a str),
        Folder(&'a str),
    }

    fn zip(parts: &[Part<'_>]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for part in parts {
            match part {
                Part::File(name, bytes, mode) => {
                    writer.start_file(*name, options.unix_permissions(*mode)).unwrap();
                    writer.write_all(bytes).unwrap();
                }
                Part::Link(name, target) => writer.add_symlink(*name, *target, options).unwrap(),
                Part::Folder(name) => writer.add_directory(*name, options).unwrap(),
            }
        }
        writer.finish().unwrap().into_inner()
    }

    fn unpacked(code: &[u8]) -> Result<tempfile::TempDir, ArchiveError> {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("entry");
        fs::create_dir(&inner).unwrap();
        let done = unpack(code, &inner, PYTHON);
        let outside: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside, ["entry"], "nothing leaves the folder");
        match done {
            Ok(()) => Ok(folder),
            Err(UnpackError::Archive(error)) => Err(error),
            Err(UnpackError::File(path, error)) => panic!("{}: {error}", path.display()),
        }
    }

    const MAIN: Part<'_> = Part::File(PYTHON, b"import tables\n", 0o600);

    #[test]
    fn a_folder_comes_back() {
        let code = zip(&[
            MAIN,
            Part::Folder("empty"),
            Part::File("tables/__init__.py", b"x = 1", 0o644),
            Part::File("bin/tool", b"#!/bin/sh", 0o777),
        ]);
        assert_eq!(form(&code), Ok(Form::Python));
        let folder = unpacked(&code).unwrap();
        let at = |name: &str| folder.path().join("entry").join(name);
        assert_eq!(fs::read(at("tables/__init__.py")).unwrap(), b"x = 1");
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        let names = ["solution.py", "bin/tool", "tables", "empty", "bin"];
        assert_eq!(names.map(mode), [0o644, 0o755, 0o755, 0o755, 0o755]);
        assert_eq!(form(&zip(&[Part::File(NATIVE, b"\x7fELF", 0o644)])), Ok(Form::Native));
    }

    #[test]
    fn tricks_are_refused_by_name() {
        let other = |part: Part<'_>| unpacked(&zip(&[MAIN, part])).unwrap_err();
        for part in [
            Part::Link("passwd", "/etc/passwd"),
            Part::Link("up", "../.."),
            Part::File("../outside", b"x", 0o644),
            Part::File("/etc/absolute", b"x", 0o644),
            Part::File("a/../../outside", b"x", 0o644),
            Part::File("back\\slash", b"x", 0o644),
            Part::File("SOLUTION.PY", b"x", 0o644),
            Part::File("control\n", b"x", 0o644),
        ] {
            let error = other(part);
            assert!(matches!(error, ArchiveError::Entry { .. }), "{error}");
        }
        let deep = "d/".repeat(limits::ARCHIVE_DEPTH_MAX) + "x";
        assert!(matches!(other(Part::File(&deep, b"", 0o644)), ArchiveError::TooLarge { .. }));
        // A file where another's folder must be.
        let crossed = zip(&[MAIN, Part::File("a", b"x", 0o644), Part::File("a/b", b"x", 0o644)]);
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack(&crossed, folder.path(), PYTHON).is_err());
        let around = zip(&[Part::File("mine/solution.py", b"x", 0o644)]);
        assert!(matches!(unpacked(&around).unwrap_err(), ArchiveError::NoProgram { .. }));
        assert!(matches!(form(&around).unwrap_err(), ArchiveError::NoProgram { .. }));
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        let parts = (limits::ARCHIVE_BYTES_MAX / zeros.len() as u64 + 1) as usize;
        let names: Vec<String> = (0..parts).map(|index| format!("zeros-{index}")).collect();
        let mut all = vec![MAIN];
        all.extend(names.iter().map(|name| Part::File(name, &zeros, 0o644)));
        let bomb = zip(&all);
        assert!(bomb.len() < 1 << 20, "small to send: {}", bomb.len());
        assert!(matches!(
            unpacked(&bomb).unwrap_err(),
            ArchiveError::TooLarge { what: "bytes unpacked", .. }
        ));
        let names: Vec<String> = (0..=limits::ARCHIVE_FILES_MAX).map(|index| format!("f{index}")).collect();
        let many: Vec<Part<'_>> = names.iter().map(|name| Part::File(name, b"", 0o644)).collect();
        assert!(matches!(form(&zip(&many)).unwrap_err(), ArchiveError::TooLarge { what: "files", .. }));
    }

    proptest! {
        #[test]
        fn damaged_archives_are_errors_and_never_panics(
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut code = zip(&[MAIN, Part::File("tables/a.py", b"x = 1\n", 0o644)]);
            for (at, byte) in flips {
                let at = at.index(code.len());
                code[at] = byte;
            }
            code.truncate(code.len() - cut.index(8));
            drop(form(&code));
            let folder = tempfile::tempdir().unwrap();
            drop(unpack(&code, folder.path(), PYTHON));
        }
    }
}
