//! The relay that an orchestrator embeds, so that nodes without an open port reach each other through it.
//!
//! It speaks plain HTTP and WebSocket on one TCP port. That gives nothing away: what it passes on is QUIC, encrypted
//! between the nodes, and a node proves its key to the relay by a signed challenge.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use iroh_relay::server::{
    Access, AccessControl, ClientRateLimit, ClientRequest, RelayConfig, Server, ServerConfig,
};
use wire::NodeId;

/// Decides whether a node may use the relay.
pub type Admit = Arc<dyn Fn(&NodeId) -> bool + Send + Sync>;

/// How a relay is set up.
#[derive(Clone)]
pub struct RelayOptions {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Who may use it; none lets everyone.
    pub admit: Option<Admit>,
    /// Most bytes per second that are taken from one node.
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
        if let Some(admit) = options.admit {
            relay.access = Arc::new(Members(admit));
        }
        relay.limits.client_rx = options.node_limit.map(ClientRateLimit::new);
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
        Ok(Self { server, socket })
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

struct Members(Admit);

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Members")
    }
}

impl AccessControl for Members {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let node = NodeId(*request.endpoint_id().as_bytes());
        if (self.0)(&node) {
            Access::Allow
        } else {
            tracing::debug!(node = node.short(), "the relay refuses a node that is no member");
            Access::Deny { reason: Some("not a member of this run".to_owned()) }
        }
    }
}
