//! Replays a log: recomputes everything that follows and names the first record that does not.

use wire::{DecodeError, Head, Millis, NodeId, RunId, Seq};

use crate::block::{Block, BlockHeader};
use crate::chain::{Chain, ChainError};
use crate::file::{LogError, LogReader};
use crate::fold::{Fact, Fold, Input, Position, Record, RecordOf, Signatures};

/// The first record of a block that is not what it must be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Lie<F: Fold> {
    /// The log does not begin as a log must.
    #[error("record 0: the first record is not a control")]
    NoControl,
    /// The log does not begin as a log of this protocol must.
    #[error("record 0: {0}")]
    Genesis(F::GenesisError),
    /// The block's time is before the block before.
    #[error("time goes back from {before:?} to {found:?}")]
    Time {
        /// Time of the block before.
        before: Millis,
        /// Time of this block.
        found: Millis,
    },
    /// Something must follow at this place, and something else stands there.
    #[error("record {index}: {} must follow here, found {}", expected.name(), found.name())]
    Differs {
        /// Position in the block.
        index: usize,
        /// What follows from the records before.
        expected: Box<F::Derived>,
        /// What stands there.
        found: Box<RecordOf<F>>,
    },
    /// A derived record that does not follow.
    #[error("record {index}: {} does not follow from the records before", found.name())]
    Unfounded {
        /// Position in the block.
        index: usize,
        /// What stands there.
        found: Box<F::Derived>,
    },
    /// A derived record is missing at the end of a block.
    #[error("record {index}: {} is missing", expected.name())]
    Missing {
        /// Position in the block.
        index: usize,
        /// What follows from the records before.
        expected: Box<F::Derived>,
    },
    /// An input that had to be refused.
    #[error("record {index}: this input had to be refused: {refusal}")]
    Refused {
        /// Position in the block.
        index: usize,
        /// Why.
        refusal: F::Refusal,
    },
}

impl<F: Fold> Lie<F> {
    /// Position in the block.
    pub fn index(&self) -> usize {
        match self {
            Self::NoControl | Self::Genesis(_) | Self::Time { .. } => 0,
            Self::Differs { index, .. }
            | Self::Unfounded { index, .. }
            | Self::Missing { index, .. }
            | Self::Refused { index, .. } => *index,
        }
    }

    /// The fault of a log whose block `seq` this lie was found in.
    pub fn at(self, seq: Seq) -> Fault<F> {
        Fault { position: Position { seq, index: self.index() as u32 }, cause: self.into() }
    }
}

/// Where and why a log stops being true.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("block {}, {cause}", position.seq)]
pub struct Fault<F: Fold> {
    /// First record that does not follow.
    pub position: Position,
    /// Why.
    pub cause: FaultCause<F>,
}

