//! Inputs: checked in full first, then folded. What is refused changes nothing.

use wire::{Envelope, Epoch, Hash, Millis, NodeId, StageIndex, limits as wire_limits};

use super::node::{Node, Presence, Ready, Verdicts};
use super::summary::HeldOutLoss;
use super::work::Cause;
use super::{MergeStep, Phase, State};
use crate::limits;
use crate::record::{
    Control, Input, Join, Outcome, Record, Role, STATEMENT_KIND, Statement, Traffic, Verdict,
};
use crate::refusal::Refusal;

/// Whether an envelope's signature is checked: always where it enters, by sample where a log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// Check.
    Check,
    /// The log's own signature vouches for it.
    Trust,
}

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
    /// Whether an input would be accepted now.
    pub fn check(&self, input: &Input) -> Result<(), Refusal> {
        self.decide(input, Signatures::Check).map(|_| ())
    }

    /// Folds an input, or refuses it and stays as it is.
    pub fn accept(&mut self, input: &Input) -> Result<(), Refusal> {
        self.accept_with(input, Signatures::Check)
    }

    /// [`State::accept`], for replays of logs.
    pub fn accept_with(&mut self, input: &Input, signatures: Signatures) -> Result<(), Refusal> {
        let statement = self.decide(input, signatures)?;
        self.block_start = false;
        self.chain(&Record::from(input.clone()));
        match (input, statement) {
            (Input::Stated(envelope), Some(statement)) => {
                self.fold(envelope.sender, statement);
                if let Some(node) = self.nodes.get_mut(&envelope.sender) {
                    node.seen = self.now;
                    node.last = (envelope.time, envelope.nonce);
                    node.last_hash = envelope.hash();
                }
            }
            (Input::Control(control), _) => self.fold_control(control),
            (Input::Stated(_), None) => {}
        }
        Ok(())
    }

    fn decide(&self, input: &Input, signatures: Signatures) -> Result<Option<Statement>, Refusal> {
        match input {
            Input::Control(control) => self.check_control(control).map(|()| None),
            Input::Stated(envelope) => {
                let statement = self.open(envelope, signatures)?;
                self.check_statement(&envelope.sender, &statement)?;
                Ok(Some(statement))
            }
        }
    }

    fn open(&self, envelope: &Envelope, signatures: Signatures) -> Result<Statement, Refusal> {
        let known = self.nodes.get(&envelope.sender);
        if known.is_some_and(|node| node.last_hash == envelope.hash()) {
            return Err(Refusal::Duplicate);
        }
        if envelope.kind != STATEMENT_KIND {
            return Err(Refusal::Kind { kind: envelope.kind });
        }
        match signatures {
            Signatures::Check => envelope.verify(&self.run)?,
            Signatures::Trust if envelope.run == self.run => {}
            Signatures::Trust => {
                let error = wire::EnvelopeError::WrongRun { theirs: envelope.run, ours: self.run };
                return Err(error.into());
            }
        }
        if let Some(node) = known.filter(|node| (envelope.time, envelope.nonce) <= node.last) {
            return Err(Refusal::NotNewer { last: node.last.0 });
        }
        let age = self.now.since(envelope.time).0.max(envelope.time.since(self.now).0);
        if age > wire_limits::ENVELOPE_SKEW_MS {
            return Err(Refusal::Stale { theirs: envelope.time, ours: self.now });
        }
        wire::from_bytes(&envelope.body).map_err(|error| Refusal::Malformed { reason: error.to_string() })
    }

    fn check_control(&self, control: &Control) -> Result<(), Refusal> {
        match control {
            Control::Genesis { .. } => Err(Refusal::Begun),
            Control::Resumed { down } => {
                let refuse = |what: &str| Err(Refusal::NotResumed { what: what.to_owned() });
                match () {
                    () if self.complete() => refuse("the run is over"),
                    () if !self.block_start => refuse("only as the first record of a block"),
                    () if *down > self.now.since(self.before) => refuse("claims more time than passed"),
                    () => Ok(()),
                }
            }
            Control::Drain if self.draining || matches!(self.phase, Phase::Finished { .. }) => {
                Err(Refusal::Repeated { what: "drain".to_owned() })
            }
            Control::Drain => Ok(()),
            Control::Keeps { epoch, stage, states } => {
                if self.upcoming(*stage) != Some(*epoch) {
                    return Err(not_now("no manifest of this stage for this epoch"));
                }
                self.check_states(*stage, states)
            }
        }
    }

    fn fold_control(&mut self, control: &Control) {
        match control {
            Control::Genesis { .. } => {}
            Control::Resumed { down } => self.resume(*down),
            Control::Drain => self.draining = true,
            Control::Keeps { epoch, stage, states } => {
                if let Some(state) = self.stages.get_mut(usize::from(stage.0)) {
                    if *epoch == Epoch(0) {
                        state.wanted = states.iter().copied().map(Some).collect();
                    }
                    state.keeper = Some(states.clone());
                }
            }
        }
    }

    /// Moves every open deadline by the time that nobody served (protocol §6 "Restart").
    fn resume(&mut self, down: Millis) {
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
        self.quiet_until = self.now.plus(Millis(quiet));
    }

    /// Epoch that a stage's replicas may be ready for: after its manifest, the next one.
    fn upcoming(&self, stage: StageIndex) -> Option<Epoch> {
        match self.phase {
            Phase::Gathering { epoch, .. } => Some(epoch),
            Phase::Merging { epoch } => {
                self.merge(stage).filter(|merge| merge.step == MergeStep::Done).map(|_| epoch.next())
            }
            Phase::Training { .. } | Phase::Finished { .. } => None,
        }
    }

    fn check_states(&self, stage: StageIndex, states: &[Hash]) -> Result<(), Refusal> {
        let Some(state) = self.stage(stage) else { return Err(Refusal::UnknownStage { stage }) };
        equal_states(states, state.wanted.iter().copied())
    }

    fn check_statement(&self, sender: &NodeId, statement: &Statement) -> Result<(), Refusal> {
        if let Statement::Join(join) = statement {
            return self.check_join(sender, join);
        }
        let Some(node) = self.nodes.get(sender).filter(|node| node.present()) else {
            return Err(Refusal::NotPresent);
        };
        let role = match statement {
            Statement::Verdict(_) | Statement::HeldOut { .. } => Some(Role::Validator),
            Statement::Leave | Statement::Heartbeat | Statement::Join(_) => None,
            _ => Some(Role::Miner),
        };
        if role.is_some_and(|role| role != node.join.role) {
            return Err(Refusal::WrongRole);
        }
        match statement {
            Statement::Join(_) | Statement::Leave | Statement::Heartbeat => Ok(()),
            Statement::LeaseRequest { epoch, want } => self.check_lease_request(sender, *epoch, *want),
            Statement::Work(work) => self.check_work(sender, work),
            Statement::Squares { epoch, step, sums } => self.check_squares(sender, *epoch, *step, sums),
            Statement::Ready { epoch, states } => self.check_ready(node, *epoch, states),
            Statement::Verdict(verdict) => self.check_verdict(verdict),
            Statement::HeldOut { epoch, loss, tokens } => self.check_held_out(sender, *epoch, *loss, *tokens),
            Statement::Upload(_)
            | Statement::Reveal { .. }
            | Statement::Have { .. }
            | Statement::Blind { .. }
            | Statement::Claims { .. }
            | Statement::Holds { .. } => self.check_merge(sender, statement),
        }
    }

    fn check_join(&self, sender: &NodeId, join: &Join) -> Result<(), Refusal> {
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

    fn check_ready(&self, node: &Node, epoch: Epoch, states: &[Hash]) -> Result<(), Refusal> {
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

    fn check_verdict(&self, verdict: &Verdict) -> Result<(), Refusal> {
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

    fn check_held_out(&self, sender: &NodeId, epoch: Epoch, loss: f32, tokens: u64) -> Result<(), Refusal> {
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

    /// Folds a statement that was checked.
    fn fold(&mut self, sender: NodeId, statement: Statement) {
        match statement {
            Statement::Join(join) => self.fold_join(sender, join),
            Statement::Leave => self.depart(&sender, Presence::Left, Cause::Left),
            Statement::Heartbeat => {}
            Statement::LeaseRequest { want, .. } => {
                self.work.wants.insert(sender, want);
            }
            Statement::Work(work) => self.fold_work(&sender, &work),
            Statement::Squares { step, sums, .. } => {
                if let Some(stage) = self.work.get(&sender).map(|work| work.member.stage) {
                    self.work.squares.entry(step).or_default().insert(stage, sums);
                }
            }
            Statement::Ready { epoch, states } => {
                if let Some(node) = self.nodes.get_mut(&sender) {
                    node.ready = Some(Ready { epoch, states });
                }
            }
            Statement::Verdict(verdict) => {
                if let Some(node) = self.nodes.get_mut(&verdict.node) {
                    node.verdicts.add(verdict.outcome);
                }
            }
            Statement::HeldOut { epoch, loss, tokens } => {
                self.held_out.entry(epoch).or_default().insert(sender, HeldOutLoss { loss, tokens });
                while self.held_out.len() > limits::SUMMARIES_MAX {
                    self.held_out.pop_first();
                }
            }
            merge => self.fold_merge(sender, merge),
        }
    }

    fn fold_join(&mut self, sender: NodeId, join: Join) {
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
                presence: Presence::Present,
                ready: None,
                join,
                ..old
            },
            None => Node {
                join,
                stage: None,
                presence: Presence::Present,
                seen: self.now,
                last: (Millis(0), 0),
                last_hash: Hash([0; 32]),
                ready: None,
                measured: None,
                strikes: 0,
                merged: 0,
                verdicts: Verdicts::default(),
                busy: 0,
                failed: 0,
                traffic: Traffic::default(),
            },
        };
        self.nodes.insert(sender, node);
    }

    /// Whether another stage has nobody while `stage` has somebody.
    fn needed_elsewhere(&self, stage: StageIndex) -> bool {
        let anyone = |stage: StageIndex| {
            self.nodes.values().any(|node| node.present_miner() && node.stage == Some(stage))
        };
        anyone(stage) && self.spec.stage_indices().any(|other| !anyone(other))
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
    fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Pass => &mut self.pass,
            Outcome::Fail => &mut self.fail,
            Outcome::OtherClass => &mut self.other_class,
            Outcome::NotOpened => &mut self.not_opened,
        };
        *count += 1;
    }
}
