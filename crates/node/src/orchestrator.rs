//! The orchestrator: a leader of the run's log and what it serves, which can be killed at any instruction and resumes from its log.

mod desk;
mod pins;
mod process;
pub(crate) mod shared;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leader::{Leader, LeaderError};
use net::relay::Admit;
use net::{BindError, Handler, Link, RelayError};
use store::{BlobError, Blobs, LogError, LogStore};
use swarm::record::{Control, Input, Role};
use swarm::state::{Phase, State};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{Epoch, Hash, NodeId, Seq, SigningKey};

use crate::checkpoint::{self, Checkpoints, ExportError};
use crate::clock::Clock;
use crate::folder::RunFolder;
use crate::follow;
use crate::keeper::{KeepError, Keeper, Kept};
use crate::key::KeyError;
use crate::limits;
use crate::observe::Observer;
use crate::progress::{Listening, Progress, Summary};
use crate::spec::{RunSpec, SpecError};
use desk::Desk;
pub use pins::{Granted, Wish};
pub use process::{Options, RelayFor, run};
use shared::{Inputs, Pending, Shared, Shows};

/// Why an orchestrator did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrchestratorError {
    /// The folder holds no run.
    #[error("{} is not a run's folder: cannot read {}: {source}; make one with `shoal run new`", folder.display(), file.display())]
    Folder {
        /// Folder given.
        folder: PathBuf,
        /// What is missing.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The spec is wrong.
    #[error("{}: {source}", path.display())]
    Spec {
        /// File.
        path: PathBuf,
        /// Why.
        source: SpecError,
    },
    /// The key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The log cannot be led.
    #[error(transparent)]
    Lead(#[from] LeaderError<State>),
    /// The log's store failed.
    #[error(transparent)]
    Store(#[from] LogError),
    /// The blob store failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The relay could not be started.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The last weights could not be kept.
    #[error("the merged weights could not be kept: {0}")]
    Keep(#[from] KeepError),
    /// The checkpoint could not be written.
    #[error("the checkpoint could not be written: {0}")]
    Checkpoint(#[from] ExportError),
    /// A shard of the run's data is damaged.
    #[error("a shard of the run's data is of no use ({source}): put back a copy of {}, or make the run anew", folder.display())]
    Shard {
        /// Where the run's blobs are.
        folder: PathBuf,
        /// What is wrong.
        source: BlobError,
    },
    /// A task ended in a panic: a defect.
    #[error("a part of the orchestrator failed ({0}): please report it; the log is safe, start again")]
    Task(#[from] tokio::task::JoinError),
}

impl OrchestratorError {
    /// Starting again is of no use until somebody has done what the words say.
    pub fn is_for_hands(&self) -> bool {
        match self {
            Self::Folder { .. }
            | Self::Spec { .. }
            | Self::Key(_)
            | Self::Shard { .. }
            | Self::Lead(LeaderError::Log(_) | LeaderError::Genesis(_)) => true,
            Self::Lead(LeaderError::Store(error))
            | Self::Keep(KeepError::Store(error))
            | Self::Store(error) => error.is_for_hands(),
            Self::Blobs(error)
            | Self::Keep(KeepError::Blob(error))
            | Self::Checkpoint(ExportError::Blob(error)) => error.is_for_hands(),
            _ => false,
        }
    }
}

/// How it is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Finish the epoch's merge, write a checkpoint, then stop.
    pub drain: CancellationToken,
    /// Stop at once; the log allows to go on later.
    pub stop: CancellationToken,
}

/// What an orchestrator is made of: the stores decide where it lives.
pub struct Parts {
    /// The orchestrator's key.
    pub key: SigningKey,
    /// The run.
    pub spec: RunSpec,
    /// Its log.
    pub log: Arc<dyn LogStore>,
    /// Its blobs.
    pub blobs: Arc<dyn Blobs>,
    /// Where checkpoints go.
    pub folder: RunFolder,
    /// Epochs between checkpoints; 0: only at the end.
    pub checkpoint_every: u32,
}

/// An orchestrator whose log is open, and which serves nobody yet.
pub struct Orchestrator {
    parts: Parts,
    leader: Leader<State, Shows>,
    inputs: Inputs,
    shared: Arc<Shared>,
    kept: Arc<Kept>,
    desk: Arc<Desk>,
}

impl Orchestrator {
    /// Opens the log: begins it, or folds it and writes that the orchestrator is back.
    pub async fn open(parts: Parts) -> Result<Self, OrchestratorError> {
        let kept = Arc::new(Kept::load(parts.log.as_ref(), parts.spec.stages()).await?);
        let Parts { key, spec, log, .. } = &parts;
        let genesis = || Control::Genesis {
            spec: spec.swarm_spec(),
            run_spec: spec.canonical().into_bytes(),
            orchestrator: key.node_id(),
        };
        let run = spec.run_id();
        let opened = leader::open(run, key.clone(), Arc::clone(log), genesis, |_, _, _| {}).await?;
        let shared = Arc::new(Shared::new(Arc::clone(log), opened.head(), opened.state().clone()));
        let (inputs, queue) = leader::queue();
        let leader = opened.lead(queue, Shows::new(Arc::clone(&shared))).await?;
        let desk = Desk::new(
            run,
            inputs.clone(),
            Arc::clone(&shared),
            Arc::clone(&parts.blobs),
            Arc::clone(&kept),
            parts.spec.codec.weights,
        );
        Ok(Self { parts, leader, inputs, shared, kept, desk: Arc::new(desk) })
    }

    /// What its link must answer with.
    pub fn handler(&self) -> Arc<dyn Handler> {
        Arc::clone(&self.desk) as Arc<dyn Handler>
    }

    /// Whom the run's relay is for: nodes that joined at some time, whether they are there or not, and this one.
    fn members(&self) -> Admit {
        let (me, shared) = (self.parts.key.node_id(), Arc::clone(&self.shared));
        Arc::new(move |node| *node == me || shared.state().node(node).is_some())
    }

    /// Serves until the run is over or it is told to stop.
    pub async fn serve(
        self,
        link: Arc<dyn Link>,
        listening: Listening,
        progress: mpsc::Sender<Progress>,
        shutdown: Shutdown,
    ) -> Result<Summary, OrchestratorError> {
        let Self { parts, leader, inputs, shared, kept, desk } = self;
        desk.set_link(&link);
        let end = CancellationToken::new();
        let _end_with_this = end.clone().drop_guard();
        drop(progress.try_send(Progress::Listening(listening)));
        let whole = watch::Sender::new(kept.newest(parts.spec.stages()).map(|(epoch, _)| epoch));
        let mut tasks: JoinSet<Result<(), OrchestratorError>> = JoinSet::new();
        let stop = end.clone();
        tasks.spawn(async move { Ok(leader.run(stop).await?) });
        let keeper = Keeper {
            link: Arc::clone(&link),
            run: shared.state().run(),
            blobs: Arc::clone(&parts.blobs),
            store: Arc::clone(&parts.log),
            kept: Arc::clone(&kept),
            inputs: inputs.clone(),
            states: shared.states(),
            whole: whole.clone(),
        };
        let stop = end.clone();
        tasks.spawn(async move { Ok(keeper.run(stop).await?) });
        tasks.spawn(learn_peers(Arc::clone(&link), shared.states(), end.clone()));
        tasks.spawn(observe(shared.states(), progress.clone(), end.clone()));
        let pins = pins::Pins {
            folder: parts.folder.clone(),
            blobs: Arc::clone(&parts.blobs),
            shared: Arc::clone(&shared),
            inputs: inputs.clone(),
        };
        let stop = end.clone();
        tasks.spawn(async move {
            pins.run(stop).await;
            Ok(())
        });
        let checkpoints = Arc::new(Checkpoints {
            spec: parts.spec.clone(),
            blobs: Arc::clone(&parts.blobs),
            kept: Arc::clone(&kept),
            folder: parts.folder.clone(),
            every: parts.checkpoint_every,
            progress: progress.clone(),
            writing: tokio::sync::Mutex::default(),
            _log: Arc::clone(&parts.log),
        });
        let (writer, wholes, stop) = (Arc::clone(&checkpoints), whole.subscribe(), end.clone());
        tasks.spawn(async move { Ok(writer.run(wholes, stop).await?) });

        tasks.spawn(check_data(
            parts.spec.clone(),
            Arc::clone(&parts.blobs),
            parts.folder.blobs(),
            end.clone(),
        ));

        // Of a run that was over before, everybody is likely to know.
        let patience = if over(&shared.state()) { limits::FAREWELL_SILENCE } else { limits::FAREWELL };
        let outcome = supervise(&mut tasks, &shared, &inputs, &shutdown).await;
        let checkpoint = match &outcome {
            Ok(End::Over) => {
                farewell(&shared, whole.subscribe(), patience, &shutdown.stop).await;
                checkpoints.newest().await?
            }
            Ok(End::Stopped) | Err(_) => checkpoint::present(&parts.folder),
        };
        desk.stop();
        end.cancel();
        let ended = tokio::time::timeout(limits::CLOSE, drain(&mut tasks)).await;
        drop(tokio::time::timeout(limits::CLOSE, link.close()).await);
        // A checkpoint that is being written is best whole before the folder is anybody else's.
        drop(tokio::time::timeout(limits::CLOSE, checkpoints.writing.lock()).await);
        outcome?;
        if let Ok(ended) = ended {
            ended?;
        }
        let mut observer = Observer::default();
        let state = shared.state();
        observer.look(&state);
        let head = shared.head().map(|head| head.hash.to_string());
        let summary = observer.summary(&state, checkpoint.map(|path| path.display().to_string()), head);
        // The last event is worth a wait for a slow reader.
        let last = Progress::Summary(Box::new(summary.clone()));
        drop(tokio::time::timeout(limits::CLOSE, progress.send(last)).await);
        Ok(summary)
    }
}

enum End {
    Over,
    Stopped,
}

/// Waits for the end: the run's, the owner's, or a failure.
async fn supervise(
    tasks: &mut JoinSet<Result<(), OrchestratorError>>,
    shared: &Shared,
    inputs: &Inputs,
    shutdown: &Shutdown,
) -> Result<End, OrchestratorError> {
    let mut states = shared.states();
    let mut drained = false;
    loop {
        if over(&states.borrow_and_update()) {
            return Ok(End::Over);
        }
        tokio::select! {
            () = shutdown.stop.cancelled() => return Ok(End::Stopped),
            () = shutdown.drain.cancelled(), if !drained => {
                drained = true;
                control(inputs, Control::Drain).await;
            }
            changed = states.changed() => if changed.is_err() { return Ok(End::Stopped) },
            // The keeper ends by itself when the last state is kept; anything else must not.
            Some(ended) = tasks.join_next() => ended??,
        }
    }
}

fn over(state: &State) -> bool {
    matches!(state.phase(), Phase::Finished { .. })
}

async fn control(inputs: &Inputs, control: Control) {
    let (answer, outcome) = oneshot::channel();
    if inputs.send(Pending { input: Input::Control(control), len: 64, answer }).await.is_ok() {
        // A refusal means that it is so already.
        drop(outcome.await);
    }
}

/// After the end: until the last state is kept, the last held-out loss is in, and every node has seen the end.
async fn farewell(
    shared: &Shared,
    mut whole: watch::Receiver<Option<Epoch>>,
    patience: Duration,
    stop: &CancellationToken,
) {
    let deadline = Instant::now() + patience;
    let mut states = shared.states();
    let (last, end) = (shared.state().epoch(), shared.head().map_or(Seq(0), |head| head.seq));
    let kept = async { drop(whole.wait_for(|whole| last == Epoch(0) || *whole >= Some(last)).await) };
    let measured = async {
        let done = |state: &Arc<State>| {
            let validator =
                state.nodes().values().any(|node| node.present() && node.join.role == Role::Validator);
            !validator || state.held_out().contains_key(&last)
        };
        drop(states.wait_for(done).await);
    };
    let seen = async {
        while !everyone_saw(shared, end) {
            tokio::time::sleep(limits::FAREWELL_LOOK).await;
        }
    };
    let all = async {
        kept.await;
        measured.await;
        seen.await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        waited = tokio::time::timeout_at(deadline, all) => {
            if waited.is_err() {
                tracing::warn!("some nodes did not hear of the run's end in time");
            }
        }
    }
}

/// Whether every node that is there has the block `end`: it asked for what comes after.
fn everyone_saw(shared: &Shared, end: Seq) -> bool {
    let state = shared.state();
    let present = |(id, node): (&NodeId, &swarm::state::Node)| node.present().then_some(*id);
    state.nodes().iter().filter_map(present).all(|id| shared.has_seen(&id, end))
}

/// Reads every shard of the run's data once, beside everything else: who asks for a damaged one would only be refused.
async fn check_data(
    spec: RunSpec,
    blobs: Arc<dyn Blobs>,
    folder: PathBuf,
    stop: CancellationToken,
) -> Result<(), OrchestratorError> {
    let manifest = spec.manifest();
    let read_all = async {
        for shard in manifest.train.iter().chain(&manifest.held_out) {
            match blobs.open(Hash(shard.hash.0)).await {
                Ok(mut reader) => while reader.next().await?.is_some() {},
                // Whoever asks for it is told; nodes may have it from before.
                Err(BlobError::Missing(hash)) => {
                    tracing::warn!(shard = hash.short(), "a shard of the run's data is missing");
                }
                Err(error) => return Err(error),
            }
        }
        Ok::<_, BlobError>(())
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        read = read_all => read.map_err(|source| OrchestratorError::Shard { folder, source }),
    }
}

async fn drain(tasks: &mut JoinSet<Result<(), OrchestratorError>>) -> Result<(), OrchestratorError> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Tells the link where the nodes are: the keeper calls them, after a restart before they call.
async fn learn_peers(
    link: Arc<dyn Link>,
    mut states: watch::Receiver<Arc<State>>,
    stop: CancellationToken,
) -> Result<(), OrchestratorError> {
    let mut known = std::collections::BTreeMap::new();
    let state = Arc::clone(&states.borrow());
    follow::learn_addresses(link.as_ref(), &state, &mut known);
    // They may still wait for answers of an earlier life of this node.
    for (id, _) in state.nodes().iter().filter(|(_, node)| node.present()) {
        link.reach(*id);
    }
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        follow::learn_addresses(link.as_ref(), &state, &mut known);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = states.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Sends events while the state changes, and the picture every half second.
async fn observe(
    mut states: watch::Receiver<Arc<State>>,
    progress: mpsc::Sender<Progress>,
    stop: CancellationToken,
) -> Result<(), OrchestratorError> {
    let clock = Clock::default();
    let mut observer = Observer::default();
    let mut status_at = Instant::now();
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        for event in observer.look(&state) {
            drop(progress.try_send(event));
        }
        if Instant::now() >= status_at {
            status_at = Instant::now() + limits::PROGRESS_EVERY;
            drop(progress.try_send(Progress::Status(Box::new(observer.status(&state, clock.now())))));
        }
        let again = status_at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        tokio::select! {
            () = stop.cancelled() => {
                // What came since the last look is told before the summary.
                for event in observer.look(&states.borrow()) {
                    drop(progress.try_send(event));
                }
                return Ok(());
            }
            changed = states.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(again) => {}
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator").field("run", &self.leader.state().run()).finish_non_exhaustive()
    }
}
