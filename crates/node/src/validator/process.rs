//! The validator as a process: a ticket, a folder, a QUIC endpoint.

use std::sync::Arc;

use async_trait::async_trait;
use net::{Handler, Link, Message, Refusal, Ticket};
use store::{Durability, FolderBlobs};
use tokio_util::sync::CancellationToken;
use wire::{NodeId, SigningKey};

use super::{Parts, ValidatorError, serve};
use crate::folder::RunFolder;
use crate::limits;
use crate::network::Network;
use crate::rpc::code;

/// How a validator is run.
#[derive(Debug)]
pub struct Options {
    /// What the orchestrator printed.
    pub ticket: Ticket,
    /// Its key.
    pub key: SigningKey,
    /// Its folder; made if it is not there.
    pub folder: RunFolder,
    /// Its sockets, and how it sends.
    pub network: Network,
    /// Threads to compute with.
    pub threads: usize,
}

/// Runs a validator until the run is over or `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), ValidatorError> {
    let Options { ticket, key, folder, network, threads } = options;
    let path = folder.root().display().to_string();
    let made = tokio::fs::create_dir_all(folder.root()).await;
    made.map_err(|source| ValidatorError::Folder { path, source })?;
    let blobs = Arc::new(FolderBlobs::open(folder.blobs(), Durability::Cached).await?);
    let link: Arc<dyn Link> = Arc::new(network.join(key.clone(), &ticket, Arc::new(Silent)).await?);
    let parts = Parts {
        key,
        link: Arc::clone(&link),
        orchestrator: ticket.node,
        run: ticket.run,
        blobs,
        threads,
        child: sandbox::Child::this_binary()?,
        folder: Some(folder.root().to_owned()),
    };
    let outcome = serve(parts, stop).await;
    drop(tokio::time::timeout(limits::CLOSE, link.close()).await);
    outcome
}

/// A validator asks; it answers nothing.
struct Silent;

#[async_trait]
impl Handler for Silent {
    async fn handle(&self, _: NodeId, _: Message) -> Result<Message, Refusal> {
        Err(Refusal::new(code::NOT_MY_ROLE, "this is a validator: it serves nothing"))
    }
}
