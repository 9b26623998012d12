//! A swarm of three stages and two replicas learns as fast, token for token, as one process with the same batch.

use std::sync::Arc;
use std::time::Duration;

use net::{Handler, Link, Message, Refusal};
use shoal_node::orchestrator::Shutdown;
use shoal_node::validator::{self, ValidatorError};
use swarm::record::Statement;
use tokio::task::JoinHandle;
use wire::{Epoch, NodeId};

use super::alone::{Alone, statements};
use super::miners::{Swarm, key};

/// Enlarges the run: a preset's name, and merges until the end.
const PRESET: &str = "SHOAL_TEST_PRESET";
const EPOCHS: &str = "SHOAL_TEST_EPOCHS";
/// How much higher the swarm's held-out loss may be at the end.
const SHARE: f64 = 0.03;

/// Longest that a run may take, a large one too.
const PATIENCE: Duration = Duration::from_hours(1);

/// A validator answers nothing.
pub(crate) struct Silent;

#[async_trait::async_trait]
impl Handler for Silent {
    async fn handle(&self, _: NodeId, _: Message) -> Result<Message, Refusal> {
        Err(Refusal::new(0, "it serves nothing"))
    }
}

/// Starts a validator.
pub(crate) fn validate(swarm: &Swarm) -> JoinHandle<Result<(), ValidatorError>> {
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
    tokio::spawn(validator::serve(parts, Shutdown::default().stop))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_out_loss_falls_as_fast_as_in_one_process() {
    let preset = std::env::var(PRESET).ok();
    let epochs = std::env::var(EPOCHS).ok().map_or(6, |text| text.parse().expect("a number"));
    let mut swarm = Swarm::start(3, |spec| {
        if let Some(preset) = &preset {
            spec.model = model::config::ModelConfig::preset(preset).expect("a preset");
            spec.set_stages(3).expect("enough blocks");
        }
        spec.phases.miners_min = 2;
        spec.phases.validators_min = 1;
        spec.phases.epochs = epochs;
        spec.phases.epoch_deadline_ms = 3_600_000;
        spec.phases.lease_ms = 60_000;
        spec.phases.merge_max_ms = 60_000;
        // 24 micro-batches per step, 12 of each replica: enough that those under way at a step are the lesser part.
        spec.inner.steps = 4;
        spec.batch.micro_batches_per_epoch = 96;
    })
    .await;
    let validating = validate(&swarm);
    swarm.miners(2).await;
    let (spec, log, blobs) = (swarm.spec.clone(), swarm.log.clone(), swarm.blobs.clone());
    let (summary, _) = swarm.end_within(PATIENCE).await;
    validating.await.expect("no panic").expect("a clean end");
    let mut alone = Alone::new(&spec, &blobs).await;
    let first = alone.held_out();
    alone.train();
    let want = alone.held_out();

    let mut curve = Vec::new();
    for (_, statement) in statements(&log).await {
        if let Statement::HeldOut { epoch, loss, .. } = statement {
            curve.push((epoch, f64::from(loss)));
        }
    }
    let (last, got) = *curve.last().expect("measurements");
    println!(
        "{} tokens: held-out loss {first:.4} → {want:.4} in one process, {curve:?} in the swarm: {:+.2} %",
        summary.tokens,
        100.0 * (got / want - 1.0)
    );
    assert_eq!((summary.epochs, last), (epochs, Epoch(epochs)));
    assert_eq!(summary.tokens, u64::from(epochs) * spec.tokens_per_epoch(), "the same tokens");
    assert!(want < first - 0.5, "there was something to learn: {first} → {want}");
    assert!(got < want * (1.0 + SHARE), "held-out loss {got} in the swarm, {want} in one process");
}
