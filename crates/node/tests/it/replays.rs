//! What validators find: who sends other numbers than its weights give fails, who does not passes, and of another device
//! class nothing can be said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use codec::{CodecId, DType, Limits, TensorRef};
use model::config::{Dtype, Message as Tensor};
use net::{Handler, Link, LinkError, Message, Refusal};
use shoal_node::miner::frames::tensor_hash;
use shoal_node::progress::Progress;
use shoal_node::rpc::{Reply, Request};
use shoal_node::spec::TensorCodec;
use swarm::record::{Outcome, Statement, Verdict};
use wire::{
    Direction, Envelope, FrameHeader, Hash, MicroBatch, NodeId, Receipt, RunId, SignedFrame, SigningKey,
};

use super::alone::statements;
use super::between::Between;
use super::champion::plain;
use super::learning::validate;
use super::miners::{Swarm, key};

/// A device class that no validator here has.
const ABACUS: &str = "abacus";

/// A head that sends another tensor than it computed for every odd micro-batch, and shows validators what it sent.
struct Liar {
    run: RunId,
    key: SigningKey,
    /// The next stage. Its miner is honest; what it signs for a lie is put under the truth, so that the liar's own miner
    /// goes on.
    next: SigningKey,
    /// What was sent and signed for, by the hash of the frame that should have been.
    lies: Mutex<BTreeMap<Hash, (SignedFrame, Receipt)>>,
}

fn is_lied_about(micro_batch: MicroBatch) -> bool {
    micro_batch.0 % 2 == 1
}

impl Liar {
    /// The tensor with its very last bit changed.
    fn lie(&self, honest: &SignedFrame, payload: &[u8]) -> (SignedFrame, Bytes) {
        let tensor = codec::decode(payload, &Limits::with_max_decoded_bytes(1 << 20)).expect("a payload");
        let (shape, mut bytes) = (tensor.shape().to_vec(), tensor.bytes().to_vec());
        let low = bytes.len() - 2;
        bytes[low] ^= 1;
        let mut payload = Vec::new();
        let changed = TensorRef::new(DType::Bf16, &shape, &bytes).expect("the same shape");
        codec::encode(CodecId::Raw, changed, &mut payload).expect("a payload");
        let header = FrameHeader {
            enc_len: payload.len() as u64,
            enc_hash: Hash::of(&payload),
            tensor_hash: tensor_hash(&Tensor { dtype: Dtype::Bf16, shape, bytes }),
            ..honest.header.clone()
        };
        (SignedFrame::sign(&self.key, header), payload.into())
    }
}

#[async_trait]
impl Between for Liar {
    async fn call(
        &self,
        link: &dyn Link,
        to: &NodeId,
        message: Message,
        deadline: Duration,
    ) -> Result<Message, LinkError> {
        let honest = match Request::parse(&message, &self.run) {
            Ok(Request::Frame(frame)) if is_lied_about(frame.header.micro_batch) => frame,
            _ => return link.call(to, message, deadline).await,
        };
        let (frame, payload) = self.lie(&honest, &message.payload);
        let request = Request::Frame(Box::new(frame.clone())).with_payload(self.run, payload);
        let answer = link.call(to, request, deadline).await?;
        let Ok(Reply::Received(receipt)) = Reply::parse(&answer) else { return Ok(answer) };
        self.lies.lock().expect("no panic").insert(honest.hash(), (frame, receipt));
        Ok(Reply::Received(Receipt::sign(&self.next, &honest)).message())
    }

    async fn handle(&self, miner: &dyn Handler, from: NodeId, message: Message) -> Result<Message, Refusal> {
        let answer = miner.handle(from, message).await?;
        let Ok(Reply::Opened(mut opened)) = Reply::parse(&answer) else { return Ok(answer) };
        if let Some(out) = &mut opened.forward_out
            && let Some((frame, receipt)) = self.lies.lock().expect("no panic").get(&out.frame.hash())
        {
            (out.frame, out.receipt) = (frame.clone(), receipt.clone());
        }
        Ok(Reply::Opened(opened).with_payload(answer.payload))
    }
}

/// Joins as a machine of another class.
struct Foreign {
    run: RunId,
    key: SigningKey,
}

