//! A miner's driver in virtual time: real vectors, a toy gradient, a disk that survives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use wire::{Envelope, Epoch, Hash, Millis, NodeId, Seq, SigningKey, to_bytes};

use crate::miner::merger::{self, Apply, Fetched, Merger, Residual, Shard, Summand, Want};
use crate::miner::pipeline::{self, Computed, Job, Pipeline};
use crate::miner::reduce::{self, Dither};
use crate::miner::{Item, Token};
use crate::record::{Join, Role, STATEMENT_KIND, ShardClaim, Statement};
use crate::state::State;

/// Weights, momentum, residual with which an epoch opens.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) weights: Vec<f32>,
    pub(super) momentum: Vec<f32>,
    pub(super) residual: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    Pipeline(Token),
    Merger(Token),
    Node,
}

/// What is lost when the process dies.
#[derive(Default)]
pub(super) struct Memory {
    weights: Vec<f32>,
    graphs: BTreeMap<Item, u32>,
    gradient: Vec<Item>,
    version: u32,
    own: BTreeMap<Epoch, (Vec<u8>, Vec<f32>)>,
    pub(super) uploads: BTreeMap<(Epoch, u16, NodeId), Vec<u8>>,
    results: BTreeMap<(Epoch, u16, Hash), Vec<u8>>,
    parts: BTreeMap<(Epoch, u16), (Vec<f32>, Vec<f32>)>,
    serving: BTreeSet<Epoch>,
}

/// Older versions that a peer keeps if its test says nothing.
const STASH: u32 = 1;

pub(super) struct Peer {
    pub(super) key: SigningKey,
    pub(super) id: NodeId,
    pub(super) alive: bool,
    /// Counts its lives: what was sent to an earlier one is lost.
    pub(super) life: u32,
    pub(super) pipeline: Pipeline,
    pub(super) merger: Merger,
    pub(super) state: Option<(Seq, Arc<State>)>,
    pub(super) said: VecDeque<(Speaker, Statement)>,
    pub(super) flying: Option<(Speaker, Envelope)>,
    pub(super) last_said: Millis,
    nonce: u64,
    pub(super) memory: Memory,
    pub(super) disk: BTreeMap<Epoch, Opening>,
    pub(super) draining: bool,
    /// Older versions of the weights that its graphs may need.
    pub(super) stash: u32,
    /// Jobs of the compute thread, in order; the first one is under way.
    pub(super) jobs: VecDeque<Job>,
    /// Weights at the end of each epoch's training.
    pub(super) trained: BTreeMap<Epoch, Vec<f32>>,
}

impl Peer {
    pub(super) fn new(index: usize) -> Self {
        let mut secret = [0; 32];
        secret[0] = index as u8 + 1;
        let key = SigningKey::from_bytes(&secret);
        let id = key.node_id();
        let (pipeline, merger) = machines(&key, STASH);
        Self {
            key,
            id,
            alive: false,
            life: 0,
            pipeline,
            merger,
            state: None,
            said: VecDeque::new(),
            flying: None,
            last_said: Millis(0),
            nonce: 0,
            memory: Memory::default(),
            disk: BTreeMap::new(),
            draining: false,
            stash: STASH,
            jobs: VecDeque::new(),
            trained: BTreeMap::new(),
        }
    }

    pub(super) fn start(&mut self) {
        (self.pipeline, self.merger) = machines(&self.key, self.stash);
        self.alive = true;
        self.life += 1;
        self.said.clear();
        self.flying = None;
        self.memory = Memory::default();
        self.state = None;
        self.jobs.clear();
        self.join();
    }

    pub(super) fn join(&mut self) {
        let join = Join {
            role: Role::Miner,
            address: Vec::new(),
            agent: "test".into(),
            device: "test".into(),
            mflops: 1000,
            memory: 0,
            stage: None,
        };
        self.said.push_front((Speaker::Node, Statement::Join(join)));
    }

    pub(super) fn sign(&mut self, now: Millis, statement: &Statement) -> Envelope {
        let run = self.state.as_ref().expect("the log is read before anything is said").1.run();
        self.nonce += 1;
        Envelope::sign(&self.key, run, STATEMENT_KIND, to_bytes(statement), now, self.nonce)
    }

