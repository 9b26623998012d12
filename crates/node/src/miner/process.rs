//! The miner as a process: a ticket, a folder, a QUIC endpoint.

use std::path::PathBuf;
use std::sync::Arc;

use net::Ticket;
use store::{Blobs, Durability, FolderBlobs};
use wire::StageIndex;

use super::{End, Keep, Miner, MinerError, MinerMemory, Parts};
use crate::network::Network;
use crate::orchestrator::Shutdown;

/// How a miner is run.
#[derive(Debug)]
pub struct Options {
    /// What the orchestrator printed.
    pub ticket: Ticket,
    /// Folder of this node: key, data shards, kept states. Made if it is not there.
    pub folder: PathBuf,
    /// Its sockets, and how it sends.
    pub network: Network,
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
}

/// Runs a miner until the run is over or it is told to stop. `need` is told what memory it will need before it joins.
pub async fn run(
    options: Options,
    need: impl FnOnce(&[MinerMemory]),
    shutdown: &Shutdown,
) -> Result<End, MinerError> {
    let Options { ticket, folder, network, threads, memory, when_idle, stage, keep_frames, keep } = options;
    super::allocator::give_back_large_vectors();
    let made = tokio::fs::create_dir_all(&folder).await;
    made.map_err(|source| MinerError::Folder { folder: folder.clone(), source })?;
    let key = crate::key::load_or_create(&folder.join("node.key"))?;
    let blobs: Arc<dyn Blobs> = Arc::new(FolderBlobs::open(folder.join("blobs"), Durability::Cached).await?);
    let parts = Parts {
        key: key.clone(),
        run: ticket.run,
        orchestrator: ticket.node,
        blobs,
        folder,
        threads,
        memory,
        when_idle,
        stage,
        keep_frames,
        keep,
        child: sandbox::Child::this_binary()?,
    };
    let miner = Miner::new(parts);
    let link = network.join(key, &ticket, miner.handler()).await?;
    miner.serve(Arc::new(link), need, shutdown).await
}
