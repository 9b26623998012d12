//! `shoal up`: a whole swarm on this machine, as child processes over QUIC on loopback.

mod children;
mod needs;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use node::folder::RunFolder;
use node::progress::{Listening, PhaseName, Progress, Summary};
use node::spec::RunSpec;

use crate::cli::UpArgs;
use crate::failure::{INTERRUPTED, bad_input};
use crate::interrupt::{self, Making, Signals};
use crate::prepare::{self, Draft, Place};
use crate::watch::Show;
use children::{ChildSpec, Children, News};
use needs::Nodes;

/// Where runs go without `--dir`.
const RUNS: &str = "shoal-runs";
/// Pause between two drawings while nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// Time that miners and validators get to end after the orchestrator did.
const LEAVE: Duration = Duration::from_secs(15);

/// `shoal up`.
pub(crate) fn run(args: &UpArgs, json: bool) -> Result<ExitCode> {
    // Its children also end by signals, and take champions.
    sandbox::contained().context("`shoal up` cannot run here")?;
    let mut show = Show::new(json);
    let making = if args.resume { None } else { Some(prepare::making()?) };
    let (folder, spec) = match &making {
        None => resume(args, &mut show)?,
        Some(making) => begin(args, making, &mut show)?,
    };
    let lock = lock(&folder)?;
    let nodes = nodes(args, &spec);
    let Nodes { replicas, validators, .. } = nodes;
    show.say(&format!(
        "run {} in {}: {} parameters in {} stages, {replicas} miners each, {validators} validators",
        spec.run_id().short(),
        folder.root().display(),
        crate::unit::count(spec.model.parameters()),
        spec.stages(),
    ))?;
    // One thread only: the kernel ties a child's life to the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keep_frames = args.keep_frames.as_deref().map(std::path::absolute).transpose()?;
    let swarm =
        Swarm { folder, stages: spec.stages(), nodes, keep_frames, checkpoint_every: args.checkpoint_every };
    // No moment between the two in which nobody listens.
    let signals = interrupt::signals_of(&runtime)?;
    drop(making);
    let ended = runtime.block_on(swarm.drive(signals, &mut show));
    drop(lock);
    let (summary, code) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            show.finish(None)?;
            return Err(error);
        }
    };
    show.finish(summary.as_deref())?;
    Ok(code)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn nodes(args: &UpArgs, spec: &RunSpec) -> Nodes {
    let replicas = args.replicas.unwrap_or(spec.phases.miners_min);
    let validators = args.validators.unwrap_or(spec.phases.validators_min);
    let miners = spec.stages() * usize::from(replicas);
    let threads = args.threads.map_or_else(|| (cores() / miners).max(1), usize::from);
    Nodes { replicas, validators, threads, keep: args.keep }
}

fn begin(args: &UpArgs, making: &Making<Draft>, show: &mut Show) -> Result<(RunFolder, RunSpec)> {
    let place = args.dir.clone().map_or_else(|| Place::Below(PathBuf::from(RUNS)), Place::At);
    let show = RefCell::new(show);
    let adjust = |spec: &mut RunSpec| {
        let given = args.shape.spec.is_some();
        match args.replicas {
            Some(replicas) => spec.phases.miners_min = replicas,
            None if !given => spec.phases.miners_min = REPLICAS,
            None => {}
        }
        match args.validators {
            Some(validators) => spec.phases.validators_min = validators,
            None if !given => spec.phases.validators_min = VALIDATORS,
            None => {}
        }
        let (Place::At(folder) | Place::Below(folder)) = &place;
        nodes(args, spec).check(spec, folder, false, &mut show.borrow_mut())
    };
    let say = |line: &str| drop(show.borrow_mut().say(line));
    let made = prepare::prepare(making, &place, &args.data, &args.shape, adjust, say)?;
    Ok((made.folder, made.spec))
}

/// Miners per stage without `--replicas` and `--spec`.
const REPLICAS: u16 = 2;
/// Validators without `--validators` and `--spec`.
const VALIDATORS: u16 = 1;

fn resume(args: &UpArgs, show: &mut Show) -> Result<(RunFolder, RunSpec)> {
    let root = match &args.dir {
        Some(folder) => folder.clone(),
        None => newest(Path::new(RUNS)).ok_or_else(|| {
            bad_input(format!("there is no run below ./{RUNS}: name its folder with --dir"))
        })?,
    };
    let folder = RunFolder::new(root);
    let spec = read_spec(&folder)?;
    nodes(args, &spec).check(&spec, folder.root(), true, show)?;
    Ok((folder, spec))
}

/// The spec of a run folder.
pub(crate) fn read_spec(folder: &RunFolder) -> Result<RunSpec> {
    let path = folder.spec();
    let text = std::fs::read_to_string(&path).map_err(|error| {
        bad_input(format!("{} is not a run folder: cannot read run.toml: {error}", folder.root().display()))
    })?;
    RunSpec::parse(&text).with_context(|| path.display().to_string())
}

/// The run that was started last.
fn newest(runs: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(runs).ok()?.filter_map(Result::ok);
    let dated = entries.filter_map(|entry| {
        let spec = RunFolder::new(entry.path()).spec();
        Some((spec.metadata().ok()?.modified().ok()?, entry.path()))
    });
    dated.max().map(|(_, path)| path)
}

