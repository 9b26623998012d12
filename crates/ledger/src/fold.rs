//! A protocol over the log: inputs are accepted or refused, what follows is due, and equal logs give equal states.
//!
//! A protocol brings its controls, statements and derived records and implements [`Fold`]. It gets the rest:
//! [`crate::commit`] drives the fold where the log is made, [`crate::verify`] replays it everywhere else. What the records
//! mean stays with the protocol.

use std::error::Error;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wire::{Envelope, EnvelopeError, Hash, Millis, NodeId, RunId, Seq, limits as wire_limits};

/// One record of a log with controls `C` and derived records `D`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record<C, D> {
    /// A node's signed statement; its body decodes as the protocol's statement.
    Stated(Envelope),
    /// The log owner's own input.
    Control(C),
    /// What follows from the state.
    Derived(D),
}

/// A record that comes from outside: everything else follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<C> {
    /// A signed statement.
    Stated(Envelope),
    /// The log owner's own input.
    Control(C),
}

impl<C, D> From<Input<C>> for Record<C, D> {
    fn from(input: Input<C>) -> Self {
        match input {
            Input::Stated(envelope) => Self::Stated(envelope),
            Input::Control(control) => Self::Control(control),
        }
    }
}

impl<C: Fact, D: Fact> Record<C, D> {
    /// Name for displays and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stated(_) => "a statement",
            Self::Control(control) => control.name(),
            Self::Derived(derived) => derived.name(),
        }
    }
}

/// What can stand in a log.
pub trait Fact: Clone + Debug + PartialEq + Serialize + DeserializeOwned {
    /// Name for displays and errors.
    fn name(&self) -> &'static str;
}

/// Position of a record: evidence in errors and displays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Block.
    pub seq: Seq,
    /// Record within the block.
    pub index: u32,
}

/// Whether an envelope's signature is checked: always where it enters, by sample where a log is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// Check.
    Check,
    /// The log's own signature vouches for it.
    Trust,
}

/// Why an envelope is no statement that may enter the log now, whatever it states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unfit {
    /// Envelope of another version, log or signer, or over the limit.
    #[error("{reason}")]
    Envelope {
        /// What the check said.
        reason: String,
    },
    /// Envelope of a kind that is no statement of this log.
    #[error("envelope of kind {kind} is not a statement of this log")]
    Kind {
        /// Kind found.
        kind: u16,
    },
    /// Body does not decode.
    #[error("not a statement: {reason}")]
    Malformed {
        /// What the decoder said.
        reason: String,
    },
    /// The very bytes that were accepted last: acknowledge again.
    #[error("already accepted")]
    Duplicate,
    /// Time and nonce are not above the sender's last: a replay, or a clock set back.
    #[error("replayed, or the clock was set back: last statement was of {last:?}")]
    NotNewer {
        /// Time of the sender's last accepted statement.
        last: Millis,
    },
    /// Signed too long ago or in the future.
    #[error("signed at {theirs:?}, the log's clock says {ours:?}: sign again, or set the clock")]
    Stale {
        /// Time of the envelope.
        theirs: Millis,
        /// Time of the log.
        ours: Millis,
    },
}

impl From<EnvelopeError> for Unfit {
    fn from(error: EnvelopeError) -> Self {
        Self::Envelope { reason: error.to_string() }
    }
}

/// A key's last accepted statement: whatever is not newer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Its time.
    pub time: Millis,
    /// Its nonce.
    pub nonce: u64,
    /// [`Envelope::hash`].
    pub hash: Hash,
}

impl Last {
    /// Of an envelope that was accepted.
    pub fn of(envelope: &Envelope) -> Self {
        Self { time: envelope.time, nonce: envelope.nonce, hash: envelope.hash() }
    }
}

/// Where a state stands in its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tip {
    run: RunId,
    owner: NodeId,
    /// Time of the newest block.
    now: Millis,
    /// Time of the block before.
    before: Millis,
    /// No record of the newest block was folded yet.
    block_start: bool,
    /// Hash chain over all records.
    digest: Hash,
}

impl Tip {
    /// Behind the genesis record of a log that `owner` signs.
    pub fn genesis<C: Fact>(run: RunId, owner: NodeId, control: &C) -> Self {
        let (now, before) = (Millis(0), Millis(0));
        let mut tip = Self { run, owner, now, before, block_start: false, digest: Hash(run.0) };
        tip.chain::<C, C>(&Record::Control(control.clone()));
        tip
    }

    /// Run that the log is of.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Who signs the log.
    pub fn owner(&self) -> NodeId {
        self.owner
    }

