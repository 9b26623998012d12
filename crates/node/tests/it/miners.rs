//! Real miners train on real text, all in one process over the in-memory link.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::data::{CollectOptions, build, collect, split};
use model::tokenizer::Tokenizer;
use net::{Link, MemoryNetwork, PeerAddress};
use shoal_node::folder::RunFolder;
use shoal_node::miner::{End, Keep, Miner, MinerError, Parts};
use shoal_node::orchestrator::{Orchestrator, OrchestratorError, Parts as OrchestratorParts, Shutdown};
use shoal_node::progress::{Listening, Progress, Summary};
use shoal_node::spec::{ClipScope, OuterSpec, RunSpec};
use store::{Blobs, LogStore, MemoryBlobs, MemoryLog};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wire::{Hash, SigningKey, StageIndex};

use super::between::{Between, Inward, Nobody, Outward};

/// Longest that one of these runs may take.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Sentences that a small model learns within seconds.
fn text(seed: u64, bytes: usize) -> String {
    let words = ["the", "shoal", "turns", "as", "one", "fish", "leads", "none", "follow", "and", "swim", "."];
    let (mut text, mut x) = (String::new(), seed | 1);
    while text.len() < bytes {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(words[(x >> 33) as usize % words.len()]);
        text.push(if x >> 61 == 0 { '\n' } else { ' ' });
    }
    text
}

/// One run with its orchestrator, and the miners that join it.
pub(crate) struct Swarm {
    pub(crate) network: MemoryNetwork,
    pub(crate) spec: RunSpec,
    pub(crate) log: Arc<dyn LogStore>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) address: PeerAddress,
    task: JoinHandle<Result<Summary, OrchestratorError>>,
    pub(crate) events: mpsc::Receiver<Progress>,
    pub(crate) miners: Vec<Running>,
    /// What miners that start from now on keep.
    pub(crate) keep: Keep,
}

pub(crate) struct Running {
    pub(crate) task: JoinHandle<Result<End, MinerError>>,
    pub(crate) shutdown: Shutdown,
    pub(crate) address: PeerAddress,
}

impl Swarm {
    pub(crate) async fn start(stages: usize, change: impl FnOnce(&mut RunSpec)) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let blobs: Arc<dyn Blobs> = Arc::new(MemoryBlobs::default());
        let mut spec = RunSpec::preset("micro").unwrap();
        spec.set_stages(stages).unwrap();
        let sources: Vec<String> = (0..4)
            .map(|i| {
                let path = folder.path().join(format!("{i}.txt"));
                std::fs::write(&path, text(i, 40_000)).unwrap();
                path.display().to_string()
            })
            .collect();
        let corpus = collect(&sources, &CollectOptions::default()).unwrap();
        let mut shards = Vec::new();
        let keep = |hash: model::hash::BlobHash, bytes: Vec<u8>| {
            shards.push((Hash(hash.0), bytes));
            Ok(())
        };
        let manifest = build(&split(corpus).unwrap(), &Tokenizer::Bytes, keep, |_, _| {}).unwrap();
        for (hash, bytes) in shards {
            blobs.put_at(hash, Bytes::from(bytes)).await.unwrap();
        }
        spec.data.vocab = manifest.vocab;
        spec.data.train = manifest.train;
        spec.data.held_out = manifest.held_out;
        spec.batch.sequences = 2;
        spec.batch.micro_batches_per_epoch = 24;
        spec.inner.steps = 3;
        spec.phases.epochs = 3;
        spec.phases.validators_min = 0;
        spec.phases.heartbeat_ms = 200;
        spec.phases.lost_after_ms = 3_000;
        spec.phases.lease_ms = 10_000;
        spec.phases.merge_min_ms = 4_000;
        spec.phases.merge_max_ms = 10_000;
        change(&mut spec);
        let spec = RunSpec::parse(&spec.canonical()).expect("a spec that every node reads");

