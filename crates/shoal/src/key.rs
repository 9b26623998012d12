//! `shoal key`: makes and shows a node's key, encrypts and decrypts it.

use std::process::ExitCode;

use anyhow::Result;

use crate::arena_cli;
use crate::cli::{KeyArgs, KeyCommand};
use crate::watch::print;

/// `shoal key`.
pub(crate) fn run(args: &KeyArgs, json: bool) -> Result<ExitCode> {
    let (key, file) = match &args.command {
        KeyCommand::New { file, encrypt: false } => (node::key::create(file)?, file),
        KeyCommand::New { file, encrypt: true } => (arena_cli::create_encrypted(file)?, file),
        KeyCommand::Show { file } => (arena_cli::load_any(file)?, file),
        KeyCommand::Encrypt { file } => (arena_cli::encrypt(file)?, file),
        KeyCommand::Decrypt { file } => (arena_cli::decrypt(file)?, file),
    };
    let id = key.node_id().to_string();
    if json {
        print(&serde_json::json!({ "node": id, "file": file }).to_string())?;
    } else {
        print(&id)?;
    }
    Ok(ExitCode::SUCCESS)
}
