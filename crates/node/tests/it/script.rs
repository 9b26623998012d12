//! A miner that says all the right things without computing: what it states is a function of the state it folded.
//!
//! Its weights are the number of the epoch, everywhere. It is alone in its stage.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use net::{Handler, Link, Message, Refusal};
use shoal_node::follow::{Follow, Log};
use shoal_node::rpc::{Reply, Request, What, code};
use shoal_node::speak::{Answer, Speak, Speaker};
use shoal_node::spec::RunSpec;
use swarm::miner::reduce;
use swarm::record::{
    HaveShard, Join, Role, ShardClaim, Statement, StepCommit, Traffic, UploadCommit, Work, WorkItem,
    blind_hash, nonce_hash,
};
use swarm::state::{Cell, MergeStep, Phase, State};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{Direction, Epoch, Hash, Millis, NodeId, RunId, SigningKey, StageIndex, Step};

/// Weights that `epoch` opens with.
pub(crate) fn weights(elements: usize, epoch: Epoch) -> Vec<f32> {
    vec![epoch.0 as f32; elements]
}

fn state_hash(elements: usize, epoch: Epoch) -> Hash {
    reduce::state_of(elements, 0..elements, &weights(elements, epoch), &[])
}

/// Answers for the weights of any epoch.
pub(crate) struct Shelf {
    run: RunId,
    stage: StageIndex,
    elements: usize,
    log: OnceLock<Log>,
}

impl Shelf {
    pub(crate) fn new(spec: &RunSpec, stage: StageIndex) -> Arc<Self> {
        let elements = spec.stage_specs()[usize::from(stage.0)].parameters();
        Arc::new(Self { run: spec.run_id(), stage, elements, log: OnceLock::new() })
    }

    /// The epoch whose merge gave the weights that open `epoch`: an older one if that was drained before its first step.
    fn origin(&self, epoch: Epoch) -> Epoch {
        let known = |log: &Log| {
            log.read(|view| {
                let stage = view.state.stage(self.stage).expect("its stage");
                let hashes = stage.agreed.iter().flatten().chain(stage.wanted.iter().flatten());
                hashes.copied().collect::<Vec<_>>()
            })
        };
        let known = self.log.get().map(known).unwrap_or_default();
        let known = |epoch: &Epoch| known.contains(&state_hash(self.elements, *epoch));
        (0..=epoch.0).rev().map(Epoch).find(known).unwrap_or(epoch)
    }
}

#[async_trait]
impl Handler for Shelf {
    async fn handle(&self, _: NodeId, message: Message) -> Result<Message, Refusal> {
        match Request::parse(&message, &self.run)? {
            Request::Fetch { what: What::Weights { epoch, shard: 0, .. }, span } => {
                let values = weights(self.elements, self.origin(epoch));
                let whole = Bytes::copy_from_slice(reduce::bytes_of(&values));
                Ok(Reply::Piece { total: whole.len() as u64 }.with_payload(span.of(&whole)?))
            }
            _ => Err(Refusal::new(code::NOT_HERE, "only weights here")),
        }
    }
}

/// A scripted miner.
pub(crate) struct Script {
    pub(crate) id: NodeId,
    pub(crate) stage: StageIndex,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) log: Log,
    speaker: Speaker,
    said: BTreeSet<(u32, &'static str)>,
    /// Statements that were acknowledged: block and statement.
    pub(crate) acknowledged: Arc<std::sync::Mutex<Vec<(wire::Seq, Statement)>>>,
}

