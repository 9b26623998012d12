//! Replays a log: recomputes everything that follows and names the first record that does not.

use ledger::{Chain, ChainError, LogError, LogReader};
use wire::{DecodeError, Millis, RunId, Seq};

use crate::record::{Control, Derived, Input, Position, Record};
use crate::refusal::Refusal;
use crate::state::{GenesisError, Signatures, State};

/// The first record of a block that is not what it must be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Lie {
    /// The log does not begin as a log must.
    #[error("record 0: {0}")]
    Genesis(#[from] GenesisError),
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
        expected: Box<Derived>,
        /// What stands there.
        found: Box<Record>,
    },
    /// A derived record that does not follow.
    #[error("record {index}: {} does not follow from the records before", found.name())]
    Unfounded {
        /// Position in the block.
        index: usize,
        /// What stands there.
        found: Box<Derived>,
    },
    /// A derived record is missing at the end of a block.
    #[error("record {index}: {} is missing", expected.name())]
    Missing {
        /// Position in the block.
        index: usize,
        /// What follows from the records before.
        expected: Box<Derived>,
    },
    /// An input that had to be refused.
    #[error("record {index}: this input had to be refused: {refusal}")]
    Refused {
        /// Position in the block.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
}

impl Lie {
    /// Position in the block.
    pub fn index(&self) -> usize {
        match self {
            Self::Genesis(_) | Self::Time { .. } => 0,
            Self::Differs { index, .. }
            | Self::Unfounded { index, .. }
            | Self::Missing { index, .. }
            | Self::Refused { index, .. } => *index,
        }
    }
}

/// Where and why a log stops being true.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("block {}, {cause}", position.seq)]
pub struct Fault {
    /// First record that does not follow.
    pub position: Position,
    /// Why.
    pub cause: FaultCause,
}

/// Why a log stops being true.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FaultCause {
    /// The file is not readable from here on.
    #[error("{0}")]
    File(#[from] LogError),
    /// The block does not follow the block before, or is not the host's.
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
    Lie(#[from] Lie),
    /// The genesis names another host than the file.
    #[error("the genesis record names another host")]
    Host,
    /// No block at all.
    #[error("the log is empty")]
    Empty,
}

/// Re-executes a whole log file: chain, signatures of blocks, every derived record, and the envelopes' signatures that
/// `signatures` chooses by position.
pub fn file(
    bytes: &[u8],
    mut signatures: impl FnMut(Position) -> Signatures,
) -> Result<(State, Chain), Fault> {
    let at = |seq: Seq, index: usize| Position { seq, index: index as u32 };
    let fault = |position: Position, cause: FaultCause| Fault { position, cause };
    let reader = LogReader::new(bytes).map_err(|error| fault(at(Seq(0), 0), error.into()))?;
    let header = reader.header();
    let mut chain = Chain::genesis(header.run, header.orchestrator);
    let mut state: Option<State> = None;
    for block in reader {
        let seq = chain.next_seq();
        let block = block.map_err(|error| fault(at(seq, 0), error.into()))?;
        chain.check(&block).map_err(|error| fault(at(seq, 0), error.into()))?;
        let records = records(&block.records)
            .map_err(|(index, source)| fault(at(seq, index), FaultCause::Record { index, source }))?;
        let time = block.header().time;
        let folded = match &mut state {
            Some(state) => replay_with(state, time, &records, |index| signatures(at(seq, index))),
            None => start(header.run, time, &records).map(|first| state = Some(first)),
        };
        folded.map_err(|lie| fault(at(seq, lie.index()), lie.into()))?;
        if state.as_ref().is_some_and(|state| state.host() != header.orchestrator) {
            return Err(fault(at(seq, 0), FaultCause::Host));
        }
    }
    let state = state.ok_or_else(|| fault(at(Seq(0), 0), FaultCause::Empty))?;
    Ok((state, chain))
}

/// Decodes the records of a block; an error names the first that is none.
pub fn records(bytes: &[Vec<u8>]) -> Result<Vec<Record>, (usize, DecodeError)> {
    let decode = |(index, bytes): (usize, &Vec<u8>)| wire::from_bytes(bytes).map_err(|error| (index, error));
    bytes.iter().enumerate().map(decode).collect()
}

/// State after the first block of a log.
pub fn start(run: RunId, time: Millis, records: &[Record]) -> Result<State, Lie> {
    let Some((Record::Control(control @ Control::Genesis { .. }), rest)) = records.split_first() else {
        return Err(Lie::Genesis(GenesisError::NotGenesis));
    };
    let mut state = State::genesis(run, control)?;
    state.advance(time);
    fold(&mut state, rest, 1, &mut |_| Signatures::Check)?;
    Ok(state)
}

/// Folds one block into `state`, checking every record and every signature. After a lie the state is of no use.
pub fn replay(state: &mut State, time: Millis, records: &[Record]) -> Result<(), Lie> {
    replay_with(state, time, records, |_| Signatures::Check)
}

/// [`replay`], with `signatures` to choose by record index which envelopes' signatures are checked.
pub fn replay_with(
    state: &mut State,
    time: Millis,
    records: &[Record],
    mut signatures: impl FnMut(usize) -> Signatures,
) -> Result<(), Lie> {
    if time < state.now() {
        return Err(Lie::Time { before: state.now(), found: time });
    }
    state.advance(time);
    fold(state, records, 0, &mut signatures)
}

fn fold(
    state: &mut State,
    records: &[Record],
    first: usize,
    signatures: &mut dyn FnMut(usize) -> Signatures,
) -> Result<(), Lie> {
    for (offset, record) in records.iter().enumerate() {
        let index = first + offset;
        // A resumption stands before the deadlines that it moves.
        let resumes = index == 0 && matches!(record, Record::Control(Control::Resumed { .. }));
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
