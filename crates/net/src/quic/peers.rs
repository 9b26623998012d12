//! Known addresses and open connections, by peer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use iroh::endpoint::{Connection, VarInt};
use iroh::{EndpointAddr, PublicKey, TransportAddr};
use tokio::sync::Semaphore;
use wire::NodeId;

use super::transfer::Stripes;
use crate::frame::FrameError;
use crate::{PeerAddress, Refusal, limits};

/// One connection with a peer, whichever side opened it.
pub(super) struct Connected {
    pub(super) peer: NodeId,
    pub(super) connection: Connection,
    pub(super) stripes: Stripes,
    /// Which life of the peer it is with, once that was said.
    life: OnceLock<u64>,
    next_call: AtomicU64,
}

impl Connected {
    pub(super) fn new(peer: NodeId, connection: Connection) -> Arc<Self> {
        let (stripes, next_call) = (Stripes::default(), AtomicU64::new(0));
        Arc::new(Self { peer, connection, stripes, life: OnceLock::new(), next_call })
    }

    pub(super) fn next_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(super) fn is_relayed(&self) -> bool {
        self.connection.paths().iter().any(|path| path.is_selected() && path.is_relay())
    }

    /// Round-trip time of the path in use; zero while none is.
    pub(super) fn round_trip(&self) -> Duration {
        let paths = self.connection.paths();
        paths.iter().find_map(|path| path.is_selected().then(|| path.rtt())).unwrap_or_default()
    }

    /// Closes the connection of a peer that broke the rules, and tells it why.
    pub(super) fn refuse(&self, error: &FrameError) {
        tracing::warn!(peer = self.peer.short(), %error, "closing the connection");
        self.close(error.code(), &error.to_string());
    }

    pub(super) fn close(&self, code: u16, reason: &str) {
        self.connection.close(VarInt::from_u32(u32::from(code)), reason.as_bytes());
    }
}

/// All peers of a link.
#[derive(Default)]
pub(super) struct Peers {
    book: Mutex<HashMap<NodeId, PeerAddress>>,
    open: Mutex<HashMap<NodeId, Peer>>,
    connections: AtomicUsize,
}

/// What is shared by the calls to one peer.
#[derive(Clone)]
pub(super) struct Lane {
    /// Calls in flight.
    pub(super) calls: Arc<Semaphore>,
    /// Held by whoever connects, so that one does.
    pub(super) connecting: Arc<tokio::sync::Mutex<()>>,
}

struct Peer {
    lane: Lane,
    /// Oldest first.
    connections: Vec<Arc<Connected>>,
}

impl Default for Peer {
    fn default() -> Self {
        let lane =
            Lane { calls: Arc::new(Semaphore::new(limits::CALLS_PER_PEER)), connecting: Arc::default() };
        Self { lane, connections: Vec::new() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    pub(super) fn learn(&self, peer: NodeId, address: PeerAddress) {
        lock(&self.book).insert(peer, address);
    }

    /// Where to connect to; none if no address is known, or the id is no public key.
    pub(super) fn address(&self, peer: &NodeId) -> Option<EndpointAddr> {
        let key = PublicKey::from_bytes(&peer.0).ok()?;
        let book = lock(&self.book);
        let address = book.get(peer).filter(|address| !address.is_empty())?;
        let direct = address.direct().iter().copied().map(TransportAddr::Ip);
        let relay = address.relay_url().cloned().map(TransportAddr::Relay);
        Some(EndpointAddr::from_parts(key, direct.chain(relay)))
    }

    pub(super) fn lane(&self, peer: &NodeId) -> Lane {
        lock(&self.open).entry(*peer).or_default().lane.clone()
    }

    /// The newest open connection: a peer that restarted comes with a new one before its old one has timed out.
    pub(super) fn newest(&self, peer: &NodeId) -> Option<Arc<Connected>> {
        let open = lock(&self.open);
        open.get(peer)?.connections.iter().rev().find(|connected| connected.is_open()).cloned()
    }

    /// A peer said which of its lives a connection is with. Older connections with another life are dead, and nothing
    /// on the wire would tell for as long as [`limits::IDLE`]: they are closed, and whoever waits on them hears of it.
    pub(super) fn heard(&self, connected: &Connected, life: u64) {
        if connected.life.set(life).is_err() {
            return connected.refuse(&FrameError::Unexpected("a second hello"));
        }
        let dead: Vec<Arc<Connected>> = {
            let open = lock(&self.open);
            let connections = open.get(&connected.peer).map_or(&[][..], |peer| &peer.connections);
            let newest = connections.iter().rev().find_map(|connected| connected.life.get());
            let is_dead = |other: &&Arc<Connected>| other.life.get().is_some_and(|life| Some(life) != newest);
            connections.iter().filter(is_dead).cloned().collect()
        };
        for connected in dead {
            tracing::debug!(peer = connected.peer.short(), "a connection with an earlier life is closed");
            connected.close(0, "you were started again since");
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.connections.load(Ordering::Relaxed) >= limits::CONNECTIONS
    }

    pub(super) fn add(&self, connected: &Arc<Connected>) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let mut open = lock(&self.open);
        let connections = &mut open.entry(connected.peer).or_default().connections;
        connections.push(Arc::clone(connected));
        if connections.len() > limits::CONNECTIONS_PER_PEER {
            // Its own task takes it off the list.
            connections[0].close(Refusal::BUSY, "replaced by newer connections of the same node");
        }
    }

    pub(super) fn remove(&self, connected: &Arc<Connected>) {
        let mut open = lock(&self.open);
        let Some(peer) = open.get_mut(&connected.peer) else { return };
        let before = peer.connections.len();
        peer.connections.retain(|other| !Arc::ptr_eq(other, connected));
        self.connections.fetch_sub(before - peer.connections.len(), Ordering::Relaxed);
        if peer.connections.is_empty() && Arc::strong_count(&peer.lane.calls) == 1 {
            open.remove(&connected.peer);
        }
    }

    /// Forgets all connections.
    pub(super) fn clear(&self) {
        lock(&self.open).clear();
        self.connections.store(0, Ordering::Relaxed);
    }
}
