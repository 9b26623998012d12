//! Inputs: checked in full first, then folded. What is refused changes nothing.

use std::collections::BTreeSet;

use wire::{Epoch, Hash, Millis, NodeId, StageIndex};

use super::node::{Node, Presence, Verdicts};
use super::work::Cause;
use super::{MergeStep, Phase, State};
use crate::limits;
use crate::record::{Join, Outcome, Role, Traffic, Verdict};
use crate::refusal::Refusal;

pub(super) fn not_now(what: &str) -> Refusal {
    Refusal::NotNow { what: what.to_owned() }
}

pub(super) fn limit(what: &str, found: usize, limit: usize) -> Result<(), Refusal> {
    if found <= limit {
        return Ok(());
    }
    Err(Refusal::OverLimit { what: what.to_owned(), found: found as u64, limit: limit as u64 })
}

pub(super) fn require(good: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if good { Ok(()) } else { Err(refusal()) }
}

pub(super) fn number(what: &str, good: bool) -> Result<(), Refusal> {
    if good { Ok(()) } else { Err(Refusal::Number { what: what.to_owned() }) }
}

impl State {
    /// Moves every open deadline by the time that nobody served (protocol §6 "Restart").
    pub(super) fn resume(&mut self, down: Millis) {
        // Whoever starts a drained run again wants it to go on.
        self.draining = false;
        let later = |at: &mut Millis| *at = at.plus(down);
        self.nodes.values_mut().filter(|node| node.present()).for_each(|node| later(&mut node.seen));
        later(&mut self.work.deadline);
        for lease in self.work.leases.values_mut() {
            later(&mut lease.granted);
            later(&mut lease.expires);
        }
        for merge in &mut self.merges {
            later(&mut merge.clock.closed);
            later(&mut merge.claims_due);
            merge.shards.iter_mut().flat_map(|shard| &mut shard.referred).for_each(|(_, at)| later(at));
        }
        if let Phase::Gathering { until, .. } = &mut self.phase {
            later(until);
        }
        if let Phase::Finished { epochs } = self.phase {
            self.reopen(epochs);
        }
        let quiet = self.spec.heartbeat.0.saturating_mul(limits::RESUME_HEARTBEATS);
        self.quiet_until = self.tip.now().plus(Millis(quiet));
    }

    /// Epoch that a stage's replicas may be ready for: after its manifest, the next one.
    pub(super) fn upcoming(&self, stage: StageIndex) -> Option<Epoch> {
        match self.phase {
            Phase::Gathering { epoch, .. } => Some(epoch),
            Phase::Merging { epoch } => {
                self.merge(stage).filter(|merge| merge.step == MergeStep::Done).map(|_| epoch.next())
            }
            Phase::Training { .. } | Phase::Finished { .. } => None,
        }
    }

    pub(super) fn check_states(&self, stage: StageIndex, states: &[Hash]) -> Result<(), Refusal> {
        let Some(state) = self.stage(stage) else { return Err(Refusal::UnknownStage { stage }) };
        equal_states(states, state.wanted.iter().copied())
    }

    pub(super) fn check_join(&self, sender: &NodeId, join: &Join) -> Result<(), Refusal> {
        if let Phase::Finished { .. } = self.phase {
            return Err(not_now("the run is over"));
        }
        limit("address bytes", join.address.len(), limits::ADDRESS_BYTES)?;
        limit("agent bytes", join.agent.len(), limits::NAME_BYTES)?;
        limit("device bytes", join.device.len(), limits::NAME_BYTES)?;
        if !self.nodes.contains_key(sender) && self.nodes.len() >= limits::NODES_MAX {
            return Err(Refusal::Full);
        }
        if join.role == Role::Validator {
            return Ok(());
        }
        let mut candidates = 0..self.stage_count();
        if let Some(stage) = join.stage {
            if usize::from(stage.0) >= self.stage_count() {
                return Err(Refusal::UnknownStage { stage });
            }
            candidates = usize::from(stage.0)..usize::from(stage.0) + 1;
        }
        if candidates.clone().any(|stage| self.fits(join.memory, stage)) {
            return Ok(());
        }
        let smallest = candidates.map(|stage| self.spec.stages[stage].parameters).min().unwrap_or(0);
        let needed = smallest.saturating_mul(limits::STATE_BYTES_PER_PARAMETER);
        Err(Refusal::Memory { memory: join.memory, needed })
    }

    pub(super) fn check_epoch(&self, epoch: Epoch) -> Result<(), Refusal> {
        match self.is_current(epoch) {
            true => Ok(()),
            false if epoch == self.epoch() || epoch == self.work.epoch => Err(not_now("no epoch is on")),
            false => Err(Refusal::WrongEpoch { theirs: epoch, ours: self.epoch() }),
        }
    }

