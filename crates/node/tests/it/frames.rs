//! What a miner takes at its door: an honest frame once, and no other that could be made of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use net::{Link, LinkError, Message, Refusal};
use shoal_node::miner::frames::BadFrame;
use shoal_node::progress::Progress;
use shoal_node::rpc::{Reply, Request, code};
use swarm::miner::pipeline::Refused;
use tokio::sync::oneshot;
use wire::{
    Direction, Epoch, FrameError, FrameHeader, Hash, LeaseId, Millis, NodeId, RunId, Seq, SignedFrame,
    SigningKey, StageIndex,
};

use super::between::Between;
use super::learning::Silent;
use super::miners::{Swarm, key};

/// Longest that a frame may wait for its answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// A frame made of an honest one, and the reason for which its receiver has to refuse it.
struct Forgery {
    what: &'static str,
    frame: SignedFrame,
    payload: Bytes,
    by_stranger: bool,
    reason: String,
}

/// What is changed in a header.
type Change = fn(&mut FrameHeader);

/// What a receiver answered to a frame: its name, the refusal that is due, what came.
type Told = (&'static str, Option<Refusal>, Option<Refusal>);

/// Holds a miner's frame back until its receiver has refused whatever can be made of it.
struct Forger {
    key: SigningKey,
    run: RunId,
    direction: Direction,
    /// Somebody who is no miner of this run.
    stranger: SigningKey,
    road: Arc<dyn Link>,
    told: Mutex<Option<oneshot::Sender<Vec<Told>>>>,
}

impl Forger {
    fn new(swarm: &Swarm, seed: u8, direction: Direction) -> (Arc<Self>, oneshot::Receiver<Vec<Told>>) {
        let (told, hear) = oneshot::channel();
        let stranger = key(99);
        let road = Arc::new(swarm.network.join(stranger.node_id(), Arc::new(Silent)));
        let (run, told) = (swarm.spec.run_id(), Mutex::new(Some(told)));
        (Arc::new(Self { key: key(seed), run, direction, stranger, road, told }), hear)
    }

    /// Another header, signed as it should be.
    fn signed(&self, honest: &SignedFrame, change: impl FnOnce(&mut FrameHeader)) -> SignedFrame {
        let mut header = honest.header.clone();
        change(&mut header);
        SignedFrame::sign(&self.key, header)
    }

    fn forgeries(&self, honest: &SignedFrame, payload: &Bytes) -> Vec<Forgery> {
        let (sender, stranger) = (self.key.node_id(), self.stranger.node_id());
        let forward = self.direction == Direction::Forward;
        let forgery = |what, frame: SignedFrame, reason: String| Forgery {
            what,
            frame,
            payload: payload.clone(),
            by_stranger: false,
            reason,
        };
        let signed =
            |what, change: Change, reason: String| forgery(what, self.signed(honest, change), reason);
        let other_run = RunId([9; 32]);
        let no_lease = if forward { Refused::Lease } else { Refused::Unknown };
        let mut all = vec![
            forgery(
                "signed by another key",
                SignedFrame {
                    signature: SignedFrame::sign(&self.stranger, honest.header.clone()).signature,
                    header: honest.header.clone(),
                },
                FrameError::Signature(sender).to_string(),
            ),
            forgery(
                "for another receiver",
                self.signed(honest, |header| header.to = stranger),
                FrameError::WrongReceiver(stranger).to_string(),
            ),
            forgery(
                "for another run",
                self.signed(honest, |header| header.run = other_run),
                FrameError::WrongRun(other_run).to_string(),
            ),
            signed(
                "of other tokens",
                |header| header.tokens_hash = Hash::of(b"other tokens"),
                "these are not the tokens of this micro-batch".to_owned(),
            ),
            signed(
                "of another tensor",
                |header| header.tensor_hash = Hash::of(b"another tensor"),
                BadFrame::Tensor.to_string(),
            ),
            signed("of an old epoch", |header| header.epoch.0 -= 1, Refused::Epoch.to_string()),
            signed("under no lease", |header| header.lease = LeaseId(u64::MAX), no_lease.to_string()),
            Forgery {
                by_stranger: true,
                ..forgery(
                    "brought by a stranger",
                    honest.clone(),
                    FrameError::WrongSender { signer: sender, peer: stranger }.to_string(),
                )
            },
            Forgery {
                by_stranger: true,
                ..forgery(
                    "a stranger's own",
                    SignedFrame::sign(
                        &self.stranger,
                        FrameHeader { from: stranger, ..honest.header.clone() },
                    ),
                    if forward { Refused::Neighbour } else { Refused::Unknown }.to_string(),
                )
            },
            Forgery {
                payload: flipped(payload),
                ..forgery(
                    "one bit of the payload changed",
                    honest.clone(),
                    FrameError::Payload("hash").to_string(),
                )
            },
            Forgery {
                payload: payload.slice(1..),
                ..forgery("a payload cut short", honest.clone(), FrameError::Payload("length").to_string())
            },
        ];
        if forward {
            all.extend([
                signed("of another stage", |header| header.stage.0 += 1, Refused::Neighbour.to_string()),
                signed("of another mask", |header| header.grad_mask ^= 1, Refused::Lease.to_string()),
                signed("run out", |header| header.ttl = Millis(0), Refused::Expired.to_string()),
            ]);
        }
        let changes: [(&'static str, Change); 12] = [
            ("epoch changed", |header| header.epoch.0 ^= 1),
            ("micro-batch changed", |header| header.micro_batch.0 ^= 1),
            ("lease changed", |header| header.lease.0 ^= 1),
            ("direction changed", |header| {
                header.direction = match header.direction {
                    Direction::Forward => Direction::Backward,
                    Direction::Backward => Direction::Forward,
                };
            }),
            ("stage changed", |header| header.stage = StageIndex(header.stage.0 ^ 1)),
            ("mask changed", |header| header.grad_mask ^= 1),
            ("version changed", |header| header.version ^= 1),
            ("time changed", |header| header.ttl.0 ^= 1),
            ("tensor changed", |header| header.tensor_hash.0[0] ^= 1),
            ("tokens changed", |header| header.tokens_hash.0[31] ^= 1),
            ("loss changed", |header| header.loss = Some(header.loss.map_or(0.5, |loss| loss + 1.0))),
            ("head changed", |header| header.head.seq = Seq(header.head.seq.0 ^ 1)),
        ];
        for (what, change) in changes {
            let mut frame = honest.clone();
            change(&mut frame.header);
            all.push(forgery(what, frame, FrameError::Signature(sender).to_string()));
        }
        all
    }

    /// The receiver's word on a frame; none if it signed for it. A busy one is asked again.
    async fn offer(
        &self,
        link: &dyn Link,
        to: &NodeId,
        frame: &SignedFrame,
        payload: &Bytes,
    ) -> Option<Refusal> {
        loop {
            let request = Request::Frame(Box::new(frame.clone())).with_payload(self.run, payload.clone());
            match link.call(to, request, PATIENCE).await {
                Ok(answer) => match Reply::parse(&answer).expect("a reply") {
                    Reply::Received(receipt) => {
                        assert!(receipt.verify(to, frame), "its own receipt");
                        return None;
                    }
                    Reply::Busy(_) => {}
                    other => panic!("answered {}", other.name()),
                },
                Err(LinkError::Refused { refusal, .. }) => return Some(refusal),
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    async fn forge(&self, link: &dyn Link, to: &NodeId, honest: &SignedFrame, payload: &Bytes) -> Vec<Told> {
        let refusal = |reason| Some(Refusal::new(code::REFUSED, reason));
        let mut told = Vec::new();
        for Forgery { what, frame, payload, by_stranger, reason } in self.forgeries(honest, payload) {
            let link = if by_stranger { self.road.as_ref() } else { link };
            told.push((what, refusal(reason), self.offer(link, to, &frame, &payload).await));
        }
        told.push(("honest", None, self.offer(link, to, honest, payload).await));
        let again = self.offer(link, to, honest, payload).await;
        // A gradient may have been used up by then: nothing waits for it any more.
        let done = refusal(Refused::Unknown.to_string()).filter(|_| self.direction == Direction::Backward);
        let due = done.filter(|done| again.as_ref() == Some(done));
        told.push(("the same again", due.or_else(|| refusal(Refused::Duplicate.to_string())), again));
        told
    }
}

#[async_trait]
impl Between for Forger {
    async fn call(
        &self,
        link: &dyn Link,
        to: &NodeId,
        message: Message,
        deadline: Duration,
    ) -> Result<Message, LinkError> {
        if let Ok(Request::Frame(frame)) = Request::parse(&message, &self.run)
            && frame.header.direction == self.direction
            && frame.header.epoch > Epoch(0)
        {
            let told = self.told.lock().expect("no panic").take();
            if let Some(told) = told {
                let heard = self.forge(link, to, &frame, &message.payload).await;
                drop(told.send(heard));
            }
        }
        link.call(to, message, deadline).await
    }
}

/// With another last bit.
fn flipped(payload: &Bytes) -> Bytes {
    let mut bytes = payload.to_vec();
    *bytes.last_mut().expect("a payload") ^= 1;
    bytes.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_takes_an_honest_frame_once_and_nothing_that_is_made_of_it() {
    let mut swarm = Swarm::start(2, |spec| {
        spec.phases.miners_min = 1;
        spec.phases.epochs = 1000;
    })
    .await;
    let (activations, from_head) = Forger::new(&swarm, 10, Direction::Forward);
    let (gradients, from_tail) = Forger::new(&swarm, 11, Direction::Backward);
    let head = swarm.miner_behind(10, Some(0), Arc::clone(&activations) as _).await;
    let tail = swarm.miner_behind(11, Some(1), Arc::clone(&gradients) as _).await;
    activations.road.learn(key(11).node_id(), tail.address.clone());
    gradients.road.learn(key(10).node_id(), head.address.clone());
    swarm.miners.extend([head, tail]);
    for (direction, hear) in [("activation", from_head), ("gradient", from_tail)] {
        let told = tokio::time::timeout(PATIENCE, hear).await.expect("in time").expect("a miner that sends");
        assert!(told.len() >= 25, "{} frames", told.len());
        for (what, due, came) in told {
            assert_eq!(came, due, "{direction}: {what}");
        }
    }
    // Both go on as if nothing had been.
    swarm.until(|event| matches!(event, Progress::Epoch { epoch, .. } if *epoch > 1)).await;
}
