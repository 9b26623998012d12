//! Tensors that cross by what their senders learned: the same bits in fewer bytes, and validators can follow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use codec::{DType, Learner, TensorRef};
use model::config::{Cut, Dtype};
use net::{Link, PeerAddress};
use shoal_node::miner::{End, Keep};
use shoal_node::progress::Progress;
use shoal_node::rpc::{Reply, Request, code};
use shoal_node::spec::{ClipScope, OuterSpec, RunSpec, TensorCodec};
use swarm::record::{Outcome, Statement};
use wire::MicroBatch;

use super::alone::{losses, statements};
use super::learning::{Silent, validate};
use super::miners::{Swarm, key};

/// What a run gave.
struct Given {
    losses: BTreeMap<MicroBatch, u32>,
    bytes: u64,
    verdicts: Vec<Outcome>,
}

/// In lock-step, so that two runs give the same bits.
fn predictive(spec: &mut RunSpec) {
    spec.cut = Cut::Plain { wire: Dtype::Bf16 };
    spec.set_stages(2).expect("enough blocks");
    spec.inner.clip_scope = ClipScope::Model;
    spec.outer = OuterSpec::Identity {};
    spec.batch.sequences = 4;
    spec.phases.miners_min = 1;
    spec.phases.epochs = 4;
    spec.codec.activations = TensorCodec::Predictive.into();
    spec.codec.gradients = TensorCodec::Predictive.into();
}

/// Trains beside a validator.
async fn train(codec: TensorCodec, keep: Keep) -> Given {
    let mut swarm = Swarm::start(2, |spec| {
        predictive(spec);
        spec.phases.validators_min = 1;
        spec.codec.activations = codec.into();
        spec.codec.gradients = codec.into();
    })
    .await;
    swarm.keep = keep;
    let validating = validate(&swarm);
    swarm.miners(1).await;
    let log = swarm.log.clone();
    let (summary, _) = swarm.end().await;
    validating.await.expect("no panic").expect("a clean end");
    assert_eq!(summary.coverage, Some(1.0), "no work was lost");
    let said = statements(&log).await;
    let verdicts = said.iter().filter_map(|(_, said)| match said {
        Statement::Verdict(verdict) => Some(verdict.outcome),
        _ => None,
    });
    Given {
        verdicts: verdicts.collect(),
        losses: losses(&said).iter().map(|(at, loss)| (*at, loss.to_bits())).collect(),
        bytes: summary.activation_bytes,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predicted_tensors_give_the_same_bits_in_fewer_bytes() {
    let context = train(TensorCodec::Context, Keep::Graphs).await;
    let predicted = train(TensorCodec::Predictive, Keep::Inputs).await;
    assert_eq!(predicted.losses, context.losses);
    println!("{} bytes by context, {} predicted, predictors included", context.bytes, predicted.bytes);
    assert!(predicted.bytes * 100 < context.bytes * 97, "{} of {}", predicted.bytes, context.bytes);
    for given in [context, predicted] {
        assert!(given.verdicts.contains(&Outcome::Pass), "{:?}", given.verdicts);
        assert!(given.verdicts.iter().all(|outcome| *outcome == Outcome::Pass), "{:?}", given.verdicts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_comes_back_is_told_again() {
    let mut swarm = Swarm::start(2, |spec| {
        predictive(spec);
        spec.inner.clip_scope = ClipScope::Slice;
        spec.phases.miners_min = 2;
        spec.phases.epochs = 6;
    })
    .await;
    swarm.miners(2).await;
    swarm.until(|event| matches!(event, Progress::Epoch { epoch: 1, .. })).await;
    let killed = swarm.miners.remove(3);
    killed.shutdown.stop.cancel();
    assert_eq!(killed.task.await.expect("no panic").expect("a clean end"), End::Stopped);
    let back = swarm.miner(13, Some(1)).await;
    swarm.miners.push(back);
    swarm.until(|event| matches!(event, Progress::Epoch { epoch, members, .. } if *epoch >= 2 && members == &[2, 2])).await;
    let (summary, ends) = swarm.end().await;
    assert_eq!(summary.epochs, 6);
    assert!(summary.loss_last < summary.loss_first);
    assert!(ends.iter().all(|end| *end == End::Over), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_predictor_or_comes_from_a_stranger_is_refused() {
    let mut swarm = Swarm::start(2, |spec| {
        predictive(spec);
        spec.batch.micro_batches_per_epoch = 600;
    })
    .await;
    swarm.miners(1).await;
    swarm.until(|event| matches!(event, Progress::Epoch { .. })).await;
    let (run, columns, tail) = (swarm.spec.run_id(), swarm.spec.model.d_model, key(11).node_id());
    let said = statements(&swarm.log).await;
    let address = said.iter().find_map(|(who, said)| match said {
        Statement::Join(join) if *who == tail => wire::from_bytes::<PeerAddress>(&join.address).ok(),
        _ => None,
    });
    let address = address.expect("it joined");
    let tell = async |from: u8, payload: Vec<u8>| {
        let link: Arc<dyn Link> = Arc::new(swarm.network.join(key(from).node_id(), Arc::new(Silent)));
        link.learn(tail, address.clone());
        let message = Request::Predictor.with_payload(run, payload.into());
        match link.call(&tail, message, Duration::from_secs(10)).await {
            Ok(answer) => Ok(Reply::parse(&answer).expect("a reply")),
            Err(net::LinkError::Refused { refusal, .. }) => Err(refusal.code),
            Err(other) => panic!("{other}"),
        }
    };
    let good = predictor(columns);
    assert_eq!(tell(9, good.clone()).await, Err(code::NOT_HERE), "no member");
    // The head's key, in a second hand.
    for bad in
        [vec![], vec![7; 40], vec![0; 1 << 20], predictor(columns / 2), good[..good.len() / 4].to_vec()]
    {
        assert_eq!(tell(10, bad).await, Err(code::REFUSED));
    }
    assert_eq!(tell(10, good).await, Ok(Reply::Held));
}

/// Of tensors with so many columns.
fn predictor(columns: usize) -> Vec<u8> {
    let bytes: Vec<u8> =
        (0..64 * columns).flat_map(|i| (0x3f80 ^ (i * 37 % 512) as u16).to_le_bytes()).collect();
    let mut learner = Learner::new(columns).expect("not too many");
    learner.add(TensorRef::new(DType::Bf16, &[64, columns], &bytes).expect("it fits")).expect("it fits");
    learner.predictor().expect("learned").to_bytes().to_vec()
}
