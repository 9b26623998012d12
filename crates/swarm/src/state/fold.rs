//! The state as a fold of its log: what it takes, what follows from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ledger::Fold;
use ledger::fold::{Last, Tip};
use wire::{Envelope, Epoch, Millis, NodeId, RunId};

use super::accept::not_now;
use super::codec::Codecs;
use super::node::{Presence, Ready};
use super::summary::{HeldOutLoss, Totals};
use super::work::{Cause, EpochWork};
use super::{GenesisError, Node, Phase, StageState, State};
use crate::limits;
use crate::record::{Control, Derived, Role, STATEMENT_KIND, Statement, run_id};
use crate::refusal::Refusal;

impl Fold for State {
    type Control = Control;
    type Statement = Statement;
    type Derived = Derived;
    type Refusal = Refusal;
    type GenesisError = GenesisError;

    const STATEMENT_KIND: u16 = STATEMENT_KIND;

    fn genesis(run: RunId, control: &Control) -> Result<Self, GenesisError> {
        let Control::Genesis { spec, run_spec, orchestrator } = control else {
            return Err(GenesisError::NotGenesis);
        };
        let theirs = run_id(run_spec);
        if theirs != run {
            return Err(GenesisError::WrongRun { theirs, ours: run });
        }
        spec.check()?;
        let stage = StageState {
            agreed: None,
            wanted: vec![None],
            keeper: None,
            unchanged: false,
            norms: VecDeque::new(),
        };
        Ok(Self {
            tip: Tip::genesis(run, *orchestrator, control),
            spec: spec.clone(),
            quiet_until: Millis(0),
            phase: Phase::Gathering { epoch: Epoch(0), until: Millis(0) },
            draining: false,
            nodes: BTreeMap::new(),
            next_micro_batch: 0,
            pool: BTreeSet::new(),
            next_lease: 0,
            work: EpochWork::idle(),
            merges: Vec::new(),
            stages: vec![stage; spec.stages.len()],
            merge_times: VecDeque::new(),
            summaries: VecDeque::new(),
            held_out: BTreeMap::new(),
            totals: Totals::default(),
            codecs: Codecs::default(),
        })
    }

    fn tip(&self) -> &Tip {
        &self.tip
    }

    fn tip_mut(&mut self) -> &mut Tip {
        &mut self.tip
    }

    fn next_deadline(&self, now: Millis) -> Option<Millis> {
        if let Phase::Finished { .. } = self.phase {
            return None;
        }
        let silence = |node: &Node| node.present().then(|| node.seen.plus(self.spec.lost_after));
        let lost = self.nodes.values().filter_map(silence);
        let fires = lost.chain(self.phase_deadlines()).map(|at| at.max(self.quiet_until));
        fires.filter(|at| *at > now.max(self.tip.now())).min()
    }

    fn resumed(down: Millis) -> Control {
        Control::Resumed { down }
    }

    fn resumes(control: &Control) -> bool {
        matches!(control, Control::Resumed { .. })
    }

    fn last(&self, sender: &NodeId) -> Option<Last> {
        self.nodes.get(sender).and_then(|node| node.last)
    }