        let network = MemoryNetwork::new();
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::default());
        let parts = OrchestratorParts {
            key: key(1),
            spec: spec.clone(),
            log: Arc::clone(&log),
            blobs: Arc::clone(&blobs),
            folder: RunFolder::new(folder.path()),
            checkpoint_every: 0,
        };
        let orchestrator = Orchestrator::open(parts).await.unwrap();
        let link: Arc<dyn Link> = Arc::new(network.join(key(1).node_id(), orchestrator.handler()));
        let address = link.address();
        let (progress, events) = mpsc::channel(4096);
        let listening = Listening { run: String::new(), ticket: String::new(), folder: String::new() };
        let task = tokio::spawn(orchestrator.serve(link, listening, progress, Shutdown::default()));
        Self {
            network,
            spec,
            log,
            blobs,
            folder,
            address,
            task,
            events,
            miners: Vec::new(),
            keep: Keep::Graphs,
        }
    }

    /// Starts miner `seed`; a second one of that seed has the same key, folder and disk, as after a restart.
    pub(crate) async fn miner(&self, seed: u8, stage: Option<u16>) -> Running {
        self.miner_behind(seed, stage, Arc::new(Nobody)).await
    }

    /// The same, with somebody between it and the network.
    pub(crate) async fn miner_behind(
        &self,
        seed: u8,
        stage: Option<u16>,
        between: Arc<dyn Between>,
    ) -> Running {
        let folder = self.folder.path().join(format!("miner-{seed}"));
        tokio::fs::create_dir_all(&folder).await.unwrap();
        let blobs = store::FolderBlobs::open(folder.join("blobs"), store::Durability::Cached).await.unwrap();
        let miner = Miner::new(Parts {
            key: key(seed),
            run: self.spec.run_id(),
            orchestrator: key(1).node_id(),
            blobs: Arc::new(blobs),
            folder,
            threads: 1,
            memory: None,
            when_idle: false,
            stage: stage.map(StageIndex),
            keep_frames: None,
            keep: self.keep,
            child: super::champion::child(),
        });
        let handler = Arc::new(Inward { handler: miner.handler(), between: Arc::clone(&between) });
        let link: Arc<dyn Link> = Arc::new(self.network.join(key(seed).node_id(), handler));
        let link: Arc<dyn Link> = Arc::new(Outward { link, between });
        link.learn(key(1).node_id(), self.address.clone());
        let (shutdown, address) = (Shutdown::default(), link.address());
        let stops = shutdown.clone();
        let task = tokio::spawn(async move { miner.serve(link, |_| {}, &stops).await });
        Running { task, shutdown, address }
    }

    pub(crate) async fn miners(&mut self, replicas: usize) {
        for stage in 0..self.spec.stages() {
            for _ in 0..replicas {
                let miner = self.miner(10 + self.miners.len() as u8, Some(stage as u16)).await;
                self.miners.push(miner);
            }
        }
    }

    /// Waits for an event.
    pub(crate) async fn until(&mut self, mut wanted: impl FnMut(&Progress) -> bool) {
        let wait = async {
            while let Some(event) = self.events.recv().await {
                if wanted(&event) {
                    return;
                }
            }
            panic!("the orchestrator ended");
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("in time");
    }

    /// Waits for the end of the run and hears every event of it.
    pub(crate) async fn end_hearing(mut self, mut hear: impl FnMut(&Progress)) -> Summary {
        let all = async {
            while let Some(event) = self.events.recv().await {
                hear(&event);
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("in time");
        self.end().await.0
    }

    /// Waits for the end of the run; returns its summary and how the miners ended.
    pub(crate) async fn end(self) -> (Summary, Vec<End>) {
        self.end_within(PATIENCE).await
    }

    pub(crate) async fn end_within(self, patience: Duration) -> (Summary, Vec<End>) {
        let summary = tokio::time::timeout(patience, self.task).await.expect("in time").unwrap().unwrap();
        let mut ends = Vec::new();
        for miner in self.miners {
            let end = tokio::time::timeout(PATIENCE, miner.task).await.expect("in time").unwrap();
            ends.push(end.unwrap());
        }
        (summary, ends)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_stages_of_two_miners_learn() {
    let mut swarm = Swarm::start(3, |spec| spec.phases.miners_min = 2).await;
    swarm.miners(2).await;
    let (summary, ends) = swarm.end().await;
    let (first, last) = (summary.loss_first.unwrap(), summary.loss_last.unwrap());
    assert!(last < first - 0.5, "loss {first} → {last}");
    assert_eq!(summary.epochs, 3);
    assert!(summary.coverage.unwrap() > 0.8, "{:?}", summary.coverage);
    assert!(summary.activation_bytes > 0 && summary.merge_bytes > 0);
    assert!(ends.iter().all(|end| *end == End::Over), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_is_killed_and_comes_back_takes_part_again() {
    let mut swarm = Swarm::start(2, |spec| {
        spec.phases.miners_min = 2;
        spec.phases.epochs = 5;
    })
    .await;
    swarm.miners(2).await;
    swarm.until(|event| matches!(event, Progress::Epoch { epoch: 1, .. })).await;
    let killed = swarm.miners.remove(3);
    killed.shutdown.stop.cancel();
    assert_eq!(killed.task.await.unwrap().unwrap(), End::Stopped);
    let back = swarm.miner(13, Some(1)).await;
    swarm.miners.push(back);
    swarm.until(|event| matches!(event, Progress::Epoch { epoch, members, .. } if *epoch >= 2 && members == &[2, 2])).await;
    let (summary, ends) = swarm.end().await;
    assert_eq!(summary.epochs, 5);
    assert!(summary.loss_last < summary.loss_first);
    assert!(ends.iter().all(|end| *end == End::Over), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_drains_leaves_after_the_merge() {
    let mut swarm = Swarm::start(1, |spec| {
        spec.phases.miners_min = 2;
        spec.phases.epochs = 12;
    })
    .await;
    swarm.miners(2).await;
    swarm.until(|event| matches!(event, Progress::Epoch { epoch: 1, .. })).await;
    let drained = swarm.miners.remove(1);
    drained.shutdown.drain.cancel();
    let end = tokio::time::timeout(PATIENCE, drained.task).await.expect("in time").unwrap().unwrap();
    assert_eq!(end, End::Drained);
    let mut lost = None;
    swarm
        .until(|event| match event {
            Progress::Gone { lost: was, .. } => {
                lost = Some(*was);
                true
            }
            _ => false,
        })
        .await;
    assert_eq!(lost, Some(false));
    let (summary, _) = swarm.end().await;
    assert_eq!(summary.epochs, 12);
    assert!(summary.coverage.unwrap() > 0.9, "{:?}", summary.coverage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_lock_step_one_miner_per_stage_trains_every_micro_batch() {
    let mut swarm = Swarm::start(3, |spec| {
        spec.inner.clip_scope = ClipScope::Model;
        spec.outer = OuterSpec::Identity {};
        spec.phases.miners_min = 1;
    })
    .await;
    swarm.miners(1).await;
    let (summary, _) = swarm.end().await;
    assert_eq!(summary.coverage, Some(1.0));
    assert!(summary.loss_last < summary.loss_first);
}
