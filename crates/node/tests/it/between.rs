//! Somebody between a miner and the network: reads what it says and what it is told, and may say something else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use net::{Handler, Link, LinkError, Message, PeerAddress, Refusal, Traffic};
use wire::NodeId;

/// What may be done to a miner's messages; nothing, unless it is said.
#[async_trait]
pub(crate) trait Between: Send + Sync + 'static {
    /// A call of the miner.
    async fn call(
        &self,
        link: &dyn Link,
        to: &NodeId,
        message: Message,
        deadline: Duration,
    ) -> Result<Message, LinkError> {
        link.call(to, message, deadline).await
    }

    /// A call that comes to the miner.
    async fn handle(&self, miner: &dyn Handler, from: NodeId, message: Message) -> Result<Message, Refusal> {
        miner.handle(from, message).await
    }
}

/// Does nothing.
pub(crate) struct Nobody;

impl Between for Nobody {}

/// A miner's link.
pub(crate) struct Outward {
    pub(crate) link: Arc<dyn Link>,
    pub(crate) between: Arc<dyn Between>,
}

#[async_trait]
impl Link for Outward {
    fn id(&self) -> NodeId {
        self.link.id()
    }

    async fn call(&self, to: &NodeId, message: Message, deadline: Duration) -> Result<Message, LinkError> {
        self.between.call(self.link.as_ref(), to, message, deadline).await
    }

    fn learn(&self, peer: NodeId, address: PeerAddress) {
        self.link.learn(peer, address);
    }

    fn reach(&self, peer: NodeId) {
        self.link.reach(peer);
    }

    fn address(&self) -> PeerAddress {
        self.link.address()
    }

    fn traffic(&self) -> Traffic {
        self.link.traffic()
    }

    fn speed(&self, peer: Option<&NodeId>) -> Option<f64> {
        self.link.speed(peer)
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

/// What answers for a miner.
pub(crate) struct Inward {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) between: Arc<dyn Between>,
}

#[async_trait]
impl Handler for Inward {
    async fn handle(&self, from: NodeId, message: Message) -> Result<Message, Refusal> {
        self.between.handle(self.handler.as_ref(), from, message).await
    }
}