    /// Time of the newest block.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Hash chain over all records: equal digests mean equal logs.
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// Whether the log may say here that nobody served it for `down`; an error says why not.
    pub fn may_resume(&self, down: Millis) -> Result<(), &'static str> {
        match () {
            () if !self.block_start => Err("only as the first record of a block"),
            () if down > self.now.since(self.before) => Err("claims more time than passed"),
            () => Ok(()),
        }
    }

    /// The statement of an envelope, if it may enter now. `last` is what its sender stated last.
    pub fn open<S: DeserializeOwned>(
        &self,
        envelope: &Envelope,
        kind: u16,
        last: Option<Last>,
        signatures: Signatures,
    ) -> Result<S, Unfit> {
        if last.is_some_and(|last| last.hash == envelope.hash()) {
            return Err(Unfit::Duplicate);
        }
        if envelope.kind != kind {
            return Err(Unfit::Kind { kind: envelope.kind });
        }
        match signatures {
            Signatures::Check => envelope.verify(&self.run)?,
            Signatures::Trust if envelope.run == self.run => {}
            Signatures::Trust => {
                return Err(EnvelopeError::WrongRun { theirs: envelope.run, ours: self.run }.into());
            }
        }
        if let Some(last) = last.filter(|last| (envelope.time, envelope.nonce) <= (last.time, last.nonce)) {
            return Err(Unfit::NotNewer { last: last.time });
        }
        let age = self.now.since(envelope.time).0.max(envelope.time.since(self.now).0);
        if age > wire_limits::ENVELOPE_SKEW_MS {
            return Err(Unfit::Stale { theirs: envelope.time, ours: self.now });
        }
        wire::from_bytes(&envelope.body).map_err(|error| Unfit::Malformed { reason: error.to_string() })
    }

    fn chain<C: Fact, D: Fact>(&mut self, record: &Record<C, D>) {
        self.block_start = false;
        let parts = [&self.digest.0[..], &wire::to_bytes(record)];
        self.digest = Hash::of_parts("shoal 2026-11 log digest", &parts);
    }
}

/// Record of a fold.
pub type RecordOf<F> = Record<<F as Fold>::Control, <F as Fold>::Derived>;
/// Input of a fold.
pub type InputOf<F> = Input<<F as Fold>::Control>;

/// A protocol's state as a fold of its log. Implementors supply the first group of methods, which only the second group
/// calls; everybody else calls the second.
pub trait Fold: Clone + Debug + PartialEq {
    /// What the owner of the log puts in.
    type Control: Fact;
    /// What nodes state.
    type Statement: DeserializeOwned;
    /// What follows.
    type Derived: Fact;
    /// Why an input is refused.
    type Refusal: Clone + PartialEq + Error + From<Unfit> + 'static;
    /// Why a log cannot begin like this.
    type GenesisError: Clone + PartialEq + Error + 'static;
    /// Kind of the envelopes whose bodies are statements.
    const STATEMENT_KIND: u16;

    /// State after a log's first record, which must be this control.
    fn genesis(run: RunId, control: &Self::Control) -> Result<Self, Self::GenesisError>;
    /// Where the state stands in its log.
    fn tip(&self) -> &Tip;
    /// The same, to move it.
    fn tip_mut(&mut self) -> &mut Tip;
    /// First time after `after` at which [`Fold::due`] may change by time alone. The state's own time stands still while no
    /// block is made, so the owner says what its clock shows.
    fn next_deadline(&self, after: Millis) -> Option<Millis>;
    /// What the owner puts in first when it comes back after `down`.
    fn resumed(down: Millis) -> Self::Control;
    /// Whether this control stands before the deadlines that fell while nobody served the log.
    fn resumes(control: &Self::Control) -> bool;
    /// What a key stated last.
    fn last(&self, sender: &NodeId) -> Option<Last>;
    /// Whether a control is possible now.
    fn check_control(&self, control: &Self::Control) -> Result<(), Self::Refusal>;
    /// Folds a control that was checked.
    fn fold_control(&mut self, control: &Self::Control);
    /// Whether a statement is possible now.
    fn check_statement(&self, sender: &NodeId, statement: &Self::Statement) -> Result<(), Self::Refusal>;
    /// Folds a statement that was checked, and keeps [`Last`] of its envelope.
    fn fold_statement(&mut self, envelope: &Envelope, statement: Self::Statement);
    /// Folds a derived record that was due.
    fn fold_derived(&mut self, derived: &Self::Derived);
    /// The next record that follows from the state at its time, if any.
    fn due(&self) -> Option<Self::Derived>;

    /// Begins a block at `now`; time never goes back.
    fn advance(&mut self, now: Millis) {
        let tip = self.tip_mut();
        tip.before = tip.now;
        tip.now = tip.now.max(now);
        tip.block_start = true;
    }

    /// Applies what [`Fold::due`] returned, and nothing else.
    fn apply(&mut self, derived: &Self::Derived) {
        self.tip_mut().chain::<Self::Control, _>(&Record::Derived(derived.clone()));
        self.fold_derived(derived);
    }

    /// Whether an input would be accepted now.
    fn check(&self, input: &InputOf<Self>) -> Result<(), Self::Refusal> {
        match input {
            Input::Control(control) => self.check_control(control),
            Input::Stated(envelope) => self.open(envelope, Signatures::Check).map(|_| ()),
        }
    }

    /// Folds an input, or refuses it and stays as it is.
    fn accept(&mut self, input: &InputOf<Self>) -> Result<(), Self::Refusal> {
        self.accept_with(input, Signatures::Check)
    }

    /// [`Fold::accept`], for replays of logs.
    fn accept_with(&mut self, input: &InputOf<Self>, signatures: Signatures) -> Result<(), Self::Refusal> {
        let record = RecordOf::<Self>::from(input.clone());
        match input {
            Input::Control(control) => {
                self.check_control(control)?;
                self.tip_mut().chain(&record);
                self.fold_control(control);
            }
            Input::Stated(envelope) => {
                let statement = self.open(envelope, signatures)?;
                self.tip_mut().chain(&record);
                self.fold_statement(envelope, statement);
            }
        }
        Ok(())
    }

    /// The statement of an envelope, checked in full.
    fn open(&self, envelope: &Envelope, signatures: Signatures) -> Result<Self::Statement, Self::Refusal> {
        let last = self.last(&envelope.sender);
        let statement = self.tip().open(envelope, Self::STATEMENT_KIND, last, signatures)?;
        self.check_statement(&envelope.sender, &statement)?;
        Ok(statement)
    }
}