    pub(super) fn compute(&mut self, job: Job) -> Option<Computed> {
        let memory = &mut self.memory;
        let state = &self.state.as_ref().expect("it read the log").1;
        let stage = state.node(&self.id).and_then(|node| node.stage).expect("it was assigned");
        let tail = stage == state.spec().tail();
        match job {
            Job::Forward(item) => {
                assert!(memory.graphs.insert(item, memory.version).is_none(), "forward twice");
                let versions: BTreeSet<u32> = memory.graphs.values().copied().collect();
                let newest = versions.last().expect("this one");
                assert!(newest - versions.first().expect("this one") <= self.stash);
                Some(Computed::Forward { item, loss: tail.then_some(1.0) })
            }
            Job::Backward { item, accumulate } => {
                memory.graphs.remove(&item).expect("backward of a kept graph");
                if accumulate {
                    memory.gradient.push(item);
                }
                Some(Computed::Backward(item))
            }
            Job::Squares { step } => Some(Computed::Squares { step, sums: vec![1.0, 4.0] }),
            Job::Step { step, root, scale } => {
                assert!(!memory.gradient.is_empty());
                assert!(self.stash > 0 || memory.graphs.is_empty(), "the old version is still needed");
                let count = memory.gradient.len() as f32;
                for item in memory.gradient.drain(..) {
                    let mut x = item.micro_batch.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                    for weight in memory.weights.iter_mut().skip(stage.0.into()).step_by(5) {
                        x ^= x << 13;
                        x ^= x >> 7;
                        x ^= x << 17;
                        *weight -= 1e-3 * ((x >> 40) as f32 / 16_777_216.0 - 0.5 + 0.1 * *weight) / count;
                    }
                }
                memory.version += 1;
                let root = root.then(|| wire::merkle::root_of(reduce::bytes_of(&memory.weights)));
                Some(Computed::Stepped { step, clip: scale.unwrap_or(1.0), root })
            }
            Job::Discard(item) => {
                memory.graphs.remove(&item);
                None
            }
            Job::Clear => {
                memory.gradient.clear();
                None
            }
        }
    }

    /// Its own encoded upload.
    pub(super) fn upload(&self, epoch: Epoch) -> Vec<u8> {
        self.memory.own[&epoch].0.clone()
    }

    /// Does what the merge machine asks and needs no network; returns what follows.
    pub(super) fn merge(&mut self, action: merger::Action) -> Option<merger::Event> {
        let state = self.state.clone().expect("it read the log").1;
        let spec = state.spec().merge.clone();
        let stage = state.node(&self.id)?.stage?;
        let elements = state.spec().stages[usize::from(stage.0)].parameters as usize;
        match action {
            merger::Action::MakeUpload { epoch } => {
                self.trained.insert(epoch, self.memory.weights.clone());
                let opening = &self.disk[&epoch];
                let mut bytes = vec![0; elements * spec.wire.width()];
                let mut residual = vec![0.0; elements];
                reduce::encode_upload(
                    spec.wire,
                    &opening.weights,
                    &self.memory.weights,
                    &opening.residual,
                    &mut bytes,
                    &mut residual,
                )
                .unwrap();
                let root =
                    |width, bytes: &[u8]| wire::merkle::root(&reduce::leaf_hashes(elements, 0, width, bytes));
                let base = root(4, reduce::bytes_of(&opening.weights));
                let upload = root(spec.wire.width(), &bytes);
                let next = root(4, reduce::bytes_of(&residual));
                self.memory.own.insert(epoch, (bytes, residual));
                Some(merger::Event::UploadMade { epoch, base, upload, residual: next })
            }
            merger::Action::Serve { epoch } => {
                self.memory.serving.insert(epoch);
                None
            }
            merger::Action::Reduce { epoch, shard, summands, seed, own } => {
                Some(self.reduce(&state, epoch, shard, &summands, seed, own))
            }
            merger::Action::Apply { epoch, shards, residual, report } => {
                Some(self.apply(&state, epoch, &shards, residual, &report))
            }
            merger::Action::Initialise { stage } => {
                let weights: Vec<f32> =
                    (0..elements).map(|i| ((i * 7 + usize::from(stage.0)) % 13) as f32 * 0.01).collect();
                let momentum = momentum(&state, elements);
                let opening = Opening { residual: vec![0.0; elements], weights, momentum };
                let states = vec![whole_state(&opening, elements, 0..elements)];
                self.install(Epoch(0), opening);
                Some(merger::Event::Applied { epoch: Epoch(0), states })
            }
            merger::Action::Restore { epoch, parts } => {
                let mut missing = Vec::new();
                for (shard, hash) in &parts {
                    let found = [Some(epoch), epoch.0.checked_sub(1).map(Epoch)]
                        .into_iter()
                        .flatten()
                        .find_map(|e| {
                            let opening = self.disk.get(&e)?;
                            (whole_state(opening, elements, shard.range()) == *hash)
                                .then(|| part(opening, shard))
                        });
                    match found {
                        Some(part) => drop(self.memory.parts.insert((epoch, shard.index), part)),
                        None => missing.push(shard.index),
                    }
                }
                Some(merger::Event::Restored { epoch, missing })
            }
            merger::Action::Adopt { epoch, parts } => {
                let mut opening =
                    Opening { weights: Vec::new(), momentum: Vec::new(), residual: vec![0.0; elements] };
                for (shard, _) in &parts {
                    let (weights, momentum) = self.memory.parts.remove(&(epoch, shard.index)).unwrap();
                    opening.weights.extend(weights);
                    opening.momentum.extend(momentum);
                }
                assert_eq!(opening.weights.len(), elements);
                let states = parts.iter().map(|(_, hash)| *hash).collect();
                let before = epoch.0.checked_sub(1).and_then(|before| self.disk.get(&Epoch(before)));
                if let Some(old) = self.disk.get(&epoch).or(before) {
                    opening.residual.clone_from(&old.residual);
                }
                self.install(epoch, opening);
                Some(merger::Event::Applied { epoch, states })
            }
            merger::Action::Forget { before } => {
                self.disk.retain(|epoch, _| *epoch >= before);
                self.memory.own.retain(|epoch, _| *epoch >= before);
                self.memory.uploads.retain(|(epoch, ..), _| *epoch >= before);
                self.memory.results.retain(|(epoch, ..), _| *epoch >= before);
                None
            }
            merger::Action::State { token, statement } => {
                self.said.push_back((Speaker::Merger(token), statement));
                None
            }
            merger::Action::Fetch { .. } => unreachable!("the world fetches"),
        }
    }

