//! The relay that an orchestrator embeds, so that nodes without an open port reach each other through it.
//!
//! It speaks plain HTTP and WebSocket on one TCP port. That gives nothing away: what it passes on is QUIC, encrypted
//! between the nodes, and a node proves its key to the relay by a signed challenge.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use iroh::EndpointId;
use iroh_relay::server::{
    Access, AccessControl, ClientRateLimit, ClientRequest, ConnectionId, RelayConfig, Server, ServerConfig,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use wire::NodeId;

use crate::limits;

/// Decides whether a node belongs to those that the relay is for.
pub type Admit = Arc<dyn Fn(&NodeId) -> bool + Send + Sync>;

/// How a relay is set up.
#[derive(Clone)]
pub struct RelayOptions {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Who belongs, asked again as time goes on; none: everyone.
    pub admit: Option<Admit>,
    /// Others that are let in at a time all the same, so that they can come to belong.
    pub newcomers: usize,
    /// Most bytes per second that are taken from one node, at least [`limits::RELAY_RATE_MIN`]; none: no limit.
    pub node_limit: Option<NonZeroU32>,
}

impl fmt::Debug for RelayOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayOptions").field("bind", &self.bind).finish_non_exhaustive()
    }
}

/// A running relay; dropping it stops it.
#[derive(Debug)]
pub struct Relay {
    server: Server,
    socket: SocketAddr,
    _sent_away: AbortOnDropHandle<()>,
}

/// Why a relay did not start or stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The port is taken.
    #[error("the relay's port {0} is in use by another program: choose another port, or 0 for any")]
    InUse(SocketAddr),
    /// It could not listen.
    #[error("the relay cannot listen on {bind}: {reason}")]
    Listen {
        /// Address asked for.
        bind: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// It ended in an error.
    #[error("the relay failed: {0}")]
    Failed(String),
}

impl Relay {
    /// Starts to listen.
    pub async fn start(options: RelayOptions) -> Result<Self, RelayError> {
        let bind = options.bind;
        let mut relay = RelayConfig::new(bind);
        let (away, mut leaving) = mpsc::channel(limits::RELAY_LEAVING);
        let RelayOptions { admit, newcomers, .. } = options;
        relay.access = Arc::new(Door { admit, newcomers, inside: Mutex::default(), away });
        let limit = options.node_limit.map(|limit| limit.max(limits::RELAY_RATE_MIN));
        relay.limits.client_rx = limit.map(ClientRateLimit::new);
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        let server = Server::spawn(config).await.map_err(|error| {
            let reason = format!("{error:#}");
            if reason.to_lowercase().contains("in use") {
                RelayError::InUse(bind)
            } else {
                RelayError::Listen { bind, reason }
            }
        })?;
        let socket = server
            .http_addr()
            .ok_or_else(|| RelayError::Failed("it has no address after it started".to_owned()))?;
        let clients = server.relay_service().map(|service| service.clients().clone());
        // Apart from the door, which the clients hold: it must not hold them.
        let sent_away = tokio::spawn(async move {
            let Some(clients) = clients else { return };
            let mut going: Vec<(EndpointId, ConnectionId, u32)> = Vec::new();
            loop {
                tokio::select! {
                    next = leaving.recv() => match next {
                        Some((node, connection)) => going.push((node, connection, limits::RELAY_LEAVING_TRIES)),
                        None => return,
                    },
                    () = tokio::time::sleep(limits::RELAY_LEAVING_PAUSE), if !going.is_empty() => {}
                }
                // One that was let in a moment ago is not yet among the clients.
                going.retain_mut(|(node, connection, tries)| {
                    *tries -= 1;
                    !clients.disconnect(*node, Some(*connection)) && *tries > 0
                });
            }
        });
        Ok(Self { server, socket, _sent_away: AbortOnDropHandle::new(sent_away) })
    }

    /// Where it listens.
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// Its URL for nodes that know this machine as `host` (a name, or an address; IPv6 without brackets).
    pub fn url(&self, host: &str) -> String {
        let port = self.socket.port();
        if host.contains(':') { format!("http://[{host}]:{port}/") } else { format!("http://{host}:{port}/") }
    }

    /// Stops it and waits until it has.
    pub async fn stop(self) -> Result<(), RelayError> {
        self.server.shutdown().await.map_err(|error| RelayError::Failed(format!("{error:#}")))
    }
}

/// Who is let in: whoever belongs, some others, and each once.
struct Door {
    admit: Option<Admit>,
    newcomers: usize,
    /// By node and connection; at most [`limits::RELAY_CONNECTIONS`] of a node.
    inside: Mutex<Vec<Inside>>,
    /// Connections that are to end.
    away: mpsc::Sender<(EndpointId, ConnectionId)>,
}

/// One connection of a node.
#[derive(Clone, Copy, Debug)]
struct Inside {
    node: EndpointId,
    connection: ConnectionId,
    since: Instant,
    /// It did not belong when it was last asked about.
    newcomer: bool,
}

impl Inside {
    fn id(&self) -> NodeId {
        NodeId(*self.node.as_bytes())
    }
}

impl Door {
    fn belongs(&self, node: &NodeId) -> bool {
        self.admit.as_ref().is_none_or(|admit| admit(node))
    }

    fn send_away(&self, inside: Inside) {
        if self.away.try_send((inside.node, inside.connection)).is_err() {
            tracing::debug!("a connection of the relay is left to end by silence");
        }
    }

    /// Whether there is room for one more newcomer, if need be in place of one that had its time.
    fn has_room(&self, inside: &mut Vec<Inside>) -> bool {
        for one in inside.iter_mut().filter(|one| one.newcomer) {
            one.newcomer = !self.belongs(&one.id());
        }
        let newcomers = || inside.iter().filter(|one| one.newcomer);
        if newcomers().count() < self.newcomers {
            return true;
        }
        let oldest = newcomers().min_by_key(|one| one.since).copied();
        let oldest = oldest.filter(|one| one.since.elapsed() >= limits::RELAY_NEWCOMER_STAY);
        if let Some(one) = oldest {
            inside.retain(|other| other.connection != one.connection);
            self.send_away(one);
        }
        oldest.is_some()
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("newcomers", &self.newcomers).finish_non_exhaustive()
    }
}

impl AccessControl for Door {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let (endpoint, connection) = (request.endpoint_id(), request.connection_id());
        let node = NodeId(*endpoint.as_bytes());
        let newcomer = !self.belongs(&node);
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        // The rate is one of connections: a node keeps its newest. A member has two, since it may know the relay by two addresses
        // (an orchestrator behind a router does), and would open each again at once.
        let most = if newcomer { 1 } else { limits::RELAY_CONNECTIONS };
        let own = |one: &Inside| one.node == endpoint;
        while inside.iter().filter(|one| own(one)).count() >= most {
            let Some(oldest) = inside.iter().position(own) else { break };
            self.send_away(inside.remove(oldest));
        }
        if newcomer && !self.has_room(&mut inside) {
            tracing::debug!(node = node.short(), "the relay refuses a node that is no member");
            let reason = "not a member of this run, and too many others are here: come again later";
            return Access::Deny { reason: Some(reason.to_owned()) };
        }
        inside.push(Inside { node: endpoint, connection, since: Instant::now(), newcomer });
        Access::Allow
    }

    fn on_disconnect(&self, endpoint: EndpointId, connection: ConnectionId) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.retain(|one| (one.node, one.connection) != (endpoint, connection));
    }
}
