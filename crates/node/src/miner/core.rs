//! A miner's main task: it owns both machines, feeds them what happens and carries out what they ask for.

use ledger::fold::Unfit;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use model::config::StageSpec;
use net::Link;
use rayon::ThreadPool;
use store::Blobs;
use swarm::miner::{Item, Merger, Pipeline, Token, merger, pipeline};
use swarm::record::{Join, Statement, Traffic};
use swarm::refusal::Refusal;
use swarm::state::{Phase, Presence, State};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{
    Direction, Epoch, Hash, Millis, NodeId, Receipt, RunId, SignedFrame, SigningKey, StageIndex, merkle,
};

use super::compute::{Command, Done, Finished};
use super::door::{Arrived, Door, Inbound};
use super::keep::{Keep, Kept};
use super::merge::Merging;
use super::shelf::Shelf;
use super::tensors::Tensors;
use super::{End, MinerError};
use crate::follow::Log;
use crate::limits;
use crate::speak::{Answer, Speaker};
use crate::spec::RunSpec;
use crate::tokens::TokenSource;

/// Whose statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Pipeline(Token),
    Merger(Token),
    Join,
    Node,
}

/// What the miner's own tasks report.
pub(super) enum Inner {
    Pipeline(pipeline::Event),
    Merger(merger::Event),
    /// A frame was sent, or not.
    Sent {
        event: pipeline::Event,
        item: Item,
        kept: Option<Box<(SignedFrame, Receipt)>>,
        bytes: u64,
        full: u64,
    },
    Answered {
        who: Who,
        answer: Answer,
    },
    /// The weights at the end of an epoch's training.
    Trained {
        epoch: Epoch,
        weights: Arc<Vec<f32>>,
    },
    /// Something to be stated that no machine asked for.
    State(Box<Statement>),
    /// Nothing goes on without it.
    Fatal(Box<MinerError>),
}

/// What a miner is made of once it has read the run's spec.
pub(super) struct Core {
    pub(super) key: SigningKey,
    pub(super) node: NodeId,
    pub(super) run: RunId,
    pub(super) orchestrator: NodeId,
    pub(super) spec: Arc<RunSpec>,
    pub(super) stages: Vec<StageSpec>,
    pub(super) link: Arc<dyn Link>,
    pub(super) log: Log,
    pub(super) speaker: Speaker,
    pub(super) tokens: Arc<TokenSource>,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) folder: std::path::PathBuf,
    pub(super) pool: Arc<ThreadPool>,
    pub(super) join: Join,
    pub(super) settings: pipeline::Settings,
    pub(super) keep: Keep,
    pub(super) secret: Hash,
    pub(super) door: Arc<Door>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) started: Instant,
}

/// What changes.
pub(super) struct Miner {
    pub(super) core: Core,
    pub(super) pipeline: Pipeline,
    pub(super) merger: Merger,
    pub(super) stage: Option<StageIndex>,
    pub(super) merging: Option<Arc<Merging>>,
    pub(super) tensors: Tensors,
    pub(super) kept: Kept,
    /// Most bytes that was spared at a time since the last report.
    spared: u64,
    pub(super) tasks: JoinSet<()>,
    pub(super) inner: mpsc::Sender<Inner>,
    said: VecDeque<(Who, Statement)>,
    flying: Option<Who>,
    last_said: Instant,
    pub(super) offers: BTreeMap<u64, Arrived>,
    next_offer: u64,
    /// Hashes of frames and receipts since the last report.
    pub(super) evidence: Vec<Hash>,
    busy: Duration,
    activations: u64,
    activations_full: u64,
    /// Counters of the link at the last report.
    reported: (u64, u64),
    /// What the statement under way tells of, and what refused ones told of in vain.
    telling: Traffic,
    untold: Traffic,
    pub(super) trained: Option<(Epoch, Arc<Vec<f32>>)>,
    resting: bool,
    draining: bool,
    /// Forwards in a row that lacked their input.
    pub(super) starved: Arc<AtomicU32>,
}

impl Miner {
    pub(super) fn new(core: Core, inner: mpsc::Sender<Inner>) -> Self {
        let pipeline = Pipeline::new(core.settings);
        let merger = merger_of(&core);
        let kept = Kept::new(core.keep);
        Self {
            core,
            pipeline,
            merger,
            stage: None,
            merging: None,
            tensors: Tensors::default(),
            kept,
            spared: 0,
            tasks: JoinSet::new(),
            inner,
            said: VecDeque::new(),
            flying: None,
            last_said: Instant::now(),
            offers: BTreeMap::new(),
            next_offer: 0,
            evidence: Vec::new(),
            busy: Duration::ZERO,
            activations: 0,
            activations_full: 0,
            reported: (0, 0),
            telling: Traffic::default(),
            untold: Traffic::default(),
            trained: None,
            resting: false,
            draining: false,
            starved: Arc::default(),
        }
    }

