//! The link over iroh: QUIC between nodes, direct where possible, through a relay where not.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use iroh::Endpoint;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::{NodeId, SigningKey};

use crate::address::{AddressError, parse_relay_url};
use crate::meter::{Meter, Pace};
use crate::{Handler, Link, LinkError, Message, PeerAddress, Traffic, limits, link};

mod call;
mod peers;
mod serve;
mod transfer;
mod transport;

use peers::Peers;

/// Application protocol of the handshake: another version of the framing is another protocol.
pub const ALPN: &[u8] = b"shoal/1";

/// How an endpoint is set up.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// The node's key; its public half is the node's id.
    pub key: SigningKey,
    /// Sockets to open, at most one of IPv4 and one of IPv6; port 0 takes a free one.
    pub bind: Vec<SocketAddr>,
    /// Relays to stay connected to, so that peers reach this node where they cannot directly; empty switches relays off.
    pub relays: Vec<String>,
    /// How sending adapts to the path; none: see [`Self::controller`].
    pub congestion: Option<Congestion>,
    /// Most bytes of messages that are sent per second, over all peers.
    pub upload_limit: Option<NonZeroU64>,
    /// Streams that a large payload is spread over, 1 to [`limits::STRIPES`].
    pub stripes: u8,
    /// Largest datagram that is tried on a path, bytes.
    pub datagram_bytes: u16,
}

/// Congestion control. Figures: `bench/net/run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// Cubic (RFC 9438): backs off at every loss. Of a path of 100 Mbit/s and 50 ms that loses 1 packet in 1,000 it uses a
    /// twelfth.
    Cubic,
    /// BBR version 3 (draft-ietf-ccwg-bbr): follows the measured rate, so that lost packets hardly slow it. On loopback, where
    /// nothing is lost and nothing has a rate, it is several times slower.
    Bbr3,
}

impl EndpointOptions {
    /// All interfaces, a free port, no relay.
    pub fn new(key: SigningKey) -> Self {
        Self {
            key,
            bind: vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()],
            relays: Vec::new(),
            congestion: None,
            upload_limit: None,
            stripes: 4,
            datagram_bytes: transport::DATAGRAM_BYTES,
        }
    }

    /// This machine only, a free port, no relay.
    pub fn loopback(key: SigningKey) -> Self {
        Self { bind: vec![(Ipv4Addr::LOCALHOST, 0).into()], ..Self::new(key) }
    }

    /// The congestion control asked for; else [`Congestion::Cubic`] if all sockets are on loopback, [`Congestion::Bbr3`] if not.
    pub fn controller(&self) -> Congestion {
        let local = self.bind.iter().all(|address| address.ip().is_loopback());
        self.congestion.unwrap_or(if local { Congestion::Cubic } else { Congestion::Bbr3 })
    }
}

