//! What a miner answers to other nodes.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use model::config::Message as Tensor;
use net::{Handler, Message, Refusal};
use swarm::record::Statement;
use tokio::sync::{mpsc, oneshot};
use wire::{Direction, Epoch, MicroBatch, NodeId, Receipt, RunId, SignedFrame};

use super::frames::{self, BadFrame};
use super::merge::Merging;
use super::predict::{self, NotTaken, Predictors};
use super::samples::Samples;
use crate::champion::{self, Champions};
use crate::follow::Log;
use crate::packed::Meter;
use crate::rpc::{Busy, Opened, Reply, Request, What, code};
use crate::tokens::TokenSource;

/// What the door hands to the miner's main task.
pub(super) enum Inbound {
    /// A verified frame.
    Frame(Box<Arrived>),
    /// A validator's question.
    Open {
        epoch: Epoch,
        micro_batch: MicroBatch,
        direction: Direction,
        answer: oneshot::Sender<Option<(Opened, Vec<Bytes>)>>,
    },
    /// Something to be stated.
    State(Box<Statement>),
}

/// A verified and decoded frame.
pub(super) struct Arrived {
    pub(super) frame: SignedFrame,
    pub(super) payload: Bytes,
    pub(super) tensor: Tensor,
    pub(super) answer: oneshot::Sender<Taken>,
}

/// What became of it.
pub(super) enum Taken {
    Received(Receipt),
    Busy(Busy),
    Refused(String),
}

/// The handler of a miner's link.
pub(super) struct Door {
    pub(super) node: NodeId,
    pub(super) run: RunId,
    pub(super) inbox: mpsc::Sender<Inbound>,
    pub(super) tokens: OnceLock<Arc<TokenSource>>,
    pub(super) merging: RwLock<Option<Arc<Merging>>>,
    pub(super) meter: Arc<Meter>,
    pub(super) champions: Arc<Champions>,
    pub(super) predictors: Predictors,
    /// Frames that are kept for others to learn from.
    pub(super) samples: Option<Samples>,
    /// Most bytes of a frame's tensor.
    pub(super) most: OnceLock<usize>,
    /// Set once this miner follows it.
    pub(super) log: OnceLock<Log>,
}

fn not_here(reason: &str) -> Refusal {
    Refusal::new(code::NOT_HERE, reason)
}

fn stopping() -> Refusal {
    Refusal::new(code::STOPPING, "this miner stops")
}

#[async_trait]
impl Handler for Door {
    async fn handle(&self, from: NodeId, message: Message) -> Result<Message, Refusal> {
        match Request::parse(&message, &self.run)? {
            Request::Frame(frame) => self.frame(from, *frame, message.payload).await,
            Request::Fetch { what: What::Blob(_), .. } | Request::State(_) | Request::Blocks { .. } => {
                Err(Refusal::new(code::NOT_MY_ROLE, "a miner does not answer this; ask the orchestrator"))
            }
            Request::Predictor => {
                self.told(from, message.payload).await?;
                Ok(Reply::Held.message())
            }
            Request::Fetch { what: What::Predictor { of, id }, span } => {
                let bytes =
                    self.predictors.bytes(&of, id).ok_or_else(|| not_here("not held, or not any more"))?;
                Ok(Reply::Piece { total: bytes.len() as u64 }.with_payload(span.of(&bytes)?))
            }
            Request::Fetch { what, span } => {
                let merging = self.merging.read().unwrap_or_else(PoisonError::into_inner).clone();
                let merging = merging.ok_or_else(|| not_here("no stage yet"))?;
                merging.serve(what, span).await
            }
            Request::Open { epoch, micro_batch, direction } => {
                let (answer, shown) = oneshot::channel();
                let open = Inbound::Open { epoch, micro_batch, direction, answer };
                self.inbox.send(open).await.map_err(|_| stopping())?;
                let shown = shown.await.map_err(|_| stopping())?;
                let (opened, payloads) = shown.ok_or_else(|| not_here("this item is not kept here"))?;
                let mut payload = BytesMut::new();
                for bytes in &payloads {
                    payload.extend_from_slice(bytes);
                }
                Ok(Reply::Opened(Box::new(opened)).with_payload(payload.freeze()))
            }
        }
    }
}

