//! The miner: a driver around the pure machines of [`swarm::miner`], with one compute thread that owns the stage.
//!
//! Network, encoding and hashing never run on the compute thread; tensors stay in this process under the names that
//! the machines use. What the miner does is a function of the log that it folds.

mod act;
mod allocator;
mod compute;
mod core;
mod door;
pub mod frames;
mod idle;
mod keep;
mod memory;
mod merge;
pub(crate) mod predict;
mod process;
mod samples;
mod send;
mod shelf;
mod speed;
mod tensors;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Instant;

use net::{BindError, Handler, Link};
use store::{BlobError, Blobs};
use swarm::miner::pipeline;
use swarm::record::{Join, Role};
use swarm::refusal::Refusal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{NodeId, RunId, SigningKey, StageIndex};

use crate::champion::{self, Champions, Ready};
use crate::fetch::FetchError;
use crate::follow::{Follow, FollowError};
use crate::key::KeyError;
use crate::limits;
use crate::orchestrator::Shutdown;
use crate::speak::Speak;
use crate::spec::{RunSpec, SpecError};
use crate::tokens::{TokenSource, TokensError};
use door::{Door, Inbound};
pub use keep::Keep;
pub use memory::{MinerMemory, memory};
pub use process::{Options, run};

/// Why a miner did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MinerError {
    /// The key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The folder cannot be used.
    #[error("cannot use the folder {}: {source}; choose another one with --dir", folder.display())]
    Folder {
        /// Folder given.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The node's store failed.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// The socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no log to follow.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The log cannot be followed any further.
    #[error("the run's log cannot be followed any further: {}", .0.as_deref().unwrap_or("the follower stopped"))]
    Log(Option<String>),
    /// The spec in the log cannot be used by this version.
    #[error("the run's spec: {0}; is this the version that the run was made with?")]
    Spec(#[from] SpecError),
    /// The run has no data that this node can use.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// No such stage.
    #[error("the run has stages 0 to {last}, not {stage}")]
    NoStage {
        /// Stage asked for.
        stage: u16,
        /// Last one.
        last: usize,
    },
    /// Too little memory.
    #[error(
        "stage {stage} needs {} MiB and this miner may use {} (--memory, or a limit of its process or control group): allow more, keep \
         less (--keep inputs), or join a run with more stages",
        needed.div_ceil(1 << 20), allowed >> 20
    )]
    Memory {
        /// Stage that needs least, or the one asked for.
        stage: u16,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The orchestrator does not take this node.
    #[error("the run does not take this miner: {0}")]
    Refused(Refusal),
    /// The initial weights cannot be had.
    #[error("the initial weights could not be fetched: {0}")]
    Initial(FetchError),
    /// The stage cannot be built.
    #[error("the stage could not be built: {0}")]
    Stage(#[from] model::stage::StageError),
    /// The sandbox is not there.
    #[error(transparent)]
    Sandbox(#[from] sandbox::HostError),
    /// The compute threads could not be started.
    #[error("compute threads could not be started: {0}")]
    Threads(String),
    /// The compute thread is gone.
    #[error("the compute thread ended: please report it; start the miner again, it catches up")]
    Compute,
    /// A task ended in a panic: a defect.
    #[error("a part of the miner failed ({0}): please report it; start the miner again, it catches up")]
    Task(String),
}

impl MinerError {
    /// Starting again is of no use until somebody has done what the words say.
    pub fn is_for_hands(&self) -> bool {
        match self {
            Self::Key(_) | Self::Folder { .. } | Self::NoStage { .. } | Self::Memory { .. } => true,
            Self::Store(error) => error.is_for_hands(),
            Self::Tokens(error) => error.is_for_hands(),
            _ => false,
        }
    }
}

/// How a miner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The run is over.
    Over,
    /// It left in good order, its work merged.
    Drained,
    /// It was told to stop at once.
    Stopped,
}

/// What a miner is made of.
pub struct Parts {
    /// Its key.
    pub key: SigningKey,
    /// Run to join.
    pub run: RunId,
    /// The run's orchestrator.
    pub orchestrator: NodeId,
    /// Data shards and kept states.
    pub blobs: Arc<dyn Blobs>,
    /// Folder for the index of kept states; it exists.
    pub folder: PathBuf,
    /// Threads that compute.
    pub threads: usize,
    /// Memory that may be used, bytes; none: whatever the stage needs.
    pub memory: Option<u64>,
    /// Compute only in processor time that nobody else wants.
    pub when_idle: bool,
    /// Stage to ask for.
    pub stage: Option<StageIndex>,
    /// Folder for a sample of what it sends; none: nothing is kept.
    pub keep_frames: Option<PathBuf>,
    /// What stays of a micro-batch between forward and backward.
    pub keep: Keep,
    /// How components of champions are compiled: by this binary, started again.
    pub child: sandbox::Child,
}

/// A miner that has not read the log yet.
pub struct Miner {
    parts: Parts,
    door: Arc<Door>,
    inbox: mpsc::Receiver<Inbound>,
}

impl Miner {
    /// A miner; nothing happens before [`Miner::serve`].
    pub fn new(parts: Parts) -> Self {
        let (sender, inbox) = mpsc::channel(limits::MINER_QUEUE);
        let door = Door {
            node: parts.key.node_id(),
            run: parts.run,
            inbox: sender,
            tokens: OnceLock::new(),
            merging: RwLock::new(None),
            meter: Arc::default(),
            champions: Arc::new(Champions::new(parts.child.clone(), Some(parts.folder.clone()))),
            samples: parts
                .keep_frames
                .as_deref()
                .map(|folder| samples::Samples::new(folder, &parts.run, &parts.key.node_id())),
            predictors: predict::Predictors::default(),
            most: OnceLock::new(),
            log: OnceLock::new(),
        };
        Self { parts, door: Arc::new(door), inbox }
    }

    /// What its link must answer with.
    pub fn handler(&self) -> Arc<dyn Handler> {
        Arc::clone(&self.door) as Arc<dyn Handler>
    }

    /// Joins and works until the run is over or it is told to stop. `link` must know the orchestrator's address.
    ///
    /// `need` is told what memory will be needed before anything is joined.
    pub async fn serve(
        self,
        link: Arc<dyn Link>,
        need: impl FnOnce(&[MinerMemory]),
        shutdown: &Shutdown,
    ) -> Result<End, MinerError> {
        let stop = CancellationToken::new();
        let _stops_with_this = stop.clone().drop_guard();
        let mut tasks = JoinSet::new();
        let outcome = tokio::select! {
            () = shutdown.stop.cancelled() => Ok(End::Stopped),
            outcome = self.work(Arc::clone(&link), need, shutdown, &mut tasks, &stop) => outcome,
        };
        stop.cancel();
        drop(tokio::time::timeout(limits::CLOSE, link.close()).await);
        outcome
    }

    async fn work(
        self,
        link: Arc<dyn Link>,
        need: impl FnOnce(&[MinerMemory]),
        shutdown: &Shutdown,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<End, MinerError> {
        let Self { parts, door, inbox } = self;
        let Parts {
            key,
            run,
            orchestrator,
            blobs,
            folder,
            threads,
            memory: allowed,
            when_idle,
            stage,
            keep,
            ..
        } = parts;
        let follow = Follow { link: Arc::clone(&link), orchestrator, run, patience: limits::FIRST_BLOCK };
        let log = follow.start(tasks, stop).await?;
        let run_spec = log.read(|view| Arc::clone(&view.run_spec));
        let spec = Arc::new(RunSpec::from_canonical(&run_spec, run)?);
        let stages = spec.stage_specs();
        let settings = pipeline::Settings {
            node: key.node_id(),
            in_flight: stages.len() * 2,
            queue: memory::queue(&spec),
            stash: spec.inner.stash,
        };
        let needs = memory(&spec, threads, keep);
        need(&needs);
        memory::check(&needs, stage, allowed)?;
        let tokens = TokenSource::new(&spec, Arc::clone(&blobs), Arc::clone(&link), run, orchestrator)?;
        let tokens = Arc::new(tokens);
        let _ = door.most.set(frames::most_bytes(&spec));
        door.predictors.begin(spec.predicted_columns());
        let _ = door.log.set(log.clone());
        drop(door.tokens.set(Arc::clone(&tokens)));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("compute-{i}"));
        let pool = if when_idle { pool.start_handler(|_| idle::yield_to_others()) } else { pool };
        let pool = Arc::new(pool.build().map_err(|error| MinerError::Threads(error.to_string()))?);
        let measured = Arc::clone(&pool);
        let mflops = tokio::task::spawn_blocking(move || speed::mflops(&measured)).await;
        let mflops = mflops.map_err(|error| MinerError::Task(error.to_string()))?;
        let (told, fitting) = match (allowed, stage) {
            (None, _) => (0, None),
            // Checked above: the stage asked for fits.
            (Some(allowed), Some(_)) => (allowed, None),
            (Some(allowed), None) => memory::told(&needs, &stages, allowed),
        };
        let join = Join {
            role: Role::Miner,
            address: wire::to_bytes(&link.address()),
            agent: format!("shoal {}", env!("CARGO_PKG_VERSION")),
            device: model::stage::device_class(),
            mflops,
            memory: told,
            stage: stage.or(fitting),
        };
        let speak = Speak { link: Arc::clone(&link), key: key.clone(), orchestrator, run };
        let speaker = speak.start(tasks, stop);
        let ready = Ready {
            champions: Arc::clone(&door.champions),
            link: Arc::clone(&link),
            blobs: Arc::clone(&blobs),
            orchestrator,
            run,
            log: log.clone(),
            speaker: speaker.clone(),
            numbers: champion::numbers(&spec),
            lossy: spec.codec.lossy,
            no_room: memory::no_room_for_champions(&spec, &needs, stage.or(fitting), allowed),
        };
        tasks.spawn(ready.run(stop.clone()));
        let (inner, events) = mpsc::channel(limits::MINER_QUEUE);
        let (done, finished) = mpsc::channel(limits::MINER_QUEUE);
        let commands = compute::start(spec.optimiser(), Arc::clone(&pool), when_idle, keep, done)
            .map_err(|error| MinerError::Threads(error.to_string()))?;
        let core = core::Core {
            node: key.node_id(),
            secret: key.derive("merge nonces", &[]),
            key,
            run,
            orchestrator,
            spec,
            stages,
            link,
            log,
            speaker,
            tokens,
            blobs,
            folder,
            pool,
            join,
            settings,
            keep,
            door,
            commands,
            started: Instant::now(),
        };
        core::Miner::new(core, inner).run(inbox, events, finished, &shutdown.drain, &shutdown.stop).await
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Miner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Miner").field("run", &self.parts.run).finish_non_exhaustive()
    }
}
