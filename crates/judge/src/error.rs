//! Why a judge cannot judge. What is wrong with an *entry* is a verdict ([`arena::measure::Failure`]), never an error.

use std::path::PathBuf;

use wire::Hash;

/// Why a judge cannot judge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JudgeError {
    /// A data set that cannot be read.
    #[error("{place}: {reason}")]
    Dataset {
        /// Where it was looked for.
        place: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A file of a data set is not what the manifest says.
    #[error("{place}: the manifest says {expected}, the file has {found}")]
    Mismatch {
        /// The file.
        place: String,
        /// Hash in the manifest.
        expected: Hash,
        /// Hash of the content.
        found: Hash,
    },
    /// An input of the round that this judge does not have.
    #[error("input {0} is not in any data set given: fetch it first")]
    MissingInput(Hash),
    /// A blob that is needed to judge at all: the baseline, an evaluator, a generator, an environment.
    #[error("{what} {hash} is not there: fetch it first")]
    MissingCode {
        /// What it is.
        what: &'static str,
        /// Its hash.
        hash: Hash,
    },
    /// This judge's sandbox is not the one that the spec pins.
    #[error(
        "the spec pins runtime {pinned}, this judge has {ours}: use the version of shoal that it was opened with"
    )]
    Runtime {
        /// In the spec.
        pinned: Hash,
        /// Here.
        ours: Hash,
    },
    /// Native programs are made for another processor than this machine's.
    #[error("native programs are made for {asked} here, this machine is {ours}")]
    Architecture {
        /// In the spec.
        asked: &'static str,
        /// Here.
        ours: &'static str,
    },
    /// A time limit was missed while something else used this machine's processors.
    #[error(
        "{what} took too long while other work kept this machine busy: that is no fault of the entry; judge on a machine with less to do, or in fewer lanes"
    )]
    Busy {
        /// What was under way.
        what: &'static str,
    },
    /// Programs cannot be contained on this machine.
    #[error("this machine cannot judge programs: {0}")]
    NoJail(String),
    /// The environment of programs could not be built.
    #[error("environment {hash}: {reason}")]
    Environment {
        /// Hash of the lock file.
        hash: Hash,
        /// What went wrong.
        reason: String,
    },
    /// The baseline, or the declared evaluator, failed: its fault, not the entry's.
    #[error("the {what} failed: {reason}")]
    Reference {
        /// Baseline, evaluator or generator.
        what: &'static str,
        /// How.
        reason: String,
    },
    /// The sandbox itself failed.
    #[error("sandbox: {0}")]
    Sandbox(String),
    /// A file of the judge's own.
    #[error("{}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
