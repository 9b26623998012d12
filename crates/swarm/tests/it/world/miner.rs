//! A simulated miner: what it remembers, what it would say next, what it learns from the answer.

use std::collections::BTreeSet;

use shoal_swarm::record::{
    HaveShard, Join, Role, ShardClaim, ShardOutcome, Statement, StepCommit, Traffic, UploadCommit, Work,
    WorkItem, blind_hash, nonce_hash,
};
use shoal_swarm::state::{MergeStep, Phase, Presence, Standing};
use wire::{Epoch, Hash, LeaseId, MicroBatch, Millis, NodeId, SigningKey, StageIndex, Step};

use super::{World, hash, initial};

/// One simulated miner.
pub(crate) struct Miner {
    pub(crate) key: SigningKey,
    pub(crate) alive: bool,
    pub(crate) incarnation: u32,
    pub(super) joined: u32,
    pub(super) nonce: u64,
    pub(super) spoke: Millis,
    pub(super) asked: Millis,
    // Memory: gone with a restart.
    pub(super) epoch: Option<Epoch>,
    pub(super) items: Vec<WorkItem>,
    pub(super) steps: Vec<StepCommit>,
    pub(super) buffer: Vec<(MicroBatch, LeaseId)>,
    pub(super) steps_taken: u32,
    pub(super) reports: u32,
    pub(super) final_work: bool,
    pub(super) fetched: BTreeSet<(u16, NodeId)>,
    pub(super) have_sent: BTreeSet<u16>,
    pub(super) blinded: Vec<ShardClaim>,
    pub(super) results: BTreeSet<u16>,
    // Disk: stays.
    pub(super) disk: Option<(Epoch, Vec<Hash>)>,
}

impl Miner {
    pub(crate) fn new(seed: u64) -> Self {
        let mut secret = [0_u8; 32];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            key: SigningKey::from_bytes(&secret),
            alive: true,
            incarnation: 0,
            joined: 0,
            nonce: 0,
            spoke: Millis(0),
            asked: Millis(0),
            epoch: None,
            items: Vec::new(),
            steps: Vec::new(),
            buffer: Vec::new(),
            steps_taken: 0,
            reports: 0,
            final_work: false,
            fetched: BTreeSet::new(),
            have_sent: BTreeSet::new(),
            blinded: Vec::new(),
            results: BTreeSet::new(),
            disk: None,
        }
    }

    pub(super) fn new_indexed(index: u64) -> (NodeId, Self) {
        let miner = Self::new(index);
        (miner.id(), miner)
    }

    /// Takes an inner step on what it accumulated.
    pub(super) fn step(&mut self) {
        let items = std::mem::take(&mut self.buffer);
        self.steps.push(StepCommit { step: Step(self.steps_taken), items, clip: 1.0, weights_root: None });
        self.steps_taken += 1;
    }

    pub(super) fn report(&self) -> Work {
        Work {
            epoch: self.epoch.unwrap_or_default(),
            seq: self.reports,
            items: self.items.clone(),
            steps: self.steps.clone(),
            evidence: Hash::of(b"evidence"),
            busy: Millis(10 * self.items.len() as u64),
            hops: Vec::new(),
            traffic: Traffic { sent: 10, ..Traffic::default() },
            free: 0,
        }
    }

    pub(super) fn forget(&mut self) {
        self.epoch = None;
        self.items.clear();
        self.steps.clear();
        self.buffer.clear();
        self.steps_taken = 0;
        self.reports = 0;
        self.final_work = false;
        self.fetched.clear();
        self.have_sent.clear();
        self.blinded.clear();
        self.results.clear();
    }

    pub(crate) fn id(&self) -> NodeId {
        self.key.node_id()
    }
}

