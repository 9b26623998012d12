//! Nodes for the tests: two kinds of networks, and handlers that do what a test needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shoal_net::{EndpointOptions, Handler, Link, MemoryNetwork, Message, QuicLink, Refusal};
use tokio::sync::{Notify, Semaphore};
use wire::{NodeId, SigningKey};

/// Long enough for anything that should happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// What makes nodes: one for each implementation of the link.
#[async_trait]
pub(crate) trait Network: Send + Sync {
    async fn join(&self, seed: u8, handler: Arc<dyn Handler>) -> Arc<dyn Link>;
}

pub(crate) struct Memory(pub(crate) MemoryNetwork);

#[async_trait]
impl Network for Memory {
    async fn join(&self, seed: u8, handler: Arc<dyn Handler>) -> Arc<dyn Link> {
        Arc::new(self.0.join(key(seed).node_id(), handler))
    }
}

pub(crate) struct Quic;

#[async_trait]
impl Network for Quic {
    async fn join(&self, seed: u8, handler: Arc<dyn Handler>) -> Arc<dyn Link> {
        Arc::new(QuicLink::bind(EndpointOptions::loopback(key(seed)), handler).await.unwrap())
    }
}

/// Two nodes of which the first knows the second.
pub(crate) async fn pair(
    network: &dyn Network,
    first: Arc<dyn Handler>,
    second: Arc<dyn Handler>,
) -> (Arc<dyn Link>, Arc<dyn Link>) {
    let (a, b) = (network.join(1, first).await, network.join(2, second).await);
    a.learn(b.id(), b.address());
    (a, b)
}

/// Answers with the message turned around.
pub(crate) struct Mirror;

#[async_trait]
impl Handler for Mirror {
    async fn handle(&self, _from: NodeId, message: Message) -> Result<Message, Refusal> {
        let mut control = message.control;
        control.reverse();
        Ok(Message { control, payload: message.payload })
    }
}

/// Answers with the id of whoever asks.
pub(crate) struct WhoAmI;

#[async_trait]
impl Handler for WhoAmI {
    async fn handle(&self, from: NodeId, _message: Message) -> Result<Message, Refusal> {
        Ok(Message::new(from.0))
    }
}

/// Refuses with a code and reason.
pub(crate) struct Refuse(pub(crate) u16, pub(crate) String);

#[async_trait]
impl Handler for Refuse {
    async fn handle(&self, _from: NodeId, _message: Message) -> Result<Message, Refusal> {
        Err(Refusal::new(self.0, self.1.clone()))
    }
}

/// Panics, as no handler should.
pub(crate) struct Panic;

#[async_trait]
impl Handler for Panic {
    async fn handle(&self, _from: NodeId, message: Message) -> Result<Message, Refusal> {
        assert!(message.control.is_empty(), "as the test wants");
        Ok(message)
    }
}

/// Waits for a permit before it answers, and counts who waits; counts those that were dropped while they waited.
pub(crate) struct Gate {
    pub(crate) open: Semaphore,
    pub(crate) inside: AtomicUsize,
    pub(crate) most: AtomicUsize,
    pub(crate) left: AtomicUsize,
    pub(crate) change: Notify,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: Semaphore::new(0),
            inside: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            change: Notify::new(),
        })
    }

    /// Waits until `done` holds.
    pub(crate) async fn until(&self, done: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let change = self.change.notified();
                tokio::pin!(change);
                change.as_mut().enable();
                if done(self) {
                    return;
                }
                change.await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.expect("the awaited change comes soon");
    }
}

struct Leave<'a>(&'a Gate);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
        self.0.left.fetch_add(1, Ordering::SeqCst);
        self.0.change.notify_waiters();
    }
}

#[async_trait]
impl Handler for Gate {
    async fn handle(&self, _from: NodeId, message: Message) -> Result<Message, Refusal> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.change.notify_waiters();
        let _leave = Leave(self);
        self.open.acquire().await.expect("never closed").forget();
        Ok(message)
    }
}
