//! The same training in one process without any network, and what the log of a swarm says of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::data::Dataset;
use model::hash::BlobHash;
use model::local::{LocalClip, LocalModel};
use shoal_node::spec::{ClipScope, RunSpec};
use store::{Blobs, LogStore};
use swarm::record::{Record, Statement};
use wire::{Direction, Epoch, Hash, MicroBatch, NodeId, Seq, Step};

/// A run's stages, chained in this process.
pub(crate) struct Alone {
    pub(crate) spec: RunSpec,
    pub(crate) model: LocalModel,
    data: Dataset,
}

impl Alone {
    /// The model of `spec`, with the data that `blobs` holds.
    pub(crate) async fn new(spec: &RunSpec, blobs: &Arc<dyn Blobs>) -> Self {
        let mut shards: BTreeMap<BlobHash, Vec<u8>> = BTreeMap::new();
        for entry in spec.data.train.iter().chain(&spec.data.held_out) {
            let bytes = blobs.get(Hash(entry.hash.0)).await.expect("a data shard");
            shards.insert(entry.hash, bytes.to_vec());
        }
        let data = Dataset::new(spec.manifest(), move |hash| Ok(shards[&hash].clone())).expect("data");
        let stages = spec.stage_specs();
        let weights = stages.iter().map(model::config::StageSpec::initial_weights).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let model =
            LocalModel::new(&stages, weights, spec.optimiser(), &Arc::new(pool)).expect("a model of stages");
        Self { spec: spec.clone(), model, data }
    }

    /// The run's number of steps over its micro-batches in order; returns the losses.
    pub(crate) fn train(&mut self) -> BTreeMap<MicroBatch, f32> {
        let spec = self.spec.clone();
        let per_step = u64::from(spec.batch.micro_batches_per_epoch / spec.inner.steps);
        let limit = spec.inner.clip_norm as f32;
        let clip = match spec.inner.clip_scope {
            ClipScope::Model => LocalClip::Model(limit),
            ClipScope::Slice => LocalClip::Slice(limit),
        };
        let mut losses = BTreeMap::new();
        for step in 0..spec.phases.epochs * spec.inner.steps {
            for micro_batch in u64::from(step) * per_step..u64::from(step + 1) * per_step {
                let tokens = self.data.micro_batch(&spec.order(), micro_batch).expect("tokens").tokens;
                let loss = self.model.accumulate(micro_batch, &tokens).expect("a loss");
                losses.insert(MicroBatch(micro_batch), loss);
            }
            let (epoch, step) = (Epoch(step / spec.inner.steps), Step(step % spec.inner.steps));
            self.model.step(spec.rate(epoch, step), clip).expect("a step");
        }
        losses
    }

    /// Weights of all stages, one after the other.
    pub(crate) fn weights(&self) -> Vec<f32> {
        self.model.stages().iter().flat_map(|stage| model::stage::Stage::weights(stage).to_vec()).collect()
    }

    /// Loss on what a validator measures on.
    pub(crate) fn held_out(&self) -> f64 {
        let batches = shoal_node::limits::HELDOUT_MICRO_BATCHES as u64;
        self.model.held_out_loss(&self.data, self.spec.batch.sequences, batches).expect("a loss")
    }
}

/// All statements in a log, in order.
pub(crate) async fn statements(log: &Arc<dyn LogStore>) -> Vec<(NodeId, Statement)> {
    let (mut next, mut statements) = (Seq(0), Vec::new());
    loop {
        let blocks = log.read(next, 1000).await.expect("the log");
        if blocks.is_empty() {
            return statements;
        }
        for bytes in blocks {
            let block: ledger::Block = wire::from_bytes(&bytes).expect("a block");
            next = next.next();
            for record in &block.records {
                if let Record::Stated(envelope) = wire::from_bytes(record).expect("a record") {
                    statements
                        .push((envelope.sender, wire::from_bytes(&envelope.body).expect("a statement")));
                }
            }
        }
    }
}

/// Losses that the tails reported.
pub(crate) fn losses(statements: &[(NodeId, Statement)]) -> BTreeMap<MicroBatch, f32> {
    let mut losses = BTreeMap::new();
    for (_, statement) in statements {
        let Statement::Work(work) = statement else { continue };
        let forwards = work.items.iter().filter(|item| item.direction == Direction::Forward);
        for (item, loss) in forwards.filter_map(|item| Some((item, item.loss?))) {
            losses.insert(item.micro_batch, loss);
        }
    }
    losses
}
