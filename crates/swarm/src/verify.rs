//! Replays a log: recomputes everything that follows and names the first record that does not.

use wire::{Millis, RunId};

use crate::record::{Control, Derived, Input, Record};
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