    /// Works until the run is over, or the owner has enough.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Inbound>,
        mut inner: mpsc::Receiver<Inner>,
        mut finished: mpsc::Receiver<Finished>,
        drain: &CancellationToken,
        stop: &CancellationToken,
    ) -> Result<End, MinerError> {
        let log = self.core.log.clone();
        self.said.push_back((Who::Join, Statement::Join(self.core.join.clone())));
        self.on_log();
        loop {
            self.act();
            if self.may_leave() {
                return self.leave().await;
            }
            let wait = self.next_deadline();
            tokio::select! {
                () = stop.cancelled() => return Ok(End::Stopped),
                () = log.over() => return Ok(End::Over),
                () = drain.cancelled(), if !self.draining => {
                    self.draining = true;
                    self.pipeline_event(pipeline::Event::Drain);
                }
                changed = self.core.log.changed() => match changed {
                    Ok(()) => self.on_log(),
                    Err(_) => return Err(MinerError::Log(self.core.log.failure().map(ToString::to_string))),
                },
                Some(inbound) = inbox.recv() => self.on_inbound(inbound),
                Some(event) = inner.recv() => self.on_inner(event)?,
                Some(done) = finished.recv() => self.on_finished(done),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    ended.map_err(|error| MinerError::Task(error.to_string()))?;
                }
                () = tokio::time::sleep(wait) => self.on_time(),
            }
        }
    }

    pub(super) fn now(&self) -> Millis {
        Millis(self.core.started.elapsed().as_millis() as u64)
    }

    fn next_deadline(&self) -> Duration {
        let now = self.now();
        let heartbeat = Duration::from_millis(self.core.spec.phases.heartbeat_ms)
            .saturating_sub(self.last_said.elapsed());
        let machines =
            [self.pipeline.next_deadline(), self.merger.next_deadline()].into_iter().flatten().min();
        let machines = machines.map(|at| Duration::from_millis(at.since(now).0).max(limits::TICK));
        machines.map_or(heartbeat, |at| at.min(heartbeat)).max(limits::TICK)
    }

    /// Whether a drained miner has nothing left to finish, and somebody else has what it knows.
    fn may_leave(&self) -> bool {
        if !self.draining || self.pipeline.is_training() {
            return false;
        }
        self.core.log.read(|view| {
            let state = &view.state;
            let Some(stage) = self.stage else { return true };
            let merges =
                matches!(state.phase(), Phase::Merging { .. }) && state.is_live_member(&self.core.node);
            let kept = state.stage(stage).is_some_and(|known| known.keeper.is_some());
            let others = || state.ready_nodes(stage).any(|node| node != self.core.node);
            let trained = state.summaries().len() + usize::from(state.work().closed.is_some()) > 0;
            let trains = matches!(state.phase(), Phase::Training { .. });
            !merges && (!trained || trains || kept || others())
        })
    }

    async fn leave(&mut self) -> Result<End, MinerError> {
        let said = self.core.speaker.say(Statement::Leave);
        drop(tokio::time::timeout(limits::LEAVE, said).await);
        Ok(End::Drained)
    }

    fn on_time(&mut self) {
        let now = self.now();
        let Self { core, pipeline, merger, .. } = self;
        core.log.read(|view| {
            pipeline.on_time(now, &view.state);
            merger.on_time(now, &view.state);
        });
        let heartbeat = Duration::from_millis(self.core.spec.phases.heartbeat_ms);
        if self.said.is_empty() && self.flying.is_none() && self.last_said.elapsed() >= heartbeat {
            self.said.push_back((Who::Node, Statement::Heartbeat));
        }
        self.tensors.forget(heartbeat * limits::ARCHIVE_HEARTBEATS);
    }

    fn on_log(&mut self) {
        let now = self.now();
        let node = self.core.node;
        let look = |state: &State| {
            let known = state.node(&node);
            let stage = known.filter(|known| known.present()).and_then(|known| known.stage);
            (known.map(|known| known.presence), stage)
        };
        let (presence, stage) = self.core.log.read_new(|view| look(&view.state));
        if presence == Some(Presence::Lost) {
            self.join_again();
        }
        if stage.is_some() && stage != self.stage {
            self.take_stage(stage);
        }
        let Self { core, pipeline, merger, .. } = self;
        core.log.read(|view| {
            pipeline.on_log(now, view.head.seq, &view.state);
            merger.on_log(now, &view.state);
        });
        let training = self.pipeline.is_training();
        if training && !std::mem::replace(&mut self.resting, training) {
            self.trained = None;
            if let Some(merging) = &self.merging {
                merging.shelf.rest();
            }
        }
        self.resting = training;
    }

    fn join_again(&mut self) {
        let waiting = self.said.iter().any(|(who, _)| *who == Who::Join) || self.flying == Some(Who::Join);
        if !waiting && !self.draining {
            tracing::info!("the run lost sight of this node; joining again");
            self.said.push_front((Who::Join, Statement::Join(self.core.join.clone())));
        }
    }

    /// The run gave this node a stage: other vectors, other shelves.
    fn take_stage(&mut self, stage: Option<StageIndex>) {
        self.stage = stage;
        let Some(index) = stage else { return };
        let Some(spec) = self.core.stages.get(usize::from(index.0)) else { return };
        let merge = self.core.spec.swarm_spec().merge;
        let elements = spec.parameters();
        let patience =
            Duration::from_millis(merge.deadline_max.0 / 4).clamp(limits::FETCH_MIN, limits::PIECE_DEADLINE);
        tracing::info!(stage = index.0, parameters = elements, "this node has its stage");
        let merging = Merging {
            shelf: Shelf::new(
                self.core.node,
                index,
                elements,
                merge.wire.width(),
                Arc::clone(&self.core.blobs),
                &self.core.folder,
            ),
            link: Arc::clone(&self.core.link),
            run: self.core.run,
            pool: Arc::clone(&self.core.pool),
            wire: merge.wire,
            outer: merge.outer,
            patience,
            lanes: Semaphore::new(limits::FETCH_LANES),
            codec: self.core.spec.codec.clone(),
            meter: Arc::clone(&self.core.door.meter),
        };
        let merging = Arc::new(merging);
        let mut door = self.core.door.merging.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *door = Some(Arc::clone(&merging));
        drop(door);
        self.merging = Some(merging);
        self.merger = merger_of(&self.core);
        self.trained = None;
    }

    pub(super) fn pipeline_event(&mut self, event: pipeline::Event) {
        let now = self.now();
        let Self { core, pipeline, .. } = self;
        core.log.read(|view| pipeline.on_event(now, &view.state, event));
    }

    pub(super) fn merger_event(&mut self, event: merger::Event) {
        let now = self.now();
        let Self { core, merger, .. } = self;
        core.log.read(|view| merger.on_event(now, &view.state, event));
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Frame(arrived) => {
                let header = &arrived.frame.header;
                let frame = pipeline::Offer {
                    epoch: header.epoch,
                    micro_batch: header.micro_batch,
                    lease: header.lease,
                    direction: header.direction,
                    stage: header.stage,
                    from: header.from,
                    grad_mask: header.grad_mask,
                    ttl: header.ttl,
                    loss: header.loss,
                    head: Some(header.head.seq),
                };
                let offer = self.next_offer;
                self.next_offer += 1;
                self.offers.insert(offer, *arrived);
                self.pipeline_event(pipeline::Event::Offered { offer, frame });
            }
            Inbound::Open { epoch, micro_batch, direction, answer } => {
                drop(answer.send(self.tensors.show(epoch, micro_batch, direction)));
            }
            Inbound::State(statement) => self.say(Who::Node, *statement),
        }
    }

    fn on_inner(&mut self, inner: Inner) -> Result<(), MinerError> {
        match inner {
            Inner::Pipeline(event) => self.pipeline_event(event),
            Inner::Merger(event) => self.merger_event(event),
            Inner::Sent { event, item, kept, bytes, full } => {
                self.activations += bytes;
                self.activations_full += full;
                if let Some(kept) = kept {
                    let (frame, receipt) = *kept;
                    self.evidence.extend([frame.hash(), receipt_hash(&receipt)]);
                    self.tensors.went(&item, frame, receipt);
                }
                self.pipeline_event(event);
            }
            Inner::Answered { who, answer } => self.on_answer(who, answer)?,
            Inner::State(statement) => self.say(Who::Node, *statement),
            Inner::Trained { epoch, weights } => self.trained = Some((epoch, weights)),
            Inner::Fatal(error) => return Err(*error),
        }
        Ok(())
    }

    fn on_answer(&mut self, who: Who, answer: Answer) -> Result<(), MinerError> {
        self.flying = None;
        let accepted =
            answer.accepted() || matches!(answer, Answer::Refused(Refusal::Unfit(Unfit::Duplicate)));
        let telling = std::mem::take(&mut self.telling);
        if !accepted {
            self.untold.add(&telling);
        }
        if let Answer::Refused(refusal) = answer
            && !accepted
        {
            match (who, refusal) {
                (Who::Join, refusal) => return Err(MinerError::Refused(refusal)),
                (_, Refusal::NotPresent) => self.join_again(),
                (who, refusal) => tracing::debug!(?who, %refusal, "refused"),
            }
        }
        match who {
            Who::Pipeline(token) => self.pipeline_event(pipeline::Event::Answered { token, accepted }),
            Who::Merger(token) => self.merger_event(merger::Event::Answered { token, accepted }),
            Who::Join | Who::Node => {}
        }
        Ok(())
    }

    fn on_finished(&mut self, finished: Finished) {
        self.busy += finished.time;
        let epoch = self.core.log.read(|view| view.state.work().epoch);
        let computed = match finished.done {
            Done::Forward { item, output } => {
                let loss = match output {
                    model::stage::Output::Loss(loss) => Some(loss),
                    model::stage::Output::Message(message) => {
                        self.tensors.computed(epoch, item, Direction::Forward, message);
                        None
                    }
                };
                pipeline::Computed::Forward { item, loss }
            }
            Done::Backward { item, output } => {
                if let Some(message) = output {
                    self.tensors.computed(epoch, item, Direction::Backward, message);
                }
                pipeline::Computed::Backward(item)
            }
            Done::Failed { item } => pipeline::Computed::Failed(item),
            Done::Squares { step, sums } => pipeline::Computed::Squares { step, sums },
            Done::Diverged { step } => pipeline::Computed::Diverged { step },
            Done::Stepped { step, scale, weights: None } => {
                pipeline::Computed::Stepped { step, clip: scale, root: None }
            }
            Done::Stepped { step, scale, weights: Some(weights) } => {
                let weights = Arc::new(weights);
                self.trained = Some((epoch, Arc::clone(&weights)));
                let inner = self.inner.clone();
                self.tasks.spawn(async move {
                    let hash = move || merkle::root_of(swarm::miner::reduce::bytes_of(&weights));
                    let root = tokio::task::spawn_blocking(hash).await.ok();
                    let stepped = pipeline::Computed::Stepped { step, clip: scale, root };
                    drop(inner.send(Inner::Pipeline(pipeline::Event::Computed(stepped))).await);
                });
                return;
            }
        };
        self.pipeline_event(pipeline::Event::Computed(computed));
    }

    fn act(&mut self) {
        loop {
            while let Some(action) = self.pipeline.poll() {
                self.pipeline_action(action);
            }
            let Some(action) = self.merger.poll() else { break };
            self.merger_action(action);
        }
        self.speak();
    }

    /// Looks at what is spared now.
    pub(super) fn note_spared(&mut self) {
        if !self.kept.inputs() {
            return;
        }
        let stage = self.stage.and_then(|stage| self.core.stages.get(usize::from(stage.0)));
        let graph = stage.map_or(0, |stage| stage.graph_bytes(self.core.spec.batch.sequences));
        let spared = self.kept.without_graph() as u64 * graph + self.tensors.spared() as u64;
        self.spared = self.spared.max(spared);
    }

    pub(super) fn say(&mut self, who: Who, statement: Statement) {
        self.said.push_back((who, statement));
    }

    /// What moved since the last call.
    fn take_traffic(&mut self) -> Traffic {
        let total = self.core.link.traffic().total;
        let (sent, received) = (total.sent(), total.received());
        let (merge, merge_full, codec) = self.core.door.meter.take();
        let before = std::mem::replace(&mut self.reported, (sent, received));
        let mut traffic = std::mem::take(&mut self.untold);
        traffic.add(&Traffic {
            activations: std::mem::take(&mut self.activations),
            activations_full: std::mem::take(&mut self.activations_full),
            merge,
            merge_full,
            codec,
            spared: std::mem::take(&mut self.spared),
            sent: sent - before.0.min(sent),
            received: received - before.1.min(received),
        });
        self.telling = traffic;
        traffic
    }

    /// Hands the next statement to the speaker; its answer comes back before the one after it goes.
    fn speak(&mut self) {
        if self.flying.is_some() {
            return;
        }
        let Some((who, mut statement)) = self.said.pop_front() else { return };
        if let Statement::Ready { traffic, .. } = &mut statement {
            *traffic = self.take_traffic();
        }
        if let Statement::Work(work) = &mut statement {
            work.evidence = merkle::root(&std::mem::take(&mut self.evidence));
            work.busy = Millis(std::mem::take(&mut self.busy).as_millis() as u64);
            work.traffic = self.take_traffic();
            // Behind the work that it belongs to.
            if let Some(report) = self.core.door.champions.report() {
                self.said.push_front((Who::Node, report));
            }
        }
        self.flying = Some(who);
        self.last_said = Instant::now();
        let (speaker, inner) = (self.core.speaker.clone(), self.inner.clone());
        self.tasks.spawn(async move {
            if let Ok(answer) = speaker.say(statement).await {
                drop(inner.send(Inner::Answered { who, answer }).await);
            }
        });
    }
}

fn merger_of(core: &Core) -> Merger {
    Merger::new(merger::Settings { node: core.node, run: core.run, secret: core.secret })
}

fn receipt_hash(receipt: &Receipt) -> Hash {
    Hash::of(&wire::to_bytes(receipt))
}