/// Why a log stops being true.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FaultCause<F: Fold> {
    /// The file is not readable from here on.
    #[error("{0}")]
    File(#[from] LogError),
    /// Not a block.
    #[error("it does not decode: {0}")]
    Block(#[source] DecodeError),
    /// The block does not follow the block before, or is not the owner's.
    #[error("{0}")]
    Chain(#[from] ChainError),
    /// A record does not decode.
    #[error("record {index}: {source}")]
    Record {
        /// Position in the block.
        index: usize,
        /// What the decoder said.
        source: DecodeError,
    },
    /// A record does not follow.
    #[error("{0}")]
    Lie(#[from] Lie<F>),
    /// The genesis names another owner than the file.
    #[error("the genesis record names another owner of the log")]
    Owner,
    /// No block at all.
    #[error("the log is empty")]
    Empty,
}

/// Re-executes a whole log file: chain, signatures of blocks, every derived record, and the envelopes' signatures that
/// `signatures` chooses by position.
pub fn file<F: Fold>(
    bytes: &[u8],
    mut signatures: impl FnMut(Position) -> Signatures,
) -> Result<(F, Chain), Fault<F>> {
    let first = Position { seq: Seq(0), index: 0 };
    let reader = LogReader::new(bytes).map_err(|error| Fault { position: first, cause: error.into() })?;
    let header = reader.header();
    let mut replay = Replay::new(header.run, header.orchestrator);
    for block in reader {
        let position = Position { seq: replay.next_seq(), index: 0 };
        let block = block.map_err(|error| Fault { position, cause: error.into() })?;
        replay.push_block(&block, &mut signatures)?;
    }
    let Replay { chain, state } = replay;
    let state = state.ok_or(Fault { position: first, cause: FaultCause::Empty })?;
    Ok((state, chain))
}

/// Folds a log block by block from its first: for whoever follows one, verifies one, or goes on with an own one.
#[derive(Clone, Debug)]
pub struct Replay<F: Fold> {
    chain: Chain,
    state: Option<F>,
}

impl<F: Fold> Replay<F> {
    /// Before the first block of `run`, whose blocks `owner` signs.
    pub fn new(run: RunId, owner: NodeId) -> Self {
        Self { chain: Chain::genesis(run, owner), state: None }
    }

    /// Position of the block that must come next.
    pub fn next_seq(&self) -> Seq {
        self.chain.next_seq()
    }

    /// Newest block; none before the first.
    pub fn head(&self) -> Option<Head> {
        self.chain.head()
    }

    /// State behind the newest block; none before the first.
    pub fn state(&self) -> Option<&F> {
        self.state.as_ref()
    }

    /// Chain and state.
    pub fn into_parts(self) -> (Chain, Option<F>) {
        (self.chain, self.state)
    }

    /// Checks and folds the next block; returns its records. After an error it is of no more use.
    pub fn push(&mut self, bytes: &[u8], signatures: Signatures) -> Result<Vec<RecordOf<F>>, Fault<F>> {
        let block = decode(&self.chain, bytes)?;
        self.push_block(&block, |_| signatures)
    }

    fn push_block(
        &mut self,
        block: &Block,
        mut signatures: impl FnMut(Position) -> Signatures,
    ) -> Result<Vec<RecordOf<F>>, Fault<F>> {
        let records = extend(&mut self.chain, block)?;
        let BlockHeader { seq, time, .. } = *block.header();
        let mut chosen = |index: usize| signatures(Position { seq, index: index as u32 });
        let folded = match &mut self.state {
            Some(state) => replay_with(state, time, &records, &mut chosen),
            None => start(self.chain.run(), time, &records).map(|first| self.state = Some(first)),
        };
        folded.map_err(|lie| lie.at(seq))?;
        if self.state.as_ref().is_some_and(|state| state.tip().owner() != self.chain.orchestrator()) {
            return Err(Fault { position: Position { seq, index: 0 }, cause: FaultCause::Owner });
        }
        Ok(records)
    }
}

/// A block that extends its chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Next<F: Fold> {
    /// Position and hash.
    pub head: Head,
    /// Time.
    pub time: Millis,
    /// What it holds; not folded yet.
    pub records: Vec<RecordOf<F>>,
}

/// Checks that the bytes of a block extend `chain`, and extends it.
pub fn next<F: Fold>(chain: &mut Chain, bytes: &[u8]) -> Result<Next<F>, Fault<F>> {
    let block = decode(chain, bytes)?;
    let records = extend(chain, &block)?;
    Ok(Next { head: block.header().head(), time: block.header().time, records })
}

fn decode<F: Fold>(chain: &Chain, bytes: &[u8]) -> Result<Block, Fault<F>> {
    let position = Position { seq: chain.next_seq(), index: 0 };
    wire::from_bytes(bytes).map_err(|source| Fault { position, cause: FaultCause::Block(source) })
}

fn extend<F: Fold>(chain: &mut Chain, block: &Block) -> Result<Vec<RecordOf<F>>, Fault<F>> {
    let seq = chain.next_seq();
    let fault = |index: usize, cause| Fault { position: Position { seq, index: index as u32 }, cause };
    chain.check(block).map_err(|error| fault(0, error.into()))?;
    records(&block.records).map_err(|(index, source)| fault(index, FaultCause::Record { index, source }))
}

/// Decodes the records of a block; an error names the first that is none.
pub fn records<C: Fact, D: Fact>(bytes: &[Vec<u8>]) -> Result<Vec<Record<C, D>>, (usize, DecodeError)> {
    let decode = |(index, bytes): (usize, &Vec<u8>)| wire::from_bytes(bytes).map_err(|error| (index, error));
    bytes.iter().enumerate().map(decode).collect()
}

/// State after the first block of a log.
pub fn start<F: Fold>(run: RunId, time: Millis, records: &[RecordOf<F>]) -> Result<F, Lie<F>> {
    let Some((Record::Control(control), rest)) = records.split_first() else {
        return Err(Lie::NoControl);
    };
    let mut state = F::genesis(run, control).map_err(Lie::Genesis)?;
    state.advance(time);
    fold(&mut state, rest, 1, &mut |_| Signatures::Check)?;
    Ok(state)
}

/// Folds one block into `state`, checking every record and every signature. After a lie the state is of no use.
pub fn replay<F: Fold>(state: &mut F, time: Millis, records: &[RecordOf<F>]) -> Result<(), Lie<F>> {
    replay_with(state, time, records, |_| Signatures::Check)
}

/// [`replay`], with `signatures` to choose by record index which envelopes' signatures are checked.
pub fn replay_with<F: Fold>(
    state: &mut F,
    time: Millis,
    records: &[RecordOf<F>],
    mut signatures: impl FnMut(usize) -> Signatures,
) -> Result<(), Lie<F>> {
    if time < state.tip().now() {
        return Err(Lie::Time { before: state.tip().now(), found: time });
    }
    state.advance(time);
    fold(state, records, 0, &mut signatures)
}

fn fold<F: Fold>(
    state: &mut F,
    records: &[RecordOf<F>],
    first: usize,
    signatures: &mut dyn FnMut(usize) -> Signatures,
) -> Result<(), Lie<F>> {
    for (offset, record) in records.iter().enumerate() {
        let index = first + offset;
        // A resumption stands before the deadlines that it moves.
        let resumes = index == 0 && matches!(record, Record::Control(control) if F::resumes(control));
        let due = if resumes { None } else { state.due() };
        let input = match (due, record) {
            (Some(expected), Record::Derived(found)) if expected == *found => {
                state.apply(found);
                continue;
            }
            (Some(expected), found) => {
                return Err(Lie::Differs {
                    index,
                    expected: Box::new(expected),
                    found: Box::new(found.clone()),
                });
            }
            (None, Record::Derived(found)) => {
                return Err(Lie::Unfounded { index, found: Box::new(found.clone()) });
            }
            (None, Record::Stated(envelope)) => Input::Stated(envelope.clone()),
            (None, Record::Control(control)) => Input::Control(control.clone()),
        };
        state.accept_with(&input, signatures(index)).map_err(|refusal| Lie::Refused { index, refusal })?;
    }
    match state.due() {
        None => Ok(()),
        Some(expected) => Err(Lie::Missing { index: first + records.len(), expected: Box::new(expected) }),
    }
}
