//! The link within one process: for tests and simulations of daemons. It keeps the contract of [`Link`], limits included.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wire::NodeId;

use crate::meter::Meter;
use crate::{Handler, Link, LinkError, Message, PeerAddress, Refusal, Traffic, limits, link};

/// Nodes of one process that can reach each other.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    sockets: Arc<Mutex<BTreeMap<SocketAddr, Weak<Node>>>>,
}

/// A link to the other nodes of a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryLink {
    network: MemoryNetwork,
    node: Arc<Node>,
}

struct Node {
    id: NodeId,
    socket: SocketAddr,
    handler: Arc<dyn Handler>,
    book: Mutex<BTreeMap<NodeId, PeerAddress>>,
    /// Who has called: its connection would serve to call back.
    callers: Mutex<BTreeMap<NodeId, SocketAddr>>,
    lanes: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    calls: Semaphore,
    served: Semaphore,
    meter: Meter,
    closed: CancellationToken,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id).field("socket", &self.socket).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node that answers with `handler`; it has an address of its own, so a node that comes back must be
    /// learned anew, as after a restart on another port.
    pub fn join(&self, id: NodeId, handler: Arc<dyn Handler>) -> MemoryLink {
        let mut sockets = lock(&self.sockets);
        let host = sockets.len() as u128 + 1;
        // Addresses of the discard prefix, which no real socket has.
        let prefix: u128 = 0x0100 << 112;
        let socket = SocketAddr::from((Ipv6Addr::from(prefix | host), 1));
        let node = Arc::new(Node {
            id,
            socket,
            handler,
            book: Mutex::default(),
            callers: Mutex::default(),
            lanes: Mutex::default(),
            calls: Semaphore::new(limits::CALLS),
            served: Semaphore::new(limits::SERVED),
            meter: Meter::default(),
            closed: CancellationToken::new(),
        });
        // Entries of closed nodes stay, so that no address is given twice.
        sockets.insert(socket, Arc::downgrade(&node));
        MemoryLink { network: self.clone(), node }
    }

    fn find(&self, id: &NodeId, sockets: &[SocketAddr]) -> Option<Arc<Node>> {
        let all = lock(&self.sockets);
        let open = |node: &Arc<Node>| node.id == *id && !node.closed.is_cancelled();
        sockets.iter().find_map(|socket| all.get(socket)?.upgrade().filter(open))
    }
}

impl MemoryLink {
    /// The node behind an id, by the caller's connection or by what was learned.
    fn target(&self, to: &NodeId) -> Result<Arc<Node>, LinkError> {
        if *to == self.node.id {
            return Ok(Arc::clone(&self.node));
        }
        let caller = lock(&self.node.callers).get(to).copied();
        if let Some(node) = caller.and_then(|socket| self.network.find(to, &[socket])) {
            return Ok(node);
        }
        let address = lock(&self.node.book).get(to).cloned().filter(|address| !address.is_empty());
        let address = address.ok_or(LinkError::UnknownPeer(*to))?;
        self.network.find(to, address.direct()).ok_or_else(|| LinkError::Unreachable {
            peer: *to,
            reason: format!("nobody with this id listens at {address}"),
        })
    }

    async fn exchange(&self, to: NodeId, message: Message) -> Result<Message, LinkError> {
        let lane = {
            let mut lanes = lock(&self.node.lanes);
            let fresh = || Arc::new(Semaphore::new(limits::CALLS_PER_PEER));
            Arc::clone(lanes.entry(to).or_insert_with(fresh))
        };
        let _turn = lane.acquire().await.map_err(|_| LinkError::Closed)?;
        let _turn_of_all = self.node.calls.acquire().await.map_err(|_| LinkError::Closed)?;
        let target = self.target(&to)?;
        let itself = to == self.node.id;
        if !itself {
            self.node.meter.sent(to, message.control.len(), message.payload.len());
            lock(&target.callers).insert(self.node.id, self.node.socket);
        }
        let from = self.node.id;
        let peer = Arc::clone(&target);
        let work = AbortOnDropHandle::new(tokio::spawn(async move {
            let busy = || Refusal::new(Refusal::BUSY, "too much in work already: try again later");
            let _turn = peer.served.try_acquire().map_err(|_| busy())?;
            if !itself {
                peer.meter.received(from, message.control.len(), message.payload.len());
            }
            let answer = peer.handler.handle(from, message).await?;
            link::check_size(&answer).map_err(|error| {
                Refusal::new(Refusal::TOO_LARGE, format!("the answer does not fit: {error}"))
            })?;
            if !itself {
                peer.meter.sent(from, answer.control.len(), answer.payload.len());
            }
            Ok::<_, Refusal>(answer)
        }));
        let unreachable = |reason: &str| LinkError::Unreachable { peer: to, reason: reason.to_owned() };
        let answer = tokio::select! {
            biased;
            ended = work => ended.map_err(|_| unreachable("it gave the call up"))?,
            () = target.closed.cancelled() => return Err(unreachable("it closed the connection")),
        };
        let answer = answer.map_err(|refusal| {
            let refusal = Refusal { code: refusal.code, reason: link::cut(&refusal.reason).to_owned() };
            LinkError::Refused { peer: to, refusal }
        })?;
        if !itself {
            self.node.meter.received(to, answer.control.len(), answer.payload.len());
        }
        Ok(answer)
    }
}

#[async_trait]
impl Link for MemoryLink {
    fn id(&self) -> NodeId {
        self.node.id
    }

    async fn call(&self, to: &NodeId, message: Message, deadline: Duration) -> Result<Message, LinkError> {
        link::check_size(&message)?;
        let deadline = deadline.min(limits::DEADLINE);
        let call = tokio::time::timeout(deadline, self.exchange(*to, message));
        tokio::select! {
            biased;
            () = self.node.closed.cancelled() => Err(LinkError::Closed),
            result = call => result.unwrap_or(Err(LinkError::Timeout { peer: *to, deadline })),
        }
    }

    fn learn(&self, peer: NodeId, address: PeerAddress) {
        lock(&self.node.book).insert(peer, address);
    }

    fn address(&self) -> PeerAddress {
        PeerAddress::from_parts(vec![self.node.socket], None)
    }

    fn traffic(&self) -> Traffic {
        self.node.meter.traffic()
    }

    async fn close(&self) {
        self.node.closed.cancel();
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.node.closed.cancel();
    }
}
