//! Where the files of a run lie.

use std::path::{Path, PathBuf};

/// Folder of one run, or of one node of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    root: PathBuf,
}

impl RunFolder {
    /// The folder at `root`, whether it exists or not.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The canonical run spec; its hash is the run's id.
    pub fn spec(&self) -> PathBuf {
        self.root.join("run.toml")
    }

    /// The orchestrator's key.
    pub fn key(&self) -> PathBuf {
        self.root.join("orchestrator.key")
    }

    /// The log and the orchestrator's small durable state.
    pub fn log(&self) -> PathBuf {
        self.root.join("log.sqlite")
    }

    /// Blobs by hash: data shards, tokenizer, merged weights.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// All checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The checkpoint of the weights that `epoch` opens with.
    pub fn checkpoint(&self, epoch: u32) -> PathBuf {
        self.checkpoints().join(format!("epoch-{epoch:06}"))
    }

    /// What the owner wants of the run's codec; the orchestrator takes it.
    pub fn codec_wish(&self) -> PathBuf {
        self.root.join("codec.wish")
    }

    /// The wish that the orchestrator is granting.
    pub fn codec_taken(&self) -> PathBuf {
        self.root.join("codec.taken")
    }

    /// What became of the last such wish.
    pub fn codec_answer(&self) -> PathBuf {
        self.root.join("codec.answer")
    }

    /// The competition whose champions the run takes; the program around the orchestrator looks there.
    pub fn codec_arena(&self) -> PathBuf {
        self.root.join("codec.arena")
    }

    /// Whoever holds this file's lock may change the wish and what is followed.
    pub fn codec_lock(&self) -> PathBuf {
        self.root.join("codec.lock")
    }

    /// Folder of a node that runs on the same machine.
    pub fn node(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }
}