    fn install(&mut self, epoch: Epoch, opening: Opening) {
        self.memory.weights.clone_from(&opening.weights);
        self.memory.version = 0;
        self.disk.insert(epoch, opening);
    }

    fn reduce(
        &mut self,
        state: &State,
        epoch: Epoch,
        shard: Shard,
        summands: &[Summand],
        seed: Hash,
        own: bool,
    ) -> merger::Event {
        let spec = &state.spec().merge;
        let bytes = if own {
            reduce::bytes_of(&self.memory.weights[shard.range()]).to_vec()
        } else {
            let uploads = &self.memory.uploads;
            let summands: Vec<(f32, &[u8])> =
                summands.iter().map(|s| (s.weight, &uploads[&(epoch, shard.index, s.node)][..])).collect();
            let mut out = vec![0; shard.range().len() * spec.wire.width()];
            reduce::reduce(spec.wire, &summands, Dither::new(&seed, shard.index), shard.start, &mut out);
            out
        };
        let opening = &self.disk[&epoch];
        let (weights, momentum) = stepped(state, epoch, opening, &shard, &bytes, own);
        let elements = opening.weights.len();
        let claim = ShardClaim {
            shard: shard.index,
            result: Hash::of(&bytes),
            state: reduce::state_of(elements, shard.range(), &weights, &momentum),
        };
        self.memory.results.insert((epoch, shard.index, claim.result), bytes);
        merger::Event::Reduced { epoch, claim }
    }

    fn apply(
        &mut self,
        state: &State,
        epoch: Epoch,
        shards: &[(Shard, Apply)],
        residual: Residual,
        report: &[Shard],
    ) -> merger::Event {
        let wire = state.spec().merge.wire;
        let mut opening = self.disk[&epoch].clone();
        match residual {
            Residual::Stays => {}
            Residual::Uploaded => opening.residual.clone_from(&self.memory.own[&epoch].1),
            Residual::Lost => opening.residual.fill(0.0),
        }
        for (shard, apply) in shards {
            let (hash, own, carried) = match apply {
                Apply::Result { hash, carry } => (Some(*hash), false, *carry),
                Apply::Own(hash) => (Some(*hash), true, false),
                Apply::Keep { carry } => (None, false, *carry),
            };
            if carried {
                let bytes = &self.memory.own[&epoch].0[shard.start * wire.width()..shard.end * wire.width()];
                reduce::carry(wire, bytes, &mut opening.residual[shard.range()]);
            }
            if let Some(hash) = hash {
                let bytes = &self.memory.results[&(epoch, shard.index, hash)];
                let (weights, momentum) = stepped(state, epoch, &opening, shard, bytes, own);
                opening.weights[shard.range()].copy_from_slice(&weights);
                if !momentum.is_empty() {
                    opening.momentum[shard.range()].copy_from_slice(&momentum);
                }
            }
        }
        let elements = opening.weights.len();
        let states = report.iter().map(|shard| whole_state(&opening, elements, shard.range())).collect();
        self.install(epoch.next(), opening);
        merger::Event::Applied { epoch: epoch.next(), states }
    }

