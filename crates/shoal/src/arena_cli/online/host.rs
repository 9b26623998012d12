//! `shoal arena host`: a folder with spec, key, log and blobs, served over HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::{Host, Parts};
use arena::spec::ArenaSpec;
use clap::Args;
use serde_json::json;
use store::{Durability, FolderBlobs, LogStore, SqliteLog};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wire::{NodeId, SigningKey};

use super::config::{Config, PORT};
use super::load_any;
use crate::failure::bad_input;
use crate::interrupt;
use crate::unit::parse_bytes;
use crate::watch::print;

#[derive(Args, Debug)]
pub(crate) struct HostArgs {
    /// Folder of the arena; made if it is not there.
    folder: PathBuf,
    /// Where to listen. Port 0: any free one.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], PORT)))]
    bind: SocketAddr,
    /// Spec of a new arena, in TOML. Default: named after the folder, owned by your linked key.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Admit a judge: its key, and who runs it. May be given several times; `admit` does it later, too.
    #[arg(long, value_name = "KEY=OPERATOR", value_parser = judge)]
    judge: Vec<(NodeId, String)>,
    /// Bytes of all blobs after which uploads are refused (`64G`).
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64G")]
    blobs_max: u64,
    /// Bytes that one key may upload in 24 hours; the host and the arena's owners may upload what there is room for.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "16G")]
    upload_quota: u64,
    /// Bytes of verdicts' logs that one judge may upload in 24 hours, beside its key's quota.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "16G")]
    log_quota: u64,
}

fn judge(text: &str) -> Result<(NodeId, String), String> {
    let (key, operator) = text.split_once('=').ok_or("write it KEY=OPERATOR")?;
    Ok((key.parse().map_err(|error| format!("{key}: {error}"))?, operator.to_owned()))
}

/// `shoal arena host`.
pub(crate) async fn run(args: &HostArgs, json: bool) -> Result<ExitCode> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).map_err(|error| bad_input(format!("{}: {error}", folder.display())))?;
    let key_path = folder.join("host.key");
    let key = if key_path.exists() { load_any(&key_path)? } else { node::key::create(&key_path)? };
    let spec = spec(args, &key)?;
    let log: Arc<dyn LogStore> = Arc::new(SqliteLog::open(folder.join("log.sqlite")).await?);
    let blobs = FolderBlobs::open(folder.join("blobs"), Durability::Synced).await?;
    let parts = Parts {
        key: key.clone(),
        spec,
        log: Arc::clone(&log),
        blobs: Arc::new(blobs),
        judges: args.judge.clone(),
        blobs_max: args.blobs_max,
        upload_quota: args.upload_quota,
        log_quota: args.log_quota,
        upload_stall: api::limits::UPLOAD_STALL,
    };
    let host = Host::open(parts).await?;
    let listener = TcpListener::bind(args.bind)
        .await
        .with_context(|| format!("cannot listen on {}: is another host running there?", args.bind))?;
    let address = format!("http://{}", listener.local_addr()?);
    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let heard = interrupt::on_signals(drain.clone(), stop, "open requests")?;
    if json {
        print(
            &json!({ "server": address, "host": key.node_id().to_string(), "folder": folder }).to_string(),
        )?;
    } else {
        print(&format!("{address}\nhost {}\nfolder {}", key.node_id(), folder.display()))?;
    }
    let ended = host.serve(listener, drain).await;
    drop(heard);
    log.close().await;
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// The folder's spec; written there when the arena begins.
fn spec(args: &HostArgs, key: &SigningKey) -> Result<ArenaSpec> {
    let kept = args.folder.join("arena.toml");
    let read = |path: &Path| {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| bad_input(format!("{shown}: {error}")))?;
        ArenaSpec::parse(&text).with_context(|| shown)
    };
    if kept.exists() {
        let spec = read(&kept)?;
        let other = args.spec.as_deref().map(read).transpose()?.is_some_and(|given| given != spec);
        if other {
            let shown = kept.display();
            return Err(bad_input(format!(
                "this arena has begun with another spec, {shown}: leave out --spec"
            )));
        }
        return Ok(spec);
    }
    let spec = if let Some(path) = &args.spec {
        read(path)?
    } else {
        let name = args.folder.canonicalize()?;
        let name = name.file_name().and_then(|name| name.to_str()).unwrap_or("arena").to_owned();
        let owner = match &Config::load()?.key {
            Some(path) => load_any(path)?.node_id(),
            None => key.node_id(),
        };
        let name = toml::Value::String(name);
        ArenaSpec::parse(&format!("name = {name}\nowners = [\"{owner}\"]\n"))?
    };
    api::judge::write(&kept, spec.canonical().as_bytes())?;
    Ok(spec)
}