    fn check_control(&self, control: &Control) -> Result<(), Refusal> {
        match control {
            Control::Genesis { .. } => Err(Refusal::Begun),
            Control::Resumed { down } => {
                let refuse = |what: &str| Err(Refusal::NotResumed { what: what.to_owned() });
                if self.complete() {
                    return refuse("the run is over");
                }
                self.tip.may_resume(*down).or_else(refuse)
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
            Control::CodecPinned(pin) => self.check_pin(pin),
            Control::CodecUnpinned => self.check_unpinned(),
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
            Control::CodecPinned(pin) => self.codecs.pin(pin),
            Control::CodecUnpinned => self.fold_unpinned(),
        }
    }

    fn check_statement(&self, sender: &NodeId, statement: &Statement) -> Result<(), Refusal> {
        if let Statement::Join(join) = statement {
            return self.check_join(sender, join);
        }
        let Some(node) = self.nodes.get(sender).filter(|node| node.present()) else {
            return Err(Refusal::NotPresent);
        };
        let role = match statement {
            Statement::Verdict(_) | Statement::HeldOut { .. } | Statement::CodecEffect(_) => {
                Some(Role::Validator)
            }
            Statement::Leave
            | Statement::Heartbeat
            | Statement::Join(_)
            // Validators open what crossed by it.
            | Statement::CodecReady { .. }
            | Statement::CodecUnfit { .. } => None,
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
            Statement::Ready { epoch, states, .. } => self.check_ready(node, *epoch, states),
            Statement::Verdict(verdict) => self.check_verdict(verdict),
            Statement::HeldOut { epoch, loss, tokens } => self.check_held_out(sender, *epoch, *loss, *tokens),
            Statement::Upload(_)
            | Statement::Reveal { .. }
            | Statement::Have { .. }
            | Statement::Blind { .. }
            | Statement::Claims { .. }
            | Statement::Holds { .. } => self.check_merge(sender, statement),
            Statement::CodecReady { component } => self.check_codec_ready(node, component),
            Statement::CodecUnfit { component, reason } => self.check_codec_unfit(sender, component, reason),
            Statement::CodecWork { epoch, component, counts } => {
                self.check_codec_work(sender, *epoch, component, counts)
            }
            Statement::CodecFault(fault) => self.check_codec_fault(sender, fault),
            Statement::CodecEffect(effect) => self.check_codec_effect(sender, effect),
        }
    }

    fn fold_statement(&mut self, envelope: &Envelope, statement: Statement) {
        let sender = envelope.sender;
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
            Statement::Ready { epoch, states, traffic } => {
                if let Some(node) = self.nodes.get_mut(&sender) {
                    node.ready = Some(Ready { epoch, states });
                }
                self.add_traffic(&sender, &traffic);
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
            Statement::CodecReady { component } => self.fold_codec_ready(&sender, component),
            Statement::CodecUnfit { component, reason } => self.fold_codec_unfit(sender, component, reason),
            Statement::CodecWork { counts, .. } => self.codecs.work(&counts),
            Statement::CodecFault(_) => self.codecs.fault(sender),
            Statement::CodecEffect(effect) => self.fold_codec_effect(sender, effect),
            merge => self.fold_merge(sender, merge),
        }
        if let Some(node) = self.nodes.get_mut(&sender) {
            node.seen = self.tip.now();
            node.last = Some(Last::of(envelope));
        }
    }

    fn fold_derived(&mut self, derived: &Derived) {
        match derived {
            Derived::Assigned { node, stage } => self.apply_assigned(node, *stage),
            Derived::Lost { node } => self.depart(node, Presence::Lost, Cause::Lost),
            Derived::Opened { epoch, seed, members, micro_batches } => {
                self.apply_opened(*epoch, *seed, members, micro_batches);
            }
            Derived::Leased { lease, node, micro_batches, grad_mask } => {
                self.apply_leased(*lease, node, micro_batches, *grad_mask);
            }
            Derived::Expired { lease } => self.apply_expired(*lease),
            Derived::Clipped { step, scale, .. } => self.apply_clipped(*step, *scale),
            Derived::Closed { .. } => self.apply_closed(),
            Derived::CommitsClosed { stage, nodes, .. } => self.apply_commits_closed(*stage, nodes),
            Derived::SetFixed { stage, nodes, seed, .. } => self.apply_set_fixed(*stage, nodes, *seed),
            Derived::InputsFixed { stage, shards, clip, .. } => self.apply_inputs_fixed(*stage, shards, clip),
            Derived::ClaimsDue { stage, .. } => self.apply_claims_due(*stage),
            Derived::Referred { stage, shard, node, .. } => self.apply_referred(*stage, *shard, *node),
            Derived::Manifest { stage, shards, .. } => self.apply_manifest(*stage, shards),
            Derived::Amended { stage, .. } => self.apply_amended(*stage),
            Derived::Finished { epochs } => self.apply_finished(*epochs),
            Derived::CodecSwitched { epoch, component } => self.codecs.switch(*epoch, *component),
            Derived::CodecDeclined { epoch, component } => self.codecs.decline(*epoch, *component),
            Derived::CodecOff { epoch, component, cause } => self.codecs.off(*epoch, *component, *cause),
            Derived::CodecPassed { epoch, component } => self.codecs.passed(*epoch, *component),
        }
    }

    fn due(&self) -> Option<Derived> {
        if let Phase::Finished { .. } = self.phase {
            return None;
        }
        let first = self.lost_due().or_else(|| self.assigned_due()).or_else(|| self.codec_fault_due());
        first.or_else(|| match self.phase {
            Phase::Gathering { epoch, until } => self.gather_due(epoch, until),
            Phase::Training { .. } => self.train_due(),
            Phase::Merging { .. } => self.clip_due().or_else(|| self.merge_due()),
            Phase::Finished { .. } => None,
        })
    }
}
