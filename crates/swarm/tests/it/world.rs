//! A seeded world: simulated miners that follow the fold honestly, die, lag, restart and come late.
//!
//! Weights are hashes: a replica that applied the wrong thing has another hash, and the fold would refuse it.

use std::collections::{BTreeMap, BTreeSet};

use shoal_swarm::Fold;
use shoal_swarm::State;
use shoal_swarm::commit::{self, Committed};
use shoal_swarm::record::{
    Control, Derived, Input, Record, STATEMENT_KIND, ShardOutcome, Statement, WorkItem, run_id,
};
use shoal_swarm::refusal::Refusal;
use shoal_swarm::spec::{MergeSpec, MergeWire, Outer, Pace, StageFacts, SwarmSpec, Unwitnessed};
use shoal_swarm::state::{Cause, Cell, Phase, Signatures};
use shoal_swarm::verify;
use wire::{
    Direction, Envelope, Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, RunId, SigningKey, StageIndex,
};

mod miner;

pub(crate) use self::miner::Miner;

pub(crate) const TICK: u64 = 100;

/// splitmix64: small, seeded, the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub(crate) fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

pub(crate) fn spec(stages: usize, epochs: u32, micro_batches: u32) -> SwarmSpec {
    SwarmSpec {
        seed: 1,
        stages: vec![StageFacts { parameters: 300_000, flops_per_token: 1000 }; stages],
        tokens_per_micro_batch: 128,
        epochs,
        micro_batches_per_epoch: micro_batches,
        inner_steps: 3,
        pace: Pace::Async,
        miners_min: 1,
        validators_min: 0,
        epoch_deadline: Millis(60_000),
        lease_ttl: Millis(6_000),
        heartbeat: Millis(500),
        lost_after: Millis(2_500),
        merge: MergeSpec {
            deadline_min: Millis(10_000),
            deadline_max: Millis(20_000),
            unwitnessed: Unwitnessed::Accept,
            first_norm_bound: 0.0,
            outer: Outer::Identity,
            wire: MergeWire::F32,
        },
        audit_rate_ppm: 0,
    }
}

fn hash(parts: &[&[u8]]) -> Hash {
    Hash::of_parts("test", parts)
}

fn initial(stage: StageIndex) -> Hash {
    hash(&[b"initial", &stage.0.to_le_bytes()])
}

/// The statement with some bytes changed, if that is still a statement.
pub(crate) fn garble(random: &mut Random, statement: &Statement) -> Option<Statement> {
    let mut bytes = wire::to_bytes(statement);
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
    }
    wire::from_bytes(&bytes).ok()
}

/// A micro-batch under way.
struct Flight {
    micro_batch: MicroBatch,
    lease: LeaseId,
    mask: u64,
    granted: Millis,
    epoch: Epoch,
    hops: Vec<(NodeId, u32)>,
    back: Option<usize>,
}

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) log: Vec<(Millis, Vec<Record>)>,
    pub(crate) now: Millis,
    pub(crate) random: Random,
    pub(crate) miners: BTreeMap<NodeId, Miner>,
    flights: Vec<Flight>,
    pub(crate) run: RunId,
    pub(crate) keeper: bool,
    pub(crate) lag: u64,
    /// Miners whose statements are garbled half the time.
    pub(crate) liars: BTreeSet<NodeId>,
    /// Of the miners, those that are validators: they only live.
    pub(crate) validators: BTreeSet<NodeId>,
    /// What a codec in its shadow adds to the loss of what crosses by it.
    pub(crate) harm: f32,
    merged: BTreeMap<(MicroBatch, StageIndex), Epoch>,
    pub(crate) merged_total: u64,
    pub(crate) forfeited_total: u64,
    pub(crate) partial_total: u64,
    audited: Option<Epoch>,
}

pub(crate) fn genesis(spec: &SwarmSpec) -> (RunId, Control) {
    let run_spec = wire::to_bytes(spec);
    let run = run_id(&run_spec);
    let orchestrator = SigningKey::from_bytes(&[255; 32]).node_id();
    (run, Control::Genesis { spec: spec.clone(), run_spec, orchestrator })
}

