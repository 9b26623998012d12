//! The state as a fold of its log: what it takes, what follows from it.

use std::collections::{BTreeMap, VecDeque};

use ledger::Fold;
use ledger::fold::{Last, Tip};
use wire::{Envelope, Hash, Millis, NodeId, RunId};

use super::accept::{limit, not_now, require};
use super::entry::Receipt;
use super::judge::Judge;
use super::{Competition, GenesisError, State};
use crate::limits;
use crate::record::{Control, Derived, STATEMENT_KIND, Statement};
use crate::refusal::Refusal;
use crate::spec::ArenaSpec;

impl Fold for State {
    type Control = Control;
    type Statement = Statement;
    type Derived = Derived;
    type Refusal = Refusal;
    type GenesisError = GenesisError;

    const STATEMENT_KIND: u16 = STATEMENT_KIND;

    fn genesis(run: RunId, control: &Control) -> Result<Self, GenesisError> {
        let Control::Genesis { spec: text, host } = control else {
            return Err(GenesisError::NotGenesis);
        };
        let spec = ArenaSpec::parse(text)?;
        let theirs = RunId(Hash::of(text.as_bytes()).0);
        if theirs != run || spec.run_id() != run {
            return Err(GenesisError::WrongArena { theirs, ours: run });
        }
        Ok(Self {
            tip: Tip::genesis(run, *host, control),
            spec,
            last: BTreeMap::new(),
            judges: BTreeMap::new(),
            competitions: BTreeMap::new(),
            entries: Vec::new(),
            seals: BTreeMap::new(),
            codes: BTreeMap::new(),
            entrants: BTreeMap::new(),
            receipts: BTreeMap::new(),
            leases: super::lease::Leases::default(),
            next_lease: 0,
            wants: BTreeMap::new(),
            notes: VecDeque::new(),
        })
    }

    fn tip(&self) -> &Tip {
        &self.tip
    }

    fn tip_mut(&mut self) -> &mut Tip {
        &mut self.tip
    }

    fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let now = now.max(self.tip.now());
        let rounds = self.competitions.values().flat_map(Competition::deadlines);
        let rounds = rounds.filter(|at| *at > now && *at < Millis(u64::MAX));
        rounds.chain(self.leases.next_deadline(now)).min()
    }

    fn resumed(down: Millis) -> Control {
        Control::Resumed { down }
    }

    fn resumes(control: &Control) -> bool {
        matches!(control, Control::Resumed { .. })
    }

    fn last(&self, sender: &NodeId) -> Option<Last> {
        self.last.get(sender).copied()
    }

    fn check_control(&self, control: &Control) -> Result<(), Refusal> {
        match control {
            Control::Genesis { .. } => Err(Refusal::Begun),
            Control::Resumed { down } => {
                let refuse = |what: &str| Err(Refusal::NotResumed { what: what.to_owned() });
                self.tip.may_resume(*down).or_else(refuse)
            }
            Control::Admitted { judge, operator } => {
                limit("bytes of the operator's name", operator.len() as u64, limits::NAME_BYTES as u64)?;
                require(!operator.is_empty(), || not_now("a judge needs an operator"))?;
                let known = self.judges.get(judge);
                if known.is_some_and(|known| known.admitted && known.operator == *operator) {
                    return Err(Refusal::Repeated { what: "this judge is admitted".to_owned() });
                }
                let after = self.judges.len() as u64 + u64::from(known.is_none());
                limit("judges", after, limits::JUDGES_MAX as u64)
            }
            Control::Dismissed { judge } => {
                let admitted = self.judges.get(judge).is_some_and(|judge| judge.admitted);
                require(admitted, || Refusal::UnknownNode { node: *judge })
            }
            Control::Paid { receipt, payer, .. } => {
                if self.receipts.contains_key(receipt) {
                    return Err(Refusal::Repeated { what: "this payment".to_owned() });
                }
                let unused = |paid: &&Receipt| paid.payer == *payer && paid.used_by.is_none();
                let held = self.receipts.values().filter(unused).count() as u64;
                limit("unused receipts", held + 1, limits::RECEIPTS_MAX as u64)
            }
        }
    }

    fn fold_control(&mut self, control: &Control) {
        match control {
            Control::Genesis { .. } => {}
            Control::Resumed { down } => self.resume(*down),
            Control::Admitted { judge, operator } => {
                let now = self.tip.now();
                let entry = self.judges.entry(*judge).or_insert_with(|| Judge::new(operator, now));
                if !entry.admitted {
                    (entry.admitted, entry.admitted_at) = (true, now);
                }
                operator.clone_into(&mut entry.operator);
                self.forget_queues(*judge);
            }
            Control::Dismissed { judge } => {
                self.wants.remove(judge);
                if let Some(judge) = self.judges.get_mut(judge) {
                    judge.admitted = false;
                }
                self.forget_queues(*judge);
            }
            Control::Paid { receipt, payer, amount } => {
                let paid = Receipt { payer: *payer, amount: *amount, used_by: None };
                self.receipts.insert(*receipt, paid);
            }
        }
    }

    fn check_statement(&self, sender: &NodeId, statement: &Statement) -> Result<(), Refusal> {
        let sender = *sender;
        match statement {
            Statement::Open { spec } => self.check_open(sender, spec).map(|_| ()),
            Statement::End { competition } => self.check_end(sender, competition),
            Statement::Announce { competition, text } => {
                self.check_announce(sender, competition.as_ref(), text)
            }
            Statement::Submit { competition, seal, form, parents, receipt } => {
                self.check_submit(sender, competition, (seal, *form), parents, receipt.as_ref())
            }
            Statement::Unseal { entry, code, bytes, salt } => {
                self.check_unseal(sender, *entry, code, *bytes, salt)
            }
            Statement::Nonce { competition, round, commitment } => {
                self.check_nonce(sender, competition, *round, commitment)
            }
            Statement::OpenNonce { competition, round, nonce } => {
                self.check_open_nonce(sender, competition, *round, nonce)
            }
            Statement::Pool { competition, round, items } => {
                self.may_pool(sender, competition, *round, items)
            }
            Statement::Lease { want } => self.check_lease(sender, *want),
            Statement::Judged { lease, .. } => self.check_judged(sender, *lease),
            Statement::Show { lease, nonce, verdict } => self.check_show(sender, *lease, nonce, verdict),
            Statement::Register { competition, keys, enter } => {
                self.check_register(sender, competition, keys, *enter)
            }
            Statement::Describe { entry, about } => self.check_describe(sender, *entry, about),
            Statement::Return { lease } => self.check_return(sender, *lease),
        }
    }

    fn fold_statement(&mut self, envelope: &Envelope, statement: Statement) {
        let sender = envelope.sender;
        match statement {
            Statement::Open { spec } => self.fold_open(sender, &spec),
            Statement::End { competition } => self.fold_end(competition),
            Statement::Announce { competition, text } => self.fold_announce(sender, competition, text),
            Statement::Submit { competition, seal, form, parents, receipt } => {
                self.fold_submit(sender, competition, (seal, form), parents, receipt);
            }
            Statement::Unseal { entry, code, bytes, salt } => self.fold_unseal(entry, code, bytes, salt),
            Statement::Nonce { competition, round, commitment } => {
                self.fold_nonce(sender, competition, round, commitment);
            }
            Statement::OpenNonce { competition, round, nonce } => {
                self.fold_open_nonce(sender, competition, round, nonce);
            }
            Statement::Pool { competition, round, items } => self.fold_pool(competition, round, items),
            Statement::Lease { want } => self.fold_lease(sender, want),
            Statement::Judged { lease, seal } => self.fold_judged(lease, seal),
            Statement::Show { lease, verdict, .. } => self.fold_show(lease, verdict),
            Statement::Register { competition, keys, enter } => self.fold_register(competition, keys, enter),
            Statement::Describe { entry, about } => self.fold_describe(entry, about),
            Statement::Return { lease } => self.fold_return(sender, lease),
        }
        self.last.insert(sender, Last::of(envelope));
    }

    fn fold_derived(&mut self, derived: &Derived) {
        match derived {
            Derived::RoundOpened { competition, round, closes } => {
                self.apply_round_opened(*competition, *round, *closes);
            }
            Derived::Advanced { competition, round, step } => {
                self.apply_advanced(*competition, *round, *step);
            }
            Derived::InputsFixed {
                competition,
                round,
                seed,
                items,
                challengers,
                baseline,
                incumbent,
                copies,
            } => {
                let autos = (*baseline, *incumbent);
                self.apply_inputs_fixed((*competition, *round), *seed, items, challengers, autos, copies);
            }
            Derived::Leased { lease, judge, entry, expires } => {
                self.apply_leased(*lease, *judge, *entry, *expires);
            }
            Derived::Expired { lease } => self.apply_expired(*lease),
            Derived::VerdictsDue { entry } => self.apply_verdicts_due(*entry),
            Derived::Referred { entry, need, asked } => self.apply_referred(*entry, *need, *asked),
            Derived::Settled { entry, settlement } => self.apply_settled(*entry, settlement),
            Derived::Compared { entry, comparison, sure, .. } => {
                self.apply_compared(*entry, *comparison, *sure);
            }
            Derived::RoundCompleted { competition, round, takeover, stale, disputed, .. } => {
                self.apply_round_completed((*competition, *round), *takeover, stale, disputed);
            }
            Derived::RoundVoid { competition, round, reason } => {
                self.apply_round_void(*competition, *round, *reason);
            }
            Derived::Completed { competition } => self.apply_completed(*competition),
        }
    }

    fn due(&self) -> Option<Derived> {
        self.expired_due().or_else(|| self.rounds_due()).or_else(|| self.leased_due())
    }
}

impl State {
    /// Moves every open deadline by the time that nobody served (protocol §6 "Restart").
    fn resume(&mut self, down: Millis) {
        self.leases.shift(down);
        for round in self.competitions.values_mut().flat_map(|competition| competition.live.values_mut()) {
            round.shift(down);
        }
    }
}
