//! What a log says of every cell of a run, recomputed record by record.

use std::collections::{BTreeMap, BTreeSet};

use ledger::Fold;
use ledger::LogReader;
use swarm::record::{Control, Derived, Input, Outcome, Record, Statement};
use swarm::state::{Cause, Cell, Phase, Signatures, State};
use swarm::verify;
use wire::{Epoch, Hash, LeaseId, MicroBatch, NodeId, Seq};

/// One micro-batch in one stage.
type At = (MicroBatch, usize);

/// What the log of a finished run says.
pub(crate) struct Audit {
    pub(crate) state: State,
    /// Epoch in which each merged cell was merged.
    pub(crate) merged: BTreeMap<At, Epoch>,
    /// Cells that were leased and not merged.
    pub(crate) forfeited: BTreeMap<Cause, u64>,
    /// Hashes of statements' bodies, by block.
    stated: BTreeMap<Seq, BTreeSet<Hash>>,
    /// Hashes of the blocks, and what the run did when each was made.
    blocks: BTreeMap<Seq, (Hash, &'static str)>,
    /// Time spent in each phase, ms.
    pub(crate) spent: BTreeMap<&'static str, u64>,
    /// Times that the orchestrator came back.
    pub(crate) resumed: u64,
    /// Outcomes of replays.
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Epochs whose opening weights were measured.
    pub(crate) measured: BTreeSet<Epoch>,
    /// Cells of the present epoch that were leased.
    leased: BTreeSet<At>,
    /// Who says that a cell is in one of its steps, in the present epoch.
    stepped: BTreeSet<(MicroBatch, LeaseId, NodeId)>,
}

impl Audit {
    /// Checks a log file from the first byte to the last, and every cell of it.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        verify::file::<State>(bytes, |_| Signatures::Check).expect("the log follows from its inputs");
        let reader = LogReader::new(bytes).expect("a log");
        let run = reader.header().run;
        let mut audit: Option<Self> = None;
        for block in reader {
            let block = block.expect("a block");
            let head = block.header().head();
            let records = verify::records(&block.records).expect("records");
            let audit = if let Some(audit) = &mut audit {
                let time = block.header().time.since(audit.state.now());
                *audit.spent.entry(phase(&audit.state)).or_default() += time.0;
                audit.state.advance(block.header().time);
                audit.fold(head.seq, &records);
                audit
            } else {
                let Some(Record::Control(genesis @ Control::Genesis { .. })) = records.first() else {
                    panic!("a log begins with a genesis")
                };
                let state = State::genesis(run, genesis).expect("a genesis");
                let audit = audit.insert(Self::at(state));
                audit.state.advance(block.header().time);
                audit.fold(head.seq, &records[1..]);
                audit
            };
            audit.blocks.insert(head.seq, (head.hash, phase(&audit.state)));
        }
        let mut audit = audit.expect("a log with blocks");
        assert!(matches!(audit.state.phase(), Phase::Finished { .. }), "{:?}", audit.state.phase());
        audit.settle();
        audit
    }

    fn at(state: State) -> Self {
        Self {
            state,
            merged: BTreeMap::new(),
            forfeited: BTreeMap::new(),
            stated: BTreeMap::new(),
            blocks: BTreeMap::new(),
            spent: BTreeMap::new(),
            resumed: 0,
            passed: 0,
            failed: 0,
            measured: BTreeSet::new(),
            leased: BTreeSet::new(),
            stepped: BTreeSet::new(),
        }
    }

    fn fold(&mut self, seq: Seq, records: &[Record]) {
        for record in records {
            let input = match record {
                Record::Derived(derived) => {
                    self.derived(derived);
                    self.state.apply(derived);
                    continue;
                }
                Record::Stated(envelope) => {
                    self.stated.entry(seq).or_default().insert(Hash::of(&envelope.body));
                    self.statement(envelope.sender, wire::from_bytes(&envelope.body).expect("a statement"));
                    Input::Stated(envelope.clone())
                }
                Record::Control(control) => {
                    self.resumed += u64::from(matches!(control, Control::Resumed { .. }));
                    Input::Control(control.clone())
                }
            };
            self.state.accept_with(&input, Signatures::Trust).expect("it was accepted");
        }
    }