impl World {
    pub(crate) fn new(spec: &SwarmSpec, miners: u64, seed: u64) -> Self {
        let (run, control) = genesis(spec);
        let now = Millis(1_000_000);
        let (state, records) = commit::genesis::<State>(run, now, control).unwrap();
        let miners = (0..miners).map(Miner::new_indexed).collect();
        Self {
            state,
            log: vec![(now, records)],
            now,
            random: Random(seed),
            miners,
            flights: Vec::new(),
            run,
            keeper: true,
            lag: 15,
            liars: BTreeSet::new(),
            validators: BTreeSet::new(),
            harm: 0.0,
            merged: BTreeMap::new(),
            merged_total: 0,
            forfeited_total: 0,
            partial_total: 0,
            audited: None,
        }
    }

    /// The orchestrator says what the initial weights are.
    pub(crate) fn keep_initial(&mut self) {
        let keeps = self.state.spec().stage_indices().map(|stage| {
            let states = vec![initial(stage)];
            Input::Control(Control::Keeps { epoch: Epoch(0), stage, states })
        });
        let committed = self.commit(keeps.collect());
        assert!(committed.outcomes.iter().all(Result::is_ok));
    }

    /// Miners wait for the orchestrator: their leases' own clocks stand still with it.
    pub(crate) fn pause_flights(&mut self, down: Millis) {
        for flight in &mut self.flights {
            flight.granted = flight.granted.plus(down);
        }
    }

    pub(crate) fn add(&mut self, index: u64) {
        let (id, miner) = Miner::new_indexed(index);
        self.miners.insert(id, miner);
    }

    /// Joins with the next ticks.
    pub(crate) fn add_validator(&mut self, index: u64) -> NodeId {
        let (id, miner) = Miner::new_indexed(index);
        self.miners.insert(id, miner);
        self.validators.insert(id);
        id
    }

    fn loss(&self, micro_batch: MicroBatch) -> f32 {
        let codec = self.state.codecs().of_epoch().filter(|codec| codec.shadow && self.harm > 0.0);
        let Some(codec) = codec else { return 2.0 };
        let drawn = codec.carries(&self.state.seed(), micro_batch, Direction::Forward);
        // Micro-batches differ.
        2.0 + (micro_batch.0 % 7) as f32 * 0.01 + if drawn { self.harm } else { 0.0 }
    }

    pub(crate) fn kill(&mut self, id: &NodeId) {
        if let Some(miner) = self.miners.get_mut(id) {
            miner.alive = false;
            miner.incarnation += 1;
            miner.forget();
        }
    }

    pub(crate) fn revive(&mut self, id: &NodeId) {
        if let Some(miner) = self.miners.get_mut(id) {
            miner.alive = true;
        }
    }

    pub(crate) fn living(&self) -> Vec<NodeId> {
        self.miners.values().filter(|miner| miner.alive).map(Miner::id).collect()
    }

    pub(crate) fn sign(&mut self, id: &NodeId, statement: &Statement) -> Input {
        let now = self.now;
        let miner = self.miners.get_mut(id).unwrap();
        miner.nonce += 1;
        let body = wire::to_bytes(statement);
        Input::Stated(Envelope::sign(&miner.key, self.run, STATEMENT_KIND, body, now, miner.nonce))
    }

    /// Commits a block and folds it into nothing else; checks what must hold after every block.
    pub(crate) fn commit(&mut self, inputs: Vec<Input>) -> Committed<State> {
        let committed = commit::commit(&mut self.state, self.now, inputs);
        assert!(self.state.due().is_none());
        if let Some(deadline) = self.state.next_deadline(self.now) {
            assert!(deadline > self.now, "{deadline:?} at {:?} in {:?}", self.now, self.state.phase());
            let mut later = self.state.clone();
            later.advance(Millis(deadline.0 - 1));
            assert_eq!(later.due(), None, "due before its deadline {deadline:?}");
        }
        if !committed.records.is_empty() {
            self.log.push((self.now, committed.records.clone()));
        }
        for record in &committed.records {
            let Record::Derived(derived) = record else { continue };
            self.follow(derived);
        }
        committed
    }