impl World {
    /// What a miner would say now.
    pub(super) fn speak(&mut self, id: &NodeId) -> Option<Statement> {
        let present = self.state.node(id).is_some_and(|node| node.presence == Presence::Present);
        let miner = self.miners.get_mut(id).unwrap();
        if !present || miner.joined != miner.incarnation {
            miner.forget();
            return Some(Statement::Join(Join {
                role: if self.validators.contains(id) { Role::Validator } else { Role::Miner },
                address: vec![1],
                agent: "test".into(),
                device: "cpu".into(),
                mflops: 100 + u64::from(id.0[0]) % 100,
                memory: 0,
                stage: None,
            }));
        }
        let live = self.state.is_live_member(id);
        let epoch = self.state.work().epoch;
        if live && miner.epoch != Some(epoch) {
            miner.forget();
            miner.epoch = Some(epoch);
        }
        let statement = match self.state.phase() {
            Phase::Training { .. } if live => self.train(id),
            Phase::Merging { .. } if live => self.merge(id),
            _ => None,
        };
        statement.or_else(|| self.ready(id)).or_else(|| {
            let miner = &self.miners[id];
            (self.now.since(miner.spoke) >= Millis(400)).then_some(Statement::Heartbeat)
        })
    }

    fn train(&mut self, id: &NodeId) -> Option<Statement> {
        let member = self.state.member(id)?.member;
        let miner = self.miners.get_mut(id)?;
        if !miner.items.is_empty() && self.random.percent(50) {
            return Some(Statement::Work(miner.report()));
        }
        let waiting: usize = self.state.leases_of(*id).map(|(_, lease)| lease.micro_batches.len()).sum();
        (member.stage == StageIndex(0) && waiting < 4 && self.now.since(miner.asked) >= Millis(500))
            .then_some(Statement::LeaseRequest { epoch: self.state.work().epoch, want: 4 })
    }

    fn merge(&mut self, id: &NodeId) -> Option<Statement> {
        let work = self.state.member(id)?;
        let (accumulate, steps, stage) = (work.member.accumulate as usize, work.steps, work.member.stage);
        let stepped = work.stepped;
        let merge = self.state.merge(stage)?;
        let epoch = merge.epoch;
        let nonce = hash(&[&id.0, &epoch.0.to_le_bytes()]);
        match merge.step {
            MergeStep::Commit => {
                let miner = self.miners.get_mut(id)?;
                if !miner.final_work {
                    if miner.buffer.len() * 2 >= accumulate && !miner.buffer.is_empty() {
                        miner.step();
                    }
                    return Some(Statement::Work(miner.report()));
                }
                (stepped > 0 && !merge.commits.contains_key(id)).then(|| {
                    Statement::Upload(UploadCommit {
                        epoch,
                        base: Hash::of(b"base"),
                        upload: hash(&[b"upload", &id.0, &epoch.0.to_le_bytes()]),
                        residual: Hash::of(b"r"),
                        nonce_commit: nonce_hash(&nonce),
                        steps,
                    })
                })
            }
            MergeStep::Reveal => {
                let said = self.miners[id].blinded.iter().any(|claim| claim.shard == u16::MAX);
                (merge.committed.contains(id) && !said).then_some(Statement::Reveal { epoch, nonce })
            }
            MergeStep::Fetch => self.fetch(id, stage),
            MergeStep::Claim => {
                if self.miners[id].blinded.iter().any(|claim| claim.shard != u16::MAX) {
                    return None;
                }
                let claims =
                    self.claims(id, stage, |world, shard| world.state.owners(stage, shard).contains(id));
                let hash = blind_hash(id, &nonce, &claims);
                (!claims.is_empty()).then(|| {
                    self.miners.get_mut(id).unwrap().blinded = claims;
                    Statement::Blind { epoch, hash }
                })
            }
            MergeStep::Check => self.check(id, stage, nonce),
            MergeStep::Done => None,
        }
    }

    fn fetch(&mut self, id: &NodeId, stage: StageIndex) -> Option<Statement> {
        let merge = self.state.merge(stage)?.clone();
        merge.position(id)?;
        let late = self.now >= Millis(merge.clock.at(50).0 - 1_000);
        let mut shards = Vec::new();
        for shard in self.state.owned_shards(stage, id) {
            let mut all = true;
            let mut have = HaveShard { shard, bitmap: 0, square_sums: vec![0.0; merge.set.len()] };
            for (index, upload) in merge.set.iter().enumerate() {
                let source = upload.node == *id
                    || self.miners[&upload.node].alive && self.state.is_live_member(&upload.node);
                let fetched = self.miners[id].fetched.contains(&(shard, upload.node));
                if fetched || source && self.random.percent(40) {
                    self.miners.get_mut(id)?.fetched.insert((shard, upload.node));
                    have.bitmap |= 1 << index;
                    have.square_sums[index] = 1.0 + index as f64;
                } else if self.state.is_live_member(&upload.node) {
                    all = false;
                }
            }
            let sent = self.miners[id].have_sent.contains(&shard);
            if (all && !sent) || (late && self.random.percent(20)) {
                shards.push(have);
            }
        }
        (!shards.is_empty()).then_some(Statement::Have { epoch: merge.epoch, shards })
    }

