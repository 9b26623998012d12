//! `shoal orchestrator`: keeps a run's log until the run is over.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Result;
use node::folder::RunFolder;
use node::limits::PROGRESS_QUEUE;
use node::orchestrator::{self, Options, RelayFor, Shutdown};
use node::progress::Progress;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::OrchestratorArgs;
use crate::failure::INTERRUPTED;
use crate::interrupt;
use crate::watch::{Show, print};

/// Pause between two drawings while nothing happens.
const TICK: std::time::Duration = std::time::Duration::from_millis(500);

/// `shoal orchestrator`.
pub(crate) fn run(args: OrchestratorArgs, json: bool) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(args, json));
    // A champion that is being tried does not hold up the end.
    runtime.shutdown_background();
    ended
}

async fn serve(args: OrchestratorArgs, json: bool) -> Result<ExitCode> {
    let relay_at = args.bind.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |bind| bind.ip());
    let (progress, mut events) = mpsc::channel(PROGRESS_QUEUE);
    let folder = RunFolder::new(args.folder);
    let following = AbortOnDropHandle::new(tokio::spawn(crate::champion::follow(folder.clone())));
    let options = Options {
        folder,
        bind: args.bind.into_iter().collect(),
        public: args.public,
        congestion: args.congestion.map(Into::into),
        relay: (!args.no_relay).then(|| {
            let usual = RelayFor::new(SocketAddr::new(relay_at, args.relay_port));
            RelayFor { node_rate: args.relay_rate.unwrap_or(usual.node_rate), ..usual }
        }),
        checkpoint_every: args.checkpoint_every,
        progress,
    };
    let shutdown = Shutdown::default();
    let asked = interrupt::on_signals(shutdown.drain.clone(), shutdown.stop.clone(), "the epoch's merge")?;
    let show = tokio::spawn(async move {
        let mut show = Show::new(json);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Progress::Summary(_)) => {}
                    Some(event) => {
                        if let Progress::Listening(listening) = &event && !json {
                            print(&listening.ticket)?;
                        }
                        show.event(&event)?;
                    }
                    None => return anyhow::Ok(show),
                },
                _ = ticks.tick() => show.tick()?,
            }
        }
    });
    let stop = shutdown.stop.clone();
    let outcome = Box::pin(orchestrator::run(options, shutdown)).await;
    drop((asked, following));
    let mut show = show.await??;
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error) => {
            show.finish(None)?;
            return Err(error.into());
        }
    };
    if stop.is_cancelled() {
        show.finish(None)?;
        return Ok(ExitCode::from(INTERRUPTED));
    }
    show.finish(Some(&summary))?;
    Ok(ExitCode::SUCCESS)
}