    fn follow(&mut self, derived: &Derived) {
        match derived {
            Derived::Leased { lease, node, micro_batches, grad_mask } => {
                let Some(granted) = self.state.leases().get(lease).map(|lease| lease.granted) else { return };
                let incarnation = self.miners[node].incarnation;
                self.flights.extend(micro_batches.iter().map(|micro_batch| Flight {
                    micro_batch: *micro_batch,
                    lease: *lease,
                    mask: *grad_mask,
                    granted,
                    epoch: self.state.epoch(),
                    hops: vec![(*node, incarnation)],
                    back: None,
                }));
            }
            Derived::Opened { .. } | Derived::Closed { .. } => self.flights.clear(),
            Derived::Manifest { .. } => {
                if let Phase::Gathering { .. } = self.state.phase() {
                    self.audit_epoch();
                }
            }
            Derived::Amended { stage, epoch, .. } => {
                self.merged.retain(|(_, s), e| !(s == stage && e == epoch));
            }
            _ => {}
        }
    }

    /// Every leased cell is in one final state, and the sums agree.
    fn audit_epoch(&mut self) {
        let state = &self.state;
        let epoch = state.work().epoch;
        if self.audited.replace(epoch) == Some(epoch) {
            return;
        }
        let coverage = state.coverage();
        let unfinished = (coverage.reopened, coverage.leased, coverage.accumulated, coverage.stepped);
        assert_eq!(unfinished, (0, 0, 0, 0), "cells without a final state in epoch {epoch}");
        for stage in state.spec().stage_indices() {
            let merge = state.merge(stage).unwrap();
            let outcomes = merge.manifest.as_ref().unwrap();
            assert_eq!(outcomes.len(), usize::from(merge.shard_count()));
            let settled = outcomes.iter().zip(&merge.inputs);
            let settled = settled.filter(|(outcome, _)| matches!(outcome, ShardOutcome::Settled { .. }));
            let mask = settled.fold(0, |mask, (_, bitmap)| mask | bitmap);
            let of_manifest: u32 = merge
                .set
                .iter()
                .enumerate()
                .filter(|(index, _)| mask >> index & 1 == 1)
                .map(|(_, upload)| upload.micro_batches)
                .sum();
            let mut cells = 0;
            for (id, path) in state.paths() {
                if let Cell::Merged { member } = path.cells[usize::from(stage.0)] {
                    assert_eq!(state.epoch_members()[usize::from(member)].member.stage, stage);
                    cells += 1;
                    let before = self.merged.insert((*id, stage), epoch);
                    assert_eq!(before, None, "{id:?} merged twice in {stage:?}");
                }
            }
            assert_eq!(cells, of_manifest);
        }
        self.merged_total += coverage.merged;
        self.partial_total += coverage.forfeited.get(&Cause::Partial).copied().unwrap_or(0);
        self.forfeited_total += coverage.forfeited.values().sum::<u64>();
    }

    /// One tick: flights move, miners speak, a block is made.
    pub(crate) fn tick(&mut self) {
        self.now = self.now.plus(Millis(TICK));
        self.fly();
        let mut inputs = Vec::new();
        let mut speakers = Vec::new();
        let mut ids = self.living();
        for at in (1..ids.len()).rev() {
            let other = self.random.below(at as u64 + 1) as usize;
            ids.swap(at, other);
        }
        for id in ids {
            if self.random.percent(self.lag) {
                continue;
            }
            if let Some(mut statement) = self.speak(&id) {
                if self.liars.contains(&id) && self.random.percent(50) {
                    statement = garble(&mut self.random, &statement).unwrap_or(statement);
                }
                inputs.push(self.sign(&id, &statement));
                speakers.push((id, statement));
            }
        }
        inputs.extend(self.keep());
        let committed = self.commit(inputs);
        for ((id, statement), outcome) in speakers.into_iter().zip(committed.outcomes) {
            let race = matches!(
                outcome,
                Err(Refusal::NotNow { .. }
                    | Refusal::NotMember
                    | Refusal::NotPresent
                    | Refusal::WrongEpoch { .. })
            );
            let liar = self.liars.contains(&id);
            assert!(outcome.is_ok() || race || liar, "{} refused: {:?}\n{statement:?}", id.short(), outcome);
            self.said(&id, statement, outcome.is_ok());
        }
    }

    fn keep(&mut self) -> Vec<Input> {
        let epoch = match self.state.phase() {
            Phase::Gathering { epoch, .. } if self.keeper && epoch > Epoch(0) => epoch,
            _ => return Vec::new(),
        };
        let mut keeps = Vec::new();
        for stage in self.state.spec().stage_indices() {
            let missing = self.state.stage(stage).is_some_and(|state| state.keeper.is_none());
            let source = self.state.ready_nodes(stage).find(|id| self.miners[id].alive);
            if let Some(source) = source.filter(|_| missing && self.random.percent(30)) {
                let states = self.miners[&source].disk.clone().unwrap().1;
                keeps.push(Input::Control(Control::Keeps { epoch, stage, states }));
            }
        }
        keeps
    }