    /// Claims on the shards chosen whose inputs somebody alive still has.
    fn claims(&self, id: &NodeId, stage: StageIndex, chosen: impl Fn(&Self, u16) -> bool) -> Vec<ShardClaim> {
        let merge = self.state.merge(stage).unwrap();
        let can = |shard: u16| {
            merge.set.iter().enumerate().filter(|(i, _)| merge.inputs[usize::from(shard)] >> i & 1 == 1).all(
                |(_, upload)| {
                    self.miners[id].fetched.contains(&(shard, upload.node))
                        || self.miners.values().any(|m| {
                            m.alive && (m.id() == upload.node || m.fetched.contains(&(shard, upload.node)))
                        })
                },
            )
        };
        (0..merge.shard_count())
            .filter(|shard| merge.inputs[usize::from(*shard)] != 0 && chosen(self, *shard) && can(*shard))
            .map(|shard| {
                let inputs = merge.inputs[usize::from(shard)].to_le_bytes();
                let result = hash(&[&merge.seed.0, &shard.to_le_bytes(), &inputs]);
                ShardClaim { shard, result, state: hash(&[b"state", &result.0]) }
            })
            .collect()
    }

    fn check(&mut self, id: &NodeId, stage: StageIndex, nonce: Hash) -> Option<Statement> {
        let merge = self.state.merge(stage)?;
        let epoch = merge.epoch;
        let claimed = |shard: u16| merge.shards[usize::from(shard)].claims.iter().any(|(node, _)| node == id);
        let blinded = self.miners[id].blinded.clone();
        if blinded.iter().any(|claim| claim.shard != u16::MAX && !claimed(claim.shard)) {
            return Some(Statement::Claims { epoch, nonce, shards: blinded });
        }
        let asked = self.claims(id, stage, |_, shard| {
            merge.shards[usize::from(shard)].referred.iter().any(|(node, _)| node == id) && !claimed(shard)
        });
        if !asked.is_empty() {
            return Some(Statement::Claims { epoch, nonce: Hash([0; 32]), shards: asked });
        }
        let settles = |shard: &u16| matches!(self.state.standing(stage, *shard), Standing::Settles { .. });
        let sources = |shard: &u16| {
            let view = &merge.shards[usize::from(*shard)];
            let nodes = view.claims.iter().map(|(node, _)| node).chain(&view.holders);
            nodes.into_iter().any(|node| self.miners[node].alive)
        };
        let shards: Vec<u16> = (0..merge.shard_count())
            .filter(|shard| !claimed(*shard) && !self.miners[id].results.contains(shard))
            .filter(|shard| settles(shard) && sources(shard))
            .collect();
        (!shards.is_empty() && self.random.percent(60)).then_some(Statement::Holds { epoch, shards })
    }