/// Why an endpoint could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A port is taken.
    #[error("{} is in use by another program: choose another port, or 0 for any", list(.0))]
    InUse(Vec<SocketAddr>),
    /// Nothing to open.
    #[error("no address to bind: give one of IPv4 or IPv6, or both")]
    Nothing,
    /// A relay's URL is wrong.
    #[error(transparent)]
    Relay(#[from] AddressError),
    /// The transport failed.
    #[error("cannot open {}: {reason}", list(bind))]
    Transport {
        /// Addresses asked for.
        bind: Vec<SocketAddr>,
        /// What the transport says.
        reason: String,
    },
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A link over iroh. Dropping it closes its connections without a word; [`Link::close`] tells the peers.
#[derive(Debug)]
pub struct QuicLink {
    shared: Arc<Shared>,
}

/// What the link's tasks share.
struct Shared {
    id: NodeId,
    /// Tells this link from one that the same node had before: when it was opened, ns.
    life: u64,
    endpoint: Endpoint,
    /// The first of its relays.
    relay: Option<iroh::RelayUrl>,
    handler: Arc<dyn Handler>,
    peers: Peers,
    meter: Arc<Meter>,
    pace: Option<Pace>,
    stripes: u8,
    /// Calls in flight.
    calls: Semaphore,
    /// Calls being served.
    served: Semaphore,
    /// Payload being received, KiB.
    receiving: Semaphore,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

impl QuicLink {
    /// Opens the sockets and starts to serve `handler`.
    pub async fn bind(options: EndpointOptions, handler: Arc<dyn Handler>) -> Result<Self, BindError> {
        let relays = options.relays.iter().map(|url| parse_relay_url(url)).collect::<Result<Vec<_>, _>>()?;
        let relay = relays.first().cloned();
        let endpoint = transport::bind(&options, relays).await?;
        let shared = Arc::new(Shared {
            id: options.key.node_id(),
            life: UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos() as u64),
            endpoint,
            relay,
            handler,
            peers: Peers::default(),
            meter: Arc::default(),
            pace: options.upload_limit.map(Pace::new),
            stripes: options.stripes.clamp(1, limits::STRIPES),
            calls: Semaphore::new(limits::CALLS),
            served: Semaphore::new(limits::SERVED),
            receiving: Semaphore::new((limits::RECEIVE_BYTES >> 10) as usize),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(serve::accept(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Waits until a relay has accepted this node, so that [`Link::address`] names it; false if that takes longer.
    pub async fn reached_relay(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.shared.endpoint.online()).await.is_ok()
    }

    /// Sockets of this endpoint.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        self.shared.endpoint.bound_sockets()
    }

    /// Whether the connection with `peer` goes through a relay at present; none without a connection.
    pub fn is_relayed(&self, peer: &NodeId) -> Option<bool> {
        self.shared.peers.newest(peer).map(|connected| connected.is_relayed())
    }

    /// Counters of the connection with `peer`, for measurements; none without a connection.
    pub fn statistics(&self, peer: &NodeId) -> Option<iroh::endpoint::ConnectionStats> {
        self.shared.peers.newest(peer).map(|connected| connected.connection.stats())
    }
}

#[async_trait]
impl Link for QuicLink {
    fn id(&self) -> NodeId {
        self.shared.id
    }

    async fn call(&self, to: &NodeId, message: Message, deadline: Duration) -> Result<Message, LinkError> {
        link::check_size(&message)?;
        let shared = &self.shared;
        let deadline = deadline.min(limits::DEADLINE);
        let call = tokio::time::timeout(deadline, call::call(shared, *to, message, deadline));
        tokio::select! {
            biased;
            () = shared.closed.cancelled() => Err(LinkError::Closed),
            result = call => result.unwrap_or(Err(LinkError::Timeout { peer: *to, deadline })),
        }
    }

    fn learn(&self, peer: NodeId, address: PeerAddress) {
        self.shared.peers.learn(peer, address);
    }

    fn reach(&self, peer: NodeId) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            let connecting = call::connect_anew(&shared, peer);
            tokio::select! {
                () = shared.closed.cancelled() => {}
                outcome = connecting => if let Err(error) = outcome {
                    tracing::debug!(%error, "a peer is not reached");
                }
            }
        });
    }

    fn address(&self) -> PeerAddress {
        let address = self.shared.endpoint.addr();
        let mut direct: Vec<SocketAddr> = address.ip_addrs().copied().collect();
        // The transport's own watcher may not have run yet; a socket bound to one address is known at once.
        for socket in self.shared.endpoint.bound_sockets() {
            if !socket.ip().is_unspecified() && !direct.contains(&socket) {
                direct.push(socket);
            }
        }
        // A relay that has not let it in yet will: peers must know where.
        let relay = address.relay_urls().next().or(self.shared.relay.as_ref()).cloned();
        PeerAddress::from_parts(direct, relay)
    }

    fn traffic(&self) -> Traffic {
        self.shared.meter.traffic()
    }

    fn speed(&self, peer: Option<&NodeId>) -> Option<f64> {
        self.shared.meter.speed(peer)
    }

    async fn close(&self) {
        let shared = &self.shared;
        shared.closed.cancel();
        shared.tasks.close();
        shared.peers.clear();
        let all = async {
            shared.endpoint.close().await;
            shared.tasks.wait().await;
        };
        if tokio::time::timeout(limits::CLOSE, all).await.is_err() {
            tracing::warn!(id = shared.id.short(), "closing took too long; peers will notice by silence");
        }
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