#[async_trait]
impl Between for Foreign {
    async fn call(
        &self,
        link: &dyn Link,
        to: &NodeId,
        message: Message,
        deadline: Duration,
    ) -> Result<Message, LinkError> {
        let Ok(Request::State(said)) = Request::parse(&message, &self.run) else {
            return link.call(to, message, deadline).await;
        };
        let body = match wire::from_bytes(&said.body) {
            Ok(Statement::Join(mut join)) => {
                join.device = ABACUS.to_owned();
                wire::to_bytes(&Statement::Join(join))
            }
            _ => return link.call(to, message, deadline).await,
        };
        let said = Envelope::sign(&self.key, self.run, said.kind, body, said.time, said.nonce);
        link.call(to, Request::State(said).message(self.run), deadline).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_tell_lies_from_honest_work_and_say_nothing_of_other_devices() {
    let mut swarm = Swarm::start(3, |spec| {
        plain(spec, 2, TensorCodec::Raw);
        spec.set_stages(3).expect("enough blocks");
        spec.phases.validators_min = 1;
        // One step, so that all work is of the weights that the epoch opens with: only that is replayed. Long epochs, so
        // that there is time for it.
        spec.inner.steps = 1;
        spec.batch.micro_batches_per_epoch = 400;
        spec.audit.rate = 0.1;
    })
    .await;
    let validating = validate(&swarm);
    let run = swarm.spec.run_id();
    let (liar, honest, foreign) = (key(10), key(11), key(12));
    let between = Liar { run, key: liar.clone(), next: honest.clone(), lies: Mutex::default() };
    swarm.miners.push(swarm.miner_behind(10, Some(0), Arc::new(between)).await);
    swarm.miners.push(swarm.miner(11, Some(1)).await);
    let between = Foreign { run, key: foreign.clone() };
    swarm.miners.push(swarm.miner_behind(12, Some(2), Arc::new(between)).await);
    let (log, mut failed) = (swarm.log.clone(), BTreeMap::<String, u64>::new());
    swarm
        .end_hearing(|event| {
            if let Progress::Failed { node, failures, .. } = event {
                *failed.entry(node.clone()).or_default() += failures;
            }
        })
        .await;
    validating.await.expect("no panic").expect("a clean end");

    let said = statements(&log).await;
    let verdicts: Vec<&Verdict> = said
        .iter()
        .filter_map(|(who, said)| match said {
            Statement::Verdict(verdict) if *who == key(2).node_id() => Some(verdict),
            _ => None,
        })
        .collect();
    let of = |key: &SigningKey| {
        let node = key.node_id();
        verdicts.iter().filter(move |verdict| verdict.node == node).copied()
    };
    let count = |key: &SigningKey, wanted: Outcome| {
        let count = of(key).filter(|verdict| verdict.outcome == wanted).count();
        println!("{}: {wanted:?} {count}", key.node_id().short());
        count as u64
    };
    let lied =
        |verdict: &Verdict| verdict.direction == Direction::Forward && is_lied_about(verdict.micro_batch);
    // What came too late to be opened says nothing.
    for verdict in of(&liar).filter(|verdict| verdict.outcome != Outcome::NotOpened) {
        let due = if lied(verdict) { Outcome::Fail } else { Outcome::Pass };
        assert_eq!(verdict.outcome, due, "{verdict:?}");
    }
    let failures = count(&liar, Outcome::Fail);
    assert!(failures > 0 && count(&liar, Outcome::Pass) > 0);
    // People hear of it; what comes while the orchestrator closes stands in the log alone.
    assert_eq!(failed.keys().collect::<Vec<_>>(), [&liar.node_id().short()]);
    assert!(failed.values().all(|told| (1..=failures).contains(told)), "{failed:?} of {failures}");
    // What the liar sent is what the next stage got: its own work is honest.
    assert!(count(&honest, Outcome::Pass) > 0);
    assert_eq!(count(&honest, Outcome::Fail) + count(&honest, Outcome::OtherClass), 0);
    assert!(count(&foreign, Outcome::OtherClass) > 0);
    assert!(of(&foreign).all(|verdict| verdict.outcome == Outcome::OtherClass));
    assert!(verdicts.iter().all(|verdict| verdict.device != ABACUS), "the validator's own class");
}
