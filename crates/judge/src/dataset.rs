//! Data sets: a folder, or a prefix of an object store, with a `manifest.csv` and one file per input.
//!
//! The manifest's first row names its columns; `file` comes first. Unknown columns are kept out of the way, not refused.
//!
//! | column | what | if missing |
//! |---|---|---|
//! | `file` | name below the folder, without `..` | – |
//! | `blake3` | hash of the file, 64 hex digits | the content is not checked; pools and published samples must have it |
//! | `bytes` | length of the file | not checked |
//! | `rows`, `cols` | shape | one row |
//! | `dtype` | `bf16`, little-endian and row-major: the only one | `bf16` |
//! | `direction` | `forward` or `backward` | `forward` |
//! | `operator` | node id of who computed it | nobody's |
//!
//! A file that begins with the head of [`crate::input`] says its shape and direction itself; [`write()`] makes such files.
//!
//! A manifest without that first row is read as a list of file names, as the samples of Apex have it (arena specs §10.4).

mod manifest;
mod remote;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt};
use wire::Hash;

pub(crate) use self::manifest::check_name;
pub use self::manifest::{Item, Manifest};
use crate::error::JudgeError;
use crate::input::Input;
use crate::limits;

/// Name of the manifest in every data set.
pub const MANIFEST: &str = "manifest.csv";

/// A data set that was opened. Contents are read when asked for, and checked then.
#[derive(Debug)]
pub struct Dataset {
    place: String,
    store: Arc<dyn ObjectStore>,
    prefix: Location,
    manifest: Manifest,
    /// What helps where the store refuses.
    hint: Option<&'static str>,
}

impl Dataset {
    /// Opens a data set.
    pub async fn open(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, JudgeError> {
        let place = if prefix.is_empty() { store.to_string() } else { format!("{store}/{prefix}") };
        let prefix = Location::parse(prefix).map_err(|error| fault(&place, error.to_string()))?;
        Self::open_at(place, store, prefix, None).await
    }

    /// Opens what an address names: `http://`, `https://`, `s3://BUCKET/PREFIX` and `gs://BUCKET/PREFIX` are prefixes of
    /// object stores (the usual `AWS_…` and `GOOGLE_…` variables hold key, region and endpoint; without a key they are asked
    /// unsigned, with `AWS_SKIP_SIGNATURE=false` or `GOOGLE_SKIP_SIGNATURE=false` as the machine's role), anything else is
    /// a folder.
    pub async fn at(place: &str) -> Result<Self, JudgeError> {
        let text = |value: OsString| value.into_string().ok();
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        Self::at_with(place, &variables.collect::<Vec<_>>()).await
    }

    /// The same with given settings in place of the process's variables.
    pub async fn at_with(place: &str, settings: &[(String, String)]) -> Result<Self, JudgeError> {
        if !place.contains("://") {
            return Self::folder(Path::new(place)).await;
        }
        let (store, prefix) = remote::store(place, settings).map_err(|reason| fault(place, reason))?;
        let shown = place.trim_end_matches('/').to_owned();
        Self::open_at(shown, store, prefix, remote::unsigned_hint(place, settings)).await
    }

    /// Opens a folder.
    pub async fn folder(folder: &Path) -> Result<Self, JudgeError> {
        let place = folder.display().to_string();
        let store =
            LocalFileSystem::new_with_prefix(folder).map_err(|error| fault(&place, error.to_string()))?;
        Self::open_at(place, Arc::new(store), Location::default(), None).await
    }

    async fn open_at(
        place: String,
        store: Arc<dyn ObjectStore>,
        prefix: Location,
        hint: Option<&'static str>,
    ) -> Result<Self, JudgeError> {
        let bytes = read(&store, &prefix.clone().join(MANIFEST), limits::MANIFEST_BYTES_MAX, hint)
            .await
            .map_err(|reason| fault(&format!("{place}/{MANIFEST}"), reason))?;
        let manifest =
            Manifest::parse(&bytes).map_err(|reason| fault(&format!("{place}/{MANIFEST}"), reason))?;
        Ok(Self { place, store, prefix, manifest, hint })
    }

    /// What it lists.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Reads one item as it is stored, checked against length and hash where the manifest has them.
    pub async fn bytes(&self, item: &Item) -> Result<Vec<u8>, JudgeError> {
        let place = format!("{}/{}", self.place, item.file);
        let location = Location::parse(&item.file).map_err(|error| fault(&place, error.to_string()))?;
        let location = self.prefix.parts().chain(location.parts()).collect();
        let bytes = read(&self.store, &location, limits::INPUT_BYTES_MAX + 64, self.hint)
            .await
            .map_err(|reason| fault(&place, reason))?;
        if let Some(expected) = item.bytes.filter(|expected| *expected != bytes.len() as u64) {
            let found = bytes.len();
            return Err(fault(&place, format!("the manifest says {expected} bytes, the file has {found}")));
        }
        let found = Hash::of(&bytes);
        match item.hash {
            Some(expected) if expected != found => Err(JudgeError::Mismatch { place, expected, found }),
            _ => Ok(bytes),
        }
    }

    /// Reads and checks one item.
    pub async fn input(&self, item: &Item) -> Result<Input, JudgeError> {
        let bytes = self.bytes(item).await?;
        Input::of_blob(item.file.clone(), &bytes, item.shape.clone(), item.direction)
            .map_err(|error| fault(&format!("{}/{}", self.place, item.file), error.to_string()))
    }

    /// Reads and checks everything, in the order of the manifest.
    pub async fn inputs(&self) -> Result<Vec<Input>, JudgeError> {
        let mut all = Vec::with_capacity(self.manifest.items.len());
        for item in &self.manifest.items {
            all.push(self.input(item).await?);
        }
        Ok(all)
    }

    /// The inputs of a round by their hashes, from any of some data sets.
    pub async fn find(sets: &[Self], hashes: &[Hash]) -> Result<Vec<Input>, JudgeError> {
        let mut all = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let known = sets.iter().find_map(|set| {
                let item = set.manifest.items.iter().find(|item| item.hash == Some(*hash))?;
                Some((set, item))
            });
            let (set, item) = known.ok_or(JudgeError::MissingInput(*hash))?;
            all.push(set.input(item).await?);
        }
        Ok(all)
    }
}

