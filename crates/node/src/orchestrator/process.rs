//! The orchestrator as a process: a run's folder, a QUIC endpoint, an embedded relay.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use net::relay::Admit;
use net::{BindError, Congestion, EndpointOptions, Link, QuicLink, Relay, RelayError, RelayOptions, Ticket};
use store::{Blobs, Durability, FolderBlobs, LogError, LogStore, SqliteLog};
use tokio::sync::mpsc;

use super::{Orchestrator, OrchestratorError, Parts, Shutdown};
use crate::folder::RunFolder;
use crate::limits;
use crate::progress::{Listening, Progress, Summary};
use crate::spec::RunSpec;

/// How an orchestrator is run.
#[derive(Debug)]
pub struct Options {
    /// The run's folder, as `shoal run new` made it.
    pub folder: RunFolder,
    /// Sockets to listen on; empty: all interfaces at the port of last time, or any free one.
    pub bind: Vec<SocketAddr>,
    /// Addresses under which others reach this machine, if they differ from those it binds.
    pub public: Vec<SocketAddr>,
    /// How sending adapts to the path; none: by the sockets.
    pub congestion: Option<Congestion>,
    /// The embedded relay, for this run's nodes; none: no relay.
    pub relay: Option<RelayFor>,
    /// Epochs between checkpoints; 0: only at the end.
    pub checkpoint_every: u32,
    /// Where events go; a slow reader misses statuses, nothing else waits for it.
    pub progress: mpsc::Sender<Progress>,
}

/// How the embedded relay is set up.
#[derive(Clone, Copy, Debug)]
pub struct RelayFor {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Most bytes per second that it takes from one node.
    pub node_rate: NonZeroU32,
    /// Nodes that it serves at a time beside those of the run.
    pub newcomers: usize,
}

impl RelayFor {
    /// With the usual limits.
    pub fn new(bind: SocketAddr) -> Self {
        Self { bind, node_rate: limits::RELAY_BYTES_PER_S, newcomers: limits::RELAY_NEWCOMERS }
    }
}

/// Runs the orchestrator of a folder until the run is over or it is told to stop.
pub async fn run(options: Options, shutdown: Shutdown) -> Result<Summary, OrchestratorError> {
    let Options { folder, bind, public, congestion, relay, checkpoint_every, progress } = options;
    let path = folder.spec();
    let missing =
        |source| OrchestratorError::Folder { folder: folder.root().to_owned(), file: path.clone(), source };
    let text = tokio::fs::read_to_string(&path).await.map_err(missing)?;
    let wrong = |source| OrchestratorError::Spec { path: path.clone(), source };
    let spec = RunSpec::parse(&text).map_err(wrong)?;
    spec.check_data().map_err(wrong)?;
    let key = crate::key::load(&folder.key())?;
    let log: Arc<dyn LogStore> = Arc::new(SqliteLog::open(folder.log()).await?);
    let blobs: Arc<dyn Blobs> = Arc::new(FolderBlobs::open(folder.blobs(), Durability::Synced).await?);
    let parts = Parts {
        key: key.clone(),
        spec,
        log: Arc::clone(&log),
        blobs,
        folder: folder.clone(),
        checkpoint_every,
    };
    let orchestrator = Orchestrator::open(parts).await?;
    let relay = match relay {
        Some(relay) => Some(start_relay(log.as_ref(), relay, orchestrator.members()).await?),
        None => None,
    };
    let mut endpoint = EndpointOptions { congestion, ..EndpointOptions::new(key) };
    endpoint.bind = if bind.is_empty() { last_ports(log.as_ref(), endpoint.bind).await? } else { bind };
    // A router need not let this machine reach itself by the address that others see: the orchestrator takes the near one.
    let told = relay.as_ref().map(|relay| relay.url(&host(&public, &endpoint.bind)));
    endpoint.relays = relay.iter().map(|relay| relay.url(&host(&[], &endpoint.bind))).collect();
    let link = QuicLink::bind(endpoint, orchestrator.handler()).await?;
    if relay.is_some() {
        link.reached_relay(limits::RELAY_START).await;
    }
    if let Some(socket) = link.sockets().first() {
        remember_port(log.as_ref(), PORT, socket.port()).await?;
    }
    let address = if public.is_empty() {
        link.address()
    } else {
        net::PeerAddress::new(public, told.as_deref()).map_err(BindError::from)?
    };
    let ticket = Ticket { run: orchestrator.leader.state().run(), node: link.id(), address };
    let listening = Listening {
        run: ticket.run.to_string(),
        ticket: ticket.to_string(),
        folder: folder.root().display().to_string(),
    };
    let outcome = orchestrator.serve(Arc::new(link), listening, progress, shutdown).await;
    log.close().await;
    if let Some(relay) = relay {
        drop(tokio::time::timeout(limits::CLOSE, relay.stop()).await);
    }
    outcome
}

/// Keys under which ports are remembered.
const PORT: &str = "port";
const RELAY_PORT: &str = "relay port";

async fn last_port(log: &dyn LogStore, key: &str) -> Result<u16, LogError> {
    Ok(log.get(key).await?.and_then(|bytes| wire::from_bytes(&bytes).ok()).unwrap_or(0))
}

async fn last_ports(log: &dyn LogStore, any: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, LogError> {
    let port = last_port(log, PORT).await?;
    Ok(any.into_iter().map(|address| SocketAddr::new(address.ip(), port)).collect())
}

async fn remember_port(log: &dyn LogStore, key: &str, port: u16) -> Result<(), LogError> {
    log.put(key, wire::to_bytes(&port).into()).await
}

/// Starts the relay at the port of last time if none is asked for: tickets and nodes name it.
async fn start_relay(
    log: &dyn LogStore,
    relay: RelayFor,
    members: Admit,
) -> Result<Relay, OrchestratorError> {
    let RelayFor { bind, node_rate, newcomers } = relay;
    let options = |bind| RelayOptions {
        bind,
        admit: Some(Arc::clone(&members)),
        newcomers,
        node_limit: Some(node_rate),
    };
    let relay = match last_port(log, RELAY_PORT).await? {
        port if port != 0 && bind.port() == 0 => {
            match Relay::start(options(SocketAddr::new(bind.ip(), port))).await {
                Err(RelayError::InUse(taken)) => {
                    tracing::warn!(%taken, "the relay's port of last time is taken: miners behind it must join anew");
                    Relay::start(options(bind)).await?
                }
                started => started?,
            }
        }
        _ => Relay::start(options(bind)).await?,
    };
    remember_port(log, RELAY_PORT, relay.socket().port()).await?;
    Ok(relay)
}

/// The name under which others know this machine: as told, else as bound, else the address of its way out.
fn host(public: &[SocketAddr], bind: &[SocketAddr]) -> String {
    let told = public.first().or_else(|| bind.iter().find(|address| !address.ip().is_unspecified()));
    let way_out = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?; // sends nothing: only picks the interface
        socket.local_addr().ok()
    };
    told.copied().or_else(way_out).map_or_else(|| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}