    /// Catches up, or applies a manifest, and says so.
    fn ready(&mut self, id: &NodeId) -> Option<Statement> {
        let node = self.state.node(id)?;
        let stage = node.stage?;
        let said = node.ready.as_ref().map(|ready| ready.epoch);
        let state = self.state.stage(stage)?;
        let agreed = |world: &Self| world.state.stage(stage).and_then(|state| state.agreed.clone());
        let on = match self.state.phase() {
            Phase::Gathering { epoch: Epoch(0), .. } => {
                let disk = (Epoch(0), vec![initial(stage)]);
                self.miners.get_mut(id)?.disk = Some(disk);
                return self.say_ready(id, Epoch(0), said);
            }
            Phase::Training { epoch } | Phase::Merging { epoch } => epoch,
            Phase::Gathering { epoch, .. } => Epoch(epoch.0 - 1),
            Phase::Finished { .. } => return None,
        };
        let merge =
            self.state.merge(stage).filter(|merge| merge.epoch == on && merge.step == MergeStep::Done);
        let Some(merge) = merge else {
            // Training, or merging: a node that is no member catches up to what the epoch opened with.
            if self.state.is_live_member(id) {
                return None;
            }
            if self.random.percent(20) {
                self.miners.get_mut(id)?.disk = Some((on, agreed(self)?));
            }
            return self.say_ready(id, on, said);
        };
        let next = on.next();
        let held = self.miners[id].disk.clone();
        let wanted: Option<Vec<Hash>> = state.wanted.iter().copied().collect();
        let manifest = merge.manifest.as_ref()?;
        let unchanged = state.unchanged;
        let has_old = held
            .as_ref()
            .is_some_and(|(epoch, states)| *epoch == on && Some(states) == agreed(self).as_ref());
        let has_new = held.as_ref().is_some_and(|(epoch, states)| {
            *epoch == next && wanted.as_ref().is_none_or(|wanted| wanted == states)
        });
        if !has_new {
            let available = |(shard, outcome): (usize, &ShardOutcome)| match outcome {
                ShardOutcome::Kept => true,
                ShardOutcome::Settled { .. } => {
                    let view = &merge.shards[shard];
                    let nodes = view.claims.iter().map(|(node, _)| node).chain(&view.holders);
                    nodes.into_iter().any(|node| self.miners[node].alive && self.state.is_live_member(node))
                }
            };
            let states = if unchanged && has_old {
                agreed(self)?
            } else if has_old && manifest.iter().enumerate().all(available) {
                let old = wire::to_bytes(&agreed(self)?);
                let shards = manifest.len() as u16;
                (0..shards)
                    .zip(manifest)
                    .map(|(shard, outcome)| match outcome {
                        ShardOutcome::Settled { state, .. } => *state,
                        ShardOutcome::Kept => {
                            hash(&[b"kept", &old, &shard.to_le_bytes(), &shards.to_le_bytes()])
                        }
                    })
                    .collect()
            } else if unchanged {
                agreed(self)?
            } else if let Some(kept) = state.keeper.clone() {
                kept
            } else {
                let source = self.state.ready_nodes(stage).find(|node| self.miners[node].alive)?;
                self.miners[&source].disk.clone()?.1
            };
            if !self.random.percent(50) {
                return None;
            }
            self.miners.get_mut(id)?.disk = Some((next, states));
        }
        self.say_ready(id, next, said)
    }

    fn say_ready(&self, id: &NodeId, epoch: Epoch, said: Option<Epoch>) -> Option<Statement> {
        let (held, states) = self.miners[id].disk.clone()?;
        (held == epoch && said.is_none_or(|said| said < epoch)).then_some(Statement::Ready {
            epoch,
            states,
            traffic: Traffic::default(),
        })
    }

    /// A miner learns what became of its statement.
    pub(super) fn said(&mut self, id: &NodeId, statement: Statement, accepted: bool) {
        let now = self.now;
        let closed = self.state.work().closed.is_some();
        let miner = self.miners.get_mut(id).unwrap();
        if !accepted {
            if let Statement::Blind { .. } = statement {
                miner.blinded.clear();
            }
            return;
        }
        miner.spoke = now;
        match statement {
            Statement::Work(work) => {
                miner.reports += 1;
                miner.items.drain(..work.items.len().min(miner.items.len()));
                miner.steps.drain(..work.steps.len().min(miner.steps.len()));
                miner.final_work = closed && miner.items.is_empty() && miner.steps.is_empty();
            }
            Statement::LeaseRequest { .. } => miner.asked = now,
            Statement::Reveal { .. } => {
                let zero = Hash([0; 32]);
                miner.blinded = vec![ShardClaim { shard: u16::MAX, result: zero, state: zero }];
            }
            Statement::Have { shards, .. } => miner.have_sent.extend(shards.iter().map(|have| have.shard)),
            Statement::Holds { shards, .. } => miner.results.extend(shards),
            Statement::Join(_) => miner.joined = miner.incarnation,
            _ => {}
        }
    }
}