    /// What a peer that asks gets: `None` for "not yet".
    pub(super) fn serve(&self, want: &Want) -> Option<Payload> {
        match want {
            Want::Upload { epoch, shard, of, .. } => {
                if !self.memory.serving.contains(epoch) {
                    return None;
                }
                let width = self.state.as_ref()?.1.spec().merge.wire.width();
                if *of == self.id {
                    let (bytes, _) = self.memory.own.get(epoch)?;
                    return Some(Payload::Bytes(bytes[shard.start * width..shard.end * width].to_vec()));
                }
                self.memory.uploads.get(&(*epoch, shard.index, *of)).cloned().map(Payload::Bytes)
            }
            Want::Result { epoch, shard, hash } => {
                self.memory.results.get(&(*epoch, shard.index, *hash)).cloned().map(Payload::Bytes)
            }
            Want::Part { epoch, shard, .. } => {
                let before = || self.disk.get(&Epoch(epoch.0.checked_sub(1)?));
                let (weights, momentum) = part(self.disk.get(epoch).or_else(before)?, shard);
                Some(Payload::Part(weights, momentum))
            }
        }
    }

    /// Verifies and keeps what came.
    pub(super) fn keep(&mut self, want: &Want, payload: Payload) -> Fetched {
        let state = self.state.clone().expect("it read the log").1;
        let wire = state.spec().merge.wire;
        match (want, payload) {
            (Want::Upload { epoch, shard, of, .. }, Payload::Bytes(bytes)) => {
                let Ok(square_sum) = reduce::square_sum(wire, &bytes) else { return Fetched::Failed };
                self.memory.uploads.insert((*epoch, shard.index, *of), bytes);
                Fetched::Held { square_sum }
            }
            (Want::Result { epoch, shard, hash }, Payload::Bytes(bytes)) if Hash::of(&bytes) == *hash => {
                self.memory.results.insert((*epoch, shard.index, *hash), bytes);
                Fetched::Held { square_sum: 0.0 }
            }
            (Want::Part { epoch, shard, state: hash }, Payload::Part(weights, momentum)) => {
                let Some(stage) = state.node(&self.id).and_then(|node| node.stage) else {
                    return Fetched::Failed;
                };
                let elements = state.spec().stages[usize::from(stage.0)].parameters as usize;
                if reduce::state_of(elements, shard.range(), &weights, &momentum) != *hash {
                    return Fetched::Failed;
                }
                self.memory.parts.insert((*epoch, shard.index), (weights, momentum));
                Fetched::Held { square_sum: 0.0 }
            }
            _ => Fetched::Failed,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Payload {
    Bytes(Vec<u8>),
    Part(Vec<f32>, Vec<f32>),
}

fn machines(key: &SigningKey, stash: u32) -> (Pipeline, Merger) {
    let node = key.node_id();
    let settings = pipeline::Settings { node, in_flight: 6, queue: 10, stash };
    let secret = key.derive("merge", &[]);
    let run = wire::RunId([0; 32]);
    (Pipeline::new(settings), Merger::new(merger::Settings { node, run, secret }))
}

fn momentum(state: &State, elements: usize) -> Vec<f32> {
    if reduce::has_momentum(state.spec().merge.outer) { vec![0.0; elements] } else { Vec::new() }
}

fn of_range(values: &[f32], range: Range<usize>) -> &[f32] {
    if values.is_empty() { values } else { &values[range] }
}

pub(super) fn part(opening: &Opening, shard: &Shard) -> (Vec<f32>, Vec<f32>) {
    (opening.weights[shard.range()].to_vec(), of_range(&opening.momentum, shard.range()).to_vec())
}

pub(super) fn whole_state(opening: &Opening, elements: usize, range: Range<usize>) -> Hash {
    let momentum = of_range(&opening.momentum, range.clone());
    reduce::state_of(elements, range.clone(), &opening.weights[range], momentum)
}

fn stepped(
    state: &State,
    epoch: Epoch,
    opening: &Opening,
    shard: &Shard,
    bytes: &[u8],
    own: bool,
) -> (Vec<f32>, Vec<f32>) {
    let spec = &state.spec().merge;
    let (mut weights, mut momentum) = part(opening, shard);
    if own {
        reduce::decode(crate::spec::MergeWire::F32, bytes, &mut weights);
    } else {
        reduce::outer_step(spec.wire, spec.outer, epoch, bytes, &mut weights, &mut momentum);
    }
    (weights, momentum)
}
