//! What the orchestrator answers: statements, blocks, blobs, kept weights.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use codec::DType;
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use net::{Handler, Link, Message, Refusal};
use store::{BlobError, Blobs};
use swarm::record::Input;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wire::{Envelope, Hash, Millis, NodeId, RunId, Seq};

use super::shared::{Inputs, Pending, Shared};
use crate::blob_cache::BlobCache;
use crate::keeper::Kept;
use crate::limits;
use crate::packed::{self, Meter};
use crate::rpc::{Reply, Request, Span, What, code};
use crate::spec::TensorCodec;

/// The orchestrator's side of every call.
#[derive(Debug)]
pub(crate) struct Desk {
    run: RunId,
    inputs: Inputs,
    shared: Arc<Shared>,
    blobs: BlobCache,
    kept: Arc<Kept>,
    weights: TensorCodec,
    meter: Arc<Meter>,
    /// Set once the link is there: the link holds this, so this must not hold the link.
    link: OnceLock<Weak<dyn Link>>,
    polls: Semaphore,
    rate: DefaultKeyedRateLimiter<NodeId>,
    stop: CancellationToken,
}

impl Desk {
    pub(crate) fn new(
        run: RunId,
        inputs: Inputs,
        shared: Arc<Shared>,
        blobs: Arc<dyn Blobs>,
        kept: Arc<Kept>,
        weights: TensorCodec,
    ) -> Self {
        let polls = Semaphore::new(limits::LONG_POLLS);
        Self {
            run,
            inputs,
            shared,
            blobs: BlobCache::new(blobs),
            kept,
            weights,
            meter: Arc::default(),
            link: OnceLock::new(),
            polls,
            rate: RateLimiter::keyed(limits::STATEMENT_RATE),
            stop: CancellationToken::new(),
        }
    }

    /// The link that this answers on.
    pub(crate) fn set_link(&self, link: &Arc<dyn Link>) {
        let _ = self.link.set(Arc::downgrade(link));
    }

    /// From now on everything is refused; open long polls end.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    async fn state(&self, from: NodeId, envelope: Envelope) -> Result<Message, Refusal> {
        if envelope.sender != from {
            let reason = format!("statement of {} handed in by {}", envelope.sender.short(), from.short());
            return Err(Refusal::new(code::REFUSED, reason));
        }
        self.admit(from)?;
        let len = envelope.body.len() + limits::ENVELOPE_OVERHEAD_BYTES;
        let (answer, outcome) = oneshot::channel();
        let pending = Pending { input: Input::Stated(envelope), len, answer };
        self.inputs.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Refusal::new(code::BUSY, "too many statements wait: send it again")
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        let reply = match outcome.await.map_err(|_| stopping())? {
            Ok(seq) => Reply::Accepted { seq },
            Err(refusal) => Reply::Refused { refusal },
        };
        Ok(reply.message())
    }

    /// Refuses a node that states more than its share: the log is everybody's to fold.
    fn admit(&self, from: NodeId) -> Result<(), Refusal> {
        if self.rate.len() > limits::RATED_NODES {
            self.rate.retain_recent();
        }
        self.rate.check_key(&from).map_err(|_| {
            let reason = format!("more than {} statements a second: send it later", limits::STATEMENTS_PER_S);
            Refusal::new(code::BUSY, reason)
        })
    }

    async fn blocks(&self, from: NodeId, after: Option<Seq>, wait: Millis) -> Result<Message, Refusal> {
        self.shared.note_seen(from, after);
        let next = after.map_or(Seq(0), Seq::next);
        let mut heads = self.shared.heads();
        if let Ok(_turn) = self.polls.try_acquire() {
            let wait = Duration::from_millis(wait.0).min(limits::LONG_POLL);
            let there = heads.wait_for(|head| head.is_some_and(|head| head.seq >= next));
            // Past the wait the answer is empty, and says that this node lives. What is there is told before the farewell.
            tokio::select! {
                biased;
                waited = tokio::time::timeout(wait, there) => drop(waited),
                () = self.stop.cancelled() => return Err(stopping()),
            }
        }
        let blocks = self.shared.blocks(next).await.map_err(|error| failed(&error))?;
        let lengths = blocks.iter().map(|block| block.len() as u32).collect();
        let payload = match blocks.as_slice() {
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        };
        Ok(Reply::Blocks { lengths, head: self.shared.head() }.with_payload(payload))
    }

    async fn fetch(&self, what: What, span: Span) -> Result<Message, Refusal> {
        let (hash, within) = match what {
            What::Blob(hash) => (hash, None),
            What::Weights { epoch, stage, shard } => here(self.kept.weights(epoch, stage, shard))?,
            What::Momentum { epoch, stage, shard } => here(self.kept.momentum(epoch, stage, shard))?,
            What::Upload { .. }
            | What::UploadLeaves { .. }
            | What::Result { .. }
            | What::Predictor { .. } => {
                return Err(Refusal::new(
                    code::NOT_MY_ROLE,
                    "the orchestrator holds no uploads, no results and no predictors",
                ));
            }
        };
        let blob = self.blobs.get(hash).await.map_err(|error| match error {
            BlobError::Missing(_) => Refusal::new(code::NOT_HERE, error.to_string()),
            error => failed(&error),
        })?;
        let whole = match within {
            Some(range) if range.end <= blob.len() => blob.slice(range),
            Some(_) => return Err(Refusal::new(code::FAILED, "a kept state is shorter than its stage")),
            None => blob,
        };
        let piece = span.of(&whole)?;
        let codec = if matches!(what, What::Blob(_)) { TensorCodec::Raw } else { self.weights };
        let speed = self.link.get().and_then(Weak::upgrade).and_then(|link| link.speed(None));
        Ok(packed::answer(&self.meter, codec, speed, DType::F32, whole.len() as u64, piece).await)
    }
}

#[async_trait]
impl Handler for Desk {
    async fn handle(&self, from: NodeId, message: Message) -> Result<Message, Refusal> {
        if self.stop.is_cancelled() {
            return Err(stopping());
        }
        match Request::parse(&message, &self.run)? {
            Request::State(envelope) => self.state(from, envelope).await,
            Request::Blocks { after, wait } => self.blocks(from, after, wait).await,
            Request::Fetch { what, span } => self.fetch(what, span).await,
            Request::Frame(_) | Request::Open { .. } | Request::Predictor => {
                Err(Refusal::new(code::NOT_MY_ROLE, "this is the orchestrator: it trains nothing"))
            }
        }
    }
}

fn stopping() -> Refusal {
    Refusal::new(code::STOPPING, "the orchestrator stops: send it again when it is back")
}

fn failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::new(code::FAILED, format!("the orchestrator could not read it: {error}"))
}

/// A place in a blob, if the keeper has one.
fn here(
    found: Option<(Hash, std::ops::Range<usize>)>,
) -> Result<(Hash, Option<std::ops::Range<usize>>), Refusal> {
    let (hash, range) =
        found.ok_or_else(|| Refusal::new(code::NOT_HERE, "the keeper does not have this state (now)"))?;
    Ok((hash, Some(range)))
}
