//! Key files: one node's secret, 64 hex digits, readable by its owner only.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use wire::SigningKey;

use crate::limits;

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not there.
    #[error("no key at {path}: make one with `shoal key new {path}`")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// There already.
    #[error("{path} is there already and was left alone: choose another name")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Others can read it.
    #[error("others can read the key {path} (mode {mode:o}): run `chmod 600 {path}`")]
    Open {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 64 hex digits.
    #[error(
        "{path} is not a key file (64 hex digits): put back a copy, or make a new key under another name"
    )]
    Malformed {
        /// Where.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("cannot {doing} the key {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system's random generator failed: {0}")]
    Random(io::Error),
}

/// A new key from the operating system's generator.
pub fn generate() -> Result<SigningKey, KeyError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| KeyError::Random(error.into()))?;
    Ok(SigningKey::from_bytes(&secret))
}

/// Writes a new key to `path`, which must not exist, with mode 0600.
pub fn create(path: &Path) -> Result<SigningKey, KeyError> {
    let key = generate()?;
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => KeyError::Io { doing: "write", path: path.to_owned(), source },
    };
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(io)?;
    let text = format!("{}\n", data_encoding::HEXLOWER.encode(&key.to_bytes()));
    if let Err(source) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        drop(fs::remove_file(path)); // half a key is worse than none
        return Err(io(source));
    }
    Ok(key)
}

/// Reads a key that only its owner can read.
pub fn load(path: &Path) -> Result<SigningKey, KeyError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
        _ => KeyError::Io { doing: "read", path: path.to_owned(), source },
    };
    let file = fs::File::open(path).map_err(io)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().map_err(io)?) & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
    }
    let mut text = Vec::new();
    file.take(limits::KEY_FILE_BYTES).read_to_end(&mut text).map_err(io)?;
    let malformed = || KeyError::Malformed { path: path.to_owned() };
    let secret = data_encoding::HEXLOWER.decode(text.trim_ascii()).map_err(|_| malformed())?;
    Ok(SigningKey::from_bytes(&secret.try_into().map_err(|_| malformed())?))
}

/// Reads the key at `path`, or makes it.
pub fn load_or_create(path: &Path) -> Result<SigningKey, KeyError> {
    match load(path) {
        Err(KeyError::Missing { .. }) => create(path),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        assert!(matches!(load(&path), Err(KeyError::Missing { .. })));
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().to_bytes(), made.to_bytes());
        assert!(matches!(create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(generate().unwrap().to_bytes(), generate().unwrap().to_bytes());
    }

    #[test]
    fn open_and_broken_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&path), Err(KeyError::Open { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in ["", "abcd", "zz", &"a".repeat(66), &"A".repeat(64)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(load(&path), Err(KeyError::Malformed { .. })), "{bad}");
        }
    }
}
