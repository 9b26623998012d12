//! What a link is: calls between nodes, each a message and its answer, under a deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use wire::NodeId;

use crate::{PeerAddress, limits};

/// One message: a small control part and a large payload, either may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Encoded message of the protocol that uses the link, at most [`crate::limits::CONTROL_BYTES`].
    pub control: Vec<u8>,
    /// Raw tensor bytes, at most [`crate::limits::PAYLOAD_BYTES`]; not copied on the way out.
    pub payload: Bytes,
}

impl Message {
    /// A message without payload.
    pub fn new(control: impl Into<Vec<u8>>) -> Self {
        Self { control: control.into(), payload: Bytes::new() }
    }

    /// A message with payload.
    pub fn with_payload(control: impl Into<Vec<u8>>, payload: impl Into<Bytes>) -> Self {
        Self { control: control.into(), payload: payload.into() }
    }

    /// Control and payload together, bytes.
    pub fn len(&self) -> u64 {
        self.control.len() as u64 + self.payload.len() as u64
    }

    /// Whether both parts are empty.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.payload.is_empty()
    }
}

/// A link to other nodes. [`crate::QuicLink`] runs over iroh, [`crate::MemoryLink`] within one process; both keep the
/// same contract, and both are dyn-compatible (`Arc<dyn Link>`).
///
/// A call is delivered at most once: it is sent again over a new connection only when the first cannot have reached
/// the peer whole. After [`LinkError::Timeout`] or [`LinkError::Unreachable`] the caller cannot know whether the peer
/// handled it. Dropping the future of a call abandons it: the peer stops receiving it, or answers into the void.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// This node's id.
    fn id(&self) -> NodeId;

    /// Sends `message` to `to` and waits for the answer; connecting, waiting for a turn, sending, the peer's work and
    /// receiving all count against `deadline`.
    async fn call(&self, to: &NodeId, message: Message, deadline: Duration) -> Result<Message, LinkError>;

    /// Remembers where a peer is; the newest address replaces the one before.
    fn learn(&self, peer: NodeId, address: PeerAddress);

    /// Connects to a peer in the background, even if there is a connection: after a restart, so that peers which still
    /// wait for answers of this node's earlier life hear that none will come. Does nothing where no peer would wait.
    fn reach(&self, peer: NodeId) {
        let _ = peer;
    }

    /// Where peers find this node.
    fn address(&self) -> PeerAddress;

    /// Bytes of messages so far.
    fn traffic(&self) -> Traffic;

    /// Bytes of payload per second that lately reached a peer, from the first byte written to the last one acknowledged;
    /// without a peer: any peer. None until something large enough was sent, or where nothing is measured.
    fn speed(&self, peer: Option<&NodeId>) -> Option<f64> {
        let _ = peer;
        None
    }

    /// Refuses new calls, ends those in flight with [`LinkError::Closed`], and tells the peers.
    async fn close(&self);
}

/// What answers the calls of other nodes.
///
/// Handlers of different calls run side by side. The future is dropped when the caller has gone or its deadline has
/// passed: leave state changes to the task that owns the state, and await its reply here.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers `message` of `from`, whose identity the link has proven.
    async fn handle(&self, from: NodeId, message: Message) -> Result<Message, Refusal>;
}

/// Why a peer did not do what it was asked: a code for programs, a reason for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (code {code})")]
pub struct Refusal {
    /// The protocol's own code; from [`Refusal::LINK`] upwards the link's.
    pub code: u16,
    /// One line that names thing, reason and next step; cut at [`crate::limits::REASON_BYTES`].
    pub reason: String,
}

impl Refusal {
    /// Codes from here on are the link's own.
    pub const LINK: u16 = 0xff00;
    /// The message is over a limit of the receiver.
    pub const TOO_LARGE: u16 = 0xff01;
    /// A frame is truncated, longer than it says, or makes no sense; the connection is closed.
    pub const MALFORMED: u16 = 0xff02;
    /// A frame of another version; the connection is closed.
    pub const VERSION: u16 = 0xff03;
    /// Too many connections or streams.
    pub const BUSY: u16 = 0xff04;
    /// The receiver's handler did not finish within the caller's deadline.
    pub const TOO_LATE: u16 = 0xff05;
    /// The handler has nothing to do with such a message at all: the connection is closed, where there is one.
    pub const FOREIGN: u16 = 0xff06;

    /// A refusal of the protocol that uses the link.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No address was learned for the peer and it has no connection to this node.
    #[error("no address known for node {}: learn it first", .0.short())]
    UnknownPeer(NodeId),
    /// No connection could be made, or it was lost.
    #[error("node {} cannot be reached: {reason}", peer.short())]
    Unreachable {
        /// Who was called.
        peer: NodeId,
        /// What the transport says.
        reason: String,
    },
    /// The deadline passed.
    #[error("node {} did not answer within {} ms", peer.short(), deadline.as_millis())]
    Timeout {
        /// Who was called.
        peer: NodeId,
        /// Deadline of the call.
        deadline: Duration,
    },
    /// The peer refused, and said why.
    #[error("node {} refused: {refusal}", peer.short())]
    Refused {
        /// Who was called.
        peer: NodeId,
        /// Its answer.
        refusal: Refusal,
    },
    /// The message is over this node's own limit and was not sent.
    #[error("{part} of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Which part of the message.
        part: &'static str,
        /// Its length, bytes.
        len: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// The peer's answer is not a frame of ours; its connection was closed.
    #[error("node {} broke the link's rules: {reason}", peer.short())]
    Malformed {
        /// Who was called.
        peer: NodeId,
        /// What was wrong.
        reason: String,
    },
    /// This link was closed.
    #[error("the link is closed")]
    Closed,
}

/// Bytes of messages (control and payload, without the transport's own) that went out and came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Over all peers.
    pub total: PeerTraffic,
    /// By peer; at most [`crate::limits::COUNTED_PEERS`].
    pub peers: BTreeMap<NodeId, PeerTraffic>,
}

/// Traffic with one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerTraffic {
    /// Control bytes sent.
    pub control_sent: u64,
    /// Payload bytes sent.
    pub payload_sent: u64,
    /// Control bytes received.
    pub control_received: u64,
    /// Payload bytes received.
    pub payload_received: u64,
}

impl PeerTraffic {
    /// All bytes sent.
    pub fn sent(&self) -> u64 {
        self.control_sent + self.payload_sent
    }

    /// All bytes received.
    pub fn received(&self) -> u64 {
        self.control_received + self.payload_received
    }
}

/// Refuses to send what no peer would take.
pub(crate) fn check_size(message: &Message) -> Result<(), LinkError> {
    let within = |part, len: usize, limit: u64| {
        let len = len as u64;
        if len > limit { Err(LinkError::TooLarge { part, len, limit }) } else { Ok(()) }
    };
    within("control", message.control.len(), limits::CONTROL_BYTES as u64)?;
    within("payload", message.payload.len(), limits::PAYLOAD_BYTES)
}

/// A reason cut to its limit, between characters.
pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(limits::REASON_BYTES)]
}