    pub(super) fn check_ready(&self, node: &Node, epoch: Epoch, states: &[Hash]) -> Result<(), Refusal> {
        let Some(stage) = node.stage else { return Err(not_now("no stage assigned")) };
        if node.ready.as_ref().is_some_and(|ready| ready.epoch >= epoch) {
            return Err(Refusal::Repeated { what: format!("ready for epoch {epoch}") });
        }
        if self.upcoming(stage) == Some(epoch) {
            return self.check_states(stage, states);
        }
        // Caught up during an epoch that it is no member of: it follows the merge from here.
        let agreed = self.stage(stage).and_then(|state| state.agreed.as_ref());
        match (self.phase, agreed) {
            (Phase::Training { epoch: on } | Phase::Merging { epoch: on }, Some(agreed)) if on == epoch => {
                equal_states(states, agreed.iter().copied().map(Some))
            }
            (Phase::Finished { .. }, _) => Err(not_now("the run is over")),
            _ => Err(Refusal::WrongEpoch { theirs: epoch, ours: self.epoch() }),
        }
    }

    pub(super) fn check_verdict(&self, verdict: &Verdict) -> Result<(), Refusal> {
        limit("device bytes", verdict.device.len(), limits::NAME_BYTES)?;
        if verdict.epoch > self.epoch() || verdict.epoch.0 + 1 < self.work.epoch.0 {
            return Err(Refusal::WrongEpoch { theirs: verdict.epoch, ours: self.epoch() });
        }
        if verdict.epoch == self.work.epoch {
            self.check_micro_batch(verdict.micro_batch)?;
        }
        let miner = self.nodes.get(&verdict.node).is_some_and(|node| node.join.role == Role::Miner);
        if miner { Ok(()) } else { Err(Refusal::UnknownNode { node: verdict.node }) }
    }

    pub(super) fn check_held_out(
        &self,
        sender: &NodeId,
        epoch: Epoch,
        loss: f32,
        tokens: u64,
    ) -> Result<(), Refusal> {
        if epoch > self.epoch() || epoch.0.saturating_add(limits::HISTORY as u32) < self.epoch().0 {
            return Err(Refusal::WrongEpoch { theirs: epoch, ours: self.epoch() });
        }
        number("loss", (0.0..=limits::LOSS_MAX).contains(&loss))?;
        number("tokens", tokens > 0)?;
        if self.held_out.get(&epoch).is_some_and(|losses| losses.contains_key(sender)) {
            return Err(Refusal::Repeated { what: format!("held-out loss of epoch {epoch}") });
        }
        Ok(())
    }

    pub(super) fn fold_join(&mut self, sender: NodeId, join: Join) {
        // A node that joins again has restarted: what it had in memory is gone.
        self.depart(&sender, Presence::Lost, Cause::Lost);
        let old = self.nodes.remove(&sender);
        let stage_of = |node: &Node| node.stage.filter(|_| join.role == Role::Miner);
        let kept = old.as_ref().and_then(stage_of).filter(|stage| {
            let wished = join.stage.is_none_or(|wish| wish == *stage);
            wished && self.fits(join.memory, usize::from(stage.0)) && !self.needed_elsewhere(*stage)
        });
        let node = match old {
            Some(old) => Node {
                stage: kept,
                measured: old.measured.filter(|_| kept.is_some()),
                codecs: BTreeSet::new(),
                presence: Presence::Present,
                ready: None,
                join,
                ..old
            },
            None => Node {
                join,
                stage: None,
                presence: Presence::Present,
                seen: self.tip.now(),
                last: None,
                ready: None,
                measured: None,
                strikes: 0,
                merged: 0,
                verdicts: Verdicts::default(),
                busy: 0,
                failed: 0,
                traffic: Traffic::default(),
                codecs: BTreeSet::new(),
            },
        };
        self.nodes.insert(sender, node);
    }

    /// Whether another stage has nobody while `stage` has somebody; before the first opening, whether it has too few for that
    /// while `stage` has enough.
    fn needed_elsewhere(&self, stage: StageIndex) -> bool {
        let count = |stage: StageIndex| {
            self.nodes.values().filter(|node| node.present_miner() && node.stage == Some(stage)).count()
        };
        let first = matches!(self.phase, Phase::Gathering { epoch: Epoch(0), .. });
        let (here, enough) = (count(stage), usize::from(if first { self.spec.miners_min } else { 1 }));
        let others = self.spec.stage_indices().map(count).min().unwrap_or(0);
        (here > 0 && others == 0) || (here >= enough && others < enough)
    }
}

fn equal_states(theirs: &[Hash], wanted: impl ExactSizeIterator<Item = Option<Hash>>) -> Result<(), Refusal> {
    if theirs.len() != wanted.len() {
        let (found, expected) = (theirs.len() as u64, wanted.len() as u64);
        return Err(Refusal::Length { what: "states".to_owned(), found, expected });
    }
    for (shard, (state, wanted)) in theirs.iter().zip(wanted).enumerate() {
        if let Some(agreed) = wanted.filter(|wanted| wanted != state) {
            return Err(Refusal::UnequalState { shard: shard as u16, agreed });
        }
    }
    Ok(())
}

impl Verdicts {
    pub(super) fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Pass => &mut self.pass,
            Outcome::Fail => &mut self.fail,
            Outcome::OtherClass => &mut self.other_class,
            Outcome::NotOpened => &mut self.not_opened,
        };
        *count += 1;
    }
}
