//! Tensors that cross by what their senders learned: the same bits in fewer bytes, and validators can follow.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::config::{Cut, Dtype};
use net::{Link, PeerAddress};
use shoal_node::miner::Keep;
use shoal_node::orchestrator::Shutdown;
use shoal_node::progress::Progress;
use shoal_node::rpc::{Request, code};
use shoal_node::spec::{ClipScope, OuterSpec, TensorCodec};
use shoal_node::validator;
use swarm::record::{Outcome, Statement};
use wire::MicroBatch;

use super::alone::{losses, statements};
use super::learning::Silent;
use super::miners::{Swarm, key};

/// What a run gave.
struct Given {
    losses: BTreeMap<MicroBatch, u32>,
    bytes: u64,
    verdicts: Vec<Outcome>,
}

/// In lock-step, so that two runs give the same bits; one of its two miners is replayed by a validator.
async fn train(codec: TensorCodec, keep: Keep) -> Given {
    let mut swarm = Swarm::start(2, |spec| {
        spec.cut = Cut::Plain { wire: Dtype::Bf16 };
        spec.set_stages(2).expect("enough blocks");
        spec.inner.clip_scope = ClipScope::Model;
        spec.outer = OuterSpec::Identity;
        spec.batch.sequences = 4;
        spec.phases.miners_min = 1;
        spec.phases.validators_min = 1;
        spec.phases.epochs = 4;
        spec.codec.activations = codec.into();
        spec.codec.gradients = codec.into();
    })
    .await;
    swarm.keep = keep;
    let link: Arc<dyn Link> = Arc::new(swarm.network.join(key(2).node_id(), Arc::new(Silent)));
    link.learn(key(1).node_id(), swarm.address.clone());
    let parts = validator::Parts {
        key: key(2),
        link,
        orchestrator: key(1).node_id(),
        run: swarm.spec.run_id(),
        blobs: Arc::new(store::MemoryBlobs::default()),
        threads: 1,
        child: super::champion::child(),
        folder: None,
    };
    let validating = tokio::spawn(validator::serve(parts, Shutdown::default().stop));
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
async fn what_is_no_predictor_is_refused() {
    let mut swarm = Swarm::start(2, |spec| spec.phases.epochs = 1).await;
    swarm.miners(1).await;
    let miner = key(10).node_id();
    let link: Arc<dyn Link> = Arc::new(swarm.network.join(key(9).node_id(), Arc::new(Silent)));
    let run = swarm.spec.run_id();
    swarm.until(|event| matches!(event, Progress::Epoch { .. })).await;
    let said = statements(&swarm.log).await;
    let address = said.iter().find_map(|(who, said)| match said {
        Statement::Join(join) if *who == miner => wire::from_bytes::<PeerAddress>(&join.address).ok(),
        _ => None,
    });
    link.learn(miner, address.expect("it joined"));
    for payload in [vec![], vec![7; 40], vec![0; 1 << 20]] {
        let message = Request::Predictor.with_payload(run, payload.into());
        match link.call(&miner, message, std::time::Duration::from_secs(10)).await {
            Err(net::LinkError::Refused { refusal, .. }) => {
                assert_eq!(refusal.code, code::REFUSED, "{refusal}");
            }
            other => panic!("{other:?}"),
        }
    }
    drop(swarm.end().await);
}
