//! An entrant's sealed entries: code and salt, kept on the entrant's own disk until the round opens them.
//!
//! What opens a seal is on the disk before the seal is stated, so that no crash makes an entry that nobody can open.

use std::fs;
use std::path::{Path, PathBuf};

use arena::Refusal;
use arena::record::{EntryId, Statement, entry_seal};
use arena::spec::{CompetitionId, Form};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wire::Hash;

use crate::client::{Client, ClientError};
use crate::judge::{form, write};
use crate::limits;
use crate::model::StatementAnswer;

/// What opens one seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Competition.
    pub competition: String,
    /// Form.
    pub form: String,
    /// Hash of the code.
    pub code: String,
    /// Size of the code, bytes.
    pub bytes: u64,
    /// Salt. Whoever knows it can guess which code was entered.
    pub salt: String,
    /// Seal.
    pub seal: String,
    /// Key that entered it.
    pub entrant: String,
}

/// A folder of kept seals.
#[derive(Clone, Debug)]
pub struct Seals {
    folder: PathBuf,
}

/// What is entered.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Competition.
    pub competition: CompetitionId,
    /// What the code is.
    pub form: Form,
    /// The code.
    pub code: Bytes,
    /// Entries that it builds on.
    pub parents: Vec<EntryId>,
    /// Payment, where one is due.
    pub receipt: Option<Hash>,
}

/// What became of a kept seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Its round still takes entries.
    Waits {
        /// Entry.
        entry: u64,
    },
    /// Opened now.
    Now {
        /// Entry.
        entry: u64,
    },
    /// Nothing is left to do: it was opened, replaced, or its time is over.
    Over {
        /// Entry.
        entry: u64,
        /// State of the entry.
        state: String,
    },
    /// It is no entry, or none yet.
    Unknown,
}

impl Seals {
    /// Seals in `folder`, which is made when something is kept.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Seals and enters code: what opens the seal is kept first.
    ///
    /// # Errors
    /// The files failed, or the host refused.
    pub async fn enter(&self, client: &Client, entry: Entry) -> Result<(StatementAnswer, Kept), ClientError> {
        let key = client.key()?;
        let (code, bytes) = (Hash::of(&entry.code), entry.code.len() as u64);
        let now = client.now().0.to_le_bytes();
        let salt = key.derive("arena entry salt", &[&entry.competition.0.0, &code.0, &now]);
        let seal = entry_seal(&entry.competition, &key.node_id(), entry.form, &code, bytes, &salt);
        let kept = Kept {
            competition: entry.competition.to_string(),
            form: entry.form.name().to_owned(),
            code: code.to_string(),
            bytes,
            salt: salt.to_string(),
            seal: seal.to_string(),
            entrant: key.node_id().to_string(),
        };
        self.keep(&kept, &entry.code).map_err(|source| self.failed("keeping a seal in", source))?;
        let Entry { competition, form, parents, receipt, .. } = entry;
        let statement = Statement::Submit { competition, seal, form, parents, receipt };
        match client.state(&statement).await {
            Ok(answer) => Ok((answer, kept)),
            Err(error) => {
                if error.refusal().is_some_and(|refusal| !matches!(refusal, Refusal::Repeated { .. })) {
                    self.forget(&kept.seal);
                }
                Err(error)
            }
        }
    }

    fn keep(&self, kept: &Kept, code: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        #[cfg(unix)]
        fs::set_permissions(&self.folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        write(&self.path(&kept.seal, "code"), code)?;
        write(&self.path(&kept.seal, "json"), serde_json::to_string_pretty(kept)?.as_bytes())
    }

    fn path(&self, seal: &str, extension: &str) -> PathBuf {
        self.folder.join(format!("{seal}.{extension}"))
    }

    fn failed(&self, doing: &'static str, source: std::io::Error) -> ClientError {
        ClientError::Files { doing, place: self.folder.display().to_string(), source }
    }

    /// Forgets a seal.
    pub fn forget(&self, seal: &str) {
        for extension in ["json", "code"] {
            drop(fs::remove_file(self.path(seal, extension)));
        }
    }

    /// All kept seals; files of another kind are passed over.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn all(&self) -> Result<Vec<Kept>, ClientError> {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed("reading", source)),
        };
        let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
        let paths = files.flatten().map(|file| file.path()).filter(json);
        Ok(paths.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect())
    }

    /// Hands code and salt to the host, now: it opens the seal in time, and can look before.
    ///
    /// # Errors
    /// The files failed, or the host refused.
    pub async fn entrust(&self, client: &Client, kept: &Kept, entry: u64) -> Result<(), ClientError> {
        let path = self.path(&kept.seal, "code");
        let code = fs::read(&path).map_err(|source| self.failed("reading a sealed entry in", source))?;
        let target = format!("/v1/submissions/{entry}/code?salt={}", kept.salt);
        client.upload(&target, code.into()).await.map(|_| ())
    }

    /// Whether a seal was kept so long ago that the statement that names it has come by now, or never will.
    fn is_settled(&self, kept: &Kept) -> bool {
        let changed = fs::metadata(self.path(&kept.seal, "json")).and_then(|file| file.modified());
        changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > limits::SEAL_UNSETTLED))
    }

    /// Opens a seal if its round asks for it; what is over is forgotten, and what never became an entry, after a while: it may
    /// be on its way.
    ///
    /// # Errors
    /// The files failed, or the host refused.
    pub async fn open(&self, client: &Client, kept: &Kept) -> Result<Opened, ClientError> {
        let seal =
            kept.seal.parse().map_err(|_| self.failed("reading", std::io::ErrorKind::InvalidData.into()))?;
        let entry = match client.submission_of_seal(&seal).await {
            Ok(entry) => entry,
            Err(error) if error.reason() == Some("not_found") => {
                if self.is_settled(kept) {
                    self.forget(&kept.seal);
                }
                return Ok(Opened::Unknown);
            }
            Err(error) => return Err(error),
        };
        if entry.state != "pending" {
            self.forget(&kept.seal);
            return Ok(Opened::Over { entry: entry.id, state: entry.state });
        }
        let round = client.round(&entry.competition_id, &entry.round_number.to_string()).await?;
        if matches!(round.state.as_str(), "open" | "pooling") {
            return Ok(Opened::Waits { entry: entry.id });
        }
        if round.state != "opening" {
            self.forget(&kept.seal);
            return Ok(Opened::Over { entry: entry.id, state: entry.state });
        }
        self.entrust(client, kept, entry.id).await?;
        let parsed = (|| Some((kept.code.parse().ok()?, kept.salt.parse().ok()?)))();
        let Some((code, salt)) = parsed.filter(|_| form(&kept.form).is_some()) else {
            return Err(self.failed("reading", std::io::ErrorKind::InvalidData.into()));
        };
        let statement = Statement::Unseal { entry: EntryId(entry.id), code, bytes: kept.bytes, salt };
        match client.state(&statement).await {
            // The host has the salt by now and may have been faster.
            Err(ClientError::Refused { status: 409, .. }) => {}
            done => drop(done?),
        }
        Ok(Opened::Now { entry: entry.id })
    }
}
