//! `shoal tokenizer train`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use model::tokenizer::Tokenizer;

use crate::cli::{DataArgs, TokenizerArgs, TokenizerCommand};
use crate::failure::bad_input;
use crate::prepare;
use crate::watch::print;

/// `shoal tokenizer`.
pub(crate) fn run(args: TokenizerArgs, json: bool) -> Result<ExitCode> {
    let TokenizerCommand::Train { data, vocab, out, text_field } = args.command;
    refuse_existing(&out)?;
    let corpus = prepare::corpus(&DataArgs { data, text_field, tokenizer: None }, Vec::new())?;
    tracing::info!("{}", corpus.summary);
    let tokenizer = Tokenizer::train(corpus.texts(), vocab)?;
    refuse_existing(&out)?;
    model::checkpoint::write_file(&out, &tokenizer.to_tokenizer_json())?;
    let made = tokenizer.vocab();
    if json {
        let hash = tokenizer.hash().to_string();
        print(&serde_json::json!({ "file": out, "vocab": made, "hash": hash, "bytes_of_text": corpus.summary.bytes }).to_string())?;
    } else {
        print(&format!("{}: {made} tokens; {}", out.display(), corpus.summary))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_existing(out: &Path) -> Result<()> {
    if out.exists() {
        return Err(bad_input(format!("{} exists already: name another file with --out", out.display())));
    }
    Ok(())
}