    fn derived(&mut self, derived: &Derived) {
        match derived {
            Derived::Leased { micro_batches, grad_mask, .. } => {
                let stages = (0..self.state.spec().stages.len()).filter(|stage| grad_mask >> stage & 1 == 1);
                self.leased.extend(stages.flat_map(|stage| micro_batches.iter().map(move |at| (*at, stage))));
            }
            Derived::Opened { .. } => self.settle(),
            _ => {}
        }
    }

    fn statement(&mut self, sender: NodeId, statement: Statement) {
        match statement {
            Statement::Work(work) => {
                let items = work.steps.into_iter().flat_map(|step| step.items);
                self.stepped.extend(items.map(|(micro_batch, lease)| (micro_batch, lease, sender)));
            }
            Statement::Verdict(verdict) => match verdict.outcome {
                Outcome::Pass => self.passed += 1,
                Outcome::Fail => self.failed += 1,
                Outcome::OtherClass | Outcome::NotOpened => {}
            },
            Statement::HeldOut { epoch, .. } => drop(self.measured.insert(epoch)),
            _ => {}
        }
    }

    /// An epoch is over: every cell that was leased has one final state, and nothing is merged that was merged before.
    fn settle(&mut self) {
        let epoch = self.state.work().epoch;
        for (micro_batch, path) in self.state.paths() {
            for (stage, cell) in path.cells.iter().enumerate() {
                let at = (*micro_batch, stage);
                let leased = self.leased.remove(&at);
                match cell {
                    Cell::Open => assert!(!leased, "{at:?} was leased in epoch {epoch} and has no end"),
                    Cell::Merged { member } => {
                        assert!(leased, "{at:?} is merged and was not leased in epoch {epoch}");
                        let member = self.state.epoch_members()[usize::from(*member)].member;
                        assert_eq!(usize::from(member.stage.0), stage, "{at:?}");
                        let says = |(theirs, _, node): &&(MicroBatch, LeaseId, NodeId)| {
                            theirs == micro_batch && *node == member.node
                        };
                        assert!(self.stepped.iter().any(|said| says(&said)), "{at:?}: nobody stepped it");
                        let before = self.merged.insert(at, epoch);
                        assert_eq!(before, None, "{at:?} was merged before epoch {epoch}");
                    }
                    Cell::Forfeited { cause } => {
                        assert!(leased, "{at:?} is forfeited and was not leased in epoch {epoch}");
                        *self.forfeited.entry(*cause).or_default() += 1;
                    }
                    Cell::Leased | Cell::Accumulated { .. } | Cell::Stepped { .. } => {
                        panic!("{at:?} of epoch {epoch} ended as {cell:?}")
                    }
                }
            }
        }
        assert!(self.leased.is_empty(), "leased outside of the epoch {epoch}: {:?}", self.leased);
        self.stepped.clear();
    }

    /// Whether a statement stands in a block.
    pub(crate) fn stands(&self, seq: Seq, statement: &Hash) -> bool {
        self.stated.get(&seq).is_some_and(|stated| stated.contains(statement))
    }

    /// Hash of a block.
    pub(crate) fn block(&self, seq: Seq) -> Option<Hash> {
        self.blocks.get(&seq).map(|(hash, _)| *hash)
    }

    /// What the run did after a block.
    pub(crate) fn phase(&self, seq: Seq) -> &'static str {
        self.blocks.get(&seq).map_or("beginning", |(_, phase)| phase)
    }
}

fn phase(state: &State) -> &'static str {
    match state.phase() {
        Phase::Gathering { .. } => "gathering",
        Phase::Training { .. } => "training",
        Phase::Merging { .. } => "merging",
        Phase::Finished { .. } => "finished",
    }
}