impl Script {
    /// Follows the log and joins in; `tasks` holds its tasks. The link answers with `shelf`.
    pub(crate) async fn start(
        key: SigningKey,
        shelf: &Shelf,
        link: Arc<dyn Link>,
        orchestrator: NodeId,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Self {
        let (run, stage) = (shelf.run, shelf.stage);
        let follow = Follow { link: Arc::clone(&link), orchestrator, run, patience: Duration::from_secs(20) };
        let log = follow.start(tasks, stop).await.expect("a log");
        shelf.log.set(log.clone()).expect("a shelf of its own");
        let speak = Speak { link: Arc::clone(&link), key: key.clone(), orchestrator, run };
        let speaker = speak.start(tasks, stop);
        let acknowledged = Arc::default();
        Self { id: key.node_id(), stage, link, log, speaker, said: BTreeSet::new(), acknowledged }
    }

    /// Does its part until the run is over.
    pub(crate) async fn run(mut self) -> Self {
        loop {
            let (next, over) = {
                let (id, stage, said, address) = (self.id, self.stage, &self.said, self.link.address());
                self.log.read_new(|view| {
                    let over = matches!(view.state.phase(), Phase::Finished { .. });
                    (next(&view.state, &id, stage, said, wire::to_bytes(&address)), over)
                })
            };
            if over {
                self.log.over().await;
                return self;
            }
            let Some((statement, name)) = next else {
                // Something must happen within a heartbeat, or this node shows that it lives.
                if let Ok(changed) =
                    tokio::time::timeout(Duration::from_millis(300), self.log.changed()).await
                {
                    changed.expect("the follower lives");
                } else {
                    self.say(Statement::Heartbeat).await;
                }
                continue;
            };
            let epoch = self.log.read(|view| view.state.work().epoch.0);
            if self.say(statement).await {
                self.said.insert((epoch, name));
            }
        }
    }

    /// Nobody answers once the run is over and the orchestrator is gone.
    async fn say(&mut self, statement: Statement) -> bool {
        let log = self.log.clone();
        let answer = tokio::select! {
            biased;
            answer = self.speaker.say(statement.clone()) => answer.expect("a voice"),
            () = log.over() => return false,
        };
        match answer {
            Answer::Accepted(seq) => {
                self.acknowledged.lock().unwrap().push((seq, statement));
                let seen = |view: &shoal_node::follow::View| (view.head.seq >= seq).then_some(());
                tokio::select! {
                    biased;
                    seen = self.log.until(Duration::from_secs(20), seen) => {
                        let seen = seen.expect("the follower lives");
                        assert!(seen.is_some(), "acknowledged block {seq} never came");
                    }
                    () = log.over() => {}
                }
                true
            }
            Answer::Refused(refusal) => {
                // The view was behind: it will be newer at the next look.
                tracing::debug!(%refusal, ?statement, "refused");
                tokio::task::yield_now().await;
                false
            }
        }
    }
}

fn next(
    state: &State,
    me: &NodeId,
    stage: StageIndex,
    said: &BTreeSet<(u32, &'static str)>,
    address: Vec<u8>,
) -> Option<(Statement, &'static str)> {
    let Some(node) = state.node(me).filter(|node| node.present()) else {
        let join = Join {
            role: Role::Miner,
            address,
            agent: "script".into(),
            device: "none".into(),
            mflops: 1000,
            memory: u64::MAX,
            stage: Some(stage),
        };
        return Some((Statement::Join(join), "join"));
    };
    node.stage?;
    let elements = state.spec().stages[usize::from(stage.0)].parameters as usize;
    let ready = |epoch: Epoch| {
        let due = node.ready.as_ref().is_none_or(|ready| ready.epoch < epoch);
        // What the manifest says; a shard that was kept (an epoch drained before its first step) has older weights.
        let wanted = state.stage(stage).and_then(|stage| stage.wanted.first().copied().flatten());
        let hash = wanted.unwrap_or_else(|| state_hash(elements, epoch));
        due.then(|| (Statement::Ready { epoch, states: vec![hash], traffic: Traffic::default() }, "ready"))
    };
    match state.phase() {
        Phase::Training { .. } if state.is_live_member(me) => train(state, me, stage),
        Phase::Merging { epoch } if state.is_live_member(me) => merge(state, me, stage, said, elements)
            .or_else(|| {
                let done = state.merge(stage).is_some_and(|merge| merge.step == MergeStep::Done);
                if done { ready(epoch.next()) } else { None }
            }),
        // It came back in the middle of an epoch.
        Phase::Gathering { epoch, .. } | Phase::Training { epoch } | Phase::Merging { epoch } => ready(epoch),
        Phase::Finished { .. } => None,
    }
}

fn train(state: &State, me: &NodeId, stage: StageIndex) -> Option<(Statement, &'static str)> {
    let tail = usize::from(stage.0) + 1 == state.spec().stages.len();
    let mut items = Vec::new();
    let mut open = false;
    for (id, path) in state.paths() {
        open |= path.cells[0] == Cell::Open;
        let passed = path.cells[1..].iter().all(|cell| *cell != Cell::Leased);
        let mine = path.cells[usize::from(stage.0)] == Cell::Leased && (stage != StageIndex(0) || passed);
        if let Some(lease) = path.lease.filter(|_| mine) {
            let item = |direction| WorkItem {
                micro_batch: *id,
                lease,
                direction,
                version: 0,
                loss: tail.then_some(2.0),
            };
            items.extend([item(Direction::Forward), item(Direction::Backward)]);
        }
    }
    if !items.is_empty() {
        return Some((work(state, me, stage, items, false), "work"));
    }
    let idle = stage == StageIndex(0) && state.leases_of(*me).next().is_none() && open;
    idle.then(|| (Statement::LeaseRequest { epoch: state.work().epoch, want: 4 }, "lease"))
}

/// A report of `items`, and of the steps that they and what was accumulated before fill.
fn work(state: &State, me: &NodeId, stage: StageIndex, items: Vec<WorkItem>, last: bool) -> Statement {
    let member = state.member(me).expect("a member");
    let accumulate = member.member.accumulate as usize;
    let counted = |cell: &Cell| matches!(cell, Cell::Accumulated { .. });
    let mut gradient: Vec<_> = state
        .paths()
        .iter()
        .filter(|(_, path)| counted(&path.cells[usize::from(stage.0)]))
        .filter_map(|(id, path)| Some((*id, path.lease?)))
        .collect();
    let added = items.iter().filter(|item| item.direction == Direction::Backward);
    gradient.extend(added.map(|item| (item.micro_batch, item.lease)));
    let step = |(at, items): (usize, &[(wire::MicroBatch, wire::LeaseId)])| StepCommit {
        step: Step(member.steps + at as u32),
        items: items.to_vec(),
        clip: 1.0,
        weights_root: None,
    };
    let full = |items: &&[_]| items.len() == accumulate || (last && items.len() * 2 >= accumulate);
    let steps = gradient.chunks(accumulate).filter(full).enumerate().map(step).collect();
    Statement::Work(Work {
        epoch: state.work().epoch,
        seq: member.next_report,
        items,
        steps,
        evidence: Hash::of(b"none"),
        busy: Millis(1),
        hops: Vec::new(),
        traffic: Traffic {
            activations: 10,
            activations_full: 640,
            merge: 3,
            merge_full: 4,
            codec: Millis(1),
            spared: 5,
            sent: 13,
            received: 13,
        },
        free: 4,
    })
}

fn merge(
    state: &State,
    me: &NodeId,
    stage: StageIndex,
    said: &BTreeSet<(u32, &'static str)>,
    elements: usize,
) -> Option<(Statement, &'static str)> {
    let member = state.member(me)?;
    let merge = state.merge(stage)?;
    let epoch = merge.epoch;
    let new = |name: &'static str, statement: Statement| {
        (!said.contains(&(epoch.0, name))).then_some((statement, name))
    };
    let nonce = Hash::of_parts("nonce", &[&me.0, &epoch.0.to_le_bytes()]);
    let result = Hash::of_parts("result", &[&me.0, &epoch.0.to_le_bytes()]);
    let claims = vec![ShardClaim { shard: 0, result, state: state_hash(elements, epoch.next()) }];
    match merge.step {
        MergeStep::Commit if !member.finished => Some((work(state, me, stage, Vec::new(), true), "last")),
        MergeStep::Commit if !merge.commits.contains_key(me) && member.stepped > 0 => {
            let upload = UploadCommit {
                epoch,
                base: wire::merkle::root_of(reduce::bytes_of(&weights(elements, epoch))),
                upload: result,
                residual: Hash::of(b"none"),
                nonce_commit: nonce_hash(&nonce),
                steps: member.steps,
            };
            Some((Statement::Upload(upload), "upload"))
        }
        MergeStep::Reveal => new("reveal", Statement::Reveal { epoch, nonce }),
        MergeStep::Fetch => {
            let have = HaveShard { shard: 0, bitmap: 1, square_sums: vec![1.0] };
            new("have", Statement::Have { epoch, shards: vec![have] })
        }
        MergeStep::Claim => new("blind", Statement::Blind { epoch, hash: blind_hash(me, &nonce, &claims) }),
        MergeStep::Check => new("claims", Statement::Claims { epoch, nonce, shards: claims }),
        MergeStep::Commit | MergeStep::Done => None,
    }
}