    fn fly(&mut self) {
        let Phase::Training { epoch } = self.state.phase() else { return };
        let ttl = self.state.spec().lease_ttl.0 * 8 / 10;
        let tail = self.state.spec().stages.len() - 1;
        let mut flights = std::mem::take(&mut self.flights);
        flights.retain_mut(|flight| {
            if flight.epoch != epoch {
                return false;
            }
            if self.random.percent(20) {
                return true;
            }
            let there = |world: &Self, (node, incarnation): (NodeId, u32)| {
                world.miners.get(&node).is_some_and(|m| m.alive && m.incarnation == incarnation)
                    && world.state.is_live_member(&node)
            };
            let item = |direction, loss| WorkItem {
                micro_batch: flight.micro_batch,
                lease: flight.lease,
                direction,
                version: 0,
                loss,
            };
            let Some(at) = flight.back else {
                let here = *flight.hops.last().unwrap();
                if !there(self, here) {
                    return false;
                }
                let stage = flight.hops.len() - 1;
                let loss = (stage == tail).then(|| self.loss(flight.micro_batch));
                self.miners.get_mut(&here.0).unwrap().items.push(item(Direction::Forward, loss));
                if stage == tail {
                    flight.back = Some(tail);
                    return true;
                }
                let next = self.state.route(flight.micro_batch, StageIndex(stage as u16 + 1));
                let next = next.into_iter().find(|node| self.miners[node].alive);
                let Some(next) = next else { return false };
                flight.hops.push((next, self.miners[&next].incarnation));
                return true;
            };
            let here = flight.hops[at];
            // Nothing is added after the holder's share of the lease's time.
            if !there(self, here) || self.now.0 >= flight.granted.0 + ttl {
                return false;
            }
            let loss = (at == tail).then(|| self.loss(flight.micro_batch));
            let accumulate = self.state.member(&here.0).unwrap().member.accumulate as usize;
            let miner = self.miners.get_mut(&here.0).unwrap();
            miner.items.push(item(Direction::Backward, loss));
            if flight.mask >> at & 1 == 1 {
                miner.buffer.push((flight.micro_batch, flight.lease));
                if miner.buffer.len() >= accumulate {
                    miner.step();
                }
            }
            flight.back = at.checked_sub(1);
            flight.back.is_some()
        });
        self.flights = flights;
    }

    /// Replays the whole log and compares.
    pub(crate) fn verify(&self, signatures: Signatures) {
        let (time, records) = &self.log[0];
        let mut replayed = verify::start::<State>(self.run, *time, records).unwrap();
        for (time, records) in &self.log[1..] {
            verify::replay_with(&mut replayed, *time, records, |_| signatures).unwrap();
        }
        assert_eq!(replayed.digest(), self.state.digest());
        assert!(replayed == self.state);
    }

    /// The newest accepted statements.
    pub(crate) fn recent_statements(&self, count: usize) -> Vec<Envelope> {
        let records = self.log.iter().rev().flat_map(|(_, records)| records);
        let stated = records.filter_map(|record| match record {
            Record::Stated(envelope) => Some(envelope.clone()),
            _ => None,
        });
        stated.take(count).collect()
    }

    /// Whether some stage has nobody alive, so that the run can only wait.
    pub(crate) fn abandoned(&self) -> bool {
        self.state.spec().stage_indices().any(|stage| {
            !self.miners.values().any(|miner| {
                miner.alive && self.state.node(&miner.id()).is_none_or(|n| n.stage.is_none_or(|s| s == stage))
            })
        })
    }

    /// One tick; false once the run is over.
    pub(crate) fn tick_until_over(&mut self) -> bool {
        self.tick();
        assert!(self.log.len() < 100_000, "stuck in {:?}", self.state.phase());
        !matches!(self.state.phase(), Phase::Finished { .. })
    }

    /// Ticks until the run is over or `limit` of virtual time passed; true if it is over.
    pub(crate) fn run_for(&mut self, limit: Millis) -> bool {
        let end = self.now.plus(limit);
        while self.now < end {
            self.tick();
            if let Phase::Finished { .. } = self.state.phase() {
                return true;
            }
        }
        false
    }
}
