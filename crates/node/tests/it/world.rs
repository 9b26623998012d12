//! A run's folder in a temporary place, an orchestrator over it, and scripted miners.

use std::sync::Arc;
use std::time::Duration;

use net::{Link, MemoryNetwork, PeerAddress};
use shoal_node::folder::RunFolder;
use shoal_node::orchestrator::{Orchestrator, OrchestratorError, Parts, Shutdown};
use shoal_node::progress::{Listening, Progress, Summary};
use shoal_node::spec::RunSpec;
use store::{Blobs, Durability, FolderBlobs, LogStore, SqliteLog};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use wire::{NodeId, SigningKey, StageIndex};

use super::script::{Script, Shelf};

/// Longest that anything in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Two stages, two epochs, eight micro-batches each.
pub(crate) fn spec() -> RunSpec {
    let hash = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
    let text = format!(
        r#"
        name = "test"
        stages = 2
        [model]
        preset = "micro"
        [data]
        train = [{{ hash = "{hash}", tokens = 100000 }}]
        held_out = [{{ hash = "{hash}", tokens = 10000 }}]
        [batch]
        sequences = 1
        micro_batches_per_epoch = 8
        [inner]
        steps = 2
        [phases]
        epochs = 2
        heartbeat_ms = 200
        lost_after_ms = 20000
        "#
    );
    RunSpec::parse(&text).expect("a spec")
}

pub(crate) struct World {
    pub(crate) spec: RunSpec,
    pub(crate) network: MemoryNetwork,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) stop: CancellationToken,
}

/// An orchestrator at work.
pub(crate) struct Running {
    pub(crate) task: JoinHandle<Result<Summary, OrchestratorError>>,
    pub(crate) shutdown: Shutdown,
    pub(crate) events: mpsc::Receiver<Progress>,
    pub(crate) address: PeerAddress,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, stop) = (JoinSet::new(), CancellationToken::new());
        Self { spec: spec(), network: MemoryNetwork::new(), folder, tasks, stop }
    }

    pub(crate) fn run_folder(&self) -> RunFolder {
        RunFolder::new(self.folder.path())
    }

    pub(crate) async fn log(&self) -> Arc<dyn LogStore> {
        // A process that was killed has let go of its lock; a dropped one does so a moment later.
        let path = self.run_folder().log();
        let open = async {
            loop {
                match SqliteLog::open(&path).await {
                    Ok(log) => return log,
                    Err(store::LogError::InUse { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        Arc::new(tokio::time::timeout(PATIENCE, open).await.expect("the lock is free again"))
    }

    pub(crate) async fn parts(&self) -> Parts {
        let blobs = FolderBlobs::open(self.run_folder().blobs(), Durability::Cached).await.unwrap();
        Parts {
            key: key(1),
            spec: self.spec.clone(),
            log: self.log().await,
            blobs: Arc::new(blobs) as Arc<dyn Blobs>,
            folder: self.run_folder(),
            checkpoint_every: 1,
        }
    }

    /// Names of all blobs.
    pub(crate) async fn parts_blobs(&self) -> Vec<wire::Hash> {
        let blobs = FolderBlobs::open(self.run_folder().blobs(), Durability::Cached).await.unwrap();
        blobs.list().await.unwrap()
    }

    #[expect(clippy::unused_self, reason = "every world has the same")]
    pub(crate) fn orchestrator(&self) -> NodeId {
        key(1).node_id()
    }

    /// Opens the log and serves.
    pub(crate) async fn start(&self) -> Running {
        let orchestrator = Orchestrator::open(self.parts().await).await.expect("a log");
        let link: Arc<dyn Link> = Arc::new(self.network.join(self.orchestrator(), orchestrator.handler()));
        let (progress, events) = mpsc::channel(4096);
        let shutdown = Shutdown::default();
        let address = link.address();
        let listening = Listening { run: String::new(), ticket: String::new(), folder: String::new() };
        let task = tokio::spawn(orchestrator.serve(link, listening, progress, shutdown.clone()));
        Running { task, shutdown, events, address }
    }

    /// A link of node `seed` that answers with `shelf` and knows the orchestrator.
    pub(crate) fn link(&self, seed: u8, shelf: Arc<Shelf>, orchestrator: &PeerAddress) -> Arc<dyn Link> {
        let link: Arc<dyn Link> = Arc::new(self.network.join(key(seed).node_id(), shelf));
        link.learn(self.orchestrator(), orchestrator.clone());
        link
    }

    /// One scripted miner per stage.
    pub(crate) async fn scripts(&mut self, orchestrator: &PeerAddress) -> Vec<Script> {
        let mut scripts = Vec::new();
        for stage in 0..self.spec.stages() {
            let (seed, id, stop) = (10 + stage as u8, self.orchestrator(), self.stop.clone());
            let shelf = Shelf::new(&self.spec, StageIndex(stage as u16));
            let link = self.link(seed, Arc::clone(&shelf), orchestrator);
            scripts.push(Script::start(key(seed), &shelf, link, id, &mut self.tasks, &stop).await);
        }
        scripts
    }
}

/// Within the patience, or the test fails.
pub(crate) async fn soon<F: std::future::Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
