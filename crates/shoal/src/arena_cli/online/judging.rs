//! `shoal arena judge`: the judge's loop around this machine's evaluator.

pub(super) mod evaluator;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::judge::{self, Of, Settings, Tally, Told};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Where;
use super::config::data_folder;
use crate::interrupt;
use crate::watch::print;
use evaluator::Evaluator;

/// What a judge tells and nobody has read yet.
const QUEUE: usize = 256;

#[derive(Args, Debug)]
pub(crate) struct JudgeArgs {
    #[command(flatten)]
    at: Where,
    /// Entries at a time. Programs are timed by the clock: more than one at a time makes their times worse.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    lanes: u16,
    /// Folder for bound verdicts. Default: in the user's data folder, by arena and key.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// End when nothing is left to judge.
    #[arg(long)]
    until_idle: bool,
    /// Serve /healthz and /metrics (Prometheus) of this judge here, for example 127.0.0.1:7465. Port 0: any free one.
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<SocketAddr>,
}

/// `shoal arena judge`.
pub(super) async fn run(args: &JudgeArgs, json: bool) -> Result<ExitCode> {
    let evaluator = Arc::new(Evaluator::new().context("`shoal arena judge` cannot run here")?);
    let client = Arc::new(args.at.signer().await?);
    let key = client.key()?.clone();
    let folder = if let Some(folder) = &args.folder {
        folder.clone()
    } else {
        let arena = data_folder()?.join("arena").join(client.run().to_string());
        arena.join(format!("judge-{}", key.node_id().short()))
    };
    let (stop, now) = (CancellationToken::new(), CancellationToken::new());
    let heard = interrupt::on_signals(stop.clone(), now.clone(), "this turn")?;
    let tally: Arc<Tally> = Arc::default();
    let (lanes, until_idle) = (args.lanes, args.until_idle);
    let settings = Settings { key, folder, lanes, until_idle, tally: Arc::clone(&tally) };
    let (told, mut hear) = mpsc::channel(QUEUE);
    // Ends with this function.
    let mut serving = JoinSet::new();
    let judge = settings.key.node_id();
    let page = match args.bind {
        Some(bind) => {
            let listener = TcpListener::bind(bind)
                .await
                .with_context(|| format!("cannot listen on {bind}: is another judge running there?"))?;
            let address = format!("http://{}/metrics", listener.local_addr()?);
            let of = Of { tally, judge: judge.to_string(), host: client.address().to_owned() };
            serving.spawn(judge::serve(listener, of, stop.clone()));
            Some(address)
        }
        None => None,
    };
    print(&if json {
        json!({ "event": "judging", "judge": judge.to_string(), "metrics": page }).to_string()
    } else {
        let page = page.map_or(String::new(), |page| format!("; {page}"));
        format!("judging as {judge}{page}")
    })?;
    let judging = judge::run(client, settings, evaluator, told, stop);
    tokio::pin!(judging);
    loop {
        tokio::select! {
            Some(told) = hear.recv() => tell(&told, json)?,
            ended = &mut judging => {
                while let Ok(told) = hear.try_recv() {
                    tell(&told, json)?;
                }
                drop(heard);
                ended?;
                return Ok(ExitCode::SUCCESS);
            }
            () = now.cancelled() => return Ok(ExitCode::from(crate::failure::INTERRUPTED)),
        }
    }
}

fn tell(told: &Told, json: bool) -> Result<()> {
    let (kind, lease, entry, text) = match told {
        Told::Leased { lease, entry } => ("leased", Some(lease), Some(entry), None),
        Told::Found { lease, entry, found } => ("found", Some(lease), Some(entry), Some(found)),
        Told::Shown { lease, entry } => ("shown", Some(lease), Some(entry), None),
        Told::Trouble(words) => ("trouble", None, None, Some(words)),
    };
    if json {
        return print(
            &json!({ "event": kind, "lease": lease, "submission": entry, "text": text }).to_string(),
        );
    }
    let entry = entry.map_or(String::new(), |entry| format!(" submission {entry}"));
    print(&format!("{kind}{entry}{}", text.map_or(String::new(), |text| format!(": {text}"))))
}
