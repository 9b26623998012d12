//! Failures as people and programs see them: one clear line, and an exit code that means something.

use std::io::Write as _;
use std::process::ExitCode;

use crate::arena_cli::Untrue;

/// Something went wrong while running.
pub(crate) const FAILED: u8 = 1;
/// What was given cannot be used: spec, data, tokenizer, checkpoint, key, folder, a damaged log, a full disk. The same again
/// gives the same.
pub(crate) const BAD_INPUT: u8 = 3;
/// `verify` found an entry that does not follow.
pub(crate) const DOES_NOT_FOLLOW: u8 = 4;
/// Stopped at once: by a second Ctrl-C, or by the first before anything began.
pub(crate) const INTERRUPTED: u8 = 130;

/// Input that cannot be used, with the reason and the next step.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadInput(pub(crate) String);

/// An error about input that cannot be used.
pub(crate) fn bad_input(words: impl Into<String>) -> anyhow::Error {
    BadInput(words.into()).into()
}

/// Exit code of an error.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    let input = error.chain().any(|cause| {
        cause.is::<BadInput>()
            || cause.is::<node::spec::SpecError>()
            || cause.is::<arena::spec::SpecError>()
            || cause.is::<model::data::DataError>()
            || cause.is::<model::tokenizer::TokenizerError>()
            || cause.is::<model::checkpoint::CheckpointError>()
            || cause.is::<model::sample::SampleError>()
            || cause.is::<node::key::KeyError>()
            || cause.downcast_ref().is_some_and(node::orchestrator::OrchestratorError::is_for_hands)
            || cause.downcast_ref().is_some_and(node::miner::MinerError::is_for_hands)
            || cause.downcast_ref().is_some_and(node::validator::ValidatorError::is_for_hands)
            || cause.downcast_ref().is_some_and(store::LogError::is_for_hands)
            || cause.downcast_ref().is_some_and(store::BlobError::is_for_hands)
            || matches!(
                cause.downcast_ref::<api::ClientError>(),
                Some(api::ClientError::NoKey | api::ClientError::Address { .. })
            )
    });
    match () {
        () if error.chain().any(<dyn std::error::Error>::is::<Untrue>) => Untrue::CODE,
        () if input => BAD_INPUT,
        () => FAILED,
    }
}

/// Prints an error to stderr (as one line, or as JSON) and gives its exit code.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = code_of(error);
    let words = error.chain().map(ToString::to_string).fold(Vec::<String>::new(), |mut all, cause| {
        // Some causes repeat what the one above already says.
        if !all.last().is_some_and(|above| above.contains(&cause)) {
            all.push(cause);
        }
        all
    });
    let words = words.join(": ");
    let line = if json {
        serde_json::json!({ "error": words, "code": code }).to_string()
    } else {
        format!("shoal: {words}")
    };
    // Where nobody can be told (a full disk, a closed pipe), the code still tells.
    drop(writeln!(std::io::stderr(), "{line}"));
    ExitCode::from(code)
}
