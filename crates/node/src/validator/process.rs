//! The validator as a process: a ticket, a folder, a QUIC endpoint.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use async_trait::async_trait;
use net::{EndpointOptions, Handler, Link, Message, QuicLink, Refusal, Ticket};
use store::{Durability, FolderBlobs};
use tokio_util::sync::CancellationToken;
use wire::{NodeId, SigningKey};

use super::{Parts, ValidatorError, serve};
use crate::folder::RunFolder;
use crate::limits;
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
    /// Sockets to listen on; empty: all interfaces, a free port.
    pub bind: Vec<SocketAddr>,
    /// Threads to compute with.
    pub threads: usize,
    /// Most bytes sent per second.
    pub upload_limit: Option<NonZeroU64>,
}

/// Runs a validator until the run is over or `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), ValidatorError> {
    let Options { ticket, key, folder, bind, threads, upload_limit } = options;
    let path = folder.root().display().to_string();
    let made = tokio::fs::create_dir_all(folder.root()).await;
    made.map_err(|source| ValidatorError::Folder { path, source })?;
    let blobs = Arc::new(FolderBlobs::open(folder.blobs(), Durability::Cached).await?);
    let mut endpoint = EndpointOptions::new(key.clone());
    if !bind.is_empty() {
        endpoint.bind = bind;
    }
    endpoint.relays = ticket.address.relay().map(str::to_owned).into_iter().collect();
    endpoint.upload_limit = upload_limit;
    let relayed = !endpoint.relays.is_empty();
    let link = QuicLink::bind(endpoint, Arc::new(Silent)).await?;
    link.learn(ticket.node, ticket.address);
    if relayed {
        link.reached_relay(limits::RELAY_START).await;
    }
    let link: Arc<dyn Link> = Arc::new(link);
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
