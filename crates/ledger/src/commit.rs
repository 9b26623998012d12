//! Blocks as the log's owner makes them: inputs in the order of arrival, behind each what follows from it.

use wire::{Millis, RunId};

use crate::fold::{Fold, Input, InputOf, Record, RecordOf};

/// What a block holds and what became of its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed<F: Fold> {
    /// Records of the block, in order; empty if nothing happened (then no block is needed).
    pub records: Vec<RecordOf<F>>,
    /// One per input: accepted (and in `records`), or refused (and nowhere).
    pub outcomes: Vec<Result<(), F::Refusal>>,
}

/// First block of a log: the genesis record and what follows from it.
pub fn genesis<F: Fold>(
    run: RunId,
    time: Millis,
    control: F::Control,
) -> Result<(F, Vec<RecordOf<F>>), F::GenesisError> {
    let mut state = F::genesis(run, &control)?;
    state.advance(time);
    let mut records = vec![Record::Control(control)];
    drain(&mut state, &mut records);
    Ok((state, records))
}

/// Folds the inputs that arrived and all that follows. No effect of it may be shown before the block is durable
/// (protocol §6 "Order").
///
/// After a restart the first input is the one that [`Fold::resumes`]: it is taken before any deadline fires.
pub fn commit<F: Fold>(state: &mut F, now: Millis, inputs: Vec<InputOf<F>>) -> Committed<F> {
    let before = state.tip().clone();
    state.advance(now);
    let mut records = Vec::new();
    let mut outcomes = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.into_iter().enumerate() {
        let resumes = index == 0 && matches!(&input, Input::Control(control) if F::resumes(control));
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
        *state.tip_mut() = before;
    }
    Committed { records, outcomes }
}

fn drain<F: Fold>(state: &mut F, records: &mut Vec<RecordOf<F>>) {
    while let Some(derived) = state.due() {
        state.apply(&derived);
        records.push(Record::Derived(derived));
    }
}
