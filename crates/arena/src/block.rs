//! Blocks as the host makes them: inputs in the order of arrival, behind each what follows from it.

use wire::{Millis, RunId};

use crate::record::{Control, Input, Record};
use crate::refusal::Refusal;
use crate::state::{GenesisError, State};

/// What a block holds and what became of its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Records of the block, in order; empty if nothing happened (then no block is needed).
    pub records: Vec<Record>,
    /// One per input: accepted (and in `records`), or refused (and nowhere).
    pub outcomes: Vec<Result<(), Refusal>>,
}

/// First block of a log: the genesis record alone.
pub fn genesis(run: RunId, time: Millis, control: Control) -> Result<(State, Vec<Record>), GenesisError> {
    let mut state = State::genesis(run, &control)?;
    state.advance(time);
    let mut records = vec![Record::Control(control)];
    drain(&mut state, &mut records);
    Ok((state, records))
}

/// Folds the inputs that arrived and all that follows. No effect of it may be shown before the block is durable
/// (protocol §6 "Order").
///
/// After a restart the first input is [`Control::Resumed`]: it is taken before any deadline fires.
pub fn commit(state: &mut State, now: Millis, inputs: Vec<Input>) -> Committed {
    let before = state.clock();
    state.advance(now);
    let mut records = Vec::new();
    let mut outcomes = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.into_iter().enumerate() {
        let resumes = index == 0 && matches!(input, Input::Control(Control::Resumed { .. }));
        if !resumes {
            drain(state, &mut records);
        }
        let outcome = state.accept(&input);
        if outcome.is_ok() {
            records.push(input.into());
        }
        outcomes.push(outcome);
    }
    drain(state, &mut records);
    if records.is_empty() {
        // No block, no time: the state stays the fold of the log.
        state.rewind(before);
    }
    Committed { records, outcomes }
}

fn drain(state: &mut State, records: &mut Vec<Record>) {
    while let Some(derived) = state.due() {
        state.apply(&derived);
        records.push(Record::Derived(derived));
    }
}