/// One `up` per folder.
fn lock(folder: &RunFolder) -> Result<File> {
    let path = folder.root().join("up.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(bad_input(format!("{} is running already in another process", folder.root().display())))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// What a run's end comes to when all processes have gone; `early`: it was asked for before anybody joined.
fn ended(
    summary: Option<Box<Summary>>,
    early: bool,
    folder: &RunFolder,
    show: &mut Show,
) -> Result<(Option<Box<Summary>>, ExitCode)> {
    if summary.is_some() {
        return Ok((summary, ExitCode::SUCCESS));
    }
    if early {
        show.say("stopped before training began; continue with `shoal up --resume`")?;
        return Ok((None, ExitCode::from(INTERRUPTED)));
    }
    let log = folder.root().join("logs").join(format!("{ORCHESTRATOR}.log"));
    Err(anyhow!("the orchestrator ended without a summary: see {}, continue with --resume", log.display()))
}

/// The processes of one run.
struct Swarm {
    folder: RunFolder,
    stages: usize,
    nodes: Nodes,
    keep_frames: Option<PathBuf>,
    checkpoint_every: u32,
}

impl Swarm {
    /// Runs until the orchestrator has ended, or somebody asked twice to stop.
    async fn drive(
        &self,
        (mut interrupts, mut terminations): Signals,
        show: &mut Show,
    ) -> Result<(Option<Box<Summary>>, ExitCode)> {
        let mut children = Children::new(self.folder.root().join("logs"))?;
        let mut ticks = tokio::time::interval(TICK);
        children.start(self.orchestrator()?);
        let mut summary = None;
        let mut ticket: Option<Listening> = None;
        let mut joined = false;
        let mut asked = 0_u32;
        let mut leave_by: Option<Instant> = None;
        loop {
            let leaving = leave_by.map(|by| by.saturating_duration_since(Instant::now()));
            let stop = tokio::select! {
                news = children.next() => match news {
                    News::Line(line) => {
                        match serde_json::from_str(&line) {
                            Ok(Progress::Summary(found)) => {
                                children.let_end();
                                summary = Some(found);
                            }
                            Ok(event) => {
                                match &event {
                                    Progress::Listening(listening) if !joined => ticket = Some(listening.clone()),
                                    // A run that was finished before needs nobody to finish it.
                                    Progress::Status(status) if status.phase == PhaseName::Finished => {
                                        ticket = None;
                                        children.let_end();
                                    }
                                    Progress::Status(_) => {
                                        if let Some(listening) = ticket.take() {
                                            joined = true;
                                            self.join(&mut children, &listening);
                                        }
                                    }
                                    _ => {}
                                }
                                show.event(&event)?;
                            }
                            Err(error) => tracing::warn!(%error, line, "not an event"),
                        }
                        false
                    }
                    News::Restarting { name, reason } => {
                        show.say(&format!("{name} {reason}; it is started again"))?;
                        false
                    }
                    News::Ended { name } if name == ORCHESTRATOR => {
                        children.let_end();
                        leave_by = Some(Instant::now() + LEAVE);
                        false
                    }
                    News::Ended { .. } => false,
                    News::Failed { name, reason, code } => {
                        children.kill().await;
                        let words = format!("{name} {reason}");
                        return Err(if code == Some(crate::failure::BAD_INPUT) { bad_input(words) } else { anyhow!(words) });
                    }
                    News::AllEnded => {
                        return ended(summary, asked > 0 && !joined, &self.folder, show);
                    }
                },
                _ = interrupts.recv() => true,
                _ = terminations.recv() => true,
                () = tokio::time::sleep(leaving.unwrap_or_default()), if leaving.is_some() => {
                    children.kill().await;
                    return ended(summary, asked > 0 && !joined, &self.folder, show);
                }
                _ = ticks.tick() => {
                    show.tick()?;
                    false
                }
            };
            if stop {
                asked += 1;
                if asked > 1 {
                    children.kill().await;
                    show.say("stopped at once; continue with `shoal up --resume`")?;
                    return Ok((summary, ExitCode::from(INTERRUPTED)));
                }
                show.say("stopping after this epoch's merge; Ctrl-C again stops at once")?;
                // The others end with the run: the log tells them.
                children.interrupt(ORCHESTRATOR);
            }
        }
    }

    fn orchestrator(&self) -> Result<ChildSpec> {
        // The port is chosen here and stays the same when the orchestrator is started again.
        let port = UdpSocket::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .context("no free port")?
            .port();
        let args: Vec<OsString> = [
            "--child".into(),
            "--json".into(),
            "orchestrator".into(),
            self.folder.root().into(),
            "--bind".into(),
            format!("127.0.0.1:{port}").into(),
            "--no-relay".into(),
            "--checkpoint-every".into(),
            self.checkpoint_every.to_string().into(),
        ]
        .into();
        Ok(ChildSpec { name: ORCHESTRATOR.to_owned(), args, events: true })
    }

    fn join(&self, children: &mut Children, listening: &Listening) {
        let join = |role: &str, name: &str| -> Vec<OsString> {
            let dir = self.folder.node(name);
            let args = ["--child", role, &listening.ticket, "--bind", "127.0.0.1:0", "--threads"];
            let mut args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
            args.extend([self.nodes.threads.to_string().into(), "--dir".into(), dir.into()]);
            args
        };
        for stage in 0..self.stages {
            for replica in 0..self.nodes.replicas {
                let name = format!("miner-{stage}-{replica}");
                let mut args = join("miner", &name);
                args.extend([
                    "--stage".into(),
                    stage.to_string().into(),
                    "--keep".into(),
                    self.nodes.keep.name().into(),
                ]);
                if let Some(folder) = &self.keep_frames {
                    args.extend(["--keep-frames".into(), folder.into()]);
                }
                children.start(ChildSpec { name, args, events: false });
            }
        }
        for number in 0..self.nodes.validators {
            let name = format!("validator-{number}");
            let args = join("validator", &name);
            children.start(ChildSpec { name, args, events: false });
        }
    }
}

/// Name of the orchestrator's process.
const ORCHESTRATOR: &str = "orchestrator";
