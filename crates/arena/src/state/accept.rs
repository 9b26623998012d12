//! Inputs: checked in full first, then folded. What is refused changes nothing.

use wire::{Envelope, Millis, NodeId, limits as wire_limits};

use super::State;
use super::entry::Receipt;
use super::judge::Judge;
use crate::limits;
use crate::record::{Control, Input, Record, STATEMENT_KIND, Statement};
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

pub(super) fn limit(what: &str, found: u64, limit: u64) -> Result<(), Refusal> {
    if found <= limit {
        return Ok(());
    }
    Err(Refusal::OverLimit { what: what.to_owned(), found, limit })
}

pub(super) fn require(good: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if good { Ok(()) } else { Err(refusal()) }
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
                self.last.insert(envelope.sender, (envelope.time, envelope.nonce, envelope.hash()));
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
                self.check_statement(envelope.sender, &statement)?;
                Ok(Some(statement))
            }
        }
    }

    fn open(&self, envelope: &Envelope, signatures: Signatures) -> Result<Statement, Refusal> {
        let last = self.last.get(&envelope.sender);
        if last.is_some_and(|(_, _, hash)| *hash == envelope.hash()) {
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
        if let Some((time, _, _)) =
            last.filter(|(time, nonce, _)| (envelope.time, envelope.nonce) <= (*time, *nonce))
        {
            return Err(Refusal::NotNewer { last: *time });
        }
        let age = self.now.since(envelope.time).0.max(envelope.time.since(self.now).0);
        if age > wire_limits::ENVELOPE_SKEW_MS {
            return Err(Refusal::Stale { theirs: envelope.time, ours: self.now });
        }
        wire::from_bytes(&envelope.body).map_err(|error| Refusal::Malformed { reason: error.to_string() })
    }

    fn check_statement(&self, sender: NodeId, statement: &Statement) -> Result<(), Refusal> {
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
                self.check_pool(sender, competition, *round, items)
            }
            Statement::Lease { want } => self.check_lease(sender, *want),
            Statement::Judged { lease, .. } => self.check_judged(sender, *lease),
            Statement::Show { lease, nonce, verdict } => self.check_show(sender, *lease, nonce, verdict),
        }
    }

    fn fold(&mut self, sender: NodeId, statement: Statement) {
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
        }
    }

    fn check_control(&self, control: &Control) -> Result<(), Refusal> {
        match control {
            Control::Genesis { .. } => Err(Refusal::Begun),
            Control::Resumed { down } => {
                let refuse = |what: &str| Err(Refusal::NotResumed { what: what.to_owned() });
                match () {
                    () if !self.block_start => refuse("only as the first record of a block"),
                    () if *down > self.now.since(self.before) => refuse("claims more time than passed"),
                    () => Ok(()),
                }
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
                let entry = self.judges.entry(*judge).or_insert_with(|| Judge::new(operator));
                entry.admitted = true;
                operator.clone_into(&mut entry.operator);
            }
            Control::Dismissed { judge } => {
                self.wants.remove(judge);
                if let Some(judge) = self.judges.get_mut(judge) {
                    judge.admitted = false;
                }
            }
            Control::Paid { receipt, payer, amount } => {
                let paid = Receipt { payer: *payer, amount: *amount, used_by: None };
                self.receipts.insert(*receipt, paid);
            }
        }
    }

    /// Moves every open deadline by the time that nobody served (protocol §6 "Restart").
    fn resume(&mut self, down: Millis) {
        for lease in self.leases.values_mut() {
            lease.expires = lease.expires.plus(down);
        }
        for round in self.competitions.values_mut().flat_map(|competition| competition.live.values_mut()) {
            round.shift(down);
        }
    }
}