/// Writes a data set to a new or empty folder.
pub fn write(folder: &Path, inputs: &[(Input, Option<wire::NodeId>)]) -> Result<Manifest, JudgeError> {
    let failed = |path: &Path, source| JudgeError::File { path: path.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let path = folder.join(MANIFEST);
    if path.exists() {
        return Err(fault(
            &path.display().to_string(),
            "there is a data set already: choose another folder".into(),
        ));
    }
    let mut items = Vec::with_capacity(inputs.len());
    for (input, operator) in inputs {
        let item = Item {
            file: input.name.clone(),
            hash: Some(input.hash),
            bytes: Some(input.to_blob().len() as u64),
            shape: Some(input.shape.clone()),
            direction: input.direction,
            operator: *operator,
        };
        manifest::check_name(&item.file).map_err(|reason| fault(&item.file, reason))?;
        let file = folder.join(&item.file);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        }
        std::fs::write(&file, input.to_blob()).map_err(|error| failed(&file, error))?;
        items.push(item);
    }
    let manifest = Manifest { items };
    std::fs::write(&path, manifest.to_csv()).map_err(|error| failed(&path, error))?;
    Ok(manifest)
}

fn fault(place: &str, reason: String) -> JudgeError {
    JudgeError::Dataset { place: place.to_owned(), reason }
}

async fn read(
    store: &Arc<dyn ObjectStore>,
    location: &Location,
    most: usize,
    hint: Option<&str>,
) -> Result<Vec<u8>, String> {
    let found = store.get(location).await.map_err(|error| match error {
        object_store::Error::NotFound { .. } => "not there".to_owned(),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
            format!("{error}{hint}")
        }
        other => other.to_string(),
    })?;
    if found.meta.size > most as u64 {
        return Err(format!("{} bytes, at most {most} are allowed", found.meta.size));
    }
    Ok(found.bytes().await.map_err(|error| error.to_string())?.to_vec())
}
