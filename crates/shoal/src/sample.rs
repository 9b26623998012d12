//! `shoal sample`: text from a checkpoint, as it is made.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use model::checkpoint::Checkpoint;
use model::sample::{SampleOptions, Sampler, Stop};
use node::folder::RunFolder;

use crate::cli::SampleArgs;
use crate::failure::bad_input;
use crate::watch::print;

/// Longest prompt, bytes.
const PROMPT_BYTES_MAX: u64 = 16 << 20;

/// `shoal sample`.
pub(crate) fn run(args: &SampleArgs, json: bool) -> Result<ExitCode> {
    let folder = checkpoint_of(&args.checkpoint)?;
    let prompt = match args.prompt.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .take(PROMPT_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|error| bad_input(format!("the prompt on standard input is not text: {error}")))?;
            text
        }
        text => text.to_owned(),
    };
    let threads = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0));
    let pool = Arc::new(threads.build().context("cannot start threads")?);
    let sampler = Sampler::open(&Checkpoint::open(&folder)?, &pool)?;
    let options = SampleOptions {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
        max_tokens: args.tokens,
    };
    let mut text = String::new();
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    if !json {
        written = out.write_all(prompt.as_bytes());
    }
    let stop = sampler.continue_text(&prompt, &options, |piece| {
        text.push_str(piece);
        if !json && written.is_ok() {
            written = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        }
        written.is_ok()
    })?;
    drop(out);
    // A reader that has enough, like `head`, is no failure.
    if written.is_err() {
        return Ok(ExitCode::SUCCESS);
    }
    if json {
        let stop = match stop {
            Stop::EndOfText => "end_of_text",
            Stop::MaxTokens | Stop::Asked => "max_tokens",
        };
        print(
            &serde_json::json!({ "prompt": prompt, "text": text, "stop": stop, "checkpoint": folder })
                .to_string(),
        )?;
    } else {
        print("")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The checkpoint meant by a path: itself, or the newest one of a run folder.
pub(crate) fn checkpoint_of(path: &Path) -> Result<PathBuf> {
    let run = RunFolder::new(path);
    if !run.spec().exists() {
        return Ok(path.to_owned());
    }
    let entries = std::fs::read_dir(run.checkpoints()).into_iter().flatten().filter_map(Result::ok);
    let newest = entries.map(|entry| entry.path()).filter(|path| path.join("shoal.json").exists()).max();
    newest.ok_or_else(|| {
        bad_input(format!(
            "{} has no checkpoint yet: let the run end, or write some on the way (--checkpoint-every)",
            path.display()
        ))
    })
}