impl Door {
    /// Has the log hear of a component that did not give back what its sender signed for.
    async fn accuse(&self, frame: &SignedFrame, payload: &Bytes, error: &BadFrame) {
        let BadFrame::Champion { component, decoded, fault: true, .. } = error else { return };
        let header = &frame.header;
        let which = (header.epoch, header.micro_batch, header.direction);
        let (tensor, encoded) = (header.tensor_hash, header.enc_hash);
        let fault =
            champion::fault(which, *component, tensor, encoded, *decoded, Some(Box::new(frame.clone())));
        tracing::warn!(%error, from = %header.from.short(), "a champion's frame is not what was signed for");
        let (champions, payload) = (Arc::clone(&self.champions), payload.clone());
        let keep = move || champions.keep_evidence(&payload, None);
        drop(tokio::task::spawn_blocking(keep).await);
        drop(self.inbox.send(Inbound::State(Box::new(fault))).await);
    }

    /// Takes a predictor from a member of the present epoch.
    async fn told(&self, from: NodeId, bytes: Bytes) -> Result<(), Refusal> {
        let log = self.log.get().ok_or_else(|| not_here("this miner does not follow the run yet"))?;
        let (epoch, member) = log.read(|view| (view.state.epoch(), view.state.is_live_member(&from)));
        if !member {
            return Err(not_here("no member of this epoch"));
        }
        let columns = self.predictors.columns();
        let parse = tokio::task::spawn_blocking(move || predict::parse(&bytes, columns));
        let parsed = parse.await.map_err(|_| stopping())?;
        let is_member = |node: &NodeId| log.read(|view| view.state.is_live_member(node));
        let taken = parsed.and_then(|predictor| self.predictors.take(from, epoch, predictor, is_member));
        taken.map_err(|error: NotTaken| Refusal::new(code::REFUSED, error.to_string()))
    }

    async fn frame(&self, from: NodeId, frame: SignedFrame, payload: Bytes) -> Result<Message, Refusal> {
        let refuse = |reason: String| Refusal::new(code::REFUSED, reason);
        let tokens =
            self.tokens.get().ok_or_else(|| not_here("this miner has not read the run's spec yet"))?;
        let (node, run, checked, bytes) = (self.node, self.run, frame.clone(), payload.clone());
        let (meter, most) = (Arc::clone(&self.meter), self.most.get().copied().unwrap_or(0));
        let (champions, shared) = (Arc::clone(&self.champions), self.predictors.of(&from));
        let lane = champions.lane_for(&frame.header.codec).await;
        let decoded = tokio::task::spawn_blocking(move || {
            let _lane = lane;
            checked.verify(&run, &node, &from, &bytes)?;
            let decoded = frames::decode(&checked.header, &bytes, most, &champions, &shared)?;
            meter.decoded(&decoded);
            Ok::<_, BadFrame>(decoded.message)
        });
        let tensor = match decoded.await.map_err(|_| stopping())? {
            Ok(tensor) => tensor,
            Err(error @ (BadFrame::NotReady(_) | BadFrame::NoPredictor(_) | BadFrame::Champion { .. })) => {
                self.accuse(&frame, &payload, &error).await;
                return Err(Refusal::new(code::RESEND, error.to_string()));
            }
            Err(error) => return Err(refuse(error.to_string())),
        };
        let derived = tokens.micro_batch(frame.header.micro_batch.0).await;
        let derived = derived.map_err(|error| Refusal::new(code::FAILED, error.to_string()))?;
        if derived.hash != frame.header.tokens_hash {
            return Err(refuse("these are not the tokens of this micro-batch".to_owned()));
        }
        let (answer, taken) = oneshot::channel();
        let arrived = Inbound::Frame(Box::new(Arrived { frame, payload, tensor, answer }));
        self.inbox.send(arrived).await.map_err(|_| stopping())?;
        match taken.await.map_err(|_| stopping())? {
            Taken::Received(receipt) => Ok(Reply::Received(receipt).message()),
            Taken::Busy(busy) => Ok(Reply::Busy(busy).message()),
            Taken::Refused(reason) => Err(refuse(reason)),
        }
    }
}
